//! Publishes with URL templates: a package is stored where its `url` says.

mod repo_support;

use std::fs;
use std::os::unix::fs::symlink;

use repo_support::{Farm, check, good};

#[test]
fn packages_are_stored_where_their_url_says() {
    for (template, place) in [
        ("/pool/{filename}", "pool/libstdc++_1:2.0~rc.1+git-1_x86_64.peipkg"),
        ("pool/{filename}", "pool/libstdc++_1:2.0~rc.1+git-1_x86_64.peipkg"),
        ("/{filename}", "libstdc++_1:2.0~rc.1+git-1_x86_64.peipkg"),
        ("/{arch}/{name}/{version}", "x86_64/libstdc++/1:2.0~rc.1+git-1"),
        ("/a/b/c/d/{name}@{version}@{arch}.peipkg", "a/b/c/d/libstdc++@1:2.0~rc.1+git-1@x86_64.peipkg"),
    ] {
        let farm = Farm::new();
        farm.publish_all(&["aa 1-1 noarch"]);
        farm.clear();
        farm.add("libstdc++", "1:2.0~rc.1+git-1", "x86_64");
        check(&farm.publish_with(template), 0, "");
        let mut expected = ["p/aa/1-1/aa_1-1_noarch.peipkg", place];
        expected.sort_unstable();
        assert_eq!(repo_support::packages(&farm.repo()), expected);
        assert_eq!(
            farm.index("active")["packages"][1]["url"],
            template
                .replace("{name}", "libstdc++")
                .replace("{version}", "1:2.0~rc.1+git-1")
                .replace("{arch}", "x86_64")
                .replace("{filename}", "libstdc++_1:2.0~rc.1+git-1_x86_64.peipkg")
        );
        farm.check_verified("REPO", "2 packages, 2 of them current, index_version 3, 2 package files hashed");
        // Carried over to another directory, from where a publish goes on.
        farm.clear();
        farm.add("bb", "1-1", "noarch");
        check(&farm.publish_to("next"), 0, "");
        assert!(farm.path("next").join(place).is_file());
        farm.check_verified("next", "3 packages, 3 of them current, index_version 4, 3 package files hashed");
        // The file at the URL is the one that counts.
        fs::write(farm.repo().join(place), "other").unwrap();
        check(&farm.verify(), 1, "FAIL: hash mismatch: libstdc++_1:2.0~rc.1+git-1_x86_64.peipkg");
        fs::remove_file(farm.repo().join(place)).unwrap();
        let conventional = farm.repo().join("p/libstdc++/1:2.0~rc.1+git-1");
        fs::create_dir_all(&conventional).unwrap();
        fs::write(
            conventional.join("libstdc++_1:2.0~rc.1+git-1_x86_64.peipkg"),
            good("libstdc++", "1:2.0~rc.1+git-1", "x86_64"),
        )
        .unwrap();
        check(&farm.verify(), 1, "FAIL: package missing: libstdc++_1:2.0~rc.1+git-1_x86_64.peipkg");
    }
}

#[test]
fn packages_with_a_server_in_their_url_are_not_stored() {
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    farm.clear();
    farm.add("aa", "2-1", "noarch");
    let output = farm.publish_with("https://x.org:8443/{arch}/{filename}");
    check(&output, 0, "");
    let summary = "published 1 packages as index_version 3, 2 in the archive, 1 new stored elsewhere\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), summary);
    assert_eq!(repo_support::packages(&farm.repo()), ["p/aa/1-1/aa_1-1_noarch.peipkg"]);
    let summary =
        "2 packages, 1 of them current, index_version 3, 1 package files hashed, 1 stored elsewhere";
    farm.check_verified("REPO", summary);
    // Where they are at hand, they are hashed; the directory of all packages may lack them.
    let all = ["verify", "--repo", "REPO", "--all-packages-dir", "new"];
    check(&farm.run(&all), 1, "FAIL: package missing: aa_1-1_noarch.peipkg\n");
    farm.add("aa", "1-1", "noarch");
    check(&farm.run(&all), 0, "");
    farm.put("aa", "2-1", "noarch", b"other");
    check(&farm.run(&all), 1, "FAIL: hash mismatch: aa_2-1_noarch.peipkg");
    fs::remove_file(farm.path("new/aa_2-1_noarch.peipkg")).unwrap();
    check(&farm.run(&all), 0, "");
}

#[test]
fn template_bad_is_refused_even_without_packages() {
    let farm = Farm::new();
    let before = farm.snapshot();
    for template in [
        "/pool",
        "/{name}/{version}",
        "/../{filename}",
        "/%2e%2e/{filename}",
        "//x.org/{filename}",
        "javascript:{filename}",
        "file:///{filename}",
        "https://kim@x.org/{filename}",
        "/{filename}?x",
        "/{filename}#x",
        "/index/{filename}",
    ] {
        check(&farm.publish_with(template), 2, &format!("--package-url-template: {template:?} "));
        assert_eq!(farm.snapshot(), before);
    }
}

