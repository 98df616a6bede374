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
    let write = |kind: &str, text: &str| write_signed(&farm, &format!("index/{kind}.json"), text.as_bytes());
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
        ("active", active.replacen(TIME, "2026-05-01T12:00:00.Z", 1), "generated_at"),
        ("active", active.replace("\"conflicts\":[],", ""), "`conflicts`"),
        (
            "active",
            active.replacen("a test", "another test", 1),
            "active index: aa_2-1_noarch.peipkg differs from its entry in the archive index",
        ),
        ("archive", archive.replacen("\"MIT\"", "\"ISC\"", 1), "aa_2-1_noarch.peipkg differs from its entry"),
        (
            "archive",
            archive.replace("\"side_effects\":[],", ""),
            "bb_1-1_noarch.peipkg differs from its entry",
        ),
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

/// Writes a document of the repository, and its signature.
fn write_signed(farm: &Farm, name: &str, bytes: &[u8]) {
    use sha2::Digest as _;
    fs::write(farm.repo().join(name), bytes).unwrap();
    let envelope = repo_support::envelope(SEED, &sha2::Sha256::digest(bytes)).to_string();
    fs::write(farm.repo().join(format!("{name}.sig")), envelope).unwrap();
}

#[test]
fn verify_signed_index_is_not_utf8_is_found_before_a_publish_fails() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    farm.clear();
    let good = fs::read(farm.repo().join("index/archive.json")).unwrap();
    // In a field that is checked, one that is not, a list, and one that this version does not know.
    for (place, in_entry) in
        [("\"aa\"", true), ("\"a test\"", true), ("\"libc\"", true), ("\"packages\":", false)]
    {
        let at = good.windows(place.len()).position(|found| found == place.as_bytes()).unwrap();
        let mut bad = good.clone();
        let bytes: &[u8] = if in_entry { b"\xff" } else { b"later\":\"\xc3(\",\"" };
        bad.splice(at + 1..=at, bytes.iter().copied());
        write_signed(&farm, "index/archive.json", &bad);
        check(&farm.verify(), 1, "index/archive.json: ");
        if in_entry {
            check(&farm.publish(), 1, "index/archive.json: ");
        }
    }
    write_signed(&farm, "index/archive.json", &good);
    check(&farm.verify(), 0, "");
}

#[test]
fn verify_descriptor_leads_clients_elsewhere_is_found() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    let good = fs::read_to_string(farm.repo().join("repo.json")).unwrap();
    let key = good.split("\"/keys/").nth(1).unwrap().split('"').next().unwrap();
    fs::create_dir(farm.repo().join("copy")).unwrap();
    fs::copy(farm.repo().join("index/active.json"), farm.repo().join("copy/active.json")).unwrap();
    std::os::unix::fs::symlink("index", farm.repo().join("linked")).unwrap();
    let out = "indexes.archive.url \"/../../etc/passwd\" has a part that starts with a dot";
    for (from, to, expected) in [
        ("/index/archive.json\"", "/../../etc/passwd\"", out),
        ("/index/archive.json\"", "/idx/archive.json\"", "does not lead to index/archive.json"),
        ("/index/archive.json\"", "/index/active.json\"", "does not lead to index/archive.json"),
        ("/index/active.json\"", "/copy/active.json\"", "indexes.active.url \"/copy/active.json\" does not"),
        ("/index/active.json\"", "file:///x\"", "indexes.active.url \"file:///x\" has a colon"),
        ("/index/active.json.sig", "/index/active.sig", "indexes.active.signature_url \"/index/active.sig\""),
        ("/index/archive.json.sig", "//host/x", "indexes.archive.signature_url \"//host/x\" starts with //"),
        (&format!("/keys/{key}"), "file:///etc/passwd", "the url \"file:///etc/passwd\" of key "),
        (&format!("/keys/{key}"), "/../x", "the url \"/../x\" of key "),
        (&format!("/keys/{key}"), "", "the url \"\" of key "),
        // Good: relative, through a link, on a server.
        ("/index/active.json\"", "index/active.json\"", ""),
        ("/index/active.json\"", "/linked/active.json\"", ""),
        ("/index/active.json\"", "https://example.org/a.json\"", ""),
        (&format!("/keys/{key}"), &format!("https://example.org/{key}"), ""),
    ] {
        assert!(good.contains(from), "{from}");
        write_signed(&farm, "repo.json", good.replacen(from, to, 1).as_bytes());
        let status = i32::from(!expected.is_empty());
        check(&farm.run(&["verify", "--repo", "REPO", "--mode", "metadata"]), status, expected);
    }
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
    for bad in ["2026-05-01", "2026-05-01T12:00:00.Z", "2026-05-01T23:59:60Z"] {
        arguments[8] = bad;
        check(&farm.run(&arguments), 2, "--timestamp");
    }
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
