//! Pauses of the farm and of one recipe, and retries that a person asks for.

use super::*;

fn paused(id: &str, upstream: &str, package: &str, stamp: u64) -> Recipe {
    Recipe { stamp, ..recipe(id, upstream, &[package], "paused = true") }
}

fn stamped(id: &str, upstream: &str, package: &str, stamp: u64) -> Recipe {
    Recipe { stamp, ..recipe(id, upstream, &[package], "") }
}

#[test]
fn paused_farm_polls_and_publishes_but_starts_no_build() {
    let mut bench =
        Bench::uploading(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.event(Event::PauseFound(true));
    bench.event(Event::PauseFound(true));
    bench.done();
    bench.tags("w", &["v1"]);
    assert_eq!(bench.seen(), ["build a@2-1", "paused", "upload"], "what ran is published and uploaded");
    assert_eq!(bench.farm.queue.len(), 2, "polls go on, and what they find waits");
    bench.uploaded();
    bench.sleep_until(at(HOUR));
    bench.event(Event::PauseFound(false));
    assert_eq!(bench.seen(), ["resumed", "build a@1-1"]);
}

#[test]
fn paused_farm_sleeps_through_due_retries_and_retries_afterwards() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.fail();
    bench.event(Event::PauseFound(true));
    bench.seen();
    // `sleep_until` fails if the farm does not sleep.
    bench.sleep_until(at(MINUTE * 30));
    assert!(bench.seen().is_empty());
    bench.event(Event::PauseFound(false));
    assert_eq!(bench.seen(), ["resumed", "build a@1-1"]);
}

#[test]
fn paused_sweep_polls_publishes_what_is_pending_and_ends() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.event(Event::PauseFound(true));
    bench.event(Event::OutputsFound(vec![outputs("b", "1-1", &["pb"])]));
    bench.tags("u", &["v1"]);
    bench.tags("w", &["v1"]);
    assert_eq!(bench.farm.outcome(bench.now), None, "a publish runs");
    bench.published();
    assert_eq!(bench.seen(), ["paused", "publish b@1-1"]);
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
}

#[test]
fn paused_recipe_is_polled_and_builds_all_of_its_versions_afterwards() {
    let mut bench = Bench::new(false, vec![paused("a", "u", "pa", 1), recipe("b", "w", &["pb"], "")]);
    assert_eq!(bench.seen(), ["paused a"]);
    bench.tags("u", &["v1", "v2"]);
    bench.tags("w", &["v1"]);
    assert_eq!(bench.seen(), ["build b@1-1"]);
    assert_eq!(bench.farm.queue.len(), 0);
    bench.event(loaded(vec![paused("a", "u", "pa", 1), recipe("b", "w", &["pb"], "")]));
    bench.tags("u", &["v1", "v2"]);
    bench.done();
    assert!(bench.seen().is_empty(), "said once, and nothing built");
    bench.event(loaded(vec![stamped("a", "u", "pa", 2), recipe("b", "w", &["pb"], "")]));
    bench.tags("u", &["v1", "v2"]);
    bench.done();
    assert_eq!(bench.seen(), ["build a@2-1", "build a@1-1"]);
}

#[test]
fn recipe_that_is_paused_leaves_the_queue_and_its_retries_wait() {
    let mut bench = Bench::new(false, vec![stamped("a", "u", "pa", 1)]);
    bench.tags("u", &["v1", "v2", "v3"]);
    bench.fail();
    assert_eq!(bench.seen(), ["build a@3-1", "failed a@3-1 1m", "build a@2-1"]);
    bench.event(loaded(vec![paused("a", "u", "pa", 2)]));
    bench.tags("u", &["v1", "v2", "v3"]);
    bench.done();
    assert_eq!(bench.seen(), ["paused a"], "the build in progress is finished, no other starts");
    bench.sleep_until(at(MINUTE * 50));
    assert!(bench.seen().is_empty());
    bench.event(loaded(vec![stamped("a", "u", "pa", 3)]));
    bench.tags("u", &["v1", "v2", "v3"]);
    bench.done();
    let seen = bench.seen();
    assert!(seen == ["build a@3-1", "build a@1-1"] || seen == ["build a@1-1", "build a@3-1"], "{seen:?}");
}

#[test]
fn touched_recipe_retries_failed_builds_and_publishes_at_once() {
    let mut bench = Bench::new(false, vec![stamped("a", "u", "pa", 1), stamped("b", "w", "pb", 1)]);
    bench.tags("u", &["v1"]);
    bench.tags("w", &["v1"]);
    bench.fail();
    bench.publish_fails();
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 1m", "build b@1-1", "unpublished b@1-1 1m"]);
    bench.event(loaded(vec![stamped("a", "u", "pa", 1), stamped("b", "w", "pb", 1)]));
    assert!(bench.seen().is_empty(), "nothing was touched");
    bench.event(loaded(vec![stamped("a", "u", "pa", 1), stamped("b", "w", "pb", 2)]));
    assert_eq!(bench.seen(), ["publish b@1-1"], "only the touched recipe, and without a build");
    bench.published();
    bench.event(loaded(vec![stamped("a", "u", "pa", 2), stamped("b", "w", "pb", 2)]));
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["failed a@1-1 5m"], "the next wait goes on growing");
}