#[test]
fn packages_of_one_url_are_refused() {
    let farm = Farm::new();
    farm.add("aa", "12-1", "noarch");
    farm.add("aa1", "2-1", "noarch");
    let before = farm.snapshot();
    for base in ["/pool/", "https://x.org/"] {
        let output = farm.publish_with(&format!("{base}{{name}}{{version}}{{arch}}"));
        check(&output, 1, "aa_12-1_noarch.peipkg: has the url");
        check(&output, 1, "aa1_2-1_noarch.peipkg too");
        assert_eq!(farm.snapshot(), before);
        // One after the other is no better.
        let other = Farm::new();
        other.add("aa", "12-1", "noarch");
        check(&other.publish_with(&format!("{base}{{name}}{{version}}{{arch}}")), 0, "");
        other.clear();
        other.add("aa1", "2-1", "noarch");
        let published = other.snapshot();
        let output = other.publish_with(&format!("{base}{{name}}{{version}}{{arch}}"));
        check(&output, 1, "which the published \"aa 12-1 noarch\" has already");
        assert_eq!(other.snapshot(), published);
    }
    // A path is the same with and without its slash.
    check(&farm.publish_with("/pool/{filename}"), 0, "");
    check(
        &farm.publish_with("pool/{filename}"),
        1,
        "aa 12-1 noarch is already published, with the same bytes",
    );
}

#[test]
fn package_named_like_the_repositorys_own_files_is_refused() {
    for name in ["index", "keys", "repo.json"] {
        let farm = Farm::new();
        farm.add(name, "1-1", "noarch");
        farm.add("aa", "1-1", "noarch");
        let before = farm.snapshot();
        check(
            &farm.publish_with("/{name}/{version}/{filename}"),
            1,
            "is where the repository keeps its own files",
        );
        assert_eq!(farm.snapshot(), before);
        check(&farm.publish(), 0, "");
        check(&farm.verify(), 0, "");
    }
}

#[test]
fn file_in_the_place_of_a_package_is_left_alone_and_named() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    farm.add("zz", "1-1", "noarch");
    let (template, place) = ("/site/{name}-{version}-{arch}", farm.repo().join("site/zz-1-1-noarch"));
    fs::create_dir(farm.repo().join("site")).unwrap();
    fs::write(&place, "somebody's page").unwrap();
    let before = farm.snapshot();
    let expected = format!("{}: has other bytes than ", place.display());
    check(&farm.publish_with(template), 1, &expected);
    assert_eq!(farm.snapshot(), before);
    // A directory, and a file instead of a directory.
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    check(&farm.publish_with(template), 1, "site/zz-1-1-noarch: cannot open the file");
    fs::remove_dir_all(farm.repo().join("site")).unwrap();
    fs::write(farm.repo().join("site"), "a file").unwrap();
    let before = farm.snapshot();
    check(&farm.publish_with(template), 1, "site/aa-1-1-noarch: cannot look at the file");
    assert_eq!(farm.snapshot(), before);
    // An interrupted publish leaves packages under their own names.
    fs::remove_file(farm.repo().join("site")).unwrap();
    fs::create_dir(farm.repo().join("site")).unwrap();
    fs::write(farm.repo().join("site/aa_1-1_noarch.peipkg"), "what another build made").unwrap();
    fs::write(farm.repo().join("site/zz_1-1_noarch.peipkg"), good("zz", "1-1", "noarch")).unwrap();
    check(&farm.publish_with("/site/{filename}"), 0, "");
    check(&farm.verify(), 0, "");
}

#[test]
fn file_in_the_place_of_a_carried_package_is_left_alone_and_named() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    check(&farm.publish_with("/pool/{filename}"), 0, "");
    farm.clear();
    fs::create_dir_all(farm.path("next/pool")).unwrap();
    let place = farm.path("next/pool/aa_1-1_noarch.peipkg");
    fs::write(&place, "somebody's file").unwrap();
    check(&farm.publish_to("next"), 1, "next/pool/aa_1-1_noarch.peipkg: is not the file ");
    assert_eq!(fs::read_to_string(&place).unwrap(), "somebody's file");
    assert!(!farm.path("next/index").exists());
    // A directory, and a file instead of a directory; a new package is not written either.
    farm.add("bb", "1-1", "noarch");
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    check(&farm.publish_to("next"), 1, "next/pool/aa_1-1_noarch.peipkg: is not the file ");
    fs::remove_dir_all(farm.path("next/pool")).unwrap();
    fs::write(farm.path("next/pool"), "a file").unwrap();
    check(&farm.publish_to("next"), 1, "next/pool/aa_1-1_noarch.peipkg: cannot look at the file");
    assert_eq!(fs::read_dir(farm.path("next")).unwrap().count(), 1);
    farm.clear();
    fs::remove_file(farm.path("next/pool")).unwrap();
    check(&farm.publish_to("next"), 0, "");
    check(&farm.run(&["verify", "--repo", "next"]), 0, "");
    check(&farm.publish_to("next"), 0, "");
}

#[test]
fn pool_behind_a_link_is_published_to() {
    let farm = Farm::new();
    fs::create_dir(farm.path("disk")).unwrap();
    symlink(farm.path("disk"), farm.repo().join("pool")).unwrap();
    farm.add("aa", "1-1", "noarch");
    check(&farm.publish_with("/pool/{filename}"), 0, "");
    assert!(farm.path("disk/aa_1-1_noarch.peipkg").is_file());
    check(&farm.verify(), 0, "");
}
