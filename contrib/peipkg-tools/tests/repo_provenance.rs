//! The provenance that a farm has put beside packages: publishes take it along, and `verify` checks it.

mod repo_support;

use std::fs;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};
use peipkg_format::provenance::{
    Builder, ExternalParameters, InternalParameters, Metadata, RunDetails, Sha256, Statement, Subject,
    Versions,
};
use repo_support::{Farm, SEED, TIME, check, json_file, sha256};
use serde_json::json;

/// The provenance of these package files, signed by the key of this seed.
fn provenance(packages: &[&Path], seed: [u8; 32]) -> Vec<u8> {
    let subject = |path: &&Path| Subject {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        digest: Sha256 { sha256: sha256(&fs::read(path).unwrap()) },
    };
    let text = || "x".to_owned();
    let parameters = ExternalParameters {
        source: text(),
        tag: text(),
        recipe: text(),
        version: text(),
        submodules: false,
        export_version: false,
    };
    let builder = Builder { id: text(), version: Versions::default() };
    let run_details = RunDetails { builder, metadata: Metadata::default() };
    let subjects = packages.iter().map(subject).collect();
    let statement = Statement::new(subjects, parameters, InternalParameters::default(), vec![], run_details);
    let key = SigningKey::from_bytes(&seed);
    statement.write("any".into(), &|message| key.sign(message).to_bytes().to_vec())
}

fn package(root: &Path, name: &str, version: &str) -> PathBuf {
    root.join(format!("p/{name}/{version}/{name}_{version}_noarch.peipkg"))
}

/// A farm with the packages `aa 1-1` and `bb 1-1`, each with its provenance.
fn farm() -> Farm {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    for name in ["aa", "bb"] {
        let path = package(&farm.repo(), name, "1-1");
        fs::write(path.with_file_name("provenance.json"), provenance(&[&path], SEED)).unwrap();
    }
    farm.check_verified(
        "REPO",
        "2 packages, 2 of them current, index_version 2, 2 package files hashed, 2 with verified provenance",
    );
    farm
}

/// The paths of all provenance below a directory, sorted.
fn all(root: &Path) -> Vec<String> {
    let mut command = std::process::Command::new("find");
    let output = command.args([".", "-name", "*provenance.json"]).current_dir(root).output().unwrap();
    let mut found: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn provenance_goes_along_to_another_directory() {
    let farm = farm();
    farm.clear();
    farm.add("cc", "1-1", "noarch");
    check(&farm.publish_to("other"), 0, "");
    let other = farm.path("other");
    let summary =
        "3 packages, 3 of them current, index_version 3, 3 package files hashed, 2 with verified provenance";
    farm.check_verified("other", summary);
    assert_eq!(all(&other), ["./p/aa/1-1/provenance.json", "./p/bb/1-1/provenance.json"]);
    // What was lost there comes with the publish of an empty directory; what is there stays.
    check(&farm.publish(), 0, "");
    farm.clear();
    fs::remove_file(other.join("p/aa/1-1/provenance.json")).unwrap();
    fs::write(other.join("p/bb/1-1/provenance.json"), "other").unwrap();
    check(&farm.publish_to("other"), 0, "");
    assert_eq!(all(&other), ["./p/aa/1-1/provenance.json", "./p/bb/1-1/provenance.json"]);
    assert_eq!(fs::read(other.join("p/bb/1-1/provenance.json")).unwrap(), b"other");
}

#[test]
fn provenance_goes_along_with_a_rebuild_to_other_places() {
    let farm = farm();
    let rebuild = |out: &str, template: &str| {
        let mut arguments =
            vec!["publish", "--in", "REPO", "--rebuild", "--all-packages-dir", "repo/p", "--sign-key", "KEY"];
        arguments.extend(["--timestamp", TIME, "--out", out, "--package-url-template", template]);
        check(&farm.run(&arguments), 0, "");
    };
    // In place: nothing changes.
    let before = all(&farm.repo());
    rebuild("REPO", "/p/{name}/{version}/{filename}");
    assert_eq!(all(&farm.repo()), before);
    // All packages in one directory: each has its own.
    rebuild("other", "/pool/{filename}");
    let names = ["aa", "bb"].map(|name| format!("./pool/{name}_1-1_noarch.peipkg.provenance.json"));
    assert_eq!(all(&farm.path("other")), names);
    farm.check_verified(
        "other",
        "2 packages, 2 of them current, index_version 4, 2 package files hashed, 2 with verified provenance",
    );
}

#[test]
fn provenance_of_a_directory_that_becomes_shared_gets_its_packages_name() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    check(&farm.publish_with("/pool/{filename}"), 0, "");
    let pool = farm.repo().join("pool");
    let bytes = provenance(&[&pool.join("aa_1-1_noarch.peipkg")], SEED);
    fs::write(pool.join("provenance.json"), &bytes).unwrap();
    farm.clear();
    farm.add("bb", "1-1", "noarch");
    check(&farm.publish_with("/pool/{filename}"), 0, "");
    assert_eq!(all(&pool), ["./aa_1-1_noarch.peipkg.provenance.json"]);
    assert_eq!(fs::read(pool.join("aa_1-1_noarch.peipkg.provenance.json")).unwrap(), bytes);
    check(&farm.verify(), 0, "");
    // A file that is no provenance of a package here stays.
    for text in ["{}", "", "mine"] {
        fs::write(pool.join("provenance.json"), text).unwrap();
        farm.clear();
        farm.add("bb", &format!("{}-1", 2 + text.len()), "noarch");
        check(&farm.publish_with("/pool/{filename}"), 0, "");
        assert_eq!(fs::read_to_string(pool.join("provenance.json")).unwrap(), text);
        check(&farm.verify(), 0, "");
    }
}

