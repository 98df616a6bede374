"""Measures what a version costs that is built and published, in target/bench-publishes/, with trivial
builds, so that everything else shows:

  sweep    5,000 versions of one upstream in one sweep: the last hundred against the first
  many     300 versions of 20 upstreams, in memory (/dev/shm) if there is room
  backlog  300 versions into a repository of 50,000 packages against one of 100

Arguments select measurements. BENCH_SCALE=small measures a tenth of everything, as a trial; ROUNDS=N
repeats (3). BIN=DIR uses the programs in DIR and builds nothing. Needs python3, git and openssl.

CPU time is that of the manager and of all its children. Finished versions are published in groups, so
only the sum of a whole run, divided by its versions, tells what one costs.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BENCH = TARGET / "bench-publishes"
MEMORY = Path("/dev/shm")
SMALL = 10 if os.environ.get("BENCH_SCALE") == "small" else 1
ROUNDS = int(os.environ.get("ROUNDS", 3))
KEY = b"a key of a measurement, and open"
TICK = os.sysconf("SC_CLK_TCK")


def row(case, measured, goal=""):
    print(f"  {case:<58} {measured:<24} {goal}", flush=True)


def fail(reason):
    sys.exit(f"publishes.py: {reason}; {BENCH} is left as it is")


def environment():
    kept = {name: value for name, value in os.environ.items() if name in ("TMPDIR", "USER", "LOGNAME")}
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", "HOME": str(BENCH)}
    return dict(kept, PATH=f"{BENCH / 'bin'}:{os.environ['PATH']}", **settings)


def prepare():
    binaries = os.environ.get("BIN")
    if binaries is None:
        subprocess.run(["cargo", "build", "--release", "--workspace"], cwd=ROOT, check=True)
        binaries = TARGET / "release"
    shutil.rmtree(BENCH, ignore_errors=True)
    (BENCH / "bin").mkdir(parents=True)
    for name in ("peipkg-manager", "peipkg-build", "peipkg-repo"):
        (BENCH / "bin" / name).symlink_to(Path(binaries).resolve() / name)


def tool(*command, **more):
    done = subprocess.run([*map(str, command)], env=environment(), check=True, capture_output=True, **more)
    return done.stdout


class Farm:
    def __init__(self, home, upstreams, versions, published=0):
        """A farm whose recipes have an upstream with `versions` tags each, and a repository with
        `published` other packages."""
        self.home, self.versions = home, upstreams * versions
        self.config = home / "config.toml"
        shutil.rmtree(home, ignore_errors=True)
        (home / "recipes").mkdir(parents=True)
        (home / "farm.key").write_bytes(KEY)
        self.config.write_text(
            f'[manager]\nid = "bench"\nrecipes_dir = "{home}/recipes"\nstate_dir = "{home}/state"\n[repo]\n'
            f'name = "bench"\n[signing]\nkey_file = "{home}/farm.key"\n[poll]\ndefault_interval = "1h"\n'
        )
        for number in range(upstreams):
            self.add(f"thing-{number:02}", versions)
        self.index = home / "state/repo/index"
        if published:
            self.publish(published)

    def add(self, name, versions):
        upstream, recipe = self.home / f"{name}.git", self.home / "recipes" / name
        tool("git", "init", "--bare", "--quiet", "--initial-branch=main", upstream)
        stream = "commit refs/heads/main\ncommitter Bench <bench@example.org> 1767225600 +0000\ndata 0\n"
        stream += f"M 100644 inline file\ndata {len(name)}\n{name}\n\n"
        stream += "".join(f"reset refs/tags/v{number}\nfrom refs/heads/main\n\n" for number in range(1, versions + 1))
        tool("git", "-C", upstream, "fast-import", "--quiet", input=stream.encode())
        tool("git", "-C", upstream, "pack-refs", "--all")
        recipe.mkdir()
        (recipe / "peipkg.toml").write_text(
            f'[meta]\nlicense = "MIT"\nbuild_script = "build.sh"\n[[package]]\nname = "{name}"\narchitecture = '
            f'"noarch"\ndescription = "Something to measure"\nfiles = ["usr/share/**"]\n[upstream]\n'
            f"git = \"file://{upstream}\"\ntag_pattern = '^v(\\d+)$'\n"
        )
        (recipe / "build.sh").write_text('mkdir -p "$DESTDIR/usr/share"\ncp "$SOURCE_DIR/file" "$DESTDIR/usr/share/"\n')

    def publish(self, count):
        """Makes a repository with `count` packages, ten versions of each name. Their files are missing: no
        publish looks at them."""
        repo = self.index.parent
        repo.parent.mkdir()
        tool("peipkg-repo", "init", "--name", "bench", "--sign-key", self.home / "farm.key", "--timestamp",
             "2026-01-01T00:00:00Z", "--out", repo)
        self.write("archive", [entry(f"library-{number:05}", version)
                               for number in range(count // 10) for version in range(10, 0, -1)])
        self.write("active", [entry(f"library-{number:05}", 10) for number in range(count // 10)])

    def write(self, kind, packages):
        file, signature = self.index / f"{kind}.json", self.index / f"{kind}.json.sig"
        document = dict(json.loads(file.read_text()), packages=packages)
        file.write_text(json.dumps(document, separators=(",", ":")) + "\n")
        # PKCS#8 of an Ed25519 key is this prefix and the key (RFC 8410 §7).
        (self.home / "key.der").write_bytes(bytes.fromhex("302e020100300506032b657004220420") + KEY)
        (self.home / "digest").write_bytes(hashlib.sha256(file.read_bytes()).digest())
        signed = tool("openssl", "pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", self.home / "key.der",
                      "-in", self.home / "digest")
        envelope = dict(json.loads(signature.read_text()), signature=base64.b64encode(signed).decode().rstrip("="))
        signature.write_text(json.dumps(envelope, separators=(",", ":")) + "\n")

    def index_version(self):
        with open(self.index / "archive.json") as file:
            return int(re.search(r'"index_version":(\d+)', file.read(1000)).group(1))


def entry(name, version):
    full, file = f"1.{version}.0-1", f"{name}_1.{version}.0-1_x86_64.peipkg"
    return {
        "name": name, "version": full, "architecture": "x86_64",
        "description": "A library that does a thing or two, to measure indexes",
        "license": "MIT", "homepage": f"https://example.org/{name}",
        "dependencies": [{"name": "libc", "constraint": ">= 2.30"}, {"name": "libz", "constraint": ">= 1.2"}],
        "optional_dependencies": [], "conflicts": [], "provides": [{"name": f"{name}.so.1", "version": "1"}],
        "replaces": [], "side_effects": [], "size_compressed": 123456, "size_installed": 345678,
        "hash": {"algorithm": "sha256", "value": hashlib.sha256(file.encode()).hexdigest()},
        "url": f"/p/{name}/{full}/{file}", "build": {"timestamp": "2026-01-01T00:00:00Z", "farm_id": "bench"},
    }


class Run:
    """A sweep: `wall` seconds, `cpu` seconds of all processes, `own` of the manager alone, its `peak` memory in
    MiB, the number of `publishes`, and `samples` of published versions and CPU seconds so far."""

    def __init__(self, farm):
        before = farm.index_version() if farm.index.exists() else 1
        log, begin = farm.home / "log", time.monotonic()
        self.samples, self.own, self.peak, published = [(0, 0.0)], 0.0, 0.0, 0
        with open(log, "w") as output, open(log) as lines:
            command = [BENCH / "bin/peipkg-manager", "--once", "--config", farm.config]
            process = subprocess.Popen(command, env=environment(), cwd="/", stderr=output)
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                published += lines.read().count('msg="build + publish complete"')
                self.sample(process.pid, published)
                time.sleep(0.02)
            published += lines.read().count('msg="build + publish complete"')
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or published != farm.versions:
            fail(f"{published} of {farm.versions} versions were published, exit code {process.returncode}; see {log}")
        self.wall, self.cpu = time.monotonic() - begin, usage.ru_utime + usage.ru_stime
        self.samples.append((published, self.cpu))
        self.publishes = farm.index_version() - before
        left = [path for name in ("sources", "stage", "publish") for path in (farm.home / "state" / name).iterdir()]
        if left:
            fail(f"left behind: {left[0]}")
        tool("peipkg-repo", "verify", "--repo", farm.home / "state/repo", "--mode", "metadata")

    def sample(self, pid, published):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        user, system, of_children, by_children = (int(field) / TICK for field in stat[11:15])
        self.own = user + system
        self.peak = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), self.peak)
        self.samples.append((published, self.own + of_children + by_children))

    def cpu_until(self, count):
        """The CPU seconds when `count` versions were published, between two samples."""
        after = next(place for place, (published, _) in enumerate(self.samples) if published >= count)
        (low, earlier), (high, later) = self.samples[max(after - 1, 0)], self.samples[after]
        return later if high == low else earlier + (later - earlier) * (count - low) / (high - low)


def milliseconds(seconds):
    return f"{1000 * seconds:.1f} ms"


def sweep():
    versions, part = 5000 // SMALL, 100 // SMALL
    print(f"{versions} versions of one upstream in one sweep")
    run = Run(Farm(BENCH / "sweep", 1, versions))
    first, last = run.cpu_until(part), run.cpu - run.cpu_until(versions - part)
    row("each: wall clock", milliseconds(run.wall / versions))
    row("each: CPU, and of the manager alone", f"{milliseconds(run.cpu / versions)}, {milliseconds(run.own / versions)}")
    row(f"CPU of the first {part}, of the last {part}", f"{first:.2f} s, {last:.2f} s")
    row("the last against the first", f"{last / first:.2f}", "<= 1.1")
    row("publishes", str(run.publishes))
    row("peak memory of the manager", f"{run.peak:.1f} MiB")


def many():
    each = 15 if SMALL == 1 else 2
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 28
    home = (MEMORY if in_memory else BENCH) / "peipkg-bench-many"
    print(f"{20 * each} versions of 20 upstreams, {'in memory' if in_memory else 'on disk'}")
    try:
        runs = [Run(Farm(home, 20, each)) for _ in range(ROUNDS)]
    finally:
        shutil.rmtree(home, ignore_errors=True)
    count = 20 * each
    row("each: wall clock", milliseconds(statistics.median(run.wall for run in runs) / count), "<= 18 ms")
    row("each: CPU", milliseconds(statistics.median(run.cpu for run in runs) / count))


def backlog():
    versions, sizes = 300 // SMALL, (100, 50000 // SMALL)
    print(f"{versions} versions into a repository of {sizes[1]:,} packages against one of {sizes[0]}")
    rounds = [[Run(Farm(BENCH / "backlog", 1, versions, size)) for size in sizes] for _ in range(ROUNDS)]
    for place, size in enumerate(sizes):
        runs = [runs[place] for runs in rounds]
        cpu, own = (statistics.median(values) / versions for values in zip(*((run.cpu, run.own) for run in runs)))
        row(f"{size:,} packages: CPU of each, of the manager alone", f"{milliseconds(cpu)}, {milliseconds(own)}")
        row(f"{size:,} packages: publishes", str(statistics.median(run.publishes for run in runs)))
        row(f"{size:,} packages: peak memory of the manager", f"{max(run.peak for run in runs):.1f} MiB")
    ratio = statistics.median(large.cpu / small.cpu for small, large in rounds)
    row("CPU of the large one against the small one", f"{ratio:.2f}", "<= 1.5")


def main():
    measurements = {"sweep": sweep, "many": many, "backlog": backlog}
    unknown = set(sys.argv[1:]) - set(measurements)
    if unknown:
        fail(f"unknown measurement {unknown.pop()}, expected {', '.join(measurements)}")
    prepare()
    for name in sys.argv[1:] or measurements:
        measurements[name]()
    shutil.rmtree(BENCH, ignore_errors=True)


main()
