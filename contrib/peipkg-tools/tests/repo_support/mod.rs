//! Fixtures for the tests of peipkg-repo: a farm in a temporary directory, and a writer of packages
//! that shares no code with the tested writer.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// The default `--timestamp`.
pub const TIME: &str = "2026-05-01T12:00:00Z";
/// The seed of a farm's key.
pub const SEED: [u8; 32] = [7; 32];

/// One tar entry, which may break any rule.
#[derive(Clone, Debug)]
pub struct Raw {
    pub path: String,
    pub typeflag: u8,
    pub mode: u32,
    pub link: String,
    pub content: Vec<u8>,
}

/// Makes an entry of a regular file.
pub fn file(path: &str, content: &[u8]) -> Raw {
    let (path, link) = (path.to_owned(), String::new());
    Raw { path, typeflag: b'0', mode: 0o777, link, content: content.to_owned() }
}

/// Makes an entry of a symbolic link.
pub fn link(path: &str, target: &str) -> Raw {
    Raw { typeflag: b'2', link: target.to_owned(), ..file(path, b"") }
}

/// Returns the SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Makes the manifest of a package without payload.
pub fn manifest(name: &str, version: &str, architecture: &str) -> Value {
    json!({
        "schema_version": 1, "name": name, "version": version, "architecture": architecture,
        "description": "a test", "license": "MIT", "homepage": "https://example.org",
        "dependencies": [{"name": "libc", "constraint": ">= 2.0"}], "conflicts": [],
        "size_installed": 0, "sd_overrides": [],
        "build": {"timestamp": TIME, "farm_id": "test", "source_ref": "git+https://example.org/x#refs/tags/v1"},
    })
}

/// Makes the unsigned entries of a package: metadata that fits `payload`, then the payload.
pub fn entries(mut manifest: Value, payload: Vec<Raw>) -> Vec<Raw> {
    let files: Vec<_> = payload.iter().filter(|raw| raw.typeflag == b'0').collect();
    manifest["size_installed"] = files.iter().map(|raw| raw.content.len()).sum::<usize>().into();
    let list: Vec<_> = files
        .iter()
        .map(|raw| json!({"path": raw.path, "size": raw.content.len(), "hash": sha256(&raw.content)}))
        .collect();
    let list = json!({"schema_version": 1, "algorithm": "sha256", "entries": list});
    let mut all = vec![
        file(".peipkg/manifest.json", format!("{manifest:#}\n").as_bytes()),
        file(".peipkg/files.json", format!("{list}\n").as_bytes()),
    ];
    all.extend(payload);
    all
}

