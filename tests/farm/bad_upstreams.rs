//! Upstreams that misbehave: each costs bounded time and memory, causes one warning with its
//! reason, and affects nothing else.

use std::time::{Duration, Instant};

use peipkg_manager::Interrupt;
use peipkg_manager::LISTING_DEADLINE;
use peipkg_manager::smart_http::{self, NativeError};
use peipkg_manager::{PollError, PollFault};

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::smart_http::{ADVERTISEMENT, Fault, RESULT, SmartHttp};
use crate::support::wait::PATIENCE;

/// A short deadline, for servers that never answer.
const SOON: Duration = Duration::from_millis(300);

fn list(url: &str, deadline: Duration) -> Result<Vec<String>, NativeError> {
    let client = smart_http::SmartHttp::new(1, deadline);
    let url = url.parse().unwrap();
    let tags = client.list_tags(&url, Instant::now(), |_| Ok(()), &Interrupt::new().unwrap())?;
    Ok(tags.iter().map(str::to_owned).collect())
}

/// A server with one good repository, `a.git`, and its URL.
fn server() -> (SmartHttp, String) {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1", "2"]));
    (http, url)
}

fn answer(content_type: &str, body: &[u8]) -> Fault {
    Fault::Answer { content_type: content_type.to_owned(), body: body.to_vec() }
}

fn endless(content_type: &str, start: &str) -> Fault {
    let block = [start.as_bytes(), &b"x".repeat(60_000 - 4)].concat();
    Fault::Endless { content_type: content_type.to_owned(), block }
}

fn native_error(reason: &str, fault: PollFault) -> NativeError {
    NativeError::Final(PollError { reason: reason.to_owned(), fault })
}

/// A failure that the host is not to blame for.
fn failed(reason: &str) -> NativeError {
    native_error(reason, PollFault::Other)
}

#[track_caller]
fn check_failed(result: &Result<Vec<String>, NativeError>, expected: &str) {
    assert_eq!(*result, Err(failed(expected)));
}

#[track_caller]
fn check_no_answer(result: &Result<Vec<String>, NativeError>, expected: &str) {
    assert_eq!(*result, Err(native_error(expected, PollFault::NoAnswer)));
}

#[track_caller]
fn check_not_understood(result: &Result<Vec<String>, NativeError>, expected: &str) {
    assert_eq!(*result, Err(NativeError::NotUnderstood(expected.to_owned())));
}

#[test]
fn listing_upstream_is_silent_times_out() {
    for fault in [Fault::Silent, Fault::Trickle { every: Duration::from_millis(20) }] {
        for second in [false, true] {
            let (http, url) = server();
            if second {
                http.fault_second("a.git", fault.clone());
            } else {
                http.fault("a.git", fault.clone());
            }
            let started = Instant::now();
            check_no_answer(&list(&url, SOON), "no complete answer within 300ms");
            let took = started.elapsed();
            assert!(took >= SOON && took < PATIENCE / 2, "{fault:?}: {took:?}");
        }
    }
    // Receiving the head at once does not restart the deadline.
    let (http, url) = server();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<p>";
    http.fault("a.git", Fault::Stalled { start: head.to_owned() });
    check_no_answer(&list(&url, SOON), "no complete answer within 300ms");
}

#[test]
fn listing_answer_is_endless_is_cut_off() {
    let (http, url) = server();
    let too_long = "the answer is longer than 32 MiB";
    // A packet of 60,000 bytes, again and again; a page that never ends; no packet at all.
    let faults = [
        endless(ADVERTISEMENT, "000eversion 2\nea60"),
        endless("text/html", "<p>"),
        endless(ADVERTISEMENT, "????"),
    ];
    for fault in faults {
        http.fault("a.git", fault);
        check_failed(&list(&url, PATIENCE), too_long);
    }
    http.clear_faults();
    http.fault_second("a.git", endless(RESULT, "ea60unborn "));
    check_failed(&list(&url, PATIENCE), too_long);
}

