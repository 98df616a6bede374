"""Measures the daemon with up to 10,000 recipes whose versions are all published: start, polls,
reloads, pages meanwhile, and memory, and the size of the programs. contrib/bench/daemon.rs measures
it under webhooks.

Needs python3, git and openssl. Arguments select measurements: start, scale, idle, size.
"""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from common import (BENCH, PROGRAMS, SMALL, count_tools, cpu, fail, main, median, memory, row, show, spawn, stop,
                    wait_logged)
from farms import Farm, Server, fill_repository, server, small_repository

IDLE = "at rest with {} recipes, upstreams over {}: memory"


def farm_of(name, recipes, tags, url=None):
    """Creates a farm whose upstreams are one repository under as many URLs."""
    origin = small_repository(f"origin-{tags}", tags)
    names = [f"recipe-{number:05}" for number in range(recipes)]
    url = url or server().url
    farm = Farm(name, [(recipe, url(number, f"repeat/{number}/{origin.name}")) for number, recipe in enumerate(names)])
    fill_repository(farm.state / "repo", names, tags)
    return farm


def daemon(farm, recipes, prefix=()):
    """Starts a daemon and waits until it has polled every recipe."""
    process = spawn([*prefix, *farm.command()], farm.log, counting=True)
    wait_logged(farm.log, process, "poll complete", recipes)
    return process


def rest():
    """Waits until short-lived threads have ended and memory is returned."""
    time.sleep(8 if SMALL == 1 else 3)


def start():
    recipes, tags = 1000 // SMALL, 50
    farm = farm_of("start", recipes, tags)
    times = []
    for _ in range(5):
        begin = time.monotonic()
        process = spawn(farm.command(), farm.log)
        while not healthy(farm.port):
            if process.poll() is not None:
                fail(f"the daemon has ended; see {farm.log}")
            time.sleep(0.0005)
        times.append((time.monotonic() - begin) * 1000)
        stop(process)
    row(f"daemon, {recipes} x {tags}: start to /healthz, wall", times, "ms", 50)
    process = daemon(farm, recipes)
    row(f"daemon, {recipes} x {tags}: CPU from the start to the last poll", cpu(process), "s", 2)
    stop(process)