#[test]
fn verify_finds_what_is_not_the_provenance_of_its_package() {
    let farm = farm();
    let aa = package(&farm.repo(), "aa", "1-1");
    let beside = aa.with_file_name("provenance.json");
    let refused = |bytes: &[u8], expected: &str| {
        fs::write(&beside, bytes).unwrap();
        check(&farm.verify(), 1, &format!("p/aa/1-1/provenance.json: {expected}"));
        // The metadata is right.
        check(&farm.run(&["verify", "--repo", "REPO", "--mode", "metadata"]), 0, "");
    };
    refused(&provenance(&[&aa], [9; 32]), "is not signed by a key of the repository");
    refused(&provenance(&[&package(&farm.repo(), "bb", "1-1")], SEED), "is not about aa_1-1_noarch.peipkg");
    refused(&provenance(&[], SEED), "is not about aa_1-1_noarch.peipkg");
    refused(b"{}", "is no DSSE envelope");
    let long = vec![b' '; 5 * 1024 * 1024];
    refused(&long, "");
    // One statement for several packages.
    fs::write(&beside, provenance(&[&package(&farm.repo(), "bb", "1-1"), &aa], SEED)).unwrap();
    check(&farm.verify(), 0, "");
}

#[test]
fn provenance_counts_after_its_key_has_expired_but_not_if_it_is_revoked() {
    let farm = farm();
    let key = SigningKey::from_bytes(&[9; 32]);
    let fingerprint = sha256(key.verifying_key().as_bytes());
    fs::write(farm.repo().join(format!("keys/{fingerprint}.pub")), key.verifying_key().as_bytes()).unwrap();
    let path = package(&farm.repo(), "aa", "1-1");
    fs::write(path.with_file_name("provenance.json"), provenance(&[&path], [9; 32])).unwrap();
    let (counts, counts_apart) =
        ("2 with verified provenance", "1 with verified provenance, 1 with provenance by a revoked key");
    for (status, expected) in
        [("active", counts), ("transitioning", counts), ("revoked", counts_apart), ("unlisted", "")]
    {
        let mut descriptor = json_file(&farm.repo().join("repo.json"));
        let keys = descriptor["repo"]["signing"]["keys"].as_array_mut().unwrap();
        keys.retain(|key| key["fingerprint"] != fingerprint.as_str());
        let url = format!("/keys/{fingerprint}.pub");
        let mut listed = json!({"fingerprint": fingerprint, "url": url, "status": status});
        if status == "transitioning" {
            listed["valid_until"] = "2020-01-01T00:00:00Z".into();
        }
        if status != "unlisted" {
            keys.push(listed);
        }
        keys.sort_by_key(|key| key["fingerprint"].as_str().unwrap().to_owned());
        fs::write(farm.repo().join("repo.json"), format!("{descriptor}\n")).unwrap();
        // Its signature is not valid now: look at the packages only.
        let output = farm.run(&["verify", "--repo", "REPO", "--mode", "hashes"]);
        if expected.is_empty() {
            check(&output, 1, "is not signed by a key of the repository");
        } else {
            check(&output, 0, "");
            let summary = String::from_utf8_lossy(&output.stdout);
            assert!(summary.ends_with(&format!(" hashed, {expected}\n")), "{status}: {summary}");
        }
    }
}
