//! Publishing with a wrong clock, and after its correction.

use std::fs;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;

/// A `peipkg-repo` that replaces its `--timestamp` by the content of `$HOME/clock`, if that file
/// exists.
const WITH_CLOCK: &str = "#!/bin/sh
[ -e \"$HOME/clock\" ] || exec {real} \"$@\"
previous=
for argument; do
    shift
    [ \"$previous\" = --timestamp ] && argument=$(cat \"$HOME/clock\")
    set -- \"$@\" \"$argument\"
    previous=$argument
done
exec {real} \"$@\"
";

/// Reads the `generated_at` of an index.
fn generated_at(farm: &Farm, index: &str) -> String {
    let text = fs::read(farm.repo_dir().join("index").join(index)).expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    index["generated_at"].as_str().expect("a string").to_owned()
}

#[test]
fn clock_behind_the_repository_blocks_nothing() {
    const EVENT: &str = "the repository's index is ahead of the clock, publishing with its time";
    let ahead = "2137-01-02T03:04:05.5Z";
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", WITH_CLOCK).build();
    fs::write(farm.path("clock"), ahead).unwrap();
    farm.once().assert_success().assert_only_events();
    assert_eq!(generated_at(&farm, "archive.json"), ahead);

    fs::remove_file(farm.path("clock")).unwrap();
    repo.add_versions(&["1.1"]);
    let output = farm.once();
    output.assert_success().assert_only_events().event("build + publish complete");
    let warned = output.event(EVENT);
    assert_eq!((warned["level"].as_str(), warned["timestamp"].as_str()), ("warn", ahead));
    assert!(warned["ahead_by"].contains('h'), "{output}");
    for index in ["archive.json", "active.json"] {
        assert_eq!(generated_at(&farm, index), ahead);
    }
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    farm.assert_verifies();
    farm.assert_clean();
}

#[test]
fn clock_right_publishes_with_the_time_now() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let before = now();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.all_events().iter().all(|event| event["level"] == "info"), "{output}");
    let time = generated_at(&farm, "archive.json");
    assert!((before..=now()).contains(&time), "{time}");
}

/// The present time, to the second. These texts sort like the times.
fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}