class Daemon:
    """A daemon after its first polls, and what its reloads cost."""

    def __init__(self, recipes, tags):
        self.recipes, self.farm = recipes, farm_of(f"scale-{recipes}", recipes, tags)
        self.process = daemon(self.farm, recipes)
        self.rosters = 1
        rest()
        self.resident = memory(self.process.pid, "VmRSS")
        self.status = [get(self.farm.port, "/status") for _ in range(20)]

    def reload(self):
        """Reloads the recipes; returns the seconds of wall clock and of CPU."""
        begin, before = time.monotonic(), cpu(self.process)
        self.process.send_signal(1)
        self.rosters += 1
        wait_logged(self.farm.log, self.process, "recipe roster loaded", self.rosters, 0.002)
        return time.monotonic() - begin, cpu(self.process) - before

    def poll(self):
        """Waits for the polls after a reload; returns the seconds of CPU."""
        before = cpu(self.process)
        wait_logged(self.farm.log, self.process, "poll complete", self.rosters * self.recipes)
        return cpu(self.process) - before

    def reload_and_poll(self, path, pause, *others):
        """Reloads and polls, while others read the paths `others`; returns the milliseconds of each
        request for `path` meanwhile, and the most memory that the daemon had."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        times, over = {path: [] for path in (path, *others)}, threading.Event()
        # Else this program's own threads would wait for each other as long as for the daemon.
        sys.setswitchinterval(0.0002)

        def ask(path):
            while not over.is_set():
                times[path].append(get(self.farm.port, path))
                time.sleep(pause)

        asking = [threading.Thread(target=ask, args=[path], daemon=True) for path in times]
        for thread in asking:
            thread.start()
        self.reload()
        self.poll()
        over.set()
        for thread in asking:
            thread.join()
        return times[path], memory(self.process.pid, "VmHWM")


def scale():
    """Compares a daemon of 10,000 recipes with one of 1,000. Both live; one works at a time."""
    tags, rounds = 5, 3 if SMALL == 1 else 1
    small, large = (Daemon(recipes // SMALL, tags) for recipes in (1000, 10_000))
    polls, reloads = {small: [], large: []}, {small: [], large: []}
    healthz, beside, statuses, peaks = [], [], {small: [], large: []}, []
    for _ in range(rounds):
        # As many polls of the small farm as of the large one.
        for farm in [small] * 10 + [large]:
            reloads[farm].append(farm.reload())
            polls[farm].append(farm.poll() / farm.recipes * 1000)
        times, peak = large.reload_and_poll("/healthz", 0.002)
        healthz.append(max(times))
        peaks.append(peak)
        beside.append(max(large.reload_and_poll("/healthz", 0.002, "/status", "/", "/metrics")[0]))
        for farm in (small, large):
            statuses[farm] += farm.reload_and_poll("/status", 0.1)[0]
    calm = max(get(large.farm.port, "/healthz") for _ in range(1000))
    for farm in (small, large):
        stop(farm.process)
    of_small = [sum(polls[small][10 * n : 10 * n + 10]) / 10 for n in range(rounds)]
    case = f"{large.recipes:,} recipes against {small.recipes:,}"
    row(f"daemon, {case}: CPU of a poll", [poll / base for poll, base in zip(polls[large], of_small)], "x", 1.15, summary=True)
    row(f"{case}: /status at rest", median(large.status) / median(small.status), "x", 12)
    row(f"{case}: /status amid polls", median(statuses[large]) / median(statuses[small]), "x", 12)
    row(f"{case}: resident memory", large.resident / small.resident, "x", 10)
    wall, spent = ([[reload[part] for reload in reloads[farm]] for farm in (small, large)] for part in (0, 1))
    row(f"{case}: reload, wall", median(wall[1]) / median(wall[0]), "x", 12)
    case = f"daemon, {large.recipes:,} recipes"
    row(f"{case}: resident memory after all polls", large.resident, "MiB", 32, summary=True)
    row(f"{case}: most memory while it reloads and polls", max(peaks), "MiB", 40, f"in the first {peaks[0]:.1f} MiB", summary=True)
    row(f"{case}: longest /healthz meanwhile, wall", healthz, "ms", 50, f"at rest {calm:.1f} ms", summary=True)
    row(f"{case}: the same, while others read all pages", beside, "ms", 50, summary=True)
    for number, farm in enumerate((small, large)):
        case = f"daemon, {farm.recipes:,} x {tags}"
        row(f"{case}: CPU of a poll without news", polls[farm] if farm is large else of_small, "ms")
        row(f"{case}: /status at rest, wall", farm.status, "ms")
        row(f"{case}: /status amid polls, wall", statuses[farm], "ms")
        row(f"{case}: resident memory", farm.resident, "MiB")
        row(f"{case}: reload, wall", [seconds * 1000 for seconds in wall[number]], "ms")
        row(f"{case}: reload, CPU", [seconds * 1000 for seconds in spent[number]], "ms")


def get(port, path):
    """Returns the milliseconds from a new connection to the end of the answer."""
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET %s HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n\r\n" % path.encode())
        answer = b"".join(iter(lambda: client.recv(1 << 20), b""))
    if not answer.startswith(b"HTTP/1.1 200 "):
        fail(f"{path} answers {answer[:80]}")
    return (time.monotonic() - begin) * 1000


def healthy(port):
    try:
        return get(port, "/healthz") > 0
    except OSError:
        return False


def idle():
    """Measures the daemon at rest after polls over HTTP, and over TLS. For TLS its trust store has the
    system's size and our certificate."""
    recipes, tags = 200 // SMALL, 20
    at_rest("HTTP", 6, farm_of("http", recipes, tags), recipes)
    certificate, key, trust = BENCH / "cert.pem", BENCH / "key.pem", BENCH / "trust.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
                    "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    trust.write_text((system.read_text() if system.exists() else "") + certificate.read_text())
    # A mount namespace replaces the trust store without a variable, which would make git list.
    mount = f'mount --bind "{trust}" "{system}" && exec "$@"'
    wrapped = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if not system.exists() or subprocess.run([*wrapped, "true"], capture_output=True).returncode:
        return show(IDLE.format(recipes, "TLS"), "MiB", "skipped: no mount namespaces or no trust store")
    tls = Server(certificate, key)
    at_rest("TLS", 7, farm_of("tls", recipes, tags, lambda _, path: f"https://localhost:{tls.port}/{path}"), recipes, wrapped)


def at_rest(scheme, goal, farm, recipes, prefix=()):
    count_tools()
    process = daemon(farm, recipes, prefix)
    rest()
    if count_tools():
        fail(f"git has listed upstreams over {scheme}")
    peak = memory(process.pid, "VmHWM")
    row(IDLE.format(recipes, scheme), memory(process.pid, "VmRSS"), "MiB", goal, f"peak {peak:.1f} MiB", summary=True)
    stop(process)


def size():
    for program, goal in zip(PROGRAMS, (2.5, None, None)):
        row(f"size of {program}", (BENCH / "bin" / program).stat().st_size / 1e6, "MB", goal, summary=True)


if __name__ == "__main__":
    main("The daemon", {"start": start, "scale": scale, "idle": idle, "size": size})
