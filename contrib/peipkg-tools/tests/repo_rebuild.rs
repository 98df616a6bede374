//! Runs `peipkg-repo publish --rebuild`, which makes the indexes anew from the packages.

mod repo_support;

use std::fs;

use repo_support::{Farm, TIME, check, json_file, sha256};
use serde_json::json;

/// Arguments of a rebuild in place.
const REBUILD: [&str; 12] = [
    "publish",
    "--in",
    "REPO",
    "--rebuild",
    "--all-packages-dir",
    "repo/p",
    "--sign-key",
    "KEY",
    "--timestamp",
    TIME,
    "--out",
    "REPO",
];

#[test]
fn rebuild_loses_nothing_in_silence() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "aa 2-1 noarch", "bb 1-1 noarch"]);
    let mut older = REBUILD;
    older[9] = "2026-05-01T11:59:59Z";
    check(&farm.run(&older), 1, "later than the --timestamp");
    fs::remove_dir_all(farm.repo().join("p/aa")).unwrap();
    let before = farm.snapshot();
    let output = farm.run(&REBUILD);
    check(&output, 1, "lists 2 packages that the new one would lack: \"aa 2-1 noarch\", \"aa 1-1 noarch\"");
    assert_eq!(farm.snapshot(), before);
    fs::remove_file(farm.repo().join("index/archive.json")).unwrap();
    check(&farm.run(&REBUILD), 0, "");
    assert_eq!(farm.listed("archive"), ["bb 1-1 noarch"]);
    check(&farm.verify(), 0, "");
}

#[test]
fn rebuild_knows_the_old_keys() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    fs::write(farm.path("new-key"), [9; 32]).unwrap();
    let public = ed25519_dalek::SigningKey::from_bytes(&[9; 32]).verifying_key();
    let fingerprint = sha256(public.as_bytes());
    fs::write(farm.repo().join(format!("keys/{fingerprint}.pub")), public.as_bytes()).unwrap();
    let mut descriptor = json_file(&farm.repo().join("repo.json"));
    let keys = descriptor["repo"]["signing"]["keys"].as_array_mut().unwrap();
    keys[0]["status"] = "revoked".into();
    let old = keys[0]["fingerprint"].as_str().unwrap().to_owned();
    keys.push(
        json!({"fingerprint": fingerprint, "url": format!("/keys/{fingerprint}.pub"), "status": "active"}),
    );
    keys.sort_by_key(|key| key["fingerprint"].as_str().unwrap().to_owned());
    fs::write(farm.repo().join("repo.json"), format!("{descriptor}\n")).unwrap();
    let mut arguments = REBUILD;
    arguments[7] = "new-key";
    let output = farm.run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let note = format!("peipkg-repo: note: packages are signed by key {old}, which is no longer accepted\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), note);
    check(&farm.verify(), 0, "");
}

#[test]
fn rebuild_needs_only_the_packages() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "aa 2-1 x86_64", "bb 1-1 noarch"]);
    let archive = farm.listed("archive");
    fs::write(farm.repo().join("index/archive.json"), "{\"index_version\":41,").unwrap();
    fs::remove_file(farm.repo().join("index/active.json.sig")).unwrap();
    check(&farm.publish(), 1, "active.json.sig");
    let rebuild = REBUILD;
    check(&farm.run(&rebuild), 0, "");
    assert_eq!(farm.listed("archive"), archive);
    assert_eq!(farm.index("active")["index_version"], 42);
    check(&farm.verify(), 0, "");
    // The version grows even if both indexes are gone.
    fs::remove_dir_all(farm.repo().join("index")).unwrap();
    check(&farm.run(&rebuild), 0, "");
    assert!(farm.index("active")["index_version"].as_u64().unwrap() > 1_000_000_000);
    check(&farm.verify(), 0, "");
    // A rebuild signs an edited descriptor again, if it lists the key.
    let path = farm.repo().join("repo.json");
    let edited =
        fs::read_to_string(&path).unwrap().replace("\"description\":\"\"", "\"description\":\"edited\"");
    fs::write(&path, edited).unwrap();
    check(&farm.verify(), 1, "repo.json.sig: signature does not match");
    check(&farm.run(&rebuild), 0, "");
    check(&farm.verify(), 0, "");
}
