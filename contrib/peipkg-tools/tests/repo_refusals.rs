//! Runs peipkg-repo on wrong arguments and damaged repositories: it must refuse and change nothing.

mod repo_support;

use std::fs;

use repo_support::{Farm, SEED, TIME, check, entries, file, good, manifest, pack};

#[test]
fn publish_one_package_is_bad_publishes_none() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    farm.put("bb", "1-1", "noarch", b"");
    farm.put("cc", "1-1", "noarch", &pack(&entries(manifest("cc", "1-1", "noarch"), Vec::new()), None));
    let before = farm.snapshot();
    let output = farm.publish();
    check(&output, 1, "bb_1-1_noarch.peipkg: cannot read");
    check(&output, 1, "cc_1-1_noarch.peipkg: it has no signature");
    assert_eq!(farm.snapshot(), before);
}

#[test]
fn publish_package_is_no_file_is_refused() {
    let farm = Farm::new();
    let path = farm.new_dir().join("aa_1-1_noarch.peipkg");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    check(&farm.publish(), 1, "aa_1-1_noarch.peipkg: is neither a file nor a link to one");
    fs::remove_file(&path).unwrap();
    fs::write(farm.path("aa"), good("aa", "1-1", "noarch")).unwrap();
    std::os::unix::fs::symlink(farm.path("aa"), &path).unwrap();
    check(&farm.publish(), 0, "");
}

#[test]
fn publish_duplicates_are_refused() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    farm.add("bb", "1-1", "noarch");
    let before = farm.snapshot();
    check(&farm.publish(), 1, "aa 1-1 noarch is already published, with the same bytes");
    let payload = vec![file("usr/share/other", b"")];
    let other = pack(&entries(manifest("aa", "1-1", "noarch"), payload), Some(SEED));
    farm.put("aa", "1-1", "noarch", &other);
    check(&farm.publish(), 1, "aa 1-1 noarch is already published, with other bytes");
    assert_eq!(farm.snapshot(), before);
    // Another architecture is another package.
    farm.publish_all(&["aa 1-1 x86_64"]);
}

#[test]
fn publish_wrong_keys_are_refused() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    let with_key = |seed: &[u8]| {
        fs::write(farm.path("other"), seed).unwrap();
        let mut arguments = Farm::PUBLISH;
        arguments[6] = "other";
        farm.run(&arguments)
    };
    check(&with_key(&[8; 32]), 1, "is not an active key of this repository");
    check(&with_key(&[8; 31]), 1, "found 31 bytes");
    fs::remove_file(farm.path("other")).unwrap();
    let mut arguments = Farm::PUBLISH;
    arguments[6] = "other";
    check(&farm.run(&arguments), 1, "other: cannot read the key");
}

#[test]
fn repository_spoilt_is_neither_published_onto_nor_verified() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    farm.clear();
    farm.add("cc", "1-1", "noarch");
    let spoil = |relative: &str, change: &dyn Fn(String) -> String, published: &str, verified: &str| {
        let path = farm.repo().join(relative);
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(good.clone())).unwrap();
        check(&farm.publish(), 1, published);
        let output = farm.verify();
        check(&output, 1, &format!("FAIL: {}", farm.repo().display()));
        check(&output, 1, verified);
        fs::write(&path, good).unwrap();
    };
    let half = |text: String| text[..text.len() / 2].to_owned();
    let renamed = |text: String| text.replace("farm", "harm");
    let mismatch = "signature does not match the content";
    spoil("index/archive.json", &half, mismatch, mismatch);
    spoil("index/archive.json", &renamed, mismatch, mismatch);
    spoil("index/active.json", &renamed, mismatch, mismatch);
    spoil("index/active.json", &|_| String::new(), mismatch, mismatch);
    spoil("index/archive.json.sig", &half, "not a signature envelope", "not a signature envelope");
    spoil(
        "repo.json",
        &|text| text.replace("\"description\":\"\"", "\"description\":\"x\""),
        mismatch,
        mismatch,
    );
    spoil("repo.json", &half, "repo.json: ", "repo.json: ");
    for relative in ["repo.json", "repo.json.sig", "index/active.json", "index/archive.json.sig"] {
        let path = farm.repo().join(relative);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        check(&farm.publish(), 1, relative.split('/').next_back().unwrap());
        check(&farm.verify(), 1, relative);
        fs::write(&path, bytes).unwrap();
    }
    check(&farm.verify(), 0, "");
    check(&farm.publish(), 0, "");
}

