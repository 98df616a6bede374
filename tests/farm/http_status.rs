//! `/status`: its fields, and that it shows no secret.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::client::{get, status};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::{PATIENCE, wait_until};

/// Waits until `/status` meets `condition`.
#[track_caller]
fn wait_status(addr: SocketAddr, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    wait_until(what, PATIENCE, || {
        found = status(addr);
        condition(&found)
    });
    found
}

/// Whether `value` has the form `2026-05-07T14:32:11Z`.
fn is_time(value: &Value) -> bool {
    let form = "dddd-dd-ddTdd:dd:ddZ";
    let fits = |(c, f): (char, char)| if f == 'd' { c.is_ascii_digit() } else { c == f };
    value.as_str().is_some_and(|text| text.len() == form.len() && text.chars().zip(form.chars()).all(fits))
}

#[test]
fn status_of_an_empty_farm_has_all_fields() {
    let farm = Farm::builder().http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let mut found = status(addr);
    assert!(is_time(&found["started_at"].take()));
    assert!(found["version"].take().is_string());
    let expected = json!({
        "farm_id": "test-farm", "recipes": [], "builds_attempted": 0, "builds_succeeded": 0, "in_flight": null, "failures": null,
        "version": null, "started_at": null, "queue": [], "queue_length": 0, "builds": [], "publishes": [], "polls": {}, "upload": null,
        "upload_state": "not configured", "last_upload": null, "draining": false, "paused_since": null, "held": [], "held_length": 0,
        "reload_refused": null, "warnings": [], "warnings_length": 0, "notifications": null,
        "webhooks": { "last_received": null, "last_matched": null, "unmatched": 0, "last_unmatched": null, "received": 0, "matched": 0, "unusable": 0, "refused": 0, "last_refused": null },
    });
    assert_eq!(found, expected);
}

#[test]
fn status_shows_the_build_the_queue_and_the_polls() {
    let (http, latch) = (SmartHttp::new(), Latch::new());
    let url = http.serve("lib.git", &GitRepo::program(&["1", "2", "3"]));
    let lib = Recipe::program("lib", &url).before_build(&latch.script());
    let gone = Recipe::program("gone", &http.url("gone.git"));
    let farm = Farm::builder().http().with(&lib).with(&gone).with(&Recipe::manual("by-hand")).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    let found = wait_status(addr, "both are polled", |found| {
        let polled = |id: &str| !found["polls"][id]["last_poll"].is_null();
        polled("lib") && polled("gone")
    });
    assert_eq!(found["recipes"], json!(["by-hand", "gone", "lib"]));
    assert_eq!((&found["builds_attempted"], &found["builds_succeeded"]), (&json!(1), &json!(0)));
    let flight = &found["in_flight"];
    assert_eq!((&flight["recipe"], &flight["version"]), (&json!("lib"), &json!("3-1")));
    assert!(is_time(&flight["started_at"]), "{flight}");
    let queued = |version: &str| json!({"recipe": "lib", "version": version, "reason": "poll"});
    assert_eq!(found["queue"], json!([queued("2-1"), queued("1-1")]));
    let (lib, gone) = (&found["polls"]["lib"], &found["polls"]["gone"]);
    assert_eq!((&lib["tags_seen"], &lib["error"]), (&json!(3), &Value::Null));
    assert_eq!(gone["tags_seen"], Value::Null);
    assert!(gone["error"].as_str().is_some_and(|error| !error.is_empty() && !error.contains('\n')), "{gone}");
    assert!(
        [lib, gone].iter().all(|poll| is_time(&poll["last_poll"]) && is_time(&poll["next_poll"])),
        "{found}"
    );
    assert!(found["polls"]["by-hand"].is_null(), "a recipe without upstream has a poll");
    latch.open();
    let found = wait_status(addr, "all three versions are built", |found| found["builds_succeeded"] == 3);
    assert_eq!(
        (&found["builds_attempted"], &found["in_flight"], &found["queue"]),
        (&json!(3), &Value::Null, &json!([]))
    );
}

