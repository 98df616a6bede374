"""Measures the manager on large farms in target/bench-sweeps/, whose upstreams a real
`git http-backend` serves over HTTP. Prints a table of the measurements, their goals, and the results
of `git ls-remote` or a bare HTTP client in the same run. docs/performance.md explains each figure.

Needs python3, git, curl and openssl. Arguments select measurements: polls, large, sources, start,
daemons, idle, size. BENCH_SCALE=small measures a tenth of everything, as a trial; ROUNDS=N repeats (5).
BIN=DIR uses the programs in DIR and builds nothing.

Time is CPU time of the manager and its children (wait4) unless marked "wall". Memory is the peak
resident set (VmHWM), sampled every 10 ms. Stand-ins for the tools, first on the PATH, count
processes.
"""

import functools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BENCH = TARGET / "bench-sweeps"
SMALL = 10 if os.environ.get("BENCH_SCALE") == "small" else 1
ROUNDS = int(os.environ.get("ROUNDS", 5))
TOOLS = ["git", "peipkg-build", "peipkg-repo"]
# How long a round trip to a forge takes, in seconds.
LATENCY = 0.03
LISTING = b"0014command=ls-refs\n0017object-format=sha1\n0001001aref-prefix refs/tags/\n0000"

rows = []


def row(case, measured, goal="", peer=""):
    rows.append((case, measured, goal, peer))
    print(f"  {case:<58} {measured:<18} {goal:<12} {peer}", flush=True)


def fail(reason):
    sys.exit(f"sweeps.py: {reason}; {BENCH} is left as it is")


def environment():
    """Returns the environment of every program here, without settings of this machine's user."""
    kept = {name: value for name, value in os.environ.items() if name in ("TMPDIR", "USER", "LOGNAME")}
    path = f"{BENCH / 'bin'}:{BENCH / 'real'}:{os.environ['PATH']}"
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return dict(kept, PATH=path, HOME=str(BENCH), **settings)


def prepare():
    binaries = os.environ.get("BIN")
    if binaries is None:
        subprocess.run(["cargo", "build", "--release", "--workspace"], cwd=ROOT, check=True)
        binaries = TARGET / "release"
    shutil.rmtree(BENCH, ignore_errors=True)
    for name in ("bin", "real", "forge"):
        (BENCH / name).mkdir(parents=True)
    for name in ("peipkg-manager", "peipkg-build", "peipkg-repo"):
        (BENCH / "real" / name).symlink_to(Path(binaries).resolve() / name)
    for name in TOOLS:
        real = BENCH / "real" / name if name != "git" else shutil.which("git")
        stand_in = BENCH / "bin" / name
        stand_in.write_text(f'#!/bin/sh\necho {name} >>"{BENCH}/started"\nexec "{real}" "$@"\n')
        stand_in.chmod(0o755)


class Server:
    """The git server and its counters since the last query."""

    def __init__(self, *tls):
        command = [sys.executable, Path(__file__).with_name("git_server.py"), BENCH / "forge", *tls]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        self.before = None

    def url(self, number, repository):
        return f"http://127.0.0.{number % 4 + 1}:{self.port}/{repository}"

    def mark(self):
        self.before = self.stats()

    def since(self, what):
        return self.stats()[what] - self.before[what]

    def delay(self, seconds):
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_latency/{seconds}").close()

    def stats(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_stats") as answer:
            return json.load(answer)


def git(*arguments, **more):
    return subprocess.run(["git", *map(str, arguments)], env=environment(), check=True, capture_output=True, **more).stdout


def import_repository(name, commits):
    """Creates a bare repository in the forge, with a tag v1, v2 … for each of `commits`, which
    map paths to contents."""
    repository = BENCH / "forge" / name
    git("init", "--bare", "--quiet", repository)
    stream = []
    for number, files in enumerate(commits, 1):
        stream.append(b"commit refs/heads/main\ncommitter Bench <bench@example.org> %d +0000\ndata 0\n" % (1767225600 + number))
        for path, content in files.items():
            stream.append(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(content), content))
        stream.append(b"\nreset refs/tags/v%d\nfrom refs/heads/main\n\n" % number)
    git("-C", repository, "fast-import", "--quiet", input=b"".join(stream))
    git("-C", repository, "symbolic-ref", "HEAD", "refs/heads/main")
    git("-C", repository, "pack-refs", "--all")
    return repository


