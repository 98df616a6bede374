"""Measures what one publish and one verify cost in repositories of 100, 5,000 and 50,000 packages,
in turn with sha256sum of the index that they write or read: below that no publish can be that hashes
with the same program. The repositories are signed; only the index entries of their packages exist.

Needs python3, openssl and sha256sum. Arguments select measurements: publish.
"""

import shutil

from common import BENCH, ROUNDS, SMALL, Run, main, row
from farms import build, fill_repository, publish

VERSIONS = 20
LARGEST = 50_000 // SMALL


def measure():
    for packages in (100, 5000 // SMALL, LARGEST):
        repo = BENCH / f"repository-{packages}"
        fill_repository(repo, [f"recipe-{number:05}" for number in range(packages // VERSIONS)], VERSIONS)
        publishes_of(repo, packages)
        shutil.rmtree(repo)


def publishes_of(repo, packages):
    sha256sum, archive, active = shutil.which("sha256sum"), repo / "index/archive.json", repo / "index/active.json"
    rounds = []
    for number in range(ROUNDS + 1):
        package = build("thing", f"{number + 2}-1")
        published = publish(repo, package, BENCH / "publish.log")
        floor = Run([sha256sum, archive])
        verified = Run([BENCH / "bin/peipkg-repo", "verify", "--repo", repo, "--mode", "metadata"], BENCH / "verify.log")
        rounds.append((published, floor, verified, Run([sha256sum, archive, active])))
    # The first round reads what no other has read before.
    published, floor, verified, floor_of_both = zip(*rounds[1:])
    cpu = lambda runs: [run.cpu * 1000 for run in runs]
    publish_case, verify_case = f"one publish into {packages:,} packages", f"one verify of {packages:,} packages"
    if packages == LARGEST:
        ratio = lambda runs, floors: [run.cpu / floor.cpu for run, floor in zip(runs, floors)]
        row(f"{publish_case}: CPU against sha256sum of the index", ratio(published, floor), "x", 0.8, summary=True)
        row(f"{verify_case}: CPU against sha256sum of both", ratio(verified, floor_of_both), "x", 0.8, summary=True)
        row(f"{publish_case}: memory", [run.peak for run in published], "MiB", 8, summary=True)
        row(f"{verify_case}: memory", [run.peak for run in verified], "MiB", 8, summary=True)
    row(f"{publish_case}: CPU", cpu(published), "ms")
    row("  sha256sum of the new archive index: CPU", cpu(floor), "ms")
    row(f"{verify_case}: CPU", cpu(verified), "ms")
    row("  sha256sum of both indexes: CPU", cpu(floor_of_both), "ms")
    row("  both indexes, which each publish writes anew", (archive.stat().st_size + active.stat().st_size) / 1e6, "MB")


if __name__ == "__main__":
    main("Publishes", {"publish": measure})
