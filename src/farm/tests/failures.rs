//! Failures: their retries, and how `/status` and the log show them.

use super::*;

fn key(recipe: &str, version: &str) -> JobKey {
    JobKey { recipe: recipe.into(), version: version.parse().unwrap() }
}

#[test]
fn failed_build_between_polls_is_retried_at_its_own_time() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.seen();
    let mut failed_at = vec![];
    for _ in 0..7 {
        failed_at.push(bench.now.since_start().as_secs() / 60);
        bench.fail();
        let due = bench.farm.failures.next_retry().unwrap();
        while bench.now < due {
            // Polls go on meanwhile and must not start the retry early.
            let next = bench.farm.next_deadline().unwrap();
            bench.sleep_until(next);
            for upstream in bench.polls() {
                bench.tags(&upstream, &["v1"]);
            }
        }
        assert!(!bench.farm.flights.is_empty(), "not retried at its time");
    }
    assert_eq!(failed_at, [0, 1, 6, 21, 81, 441, 1881]);
    bench.done();
    assert!(bench.farm.failures.is_empty());
}

#[test]
fn failure_after_several_attempts_has_the_log_of_the_last() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    let begin = |bench: &mut Bench, version: &str, log: &str| {
        let key = JobKey { recipe: "a".into(), version: version.parse().unwrap() };
        bench.event(Event::LogBegun { key, log: log.into() });
    };
    begin(&mut bench, "2-1", "early");
    bench.tags("u", &["v2", "v1"]);
    let calendar = crate::farm::status::Calendar { started: std::time::UNIX_EPOCH };
    let logs = |bench: &mut Bench| {
        let reported = bench.effects.drain(..).filter_map(|effect| match effect {
            Effect::Report(Notice::BuildFailed { log, .. } | Notice::PublishFailed { log, .. }) => Some(log),
            _ => None,
        });
        let reported: Vec<_> = reported.collect();
        let status = bench.farm.status(&"farm".into(), calendar);
        let failures = status.failures.unwrap_or_default();
        (status.in_flight.and_then(|flight| flight.log), reported, failures["a@2-1"].log.clone())
    };
    begin(&mut bench, "2-1", "first");
    bench.fail();
    assert_eq!(logs(&mut bench), (None, vec![Some("first".into())], Some("first".into())));
    begin(&mut bench, "1-1", "of v1");
    assert_eq!(logs(&mut bench), (Some("of v1".into()), vec![], Some("first".into())));
    bench.done();
    bench.sleep_until(at(MINUTE));
    begin(&mut bench, "2-1", "second");
    bench.publish_fails();
    assert_eq!(logs(&mut bench), (None, vec![Some("second".into())], Some("second".into())));
    bench.sleep_until(at(MINUTE * 6));
    // A later publish has a log of its own. Without one, it does not show the log of the attempt
    // before.
    bench.publish_fails();
    assert_eq!(logs(&mut bench), (None, vec![None], None));
}

#[test]
fn failed_poll_warns_for_each_recipe_and_keeps_the_queue() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "u", &["pb"], "")]);
    bench.tags("u", &["v1"]);
    bench.seen();
    bench.sleep_until(at(HOUR));
    bench.event(Event::PollFinished { upstream: "u".into(), tags: Err(no_route()) });
    assert_eq!(bench.seen(), ["poll failed a", "poll failed b"]);
    bench.done();
    assert_eq!(bench.seen(), ["build b@1-1"], "what waits in the queue stays there");
}

