//! Kills and reads a repository while peipkg-repo publishes to it.

mod repo_support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, SigningKey};
use repo_support::{Farm, SEED, check, file, manifest, pack};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Kills publishes after delays that cover a publish from its start to beyond its end.
fn kill_at_any_instant(options: &[&str]) {
    let farm = Farm::new();
    let arguments = [&Farm::PUBLISH[..], options].concat();
    farm.publish_all(&["aa 1-1 noarch"]);
    farm.publish_all(&["aa 2-1 noarch", "bb 2-1 noarch"]);
    let start = Instant::now();
    farm.publish_all(&["aa 3-1 noarch", "bb 3-1 noarch"]);
    let whole = start.elapsed();
    let (mut before_commit, mut after_commit) = (0, 0);
    let rounds = 60;
    for round in 0..rounds {
        let version = format!("{}-1", 10 + round);
        farm.clear();
        farm.add("aa", &version, "noarch");
        farm.add("bb", &version, "noarch");
        let mut child = farm.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(whole * round / rounds);
        child.kill().unwrap();
        child.wait().unwrap();
        // The repository is complete, whenever the kill came.
        check(&farm.verify(), 0, "");
        let line = format!("aa {version} noarch");
        if farm.listed("archive").contains(&line) {
            after_commit += 1;
            // No kill leaves a published package without its sidecars.
            let place = if options.is_empty() {
                format!("p/bb/{version}/")
            } else {
                format!("pool/bb_{version}_noarch.peipkg.")
            };
            for name in ["manifest.json", "files.json"] {
                let path = farm.repo().join(format!("{place}{name}"));
                assert!(fs::metadata(path).unwrap().len() > 0, "{name}");
            }
            check(&farm.run(&arguments), 1, "is already published, with the same bytes");
        } else {
            before_commit += 1;
            check(&farm.run(&arguments), 0, "");
        }
        assert!(farm.listed("active").contains(&line));
    }
    check(&farm.verify(), 0, "");
    assert_eq!(farm.listed("archive").len(), 1 + 2 * (rounds as usize + 2));
    let left = |name: &str| farm.repo().join(name).exists();
    assert!(!left(".index.tmp") && !left(".index.next"));
    assert!(before_commit > 0 && before_commit + after_commit == rounds);
}

#[test]
fn publish_killed_at_any_instant_can_go_on() {
    kill_at_any_instant(&[]);
}

#[test]
fn publish_into_a_pool_killed_at_any_instant_can_go_on() {
    kill_at_any_instant(&["--package-url-template", "/pool/{filename}"]);
}

/// Polls the repository as a consumer does until told to stop. With `pairs`, a document that did
/// not change while its signature was read must match the signature.
fn poll(root: &Path, stop: &AtomicBool, pairs: bool) -> usize {
    let key = SigningKey::from_bytes(&SEED).verifying_key();
    let mut highest = 0;
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        for name in ["archive", "active"] {
            let path = root.join(format!("index/{name}.json"));
            let bytes = fs::read(&path).unwrap();
            let envelope: Value =
                serde_json::from_slice(&fs::read(root.join(format!("index/{name}.json.sig"))).unwrap())
                    .unwrap();
            if pairs && fs::read(&path).unwrap() == bytes {
                use base64::Engine as _;
                let text = envelope["signature"].as_str().unwrap();
                let signature = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).unwrap();
                let signature = Signature::from_slice(&signature).unwrap();
                key.verify_strict(&Sha256::digest(&bytes), &signature).unwrap();
            }
            let index: Value = serde_json::from_slice(&bytes).unwrap();
            let version = index["index_version"].as_u64().unwrap();
            assert!(name == "active" || version >= highest, "index_version went back");
            highest = highest.max(version);
            for entry in index["packages"].as_array().unwrap() {
                let package = root.join(&entry["url"].as_str().unwrap()[1..]);
                assert!(package.is_file(), "{} is listed but missing", package.display());
            }
        }
        rounds += 1;
    }
    rounds
}

