"""Runs every benchmark, and then prints the most important rows again in one table: ratios first,
each beside its goal and its peer. Exits 0 if every benchmark ran to its end; goals may be missed.

Environment variables: see common.py.
"""

import json
import os
import subprocess
import sys

from common import ROOT, TARGET

HERE = ROOT / "contrib/bench"
PROGRAMS = [[sys.executable, HERE / name] for name in ("publish.py", "versions.py", "sweeps.py", "daemons.py", "payload.py")]
PROGRAMS += [[*os.environ.get("CARGO", "cargo").split(), "bench", "--quiet", "--bench", "daemon"]]


def main():
    results = TARGET / "bench-results.jsonl"
    TARGET.mkdir(exist_ok=True)
    results.write_text("")
    environment = dict(os.environ, BENCH_RESULTS=str(results))
    failed = [command for command in PROGRAMS if subprocess.run(command, cwd=ROOT, env=environment).returncode]
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    results.unlink()
    rows.sort(key=lambda row: row["unit"] not in ("x", "1/"))
    print("\nIn one run, medians, ratios first\n")
    table = [("", "measured", "goal", "", "beside it")]
    for row in rows:
        verdict = "" if not row["goal"] else "met" if row["met"] else "missed"
        table.append((row["case"], f"{row['measured']} {row['noise']}".strip(), row["goal"], verdict, row["peer"]))
    widths = [max(map(len, column)) for column in zip(*table)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    # `cargo bench` has replaced the manager by one without the options of `make`.
    again = ["make", "--silent", "all"]
    failed += [again] if subprocess.run(again, cwd=ROOT).returncode else []
    for command in failed:
        print(f"failed: {' '.join(map(str, command))}", file=sys.stderr)
    sys.exit(bool(failed))


main()
