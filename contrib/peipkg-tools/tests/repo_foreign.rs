//! Repositories of other tools: of the deployed ones (`samples/`), and with URLs that lead out of the
//! repository.

mod repo_support;

use std::fs;
use std::path::{Path, PathBuf};

use repo_support::{
    Farm, SEED, check, entries, envelope, file, good, json_file, manifest, pack, packages, sha256,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Writes an index with another URL in the entry `name`, correctly signed.
fn set_url(farm: &Farm, kinds: &[&str], name: &str, url: Option<&str>) {
    set(farm, kinds, name, "url", url.map(Value::from).as_ref());
}

fn set(farm: &Farm, kinds: &[&str], name: &str, field: &str, value: Option<&Value>) {
    for kind in kinds {
        let path = farm.repo().join(format!("index/{kind}.json"));
        let mut index = json_file(&path);
        let entries = index["packages"].as_array_mut().unwrap();
        let entry = entries.iter_mut().find(|entry| entry["name"] == name).unwrap();
        match value {
            Some(value) => entry[field] = value.clone(),
            None => _ = entry.as_object_mut().unwrap().remove(field),
        }
        fs::write(&path, index.to_string()).unwrap();
        let signature = envelope(SEED, &Sha256::digest(index.to_string())).to_string();
        fs::write(path.with_extension("json.sig"), signature).unwrap();
    }
}

/// Every path below the farm's directory but the repositories', with its length.
fn outside(farm: &Farm) -> Vec<(PathBuf, u64)> {
    let (mut found, mut pending) = (Vec::new(), vec![farm.dir.path().to_owned()]);
    while let Some(next) = pending.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let is_repository = path.join("repo.json").exists();
            found
                .push((path.clone(), if is_repository { 0 } else { path.symlink_metadata().unwrap().len() }));
            if path.is_dir() && !is_repository {
                pending.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn entry_of_another_tool_never_leads_out_of_the_repository() {
    let cases = [
        ("/../secret", "starts with a dot"),
        ("../secret", "starts with a dot"),
        ("/p/../../secret", "starts with a dot"),
        ("/p/./aa", "starts with a dot"),
        ("/.lock", "starts with a dot"),
        ("/.index.next/active.json", "starts with a dot"),
        ("//secret", "names a host without a scheme"),
        ("/p//aa", "an empty part"),
        ("/p/", "an empty part"),
        ("javascript:alert(1)", "a colon in its first part"),
        ("file:///etc/passwd", "a colon in its first part"),
        ("/\\..\\secret", "the character '\\\\'"),
        ("/p/aa\n FAIL: x", "the character '\\n'"),
        ("/p/aa?x", "the character '?'"),
        ("/repo.json", "its own files"),
        ("/index/archive.json", "its own files"),
        ("/keys/x", "its own files"),
        ("", "is empty"),
    ];
    for (url, expected) in cases {
        let farm = Farm::new();
        farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
        // A file that fits the entry's hash.
        fs::write(farm.path("secret"), good("aa", "1-1", "noarch")).unwrap();
        set_url(&farm, &["active", "archive"], "aa", Some(url));
        for mode in ["metadata", "hashes", "both"] {
            let output = farm.run(&["verify", "--repo", "REPO", "--mode", mode]);
            check(&output, 1, "archive index: aa_1-1_noarch.peipkg: its url ");
            check(&output, 1, expected);
            assert!(String::from_utf8_lossy(&output.stderr).lines().count() <= 3, "{url:?}: {output:?}");
        }
        farm.clear();
        farm.add("cc", "1-1", "noarch");
        let before = outside(&farm);
        // The entry stays as it is, without a file, in place and in another directory.
        for out in ["next", "repo"] {
            check(&farm.publish_to(out), 0, "");
            let index = json_file(&farm.path(out).join("index/archive.json"));
            assert_eq!(index["packages"][0]["url"], url);
            assert!(farm.path(out).join("p/bb/1-1/bb_1-1_noarch.peipkg").is_file());
        }
        let mut after = outside(&farm);
        after.retain(|(path, _)| *path != farm.path("next"));
        assert_eq!(after, before, "{url:?}");
        assert_eq!(fs::read(farm.path("secret")).unwrap(), good("aa", "1-1", "noarch"));
        assert_eq!(
            packages(&farm.path("next")),
            ["p/bb/1-1/bb_1-1_noarch.peipkg", "p/cc/1-1/cc_1-1_noarch.peipkg"]
        );
    }
}

#[test]
fn entry_without_a_url_is_found() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    set_url(&farm, &["active", "archive"], "aa", None);
    check(&farm.verify(), 1, "missing field `url`");
    farm.publish_all(&["bb 1-1 noarch"]);
}

#[test]
fn entry_of_another_tool_is_in_the_way_only_without_an_identity() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    for (number, value) in [Value::Null, 7.into(), json!({"x": []})].into_iter().enumerate() {
        for field in ["url", "hash"] {
            set(&farm, &["active", "archive"], "bb", field, Some(&value));
        }
        farm.clear();
        farm.add("cc", &format!("{}-1", number + 1), "noarch");
        for out in ["next", "repo"] {
            check(&farm.publish_to(out), 0, "");
            let entry = json_file(&farm.path(out).join("index/archive.json"))["packages"][1].clone();
            assert_eq!((&entry["url"], &entry["hash"]), (&value, &value));
        }
    }
    set(&farm, &["archive"], "bb", "version", Some(&7.into()));
    check(
        &farm.publish(),
        1,
        "archive.json: entry 2 (\"bb\"): invalid type: integer `7`, expected a string\n",
    );
    set(&farm, &["archive"], "aa", "name", None);
    check(&farm.publish(), 1, "archive.json: entry 1: missing field `name`\n");
}

#[test]
fn entries_of_one_url_are_found() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    let both = ["active", "archive"];
    for (one, other) in [("/p/aa", "/p/aa"), ("/p/aa", "p/aa"), ("https://x.org/aa", "https://x.org/aa")] {
        set_url(&farm, &both, "aa", Some(one));
        set_url(&farm, &both, "bb", Some(other));
        let expected = format!("archive index: bb_1-1_noarch.peipkg has the url {other:?} of another entry");
        check(&farm.run(&["verify", "--repo", "REPO", "--mode", "metadata"]), 1, &expected);
        check(&farm.verify(), 1, "1 issue found");
    }
    // The active index leads consumers to a file that nobody has checked.
    set_url(&farm, &both, "bb", Some("/p/bb/1-1/bb_1-1_noarch.peipkg"));
    set_url(&farm, &["active"], "bb", Some("/p/other"));
    check(&farm.verify(), 1, "active index: bb_1-1_noarch.peipkg has another url in the archive index");
}

