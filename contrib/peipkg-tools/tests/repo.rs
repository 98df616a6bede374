//! Runs peipkg-repo and checks the repositories that it writes.

mod repo_support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use repo_support::{Farm, SEED, TIME, check, entries, file, good, json_file, link, manifest, pack, sha256};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Verifies the signature of `document` with openssl.
#[track_caller]
fn openssl_verifies(farm: &Farm, document: &Path) {
    let bytes = fs::read(document).unwrap();
    let envelope = json_file(Path::new(&format!("{}.sig", document.display())));
    assert_eq!(envelope["schema_version"], 1);
    assert_eq!(envelope["algorithm"], "ed25519");
    let key = envelope["key_fingerprint"].as_str().unwrap();
    let signature = STANDARD_NO_PAD.decode(envelope["signature"].as_str().unwrap()).unwrap();
    let (digest_file, signature_file) = (farm.path("digest"), farm.path("signature"));
    fs::write(&digest_file, Sha256::digest(&bytes)).unwrap();
    fs::write(&signature_file, signature).unwrap();
    let output = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"])
        .arg(farm.repo().join(format!("keys/{key}.pub")))
        .arg("-in")
        .arg(digest_file)
        .arg("-sigfile")
        .arg(signature_file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {output:?}", document.display());
}

#[test]
fn init_makes_a_repository() {
    let farm = Farm::new();
    for document in ["repo.json", "index/active.json", "index/archive.json"] {
        openssl_verifies(&farm, &farm.repo().join(document));
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&SEED).verifying_key();
    let fingerprint = sha256(key.as_bytes());
    let descriptor = format!(
        "{{\"schema_version\":1,\"repo\":{{\"name\":\"farm\",\"description\":\"\",\"signing\":\
         {{\"algorithm\":\"ed25519\",\"keys\":[{{\"fingerprint\":\"{fingerprint}\",\
         \"url\":\"/keys/{fingerprint}.pub\",\"status\":\"active\"}}]}}}},\"indexes\":\
         {{\"active\":{{\"url\":\"/index/active.json\",\"signature_url\":\"/index/active.json.sig\"}},\
         \"archive\":{{\"url\":\"/index/archive.json\",\"signature_url\":\"/index/archive.json.sig\"}}}}}}\n"
    );
    assert_eq!(fs::read_to_string(farm.repo().join("repo.json")).unwrap(), descriptor);
    for kind in ["active", "archive"] {
        let expected = format!(
            "{{\"schema_version\":1,\"repo\":\"farm\",\"kind\":\"{kind}\",\"index_version\":1,\
             \"generated_at\":\"{TIME}\",\"packages\":[]}}\n"
        );
        assert_eq!(fs::read_to_string(farm.repo().join(format!("index/{kind}.json"))).unwrap(), expected);
    }
    let mut names: Vec<_> =
        fs::read_dir(farm.repo()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["assets", "feed.xml", "index", "index.html", "keys", "repo.json", "repo.json.sig"]);
    check(&farm.verify(), 0, "");
}

#[test]
fn init_directory_not_empty_is_refused_unless_its_own_remains() {
    let farm = Farm::new();
    let init = |out: &str| {
        let init =
            ["init", "--no-site", "--name", "n", "--sign-key", "KEY", "--timestamp", TIME, "--out", out];
        farm.run(&init)
    };
    let before = farm.snapshot();
    check(&init("repo"), 1, "is not empty");
    assert_eq!(farm.snapshot(), before);
    fs::create_dir(farm.path("empty")).unwrap();
    check(&init("empty"), 0, "");
    check(&init("a/b/c"), 0, "");
    // The state after a kill: everything but the descriptor, and the site, which comes last.
    fs::create_dir(farm.path("empty/.init.tmp")).unwrap();
    fs::rename(farm.path("empty/repo.json"), farm.path("empty/.init.tmp/repo.json")).unwrap();
    check(&init("empty"), 0, "");
    check(&farm.run(&["verify", "--repo", "empty"]), 0, "");
    // Without the marker, the directory may be somebody's repository.
    fs::remove_file(farm.path("empty/repo.json")).unwrap();
    check(&init("empty"), 1, "is not empty");
}

#[test]
fn publish_writes_packages_and_indexes() {
    let farm = Farm::new();
    let mut described = manifest("jq", "1.7-1", "x86_64");
    described["dependencies"][0]["later"] = json!({"kept": "as it is"});
    described["provides"] = json!([{"name": "json-tool", "version": "1-1"}]);
    let payload = vec![file("usr/bin/jq", b"\x7fELF"), link("usr/bin/jq1", "jq")];
    let package = pack(&entries(described, payload), Some(SEED));
    farm.put("jq", "1.7-1", "x86_64", &package);
    let output = farm.publish();
    check(&output, 0, "");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "published 1 packages as index_version 2, 1 in the archive\n"
    );
    let expected = format!(
        "{{\"schema_version\":1,\"repo\":\"farm\",\"kind\":\"active\",\"index_version\":2,\"generated_at\":\"{TIME}\",\
         \"packages\":[{{\"name\":\"jq\",\"version\":\"1.7-1\",\"architecture\":\"x86_64\",\"description\":\"a test\",\
         \"license\":\"MIT\",\"homepage\":\"https://example.org\",\
         \"dependencies\":[{{\"constraint\":\">= 2.0\",\"later\":{{\"kept\":\"as it is\"}},\"name\":\"libc\"}}],\
         \"optional_dependencies\":[],\"conflicts\":[],\"provides\":[{{\"name\":\"json-tool\",\"version\":\"1-1\"}}],\
         \"replaces\":[],\"side_effects\":[],\"size_compressed\":{},\"size_installed\":4,\
         \"hash\":{{\"algorithm\":\"sha256\",\"value\":\"{}\"}},\
         \"url\":\"/p/jq/1.7-1/jq_1.7-1_x86_64.peipkg\",\
         \"build\":{{\"timestamp\":\"{TIME}\",\"farm_id\":\"test\"}}}}]}}\n",
        package.len(),
        sha256(&package)
    );
    assert_eq!(fs::read_to_string(farm.repo().join("index/active.json")).unwrap(), expected);
    let archive = expected.replace("\"kind\":\"active\"", "\"kind\":\"archive\"");
    assert_eq!(fs::read_to_string(farm.repo().join("index/archive.json")).unwrap(), archive);
    assert_eq!(fs::read(farm.repo().join("p/jq/1.7-1/jq_1.7-1_x86_64.peipkg")).unwrap(), package);
    for document in ["repo.json", "index/active.json", "index/archive.json"] {
        openssl_verifies(&farm, &farm.repo().join(document));
    }
    let verified = farm.verify();
    check(&verified, 0, "");
    assert_eq!(
        String::from_utf8_lossy(&verified.stdout),
        "ok: 1 packages, 1 of them current, index_version 2, 1 package files hashed\n"
    );
    assert!(!farm.repo().join(".index.tmp").exists());
}

