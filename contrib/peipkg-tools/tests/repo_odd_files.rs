//! Files of another kind and of great length: `peipkg-repo` refuses them at once, and holds no long
//! index in memory.

mod repo_support;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{str, thread};

use repo_support::{Farm, SEED, check, envelope};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Runs the command, and returns its exit code and all its output. Fails the test if it does not end
/// soon.
#[track_caller]
fn run(farm: &Farm, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = farm.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{arguments:?} did not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), str::from_utf8(&text).unwrap().to_owned())
}

fn put(kind: &str, path: &Path) {
    let _ = fs::remove_file(path);
    match kind {
        "FIFO" => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        "device" => symlink("/dev/zero", path).unwrap(),
        "larger" => File::create(path).unwrap().set_len(5 << 30).unwrap(),
        other => panic!("{other}"),
    }
}

#[test]
fn file_of_another_kind_is_refused_at_once() {
    let names = [
        "repo/repo.json",
        "repo/repo.json.sig",
        "repo/index/active.json",
        "repo/index/archive.json",
        "repo/index/archive.json.sig",
        "repo/keys",
        "key",
        "new/bb_1-1_noarch.peipkg",
    ];
    for kind in ["FIFO", "device", "larger"] {
        for name in names {
            let farm = Farm::new();
            farm.publish_all(&["aa 1-1 noarch"]);
            farm.add("bb", "1-1", "noarch");
            let key = fs::read_dir(farm.repo().join("keys")).unwrap().next().unwrap().unwrap().path();
            let path = if name == "repo/keys" { key } else { farm.path(name) };
            put(kind, &path);
            if name.starts_with("repo/") {
                let (code, text) = run(&farm, &["verify", "--repo", "REPO"]);
                assert!(code == Some(1) && text.contains(&format!("is {}", article(kind))), "{name}: {text}");
            }
            // The publish needs no public key: it has the private one.
            if name != "repo/keys" {
                let (code, text) = run(&farm, &Farm::PUBLISH);
                assert!(code == Some(1), "{kind} {name}: {text}");
            }
        }
    }
}

fn article(kind: &str) -> String {
    if kind == "larger" { "larger than".to_owned() } else { format!("a {kind}, expected a regular file") }
}

#[test]
fn work_file_of_another_kind_is_replaced() {
    for kind in ["FIFO", "device"] {
        let farm = Farm::new();
        farm.add("aa", "1-1", "noarch");
        for name in [".incoming.tmp", ".repo.json.tmp", ".repo.json.sig.tmp"] {
            put(kind, &farm.repo().join(name));
        }
        let (code, text) = run(&farm, &Farm::PUBLISH);
        assert_eq!(code, Some(0), "{text}");
        check(&farm.verify(), 0, "");
        // The lock is the only one that may be somebody's: it is refused, not removed.
        farm.clear();
        farm.add("aa", "2-1", "noarch");
        put(kind, &farm.repo().join(".lock"));
        let (code, text) = run(&farm, &Farm::PUBLISH);
        assert!(code == Some(1) && text.contains(".lock: cannot lock the repository"), "{text}");
    }
}

#[test]
fn lock_is_only_for_those_who_may_write() {
    let farm = Farm::new();
    let lock = farm.repo().join(".lock");
    assert!(!lock.exists());
    for (directory, file) in [(0o755, 0o600), (0o775, 0o660), (0o777, 0o660), (0o700, 0o600)] {
        fs::set_permissions(farm.repo(), fs::Permissions::from_mode(directory)).unwrap();
        // A publish that waits shows the mode.
        fs::write(&lock, "").unwrap();
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o666)).unwrap();
        let held = File::open(&lock).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut child =
            farm.command(&Farm::PUBLISH).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while held.metadata().unwrap().permissions().mode() & 0o777 != file {
            assert!(Instant::now() < deadline, "{directory:o}");
            thread::sleep(Duration::from_millis(5));
        }
        drop(held);
        child.wait().unwrap();
        assert!(!lock.exists());
    }
}

/// Writes and signs an index of many entries that all are one name's.
fn write_index(farm: &Farm, kind: &str, entries: u32) {
    let path = farm.repo().join(format!("index/{kind}.json"));
    let mut file = BufWriter::new(File::create(&path).unwrap());
    let head = "\"index_version\":1,\"generated_at\":\"2026-05-01T12:00:00Z\",\"packages\":[";
    write!(file, "{{\"schema_version\":1,\"repo\":\"farm\",\"kind\":\"{kind}\",{head}").unwrap();
    let (padding, hash) = ("x".repeat(20_000), "0".repeat(64));
    for version in (1..=entries).rev() {
        write!(
            file,
            "{{\"name\":\"aa\",\"version\":\"{version}-1\",\"architecture\":\"noarch\",\"description\":\"{padding}\",\
             \"dependencies\":[],\"conflicts\":[],\"size_compressed\":1,\"size_installed\":1,\
             \"hash\":{{\"algorithm\":\"sha256\",\"value\":\"{hash}\"}},\"url\":\"/aa/{version}\"}}{}",
            if version == 1 { "" } else { "," }
        )
        .unwrap();
        if kind == "active" {
            break;
        }
    }
    writeln!(file, "]}}").unwrap();
    file.flush().unwrap();
    let digest = openssl_digest(&path);
    let signature = envelope(SEED, &digest).to_string();
    fs::write(path.with_extension("json.sig"), signature).unwrap();
}

fn openssl_digest(path: &Path) -> Vec<u8> {
    let output =
        std::process::Command::new("openssl").args(["dgst", "-sha256", "-binary"]).arg(path).output();
    output.unwrap().stdout
}

#[test]
fn long_index_is_not_held_in_memory() {
    let farm = Farm::new();
    // 60 MB.
    write_index(&farm, "archive", 3_000);
    let archive = fs::metadata(farm.repo().join("index/archive.json")).unwrap().len();
    assert!(archive > 60_000_000);
    // The active index lists the newest entry, the first.
    let path = farm.repo().join("index/active.json");
    write_index(&farm, "active", 3_000);
    let active = fs::read_to_string(&path).unwrap();
    fs::write(&path, active.replace("},]}", "}]}")).unwrap();
    let signature = envelope(SEED, &openssl_digest(&path)).to_string();
    fs::write(path.with_extension("json.sig"), signature).unwrap();
    let mut shell = std::process::Command::new("sh");
    // 40 MiB of address space.
    shell.arg("-c").arg("ulimit -v 40960; exec \"$@\"").arg("sh").arg(env!("CARGO_BIN_EXE_peipkg-repo"));
    let output = shell.args(["verify", "--mode", "metadata", "--repo"]).arg(farm.repo()).output().unwrap();
    check(&output, 0, "");
}
