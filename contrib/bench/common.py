"""What the measurements share: running a program and counting what it used, and printing a figure
beside its goal.

Time is CPU time (wait4: the program and all that it waited for) unless a row says "wall". Memory is
the peak resident set of one process (VmHWM, sampled every five milliseconds), or the sum over a process tree
without counting shared pages twice (Pss).

BENCH_SCALE=small measures a tenth of everything, as a trial; ROUNDS=N repeats (5, small: 2). BIN=DIR
uses the programs in DIR and builds nothing. Rows of the summary are also appended to the file
$BENCH_RESULTS, one JSON object a line, from which run.py makes its table.
"""

import atexit
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BENCH = TARGET / f"bench-{Path(sys.argv[0]).stem}"
SMALL = 10 if os.environ.get("BENCH_SCALE") == "small" else 1
ROUNDS = int(os.environ.get("ROUNDS", 5 if SMALL == 1 else 2))
PROGRAMS = ["peipkg-manager", "peipkg-build", "peipkg-repo"]

median = statistics.median
started = []


def fail(reason):
    sys.exit(f"{Path(sys.argv[0]).name}: {reason}; {BENCH} is left as it is")


def shown(value, unit):
    """Returns a figure as people read it. The unit "1/" is a ratio far below one."""
    if unit == "1/":
        return f"1/{1 / value:.0f}" if value else "0"
    digits = {"x": 2, "MB": 2, "MiB": 1, "ms": 1 if value >= 1 else 2, "s": 3}.get(unit, 0)
    return f"{value:.{digits}f}{'' if unit == 'x' else ' '}{unit}".rstrip()


def row(case, values, unit, goal=None, peer="", summary=False):
    """Prints the median of `values`, the lowest and the highest, and the highest value allowed."""
    values = values if isinstance(values, list) else [values]
    low, middle, high = (shown(pick(values), unit) for pick in (min, median, max))
    noise = f"({low} to {high})" if low != high else ""
    allowed = "" if goal is None else f"<= {shown(goal, unit) if unit == '1/' else f'{goal:g} {unit}'.rstrip().replace(' x', 'x')}"
    show(case, unit, middle, noise, allowed, goal is None or median(values) <= goal, peer, summary)


def show(case, unit, measured, noise="", allowed="", met=False, peer="", summary=False):
    """Prints a row, and keeps it for the summary."""
    print(f"  {case:<66} {f'{measured:<10} {noise:<22}':<33} {allowed:<11} {peer}".rstrip(), flush=True)
    if summary and "BENCH_RESULTS" in os.environ:
        kept = {"case": case, "unit": unit, "measured": measured, "noise": noise, "goal": allowed, "met": met, "peer": peer}
        with open(os.environ["BENCH_RESULTS"], "a") as results:
            results.write(json.dumps(kept) + "\n")


def prepare(title):
    """Builds the programs and makes an empty directory, which is removed at a good end."""
    binaries = os.environ.get("BIN")
    if binaries is None:
        subprocess.run(["make", "all"], cwd=ROOT, check=True)
        binaries = TARGET / "release"
    shutil.rmtree(BENCH, ignore_errors=True)
    for name in ("bin", "counting", "forge"):
        (BENCH / name).mkdir(parents=True)
    for name in PROGRAMS:
        (BENCH / "bin" / name).symlink_to(Path(binaries).resolve() / name)
    for name in ("git", "peipkg-build", "peipkg-repo"):
        real = shutil.which("git") if name == "git" else BENCH / "bin" / name
        stand_in = BENCH / "counting" / name
        stand_in.write_text(f'#!/bin/sh\necho {name} >>"{BENCH}/started"\nexec "{real}" "$@"\n')
        stand_in.chmod(0o755)
    print(f"\n{title}: medians of {ROUNDS} rounds, or of {min(ROUNDS, 3)} where one takes long (lowest to highest), {os.cpu_count()} cores")


def finish():
    shutil.rmtree(BENCH)


def environment(counting=False):
    """Returns the environment of every program here, without settings of this machine's user."""
    kept = {name: value for name, value in os.environ.items() if name in ("TMPDIR", "USER", "LOGNAME")}
    path = f"{BENCH / 'bin'}:{os.environ['PATH']}"
    if counting:
        path = f"{BENCH / 'counting'}:{path}"
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return dict(kept, PATH=path, HOME=str(BENCH), **settings)


def count_tools():
    """Returns how many git, peipkg-build and peipkg-repo the counting runs have started since the
    last call."""
    log = BENCH / "started"
    count = len(log.read_text().splitlines()) if log.exists() else 0
    log.write_text("")
    return count


def spawn(command, log=None, counting=False):
    """Starts a program that does not outlive this one."""
    # Do not run in a checkout: its configuration would make the manager list with git.
    with open(log or os.devnull, "w") as output:
        process = subprocess.Popen(list(map(str, command)), env=environment(counting), cwd="/", stdout=output, stderr=output)
    started.append(process)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(30)


# A request to end runs what is registered to run at the end.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@atexit.register
def stop_all():
    for process in started:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


class Run:
    """A program's run: `cpu` and `wall` in seconds, `peak` in MiB. With `tree`, the peak is the sum over
    it and all below it, and `peaks` has the peak of one process for each program's name."""

    def __init__(self, command, log=None, counting=False, tree=False):
        self.peak, self.peaks, begin = 0, {}, time.monotonic()
        process = spawn(command, log, counting)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            self.peak = max(self.peak, self.tree_memory(process.pid) if tree else memory(process.pid, "VmHWM"))
            # Each look takes time of the processors that are measured: a thousand a second cost a sweep a twentieth.
            time.sleep(0.02 if tree else 0.005)
        self.wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            fail(f"{command[0]} ended with {process.returncode}; see {log}")
        self.cpu = usage.ru_utime + usage.ru_stime

    def tree_memory(self, pid):
        """Returns the memory of a process and all below it in MiB; shared pages count once."""
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            return 0
        self.peaks[name] = max(self.peaks.get(name, 0), memory(pid, "VmHWM"))
        return memory(pid, "Pss", "smaps_rollup") + sum(map(self.tree_memory, children))


def memory(pid, field, file="status"):
    """Returns a field of a file in /proc/<pid> in MiB; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), 0)


def cpu(process):
    """Returns the seconds of CPU so far of a process and of the children that it has waited for."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def wait_logged(log, process, message, count, pause=0.1):
    """Waits until the log of a daemon has `count` lines with `message`."""
    deadline = time.monotonic() + 300
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


def main(title, measurements):
    """Runs the measurements that the arguments name, or all."""
    unknown = set(sys.argv[1:]) - set(measurements)
    if unknown:
        sys.exit(f"{Path(sys.argv[0]).name}: unknown measurement {min(unknown)}; there are {', '.join(measurements)}")
    prepare(title)
    for name in sys.argv[1:] or measurements:
        measurements[name]()
    finish()