#[test]
fn publish_many_versions_orders_them() {
    let farm = Farm::new();
    farm.publish_all(&["bb 1.9-1 noarch", "bb 1.10-1 noarch", "ab 1-1 noarch"]);
    farm.publish_all(&[
        "bb 1.10-rc.1-1 noarch",
        "a2 1-1 noarch",
        "bb 1.10-2 noarch",
        "bb 1.10~beta-1 noarch",
    ]);
    farm.publish_all(&["bb 1:0.1-1 noarch", "bb 1.2-1 noarch", "zz 1-1 noarch"]);
    let archive = [
        "a2 1-1 noarch",
        "ab 1-1 noarch",
        "bb 1:0.1-1 noarch",
        "bb 1.10-2 noarch",
        "bb 1.10-1 noarch",
        "bb 1.10-rc.1-1 noarch",
        "bb 1.10~beta-1 noarch",
        "bb 1.9-1 noarch",
        "bb 1.2-1 noarch",
        "zz 1-1 noarch",
    ];
    assert_eq!(farm.listed("archive"), archive);
    assert_eq!(farm.listed("active"), [archive[0], archive[1], archive[2], archive[9]]);
    assert_eq!(farm.index("archive")["index_version"], 4);
    assert_eq!(farm.index("active")["index_version"], 4);
    check(&farm.verify(), 0, "");
}