#[test]
fn status_shows_failures_with_reason_and_next_try() {
    let repo = GitRepo::program(&["1"]);
    let recipe = Recipe::failing("broken", &repo.file_url());
    let farm = Farm::builder().http().with(&recipe).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let event = daemon.wait_event("build failed", PATIENCE);
    let found = wait_status(addr, "the failure", |found| !found["failures"].is_null());
    let failures = found["failures"].as_object().unwrap();
    assert_eq!(failures.keys().collect::<Vec<_>>(), ["broken@1-1"]);
    let failure = &failures["broken@1-1"];
    assert_eq!((&failure["failures"], &failure["stage"]), (&json!(1), &json!("build")));
    assert!(is_time(&failure["next_retry"]), "{failure}");
    assert_eq!(failure["last_error"], event["error"].as_str());
    assert!(event["error"].contains("build.sh failed: exit status: 7"), "{event:?}");
    assert_eq!((&found["builds_attempted"], &found["builds_succeeded"]), (&json!(1), &json!(0)));
    assert_eq!(found["queue"], json!([]), "a version before its retry time is in the queue");
}

#[test]
fn status_shows_failed_publishes_and_uploads_apart() {
    let repo = GitRepo::program(&["1", "2"]);
    let fails = "#!/bin/sh\necho 'the remote is away' >&2\nexit 1\n";
    // The first publish fails, the second succeeds.
    let publish = "#!/bin/sh\nif [ \"$1\" = publish ] && [ ! -e \"$HOME/failed\" ]; then : > \"$HOME/failed\"; echo 'no publish today' >&2; exit 1; fi\nexec {real} \"$@\"\n";
    let farm = Farm::builder()
        .http()
        .with(&Recipe::program("app", &repo.file_url()))
        .rclone("/nowhere".as_ref())
        .program("rclone", fails)
        .program("peipkg-repo", publish)
        .build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("upload failed", PATIENCE);
    let found =
        wait_status(addr, "both", |found| found["upload"]["failures"] == 1 && found["in_flight"].is_null());
    let failure = &found["failures"]["app@2-1"];
    assert_eq!((&failure["failures"], &failure["stage"]), (&json!(1), &json!("publish")));
    assert!(failure["last_error"].as_str().unwrap().contains("no publish today"), "{failure}");
    assert!(found["upload"]["last_error"].as_str().unwrap().contains("the remote is away"), "{found}");
    assert!(is_time(&found["upload"]["next_try"]), "{found}");
    assert_eq!(found["builds_succeeded"], 1);
}

#[test]
fn status_and_log_show_no_secret() {
    let http = SmartHttp::new();
    http.require_auth("joe", "hunter2");
    let repo = GitRepo::program(&["1"]);
    http.serve("lib.git", &repo);
    let with = |password: &str, name: &str| http.url(name).replace("//", &format!("//joe:{password}@"));
    let farm = Farm::builder()
        .http()
        .with(
            &Recipe::program("lib", &with("hunter2", "lib.git"))
                .before_build("echo 'failed as planned' >&2\nexit 1"),
        )
        .with(&Recipe::program("wrong", &with("swordfish", "lib.git")))
        .with(&Recipe::program("missing", &with("hunter2", "missing.git")))
        .build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("poll failed", 2, PATIENCE);
    daemon.wait_event("build failed", PATIENCE);
    let found = wait_status(addr, "all have ended", |found| !found["failures"].is_null());
    let shown = get(addr, "/status").text();
    assert!(
        found["polls"]["wrong"]["error"].is_string() && found["polls"]["missing"]["error"].is_string(),
        "{shown}"
    );
    let log = daemon.stderr();
    let key = farm.key_path().display().to_string();
    for secret in ["hunter2", "swordfish", SECRET, "webhook-secret", &key] {
        assert!(!shown.contains(secret), "{secret:?} in {shown}");
        assert!(!log.contains(secret), "{secret:?} in {log}");
    }
}
