//! Hours and days of builder time, shared fairly: what hangs or takes long delays the others by at
//! most its share.

use super::*;
use crate::farm::events::Tags;

/// How a build of a recipe ends, and after how long.
type Work = fn(&str) -> (Duration, Result<(), Blame>);

/// Plays the builds of a farm, each as `work` says, until `recipe` has published `count` versions.
/// Returns how long that took, in hours.
fn hours_until(bench: &mut Bench, recipe: &str, count: usize, work: Work) -> u64 {
    let begun = bench.now;
    let mut published = 0;
    while published < count {
        let Some(flight) = bench.farm.flights.first() else {
            let next = bench.farm.next_deadline().expect("a poll or a retry");
            bench.sleep_until(next);
            continue;
        };
        let id = flight.job.recipe.id.clone();
        let (took, result) = work(&id);
        bench.now += took;
        match result {
            Ok(()) => bench.done(),
            Err(blame) => bench.finish(BuildOutcome::Failed { reason: "no end".into(), blame }),
        }
        published += usize::from(*id == *recipe && result.is_ok());
    }
    bench.now.saturating_since(begun).as_secs() / 3600
}

fn versions(count: usize) -> Tags {
    (1..=count).map(|number| format!("v{number}")).collect()
}

/// Returns a daemon with a bad upstream, watched by `recipes` recipes and with `tags` tags, and a good
/// one with `good` tags.
fn beside(recipes: usize, tags: usize, good: usize) -> Bench {
    let bad = (0..recipes).map(|number| recipe(&format!("bad{number}"), "u", &[&format!("p{number}")], ""));
    let list = bad.chain([recipe("good", "w", &["pg"], "")]).collect();
    // The polls do not matter here.
    let mut bench = Bench::with_options(Options { default_interval: HOUR * 10_000, ..options(false) }, list);
    let send = |bench: &mut Bench, upstream: &str, count: usize| {
        let tags = Ok(versions(count));
        bench.event(Event::PollFinished { upstream: upstream.into(), tags });
    };
    send(&mut bench, "u", tags);
    send(&mut bench, "w", good);
    bench
}

#[test]
fn fetches_that_hang_for_an_hour_take_half_of_the_builder() {
    let hang: Work = |id| match id {
        "good" => (MINUTE * 2, Ok(())),
        _ => (HOUR, Err(Blame::Upstream)),
    };
    assert!(hours_until(&mut beside(1, 50, 200), "good", 200, hang) <= 14);
    // It is no better to be watched by many recipes.
    assert!(hours_until(&mut beside(20, 50, 200), "good", 200, hang) <= 14);
    // Nor does it matter how long the upstream has been hanging.
    let mut bench = beside(1, 50, 0);
    let until = at(HOUR * 24 * 14);
    while bench.now < until {
        if bench.farm.flights.is_empty() {
            let next = bench.farm.next_deadline().expect("a retry");
            bench.sleep_until(next);
        } else {
            bench.now += HOUR;
            bench.finish(BuildOutcome::Failed { reason: "no end".into(), blame: Blame::Upstream });
        }
    }
    let tags = Ok(versions(200));
    bench.event(Event::PollFinished { upstream: "w".into(), tags });
    assert!(hours_until(&mut bench, "good", 200, hang) <= 14);
}

#[test]
fn builds_that_run_into_a_day_s_time_out_delay_the_others_by_one_of_them() {
    let time_out: Work = |id| match id {
        "good" => (MINUTE * 2, Ok(())),
        _ => (HOUR * 24, Err(Blame::Recipe)),
    };
    assert!(hours_until(&mut beside(1, 3, 20), "good", 20, time_out) <= 25);
}

