//! Fixtures for the tests of peipkg-build: runs the real binary on a recipe and a source tree.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The seed and public key of RFC 8032 §7.1, test 1.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
/// SHA-256 of that public key, made with sha256sum.
pub(crate) const FINGERPRINT: &str = "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9";
/// The same key as PKCS#8, made with openssl.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

/// The head of every recipe in these tests.
pub(crate) const META: &str = "[meta]\nbuild_script = \"build.sh\"\n";

/// A temporary directory with recipe, source tree, key and output directory.
pub(crate) struct Fixture {
    directory: TempDir,
    /// Flags that replace or follow the default ones; an empty value drops the flag.
    changes: Vec<(String, String)>,
}

/// The result of a run.
pub(crate) struct Run {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Fixture {
    /// Makes a recipe of [`META`], these `[[package]]` stanzas and this script.
    pub(crate) fn new(stanzas: &str, script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self { directory, changes: Vec::new() };
        for name in ["recipe", "source", "tmp"] {
            fs::create_dir(fixture.path(name)).unwrap();
        }
        fixture.write("recipe/peipkg.toml", &format!("{META}{stanzas}"));
        fixture.write("recipe/build.sh", &format!("set -eu\n{script}\n"));
        fixture.write("key.pem", PEM);
        let seed: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&SEED[2 * at..2 * at + 2], 16).unwrap()).collect();
        fs::write(fixture.path("key.raw"), seed).unwrap();
        fixture
    }

    /// Makes a recipe of one `noarch` package `x` with these patterns.
    pub(crate) fn simple(files: &str, script: &str) -> Self {
        Self::new(
            &format!("[[package]]\nname = \"xx\"\narchitecture = \"noarch\"\nfiles = [{files}]\n"),
            script,
        )
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Replaces a flag, or adds one that may be repeated. An empty value drops the flag.
    #[must_use]
    pub(crate) fn with(mut self, flag: &str, value: &str) -> Self {
        self.changes.push((flag.to_owned(), value.to_owned()));
        self
    }

    /// Returns the default flags with the changes.
    pub(crate) fn flags(&self) -> Vec<String> {
        let place = |name: &str| self.path(name).display().to_string();
        let usual = [
            ("--recipe", place("recipe/peipkg.toml")),
            ("--source", place("source")),
            ("--version", "1.2-3".to_owned()),
            ("--source-ref", "git+https://example.org/x#refs/tags/v1.2".to_owned()),
            ("--farm-id", "test-farm".to_owned()),
            ("--timestamp", "2026-05-01T12:00:00Z".to_owned()),
            ("--out", place("out")),
            ("--sign-key", place("key.pem")),
        ];
        let mut flags: Vec<(String, String)> =
            usual.into_iter().map(|(flag, value)| (flag.to_owned(), value)).collect();
        for (flag, value) in &self.changes {
            match flags.iter_mut().find(|(usual, _)| usual == flag) {
                Some(found) => found.1.clone_from(value),
                None => flags.push((flag.clone(), value.clone())),
            }
        }
        flags.retain(|(_, value)| !value.is_empty());
        flags.into_iter().flat_map(|(flag, value)| [flag, value]).collect()
    }

    /// Makes the command of a build.
    pub(crate) fn command(&self) -> Command {
        let mut command = binary();
        command.arg("build").args(self.flags()).env("TMPDIR", self.path("tmp"));
        command
    }

    pub(crate) fn run(&self) -> Run {
        let run = Run::of(&mut self.command());
        assert_eq!(names(&self.path("tmp")), [""; 0], "the temporary directory was left behind");
        run
    }

    /// Runs a build and expects success.
    #[track_caller]
    pub(crate) fn build(&self) -> Run {
        let run = self.run();
        assert_eq!(run.status, Some(0), "{}\n{}", run.stdout, run.stderr);
        run
    }

    /// Runs a build and expects this status, exactly these lines, and no file left behind.
    #[track_caller]
    pub(crate) fn fails(&self, status: i32, lines: &[&str]) {
        let run = self.run();
        assert_eq!(run.status, Some(status), "{}\n{}", run.stdout, run.stderr);
        let expected: Vec<String> = lines
            .iter()
            .map(|line| {
                format!("peipkg-build: {}", line.replace("{}", &self.directory.path().display().to_string()))
            })
            .collect();
        assert_eq!(run.stderr.lines().collect::<Vec<_>>(), expected);
        assert_eq!(run.stdout, "");
        assert_eq!(names(&self.path("out")), [""; 0]);
    }

    /// Reads a package and decompresses it.
    #[track_caller]
    pub(crate) fn tar(&self, name: &str) -> Vec<u8> {
        let compressed = fs::read(self.path("out").join(name)).unwrap();
        zstd::decode_all(&compressed[..]).unwrap()
    }
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        // Not empty: a script that inherits standard input could read it.
        let input = fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
        let Output { status, stdout, stderr } = command.stdin(input).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

pub(crate) fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_peipkg-build"))
}

/// Lists the names in a directory, sorted; none if the directory is missing.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs a program of the system and returns its output. Prints a note and returns `None` if the
/// program is missing.
pub(crate) fn system(program: &str, arguments: &[&OsStr], input: &[u8]) -> Option<Output> {
    use std::io::Write as _;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("{program} is missing here: its part of the test is left out");
        return None;
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    Some(child.wait_with_output().unwrap())
}