/// A farm whose repository a deployed tool made, with a package for it.
fn sample(name: &str) -> Farm {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let farm = Farm::new();
    fs::remove_dir_all(farm.repo()).unwrap();
    copy(&samples.join(name), &farm.repo());
    fs::copy(samples.join("key.seed"), farm.key()).unwrap();
    let seed = fs::read(farm.key()).unwrap().try_into().unwrap();
    let payload = vec![file("usr/share/new/x", b"x")];
    farm.put("new", "1-1", "noarch", &pack(&entries(manifest("new", "1-1", "noarch"), payload), Some(seed)));
    farm
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for path in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { _ = fs::copy(path, target).unwrap() }
    }
}

#[test]
fn repository_of_a_deployed_tool_is_verified_and_published_into() {
    for (name, template, files, hashed, last) in [
        ("repository-pool", "/pool/{filename}", 2, ", 2 package files hashed", ", 3 package files hashed"),
        (
            "repository-absolute",
            "https://packages.example.org/f/{filename}",
            0,
            ", 2 stored elsewhere",
            ", 3 stored elsewhere",
        ),
    ] {
        let farm = sample(name);
        farm.check_verified("REPO", &format!("2 packages, 2 of them current, index_version 2{hashed}"));
        assert_eq!(packages(&farm.repo()).len(), files);
        let entries = |repo: &str| -> Vec<Value> {
            json_file(&farm.path(repo).join("index/archive.json"))["packages"].as_array().unwrap().clone()
        };
        let old = entries("repo");
        // Into another directory, then in place.
        for out in ["next", "REPO"] {
            let mut arguments = [&Farm::PUBLISH[..], &["--package-url-template", template]].concat();
            arguments[10] = out;
            check(&farm.run(&arguments), 0, "");
            farm.check_verified(out, &format!("3 packages, 3 of them current, index_version 3{last}"));
        }
        let [first, second, third] = entries("next").try_into().unwrap();
        assert_eq!([first, third], *old);
        assert_eq!(second["url"], template.replace("{filename}", "new_1-1_noarch.peipkg"));
        let stored = packages(&farm.path("next"));
        assert_eq!(stored, packages(&farm.repo()));
        assert!(stored.iter().all(|path| path.starts_with("pool/")), "{stored:?}");
        assert_eq!(stored.len(), if files == 0 { 0 } else { 3 });
        for path in stored {
            let digest = sha256(&fs::read(farm.path("next").join(&path)).unwrap());
            assert!(entries("next").iter().any(|entry| entry["hash"]["value"] == *digest), "{path}");
        }
    }
}

