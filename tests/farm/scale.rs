//! Many versions at once, as many as a test has time for; `make bench` has more.

use std::fs;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;

/// How many versions are built.
const VERSIONS: usize = 60;

#[test]
fn many_versions_in_one_sweep_leave_nothing_behind() {
    let repo = GitRepo::program(&["0"]);
    repo.tag_many((1..VERSIONS).map(|number| format!("v{number}")));
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let built: Vec<String> =
        output.events("build + publish complete").iter().map(|event| event["version"].clone()).collect();
    let expected: Vec<String> = (0..VERSIONS).rev().map(|number| format!("{number}-1")).collect();
    assert_eq!(built, expected, "every one, the newest first");
    assert_eq!(farm.published().len(), VERSIONS);
    farm.assert_clean();
    farm.assert_verifies();
    let mut left: Vec<_> =
        fs::read_dir(farm.state_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["lock", "logs", "publish", "repo", "sources", "stage", "tool-lock"]);
}
