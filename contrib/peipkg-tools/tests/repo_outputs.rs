//! Publishes into another directory than the input's: nothing published there changes, and the next
//! publish finds a repository that stands on its own.

mod repo_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use repo_support::{Farm, SEED, TIME, check, entries, file, good, json_file, manifest, pack};
use rustix::fs::{FlockOperation, flock};

/// A package with other bytes than `good` makes.
fn other(name: &str, version: &str, architecture: &str) -> Vec<u8> {
    let payload = vec![file("usr/share/other", b"")];
    pack(&entries(manifest(name, version, architecture), payload), Some(SEED))
}

fn version(root: &Path) -> u64 {
    json_file(&root.join("index/archive.json"))["index_version"].as_u64().unwrap()
}

/// Waits until the process waits for a lock.
fn wait_until_blocked(child: &Child) {
    // The kernel lists blocked processes. Where that list is missing, wait for some time instead.
    let waiting = |line: &str| line.contains("->") && line.contains(&format!(" {} ", child.id()));
    let deadline = Instant::now() + Duration::from_secs(2);
    while !fs::read_to_string("/proc/locks").unwrap_or_default().lines().any(waiting)
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn package_published_in_the_output_never_changes() {
    let farm = Farm::new();
    farm.add("bb", "1-1", "noarch");
    check(&farm.publish_to("next"), 0, "");
    let stored = farm.path("next/p/bb/1-1/bb_1-1_noarch.peipkg");
    // The input lacks it. A publish of other bytes would replace those that clients have.
    farm.put("bb", "1-1", "noarch", &other("bb", "1-1", "noarch"));
    let refused = "index/archive.json: lists 1 packages with another hash: \"bb 1-1 noarch\"; \
                   published versions never change; remove this file to replace them";
    check(&farm.publish_to("next"), 1, refused);
    assert_eq!(fs::read(&stored).unwrap(), good("bb", "1-1", "noarch"));
    // Published in the input by now, it would be carried over.
    check(&farm.publish(), 0, "");
    farm.clear();
    farm.add("cc", "1-1", "noarch");
    check(&farm.publish_to("next"), 1, refused);
    assert_eq!(fs::read(&stored).unwrap(), good("bb", "1-1", "noarch"));
    check(&farm.run(&["verify", "--repo", "next"]), 0, "");
}

#[test]
fn rebuild_changes_no_package_unless_the_index_is_removed() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    fs::create_dir(farm.path("all")).unwrap();
    fs::write(farm.path("all/aa_1-1_noarch.peipkg"), other("aa", "1-1", "noarch")).unwrap();
    let mut rebuild =
        vec!["publish", "--rebuild", "--all-packages-dir", "all", "--in", "REPO", "--out", "REPO"];
    rebuild.extend(["--sign-key", "KEY", "--timestamp", TIME]);
    let before = farm.snapshot();
    check(&farm.run(&rebuild), 1, "published versions never change");
    assert_eq!(farm.snapshot(), before);
    fs::remove_file(farm.repo().join("index/archive.json")).unwrap();
    check(&farm.run(&rebuild), 0, "");
    check(&farm.verify(), 0, "");
}

#[test]
fn index_version_grows_with_each_publish_into_another_directory() {
    let farm = Farm::new();
    for expected in 2..5 {
        farm.clear();
        check(&farm.publish_to("next"), 0, "");
        assert_eq!(version(&farm.path("next")), expected);
    }
    // The input, too, may be ahead.
    for number in 1..6 {
        farm.publish_all(&[&format!("aa {number}-1 noarch")]);
    }
    farm.clear();
    check(&farm.publish_to("next"), 0, "");
    assert_eq!((version(&farm.repo()), version(&farm.path("next"))), (6, 7));
    // Publish looks for the version in the first bytes only, but a full parse finds this one.
    let archive = farm.path("next/index/archive.json");
    let text = fs::read_to_string(&archive).unwrap().replace("\"index_version\":7,", "");
    let space = " ".repeat(5000);
    fs::write(&archive, text.replace("\"packages\"", &format!("{space}\"index_version\":9,\"packages\"")))
        .unwrap();
    fs::remove_file(farm.path("next/index/active.json")).unwrap();
    check(&farm.publish_to("next"), 1, "has index_version 9; the new one would have 7");
}

#[test]
fn package_behind_a_link_is_carried_over_as_a_file() {
    for is_relative in [true, false] {
        let farm = Farm::new();
        farm.publish_all(&["aa 1-1 noarch"]);
        let package = farm.repo().join("p/aa/1-1/aa_1-1_noarch.peipkg");
        fs::create_dir(farm.path("store")).unwrap();
        fs::rename(&package, farm.path("store/aa")).unwrap();
        let target = if is_relative { "../../../../store/aa".into() } else { farm.path("store/aa") };
        symlink(target, &package).unwrap();
        check(&farm.verify(), 0, "");
        farm.clear();
        check(&farm.publish_to("deep/next"), 0, "");
        let carried = farm.path("deep/next/p/aa/1-1/aa_1-1_noarch.peipkg");
        assert!(fs::symlink_metadata(&carried).unwrap().is_file());
        check(&farm.run(&["verify", "--repo", "deep/next"]), 0, "");
        // One that an earlier publish left dangling is mended.
        fs::remove_file(&carried).unwrap();
        symlink("../nowhere", &carried).unwrap();
        check(&farm.publish_to("deep/next"), 0, "");
        check(&farm.run(&["verify", "--repo", "deep/next"]), 0, "");
    }
}

