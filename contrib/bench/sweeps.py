"""Measures sweeps of the manager over many upstreams that a real `git http-backend` serves over HTTP,
beside nvchecker, `git ls-remote` and a bare HTTP client in the same run.

Needs python3, git and curl; pip for nvchecker. Arguments select measurements: polls, large, sources.
"""

import functools
import json
import os
import shutil
import subprocess
import sys

from common import BENCH, ROUNDS, SMALL, TARGET, Run, count_tools, fail, main, median, row, show
from farms import Farm, fill_repository, git, import_repository, server, small_repository

# How long a round trip to a forge takes, in seconds.
LATENCY = 0.03
# The request by which the manager asks an upstream for its tags (gitprotocol-v2).
LISTING = b"0014command=ls-refs\n0017object-format=sha1\n0001001aref-prefix refs/tags/\n0000"
NVCHECKER = "nvchecker==2.22"


def sweep(farm, recipes, tags):
    """Runs a sweep that finds nothing new."""
    run = Run(farm.command("--once"), farm.log, counting=True)
    text = farm.log.read_text()
    if text.count('msg="poll complete"') != recipes or text.count(f"tags_seen={tags} matches_emitted={tags} queued=0") != recipes:
        fail(f"not every upstream was listed with {tags} published tags; see {farm.log}")
    return run


@functools.cache
def quiet_farm(recipes, tags):
    """Creates a farm whose versions are all published, with its upstreams."""
    origin = small_repository(f"origin-{tags}", tags)
    names, upstreams = [f"recipe-{number:04}" for number in range(recipes)], []
    for number in range(recipes):
        link = BENCH / "forge" / f"{tags}-{number}.git"
        if not link.is_symlink():
            link.symlink_to(origin)
        upstreams.append(server().url(number, link.name))
    farm = Farm(f"farm-{recipes}x{tags}", zip(names, upstreams))
    fill_repository(farm.state / "repo", names, tags)
    return farm, upstreams


def nvchecker():
    """Returns the program, installed below the target directory, or None and why there is none."""
    home = TARGET / "nvchecker"
    program = home / "bin/nvchecker"
    if program.exists():
        return program, None
    try:
        subprocess.run([sys.executable, "-m", "venv", home], check=True, capture_output=True, text=True)
        install = [home / "bin/pip", "install", "--quiet", "--timeout", "10", "--retries", "1", NVCHECKER]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(home, ignore_errors=True)
        return None, (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
    return program, None


def nvchecker_of(upstreams, program):
    """Returns the command that asks all upstreams, which it has asked once before."""
    home = BENCH / "nvchecker"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[__config__]\noldver = "{home}/old.json"\nnewver = "{home}/new.json"\n'
        + "".join(f'[recipe-{number:04}]\nsource = "git"\ngit = "{url}"\nprefix = "v"\n' for number, url in enumerate(upstreams))
    )
    command = [program, "--file", home / "config.toml"]
    Run(command, home / "log")
    found = json.loads((home / "new.json").read_text())["data"]
    if len(found) != len(upstreams):
        fail(f"nvchecker has listed {len(found)} of {len(upstreams)} upstreams; see {home}/log")
    shutil.copy(home / "new.json", home / "old.json")
    return command


def bare_client(upstreams):
    """Returns the command of curl that sends the two requests which git would send to each upstream."""
    (BENCH / "listing").write_bytes(LISTING)
    transfers = []
    for url in upstreams:
        common = 'header = "git-protocol: version=2"\noutput = "/dev/null"\nsilent\nfail\n'
        transfers.append(f'url = "{url}/info/refs?service=git-upload-pack"\nheader = "pragma: no-cache"\n{common}')
        types = "".join(f'header = "{field}: application/x-git-upload-pack-{kind}"\n' for field, kind in
                        (("content-type", "request"), ("accept", "result")))
        transfers.append(f'url = "{url}/git-upload-pack"\ndata-binary = "@{BENCH}/listing"\n{types}{common}')
    (BENCH / "curl").write_text("next\n".join(transfers))
    return ["curl", "--disable", "--parallel", "--parallel-max", "8", "--config", BENCH / "curl"]