class Farm:
    def __init__(self, name, recipes, pattern=r"^v(\d+)$"):
        """Takes `recipes` as pairs of name and upstream."""
        self.home = BENCH / name
        self.state = self.home / "state"
        self.config = self.home / "config.toml"
        (self.home / "recipes").mkdir(parents=True)
        (self.home / "farm.key").write_bytes(b"a key of a measurement, and open")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config.write_text(
            f'[manager]\nid = "bench"\nrecipes_dir = "{self.home}/recipes"\nstate_dir = "{self.state}"\n'
            f'[repo]\nname = "bench"\n[signing]\nkey_file = "{self.home}/farm.key"\n'
            f'[poll]\ndefault_interval = "168h"\n[http]\naddr = "127.0.0.1:{self.port}"\n'
        )
        for recipe, upstream in recipes:
            directory = self.home / "recipes" / recipe
            directory.mkdir()
            (directory / "peipkg.toml").write_text(
                f'[meta]\nlicense = "MIT"\nbuild_script = "build.sh"\n[[package]]\nname = "{recipe}"\n'
                'architecture = "noarch"\ndescription = "Something to measure"\nfiles = ["usr/share/**"]\n'
                f"[upstream]\ngit = \"{upstream}\"\ntag_pattern = '{pattern}'\n"
            )
            (directory / "build.sh").write_text('mkdir -p "$DESTDIR/usr/share"\ncp "$SOURCE_DIR/file-0" "$DESTDIR/usr/share/"\n')

    def command(self, *arguments):
        return [str(BENCH / "real/peipkg-manager"), "--config", str(self.config), *arguments]

    def publish_all(self, template, recipes, tags):
        """Writes an archive index with all versions, each entry as long as a real one."""
        self.state.mkdir(exist_ok=True)
        shutil.copytree(template.state / "repo", self.state / "repo", dirs_exist_ok=True)
        index = next((self.state / "repo").rglob("archive.json"))
        document = json.loads(index.read_text())
        entry = document["packages"][0]
        document["packages"] = [
            dict(entry, name=recipe, version=f"{version}-1") for recipe in recipes for version in range(1, tags + 1)
        ]
        index.write_text(json.dumps(document))


def spawn(command, output):
    # Do not run in a checkout: its configuration would make the manager list with git.
    return subprocess.Popen(command, env=environment(), cwd="/", stdout=output, stderr=output)


class Run:
    """A program's run: `cpu` and `wall` in seconds, `peak` in MiB, and the `tools` it started."""

    def __init__(self, command, log=None):
        (BENCH / "started").write_text("")
        peak, begin = 0, time.monotonic()
        with open(log or os.devnull, "w") as output:
            process = spawn(command, output)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, memory(process.pid, "VmHWM") or 0)
            time.sleep(0.01)
        self.wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            fail(f"{command[0]} ended with {process.returncode}; see {log}")
        self.cpu = usage.ru_utime + usage.ru_stime
        self.peak = peak
        self.tools = len((BENCH / "started").read_text().splitlines())