#[test]
fn file_that_is_not_the_package_is_not_carried_over() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    farm.clear();
    let package = farm.repo().join("p/aa/1-1/aa_1-1_noarch.peipkg");
    fs::remove_file(&package).unwrap();
    fs::write(farm.path("secret"), "of somebody else").unwrap();
    symlink(farm.path("secret"), &package).unwrap();
    let published = farm.publish_to("next");
    let notes = String::from_utf8_lossy(&published.stderr);
    assert!(
        published.status.success() && notes.contains("aa_1-1_noarch.peipkg: is not carried over: its"),
        "{notes}"
    );
    assert!(!farm.path("next/p/aa").exists());
    check(&farm.run(&["verify", "--repo", "next"]), 1, "package missing: aa_1-1_noarch.peipkg");
    assert!(farm.path("next/p/bb/1-1/bb_1-1_noarch.peipkg").is_file());
}

#[test]
fn package_keeps_its_sidecars_until_those_of_the_new_names_are_written() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    check(&farm.publish_with("/pool/{filename}"), 0, "");
    let pool = farm.repo().join("pool");
    let odd = pool.join("aa_1-1_noarch.peipkg.files.json");
    fs::create_dir(&odd).unwrap();
    farm.clear();
    farm.add("bb", "1-1", "noarch");
    let notes = String::from_utf8_lossy(&farm.publish_with("/pool/{filename}").stderr).into_owned();
    assert!(notes.contains("aa_1-1_noarch.peipkg.files.json: is not a regular file"), "{notes}");
    assert!(pool.join("files.json").is_file() && pool.join("bb_1-1_noarch.peipkg.files.json").is_file());
    fs::remove_dir(&odd).unwrap();
    farm.clear();
    farm.add("cc", "1-1", "noarch");
    check(&farm.publish_with("/pool/{filename}"), 0, "");
    assert!(odd.is_file() && !pool.join("files.json").exists());
}

#[test]
fn publish_into_another_directory_opens_no_package_that_is_there() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    farm.clear();
    farm.add("aa", "2-1", "noarch");
    check(&farm.publish_to("next"), 0, "");
    let sidecar = |package: &str| farm.path("next/p").join(package).join("manifest.json");
    for package in ["aa/1-1", "bb/1-1", "aa/2-1"] {
        assert!(sidecar(package).is_file(), "{package}");
    }
    // A package that was there before gets its sidecars by a publish without packages.
    fs::remove_file(sidecar("bb/1-1")).unwrap();
    fs::remove_file(farm.path("next/p/aa/1-1/aa_1-1_noarch.peipkg")).unwrap();
    fs::remove_file(sidecar("aa/1-1")).unwrap();
    check(&farm.publish_to("next"), 0, "");
    assert!(sidecar("aa/1-1").is_file() && !sidecar("bb/1-1").exists());
    farm.clear();
    fs::rename(farm.path("repo"), farm.path("old")).unwrap();
    fs::rename(farm.path("next"), farm.repo()).unwrap();
    check(&farm.publish_to("last"), 0, "");
    assert!(farm.path("last/p/bb/1-1/manifest.json").is_file());
}

#[test]
fn page_of_the_operator_is_carried_over_if_no_site_is_written() {
    let farm = Farm::new();
    let init =
        ["init", "--name", "n", "--sign-key", "KEY", "--timestamp", TIME, "--out", "bare", "--no-site"];
    check(&farm.run(&init), 0, "");
    for name in ["index.html", "feed.xml", "robots.txt"] {
        fs::write(farm.path("bare").join(name), "of the operator").unwrap();
    }
    let publish = |out: &str, more: &[&str]| {
        let mut arguments = Farm::PUBLISH;
        (arguments[2], arguments[10]) = ("bare", out);
        check(&farm.run(&[&arguments[..], more].concat()), 0, "");
    };
    let page = |out: &str| fs::read_to_string(farm.path(out).join("index.html")).unwrap();
    publish("kept", &["--no-site"]);
    assert_eq!(page("kept"), "of the operator");
    assert!(farm.path("kept/feed.xml").is_file() && farm.path("kept/robots.txt").is_file());
    publish("replaced", &[]);
    assert!(page("replaced").contains("index-version"));
}

#[test]
fn input_under_publication_is_waited_for() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    farm.clear();
    let archive = farm.repo().join("index/archive.json");
    let bytes = fs::read(&archive).unwrap();
    // A publish that renames its files one by one is half way.
    let lock = fs::File::create(farm.repo().join(".lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    fs::write(&archive, &bytes[1..]).unwrap();
    let mut arguments = Farm::PUBLISH;
    arguments[10] = "next";
    let mut child = farm.command(&arguments).spawn().unwrap();
    wait_until_blocked(&child);
    fs::write(&archive, &bytes).unwrap();
    drop(lock);
    assert!(child.wait().unwrap().success());
    assert_eq!(version(&farm.path("next")), 3);
}

#[test]
fn input_published_to_after_it_was_read_is_taken_as_it_was() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    // The output is in use, so the publish waits after it has read its input.
    fs::create_dir(farm.path("next")).unwrap();
    let lock = fs::File::create(farm.path("next/.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    fs::create_dir(farm.path("other")).unwrap();
    fs::write(farm.path("other/cc_1-1_noarch.peipkg"), good("cc", "1-1", "noarch")).unwrap();
    let mut arguments = Farm::PUBLISH;
    (arguments[4], arguments[10]) = ("other", "next");
    let mut child = farm.command(&arguments).spawn().unwrap();
    wait_until_blocked(&child);
    farm.publish_all(&["aa 2-1 noarch"]);
    drop(lock);
    assert!(child.wait().unwrap().success());
    let index = json_file(&farm.path("next/index/archive.json"));
    let versions: Vec<_> = index["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["1-1", "1-1"]);
    farm.check_verified("next", "2 packages, 2 of them current, index_version 3, 2 package files hashed");
}