def polls():
    recipes, tags = 200 // SMALL, 20
    farm, upstreams = quiet_farm(recipes, tags)
    bare, (program, reason) = bare_client(upstreams), nvchecker()
    checker = program and nvchecker_of(upstreams, program)
    (BENCH / "upstreams").write_text("\n".join(upstreams) + "\n")
    ls_remote = ["xargs", "-a", BENCH / "upstreams", "-P8", "-n1", shutil.which("git"), "ls-remote", "--quiet", "--tags"]
    near, distant, peers, connections, server_cpu = [], [], [], [], []
    count_tools()

    def pair():
        """Runs a sweep and the bare client."""
        server().mark()
        ours = sweep(farm, recipes, tags)
        connections.append(server().since("connections") - 1)
        server_cpu.append(server().since("cpu"))
        if server().since("requests") != recipes:
            fail(f"{server().since('requests')} requests for {recipes} upstreams")
        server().mark()
        client = Run(bare, BENCH / "curl.log")
        if server().since("requests") != 2 * recipes:
            fail(f"{server().since('requests')} requests of the bare client for {recipes} upstreams")
        connections.append(server().since("connections") - 1)
        return ours, client

    for _ in range(ROUNDS):
        near.append(pair())
        peers.append((Run(ls_remote, BENCH / "ls-remote.log"), Run(checker, BENCH / "nvchecker/log", tree=True) if checker else None))
        server().delay(LATENCY)
        distant.append(pair())
        server().delay(0)
    case, ours = f"{recipes} upstreams, nothing new", [ours for ours, _ in near]
    against = lambda field, peer: [getattr(ours, field) / getattr(run[peer], field) for (ours, _), run in zip(near, peers)]
    of = lambda field, peer: [getattr(run[peer], field) for run in peers]
    if checker:
        row(f"{case}: CPU against nvchecker", against("cpu", 1), "1/", 1 / 40, f"nvchecker {median(of('cpu', 1)):.2f} s", summary=True)
        row(f"{case}: memory against nvchecker", against("peak", 1), "1/", None, f"nvchecker {median(of('peak', 1)):.0f} MiB", summary=True)
    else:
        show(f"{case}: CPU against nvchecker", "1/", "nvchecker is not installed", allowed="<= 1/40",
             peer=f"python3 -m venv {TARGET}/nvchecker && {TARGET}/nvchecker/bin/pip install {NVCHECKER} ({reason})", summary=True)
    row(f"{case}: CPU against git ls-remote", against("cpu", 0), "1/", None, f"git ls-remote {median(of('cpu', 0)):.2f} s", summary=True)
    row(f"{case}: CPU", [run.cpu for run in ours], "s", 0.25)
    row(f"{case}: processes started", count_tools(), "", 0)
    row(f"{case}: memory", [run.peak for run in ours], "MiB", 10)
    row(f"{case}: wall against a bare client's two requests", [ours.wall / client.wall for ours, client in near], "x")
    row(f"  the same, each answer {LATENCY * 1000:.0f} ms later", [ours.wall / client.wall for ours, client in distant], "x", 0.65)
    row("  wall", [run.wall for run in ours], "s")
    row("  connections, of the manager", connections[0::2], "")
    row("  connections, of the bare client", connections[1::2], "")
    row("  CPU of the server meanwhile", server_cpu, "s")


def large():
    half, whole, tags = 500 // SMALL, 1000 // SMALL, 50
    farms = [(recipes, quiet_farm(recipes, tags)[0]) for recipes in (half, whole)]
    rounds = [[sweep(farm, recipes, tags) for recipes, farm in farms] for _ in range(min(ROUNDS, 3))]
    case = f"{whole} x {tags}, nothing new"
    row(f"{half} x {tags} to {whole} x {tags}: CPU", [large.cpu / small.cpu for small, large in rounds], "x", 2.2)
    row(f"{case}: CPU", [large.cpu for _, large in rounds], "s", 2)
    row(f"{case}: memory", [large.peak for _, large in rounds], "MiB", 32)
    row(f"{case}: wall", [large.wall for _, large in rounds], "s")


def sources():
    """Builds 20 versions, each of which changes two of 360 files of 50 KB: 20 MB of history, most of it
    in every version."""
    noise = lambda: os.urandom(50_000 // SMALL)
    first = {f"file-{number}": noise() for number in range(360)}
    repository = import_repository("history", [first, *({f"file-{2 * n}": noise(), f"file-{2 * n + 1}": noise()} for n in range(19))])
    git("-C", repository, "repack", "-adq")
    transferred = []
    for name, pattern, versions in (("newest", r"^v(20)$", 1), ("every", r"^v(\d+)$", 20)):
        farm = Farm(name, [("history", server().url(0, "history"))], pattern)
        server().mark()
        farm.sweep(versions)
        transferred.append(server().since("bytes"))
    newest, every = transferred
    row("20 versions built: bytes against the newest alone", every / newest, "x", 1.5, f"{every / 1e6:.1f} MB : {newest / 1e6:.1f} MB")


if __name__ == "__main__":
    main("Sweeps over upstreams on smart HTTP", {"polls": polls, "large": large, "sources": sources})
