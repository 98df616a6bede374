"""Measures builds and publishes of trivial versions by the manager: with few and with many packages
published before, in a backlog and alone; at the beginning and at the end of a long sweep; and of many
upstreams. CPU includes git, peipkg-build and peipkg-repo.

Needs python3, git and openssl. Arguments select measurements: backlog, alone, long, many.
"""

import json
import shutil
import signal
import tempfile
import time
from pathlib import Path

from common import BENCH, ROUNDS, SMALL, cpu, fail, main, row, spawn, stop, wait_logged
from farms import Farm, fill_repository, git, small_repository

FEWER_ROUNDS = min(ROUNDS, 3)
SIZES = (100, 50_000 // SMALL)
COMPLETE = "build + publish complete"


def filled(size):
    """Returns a repository that lists `size` packages."""
    repo, per_name = BENCH / f"filled-{size}", 20
    if not repo.exists():
        fill_repository(repo, [f"recipe-{number:05}" for number in range(size // per_name)], per_name)
    return repo


def farm_into(name, size, upstream):
    """Creates a farm of one recipe with `size` packages published before."""
    farm = Farm(name, [("thing", f"file://{upstream}")])
    shutil.copytree(filled(size), farm.state / "repo")
    return farm


def backlog():
    """A backlog of 100 versions, with 100 packages published before and with 50,000. What is finished
    while a publish runs is published together by the next one."""
    versions = 100 // SMALL
    upstream = small_repository("backlog", versions)
    runs, groups = {size: [] for size in SIZES}, {size: [] for size in SIZES}
    for number in range(FEWER_ROUNDS):
        for size in SIZES:
            farm = farm_into(f"backlog-{size}-{number}", size, upstream)
            before = index_version(farm)
            runs[size].append(farm.sweep(versions))
            groups[size].append(versions / (index_version(farm) - before))
            shutil.rmtree(farm.home)
    few, most = (runs[size] for size in SIZES)
    ratios = [large.cpu / small.cpu for small, large in zip(few, most)]
    row(f"a version of a backlog, {SIZES[1]:,} packages against {SIZES[0]}: CPU", ratios, "x", 1.5, summary=True)
    for size in SIZES:
        row(f"  with {size:,} packages: CPU of a version", [run.cpu / versions * 1000 for run in runs[size]], "ms")
        row(f"  with {size:,} packages: versions in a publish", groups[size], "")
        row(f"  with {size:,} packages: memory of the manager", [run.peak for run in runs[size]], "MiB")


def index_version(farm):
    return json.loads((farm.state / "repo/index/active.json").read_text())["index_version"]


def alone():
    """One version at a time, as most releases come: each has a publish of its own."""
    daemons, versions = [], 2 * ROUNDS
    for size in SIZES:
        upstream = small_repository(f"alone-{size}", versions + 1)
        commits = git("-C", upstream, "rev-list", "--reverse", "main").decode().split()
        git("-C", upstream, "tag", "--delete", *(f"v{number}" for number in range(2, versions + 2)))
        farm = farm_into(f"alone-{size}", size, upstream)
        process = spawn(farm.command(), farm.log)
        wait_logged(farm.log, process, COMPLETE, 1)
        daemons.append((farm, process, upstream, commits, []))
    for number in range(2, versions + 2):
        for farm, process, upstream, commits, spent in daemons:
            git("-C", upstream, "tag", f"v{number}", commits[number - 1])
            before = cpu(process)
            process.send_signal(signal.SIGHUP)
            wait_logged(farm.log, process, COMPLETE, number)
            spent.append((cpu(process) - before) * 1000)
    small, large = (spent for *_, spent in daemons)
    row(f"a version alone, {SIZES[1]:,} packages against {SIZES[0]}: CPU", [b / a for a, b in zip(small, large)], "x", summary=True)
    for size, (farm, process, _, _, spent) in zip(SIZES, daemons):
        stop(process)
        row(f"  with {size:,} packages: CPU of a version", spent, "ms")
        shutil.rmtree(farm.home)


def long():
    """5,000 versions in one sweep: the last hundred against the first."""
    versions, part = (5000, 100) if SMALL == 1 else (200, 20)
    upstream = small_repository("long", versions)
    sweeps = [first_and_last(f"long-{number}", upstream, versions, part) for number in range(FEWER_ROUNDS)]
    row(f"{versions:,} versions, the last {part} against the first: CPU", [last / first for first, last in sweeps], "x", 1.1,
        summary=True)
    for case, spent in zip(("first", "last"), zip(*sweeps)):
        row(f"  the {case} {part}: CPU of a version", [cost * 1000 for cost in spent], "ms")


def first_and_last(name, upstream, versions, part):
    """Sweeps all versions. Returns the seconds of CPU of a version: the mean of the first `part`, and of the last."""
    farm = Farm(name, [("thing", f"file://{upstream}")])
    # The first builds find nothing to publish beside them.
    warm = 10
    marks = dict.fromkeys((warm, warm + part, versions - part, versions))
    process = spawn(farm.command("--once"), farm.log)
    begun = 0
    with open(farm.log) as lines:
        while process.poll() is None:
            line = lines.readline()
            if not line:
                time.sleep(0.002)
                continue
            begun += 'msg="starting build"' in line
            if begun in marks and marks[begun] is None:
                marks[begun] = cpu(process)
    if process.returncode:
        fail(f"the sweep ended with {process.returncode}; see {farm.log}")
    farm.check_published(versions)
    if None in marks.values():
        fail(f"not every build was seen in {farm.log}")
    left = [path for directory in ("sources", "stage", "publish") for path in (farm.state / directory).iterdir()]
    if left:
        fail(f"{left[0]} is left")
    shutil.rmtree(farm.home)
    return tuple((marks[end] - marks[begin]) / part for begin, end in ((warm, warm + part), (versions - part, versions)))


def many():
    """300 versions of 20 upstreams, in memory where the machine has /dev/shm."""
    upstreams, tags = (20, 15) if SMALL == 1 else (5, 4)
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() else BENCH
    runs = []
    with tempfile.TemporaryDirectory(prefix="peipkg-bench-", dir=where) as parent:
        forge = Path(parent) / "forge"
        forge.mkdir()
        recipes = [(f"thing-{n:02}", f"file://{small_repository(f'upstream-{n}', tags, forge)}") for n in range(upstreams)]
        for number in range(ROUNDS):
            farm = Farm(f"many-{number}", recipes, parent=Path(parent))
            runs.append(farm.sweep(upstreams * tags))
            shutil.rmtree(farm.home)
    versions = upstreams * tags
    case = f"{versions} versions of {upstreams} upstreams{', tmpfs' if where == memory else ''}: each"
    row(f"{case}, wall", [run.wall / versions * 1000 for run in runs], "ms", 18, summary=True)
    row(f"{case}, CPU", [run.cpu / versions * 1000 for run in runs], "ms", summary=True)
    row("  processors busy meanwhile", [run.cpu / run.wall for run in runs], "x")


if __name__ == "__main__":
    main("Builds of trivial versions", {"backlog": backlog, "alone": alone, "long": long, "many": many})
