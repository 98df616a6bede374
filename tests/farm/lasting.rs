//! What lasts is on `/status` as long as it is so: the real manager meets each trouble, says it once in
//! the log, and forgets it on `/status` when a person has mended it.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::{get, status};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::tools::Tools;
use crate::support::wait::{PATIENCE, poll};

/// The warnings, as `event: subject`, sorted.
fn warnings(addr: SocketAddr) -> Vec<String> {
    let found = status(addr);
    let text =
        |one: &Value| format!("{}: {}", one["event"].as_str().unwrap(), one["subject"].as_str().unwrap());
    let mut all: Vec<String> = found["warnings"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(found["warnings_length"], all.len());
    all.sort();
    all
}

/// Waits until these are all warnings.
#[track_caller]
fn wait_warnings(addr: SocketAddr, expected: &[String]) {
    let mut expected = expected.to_vec();
    expected.sort();
    let found = poll(PATIENCE, || (warnings(addr) == expected).then_some(()));
    assert!(found.is_some(), "{:#?}\nexpected {expected:#?}", warnings(addr));
}

#[track_caller]
fn reload(daemon: &mut Running) {
    let before = daemon.events().iter().filter(|event| event["msg"] == "recipe roster loaded").count();
    daemon.signal(Signal::HUP);
    daemon.wait_events("recipe roster loaded", before + 1, PATIENCE);
}

/// Publishes the package of `from` into the repository of `farm`, with a time in the future.
fn publish_ahead(from: &Farm, farm: &Farm) {
    let new = from.repo_dir().join("p/other/1-1");
    let mut command = Command::new(&Tools::get().repo);
    command.arg("publish").arg("--in").arg(farm.repo_dir()).arg("--new").arg(new);
    command.arg("--out").arg(farm.repo_dir()).arg("--sign-key").arg(farm.key_path());
    let output = command.args(["--timestamp", "2200-01-01T00:00:00Z"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn troubles_of_disk_and_settings_are_shown_until_they_are_mended() {
    let (http, repo) = (SmartHttp::new(), GitRepo::program(&["1"]));
    let url = http.serve("app.git", &repo);
    let other = Farm::builder().with(&Recipe::program("other", &repo.file_url())).build();
    other.once().assert_success();
    let farm = Farm::builder().http().build();
    farm.once().assert_success();
    publish_ahead(&other, &farm);
    farm.add(&Recipe::program("app", &url).upstream("exclude = [\"v1*\"]"));
    let state = farm.state_dir();
    let at = |name: &str| state.join(name).display().to_string();
    fs::set_permissions(farm.key_path(), Permissions::from_mode(0o644)).unwrap();
    fs::remove_dir_all(state.join("logs")).unwrap();
    fs::write(state.join("logs"), "").unwrap();
    fs::write(state.join("publish/note"), "to do").unwrap();
    fs::write(state.join("publish/odd_1-1_noarch.peipkg"), "no package").unwrap();
    fs::write(state.join("not-commits.json"), "?").unwrap();
    let mut command = farm.command(&["--config"]);
    let mut daemon = Running::spawn(command.arg(farm.config_path()).env("GIT_HTTP_USER_AGENT", "me"));
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);

    let logged = |daemon: &Running, event: &str, key: &str| {
        let events = daemon.events();
        let event =
            events.iter().find(|found| found["msg"] == event).unwrap_or_else(|| panic!("{event}: {daemon}"));
        event[key].clone()
    };
    let key = format!("configuration warning: {}", logged(&daemon, "configuration warning", "problem"));
    let recipe = format!("recipe warning: {}", logged(&daemon, "recipe warning", "problem"));
    let log = format!("cannot write the build log: {}", at("logs/app"));
    let note = format!("cannot read pending packages, leaving them alone: {}", at("publish/note"));
    let aside = format!("loose package set aside: {}", at("publish-set-aside/odd_1-1_noarch.peipkg"));
    let tags = format!("cannot read skipped tags: {}", at("not-commits.json"));
    let clock =
        "the repository's index is ahead of the clock, publishing with its time: 2200-01-01T00:00:00Z"
            .to_owned();
    let git = "git lists every upstream: ".to_owned();
    wait_warnings(addr, &[&key, &recipe, &log, &note, &aside, &tags, &clock, &git].map(Clone::clone));
    let page = get(addr, "/").text();
    assert!(page.contains("8 warnings") && page.contains("GIT_HTTP_USER_AGENT"), "{page}");

    fs::remove_file(state.join("publish/note")).unwrap();
    fs::remove_file(state.join("publish-set-aside/odd_1-1_noarch.peipkg")).unwrap();
    wait_warnings(addr, &[&key, &recipe, &log, &tags, &clock, &git].map(Clone::clone));
    fs::remove_file(state.join("logs")).unwrap();
    farm.add(&Recipe::program("app", &url));
    repo.add_versions(&["2"]);
    reload(&mut daemon);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    wait_warnings(addr, &[&key, &tags, &clock, &git].map(Clone::clone));
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(0);
}

#[test]
fn warnings_about_recipes_and_their_builds_end_with_the_cause() {
    let (inner, outer) = (GitRepo::program(&["1"]), GitRepo::new());
    outer.commit(&[("README", "x\n")], "2026-01-01T00:00:00Z");
    outer.add_submodule("inner", &inner.file_url(), &inner.head());
    outer.commit(&[("more", "x\n")], "2026-01-02T00:00:00Z");
    outer.tag_light("v1");
    let file = |name: &str| -> Recipe { Recipe::program(name, &outer.file_url()) };
    let builds = |recipe: Recipe| {
        recipe.build_sh("mkdir -p \"$DESTDIR/usr/bin\" \"$DESTDIR/usr/share/doc/app\"\necho x > \"$DESTDIR/usr/bin/app\"\necho x > \"$DESTDIR/usr/share/doc/app/x\"")
    };
    let farm = Farm::builder().http().with(&builds(file("app"))).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    let submodules = "submodules not fetched, the recipe lacks submodules = true: 1-1".to_owned();
    wait_warnings(addr, std::slice::from_ref(&submodules));
    assert_eq!(status(addr)["warnings"][0]["recipe"], "app");
    // A pattern that matches nothing looks healthy in the log.
    farm.add(&file("none").tag_pattern("^release-(.*)$"));
    reload(&mut daemon);
    let pattern = "no tag matches tag_pattern: ^release-(.*)$".to_owned();
    wait_warnings(addr, &[submodules.clone(), pattern.clone()]);
    let poll = &status(addr)["polls"]["none"];
    assert_eq!(
        (&poll["tags_matched"], &poll["tags_seen"], &poll["error"]),
        (&0.into(), &1.into(), &Value::Null)
    );
    // A refused reload leaves the recipes, and says which problems there are.
    fs::write(farm.recipes_dir().join("none/peipkg.toml"), "[upstream\n").unwrap();
    daemon.signal(Signal::HUP);
    let problem = daemon.wait_event("reload refused, the current recipes stay", PATIENCE)["problem"].clone();
    let refused = status(addr)["reload_refused"].clone();
    assert_eq!((&refused["problems"][0], &refused["problems_length"]), (&problem.into(), &1.into()));
    assert!(get(addr, "/").text().contains("A reload was refused"));
    wait_warnings(addr, &[submodules.clone(), pattern]);
    farm.remove_recipe("none");
    outer.git(&["rm", "-q", "inner"]);
    outer.commit(&[("more", "y\n")], "2026-01-03T00:00:00Z");
    outer.tag_light("v2");
    reload(&mut daemon);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    // The published version 1-1 still lacks what the submodule has.
    wait_warnings(addr, std::slice::from_ref(&submodules));
    farm.add(&builds(file("app")).upstream("min_version = \"1\""));
    reload(&mut daemon);
    wait_warnings(addr, &[]);
    assert_eq!(status(addr)["reload_refused"], Value::Null);
}

#[test]
fn damaged_index_is_shown_until_it_is_whole() {
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().http().with(&Recipe::program("app", &repo.file_url())).build();
    farm.once().assert_success();
    let index = farm.repo_dir().join("index/archive.json");
    let whole = fs::read(&index).unwrap();
    fs::write(&index, &whole[..whole.len() / 2]).unwrap();
    let pause: &Path = &farm.state_dir().join("pause");
    fs::write(pause, "").unwrap();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    wait_warnings(addr, &["dedup check failed: ".to_owned()]);
    fs::write(&index, &whole).unwrap();
    reload(&mut daemon);
    wait_warnings(addr, &[]);
    daemon.wait_event("dedup check succeeded", PATIENCE);
    // What is published was found again: nothing waits.
    let newest =
        || status(addr)["polls"]["app"]["newest_published"] == "1-1" && status(addr)["queue_length"] == 0;
    assert!(poll(PATIENCE, || newest().then_some(())).is_some(), "{}", status(addr));
}

#[test]
fn page_names_the_upstream_that_cannot_be_listed_without_its_secrets() {
    let urls =
        ["https://me:pw-s3cret@127.0.0.1:1/x.git", "https://127.0.0.1:1/x.git?pw-s3cret", "file:///nowhere"];
    let mut farm = Farm::builder().http();
    for (id, url) in ["aa", "bb", "cc"].iter().zip(urls) {
        farm = farm.with(&Recipe::program(id, url));
    }
    let farm = farm.build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("poll failed", 3, PATIENCE);
    let page = get(addr, "/").text();
    assert!(!page.contains("pw-s3cret"), "{page}");
    let section = page.split("<h2>Upstreams not listed</h2>").nth(1).unwrap().split("<h2>").next().unwrap();
    assert!(section.contains("127.0.0.1:1/x.git") && section.contains("file:///nowhere"), "{page}");
}