#[test]
fn publish_several_architectures_of_one_version_works() {
    let farm = Farm::new();
    farm.publish_all(&["aa 2-1 aarch64", "aa 1-1 x86_64", "bb 1-1 aarch64"]);
    assert_eq!(farm.listed("active"), ["aa 2-1 aarch64", "bb 1-1 aarch64"]);
    farm.publish_all(&["aa 2-1 x86_64", "bb 1-1 noarch"]);
    assert_eq!(farm.listed("active"), ["aa 2-1 x86_64", "bb 1-1 noarch"]);
    let archive = ["aa 2-1 aarch64", "aa 2-1 x86_64", "aa 1-1 x86_64", "bb 1-1 aarch64", "bb 1-1 noarch"];
    assert_eq!(farm.listed("archive"), archive);
    check(&farm.verify(), 0, "");
}

#[test]
fn publish_without_packages_renews_the_indexes() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    let watched = || fs::metadata(farm.repo().join("repo.json")).unwrap().modified().unwrap();
    let before = watched();
    farm.publish_all(&[]);
    assert_eq!(farm.index("active")["index_version"], 3);
    assert!(watched() > before, "mirrors watch this file");
    check(&farm.verify(), 0, "");
}

/// Another tool, which writes in place, may be interrupted between the two indexes.
#[test]
fn publish_index_version_exceeds_both_old_ones() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    let set = |version: u64| {
        let path = farm.repo().join("index/archive.json");
        let mut archive = json_file(&path);
        archive["index_version"] = version.into();
        let bytes = archive.to_string();
        fs::write(&path, &bytes).unwrap();
        let signature = repo_support::envelope(SEED, &Sha256::digest(&bytes)).to_string();
        fs::write(farm.repo().join("index/archive.json.sig"), signature).unwrap();
    };
    set(7);
    farm.publish_all(&["aa 2-1 noarch"]);
    assert_eq!(farm.index("active")["index_version"], 8);
    assert_eq!(farm.index("archive")["index_version"], 8);
    set(u64::MAX);
    farm.clear();
    check(&farm.publish(), 1, "no index_version is left");
}

#[test]
fn publish_into_another_directory_leaves_the_first_alone() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    let before = farm.snapshot();
    farm.clear();
    farm.add("aa", "2-1", "noarch");
    let mut arguments = Farm::PUBLISH;
    arguments[10] = "next";
    check(&farm.run(&arguments), 0, "");
    assert_eq!(farm.snapshot(), before);
    check(&farm.run(&["verify", "--repo", "next"]), 0, "");
    let next = json_file(&farm.path("next/index/archive.json"));
    assert_eq!(next["packages"].as_array().unwrap().len(), 2);
    assert!(farm.path("next/p/aa/1-1/aa_1-1_noarch.peipkg").is_file());
    // Continue there, in place.
    farm.clear();
    farm.add("aa", "3-1", "noarch");
    arguments[2] = "next";
    check(&farm.run(&arguments), 0, "");
    check(&farm.run(&["verify", "--repo", "next"]), 0, "");
}

