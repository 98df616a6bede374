//! Forges announce a tag before it is visible: listings after a webhook that shows nothing new.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::payloads::{self, Addresses};
use crate::support::client::{self, openssl_hmac_sha256};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::{PATIENCE, wait_until};

/// A farm with one recipe, whose version 1.0 is published, and its daemon.
fn published(http: &SmartHttp, repo: &GitRepo) -> (Farm, Running, SocketAddr, String) {
    let url = http.serve("lib.git", repo);
    // No regular poll comes in between.
    let recipe = Recipe::program("lib", &url).watch("github_webhook = true\npoll_interval = \"10000h\"");
    let farm = Farm::builder().http().with(&recipe).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    (farm, daemon, addr, payloads::github_push(&Addresses::of(&url), "v1.1"))
}

/// The time until the next listing, in seconds; none while one runs.
fn next_listing(addr: SocketAddr) -> Option<u64> {
    let next = client::status(addr)["polls"]["lib"]["next_poll"].as_str()?.to_owned();
    let next = humantime::parse_rfc3339(&next).unwrap();
    Some(next.duration_since(SystemTime::now()).unwrap_or_default().as_secs())
}

fn polls(daemon: &Running) -> usize {
    daemon.events().iter().filter(|event| event["msg"] == "poll complete").count()
}

#[test]
fn tag_visible_after_its_webhook_is_built_by_the_second_listing() {
    let (http, repo) = (SmartHttp::new(), GitRepo::program(&["1.0"]));
    let (farm, mut daemon, addr, body) = published(&http, &repo);
    repo.commit(&[("README", "new\n")], "2026-01-02T00:00:00Z");
    assert_eq!(client::webhook(addr, "push", SECRET, body.as_bytes()).status, 200);
    let listed = daemon.wait_events("poll complete", 2, PATIENCE).swap_remove(1);
    repo.tag_light("v1.1");
    let built = daemon.wait_events("starting build", 2, PATIENCE).swap_remove(1);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    let [listed, built] = [listed, built].map(|event| humantime::parse_rfc3339(&event["time"]).unwrap());
    assert!(built.duration_since(listed).unwrap() > Duration::from_secs(3), "the tag was visible too soon");
    farm.assert_published(&["lib 1.0-1 noarch", "lib 1.1-1 noarch"]);
    // Once the tag has appeared, nothing is listed again.
    assert_eq!(polls(&daemon), 3);
    assert!(next_listing(addr).is_some_and(|seconds| seconds > 600), "{:?}", next_listing(addr));
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(0);
}

#[test]
fn burst_of_webhooks_costs_few_listings_and_leaves_one_for_a_late_tag() {
    let (http, repo) = (SmartHttp::new(), GitRepo::program(&["1.0"]));
    let (farm, mut daemon, addr, body) = published(&http, &repo);
    let signature = format!("sha256={}", openssl_hmac_sha256(SECRET.as_bytes(), body.as_bytes()));
    let headers = [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature.as_str())];
    let send = || {
        let answer = client::request(addr, "POST", "/webhooks/github", &headers, body.as_bytes());
        assert_eq!(answer.status, 200);
    };
    thread::scope(|scope| (0..50).for_each(|_| drop(scope.spawn(send))));
    daemon.wait_events("poll complete", 2, PATIENCE);
    // The listing after five seconds is over when the next one is half a minute away, or more.
    wait_until("the listings of the burst", PATIENCE, || {
        next_listing(addr).is_some_and(|seconds| seconds > 20)
    });
    assert!((3..=5).contains(&polls(&daemon)), "{} listings with the first", polls(&daemon));
    assert!(next_listing(addr).is_some_and(|seconds| seconds <= 120), "{:?}", next_listing(addr));
    // A later webhook does not wait for that.
    repo.add_versions(&["1.1"]);
    let begun = Instant::now();
    send();
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    farm.assert_published(&["lib 1.0-1 noarch", "lib 1.1-1 noarch"]);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(0);
}
