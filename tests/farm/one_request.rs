//! Listings by one request: which upstreams they are for, and that they find what two requests find.

use std::sync::Arc;
use std::time::Duration;

use peipkg_manager::{Git, Interrupt, LISTING_DEADLINE, Lister, PollError, PollFault};
use rustix::process::Signal;

use crate::payloads::{self, Addresses};
use crate::support::client;
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::GitRepo;
use crate::support::optional::find_program;
use crate::support::recipes::Recipe;
use crate::support::smart_http::{ADVERTISEMENT, Fault, RESULT, SmartHttp};
use crate::support::wait::PATIENCE;

/// A pattern that matches no tag, so that nothing is built.
const NOTHING: &str = "^nothing-(.*)$";

const INFO_REFS: &str = "/info/refs?service=git-upload-pack";

/// A listing by two requests.
const TWO: &str = "GET POST";

fn lister(deadline: Duration) -> Lister {
    let git = Git::new(find_program("git").expect("git is on the PATH"), std::env::temp_dir());
    Lister::new(Arc::new(git), 1, deadline)
}

fn list(lister: &Lister, url: &str) -> Result<Vec<String>, PollError> {
    let tags = lister.list_tags(&url.parse().unwrap(), &Interrupt::new().unwrap())?;
    Ok(tags.iter().map(str::to_owned).collect())
}

/// The methods of the requests since the last call.
fn methods(http: &SmartHttp) -> String {
    let methods: Vec<_> = http.requests().into_iter().map(|request| request.method).collect();
    http.clear_log();
    methods.join(" ")
}

/// Lists `url` on `http`, and checks tags and requests.
#[track_caller]
fn check(lister: &Lister, http: &SmartHttp, url: &str, tags: &[&str], requests: &str) {
    http.clear_log();
    assert_eq!(list(lister, url).unwrap(), tags, "{url}");
    assert_eq!(methods(http), requests, "{url}");
}

fn answer(content_type: &str, body: impl Into<Vec<u8>>) -> Fault {
    Fault::Answer { content_type: content_type.to_owned(), body: body.into() }
}

fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after: None }
}

/// Answers that are no listing.
fn wrong_answers(repo: &GitRepo) -> Vec<Fault> {
    let line = format!("{} refs/tags/v9\0agent=old\n", repo.head());
    let old = format!("{:04x}{line}0000", line.len() + 4);
    let head = |kind: &str, more: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}\r\n");
    let mut faults: Vec<_> = [302, 304, 400, 401, 403, 404, 405, 411, 415, 500, 501, 503].map(status).into();
    faults.extend([
        Fault::Page,
        Fault::Redirect { to: "/other.git/git-upload-pack".to_owned() },
        answer(RESULT, ""),
        answer(RESULT, "0000"),
        answer(RESULT, "0000more"),
        answer(RESULT, "<html>"),
        answer(RESULT, old.clone()),
        answer(RESULT, format!("001e# service=git-upload-pack\n0000{old}")),
        answer(RESULT, "000eversion 1\n0000"),
        answer(RESULT, "000eversion 2\n000cls-refs\n0000"),
        answer(RESULT, "0031ERR upload-pack: not our ref, nor any other\n\n"),
        answer(RESULT, format!("003f{} refs/heads/main\n0000", repo.head())),
        answer(RESULT, format!("003d{} refs/tags/v9\n", repo.head())),
        answer("text/plain", format!("003d{} refs/tags/v9\n0000", repo.head())),
        answer(ADVERTISEMENT, format!("003d{} refs/tags/v9\n0000", repo.head())),
        // A real git that only knows the first version of its protocol.
        Fault::Old { from: "", to: "" },
        Fault::CloseAfter { bytes: 260 },
        Fault::Silent,
        Fault::Stalled { start: head("text/html", "Content-Length: 9000\r\n") + "<p>" },
        Fault::Stalled { start: head(RESULT, "Content-Encoding: gzip\r\n") },
        Fault::Endless { content_type: "text/html".to_owned(), block: b"<p>".repeat(1000) },
        Fault::Endless { content_type: RESULT.to_owned(), block: b"<p>".repeat(1000) },
    ]);
    faults
}

