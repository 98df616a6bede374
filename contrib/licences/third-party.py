#!/usr/bin/env python3
"""Writes THIRD-PARTY.txt: the licences of the libraries that are linked into the programs.

With --check, fails if the file is not what this would write. Reads the sources of the libraries where
cargo has put them, so it needs no network after a build."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / "THIRD-PARTY.txt"
# ring and zstd carry C code of others below their own directory.
DEEP = {"ring": "third_party/*/LICENSE*", "zstd-sys": "zstd/LICENSE*"}
HEAD = """The programs contain the standard library of Rust (MIT OR Apache-2.0, https://www.rust-lang.org) and
the libraries below. Where a library leaves the choice, it is used under the first of MIT, BSD, ISC, zlib
and Apache-2.0 that it offers. contrib/licences/third-party.py writes this file.
"""
CHOICE = ["MIT", "BSD", "ISC", "ZLIB", "APACHE"]


def linked():
    """The packages that the workspace's programs link, less the workspace itself."""
    command = ["cargo", "metadata", "--locked", "--format-version=1"]
    command += ["--filter-platform=x86_64-unknown-linux-gnu"]
    data = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    pending, seen = list(data["workspace_members"]), set()
    while pending:
        identity = pending.pop()
        if identity in seen:
            continue
        seen.add(identity)
        for dependency in nodes[identity]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                # Macros and what they use run while the program is compiled.
                targets = packages[dependency["pkg"]]["targets"]
                if not any("proc-macro" in target["kind"] for target in targets):
                    pending.append(dependency["pkg"])
    members = set(data["workspace_members"])
    found = [packages[identity] for identity in seen if identity not in members]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The texts under which the package is used, and those of what it carries."""
    directory = pathlib.Path(package["manifest_path"]).parent
    own = [path for path in sorted(directory.iterdir())
           if path.is_file() and re.match(r"(?i)(un)?licen[sc]e|copying|notice", path.name)]
    if " OR " in (package["license"] or "").upper() or "/" in (package["license"] or ""):
        for name in CHOICE:
            chosen = [path for path in own if name in path.name.upper()]
            if chosen:
                own = chosen + [path for path in own if "NOTICE" in path.name.upper() and path not in chosen]
                break
    own += sorted(directory.glob(DEEP.get(package["name"], "no such file")))
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in own]


def document():
    """The whole file. A text that several packages share is there once."""
    shared = {}
    for package in linked():
        name = f"{package['name']} {package['version']} ({package['license']})"
        found = texts(package) or [f"(The package has no text of its licence, {package['license']}.)"]
        for text in found:
            shared.setdefault(re.sub(r"\s+", " ", text), (text, []))[1].append(name)
    parts = [HEAD]
    for text, names in shared.values():
        lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
        parts.append("\n".join(["=" * 100, *names, "-" * 100, *lines, ""]))
    return "\n".join(parts)


def main():
    """Writes or compares."""
    text = document()
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            sys.exit("THIRD-PARTY.txt is not up to date: run python3 contrib/licences/third-party.py")
    else:
        TARGET.write_text(text, encoding="utf-8")


main()
