//! Holds in the ledger and in a farm: which upstreams and recipes, and how long.

use super::*;
use crate::farm::events::{Event, Hold};
use crate::farm::ledger::{LONGEST_HOLD, Ledger};
use crate::farm::tests::{Bench, at, recipe};

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn holds_grow_with_each_failure_and_end_with_a_success() {
    let mut ledger = Ledger::default();
    let mut now = Moment::ZERO;
    assert_eq!(ledger.failed(&"u", Duration::from_secs(9), true, now), None, "it kept nobody waiting");
    let mut holds = Vec::new();
    for _ in 0..7 {
        let Some(Hold::For(hold)) = ledger.failed(&"u", MINUTE, true, now) else { panic!("no hold") };
        holds.push(hold.as_secs());
        ledger.end_due(now + hold / 2);
        assert_eq!(ledger.ends().map(|(_, end)| end).collect::<Vec<_>>(), [now + hold]);
        assert!(ledger.holds(&"u"));
        now += hold;
        ledger.end_due(now);
        assert!(!ledger.holds(&"u") && ledger.ends().count() == 0);
    }
    assert_eq!(holds, [30, 150, 450, 1800, 10_800, 10_800, 10_800]);
    let long = ledger.failed(&"long", MINUTE * 60 * 24, true, now);
    assert_eq!(long, Some(Hold::For(MINUTE * 60 * 12)), "a third of the time is enough");
    ledger.failed(&"u", MINUTE, true, now);
    assert!(ledger.holds(&"u") && !ledger.holds(&"w"));
    ledger.release(&"u");
    assert!(!ledger.holds(&"u"));
    assert_eq!(ledger.failed(&"u", MINUTE, true, now), Some(Hold::For(MINUTE / 2)), "all is forgiven");
}

#[test]
fn single_sweep_holds_once_its_patience_is_spent() {
    let (mut ledger, now) = (Ledger::default(), Moment::ZERO);
    for _ in 0..9 {
        assert_eq!(ledger.failed(&"u", MINUTE, false, now), None);
        assert!(!ledger.holds(&"u"));
    }
    assert_eq!(ledger.failed(&"u", MINUTE, false, now), Some(Hold::ThisSweep));
    ledger.end_due(at(MINUTE * 6000));
    assert!(ledger.holds(&"u") && ledger.ends().count() == 0, "nothing is waited for");
}

/// Returns a farm with two versions of `b` and three of `a`, whose fetch has just failed after a
/// minute.
fn with_hanging_fetch(once: bool) -> Bench {
    let hooked = "[watch]\ngithub_webhook = true\n";
    let recipes = vec![recipe("a", "https://h/u", &["pa"], hooked), recipe("b", "w", &["pb"], "")];
    let mut bench = Bench::new(once, recipes);
    bench.tags("https://h/u", &["v1", "v2", "v3"]);
    bench.tags("w", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build a@3-1"]);
    hang(&mut bench, MINUTE);
    bench
}

fn hang(bench: &mut Bench, took: Duration) {
    bench.now += took;
    bench.finish(JobOutcome::Failed { reason: "no answer".into(), blame: Blame::Upstream });
}

#[test]
fn upstream_whose_fetches_hang_leaves_the_builder_to_others() {
    let mut bench = with_hanging_fetch(false);
    assert_eq!(bench.seen(), ["failed a@3-1 1m", "held 2 of https://h/u", "build b@2-1"]);
    bench.finish(JobOutcome::Done);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["build b@1-1"], "nothing else may be built");
    // An untried version goes before the failed one, whose retry has its own time.
    bench.sleep_until(bench.now + MINUTE / 2);
    assert_eq!(bench.seen(), ["build a@2-1"]);
    hang(&mut bench, MINUTE);
    assert_eq!(bench.seen(), ["failed a@2-1 1m", "held 1 of https://h/u", "build a@3-1"]);
    bench.finish(JobOutcome::Failed { reason: "no compiler".into(), blame: Blame::Version });
    assert_eq!(bench.seen(), ["failed a@3-1 5m", "build a@1-1"], "the sources come again");
}

#[test]
fn urgent_version_is_not_held() {
    let mut bench = with_hanging_fetch(false);
    bench.finish(JobOutcome::Done);
    bench.finish(JobOutcome::Done);
    bench.seen();
    bench.event(Event::WebhookReceived { repositories: vec!["h/u".into()] });
    bench.tags("https://h/u", &["v1", "v2", "v3", "v4"]);
    assert_eq!(bench.seen(), ["build a@4-1"]);
}

#[test]
fn urgent_versions_whose_fetch_hangs_lose_their_urgency() {
    let mut bench = with_hanging_fetch(false);
    bench.event(Event::WebhookReceived { repositories: vec!["h/u".into()] });
    bench.tags("https://h/u", &["v1", "v2", "v3", "v4", "v5", "v6"]);
    bench.finish(JobOutcome::Done);
    bench.seen();
    hang(&mut bench, MINUTE);
    assert_eq!(bench.seen(), ["failed a@6-1 1m", "held 4 of https://h/u", "build b@1-1"]);
}