/// Returns the deadline of a listing. The one request gets a quarter of it. Only a fault that never ends by
/// itself uses that up, so it gets a shorter one.
fn deadline(fault: &Fault) -> Duration {
    match fault {
        Fault::Silent | Fault::Stalled { .. } => Duration::from_secs(16),
        _ => LISTING_DEADLINE,
    }
}

#[test]
fn server_has_shown_version_2_is_asked_by_one_request() {
    let http = SmartHttp::new();
    for (name, repo) in [("sha1.git", GitRepo::new()), ("sha256.git", GitRepo::sha256())] {
        let url = http.serve(name, &repo);
        let lister = lister(LISTING_DEADLINE);
        // A listing without tags looks like an answer of a server that did not understand.
        check(&lister, &http, &url, &[], TWO);
        check(&lister, &http, &url, &[], TWO);
        repo.commit(&[("a", "1")], "2026-01-01T00:00:00Z");
        repo.tag_light("v1");
        check(&lister, &http, &url, &["v1"], TWO);
        check(&lister, &http, &url, &["v1"], "POST");
        repo.tag_annotated("v2", "2026-01-02T00:00:00Z");
        check(&lister, &http, &url, &["v1", "v2"], "POST");
        repo.git(&["tag", "--delete", "v1"]);
        check(&lister, &http, &url, &["v2"], "POST");
        lister.reload();
        check(&lister, &http, &url, &["v2"], TWO);
        check(&lister, &http, &url, &["v2"], "POST");
        repo.git(&["tag", "--delete", "v2"]);
        check(&lister, &http, &url, &[], "POST GET POST");
    }
}

#[test]
fn server_answers_one_request_otherwise_is_asked_by_two_from_then_on() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1", "2"]);
    let tags = ["v1", "v2"];
    let url = http.serve("a.git", &repo);
    for fault in wrong_answers(&repo) {
        let lister = lister(deadline(&fault));
        check(&lister, &http, &url, &tags, TWO);
        check(&lister, &http, &url, &tags, "POST");
        http.fault_second_times("a.git", fault.clone(), 1);
        http.clear_log();
        assert_eq!(list(&lister, &url).expect("a listing"), tags, "{fault:?}");
        assert_eq!(methods(&http), "POST GET POST", "{fault:?}");
        check(&lister, &http, &url, &tags, TWO);
        lister.reload();
        check(&lister, &http, &url, &tags, TWO);
        check(&lister, &http, &url, &tags, "POST");
    }
}

#[test]
fn guess_is_wrong_finds_what_two_requests_find() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1", "2"]);
    let url = http.serve("a.git", &repo);
    for fault in wrong_answers(&repo) {
        let lister = lister(deadline(&fault)).guessing();
        http.fault_second_times("a.git", fault.clone(), 1);
        http.clear_log();
        assert_eq!(list(&lister, &url).expect("a listing"), ["v1", "v2"], "{fault:?}");
        assert_eq!(methods(&http), "POST GET POST", "{fault:?}");
        check(&lister, &http, &url, &["v1", "v2"], TWO);
    }
}

#[test]
fn host_asks_for_a_pause_gets_no_second_request() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    for code in [429, 503] {
        let lister = lister(LISTING_DEADLINE).guessing();
        http.fault_second_times("a.git", Fault::Status { code, retry_after: Some("90".to_owned()) }, 1);
        http.clear_log();
        let fault = PollFault::Busy { pause: Duration::from_secs(90), redirected_to: None };
        assert_eq!(list(&lister, &url).unwrap_err().fault, fault);
        assert_eq!(methods(&http), "POST");
        check(&lister, &http, &url, &["v1"], "POST");
    }
}