#[test]
fn repository_of_a_deployed_tool_takes_the_default_layout_too() {
    for (name, hashed) in [
        ("repository-pool", ", 3 package files hashed"),
        ("repository-absolute", ", 1 package files hashed, 2 stored elsewhere"),
    ] {
        let farm = sample(name);
        check(&farm.publish(), 0, "");
        farm.check_verified("REPO", &format!("3 packages, 3 of them current, index_version 3{hashed}"));
        assert!(farm.repo().join("p/new/1-1/new_1-1_noarch.peipkg").is_file());
    }
}

/// Signs the bytes of an index anew.
fn resign(farm: &Farm, kind: &str, text: &str) {
    let path = farm.repo().join(format!("index/{kind}.json"));
    fs::write(&path, text).unwrap();
    let signature = envelope(SEED, &Sha256::digest(text)).to_string();
    fs::write(path.with_extension("json.sig"), signature).unwrap();
}

#[test]
fn index_whose_fields_have_another_order_is_published_onto() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 2-1 noarch"]);
    farm.publish_all(&["bb 1-1 noarch"]);
    let before = ["aa 1-1 noarch", "bb 2-1 noarch", "bb 1-1 noarch"];
    for kind in ["archive", "active"] {
        let index = farm.index(kind);
        let fields = index.as_object().unwrap().iter().rev();
        let fields: Vec<_> = fields.map(|(name, value)| format!("\n \"{name}\" : {value:#}")).collect();
        resign(&farm, kind, &format!(" {{{}\n}} ", fields.join(",")));
    }
    assert_eq!(farm.listed("archive"), before);
    farm.publish_all(&["bb 3-1 noarch"]);
    assert_eq!(farm.listed("archive"), [before[0], "bb 3-1 noarch", before[1], before[2]]);
    assert_eq!(farm.index("archive")["index_version"], 4);
    check(&farm.verify(), 0, "");
}

#[test]
fn archive_index_broken_or_of_another_kind_is_refused_before_anything_changes() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch", "bb 1-1 noarch"]);
    farm.clear();
    farm.add("ab", "1-1", "noarch");
    let text = fs::read_to_string(farm.repo().join("index/archive.json")).unwrap();
    for (spoilt, expected) in [
        (text.trim_end().strip_suffix("]}").unwrap().to_owned(), "EOF while parsing a list"),
        (text.replace("},{\"name\":\"bb\"", "} {\"name\":\"bb\""), "expected `,` or `]` at line 1 column "),
        (format!("{text}x"), "trailing characters at line 2 column 1"),
        (text.replace("archive", "active"), "kind is \"active\", expected \"archive\""),
        (text.replace("\"farm\"", "\"other\""), "belongs to repository \"other\""),
        (text.replace("\"schema_version\":1", "\"schema_version\":2"), "schema_version is 2"),
        (text.replace("{\"name\":\"bb\"", "{\"name\":7"), "entry 2: invalid type: integer `7`"),
    ] {
        assert_ne!(spoilt, text);
        resign(&farm, "archive", &spoilt);
        let before = farm.snapshot();
        check(&farm.publish(), 1, expected);
        assert!(farm.snapshot() == before, "{expected}");
        assert!(!farm.repo().join(".index.tmp").exists());
        // Bytes that nobody has signed are not judged.
        fs::write(farm.repo().join("index/archive.json"), format!("{spoilt} ")).unwrap();
        check(&farm.publish(), 1, "signature does not match the content");
        assert!(!farm.repo().join(".index.tmp").exists());
    }
}