/// Makes a tar stream of the entries, without its end.
pub fn tar(entries: &[Raw]) -> Vec<u8> {
    let mut stream = Vec::new();
    for raw in entries {
        let mut header = [0_u8; 512];
        header[..raw.path.len()].copy_from_slice(raw.path.as_bytes());
        let octal = |width: usize, number: u64| format!("{number:0width$o}\0", width = width - 1);
        header[100..108].copy_from_slice(octal(8, raw.mode.into()).as_bytes());
        header[108..116].copy_from_slice(octal(8, 0).as_bytes());
        header[116..124].copy_from_slice(octal(8, 0).as_bytes());
        header[124..136].copy_from_slice(octal(12, raw.content.len() as u64).as_bytes());
        header[136..148].copy_from_slice(octal(12, 1_777_636_800).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = raw.typeflag;
        header[157..157 + raw.link.len()].copy_from_slice(raw.link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[265..269].copy_from_slice(b"root");
        header[297..301].copy_from_slice(b"root");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..155].copy_from_slice(octal(7, sum).as_bytes());
        stream.extend(header);
        stream.extend(&raw.content);
        stream.resize(stream.len().next_multiple_of(512), 0);
    }
    stream
}

/// Makes a signature envelope over `digest`.
pub fn envelope(seed: [u8; 32], digest: &[u8]) -> Value {
    let key = SigningKey::from_bytes(&seed);
    json!({
        "schema_version": 1, "algorithm": "ed25519",
        "key_fingerprint": sha256(key.verifying_key().as_bytes()),
        "signature": STANDARD_NO_PAD.encode(key.sign(digest).to_bytes()),
    })
}

/// Makes a package file: signs the entries, ends the archive, and compresses it.
pub fn pack(entries: &[Raw], seed: Option<[u8; 32]>) -> Vec<u8> {
    let mut stream = tar(entries);
    if let Some(seed) = seed {
        let envelope = envelope(seed, &Sha256::digest(&stream));
        stream.extend(tar(&[file(".peipkg/signature", format!("{envelope}\n").as_bytes())]));
    }
    compress(stream)
}

/// Ends a tar stream and compresses it.
pub fn compress(mut stream: Vec<u8>) -> Vec<u8> {
    stream.extend([0; 1024]);
    zstd::encode_all(&*stream, 1).unwrap()
}

/// Makes a good package with one file.
pub fn good(name: &str, version: &str, architecture: &str) -> Vec<u8> {
    let payload = vec![file(&format!("usr/share/{name}/version"), version.as_bytes())];
    pack(&entries(manifest(name, version, architecture), payload), Some(SEED))
}

/// A farm: a key, a directory for new packages, a repository.
pub struct Farm {
    pub dir: TempDir,
}

impl Farm {
    /// Makes a farm with an empty repository.
    pub fn new() -> Self {
        let farm = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(farm.key(), SEED).unwrap();
        fs::create_dir(farm.new_dir()).unwrap();
        let output =
            farm.run(&["init", "--name", "farm", "--sign-key", "KEY", "--timestamp", TIME, "--out", "REPO"]);
        check(&output, 0, "");
        farm
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn key(&self) -> PathBuf {
        self.path("key")
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub fn new_dir(&self) -> PathBuf {
        self.path("new")
    }

    /// Makes a command that runs peipkg-repo. Replaces the arguments `KEY`, `NEW` and `REPO` by the
    /// farm's paths.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peipkg-repo"));
        command.current_dir(self.dir.path());
        for argument in arguments {
            match *argument {
                "KEY" => command.arg(self.key()),
                "NEW" => command.arg(self.new_dir()),
                "REPO" => command.arg(self.repo()),
                other => command.arg(other),
            };
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Arguments of a publish in place.
    pub const PUBLISH: [&str; 11] = [
        "publish",
        "--in",
        "REPO",
        "--new",
        "NEW",
        "--sign-key",
        "KEY",
        "--timestamp",
        TIME,
        "--out",
        "REPO",
    ];

    pub fn publish(&self) -> Output {
        self.run(&Self::PUBLISH)
    }

    /// Publishes in place with a URL template.
    pub fn publish_with(&self, template: &str) -> Output {
        self.run(&[&Self::PUBLISH[..], &["--package-url-template", template]].concat())
    }

    /// Publishes into another directory.
    pub fn publish_to(&self, out: &str) -> Output {
        let mut arguments = Self::PUBLISH;
        arguments[10] = out;
        self.run(&arguments)
    }

    /// Verifies the repository in each mode, and compares the summary of the last one.
    #[track_caller]
    pub fn check_verified(&self, repo: &str, summary: &str) {
        for mode in ["metadata", "hashes", "both"] {
            let output = self.run(&["verify", "--repo", repo, "--mode", mode]);
            check(&output, 0, "");
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(mode != "both" || stdout == format!("ok: {summary}\n"), "{stdout}");
        }
    }

    pub fn verify(&self) -> Output {
        self.run(&["verify", "--repo", "REPO"])
    }

    /// Empties the directory for new packages.
    pub fn clear(&self) {
        fs::remove_dir_all(self.new_dir()).unwrap();
        fs::create_dir(self.new_dir()).unwrap();
    }

    /// Writes a good package to the directory for new packages.
    pub fn add(&self, name: &str, version: &str, architecture: &str) -> PathBuf {
        self.put(name, version, architecture, &good(name, version, architecture))
    }

    /// Writes these bytes there under the name of a package.
    pub fn put(&self, name: &str, version: &str, architecture: &str, bytes: &[u8]) -> PathBuf {
        let path = self.new_dir().join(format!("{name}_{version}_{architecture}.peipkg"));
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Publishes exactly these packages, each given as `name version architecture`.
    #[track_caller]
    pub fn publish_all(&self, packages: &[&str]) {
        self.clear();
        for package in packages {
            let parts: Vec<_> = package.split(' ').collect();
            self.add(parts[0], parts[1], parts[2]);
        }
        check(&self.publish(), 0, "");
    }

    /// Reads an index.
    pub fn index(&self, kind: &str) -> Value {
        json_file(&self.repo().join(format!("index/{kind}.json")))
    }

    /// Lists the packages of an index, each as `name version architecture`.
    pub fn listed(&self, kind: &str) -> Vec<String> {
        let field = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        let line =
            |entry: &Value| ["name", "version", "architecture"].map(|name| field(entry, name)).join(" ");
        self.index(kind)["packages"].as_array().unwrap().iter().map(line).collect()
    }

    /// Reads every file below the repository, to compare its bytes later.
    pub fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut pending = vec![self.repo()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    found.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }
}

/// Lists the packages below `directory`, relative to it.
pub fn packages(directory: &Path) -> Vec<String> {
    let (mut found, mut pending) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = pending.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                pending.push(path);
            } else if !["json", "sig", "pub", "css", "js", "svg", "xml", "html"]
                .iter()
                .any(|ending| path.extension().is_some_and(|it| it == *ending))
            {
                found.push(path.strip_prefix(directory).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Reads a JSON file.
pub fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Checks the exit status, and that standard error contains `expected`.
#[track_caller]
pub fn check(output: &Output, status: i32, expected: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let fits = output.status.code() == Some(status) && stderr.contains(expected);
    assert!(
        fits,
        "{}, expected {status} and {expected:?}\nstdout: {stdout}\nstderr: {stderr}",
        output.status
    );
    assert_eq!(status == 0, stderr.is_empty(), "standard error: {stderr}");
}
