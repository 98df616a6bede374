"""Measures builds and publishes of many trivial versions by a sweep of the manager: with few and with
many packages published before, at the beginning and at the end of a long sweep, and of many
upstreams. CPU includes git, peipkg-build and peipkg-repo.

Needs python3 and openssl. Arguments select measurements: backlog, long, many.
"""

import shutil
import tempfile
import time
from pathlib import Path

from common import BENCH, ROUNDS, SMALL, cpu, fail, main, row, spawn
from farms import Farm, fill_repository, small_repository

FEWER_ROUNDS = min(ROUNDS, 3)


def backlog():
    """A backlog of 100 versions, with 100 packages published before and with 50,000."""
    versions, per_name = 100 // SMALL, 20
    upstream = small_repository("backlog", versions)
    sizes, spent, peaks = (100, 50_000 // SMALL), {}, {}
    rounds = []
    for size in sizes:
        names = [f"recipe-{number:05}" for number in range(size // per_name)]
        fill_repository(BENCH / f"filled-{size}", names, per_name)
    for number in range(FEWER_ROUNDS):
        rounds.append([])
        for size in sizes:
            farm = Farm(f"backlog-{size}-{number}", [("thing", f"file://{upstream}")])
            shutil.copytree(BENCH / f"filled-{size}", farm.state / "repo")
            run = farm.sweep(versions)
            rounds[-1].append(run)
            spent.setdefault(size, []).append(run.cpu / versions * 1000)
            peaks.setdefault(size, []).append(run.peak)
            shutil.rmtree(farm.home)
    ratios = [large.cpu / small.cpu for small, large in rounds]
    row(f"a version of a backlog, {sizes[1]:,} packages against {sizes[0]}: CPU", ratios, "x", 1.5, summary=True)
    for size in sizes:
        row(f"  with {size:,} packages: CPU of a version", spent[size], "ms")
        row(f"  with {size:,} packages: memory of the manager", peaks[size], "MiB")


def long():
    """5,000 versions in one sweep: the last hundred against the first, once."""
    versions, part = (5000, 100) if SMALL == 1 else (200, 20)
    farm = Farm("long", [("thing", f"file://{small_repository('long', versions)}")])
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
    first, last = ((marks[end] - marks[begin]) / part for begin, end in ((warm, warm + part), (versions - part, versions)))
    row(f"{versions:,} versions, the last {part} against the first: CPU", last / first, "x", 1.1,
        f"{last * 1000:.1f} : {first * 1000:.1f} ms each", summary=True)
    left = [path for directory in ("sources", "stage", "publish") for path in (farm.state / directory).iterdir()]
    if left:
        fail(f"{left[0]} is left")
    shutil.rmtree(farm.home)


def many():
    """300 versions of 20 upstreams, in memory where the machine has /dev/shm."""
    upstreams, tags = 20, 15 if SMALL == 1 else 3
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
    row("  CPU of each", [run.cpu / versions * 1000 for run in runs], "ms")
    row("  processors busy meanwhile", [run.cpu / run.wall for run in runs], "x")


if __name__ == "__main__":
    main("Many versions", {"backlog": backlog, "long": long, "many": many})