#[test]
fn listing_answer_is_invalid_is_left_to_git() {
    let (http, url) = server();
    let check = |fault: Fault, expected: &str| {
        http.fault("a.git", fault);
        check_not_understood(&list(&url, PATIENCE), expected);
        http.clear_faults();
    };
    let page = Err(NativeError::Page("the answer has type \"text/html; charset=utf-8\"".to_owned()));
    http.fault("a.git", Fault::Page);
    assert_eq!(list(&url, PATIENCE), page);
    http.clear_faults();
    check(Fault::Status { code: 404, retry_after: None }, "the answer has status 404");
    check(Fault::Status { code: 403, retry_after: None }, "the answer has status 403");
    check(Fault::Status { code: 304, retry_after: None }, "the answer has status 304");
    let not_understood = |body: &[u8], reason: &str| {
        check(answer(ADVERTISEMENT, body), &format!("the answer is not understood: {reason}"));
    };
    not_understood(b"<html>", "expected a packet's length in four digits, found \"<htm\"");
    not_understood(b"000eversion 2\n0009fetch0000", "the server cannot list refs");
    check_failed(
        &{
            http.fault("a.git", answer(ADVERTISEMENT, b"0012ERR no access\n"));
            list(&url, PATIENCE)
        },
        "the server says: no access",
    );
    http.clear_faults();
    http.fault_second("a.git", Fault::Page);
    assert_eq!(list(&url, PATIENCE), page);
    http.fault_second("a.git", answer(RESULT, b"0000more"));
    check_not_understood(
        &list(&url, PATIENCE),
        "the answer is not understood: more data follows its last packet",
    );
    http.fault_second("a.git", Fault::Redirect { to: "/b.git/git-upload-pack".to_owned() });
    check_not_understood(&list(&url, PATIENCE), "the answer has status 302");
}

#[test]
fn listing_answer_encoded_or_cut_off_is_not_left_to_git() {
    let (http, url) = server();
    let encoded = "the answer has the encoding \"gzip\", which was not asked for";
    for status in [200, 401, 404] {
        http.fault("a.git", Fault::Bomb { status, content_type: ADVERTISEMENT.to_owned(), mib: 1 });
        check_failed(&list(&url, PATIENCE), encoded);
    }
    http.clear_faults();
    http.fault_second("a.git", Fault::Bomb { status: 200, content_type: RESULT.to_owned(), mib: 1 });
    check_failed(&list(&url, PATIENCE), encoded);
    assert!(http.requests().iter().all(|request| request.header("accept-encoding") == Some("identity")));
    http.clear_faults();
    for body in ["", "00", "000eversion 2\n", "000eversion 2\n000cls-", "000eversion 2\n000bls-refs"] {
        http.fault("a.git", answer(ADVERTISEMENT, body.as_bytes()));
        check_failed(&list(&url, PATIENCE), "the answer ends before it is complete");
    }
    http.clear_faults();
    http.fault_second("a.git", answer(RESULT, b"003f"));
    check_failed(&list(&url, PATIENCE), "the answer ends before it is complete");
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    http.fault("a.git", Fault::Stalled { start: long });
    check_failed(&list(&url, PATIENCE), "the head of the answer is too long");
}

#[test]
fn listing_answer_breaks_off_is_an_error() {
    let (http, url) = server();
    let ended = failed("the server closed the connection before its answer was complete");
    for second in [false, true] {
        for bytes in [0, 1, 40, 120, 170, 200, 240, 280] {
            http.clear_faults();
            if second {
                http.fault_second("a.git", Fault::CloseAfter { bytes });
            } else {
                http.fault("a.git", Fault::CloseAfter { bytes });
            }
            let failure = list(&url, PATIENCE).expect_err("an answer that broke off");
            let is_error = failure == ended || matches!(failure, NativeError::NotUnderstood(_));
            assert!(is_error, "after {bytes}: {failure:?}");
        }
    }
}

#[test]
fn listing_connection_closed_meanwhile_is_replaced() {
    let (http, url) = server();
    http.fault_times("a.git", Fault::CloseAfter { bytes: 0 }, 1);
    assert_eq!(list(&url, PATIENCE).unwrap(), ["v1", "v2"]);
}