#[test]
fn server_was_down_is_asked_by_one_request_again() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let lister = lister(LISTING_DEADLINE);
    check(&lister, &http, &url, &["v1"], TWO);
    http.fault_times("a.git", status(500), 2);
    http.clear_log();
    list(&lister, &url).unwrap_err();
    assert_eq!(methods(&http), "POST GET");
    check(&lister, &http, &url, &["v1"], TWO);
    check(&lister, &http, &url, &["v1"], "POST");
}

#[test]
fn upstream_redirected_is_looked_for_each_time() {
    let http = SmartHttp::new();
    http.serve("a.git", &GitRepo::program(&["1"]));
    http.serve("b.git", &GitRepo::program(&["2"]));
    let url = http.url("moved.git");
    let lister = lister(LISTING_DEADLINE);
    for (target, tag) in [("a", "v1"), ("a", "v1"), ("b", "v2"), ("a", "v1")] {
        http.clear_faults();
        http.fault("moved.git", Fault::Redirect { to: format!("/{target}.git{INFO_REFS}") });
        check(&lister, &http, &url, &[tag], "GET GET POST");
    }
    // A known upstream is redirected.
    let url = http.url("a.git");
    check(&lister, &http, &url, &["v1"], TWO);
    check(&lister, &http, &url, &["v1"], "POST");
    http.fault("a.git", Fault::Redirect { to: format!("/b.git{INFO_REFS}") });
    check(&lister, &http, &url, &["v2"], "POST GET GET POST");
    check(&lister, &http, &url, &["v2"], "GET GET POST");
}

/// Lists `url` in a sweep of the real manager, and checks the number of tags and the first requests.
#[track_caller]
fn check_sweep(http: &SmartHttp, url: &str, tags: &str, requests: &str) {
    let farm = Farm::builder().with(&Recipe::program("way", url).tag_pattern(NOTHING)).build();
    http.clear_log();
    let output = farm.once();
    assert_eq!(output.assert_success().event("poll complete")["tags_seen"], tags, "{output}");
    assert_eq!(methods(http), requests, "{output}");
}

#[test]
fn sweep_asks_by_one_request_whoever_understands_it() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1", "2"]);
    check_sweep(&http, &http.serve("a.git", &repo), "2", "POST");
    let sha256 = GitRepo::sha256();
    sha256.commit(&[], "2026-01-01T00:00:00Z");
    sha256.tag_light("v1");
    check_sweep(&http, &http.serve("sha256.git", &sha256), "1", "POST GET POST");
    check_sweep(&http, &http.serve("empty.git", &GitRepo::new()), "0", "POST GET POST");
    // git lists the other servers, by at least one more request.
    http.serve("old.git", &repo);
    http.fault("old.git", Fault::Old { from: "", to: "" });
    check_sweep(&http, &http.url("old.git"), "2", "POST GET GET");
    repo.git(&["update-server-info"]);
    http.serve("files.git", &repo);
    http.fault("files.git", Fault::PlainFiles);
    check_sweep(&http, &http.url("files.git"), "2", "POST GET GET GET");
}

#[test]
fn daemon_asks_twice_and_then_once() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1"]);
    let url = http.serve("lib.git", &repo);
    let recipe = Recipe::program("lib", &url).watch("github_webhook = true").tag_pattern(r"^x(\d+)$");
    let farm = Farm::builder().http().with(&recipe).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("poll complete", PATIENCE);
    assert_eq!(methods(&http), TWO);
    repo.add_versions(&["2"]);
    let body = payloads::github_push(&Addresses::of(&url), "v2");
    let hook = || assert_eq!(client::webhook(addr, "push", SECRET, body.as_bytes()).status, 200);
    hook();
    assert_eq!(daemon.wait_events("poll complete", 2, PATIENCE)[1]["tags_seen"], "2");
    assert_eq!(methods(&http), "POST");
    // A server that has changed is asked twice from then on.
    repo.add_versions(&["3"]);
    http.fault_second_times("lib.git", answer(RESULT, "0000"), 1);
    hook();
    assert_eq!(daemon.wait_events("poll complete", 3, PATIENCE)[2]["tags_seen"], "3");
    assert_eq!(methods(&http), "POST GET POST");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
}
