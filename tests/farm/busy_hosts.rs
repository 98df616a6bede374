//! Hosts that ask for a pause or are down: they delay no other host, and a sweep gives up their
//! upstreams in the end.
//!
//! The manager tells hosts apart by name, not by port, so the bad one is called localhost.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::smart_http::{Fault, SmartHttp};
use crate::support::wait::PATIENCE;

fn busy(seconds: u32) -> Fault {
    Fault::Status { code: 429, retry_after: Some(seconds.to_string()) }
}

fn on_localhost(url: &str) -> String {
    url.replace("127.0.0.1", "localhost")
}

#[test]
fn redirect_to_a_busy_host_pauses_only_that_host() {
    let (good, bad) = (SmartHttp::new(), SmartHttp::new());
    let repo = GitRepo::program(&["1"]);
    let url = good.serve("good.git", &repo);
    bad.fault("", busy(600));
    let target = on_localhost(&bad.url("moved.git")) + "/info/refs?service=git-upload-pack";
    good.fault("moved.git", Fault::Redirect { to: target });
    let farm = Farm::builder().with(&Recipe::program("moved", &good.url("moved.git"))).build();
    let mut daemon = farm.daemon();
    let failed = daemon.wait_event("poll failed", PATIENCE);
    let error = "the server answered with status 429 and asks for a pause of 10m0s: not today";
    assert_eq!(failed["error"], error);
    assert_eq!(failed["next_poll_after"], "10m0s", "{failed:?}");

    farm.add(&Recipe::program("good", &url));
    farm.add(&Recipe::program("there", &on_localhost(&bad.url("there.git"))));
    daemon.signal(Signal::HUP);
    daemon.wait_event("build + publish complete", PATIENCE);
    let paths: Vec<String> = bad.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/moved.git/info/refs"], "the busy host was asked during its pause");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
    farm.assert_published(&["good 1-1 noarch"]);
}

#[test]
fn sweep_host_asks_for_a_short_pause_waits() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1"]);
    let mut farm = Farm::builder();
    for name in ["one", "two", "three"] {
        let url = http.serve(&format!("{name}.git"), &repo);
        farm = farm.with(&Recipe::program(name, &url));
    }
    let farm = farm.build();
    let config = fs::read_to_string(farm.config_path()).unwrap();
    fs::write(farm.config_path(), config.replace("[poll]\n", "[poll]\njobs = 1\n")).unwrap();
    http.fault_times("", busy(1), 1);
    let begun = Instant::now();
    let output = farm.once();
    output.assert_success();
    let failed = output.event("poll failed");
    let error = "the server answered with status 429 and asks for a pause of 1s: not today";
    assert_eq!(failed["error"], error, "more than one listing failed");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{output}");
    assert_eq!(farm.published().len(), 2, "{output}");
}

#[test]
fn sweep_host_is_down_gives_it_up_and_builds_the_others() {
    let http = SmartHttp::new();
    let url = http.serve("good.git", &GitRepo::program(&["1"]));
    // A port that was free a moment ago refuses connections.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut farm = Farm::builder().with(&Recipe::program("good", &url));
    for number in 10..30 {
        let down = on_localhost(&format!("http://{closed}/{number}.git"));
        farm = farm.with(&Recipe::program(&format!("down{number}"), &down));
    }
    let farm = farm.build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.events("poll failed");
    let refused = failed.iter().filter(|event| event["error"].contains("the connection failed")).count();
    let given_up =
        failed.iter().filter(|event| event["error"] == "not asked: its host does not answer").count();
    assert_eq!(refused + given_up, 20, "{output}");
    assert_eq!(refused, 6, "{output}");
    farm.assert_published(&["good 1-1 noarch"]);
}