#[test]
fn listing_server_is_busy_reports_its_pause() {
    let (http, url) = server();
    for (code, retry_after, seconds, asked) in [
        (429, Some("120"), 120, " and asks for a pause of 2m0s"),
        (429, None, 60, ""),
        (500, Some("99999"), 3600, " and asks for a pause of 27h46m39s"),
        (502, Some("later"), 60, ""),
    ] {
        http.fault("a.git", Fault::Status { code, retry_after: retry_after.map(str::to_owned) });
        let busy = PollFault::Busy { pause: Duration::from_secs(seconds), redirected_to: None };
        let reason = format!("the server answered with status {code}{asked}: not today");
        assert_eq!(list(&url, PATIENCE), Err(native_error(&reason, busy)));
    }
    // A broken repository must not make the host count as down.
    http.fault("a.git", Fault::Status { code: 503, retry_after: None });
    check_failed(&list(&url, PATIENCE), "the server answered with status 503: not today");
}

#[test]
fn listing_refused_has_the_first_line_of_a_short_plain_text() {
    let check = |head: &str, body: &[u8], expected: &str| {
        let (http, url) = server();
        let start = format!("HTTP/1.1 503 No\r\n{head}Content-Length: {}\r\n\r\n", body.len());
        let start = start + std::str::from_utf8(body).unwrap();
        http.fault("a.git", Fault::Stalled { start });
        check_failed(&list(&url, PATIENCE), &format!("the server answered with status 503{expected}"));
    };
    let plain = "Content-Type: text/plain; charset=utf-8\r\n";
    check(plain, b"\r\n  down for \x1b[1mmaintenance\r\nsee there", ": down for \u{1b}[1mmaintenance");
    check("Content-Type: text/plain\r\n", b"", "");
    check("Content-Type: text/html\r\n", b"<p>words</p>", "");
    check("", b"words", "");
    check(plain, &[b'x'; 5000], "");
    check(plain, &[b'x'; 900], &format!(": {}\u{2026}{}", "x".repeat(100), "x".repeat(99)));
    check("Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", b"words", "");
}

#[test]
fn listing_redirects_are_followed_as_git_does() {
    const QUERY: &str = "info/refs?service=git-upload-pack";
    let (http, url) = server();
    let (elsewhere, there) = server();
    let check = |to: &str, expected: Result<&[&str], NativeError>| {
        http.clear_faults();
        http.clear_log();
        elsewhere.clear_log();
        http.fault("b.git", Fault::Redirect { to: to.to_owned() });
        let found = list(&http.url("b.git"), PATIENCE);
        assert_eq!(found, expected.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect()), "{to}");
        let requests = http.requests().len();
        assert!(requests <= 21, "{requests}");
    };
    let all: Result<&[&str], NativeError> = Ok(&["v1", "v2"]);
    check(&format!("{url}/{QUERY}"), all.clone());
    check(&format!("/a.git/{QUERY}"), all.clone());
    check(&format!("{}/{QUERY}", there.replace("http", "HTTP")), all.clone());
    check(&format!("{there}/{QUERY}"), all);
    let paths: Vec<String> = elsewhere.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(
        paths,
        ["/a.git/info/refs", "/a.git/git-upload-pack"],
        "the second request did not follow the redirect"
    );
    check(&format!("/b.git/{QUERY}"), Err(failed("redirected more than 20 times")));
    check("file:///etc/passwd", Err(failed("redirected to file:///etc/passwd, which is not an HTTP URL")));
    let login = format!("redirected to {there}/login, which is not an upstream's info/refs");
    check(&format!("{there}/login?token=secret"), Err(failed(&login)));
    let user = there.replace("//", "//user:pass@");
    let reason = format!("a redirect to {there}/info/refs: the URL names a user");
    check(&format!("{user}/{QUERY}"), Err(NativeError::NotUnderstood(reason)));
    check(
        "elsewhere",
        Err(NativeError::NotUnderstood("a redirect to neither a URL nor an absolute path".to_owned())),
    );
}

#[test]
fn listing_silence_behind_a_redirect_blames_only_the_silent_host() {
    let (http, url) = server();
    let (silent, there) = server();
    silent.fault("a.git", Fault::Silent);
    http.fault("a.git", Fault::Redirect { to: format!("{there}/info/refs?service=git-upload-pack") });
    check_no_answer(&list(&url, SOON), "no complete answer within 300ms");
    // Ports do not tell hosts apart, so the one that redirects is called localhost. Its own answer must
    // come in time.
    let limit = Duration::from_secs(5);
    check_failed(&list(&url.replace("127.0.0.1", "localhost"), limit), "no complete answer within 5s");
}

