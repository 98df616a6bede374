//! Many versions and recipes, in seconds; `make bench` takes minutes for more.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::PATIENCE;

/// How many versions the sweep builds.
const VERSIONS: usize = 40;

/// A deadline for a sweep over so much.
const LONG: Duration = PATIENCE.saturating_mul(5);

#[test]
fn sweep_of_many_versions_leaves_nothing_behind() {
    let repo = GitRepo::program(&["0"]);
    repo.tag_many((1..VERSIONS).map(|number| format!("v{number}")));
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let output = farm.start(&["--once"]).wait_exit(LONG);
    output.assert_success().assert_only_events();
    let built: Vec<String> =
        output.events("starting build").iter().map(|event| event["version"].clone()).collect();
    let expected: Vec<String> = (0..VERSIONS).rev().map(|number| format!("{number}-1")).collect();
    assert_eq!(built, expected, "not every version was built, or not the newest first");
    assert_eq!(farm.published().len(), VERSIONS);
    farm.assert_clean();
    farm.assert_verifies();
    let mut left: Vec<_> =
        fs::read_dir(farm.state_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(
        left,
        ["lock", "logs", "publish", "published-commits", "repo", "sources", "stage", "tool-lock"]
    );
}

/// The memory, in KiB, that the manager and each of its children may allocate. Address space would be
/// the wrong measure: the C library reserves 64 MiB of it for each thread that allocates.
const SMALL_MACHINE: u64 = 64 * 1024;

#[test]
fn farm_of_200_recipes_fits_a_small_machine() {
    let repo = GitRepo::program(&["1.0"]);
    let http = SmartHttp::new();
    let mut builder = Farm::builder().http();
    for number in 0..200 {
        // Each has its own upstream; only the first has a wanted release.
        let url = http.serve(&format!("r{number}.git"), &repo);
        let recipe = Recipe::program(&format!("tool-{number}"), &url);
        let recipe = if number == 0 { recipe } else { recipe.upstream("min_version = \"2\"") };
        builder = builder.with(&recipe);
    }
    let farm = builder.build();
    let limited = |arguments: &[&str]| {
        let mut command = farm.command(arguments);
        command.arg("--config").arg(farm.config_path());
        farm.shell(&command, &format!("ulimit -d {SMALL_MACHINE}; exec \"$@\""))
    };
    let output = Running::spawn(&mut limited(&["--once"])).wait_exit(LONG);
    output.assert_success().assert_only_events();
    assert_eq!(output.events("poll complete").len(), 200, "{output}");
    farm.assert_published(&["tool-0 1.0-1 noarch"]);
    let mut daemon = Running::spawn(&mut limited(&[]));
    daemon.wait_events("poll complete", 200, LONG);
    let addr = daemon.http_addr();
    assert_eq!(client::status(addr)["recipes"].as_array().unwrap().len(), 200);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
}
