//! Tags that a recipe excludes, tags that are no releases, and the variables that name a build's
//! tag.

use std::fs;

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::Output;
use crate::support::wait::PATIENCE;

/// A recipe whose package has the build's environment.
fn witness(id: &str, url: &str) -> Recipe {
    let dump = format!("mkdir -p \"$DESTDIR/usr/share/doc/{id}\"\nenv >\"$DESTDIR/usr/share/doc/{id}/env\"");
    Recipe::program(id, url).before_build(&dump)
}

/// The variables `PEIPKG_…` of a build by [`witness`], sorted.
#[track_caller]
fn exported(farm: &Farm, id: &str, version: &str) -> Vec<String> {
    let env = farm.package(id, version).text(&format!("usr/share/doc/{id}/env"));
    let mut found: Vec<String> =
        env.lines().filter(|line| line.starts_with("PEIPKG_")).map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn tag_excluded_is_never_built_and_hides_no_other() {
    // The tag v1.1-broken would be version 1.1 too.
    let repo = GitRepo::program(&["1.0", "1.1", "1.2"]);
    repo.tag_light("v1.1-broken");
    let url = repo.file_url();
    let pattern = r"^v(\d+\.\d+)(?:-broken)?$";
    let recipe = |id: &str, exclude: &str| Recipe::program(id, &url).tag_pattern(pattern).upstream(exclude);
    let farm = Farm::builder()
        .with(&recipe("some", r#"exclude = ["v1.1", "v1.2"]"#))
        .with(&recipe("all", r#"exclude = ["v1.0", "v1.1", "v1.2", "v1.1-broken"]"#))
        .build();
    for builds in [2, 0] {
        let output = farm.once();
        output.assert_success().assert_only_events();
        assert_eq!(output.events("starting build").len(), builds, "{output}");
        // An excluded tag is known to its recipe: neither it nor the pattern needs a warning.
        assert!(output.all_events().iter().all(|event| event["level"] == "info"), "{output}");
        farm.assert_published(&["some 1.0-1 noarch", "some 1.1-1 noarch"]);
    }
}

#[test]
fn tag_excluded_by_a_reload_is_not_retried() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let url = repo.file_url();
    let recipe = |exclude: &str| {
        let script = "case $(cat \"$SOURCE_DIR/README\") in *1.1*) exit 1 ;; esac";
        Recipe::program("tool", &url).before_build(script).upstream(exclude)
    };
    let farm = Farm::builder().with(&recipe("")).http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    assert!(crate::support::client::status(addr)["failures"]["tool@1.1-1"].is_object());
    farm.add(&recipe("exclude = [\"v1.1\"]"));
    daemon.signal(Signal::HUP);
    daemon.wait_events("poll complete", 2, PATIENCE);
    assert!(crate::support::client::status(addr)["failures"].is_null());
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0);
    assert_eq!(output.events("build failed").len(), 1, "{output}");
}

#[test]
fn version_tag_and_commit_are_exported_if_the_recipe_asks() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let light = repo.git(&["rev-parse", "v1.0"]);
    repo.tag_annotated("v1.2", "2026-03-01T00:00:00Z");
    // A tag of a tag: its commit is behind two objects.
    repo.git(&["tag", "--annotate", "--message", "nested", "v1.3", "v1.2"]);
    let url = repo.file_url();
    let farm = Farm::builder()
        .with(&witness("asks", &url).upstream("export_version = true\npeios_revision = 2"))
        .with(&witness("silent", &url).upstream("export_version = false"))
        .build();
    farm.once().assert_success().assert_only_events();
    let head = repo.head();
    for (version, tag, commit) in
        [("1.0", "v1.0", &light), ("1.1", "v1.1", &head), ("1.2", "v1.2", &head), ("1.3", "v1.3", &head)]
    {
        let expected = [
            format!("PEIPKG_COMMIT={commit}"),
            format!("PEIPKG_TAG={tag}"),
            format!("PEIPKG_VERSION={version}-2"),
        ];
        assert_eq!(exported(&farm, "asks", &format!("{version}-2")), expected);
        assert_eq!(exported(&farm, "silent", &format!("{version}-1")), [""; 0]);
    }
}

#[test]
fn commit_exported_of_a_sha256_upstream_is_its_full_id() {
    let repo = GitRepo::sha256();
    repo.add_versions(&["1.0"]);
    let farm =
        Farm::builder().with(&witness("tool", &repo.file_url()).upstream("export_version = true")).build();
    farm.once().assert_success();
    let commit = format!("PEIPKG_COMMIT={}", repo.head());
    assert_eq!(commit.len(), "PEIPKG_COMMIT=".len() + 64);
    assert!(exported(&farm, "tool", "1.0-1").contains(&commit));
}

/// An upstream with the release v1.0 and tags of other objects, plain, annotated and nested.
fn of_other_objects() -> GitRepo {
    let repo = GitRepo::program(&["1.0"]);
    repo.git(&["tag", "v1.1", "HEAD^{tree}"]);
    repo.git(&["tag", "v1.2", "HEAD:README"]);
    repo.git(&["tag", "--annotate", "--message", "a tree", "v1.3", "HEAD^{tree}"]);
    repo.git(&["tag", "--annotate", "--message", "nested", "v1.4", "v1.3"]);
    repo
}

#[track_caller]
fn assert_skipped(output: &Output, expected: &[(&str, &str)]) {
    let skipped = output.events("tag skipped");
    let mut found: Vec<_> =
        skipped.iter().map(|event| (event["tag"].as_str(), event["reason"].as_str())).collect();
    found.sort_unstable();
    assert_eq!(found, expected, "{output}");
    assert!(skipped.iter().all(|event| event["level"] == "warn" && event["recipe"] == "tool"), "{output}");
    assert!(output.events("build failed").is_empty(), "{output}");
}

#[test]
fn tag_of_a_tree_or_blob_is_skipped_and_fetched_once() {
    let repo = of_other_objects();
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let (tree, blob) = ("it names a tree, not a commit", "it names a blob, not a commit");
    let expected = [("v1.1", tree), ("v1.2", blob), ("v1.3", tree), ("v1.4", tree)];
    for builds in [5, 0] {
        let output = farm.once();
        output.assert_success().assert_only_events();
        assert_skipped(&output, &expected);
        assert_eq!(output.events("starting build").len(), builds, "{output}");
        farm.assert_published(&["tool 1.0-1 noarch"]);
        farm.assert_clean();
    }
    // A release beside them is built as ever.
    repo.add_versions(&["2.0"]);
    let output = farm.once();
    assert_skipped(&output, &expected);
    assert_eq!(output.event("starting build")["version"], "2.0-1");
    // A moved tag is another question.
    repo.git(&["tag", "--force", "v1.1", "HEAD"]);
    let output = farm.once();
    assert_skipped(&output, &expected[1..]);
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch", "tool 2.0-1 noarch"]);
}

#[test]
fn tag_of_a_tree_in_a_daemon_is_no_failure() {
    let repo = of_other_objects();
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    daemon.wait_events("tag skipped", 4, PATIENCE);
    assert!(crate::support::client::status(addr)["failures"].is_null());
    // A reload lists again, and the upstream has moved a tag.
    repo.git(&["tag", "--force", "v1.1", "HEAD"]);
    daemon.signal(Signal::HUP);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0);
    assert!(output.events("build failed").is_empty(), "{output}");
}

#[test]
fn tags_skipped_are_fetched_together() {
    if !require("ssh-keygen") {
        return;
    }
    let repo = GitRepo::program(&["0.1"]);
    let tree = repo.git(&["rev-parse", "HEAD^{tree}"]);
    for tag in ["v1", "v2", "v3", "v4", "v5", "v6"] {
        repo.git(&["tag", tag, &tree]);
    }
    let script = "#!/bin/sh\ncase \"$*\" in *\" fetch \"*) echo >> \"$(dirname \"$0\")/../fetched\" ;; esac\n\
                  exec {real} \"$@\"\n";
    for signers in ["", "signers = \"keys\""] {
        let recipe = Recipe::program("tool", &repo.file_url()).upstream(signers);
        let farm = Farm::builder().with(&recipe).program("git", script).build();
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK5+a1++A81IJoBLrAsakmaAGFVjx8IVsjlRaEr5E0Bp";
        fs::write(farm.recipes_dir().join("tool/keys"), format!("a@x {key}\n")).unwrap();
        assert_eq!(farm.once().events("tag skipped").len(), if signers.is_empty() { 6 } else { 7 });
        let fetches = fs::read_to_string(farm.path("fetched")).unwrap().lines().count();
        assert!(fetches < 5, "{fetches}");
        repo.git(&["tag", "--force", "--annotate", "--message", "x", "v1"]);
        for tag in ["v2", "v3", "v4", "v5", "v6"] {
            repo.git(&["tag", "--force", tag, "HEAD"]);
        }
    }
}

#[test]
fn skipped_tags_unreadable_delay_nothing() {
    let repo = of_other_objects();
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    fs::create_dir_all(farm.path("state/not-commits.json")).unwrap();
    let output = farm.once();
    output.assert_success();
    assert!(!output.events("cannot remember skipped tags").is_empty(), "{output}");
    assert_eq!(output.events("tag skipped").len(), 4, "{output}");
    farm.assert_published(&["tool 1.0-1 noarch"]);
}
