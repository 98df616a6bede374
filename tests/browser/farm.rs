//! The manager's page in a real browser: what a farm in trouble shows, and that foreign text is text.

use std::net::SocketAddr;

use serde_json::json;

use crate::appearance::{CONTRAST, OVERFLOW};
use crate::support::client::{get, request, status};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, wait_until};
use crate::support::webdriver::Browser;

/// Text that would run as HTML, as an attribute, or as a style.
const EVIL: &str = "</pre></style><script>window.pwned=1</script><img src=x onerror=window.pwned=2><svg onload=window.pwned=3>";

/// A farm with a failed version, a build in progress, one that waits, a pattern that matches nothing and
/// an upstream that is gone.
fn busy(latch: &Latch) -> (Farm, Running, SocketAddr) {
    let (lib, app) = (GitRepo::program(&["1", "2"]), GitRepo::program(&["7"]));
    app.git(&["tag", "x<b>&'", "v7"]);
    let evil = format!("cat <<'END' >&2\nchecking\n{EVIL}\nEND\nexit 3");
    let farm = Farm::builder()
        .http()
        .with(&Recipe::program("lib", &lib.file_url()).before_build(&latch.script()))
        .with(&Recipe::program("app", &app.file_url()).build_sh(&evil))
        .with(&Recipe::program("odd", &app.file_url()).tag_pattern("^x(.*)$"))
        .with(&Recipe::program("gone", "file:///nowhere/at/all"))
        .with(&Recipe::manual("by-hand"))
        .build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    daemon.wait_event("poll failed", PATIENCE);
    wait_until("the failure", PATIENCE, || {
        // Either recipe may be the first.
        status(addr)["failures"].is_object() || {
            latch.open();
            false
        }
    });
    (farm, daemon, addr)
}

#[test]
fn page_shows_failures_first_and_runs_nothing() {
    let Some(browser) = Browser::start() else { return };
    let latch = Latch::new();
    let (_farm, _daemon, addr) = busy(&latch);
    browser.open(&format!("http://{addr}/"));
    let page = browser.text("body");
    for part in [
        "test-farm",
        "1 version failed",
        "app 7-1",
        "exit status: 3",
        "next try in",
        EVIL,
        "tag skipped",
        "odd x<b>&'",
        "/nowhere/at/all",
        "by-hand",
        "No remote is configured",
        "0 received",
    ] {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    let headings = browser.eval("[...document.querySelectorAll('h2')].map((one) => one.innerText)[0]");
    assert_eq!(headings, "Failed");
    let foreign = "[...document.querySelectorAll('script, img, svg, iframe, b, form, object')].length + (window.pwned || 0)";
    assert_eq!(browser.eval(foreign), 0);
    // The policy admits the page's style.
    assert_eq!(browser.eval("getComputedStyle(document.body).maxWidth"), "896px");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn page_is_readable_in_light_and_dark_at_every_width() {
    let Some(browser) = Browser::start() else { return };
    let latch = Latch::new();
    let (_farm, _daemon, addr) = busy(&latch);
    for (width, height) in [(320, 640), (390, 844), (1280, 900)] {
        for (scheme, is_dark) in [("light", false), ("dark", true)] {
            browser.look(width, height, scheme);
            browser.open(&format!("http://{addr}/"));
            let place = format!("{width} {scheme}");
            let back =
                browser.eval("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[1]");
            assert_eq!(back.as_u64().expect("a number") < 128, is_dark, "{place}");
            let contrast = browser.eval(CONTRAST);
            assert!(contrast[0].as_f64().expect("a number") >= 4.5, "{place}: {contrast}");
            assert_eq!(browser.eval(OVERFLOW), 0, "{place}");
        }
    }
}

#[test]
fn page_without_javascript_loads_itself_again_and_pages() {
    let Some(browser) = Browser::without_javascript() else { return };
    let repo = GitRepo::program(&["1"]);
    let mut builder = Farm::builder().http();
    for number in 0..401 {
        let recipe = Recipe::program(&format!("r{number:03}"), &repo.file_url()).upstream("paused = true");
        builder = builder.with(&recipe);
    }
    let farm = builder.build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("poll complete", 401, PATIENCE);
    browser.open(&format!("http://{addr}/"));
    assert_eq!(browser.eval("document.querySelector('meta[http-equiv=refresh]').content"), "30");
    let ids = "[...document.querySelectorAll('tr td:first-child')].map((one) => one.innerText)";
    assert_eq!(browser.eval(ids).as_array().unwrap().len(), 200);
    assert!(get(addr, "/").body.len() <= 30_000);
    browser.click("nav a");
    browser.wait("location.search === '?page=2'");
    assert_eq!(browser.eval(ids)[0], "r200");
    browser.eval("[...document.querySelectorAll('nav a')].find((one) => one.innerText === 'Last').click()");
    browser.wait("location.search === '?page=3'");
    assert_eq!(browser.eval(ids), json!(["r400"]));
    browser.eval("[...document.querySelectorAll('nav a')].find((one) => one.innerText === 'First').click()");
    browser.wait("location.search === '?page=1'");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn page_has_a_policy_and_links_that_work_below_any_path() {
    let farm = Farm::builder().http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let page = get(addr, "/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    for link in
        page.text().split("href=").skip(1).map(|rest| rest.split(['>', ' ']).next().unwrap().to_owned())
    {
        let link = link.trim_matches('"');
        assert!(!link.starts_with('/') && !link.contains(':'), "{link}");
        assert_eq!(request(addr, "HEAD", &format!("/{link}"), &[], b"").status, 200, "{link}");
    }
}
