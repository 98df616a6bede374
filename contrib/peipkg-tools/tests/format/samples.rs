//! The packages that the deployed tools made of known inputs: built again they have the same bytes,
//! and they can be published.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{Run, binary};
use crate::repo_support::{Farm, TIME, check};

/// The sample whose binary the build signs.
const SIGNED: &str = "signed-binary";

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples")
}

/// The packages of the deployed tools.
fn packages() -> Vec<PathBuf> {
    let entries = fs::read_dir(samples().join("packages")).unwrap();
    let packages: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(packages.len(), 6, "{packages:?}");
    packages
}

/// Unpacks the tar file with the system's tar: the file has what no work tree can have.
fn unpack(archive: &Path, directory: &Path) {
    let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(directory).status().unwrap();
    assert!(status.success(), "{}", archive.display());
}

#[test]
fn samples_built_again_have_the_same_tar_stream() {
    for package in packages() {
        let file_name = package.file_name().unwrap().to_str().unwrap();
        let (name, rest) = file_name.split_once('_').unwrap();
        if name == SIGNED {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["source", "tmp"] {
            fs::create_dir(path(name)).unwrap();
        }
        let input = samples().join("inputs").join(name);
        unpack(&input.join("source.tar"), &path("source"));
        let mut command = binary();
        command.args(["build", "--version", rest.split_once('_').unwrap().0, "--farm-id", "sample"]);
        command.args(["--source-ref", "git+https://example.org/x#refs/tags/v1.2.3"]);
        command.args(["--timestamp", "2024-03-15T10:30:00Z"]);
        command.arg("--recipe").arg(input.join("peipkg.toml")).arg("--source").arg(path("source"));
        command.arg("--sign-key").arg(samples().join("key.seed")).arg("--out").arg(path("out"));
        let run = Run::of(command.env("TMPDIR", path("tmp")));
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{name}");
        let stream = |path: &Path| zstd::decode_all(&*fs::read(path).unwrap()).unwrap();
        let (ours, theirs) = (stream(&path("out").join(file_name)), stream(&package));
        let differs = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
        assert_eq!((differs, ours.len()), (None, theirs.len()), "{name}: first byte that differs, length");
    }
}

#[test]
fn samples_are_published_and_verified() {
    let farm = Farm::new();
    fs::remove_dir_all(farm.repo()).unwrap();
    fs::copy(samples().join("key.seed"), farm.key()).unwrap();
    let init = ["init", "--name", "samples", "--sign-key", "KEY", "--timestamp", TIME, "--out", "REPO"];
    check(&farm.run(&init), 0, "");
    for package in packages() {
        fs::copy(&package, farm.new_dir().join(package.file_name().unwrap())).unwrap();
    }
    check(&farm.publish(), 0, "");
    let verified = farm.verify();
    check(&verified, 0, "");
    let summary = "ok: 6 packages, 6 of them current, index_version 2, 6 package files hashed\n";
    assert_eq!(String::from_utf8(verified.stdout).unwrap(), summary);
    let index = fs::read_to_string(farm.repo().join("index/active.json")).unwrap();
    assert!(index.contains("\"description\":\"A tool — for “everybody”, at 5 € and 漢字\""), "{index}");
}