#[test]
fn status_with_work_lists_waiting_and_failed_versions() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.event(Event::PollFinished { upstream: "w".into(), tags: Err(no_route()) });
    bench.fail();
    let calendar = crate::farm::status::Calendar { started: std::time::SystemTime::UNIX_EPOCH };
    let status = bench.farm.status(&"farm".into(), calendar);
    let in_flight = status.in_flight.unwrap();
    assert_eq!((&*in_flight.recipe, in_flight.version.as_str()), ("a", "1-1"));
    let failure = &status.failures.unwrap()["a@2-1"];
    assert_eq!(
        (failure.failures, failure.next_retry.to_string().as_str(), failure.stage),
        (1, "1970-01-01T00:01:00Z", "build")
    );
    assert_eq!(failure.last_error, "no compiler");
    assert!(status.queue.is_empty() && status.queue_length == 0);
    assert_eq!(status.polls.get("a").unwrap().tags_seen, Some(2));
    assert_eq!(status.polls.get("b").unwrap().error.as_deref(), Some("no route"));
    assert_eq!((status.builds_attempted, status.builds_succeeded), (2, 0));
    let tags: Vec<String> = (1..=5000).map(|number| format!("v{number}")).collect();
    bench.tags("u", &tags.iter().map(String::as_str).collect::<Vec<_>>());
    let status = bench.farm.status(&"farm".into(), calendar);
    assert_eq!(
        (status.queue.len(), status.queue_length),
        (1000, 4998),
        "all but a failed one and one in flight"
    );
}

#[test]
fn failed_version_without_its_tag_is_not_retried() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.fail();
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "")]));
    bench.tags("u", &["v2"]);
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 1m", "build a@2-1"]);
    assert!(bench.farm.failures.is_empty());
}

#[test]
fn version_whose_tag_vanishes_during_its_build_is_not_retried() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.tags("u", &["v1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["build a@2-1", "failed a@2-1 1m", "build a@1-1"]);
    bench.tags("u", &["v1"]);
    bench.done();
    assert!(bench.farm.failures.is_empty());
}

#[test]
fn first_publish_failure_after_build_failures_waits_a_minute() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    for wait in [1, 5] {
        bench.fail();
        bench.sleep_until(bench.now + MINUTE * wait);
    }
    bench.seen();
    for wait in ["1m", "5m"] {
        bench.publish_fails();
        assert_eq!(bench.seen(), [format!("unpublished a@1-1 {wait}")]);
        bench.sleep_until(bench.now + MINUTE);
        assert_eq!(bench.seen().len(), usize::from(wait == "1m"));
    }
}

#[test]
fn failed_version_that_others_published_is_forgotten_at_the_next_poll() {
    for (is_built, expected) in [(false, &[][..]), (true, &["discard a@1-1"])] {
        let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
        bench.tags("u", &["v1"]);
        if is_built {
            bench.publish_fails();
        } else {
            bench.fail();
        }
        bench.seen();
        bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
        bench.tags("u", &["v1"]);
        assert_eq!(bench.seen(), expected);
        assert!(bench.farm.failures.is_empty() && bench.farm.publishing.is_empty());
    }
}

#[test]
fn failure_is_over_once_its_version_is_published_or_given_up() {
    let start = || {
        let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
        bench.tags("u", &["v1"]);
        bench.fail();
        assert!(bench.farm.is_failing(&key("a", "1-1")));
        bench
    };
    let is_failing = |bench: &Bench| bench.farm.is_failing(&key("a", "1-1"));
    // Built, and published.
    let mut bench = start();
    bench.sleep_until(bench.now + MINUTE);
    assert!(is_failing(&bench), "it is built");
    bench.built();
    assert!(is_failing(&bench), "it is pending");
    bench.published();
    assert!(!is_failing(&bench));
    // The tag vanishes, or somebody else publishes the version.
    let mut bench = start();
    bench.tags("u", &["v2"]);
    assert!(!is_failing(&bench));
    let mut bench = start();
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    bench.tags("u", &["v1"]);
    assert!(!is_failing(&bench));
    // The recipe is mended: a poll finds out what becomes of the version.
    for (mended, is_left) in [("min_version = \"2\"", false), ("peios_revision = 2", false), ("", true)] {
        let mut bench = start();
        let mended = recipe("a", "u", &[if is_left { "pb" } else { "pa" }], mended);
        bench.event(Event::RosterLoaded(Ok(vec![mended.into()])));
        assert!(is_failing(&bench), "no poll has ended since");
        bench.tags("u", &["v1"]);
        assert_eq!(is_failing(&bench), is_left);
    }
    // The recipe is gone.
    let mut bench = start();
    bench.event(Event::RosterLoaded(Ok(Vec::new())));
    assert!(!is_failing(&bench));
}
