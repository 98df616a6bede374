"""Measures one large package, built, published and verified: its check in turn with sha256sum of the
package, and the memory of each program, which must not depend on the package.

Needs python3, git and openssl. Arguments select measurements: payload.
"""

import shutil

from common import BENCH, PROGRAMS, ROUNDS, SMALL, Run, fail, main, row
from farms import Farm, small_repository

MEBIBYTES = 1024 // SMALL
# Incompressible, and the same each time.
SCRIPT = f"""mkdir -p "$DESTDIR/usr/share/thing"
head -c {MEBIBYTES}M /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 -nosalt 2>/dev/null >"$DESTDIR/usr/share/thing/file"
"""


def payload():
    farm = Farm("payload", [("thing", f"file://{small_repository('payload', 1)}")], script=SCRIPT)
    built = farm.sweep(1, tree=True)
    repo = farm.state / "repo"
    (package,) = (repo / "p").rglob("*.peipkg")
    if package.stat().st_size < MEBIBYTES << 20:
        fail(f"{package} is too small")
    sha256sum, rounds = shutil.which("sha256sum"), []
    for _ in range(min(ROUNDS, 3)):
        verified = Run([BENCH / "bin/peipkg-repo", "verify", "--repo", repo, "--mode", "both"], BENCH / "verify.log")
        rounds.append((verified, Run([sha256sum, package])))
    case = f"a package of {MEBIBYTES} MiB"
    row(f"{case}, verified: CPU against sha256sum", [verified.cpu / floor.cpu for verified, floor in rounds], "x")
    row(f"{case}, verified: CPU", [verified.cpu for verified, _ in rounds], "s")
    row(f"{case}, verified: memory", [verified.peak for verified, _ in rounds], "MiB", 8)
    row(f"{case}, built and published: CPU, with its script", built.cpu, "s")
    for program in PROGRAMS:
        row(f"{case}: memory of {program}", built.peaks.get(program, 0), "MiB", 8)


if __name__ == "__main__":
    main("A large package", {"payload": payload})
