//! Pauses by a file and by a recipe's key, and retries by touching a recipe.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::time::SystemTime;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{get, status};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, wait_until};

#[track_caller]
fn reload(daemon: &mut Running) {
    let before = daemon.events().iter().filter(|event| event["msg"] == "recipe roster loaded").count();
    daemon.signal(Signal::HUP);
    daemon.wait_events("recipe roster loaded", before + 1, PATIENCE);
}

fn count(daemon: &Running, message: &str) -> usize {
    daemon.events().iter().filter(|event| event["msg"] == message).count()
}

/// Waits until the daemon has polled `recipe` after its last reload and waits for the next time.
#[track_caller]
fn wait_polled(addr: SocketAddr, recipe: &str) -> Value {
    let mut found = Value::Null;
    wait_until("the poll", PATIENCE, || {
        found = status(addr);
        !found["polls"][recipe]["next_poll"].is_null() && !found["polls"][recipe]["last_poll"].is_null()
    });
    found
}

#[test]
fn pause_file_holds_builds_until_a_reload_without_it() {
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().http().with(&Recipe::program("app", &repo.file_url())).build();
    let pause = farm.state_dir().join("pause");
    fs::create_dir_all(farm.state_dir()).unwrap();
    fs::write(&pause, "").unwrap();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let found = wait_polled(addr, "app");
    assert!(found["paused_since"].is_string(), "{found}");
    assert_eq!((&found["queue_length"], &found["builds_attempted"]), (&json!(1), &json!(0)));
    assert!(get(addr, "/").text().contains("Builds were paused"));
    reload(&mut daemon);
    assert_eq!((count(&daemon, "builds are paused"), count(&daemon, "starting build")), (1, 0));
    // The file alone changes nothing: nobody looks until a reload.
    fs::remove_file(&pause).unwrap();
    assert!(status(addr)["paused_since"].is_string());
    reload(&mut daemon);
    daemon.wait_event("build + publish complete", PATIENCE);
    assert_eq!((&status(addr)["paused_since"], count(&daemon, "builds go on")), (&Value::Null, 1));
    // Whatever has the name pauses: a directory, or a link that leads nowhere.
    repo.add_versions(&["2"]);
    std::os::unix::fs::symlink("nowhere", &pause).unwrap();
    reload(&mut daemon);
    let found = wait_polled(addr, "app");
    assert!(found["paused_since"].is_string(), "{found}");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(0);
    farm.assert_published(&["app 1-1 noarch"]);
}

#[test]
fn sweep_of_a_paused_farm_polls_and_ends_well() {
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().with(&Recipe::program("app", &repo.file_url())).build();
    fs::create_dir_all(farm.state_dir().join("pause")).unwrap();
    let output = farm.once();
    output.assert_code(0);
    assert_eq!(output.event("poll complete")["queued"], "1");
    assert_eq!((output.events("builds are paused").len(), output.events("starting build").len()), (1, 0));
    fs::remove_dir(farm.state_dir().join("pause")).unwrap();
    farm.once().assert_code(0);
    farm.assert_published(&["app 1-1 noarch"]);
}

#[test]
fn paused_recipe_is_polled_and_not_built() {
    let repo = GitRepo::program(&["1"]);
    let paused = Recipe::program("app", &repo.file_url()).upstream("paused = true");
    let other = Recipe::program("other", &repo.file_url());
    let farm = Farm::builder().http().with(&paused).with(&other).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    let found = wait_polled(addr, "app");
    let polls = &found["polls"];
    assert_eq!(polls["app"]["tags_matched"], 1);
    assert_eq!(polls["other"]["newest_published"], "1-1");
    assert!(polls["other"]["last_success"]["took_seconds"].as_f64().unwrap() > 0.0, "{polls}");
    assert_eq!((&found["held"][0]["recipe"], &found["held_length"]), (&json!("app"), &json!(1)));
    assert_eq!(count(&daemon, "recipe is paused, polling it without builds"), 1);
    farm.assert_published(&["other 1-1 noarch"]);
    farm.add(&Recipe::program("app", &repo.file_url()));
    reload(&mut daemon);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    let found = status(addr);
    assert_eq!(found["held"], json!([]));
    farm.assert_published(&["app 1-1 noarch", "other 1-1 noarch"]);
}

#[test]
fn touched_recipe_retries_a_failed_version_at_the_reload() {
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().http().build();
    let library = farm.path("library");
    let recipe = Recipe::program("app", &repo.file_url());
    farm.add(&recipe.before_build(&format!("test -e {}", library.display())));
    let file = farm.recipes_dir().join("app/peipkg.toml");
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    // From the second failure on, the retry by time comes after the test's patience.
    for failures in 1..=3 {
        let events = daemon.wait_events("build failed", failures, PATIENCE);
        assert_eq!(events[failures - 1]["failures"], failures.to_string());
        if failures == 3 {
            File::create(&library).unwrap();
        }
        reload(&mut daemon);
        wait_polled(addr, "app");
        assert_eq!(count(&daemon, "starting build"), failures, "a reload alone retries nothing");
        File::options().write(true).open(&file).unwrap().set_modified(SystemTime::now()).unwrap();
        reload(&mut daemon);
    }
    daemon.wait_event("build + publish complete", PATIENCE);
    assert_eq!(status(addr)["failures"], Value::Null);
}
