//! Reloads, changed recipes and signals.

use super::*;

#[test]
fn reload_replaces_the_roster_and_a_refused_one_leaves_it() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.tags("w", &["v1"]);
    assert_eq!(bench.polls(), ["u", "w"]);
    bench.event(Event::ReloadRequested);
    assert_eq!(bench.seen(), ["load roster"]);
    bench.event(Event::RosterLoaded(Err(vec![])));
    assert_eq!(bench.seen(), ["reload refused"]);
    bench.event(loaded(vec![recipe("b", "w", &["pb"], ""), recipe("c", "x", &["pc"], "")]));
    assert_eq!(bench.polls(), ["w", "x"]);
    bench.done();
    assert_eq!(
        bench.seen(),
        ["build b@1-1"],
        "a dropped recipe leaves the queue, its build in progress ends"
    );
    bench.tags("x", &["v5"]);
    bench.fail();
    assert_eq!(bench.seen(), ["failed b@1-1 1m", "build c@5-1"]);
    bench.event(loaded(vec![recipe("c", "x", &["pc"], "")]));
    assert!(bench.farm.failures.is_empty());
    bench.event(loaded(vec![]));
    bench.fail();
    assert_eq!(bench.seen(), ["failed c@5-1 1m"]);
    assert!(bench.farm.failures.is_empty(), "nothing is retried for a dropped recipe");
    assert_eq!(bench.farm.next_deadline(), None);
}

#[test]
fn drain_with_a_build_finishes_it_and_its_upload() {
    let recipes = vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")];
    let mut bench = Bench::uploading(false, recipes);
    bench.tags("u", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build a@2-1"]);
    bench.event(Event::StopRequested);
    assert_eq!(bench.seen(), ["interrupt polls"]);
    bench.event(Event::PollFinished { upstream: "w".into(), tags: Err(no_route()) });
    assert!(bench.seen().is_empty(), "a poll that the shutdown has ended is no failure");
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.done();
    assert_eq!(bench.seen(), ["upload"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.upload_fails();
    assert_eq!(bench.seen(), ["not uploaded 1m"]);
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
}

#[test]
fn abort_during_a_build_ends_it_uncounted() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.event(Event::StopRequested);
    bench.seen();
    bench.event(Event::AbortRequested);
    assert_eq!(bench.seen(), ["interrupt polls", "interrupt jobs"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.finish(BuildOutcome::Interrupted);
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Aborted));
    assert!(bench.farm.failures.is_empty());
    assert_eq!((bench.farm.builds_attempted, bench.farm.builds_succeeded), (1, 0));
}

#[test]
fn changed_recipe_with_a_failure_is_retried_at_once() {
    let stamped = |stamp| vec![Recipe { stamp, ..recipe("a", "u", &["pa"], "") }];
    let mut bench = Bench::new(false, stamped(1));
    bench.tags("u", &["v1"]);
    bench.fail();
    bench.event(loaded(stamped(1)));
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 1m"], "the same recipe waits");
    bench.event(loaded(stamped(2)));
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["failed a@1-1 5m"]);
}

#[test]
fn version_that_a_changed_recipe_no_longer_builds_is_dropped() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.fail();
    assert_eq!(bench.seen(), ["build a@2-1", "failed a@2-1 1m", "build a@1-1"]);
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "peios_revision = 2")]));
    assert!(bench.farm.failures.is_empty() && bench.farm.queue.len() == 0);
    bench.done();
    bench.tags("u", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build a@2-2"]);
}

#[test]
fn build_that_fails_after_its_recipe_changed_is_replaced_at_once() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "peios_revision = 2")]));
    bench.tags("u", &["v1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 0m", "build a@1-2"]);
    assert!(bench.farm.failures.is_empty());
    // A poll saw the version during its build, and did not queue it.
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "submodules = true")]));
    bench.tags("u", &["v1"]);
    bench.fail();
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 0m", "build a@1-1"]);
}

#[test]
fn version_of_a_changed_recipe_that_waited_aside_is_not_built() {
    // Both recipes make the same package.
    let recipes = vec![recipe("a", "u", &["pp"], ""), recipe("b", "w", &["pp"], "")];
    let mut bench = Bench::with_options(Options { build_jobs: 2, ..options(false) }, recipes);
    bench.tags("u", &["v2"]);
    bench.tags("w", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build a@2-1", "build b@1-1"], "the other 2-1 waits aside");
    let key = JobKey { recipe: "b".into(), version: "1-1".parse().unwrap() };
    bench.event(Event::BuildFinished { key, outcome: BuildOutcome::RecipeChanged });
    assert_eq!(bench.seen(), ["changed b"]);
    bench.fail();
    assert_eq!(bench.seen(), ["failed a@2-1 1m"]);
    bench.event(loaded(vec![recipe("b", "w", &["pp"], "")]));
    bench.tags("w", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build b@2-1"], "the reload finds it again");
}