#[test]
fn retries_that_hang_do_not_hold_untried_versions_for_long() {
    let mut bench = with_hanging_fetch(false);
    let mut tags: Vec<String> = (1..=30).map(|number| format!("v{number}")).collect();
    let poll = |bench: &mut Bench, tags: &[String]| {
        let tags = Ok(tags.to_vec());
        bench.event(Event::PollFinished { upstream: "https://h/u".into(), tags });
    };
    poll(&mut bench, &tags);
    bench.finish(JobOutcome::Done);
    bench.finish(JobOutcome::Done);
    // Each fetch hangs, until `version` is built or `until` has come.
    let run = |bench: &mut Bench, version: &str, until: Moment| {
        while bench.now < until {
            let seen = bench.seen();
            if seen.contains(&format!("build {version}")) {
                break;
            }
            if seen.iter().any(|line| line.starts_with("build ")) {
                hang(bench, MINUTE);
            } else {
                bench.now = bench.farm.next_deadline().expect("a retry");
                bench.event(Event::DeadlineReached);
            }
        }
        bench.now
    };
    run(&mut bench, "none", at(MINUTE * 60 * 24 * 10));
    tags.push("v31".into());
    poll(&mut bench, &tags);
    let told = bench.now;
    let waited = run(&mut bench, "a@31-1", told + LONGEST_HOLD * 10).saturating_since(told);
    assert!(waited <= LONGEST_HOLD, "{waited:?}");
}

#[test]
fn changed_recipe_ends_the_hold_of_its_upstream() {
    let mut bench = with_hanging_fetch(false);
    bench.finish(JobOutcome::Done);
    bench.finish(JobOutcome::Done);
    bench.seen();
    let recipes = |stamp| {
        let changed = crate::recipe::Recipe { stamp, ..recipe("a", "https://h/u", &["pa"], "") };
        Event::RosterLoaded(Ok(vec![changed, recipe("b", "w", &["pb"], "")]))
    };
    bench.event(recipes(0));
    assert!(bench.seen().is_empty(), "nothing has changed");
    bench.event(recipes(1));
    assert_eq!(bench.seen(), ["build a@3-1"]);
}

#[test]
fn recipe_changed_during_its_build_is_not_held() {
    let mut bench = with_hanging_fetch(false);
    bench.finish(JobOutcome::Done);
    bench.finish(JobOutcome::Done);
    bench.sleep_until(bench.now + MINUTE / 2);
    let changed = crate::recipe::Recipe { stamp: 1, ..recipe("a", "https://h/moved", &["pa"], "") };
    bench.event(Event::RosterLoaded(Ok(vec![changed, recipe("b", "w", &["pb"], "")])));
    bench.tags("https://h/moved", &["v1", "v2"]);
    bench.seen();
    bench.now += MINUTE * 60 * 24;
    bench.finish(JobOutcome::Failed { reason: "no end".into(), blame: Blame::Recipe });
    assert_eq!(bench.seen(), ["failed a@2-1 0m", "build a@1-1"]);
}

#[test]
fn single_sweep_ends_without_the_held_versions() {
    let mut bench = with_hanging_fetch(true);
    assert_eq!(bench.seen(), ["failed a@3-1 1m", "build a@2-1"], "one failure is no reason to give up");
    hang(&mut bench, MINUTE * 9);
    // The first failed version is due, but not retried either.
    assert_eq!(bench.seen(), ["failed a@2-1 1m", "held 1 of https://h/u", "build b@2-1"]);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["build b@1-1"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.finish(JobOutcome::Done);
    assert!(bench.seen().is_empty() && bench.farm.outcome(bench.now).is_some());
}

#[test]
fn recipe_whose_builds_time_out_leaves_the_builder_to_others() {
    let recipes = vec![recipe("a", "u", &["pa"], ""), recipe("b", "u", &["pb"], "min_version = '2'\n")];
    let mut bench = Bench::new(false, recipes);
    bench.tags("u", &["v1", "v2", "v3"]);
    assert_eq!(bench.seen(), ["build a@3-1"]);
    bench.now += MINUTE * 60 * 24;
    bench.finish(JobOutcome::Failed { reason: "no end".into(), blame: Blame::Recipe });
    assert_eq!(bench.seen(), ["failed a@3-1 1m", "held 2 of a", "build b@3-1"], "they share the upstream");
    bench.finish(JobOutcome::Done);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["build b@2-1"]);
    bench.sleep_until(bench.now + MINUTE);
    assert_eq!(bench.seen(), ["build a@3-1"], "a retry has its own time");
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["build a@2-1"]);
}