#[test]
fn publish_into_another_directory_takes_nothing_from_it() {
    let farm = Farm::new();
    let mut arguments = Farm::PUBLISH;
    arguments[10] = "next";
    farm.add("aa", "1-1", "noarch");
    check(&farm.run(&arguments), 0, "");
    farm.clear();
    check(&farm.run(&arguments), 1, "lists 1 packages that the new one would lack: \"aa 1-1 noarch\"");
    // The output has been published to meanwhile.
    arguments[2] = "next";
    check(&farm.run(&arguments), 0, "");
    farm.add("aa", "1-1", "noarch");
    arguments[2] = "REPO";
    check(&farm.run(&arguments), 0, "");
    let init = ["init", "--name", "n", "--sign-key", "KEY", "--timestamp", TIME, "--out", "other"];
    check(&farm.run(&init), 0, "");
    arguments[10] = "other";
    check(&farm.run(&arguments), 1, "is of repository \"n\", expected \"farm\"");
}

#[test]
fn publish_keeps_the_mode_of_the_index_directory() {
    let farm = Farm::new();
    let index = farm.repo().join("index");
    fs::set_permissions(&index, fs::Permissions::from_mode(0o2771)).unwrap();
    farm.publish_all(&["aa 1-1 noarch"]);
    assert_eq!(fs::metadata(&index).unwrap().permissions().mode() & 0o7777, 0o2771);
}

/// A directory at the path of the new repo.json simulates a failing disk.
#[test]
fn publish_leaves_no_descriptor_fails_and_the_next_completes_it() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    fs::create_dir_all(farm.path("next/repo.json")).unwrap();
    let mut arguments = Farm::PUBLISH;
    arguments[10] = "next";
    check(&farm.run(&arguments), 1, "peipkg-repo: next/repo.json: cannot rename");
    // After the repair, the next publish completes it.
    fs::remove_dir(farm.path("next/repo.json")).unwrap();
    check(&farm.run(&arguments), 0, "");
    check(&farm.run(&["verify", "--repo", "next"]), 0, "");
    let names: Vec<_> = fs::read_dir(farm.path("next")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.as_encoded_bytes().starts_with(b".")), "{names:?}");
}

#[test]
fn publish_url_template_applies_to_new_entries() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    farm.clear();
    farm.add("aa", "2-1", "noarch");
    let template = ["--package-url-template", "https://x.org/{arch}/{name}/{version}/{filename}"];
    check(&farm.run(&[&Farm::PUBLISH[..], &template].concat()), 0, "");
    let urls: Vec<_> = farm.index("archive")["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["url"].as_str().unwrap().to_owned())
        .collect();
    let expected = ["https://x.org/noarch/aa/2-1/aa_2-1_noarch.peipkg", "/p/aa/1-1/aa_1-1_noarch.peipkg"];
    assert_eq!(urls, expected);
    check(&farm.verify(), 0, "");
    check(&farm.run(&[&Farm::PUBLISH[..], &["--package-url-template", "/{nmae}"]].concat()), 2, "{nmae}");
}

#[test]
fn publish_with_a_new_key_keeps_the_old_one_in_transition() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    let (new_seed, new_key) = ([9; 32], farm.path("new-key"));
    fs::write(&new_key, new_seed).unwrap();
    let public = ed25519_dalek::SigningKey::from_bytes(&new_seed).verifying_key();
    let fingerprint = sha256(public.as_bytes());
    fs::write(farm.repo().join(format!("keys/{fingerprint}.pub")), public.as_bytes()).unwrap();
    let mut descriptor = json_file(&farm.repo().join("repo.json"));
    let keys = descriptor["repo"]["signing"]["keys"].as_array_mut().unwrap();
    keys[0]["status"] = "transitioning".into();
    keys[0]["valid_until"] = "2126-05-01T12:00:00Z".into();
    keys.push(
        json!({"fingerprint": fingerprint, "url": format!("/keys/{fingerprint}.pub"), "status": "active"}),
    );
    keys.sort_by_key(|key| key["fingerprint"].as_str().unwrap().to_owned());
    let bytes = format!("{descriptor}\n");
    fs::write(farm.repo().join("repo.json"), &bytes).unwrap();
    let signature = repo_support::envelope(SEED, &Sha256::digest(&bytes)).to_string();
    fs::write(farm.repo().join("repo.json.sig"), &signature).unwrap();
    // The old key no longer signs. The new key publishes onto a state that the old key signed.
    farm.clear();
    farm.add("aa", "2-1", "noarch");
    check(&farm.publish(), 1, "is not an active key");
    let mut arguments = Farm::PUBLISH;
    arguments[6] = "new-key";
    check(&farm.run(&arguments), 0, "");
    // The old key's signature of the descriptor stays: consumers may know only the old key.
    assert_eq!(fs::read_to_string(farm.repo().join("repo.json.sig")).unwrap(), signature);
    check(&farm.verify(), 0, "");
}

