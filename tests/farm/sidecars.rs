//! The sidecars of packages, through publishes that the manager undoes, and uploads.

use std::collections::BTreeSet;
use std::fs;

use crate::support::farm::{Farm, remote_directory};
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;

/// A `peipkg-repo` that damages the repository after a publish, while the file `damage` is in the
/// farm's directory.
const DAMAGING: &str = "#!/bin/sh\n{real} \"$@\" || exit\n\
    [ \"$1\" != publish ] || [ ! -e \"$HOME/damage\" ] || { rm \"$HOME/state/repo/index/active.json\"; exit 1; }\n";

/// The names in the directory of `tool` at `version` that are no packages.
fn sidecars(farm: &Farm, version: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(farm.repo_dir().join("p/tool").join(version)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".peipkg")).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn sidecars_are_undone_with_their_publish() {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", DAMAGING).build();
    farm.once().assert_success();
    let bare = set(["files.json", "manifest.json", "provenance.json"]);
    assert_eq!(sidecars(&farm, "1.0-1"), bare);
    assert_eq!(
        fs::read_to_string(farm.repo_dir().join("p/tool/1.0-1/manifest.json")).unwrap(),
        farm.package("tool", "1.0-1").text(".peipkg/manifest.json")
    );

    // A new version, and the version of another architecture beside one that is published.
    repo.add_versions(&["1.1"]);
    let text = Recipe::program("other", &repo.file_url()).package("tool").toml();
    farm.write_recipe("other", &text.replace("noarch", "x86_64"), &tool.script());
    fs::write(farm.path("damage"), "").unwrap();
    let output = farm.once();
    output.assert_success();
    assert!(!output.events("publish was cut short, repository restored").is_empty(), "{output}");
    assert_eq!(farm.published(), ["tool 1.0-1 noarch"], "{output}");
    assert_eq!(sidecars(&farm, "1.1-1"), set([]), "{output}");
    let own = ["files.json", "manifest.json", "provenance.json"]
        .map(|name| format!("tool_1.0-1_noarch.peipkg.{name}"));
    assert_eq!(sidecars(&farm, "1.0-1"), own.into(), "{output}");

    fs::remove_file(farm.path("damage")).unwrap();
    let all = ["tool 1.0-1 noarch", "tool 1.0-1 x86_64", "tool 1.1-1 noarch", "tool 1.1-1 x86_64"];
    farm.once_without_builds(&all);
    for version in ["1.0-1", "1.1-1"] {
        assert_eq!(sidecars(&farm, version).len(), 6);
    }
}

#[test]
fn sidecars_in_a_pool_are_undone_with_their_publish() {
    let repo = GitRepo::program(&["1.0"]);
    let pool = "{real} \"$@\" ${template:+--package-url-template \"$template\"} || exit";
    let script = DAMAGING.replace("{real} \"$@\" || exit", pool);
    let script = script.replacen('\n', "\n[ \"$1\" != publish ] || template='/pool/{filename}'\n", 1);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", &script).build();
    farm.once().assert_success();
    let old = set(["files.json", "manifest.json", "provenance.json"]);
    let in_pool = || -> BTreeSet<String> {
        let entries = fs::read_dir(farm.repo_dir().join("pool")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".peipkg")).collect()
    };
    assert_eq!(in_pool(), old);
    repo.add_versions(&["1.1"]);
    fs::write(farm.path("damage"), "").unwrap();
    let output = farm.once();
    assert!(!output.events("publish was cut short, repository restored").is_empty(), "{output}");
    let own = ["files.json", "manifest.json", "provenance.json"]
        .map(|name| format!("tool_1.0-1_noarch.peipkg.{name}"));
    assert_eq!(in_pool(), own.into(), "{output}");
    fs::remove_file(farm.path("damage")).unwrap();
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    assert_eq!(in_pool().len(), 6);
}

#[test]
fn sidecars_that_changed_reach_the_remote() {
    let Some((_home, remote)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).rclone(&remote).build();
    farm.once().assert_success();
    let at = |name: &str| remote.join("p/tool/1.0-1").join(name);
    let manifest = fs::read(at("manifest.json")).unwrap();
    assert!(at("files.json").exists());
    // The directory becomes shared: the first names are stale.
    let text = Recipe::program("other", &repo.file_url()).package("tool").toml();
    farm.write_recipe("other", &text.replace("noarch", "x86_64"), &tool.script());
    farm.once().assert_success();
    assert_eq!(fs::read(at("tool_1.0-1_noarch.peipkg.manifest.json")).unwrap(), manifest);
    assert!(at("tool_1.0-1_x86_64.peipkg.files.json").exists());
    assert!(!at("manifest.json").exists() && !at("files.json").exists());
}