fn poll_while_publishing(pairs: bool, publishes: usize) {
    let farm = Farm::new();
    if !pairs {
        // A foreign file in `index` makes every publish move its files one by one.
        fs::write(farm.repo().join("index/README"), "ours").unwrap();
    }
    let directory = || fs::metadata(farm.repo().join("index")).unwrap().ino();
    let (stop, before) = (AtomicBool::new(false), directory());
    let rounds = thread::scope(|scope| {
        let reader = scope.spawn(|| poll(&farm.repo(), &stop, pairs));
        for version in 1..=publishes {
            farm.publish_all(&[&format!("aa {version}-1 noarch"), &format!("bb {version}-1 noarch")]);
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(rounds > publishes, "the reader was too slow to see anything: {rounds}");
    check(&farm.verify(), 0, "");
    // A reader is too slow to tell an exchange from moves, so look at the directory.
    assert_eq!(directory() != before, pairs);
    if !pairs {
        assert_eq!(fs::read_to_string(farm.repo().join("index/README")).unwrap(), "ours");
    }
}

#[test]
fn readers_during_a_publish_never_see_half_of_it() {
    poll_while_publishing(true, 50);
}

#[test]
fn readers_without_directory_exchange_never_miss_a_package() {
    poll_while_publishing(false, 20);
}

/// Verify blocks while a publish holds the lock.
#[test]
fn verify_during_a_publish_sees_one_state() {
    let farm = Farm::new();
    let lock = fs::File::create(farm.repo().join(".lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let (signature, aside) = (farm.repo().join("index/active.json.sig"), farm.path("aside"));
    fs::rename(&signature, &aside).unwrap();
    let mut child = farm.command(&["verify", "--repo", "REPO"]).stdout(Stdio::null()).spawn().unwrap();
    // The kernel lists blocked processes. Where that list is missing, wait for some time instead.
    let waiting = |line: &str| line.contains("->") && line.contains(&format!(" {} ", child.id()));
    let deadline = Instant::now() + Duration::from_secs(2);
    while !fs::read_to_string("/proc/locks").unwrap_or_default().lines().any(waiting)
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(5));
    }
    fs::rename(&aside, &signature).unwrap();
    drop(lock);
    assert!(child.wait().unwrap().success());
}

/// Interrupts the one-by-one moves after each of them.
#[test]
fn moves_interrupted_are_undone_before_the_commit_and_completed_after() {
    const ORDER: [&str; 4] = ["archive.json", "archive.json.sig", "active.json", "active.json.sig"];
    for moved in 0..=ORDER.len() {
        let farm = Farm::new();
        farm.publish_all(&["aa 1-1 noarch"]);
        let (index, next) = (farm.repo().join("index"), farm.repo().join(".index.next"));
        let old: Vec<_> = ORDER.iter().map(|name| fs::read(index.join(name)).unwrap()).collect();
        farm.publish_all(&["aa 2-1 noarch"]);
        fs::create_dir(&next).unwrap();
        for (position, name) in ORDER.iter().enumerate().skip(moved) {
            fs::rename(index.join(name), next.join(name)).unwrap();
            fs::write(index.join(name), &old[position]).unwrap();
        }
        // Between a document and its signature, verify reports the interruption and the remedy.
        if moved % 2 == 1 {
            check(&farm.verify(), 1, "the next publish completes it");
        } else {
            check(&farm.run(&["verify", "--repo", "REPO", "--mode", "hashes"]), 0, "");
        }
        let (status, message) = if moved == 0 { (0, "") } else { (1, "is already published") };
        check(&farm.publish(), status, message);
        check(&farm.verify(), 0, "");
        assert_eq!(farm.listed("active"), ["aa 2-1 noarch"]);
        assert!(!next.exists());
    }
}

/// An uncommitted publish stays uncommitted if its removal is interrupted.
#[test]
fn moves_undone_and_killed_are_undone_again() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    let (index, next) = (farm.repo().join("index"), farm.repo().join(".index.next"));
    let old = farm.path("old");
    fs::create_dir(&old).unwrap();
    for entry in fs::read_dir(&index).unwrap() {
        let name = entry.unwrap().file_name();
        fs::copy(index.join(&name), old.join(&name)).unwrap();
    }
    farm.publish_all(&["aa 2-1 noarch"]);
    fs::rename(&index, &next).unwrap();
    fs::rename(&old, &index).unwrap();
    for number in 0..5000 {
        fs::write(next.join(number.to_string()), "").unwrap();
    }
    // Some file systems list the newest file first.
    fs::rename(next.join("archive.json"), farm.path("moved")).unwrap();
    fs::rename(farm.path("moved"), next.join("archive.json")).unwrap();
    let mut child = farm.command(&Farm::PUBLISH).stdout(Stdio::null()).spawn().unwrap();
    while next.join("archive.json").exists() {
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!next.exists(), "half of it can be taken for a commit");
    // On a busy machine, the kill can come after the publish; then this run shows nothing.
    if farm.listed("archive") == ["aa 1-1 noarch"] {
        check(&farm.publish(), 0, "");
    }
    check(&farm.verify(), 0, "");
    assert_eq!(farm.listed("archive"), ["aa 2-1 noarch", "aa 1-1 noarch"]);
}

#[test]
fn publish_interrupted_keeps_or_replaces_package_files() {
    let farm = Farm::new();
    let place = |name: &str, bytes: &[u8]| {
        let directory = farm.repo().join(format!("p/{name}/1-1"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{name}_1-1_noarch.peipkg")), bytes).unwrap();
    };
    fs::write(farm.repo().join(".incoming.tmp"), "half").unwrap();
    place("aa", &repo_support::good("aa", "1-1", "noarch"));
    place("bb", b"what another build made");
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    check(&farm.verify(), 0, "");
    let mut packages = farm.snapshot();
    packages.retain(|(path, _)| path.extension().is_some_and(|extension| extension == "peipkg"));
    assert_eq!(packages.len(), 2);
    assert!(!farm.repo().join(".incoming.tmp").exists());
}

#[test]
fn publish_disk_full_leaves_nothing_behind() {
    let farm = Farm::new();
    // Hardly compressible, so that the package stays long.
    let content: Vec<u8> =
        (0..8192_u32).flat_map(|number| sha2::Sha256::digest(number.to_le_bytes())).collect();
    let package = pack(
        &repo_support::entries(manifest("aa", "1-1", "noarch"), vec![file("usr/share/big", &content)]),
        Some(SEED),
    );
    farm.put("aa", "1-1", "noarch", &package);
    let before = farm.snapshot();
    // A limit on the length of files simulates a full disk.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "sh"]);
    let publish = farm.command(&Farm::PUBLISH);
    shell.arg(publish.get_program()).args(publish.get_args()).current_dir(farm.dir.path());
    check(&shell.output().unwrap(), 1, "cannot write the file");
    assert_eq!(farm.snapshot(), before);
    check(&farm.publish(), 0, "");
}

/// Two concurrent publishes take turns, and both succeed.
#[test]
fn publishes_at_the_same_time_take_turns() {
    let farm = Farm::new();
    let directories: Vec<_> = (1..=6).map(|number| farm.path(&format!("new{number}"))).collect();
    for (number, directory) in directories.iter().enumerate() {
        fs::create_dir(directory).unwrap();
        let version = format!("{}-1", number + 1);
        let package =
            pack(&repo_support::entries(manifest("aa", &version, "noarch"), Vec::new()), Some(SEED));
        fs::write(directory.join(format!("aa_{version}_noarch.peipkg")), package).unwrap();
    }
    let children: Vec<_> = directories
        .iter()
        .map(|directory| {
            let mut arguments = Farm::PUBLISH;
            arguments[4] = directory.to_str().unwrap();
            farm.command(&arguments).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(farm.listed("archive").len(), 6);
    assert_eq!(farm.index("active")["index_version"], 7);
    check(&farm.verify(), 0, "");
}

/// Runs the command with so much address space, in KiB, and returns its exit status. A look at its
/// memory from time to time would miss a quick command.
fn run_within(farm: &Farm, arguments: &[&str], space: u32) -> Option<i32> {
    let command = farm.command(arguments);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v \"$0\"; exec \"$@\"", &space.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        limited.current_dir(directory);
    }
    limited.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
}

/// Reading a package that is larger than any buffer takes bounded memory.
#[test]
fn publish_large_package_streams() {
    let farm = Farm::new();
    let content = vec![b'x'; 96 << 20];
    let package = pack(
        &repo_support::entries(manifest("aa", "1-1", "noarch"), vec![file("usr/share/big", &content)]),
        Some(SEED),
    );
    drop(content);
    farm.put("aa", "1-1", "noarch", &package);
    for arguments in [&Farm::PUBLISH[..], &["verify", "--repo", "REPO", "--mode", "both"]] {
        assert_eq!(run_within(&farm, arguments, 64 << 10), Some(0), "{arguments:?}");
    }
}

/// The documents of a package may be small as JSON and large in memory, so they are not parsed
/// before the signature is verified.
#[test]
fn package_of_untrusted_key_is_not_parsed() {
    let farm = Farm::new();
    let mut manifest = manifest("aa", "1-1", "noarch");
    manifest["side_effects"] = vec![""; 4_000_000].into();
    let mut all = repo_support::entries(manifest, Vec::new());
    let entry = "{\"path\":\"a\",\"size\":1,\"hash\":\"\"},";
    all[1].content = format!(
        "{{\"schema_version\":1,\"algorithm\":\"sha256\",\"entries\":[{}]}}",
        entry.repeat(2_000_000).trim_end_matches(',')
    )
    .into_bytes();
    farm.put("aa", "1-1", "noarch", &pack(&all, Some([8; 32])));
    assert_eq!(run_within(&farm, &Farm::PUBLISH, 40 << 10), Some(1));
}