#[test]
fn verify_signed_index_wrong_is_found() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "aa 2-1 noarch", "bb 1-1 noarch"]);
    let saved = |kind: &str| fs::read_to_string(farm.repo().join(format!("index/{kind}.json"))).unwrap();
    let (active, archive) = (saved("active"), saved("archive"));
    let entry = |index: &str, number: usize| {
        serde_json::from_str::<serde_json::Value>(index).unwrap()["packages"][number].to_string()
    };
    // Correctly signed; only the content is wrong.
    let write = |kind: &str, text: &str| {
        use sha2::Digest as _;
        fs::write(farm.repo().join(format!("index/{kind}.json")), text).unwrap();
        let envelope = repo_support::envelope(SEED, &sha2::Sha256::digest(text)).to_string();
        fs::write(farm.repo().join(format!("index/{kind}.json.sig")), envelope).unwrap();
    };
    let rebuilt = |text: &str, kind: &str, numbers: &[usize]| {
        let list: Vec<_> = numbers.iter().map(|number| entry(text, *number)).collect();
        let head =
            format!("{{\"schema_version\":1,\"repo\":\"farm\",\"kind\":\"{kind}\",\"index_version\":2,");
        format!("{head}\"generated_at\":\"{TIME}\",\"packages\":[{}]}}\n", list.join(","))
    };
    let hash = |text: &str| entry(text, 0).split("\"value\":\"").nth(1).unwrap()[..64].to_owned();
    let cases: Vec<(&str, String, &str)> = vec![
        ("active", rebuilt(&archive, "active", &[1, 2]), "older than version 2-1"),
        ("active", rebuilt(&archive, "active", &[0]), "bb is missing"),
        (
            "active",
            rebuilt(&archive, "active", &[0, 1, 2]),
            "aa_1-1_noarch.peipkg is out of order or listed twice",
        ),
        ("active", rebuilt(&archive, "active", &[2, 0]), "aa_2-1_noarch.peipkg is out of order"),
        ("active", active.replace(&hash(&active), &"0".repeat(64)), "has another hash"),
        (
            "active",
            active.replace("\"index_version\":2", "\"index_version\":3"),
            "index_version 3, the archive index 2",
        ),
        ("active", active.replace("\"kind\":\"active\"", "\"kind\":\"archive\""), "kind is"),
        ("active", active.replace("\"repo\":\"farm\"", "\"repo\":\"harm\""), "belongs to repository"),
        ("active", active.replace(TIME, "yesterday"), "generated_at"),
        ("active", active.replace("\"conflicts\":[],", ""), "`conflicts`"),
        ("archive", rebuilt(&archive, "archive", &[0, 2]), ""),
        ("archive", rebuilt(&archive, "archive", &[1, 2]), "aa_2-1_noarch.peipkg is not in the archive"),
        (
            "archive",
            rebuilt(&archive, "archive", &[1, 0, 2]),
            "archive index: aa_2-1_noarch.peipkg is out of order",
        ),
        (
            "archive",
            rebuilt(&archive, "archive", &[0, 0, 1, 2]),
            "archive index: aa_2-1_noarch.peipkg is listed twice",
        ),
        ("archive", archive.replace("\"name\":\"bb\"", "\"name\":\"../b\""), "../b"),
        (
            "archive",
            archive.replace("\"name\":\"bb\"", "\"name\":\"b\\nFAIL: x\""),
            "archive index: b\\nFAIL: x_1-1_noarch.peipkg: ",
        ),
        ("archive", archive.replace("sha256", "md5"), "64 lower-case hexadecimal digits"),
    ];
    for (kind, text, expected) in cases {
        write(kind, &text);
        let status = i32::from(!expected.is_empty());
        check(&farm.run(&["verify", "--repo", "REPO", "--mode", "metadata"]), status, expected);
        write("active", &active);
        write("archive", &archive);
    }
    check(&farm.verify(), 0, "");
}

#[test]
fn verify_descriptor_wrong_lists_every_problem() {
    let farm = Farm::new();
    let path = farm.repo().join("repo.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("\"farm\"", "\"\"").replace("\"active\"}", "\"revoked\"}");
    fs::write(&path, text.replace("/index/active.json\"", "\"")).unwrap();
    for expected in ["repo.name is empty", "no key is active", "an index has no url", "3 issues found"] {
        check(&farm.verify(), 1, expected);
    }
    farm.add("aa", "1-1", "noarch");
    for expected in ["repo.name is empty", "no key is active"] {
        check(&farm.publish(), 1, expected);
    }
}

#[test]
fn verify_bad_packages_are_all_found() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch", "cc 1-1 noarch"]);
    let package = |name: &str| farm.repo().join(format!("p/{name}/1-1/{name}_1-1_noarch.peipkg"));
    let mut bytes = fs::read(package("aa")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(package("aa"), &bytes).unwrap();
    fs::remove_file(package("bb")).unwrap();
    let good = repo_support::sha256(&self::good("aa", "1-1", "noarch"));
    let mismatch = format!(
        "FAIL: hash mismatch: aa_1-1_noarch.peipkg computed {} index claims {good}\n",
        repo_support::sha256(&bytes)
    );
    for mode in ["hashes", "both"] {
        let output = farm.run(&["verify", "--repo", "REPO", "--mode", mode]);
        check(&output, 1, &mismatch);
        check(&output, 1, "FAIL: package missing: bb_1-1_noarch.peipkg\n");
        check(&output, 1, "peipkg-repo: 2 issues found");
    }
    check(&farm.run(&["verify", "--repo", "REPO", "--mode", "metadata"]), 0, "");
}

#[test]
fn publish_time_consumers_refuse_is_refused() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    let mut arguments = Farm::PUBLISH;
    arguments[8] = "2026-05-01T11:59:59Z";
    check(&farm.run(&arguments), 1, "later than the --timestamp 2026-05-01T11:59:59Z");
    arguments[8] = "2026-05-01";
    check(&farm.run(&arguments), 2, "--timestamp");
}

#[test]
fn exit_status_without_a_reader_is_the_same() {
    let farm = Farm::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut failing = farm.command(&["verify", "--repo", "nowhere"]);
    let status = failing.stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn directories_missing_are_named() {
    let farm = Farm::new();
    let mut arguments = Farm::PUBLISH;
    arguments[2] = "nowhere";
    check(&farm.run(&arguments), 1, "nowhere: holds no repo.json");
    arguments = Farm::PUBLISH;
    arguments[4] = "nowhere";
    check(&farm.run(&arguments), 1, "nowhere: cannot list the directory");
    check(&farm.run(&["verify", "--repo", "nowhere"]), 1, "FAIL: nowhere/repo.json");
}