#[test]
fn listing_interrupted_asks_nothing_more() {
    let (http, url) = server();
    let client = smart_http::SmartHttp::new(1, LISTING_DEADLINE);
    let interrupt = Interrupt::new().unwrap();
    interrupt.trigger();
    assert_eq!(
        client.list_tags(&url.parse().unwrap(), Instant::now(), |_| Ok(()), &interrupt),
        Err(failed("the listing was interrupted"))
    );
    assert!(http.requests().is_empty());
}

#[test]
fn upstreams_bad_warn_once_each_and_the_others_are_built() {
    let faults = [
        ("page", Fault::Page),
        // git takes a page without a line end for a repository without tags.
        ("login", answer("text/html", b"<html>Please log in</html>")),
        ("gone", Fault::Status { code: 404, retry_after: None }),
        ("busy", Fault::Status { code: 503, retry_after: Some("30".to_owned()) }),
        ("loop", Fault::Redirect { to: "/loop.git/info/refs?service=git-upload-pack".to_owned() }),
        ("file", Fault::Redirect { to: "file:///etc/passwd".to_owned() }),
        ("short", Fault::CloseAfter { bytes: 250 }),
        ("none", answer(ADVERTISEMENT, b"zzzz")),
        ("endless", endless(ADVERTISEMENT, "000eversion 2\nea60")),
    ];
    let expected = [
        ("page", "git ls-remote"),
        ("login", "the answer has type \"text/html\", and git finds no tags in it"),
        ("gone", "git ls-remote"),
        ("busy", "the server answered with status 503 and asks for a pause of 30s: not today"),
        ("loop", "redirected more than 20 times"),
        ("file", "redirected to file:///etc/passwd"),
        ("short", "closed the connection"),
        ("none", "git ls-remote"),
        ("endless", "longer than 32 MiB"),
    ];
    let (_http, url) = server();
    let mut servers = Vec::new();
    let mut farm = Farm::builder().with(&Recipe::program("good", &url)).with(&Recipe::program("zest", &url));
    for (name, fault) in faults {
        let http = SmartHttp::new();
        let mut url = http.serve(&format!("{name}.git"), &GitRepo::program(&["1"]));
        if name == "busy" {
            // Retry-After pauses the whole host, so give this upstream a host of its own.
            url = url.replace("127.0.0.1", "localhost");
        }
        http.fault(&format!("{name}.git"), fault);
        farm = farm.with(&Recipe::program(name, &url));
        servers.push(http);
    }
    let farm = farm.build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let warnings = output.events("poll failed");
    assert_eq!(warnings.len(), expected.len(), "{output}");
    for (name, reason) in expected {
        let warning = warnings.iter().find(|warning| warning["recipe"] == name);
        let warning = warning.unwrap_or_else(|| panic!("no warning for {name}\n{output}"));
        assert!(warning["level"] == "warn" && warning["error"].contains(reason), "{name}: {warning:?}");
    }
    farm.assert_published(&["good 1-1 noarch", "good 2-1 noarch", "zest 1-1 noarch", "zest 2-1 noarch"]);
}

#[test]
fn upstreams_silent_or_slow_time_out_after_a_minute_and_delay_no_other() {
    let (_http, url) = server();
    let mut servers = Vec::new();
    let mut farm = Farm::builder().with(&Recipe::program("good", &url)).with(&Recipe::program("zest", &url));
    let slow = Fault::Trickle { every: Duration::from_secs(1) };
    for (name, fault) in [("silent", Fault::Silent), ("slow", slow)] {
        let http = SmartHttp::new();
        let url = http.serve(&format!("{name}.git"), &GitRepo::program(&["1"]));
        http.fault("", fault);
        farm = farm.with(&Recipe::program(name, &url));
        servers.push(http);
    }
    let farm = farm.build();
    let begun = Instant::now();
    let output = farm.start(&["--once"]).wait_exit(LISTING_DEADLINE * 2);
    let took = begun.elapsed();
    output.assert_success().assert_only_events();
    let warnings = output.events("poll failed");
    assert_eq!(warnings.len(), 2, "{output}");
    for warning in warnings {
        assert_eq!(warning["error"], "no complete answer within 1m0s", "{output}");
    }
    assert!(took < LISTING_DEADLINE + PATIENCE / 2, "{took:?}");
    farm.assert_published(&["good 1-1 noarch", "good 2-1 noarch", "zest 1-1 noarch", "zest 2-1 noarch"]);
}