def memory(pid, field):
    """Returns a field of /proc/<pid>/status in MiB; None if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), None)


def sweep(farm, recipes, tags):
    """Runs a sweep that finds nothing new."""
    log = farm.home / "log"
    run = Run(farm.command("--once"), log)
    text = log.read_text()
    if text.count('msg="poll complete"') != recipes or text.count(f"tags_seen={tags} matches_emitted={tags} queued=0") != recipes:
        fail(f"not every upstream was listed with {tags} published tags; see {log}")
    return run


def median(values):
    return statistics.median(values)


@functools.cache
def quiet_farm(server, template, recipes, tags):
    """Creates a farm whose versions are all published, with its upstreams."""
    origin = BENCH / "forge" / f"origin-{tags}"
    if not origin.exists():
        import_repository(origin.name, [{"file-0": b"%d\n" % number} for number in range(tags)])
    names, upstreams = [f"recipe-{number:04}" for number in range(recipes)], []
    for number in range(recipes):
        link = BENCH / "forge" / f"{tags}-{number}.git"
        if not link.is_symlink():
            link.symlink_to(origin)
        upstreams.append(server.url(number, link.name))
    farm = Farm(f"farm-{recipes}x{tags}", zip(names, upstreams))
    farm.publish_all(template, names, tags)
    return farm, upstreams


def published_template():
    """Builds one real package and returns its farm, whose index is a template for others."""
    repository = import_repository("template", [{"file-0": b"a file\n"}])
    farm = Farm("template", [("template", f"file://{repository}")])
    Run(farm.command("--once"), farm.home / "log")
    return farm


def polls(server, template):
    recipes, tags = 200 // SMALL, 20
    farm, upstreams = quiet_farm(server, template, recipes, tags)
    (BENCH / "listing").write_bytes(LISTING)
    transfers = []
    for url in upstreams:
        common = 'header = "git-protocol: version=2"\noutput = "/dev/null"\nsilent\nfail\n'
        transfers.append(f'url = "{url}/info/refs?service=git-upload-pack"\nheader = "pragma: no-cache"\n{common}')
        types = "".join(f'header = "{field}: application/x-git-upload-pack-{kind}"\n' for field, kind in
                        (("content-type", "request"), ("accept", "result")))
        transfers.append(f'url = "{url}/git-upload-pack"\ndata-binary = "@{BENCH}/listing"\n{types}{common}')
    (BENCH / "curl").write_text("next\n".join(transfers))
    bare = ["curl", "--disable", "--parallel", "--parallel-max", "8", "--config", str(BENCH / "curl")]
    (BENCH / "upstreams").write_text("\n".join(upstreams) + "\n")
    peer = ["xargs", "-a", str(BENCH / "upstreams"), "-P8", "-n1", shutil.which("git"), "ls-remote", "--quiet", "--tags"]
    rounds, distant, connections, server_cpu = [], [], [], []

    def pair():
        """Runs a sweep and the bare client."""
        server.mark()
        ours = sweep(farm, recipes, tags)
        connections.append(server.since("connections") - 1)
        server_cpu.append(server.since("cpu"))
        if server.since("requests") != recipes:
            fail(f"{server.since('requests')} requests for {recipes} upstreams")
        server.mark()
        client = Run(bare, BENCH / "curl.log")
        if server.since("requests") != 2 * recipes:
            fail(f"{server.since('requests')} requests of the bare client for {recipes} upstreams")
        connections.append(server.since("connections") - 1)
        return ours, client

    for _ in range(ROUNDS):
        rounds.append((*pair(), Run(peer, BENCH / "ls-remote.log")))
        server.delay(LATENCY)
        distant.append(pair())
        server.delay(0)
    case = f"{recipes} x {tags}, nothing new"
    cpu = median(ours.cpu for ours, _, _ in rounds)
    ratio = median(peer.cpu / ours.cpu for ours, _, peer in rounds)
    git_cpu = median(peer.cpu for _, _, peer in rounds)
    row(f"{case}: CPU", f"{cpu:.3f} s", "<= 0.25 s", f"git ls-remote {git_cpu:.2f} s, {ratio:.0f}x")
    row(f"{case}: processes started", f"{max(ours.tools for ours, _, _ in rounds)}", "0")
    row(f"{case}: peak memory", f"{max(ours.peak for ours, _, _ in rounds):.1f} MiB", "<= 10 MiB")
    ratio = median(ours.wall / client.wall for ours, client, _ in rounds)
    wall, client = median(ours.wall for ours, _, _ in rounds), median(client.wall for _, client, _ in rounds)
    row(f"{case}: wall against a bare client's two requests", f"{ratio:.2f}x", "", f"{wall:.2f} s : {client:.2f} s")
    far = median(ours.wall / client.wall for ours, client in distant)
    wall, client = median(ours.wall for ours, _ in distant), median(client.wall for _, client in distant)
    row(f"  the same, each answer {LATENCY * 1000:.0f} ms later", f"{far:.2f}x", "<= 0.65x", f"{wall:.2f} s : {client:.2f} s")
    ratio = median(peer.wall / ours.wall for ours, _, peer in rounds)
    row("  git ls-remote, 8 at a time, against ours: wall", f"{ratio:.2f}x")
    row("  connections, ours and the bare client's", f"{median(connections[0::2]):.0f} : {median(connections[1::2]):.0f}")
    row("  CPU of the server meanwhile", f"{median(server_cpu):.2f} s")


def large(server, template):
    half, whole, tags = 500 // SMALL, 1000 // SMALL, 50
    farms = [(recipes, quiet_farm(server, template, recipes, tags)[0]) for recipes in (half, whole)]
    rounds = [[sweep(farm, recipes, tags) for recipes, farm in farms] for _ in range(min(ROUNDS, 3))]
    case = f"{whole} x {tags}, nothing new"
    row(f"{case}: CPU", f"{median(large.cpu for _, large in rounds):.2f} s", "<= 2 s")
    row(f"{case}: peak memory", f"{max(large.peak for _, large in rounds):.1f} MiB", "<= 32 MiB")
    row(f"{case}: wall", f"{median(large.wall for _, large in rounds):.2f} s")
    growth = median(large.cpu / small.cpu for small, large in rounds)
    row(f"{half} x {tags} to {whole} x {tags}: CPU", f"{growth:.2f}x", "<= 2.2x")


def sources(server, _):
    """Builds 20 versions, each of which changes two of 360 files of 50 KB: 20 MB of history, most of it
    in every version."""
    noise = lambda: os.urandom(50_000 // SMALL)
    first = {f"file-{number}": noise() for number in range(360)}
    repository = import_repository("history", [first, *({f"file-{2 * n}": noise(), f"file-{2 * n + 1}": noise()} for n in range(19))])
    git("-C", repository, "repack", "-adq")
    transferred, walls = [], []
    for name, pattern, versions in (("newest", r"^v(20)$", 1), ("every", r"^v(\d+)$", 20)):
        farm = Farm(name, [("history", server.url(0, "history"))], pattern)
        server.mark()
        walls.append(Run(farm.command("--once"), farm.home / "log").wall)
        transferred.append(server.since("bytes"))
        if (farm.home / "log").read_text().count('msg="build + publish complete"') != versions:
            fail(f"not every version was published; see {farm.home}/log")
    newest, every = transferred
    row("20 versions built: bytes against the newest alone", f"{every / newest:.2f}x", "<= 1.5x",
        f"{every / 1e6:.1f} MB : {newest / 1e6:.1f} MB")
    row("  wall", f"{walls[1]:.2f} s", "", f"the newest alone {walls[0]:.2f} s")


def daemon(farm, command=None):
    with open(farm.home / "log", "w") as log:
        return spawn(command or farm.command(), log)


def wait_polled(farm, process, recipes):
    wait_logged(farm, process, "poll complete", recipes)


def wait_logged(farm, process, message, count, pause=0.1):
    """Waits until the log of a daemon has `count` lines with `message`."""
    deadline, log = time.monotonic() + 300, farm.home / "log"
    with open(log) as lines:
        while True:
            line = lines.readline()
            count -= line.endswith("\n") and f'msg="{message}"' in line
            if count <= 0:
                return
            if line:
                continue
            if time.monotonic() > deadline or process.poll() is not None:
                fail(f"too few lines with {message}; see {log}")
            time.sleep(pause)


def cpu(process):
    """Returns the seconds of CPU of a process so far."""
    user, system = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def start(server, template):
    recipes, tags = 1000 // SMALL, 50
    farm, _ = quiet_farm(server, template, recipes, tags)
    times = []
    for _ in range(5):
        begin = time.monotonic()
        process = daemon(farm)
        while not answers(farm.port):
            if process.poll() is not None:
                fail(f"the daemon has ended; see {farm.home}/log")
            time.sleep(0.0005)
        times.append((time.monotonic() - begin) * 1000)
        stop(process)
    row(f"daemon with {recipes} recipes: start to /healthz", f"{median(times):.0f} ms", "<= 50 ms", f"slowest of 5 {max(times):.0f} ms")
    process = daemon(farm)
    wait_polled(farm, process, recipes)
    row(f"daemon, {recipes} x {tags}: CPU from the start to the last poll", f"{cpu(process):.2f} s", "<= 2 s")
    stop(process)


def daemons(server, template):
    """Measures a daemon with 1,000 recipes and one with 10,000, after everything was listed once."""
    tags = 5
    measured = [daemon_of(server, template, recipes // SMALL, tags) for recipes in (1000, 10_000)]
    ratios = [large / small for small, large in zip(*measured)]
    case = f"{1000 // SMALL} x {tags} to {10_000 // SMALL} x {tags}"
    for what, ratio, goal in zip(("CPU of a poll", "/status at rest", "/status amid polls", "memory", "reload"), ratios,
                                 ("<= 1.2x", "<= 12x", "<= 12x", "<= 10x", "<= 12x")):
        row(f"{case}: {what}", f"{ratio:.2f}x", goal)
    for recipes, (poll, rest, amid, rss, reload) in zip((1000 // SMALL, 10_000 // SMALL), measured):
        case = f"daemon, {recipes} x {tags}"
        row(f"{case}: CPU of a poll without news", f"{poll * 1000:.2f} ms")
        row(f"{case}: /status at rest, amid polls", f"{rest * 1000:.1f}, {amid * 1000:.1f} ms")
        row(f"{case}: resident memory", f"{rss:.1f} MiB")
        row(f"{case}: reload", f"{reload * 1000:.0f} ms")


def daemon_of(server, template, recipes, tags):
    origin = BENCH / "forge" / f"origin-{tags}"
    if not origin.exists():
        import_repository(origin.name, [{"file-0": b"%d\n" % number} for number in range(tags)])
    names = [f"recipe-{number:05}" for number in range(recipes)]
    upstreams = [server.url(number, f"repeat/{number}/{origin.name}") for number in range(recipes)]
    farm = Farm(f"daemon-{recipes}x{tags}", zip(names, upstreams))
    farm.publish_all(template, names, tags)
    process = daemon(farm)
    wait_polled(farm, process, recipes)
    # Wait until short-lived threads have ended and memory is returned.
    time.sleep(8)
    rss = memory(process.pid, "VmRSS")
    rest = median(status_time(farm) for _ in range(20))
    reloads, polls, amid = [], [], []
    for round in range(2, 4):
        begin = time.monotonic()
        process.send_signal(signal.SIGHUP)
        wait_logged(farm, process, "recipe roster loaded", round, 0.002)
        reloads.append(time.monotonic() - begin)
        before = cpu(process)
        if round == 2:
            wait_polled(farm, process, round * recipes)
            polls.append((cpu(process) - before) / recipes)
        else:
            amid = [status_time(farm) for _ in range(20)]
    stop(process)
    return median(polls), rest, median(amid), rss, median(reloads)


def status_time(farm):
    begin = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{farm.port}/status", timeout=60) as answer:
        answer.read()
    return time.monotonic() - begin


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n\r\n")
            return b" 200 " in client.recv(100)
    except OSError:
        return False


def idle(server, template):
    """Measures the daemon at rest after polls over TLS. Its trust store has the system's size and
    our certificate."""
    recipes, tags = 200 // SMALL, 20
    # The second server serves the repositories of this farm too.
    quiet_farm(server, template, recipes, tags)
    certificate, key, trust = BENCH / "cert.pem", BENCH / "key.pem", BENCH / "trust.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
                    "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    trust.write_text((system.read_text() if system.exists() else "") + certificate.read_text())
    tls = Server(certificate, key)
    names = [f"recipe-{number:04}" for number in range(recipes)]
    farm = Farm("tls", [(name, f"https://localhost:{tls.port}/{tags}-{n}.git") for n, name in enumerate(names)])
    farm.publish_all(template, names, tags)
    # A mount namespace replaces the trust store without a variable, which would make git list.
    mount = f'mount --bind "{trust}" "{system}" && exec "$@"'
    wrapped = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if not system.exists() or subprocess.run([*wrapped, "true"], capture_output=True).returncode:
        return row(f"idle with {recipes} recipes after TLS polls", "skipped", "<= 7 MiB", "no mount namespaces here")
    (BENCH / "started").write_text("")
    process = daemon(farm, [*wrapped, *farm.command()])
    wait_polled(farm, process, recipes)
    # Wait until short-lived threads have ended and memory is returned.
    time.sleep(8)
    if (BENCH / "started").read_text():
        fail("git has listed upstreams over TLS")
    peak = memory(process.pid, "VmHWM")
    row(f"idle with {recipes} recipes after TLS polls: memory", f"{memory(process.pid, 'VmRSS'):.1f} MiB", "<= 7 MiB", f"peak {peak:.1f} MiB")
    stop(process)


def size(_server, _template):
    length = (BENCH / "real/peipkg-manager").stat().st_size
    row("the program itself", f"{length / 1e6:.2f} MB", "<= 2.5 MB")


def main():
    measurements = {"polls": polls, "large": large, "sources": sources, "start": start, "daemons": daemons, "idle": idle, "size": size}
    wanted = sys.argv[1:] or list(measurements)
    prepare()
    server, template = Server(), published_template()
    print(f"\nSweeps over upstreams on smart HTTP, medians of {ROUNDS} rounds, {os.cpu_count()} cores")
    for name in wanted:
        measurements[name](server, template)


main()
