//! Pending outputs: built and not yet published.

use super::*;

#[test]
fn failed_publish_keeps_its_outputs_and_delays_no_build() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1"]);
    bench.tags("w", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
    let pending = outputs("a", "1-1", &["pa"]);
    bench.finish(JobOutcome::PublishFailed { reason: "refused".into(), outputs: pending.clone() });
    assert_eq!(bench.seen(), ["unpublished a@1-1 1m", "build b@1-1"]);
    bench.finish(JobOutcome::Done);
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.seen(), ["publish a@1-1"], "without another build");
    bench.finish(JobOutcome::PublishFailed { reason: "refused".into(), outputs: pending });
    assert_eq!(bench.seen(), ["unpublished a@1-1 5m"]);
    bench.sleep_until(at(MINUTE * 6));
    assert_eq!(bench.seen(), ["publish a@1-1"]);
    bench.finish(JobOutcome::Done);
    assert!(bench.farm.failures.is_empty() && bench.farm.pending.is_empty());
}

#[test]
fn removed_outputs_are_built_again() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    let pending = outputs("a", "1-1", &["pa"]);
    bench.finish(JobOutcome::PublishFailed { reason: "garbage".into(), outputs: pending });
    bench.seen();
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.seen(), ["publish a@1-1"]);
    bench.finish(JobOutcome::OutputsGone);
    assert!(bench.farm.failures.is_empty() && bench.farm.pending.is_empty());
    let effects = std::mem::take(&mut bench.effects);
    let is_poll = |effect: &Effect| matches!(effect, Effect::StartPoll(upstream) if *upstream == "u".into());
    assert!(effects.iter().any(is_poll), "it is polled long before its time: {effects:?}");
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.finish(JobOutcome::Done);

    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::OutputsFound(vec![outputs("dropped", "1-1", &["pd"])]));
    bench.finish(JobOutcome::OutputsGone);
    assert_eq!(bench.seen(), ["publish dropped@1-1", "gone dropped@1-1"]);
    assert_eq!(bench.farm.next_deadline(), None);
}

#[test]
fn outputs_of_an_earlier_run_are_published_first() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["pa"], "")]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1"), ("pa", "2-1")]))));
    let found = [("a", "1-1", "pa"), ("gone", "2-1", "pa"), ("a", "3-1", "pa")];
    bench.event(Event::OutputsFound(found.iter().map(|(id, v, p)| outputs(id, v, &[p])).collect()));
    assert_eq!(bench.seen(), ["discard a@1-1", "discard gone@2-1", "publish a@3-1"]);
    bench.tags("u", &["v1", "v2", "v3"]);
    bench.finish(JobOutcome::Done);
    assert!(bench.seen().is_empty());
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
}

#[test]
fn partly_published_outputs_are_left_to_a_person() {
    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    let both = |version| outputs("a", version, &["pa", "pb"]);
    bench.event(Event::OutputsFound(vec![both("1-1"), both("2-1")]));
    assert_eq!(bench.seen(), ["partly published a@1-1", "publish a@2-1"]);
    bench.finish(JobOutcome::PublishFailed { reason: "full".into(), outputs: both("2-1") });
    // Somebody else published one of their packages meanwhile.
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1"), ("pa", "2-1")]))));
    bench.sleep_until(at(HOUR));
    assert_eq!(bench.seen(), ["unpublished a@2-1 1m", "partly published a@2-1"]);
    assert!(bench.farm.failures.is_empty() && bench.farm.next_deadline().is_none());
}

#[test]
fn publish_that_succeeded_in_spite_of_its_error_is_not_repeated() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    let pending = outputs("a", "1-1", &["pa"]);
    bench.finish(JobOutcome::PublishFailed { reason: "killed".into(), outputs: pending });
    bench.seen();
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.seen(), ["discard a@1-1"]);
    assert!(bench.farm.in_flight.is_none() && bench.farm.failures.is_empty());
}

#[test]
fn outputs_found_published_are_uploaded() {
    let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.finish(JobOutcome::PublishFailed {
        reason: "no verify".into(),
        outputs: outputs("a", "1-1", &["pa"]),
    });
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    let uploads = |bench: &Bench| bench.effects.iter().filter(|e| matches!(e, Effect::StartUpload)).count();
    assert_eq!(uploads(&bench), 0);
    bench.sleep_until(at(MINUTE));
    assert_eq!(uploads(&bench), 1);
    assert!(bench.farm.pending.is_empty());
}