#[test]
fn publishes_that_hang_delay_no_build() {
    let ids: Vec<String> = (0..100).map(|number| format!("f{number}")).collect();
    let mut bench = Bench::new(false, vec![recipe("good", "w", &["pg"], "")]);
    bench.event(Event::OutputsFound(ids.iter().map(|id| outputs(id, "1-1", &[&format!("p{id}")])).collect()));
    bench.tags("w", &["v1", "v2", "v3"]);
    assert_eq!(bench.publishing().len(), 100);
    bench.seen();
    for _ in 0..3 {
        bench.now += MINUTE;
        bench.built();
    }
    assert_eq!(bench.seen(), ["build good@2-1", "build good@1-1"], "while the first publish is running");
    bench.now += MINUTE * 15;
    bench.publish_fails();
    // They share the publisher with the good ones.
    let mut published_after = Vec::new();
    for hanging in 0..3 {
        if bench.publishing()[0].starts_with("good") {
            published_after.push((hanging, bench.publishing().len()));
            bench.published();
            break;
        }
        bench.now += MINUTE * 15;
        bench.publish_fails();
    }
    assert!(matches!(published_after[..], [(0 | 1, 3)]), "{published_after:?}");
}

#[test]
fn urgent_versions_whose_fetch_hangs_lose_their_urgency() {
    let hooked = "[watch]\ngithub_webhook = true\n";
    let recipes = vec![recipe("a", "https://h/u", &["pa"], hooked), recipe("b", "w", &["pb"], "")];
    let mut bench = Bench::new(false, recipes);
    bench.tags("https://h/u", &[]);
    bench.tags("w", &["v1", "v2", "v3"]);
    bench.event(Event::WebhookReceived { repositories: vec!["h/u".into()] });
    bench.tags("https://h/u", &["v1", "v2", "v3"]);
    bench.done();
    assert_eq!(bench.seen(), ["build b@3-1", "build a@3-1"]);
    bench.now += MINUTE;
    bench.finish(BuildOutcome::Failed { reason: "no answer".into(), blame: Blame::Upstream });
    assert_eq!(bench.seen(), ["failed a@3-1 1m", "build b@2-1"]);
}

#[test]
fn several_builders_never_build_two_versions_of_one_upstream() {
    let recipes = vec![
        recipe("a", "u", &["pa"], ""),
        recipe("b", "u", &["pb"], ""),
        recipe("c", "w", &["pc"], ""),
        recipe("d", "x", &["pd"], ""),
    ];
    let mut bench = Bench::with_options(Options { build_jobs: 3, ..options(false) }, recipes);
    bench.tags("u", &["v1", "v2"]);
    bench.tags("w", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build a@2-1", "build c@2-1"], "one builder has nothing to do");
    bench.tags("x", &["v1"]);
    assert_eq!(bench.seen(), ["build d@1-1"]);
    bench.built();
    assert_eq!(bench.seen(), ["build b@2-1"]);
    bench.built();
    assert_eq!(bench.seen(), ["build c@1-1"]);
    bench.event(Event::StopRequested);
    bench.built();
    bench.built();
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.built();
    // A second publish takes the versions that were built during the first one.
    bench.published();
    assert_eq!(bench.publishing().len(), 4);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.published();
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
    assert_eq!((bench.farm.builds_attempted, bench.farm.builds_succeeded), (5, 5));
}

#[test]
fn recipe_changed_on_disk_waits_for_a_reload() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.tags("w", &["v1"]);
    bench.finish(BuildOutcome::RecipeChanged);
    assert_eq!(bench.seen(), ["build a@2-1", "changed a", "build b@1-1"]);
    bench.done();
    bench.tags("u", &["v1", "v2", "v3"]);
    bench.event(Event::RosterLoaded(Err(vec![])));
    assert_eq!(bench.seen(), ["reload refused"], "nothing of it is built");
    assert!(bench.farm.failures.is_empty());
    let recipes = vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")];
    bench.event(loaded(recipes));
    bench.tags("u", &["v1", "v2", "v3"]);
    assert_eq!(bench.seen(), ["build a@3-1"]);
}
