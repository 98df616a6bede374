//! Plays simulated hours of uploads.

use std::time::Duration;

use crate::farm::Outcome;
use crate::farm::events::{Blame, BuildOutcome, Effect, Event, Notice, UploadOutcome};
use crate::farm::tests::{Bench, at, recipe};

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn publish_is_followed_by_an_upload_that_delays_no_build() {
    let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.event(Event::UploadOwed);
    assert_eq!(bench.seen(), ["upload"], "an upload that an earlier run owes is made at once");
    bench.tags("u", &["v1", "v2", "v3", "v4"]);
    assert_eq!(bench.seen(), ["build a@4-1"], "while the upload is running");
    bench.done();
    bench.done();
    assert_eq!(bench.seen(), ["build a@3-1", "build a@2-1"], "one upload at a time");
    bench.uploaded();
    assert_eq!(bench.seen(), ["upload"], "what was published meanwhile goes together");
    bench.upload_fails();
    assert_eq!(bench.seen(), ["not uploaded 1m"]);
    bench.done();
    assert_eq!(bench.seen(), ["build a@1-1"], "news do not shorten the wait for a remote that fails");
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.seen(), ["upload"]);
    bench.upload_fails();
    bench.sleep_until(at(MINUTE * 6));
    assert_eq!(bench.seen(), ["not uploaded 5m", "upload"]);
    bench.uploaded();
    bench.done();
    assert_eq!(bench.seen(), ["upload"]);
    bench.uploaded();
    assert!(!bench.farm.upload.is_owed && bench.farm.upload.failures == 0);
}

#[test]
fn sweep_waits_for_its_upload_but_not_for_a_retry() {
    let mut bench = Bench::uploading(true, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.done();
    assert_eq!(bench.seen(), ["build a@1-1", "upload"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.upload_fails();
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
}

#[test]
fn sweep_tries_once_to_upload_everything_it_published() {
    let mut bench = Bench::uploading(true, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.done();
    bench.upload_fails();
    bench.done();
    assert_eq!(bench.seen(), ["build a@2-1", "build a@1-1", "upload", "not uploaded once", "upload"]);
    bench.upload_fails();
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean), "but not twice");
}

#[test]
fn sweep_with_a_failed_upload_tries_again_only_at_its_end() {
    let mut bench = Bench::uploading(true, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1", "v2", "v3"]);
    bench.done();
    bench.upload_fails();
    bench.seen();
    assert_eq!(bench.farm.next_deadline(), None);
    bench.now += MINUTE * 60;
    bench.done();
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.done();
    assert_eq!(bench.seen(), ["upload"]);
}

#[test]
fn drain_uploads_what_it_published_even_if_an_upload_fails() {
    let drained = |stop_first: bool, expected: &[&str]| {
        let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
        bench.tags("u", &["v1", "v2", "v3"]);
        bench.done();
        bench.seen();
        if stop_first {
            // The upload of the first version is still running when the second one is published.
            bench.event(Event::StopRequested);
            bench.done();
            bench.upload_fails();
        } else {
            // The second version is published while the upload waits for its retry.
            bench.upload_fails();
            bench.done();
            bench.event(Event::StopRequested);
            bench.fail();
        }
        assert_eq!(bench.farm.outcome(bench.now), None);
        assert_eq!(bench.seen(), expected);
        bench.upload_fails();
        assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean), "but not twice");
    };
    drained(true, &["interrupt polls", "not uploaded 1m", "upload"]);
    let waited = ["not uploaded 1m", "build a@1-1", "interrupt polls", "upload", "failed a@1-1 1m"];
    drained(false, &waited);
}

#[test]
fn interrupted_upload_is_not_started_again() {
    let mut bench = Bench::uploading(false, vec![]);
    bench.event(Event::UploadOwed);
    bench.event(Event::StopRequested);
    bench.event(Event::AbortRequested);
    bench.event(Event::UploadFinished(UploadOutcome::Interrupted));
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Aborted));
    assert_eq!(bench.seen(), ["upload", "interrupt polls", "interrupt polls", "interrupt jobs"]);
}

#[test]
fn remote_that_fails_for_an_hour_gets_everything_in_one_upload() {
    let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
    let tags: Vec<String> = (1..=90).map(|number| format!("v{number}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    bench.tags("u", &tags);
    bench.seen();
    // A version is built each minute, and each upload fails.
    let (mut tried, mut built) = (vec![], 0);
    for minute in 1..=60 {
        bench.sleep_until(at(MINUTE * minute));
        bench.done();
        for effect in bench.seen() {
            match effect.as_str() {
                "upload" => {
                    tried.push(minute);
                    bench.upload_fails();
                }
                job if job.starts_with("build a@") => built += 1,
                failed => assert!(failed.starts_with("not uploaded"), "{failed}"),
            }
        }
    }
    assert_eq!(tried, [1, 2, 7, 22]);
    assert_eq!(built, 60, "no build has waited");
    let status = bench.farm.upload.last_error.clone();
    assert_eq!((bench.farm.upload.failures, status.as_deref()), (4, Some("no remote")));

    bench.finish(BuildOutcome::Failed { reason: "the end of the farm's work".into(), blame: Blame::Version });
    bench.seen();
    bench.sleep_until(at(MINUTE * 82));
    assert_eq!(bench.seen().iter().filter(|effect| *effect == "upload").count(), 1);
    bench.uploaded();
    assert!(
        !bench.farm.upload.is_owed && bench.farm.upload.last_error.is_none(),
        "one upload brings everything"
    );
}

#[test]
fn remote_that_fails_for_days_is_tried_each_hour() {
    let mut bench = Bench::uploading(false, vec![]);
    bench.event(Event::UploadOwed);
    let mut tried = Vec::new();
    for minute in 0..60 * 48 {
        bench.sleep_until(at(MINUTE * minute));
        if bench.seen().iter().any(|effect| effect == "upload") {
            tried.push(minute);
            bench.upload_fails();
        }
    }
    assert_eq!(tried[..6], [0, 1, 6, 21, 81, 141]);
    assert_eq!(tried.len(), 3 + 48, "{tried:?}");
}

#[test]
fn upload_after_a_failure_has_recovered() {
    let recovered = |bench: &mut Bench| {
        let is_done = |effect: Effect| match effect {
            Effect::Report(Notice::UploadComplete { recovered, .. }) => Some(recovered),
            _ => None,
        };
        bench.effects.drain(..).filter_map(is_done).collect::<Vec<_>>()
    };
    let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.done();
    bench.upload_fails();
    bench.sleep_until(bench.now + MINUTE);
    bench.uploaded();
    assert_eq!(recovered(&mut bench), [true]);
    bench.tags("u", &["v1", "v2"]);
    bench.done();
    bench.uploaded();
    assert_eq!(recovered(&mut bench), [false]);
}