#[test]
fn verify_packages_elsewhere_works() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    fs::rename(farm.repo().join("p"), farm.path("elsewhere")).unwrap();
    check(&farm.verify(), 1, "FAIL: package missing: aa_1-1_noarch.peipkg");
    check(&farm.run(&["verify", "--repo", "REPO", "--mode", "metadata"]), 0, "");
    check(&farm.run(&["verify", "--repo", "REPO", "--all-packages-dir", "elsewhere"]), 0, "");
}

#[test]
fn published_package_outlives_its_original() {
    let farm = Farm::new();
    let path = farm.add("aa", "1-1", "noarch");
    check(&farm.publish(), 0, "");
    fs::write(path, "overwritten in place").unwrap();
    assert_eq!(
        fs::read(farm.repo().join("p/aa/1-1/aa_1-1_noarch.peipkg")).unwrap(),
        good("aa", "1-1", "noarch")
    );
}

#[test]
fn package_of_peipkg_build_is_published() {
    let farm = Farm::new();
    let recipe = "[meta]\nlicense = \"MIT\"\nbuild_script = \"build.sh\"\n\
        [[package]]\nname = \"tool\"\narchitecture = \"x86_64\"\ndescription = \"a tool\"\n\
        files = [\"usr/bin/**\", \"var/lib/tool/\"]\n\
        [[package]]\nname = \"tool-doc\"\narchitecture = \"noarch\"\ndescription = \"its manual\"\n\
        files = [\"usr/share/**\"]\ndependencies = [{ name = \"tool\", same_build = true }]\n";
    let script = "cd $DESTDIR && mkdir -p usr/bin usr/share/doc/tool var/lib/tool\n\
        echo tool > usr/bin/tool && ln -s tool usr/bin/tool2 && echo text > usr/share/doc/tool/README\n";
    for (path, text) in [("recipe/peipkg.toml", recipe), ("recipe/build.sh", script), ("source/x", "")] {
        fs::create_dir_all(farm.path(path).parent().unwrap()).unwrap();
        fs::write(farm.path(path), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_peipkg-build"))
        .current_dir(farm.dir.path())
        .args(["build", "--recipe", "recipe/peipkg.toml", "--source", "source", "--version", "1.0-1"])
        .args(["--source-ref", "git+https://example.org/tool#refs/tags/v1.0", "--farm-id", "test"])
        .args(["--timestamp", TIME, "--out", "new", "--sign-key", "key"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    check(&farm.publish(), 0, "");
    check(&farm.verify(), 0, "");
    assert_eq!(farm.listed("active"), ["tool 1.0-1 x86_64", "tool-doc 1.0-1 noarch"]);
    let relation = json!([{"name": "tool", "constraint": "= 1.0-1"}]);
    assert_eq!(farm.index("active")["packages"][1]["dependencies"], relation);
}

#[test]
fn help_and_version_are_printed() {
    let farm = Farm::new();
    for arguments in [&["--help"][..], &["-h"], &["publish", "--help"], &["--version"]] {
        let output = farm.run(arguments);
        check(&output, 0, "");
        assert!(output.stdout.starts_with(b"peipkg-repo"), "{arguments:?}");
    }
}
