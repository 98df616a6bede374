//! Builds that install nothing where the package's files are looked for.

use crate::support::client;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::wait::PATIENCE;

const EVENT: &str = "published packages have no files";

#[test]
fn build_that_ignores_destdir_is_published_with_a_warning() {
    let repo = GitRepo::program(&["1.0"]);
    let url = repo.file_url();
    // As `make install` does without DESTDIR; the directory is the build's own, for the test.
    let wrong = "mkdir -p \"$SOURCE_DIR/root/usr/bin\"\ncp \"$SOURCE_DIR/program.sh\" \"$SOURCE_DIR/root/usr/bin/\"\n";
    let farm = Farm::builder()
        .with(&Recipe::program("empty", &url).build_sh(wrong))
        .with(&Recipe::program("all-empty", &url).with_doc().build_sh(wrong))
        .with(&Recipe::program("well", &url))
        .http()
        .build();
    // Packages of metadata alone are meant so; and one with files shows that DESTDIR is right.
    let metadata = Recipe::program("metadata", &url).build_sh(wrong).toml();
    let files = "files = [\"usr/bin/**\", \"usr/share/doc/**\"]";
    assert!(metadata.contains(files), "{metadata}");
    farm.write_recipe("metadata", &metadata.replace(files, "files = []"), "set -eu\n");
    let half = "mkdir -p \"$DESTDIR/usr/bin\"\ncp \"$SOURCE_DIR/program.sh\" \"$DESTDIR/usr/bin/half\"\n";
    farm.add(&Recipe::program("half", &url).with_doc().build_sh(half));
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("build + publish complete", 5, PATIENCE);
    let warned = daemon.wait_events(EVENT, 2, PATIENCE);
    let mut recipes: Vec<&str> = warned.iter().map(|event| event["recipe"].as_str()).collect();
    recipes.sort_unstable();
    assert_eq!(recipes, ["all-empty", "empty"]);
    assert!(warned.iter().all(|event| event["level"] == "warn" && event["version"] == "1.0-1"), "{warned:?}");
    let status = client::status(addr);
    let warnings = status["warnings"].as_array().expect("warnings");
    let mut in_status: Vec<&str> = warnings
        .iter()
        .filter(|warning| warning["event"] == EVENT)
        .filter_map(|warning| warning["recipe"].as_str())
        .collect();
    in_status.sort_unstable();
    assert_eq!(in_status, ["all-empty", "empty"], "{status}");
}
