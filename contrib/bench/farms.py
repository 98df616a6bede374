"""Makes upstreams, a server of them, farms, and signed repositories of any size, for measurements."""

import base64
import functools
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from common import BENCH, Run, environment, fail

SEED = b"a key of a measurement, and open"
TIMESTAMP = "2026-01-01T00:00:00Z"
# Copies one file of the source.
TRIVIAL = 'mkdir -p "$DESTDIR/usr/share/thing"\ncp "$SOURCE_DIR/file-0" "$DESTDIR/usr/share/thing/"\n'


class Server:
    """The git server, and its counters since the last mark."""

    def __init__(self, *tls):
        command = [sys.executable, Path(__file__).with_name("git_server.py"), BENCH / "forge", *tls]
        # It ends when its standard input closes, so it never outlives this program.
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


@functools.cache
def server():
    return Server()


def git(*arguments, **more):
    return subprocess.run(["git", *map(str, arguments)], env=environment(), check=True, capture_output=True, **more).stdout


def import_repository(name, commits, forge=None):
    """Creates a bare repository in the forge, with a tag v1, v2 … for each of `commits`, which
    map paths to contents."""
    repository = (forge or BENCH / "forge") / name
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


def small_repository(name, tags, forge=None):
    """Creates a repository with `tags` tags whose file differs from tag to tag, once."""
    repository = (forge or BENCH / "forge") / name
    if not repository.exists():
        import_repository(name, [{"file-0": b"%d\n" % number} for number in range(tags)], forge)
    return repository


class Farm:
    def __init__(self, name, recipes, pattern=r"^v(\d+)$", parent=BENCH, script=TRIVIAL):
        """Takes `recipes` as pairs of name and upstream."""
        self.home = parent / name
        self.state, self.log = self.home / "state", self.home / "log"
        self.config = self.home / "config.toml"
        (self.home / "recipes").mkdir(parents=True)
        (self.home / "farm.key").write_bytes(SEED)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config.write_text(
            f'[manager]\nid = "bench"\nrecipes_dir = "{self.home}/recipes"\nstate_dir = "{self.state}"\n'
            f'[repo]\nname = "bench"\n[signing]\nkey_file = "{self.home}/farm.key"\n'
            f'[poll]\ndefault_interval = "168h"\n[http]\naddr = "127.0.0.1:{self.port}"\n'
        )
        for recipe, upstream in recipes:
            section = f"[upstream]\ngit = \"{upstream}\"\ntag_pattern = '{pattern}'\n"
            write_recipe(self.home / "recipes" / recipe, recipe, section, script)

    def command(self, *arguments):
        return [BENCH / "bin/peipkg-manager", "--config", self.config, *arguments]

    def sweep(self, versions, tree=False):
        """Runs a sweep that publishes `versions` versions."""
        run = Run(self.command("--once"), self.log, tree=tree)
        self.check_published(versions)
        return run

    def check_published(self, versions):
        published = self.log.read_text().count('msg="build + publish complete"')
        if published != versions:
            fail(f"{published} of {versions} versions were published; see {self.log}")


def write_recipe(directory, name, upstream="", script=TRIVIAL):
    directory.mkdir(parents=True)
    (directory / "peipkg.toml").write_text(
        f'[meta]\nlicense = "MIT"\nbuild_script = "build.sh"\n[[package]]\nname = "{name}"\n'
        f'architecture = "noarch"\ndescription = "Something to measure"\nfiles = ["usr/share/**"]\n{upstream}'
    )
    (directory / "build.sh").write_text(script)


@functools.cache
def build(name, version):
    """Builds one package with the real tool, and returns the directory that holds only it."""
    home = BENCH / "built" / f"{name}-{version}"
    write_recipe(home / "recipe", name)
    for made in ("source", "out"):
        (home / made).mkdir()
    (home / "source/file-0").write_text(f"{version}\n")
    (home / "farm.key").write_bytes(SEED)
    Run([BENCH / "bin/peipkg-build", "build", "--recipe", home / "recipe/peipkg.toml", "--source", home / "source",
         "--version", version, "--source-ref", "git+https://git.example.org/thing.git#refs/tags/v1", "--farm-id", "bench",
         "--timestamp", TIMESTAMP, "--out", home / "out", "--sign-key", home / "farm.key"], home / "log")
    return home / "out"


@functools.cache
def template():
    """Returns a real repository with one package, whose index entry is a template for others."""
    repo = BENCH / "template"
    key = BENCH / "farm.key"
    key.write_bytes(SEED)
    Run([BENCH / "bin/peipkg-repo", "init", "--name", "bench", "--sign-key", key, "--timestamp", TIMESTAMP, "--out", repo])
    publish(repo, build("thing", "1-1"), BENCH / "template.log")
    return repo


def publish(repo, packages, log):
    return Run([BENCH / "bin/peipkg-repo", "publish", "--in", repo, "--new", packages, "--out", repo, "--sign-key", BENCH / "farm.key",
                "--timestamp", TIMESTAMP], log)


def fill_repository(repo, names, versions):
    """Makes a signed repository that lists `versions` versions of each of `names`, each entry as long
    as a real one. The packages themselves are missing: neither a publish of others nor a check of the
    metadata reads them."""
    shutil.copytree(template(), repo, dirs_exist_ok=True)
    entry = json.loads((repo / "index/archive.json").read_text())["packages"][0]
    listed = [listed_as(entry, name, f"{version}-1") for name in sorted(names) for version in range(versions, 0, -1)]
    sign_index(repo / "index/archive.json", listed)
    sign_index(repo / "index/active.json", listed[::versions])


def listed_as(entry, name, version):
    """Returns the entry of another package, which has a hash and a place of its own, and as many
    relations as a library has."""
    file = entry["url"].rpartition("/")[2].replace(entry["name"], name).replace(entry["version"], version)
    digest = hashlib.sha256(file.encode()).hexdigest()
    needed = [{"name": "libc", "constraint": ">= 2.38"}, {"name": "libz", "constraint": ">= 1.3"}]
    return dict(entry, name=name, version=version, url=f"/p/{name}/{version}/{file}", hash=dict(entry["hash"], value=digest),
                dependencies=needed, provides=[{"name": f"{name}.so.1", "version": version}])


def sign_index(path, packages):
    """Replaces the packages of an index and signs it as its owner would (PSD-009 section 5.1)."""
    document = json.loads(path.read_text())
    if set(document["packages"][0]) != set(packages[0]):
        fail(f"the entries of {path} are of another form")
    document["packages"] = packages
    path.write_text(json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n")
    # The fixed head of an Ed25519 key in PKCS #8 (RFC 8410).
    pkcs8 = bytes.fromhex("302e020100300506032b657004220420") + SEED
    key, digest = BENCH / "farm.pem", BENCH / "digest"
    key.write_text(f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(pkcs8).decode()}\n-----END PRIVATE KEY-----\n")
    digest.write_bytes(hashlib.sha256(path.read_bytes()).digest())
    signed = subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", digest], check=True, capture_output=True)
    beside = path.with_name(path.name + ".sig")
    envelope = dict(json.loads(beside.read_text()), signature=base64.b64encode(signed.stdout).decode().rstrip("="))
    beside.write_text(json.dumps(envelope, separators=(",", ":")) + "\n")
