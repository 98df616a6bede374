//! Events that overtake each other, and versions that leave the queue unbuilt.

use super::*;

/// Returns the versions in the queue that go first.
fn urgent(bench: &Bench) -> Vec<String> {
    let waiting = bench.farm.queue.iter();
    waiting
        .filter(|(_, _, waits)| *waits == queue::Waits::Urgent)
        .map(|(_, candidate, _)| candidate.version.to_string())
        .collect()
}

fn stamped(id: &str, upstream: &str, package: &str, stamp: u64) -> Recipe {
    let mut recipe = recipe(id, upstream, &[package], "");
    recipe.stamp = stamp;
    recipe
}

#[test]
fn recipe_changed_answer_of_a_build_older_than_the_reload_holds_nothing() {
    let mut bench = Bench::new(false, vec![stamped("a", "u", "pa", 1)]);
    bench.tags("u", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build a@2-1"]);
    // The files changed before the copy; the reload loads exactly those files.
    bench.event(loaded(vec![stamped("a", "u", "pa", 2)]));
    bench.tags("u", &["v1", "v2"]);
    bench.finish(BuildOutcome::RecipeChanged);
    bench.seen();
    bench.tags("u", &["v1", "v2"]);
    bench.sleep_until(at(HOUR * 3));
    bench.tags("u", &["v1", "v2"]);
    assert!(!bench.farm.flights.is_empty() || bench.farm.queue.len() > 0, "held until another reload");
}

#[test]
fn recipe_changed_answer_of_a_build_is_tried_again_after_the_reload() {
    let mut bench = Bench::new(false, vec![stamped("a", "u", "pa", 1)]);
    bench.tags("u", &["v2"]);
    bench.event(loaded(vec![stamped("a", "u", "pa", 2)]));
    bench.tags("u", &["v2"]); // in flight: not queued
    bench.finish(BuildOutcome::RecipeChanged);
    for hours in 1..5 {
        bench.sleep_until(at(HOUR * hours));
        bench.tags("u", &["v2"]);
    }
    assert!(!bench.farm.flights.is_empty(), "version 2 is never built");
}

#[test]
fn second_tag_of_a_version_is_built_if_the_first_names_no_commit() {
    let text = "[upstream]\ngit = 'u'\ntag_pattern = '^v?(\\d+)$'\n[[package]]\nname = 'pa'\narchitecture = 'noarch'";
    let recipe = Recipe::parse("a", Path::new("a"), text, 0, &mut Vec::new()).unwrap();
    let mut bench = Bench::new(false, vec![recipe]);
    bench.tags("u", &["1", "v1"]);
    bench.finish(BuildOutcome::NoCommit(names_a_tree("1")));
    bench.seen();
    bench.sleep_until(at(HOUR));
    bench.tags("u", &["1", "v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
}

#[test]
fn group_found_and_refused_counts_one_attempt_a_version() {
    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::OutputsFound(vec![outputs("a", "1-1", &["pa"]), outputs("b", "1-1", &["pb"])]));
    bench.publish_fails();
    bench.published();
    bench.published();
    assert_eq!((bench.farm.builds_attempted, bench.farm.builds_succeeded), (2, 2));
}

#[test]
fn versions_that_were_left_out_are_no_news_of_a_webhook() {
    let mut bench =
        Bench::new(false, vec![recipe("a", "https://h/a", &["pa"], HOOK), recipe("b", "w", &["pb"], "")]);
    bench.tags("w", &["v1"]);
    let tags: Vec<String> = (1..=10_050).map(|n| format!("v{n}")).collect();
    let mut tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    bench.tags("https://h/a", &tags);
    hook(&mut bench, &["h/a"]);
    tags.push("v20000");
    bench.seen();
    bench.tags("https://h/a", &tags);
    assert_eq!(urgent(&bench), ["20000-1"]);
}

#[test]
fn backlog_of_a_recipe_that_waited_for_a_reload_is_no_news_of_a_webhook() {
    let with = |stamp| {
        let mut recipe = recipe("a", "https://h/a", &["pa"], HOOK);
        recipe.stamp = stamp;
        vec![recipe, super::recipe("b", "w", &["pb"], "")]
    };
    let mut bench = Bench::new(false, with(1));
    bench.tags("https://h/a", &["v1", "v2", "v3", "v4"]);
    bench.tags("w", &["v1"]);
    bench.finish(BuildOutcome::RecipeChanged);
    assert_eq!(bench.seen(), ["build a@4-1", "changed a", "build b@1-1"]);
    bench.event(loaded(with(2)));
    hook(&mut bench, &["h/a"]);
    bench.event(Event::PollFinished { upstream: "https://h/a".into(), tags: Err(no_route()) });
    bench.tags("https://h/a", &["v1", "v2", "v3", "v4", "v5"]);
    assert_eq!(urgent(&bench), ["5-1"]);
}

#[test]
fn webhook_during_a_listing_makes_the_version_urgent_that_this_listing_shows() {
    let mut bench =
        Bench::new(false, vec![recipe("a", "https://h/a", &["pa"], HOOK), recipe("b", "w", &["pb"], "")]);
    bench.tags("https://h/a", &[]);
    bench.tags("w", &["v1", "v2", "v3"]);
    bench.sleep_until(at(HOUR)); // Regular polls of both run.
    hook(&mut bench, &["h/a"]);
    bench.tags("https://h/a", &["v1"]);
    bench.tags("https://h/a", &["v1"]);
    let waits: Vec<_> =
        bench.farm.queue.iter().filter(|(id, ..)| &***id == "a").map(|(_, _, waits)| waits).collect();
    assert_eq!(waits, [queue::Waits::Urgent]);
}

#[test]
fn drain_as_an_upload_falls_due_ends() {
    let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.done();
    bench.upload_fails();
    bench.sleep_until(at(Duration::from_millis(59_999)));
    bench.event(Event::StopRequested);
    // The log line of the drain took a millisecond.
    bench.now = at(MINUTE);
    assert!(
        bench.farm.outcome(bench.now).is_some() || bench.farm.next_deadline().is_some(),
        "sleeps for ever"
    );
}

#[test]
fn failed_version_whose_tag_was_renamed_is_built_from_the_new_tag() {
    let text = "[upstream]\ngit = 'u'\ntag_pattern = '^v?(\\d+)$'\n[[package]]\nname = 'pa'\narchitecture = 'noarch'";
    let recipe = Recipe::parse("a", Path::new("a"), text, 0, &mut Vec::new()).unwrap();
    let mut bench = Bench::new(false, vec![recipe]);
    bench.tags("u", &["1"]);
    bench.fail();
    let mut hours = 1;
    for _ in 0..6 {
        bench.sleep_until(at(HOUR * hours));
        hours += 1;
        let upstream = UpstreamUrl::from("u");
        if bench.farm.schedule.state(&upstream).is_some_and(|state| state.next.is_none()) {
            bench.tags("u", &["v1"]);
        }
        if let Some(flight) = bench.farm.flights.first() {
            let tag = flight.job.candidate.tag.clone();
            assert!(hours <= 2 || *tag == *"v1", "after {hours} h it still builds {tag}");
            bench.fail();
        }
    }
}

#[test]
fn sweep_tries_the_second_recipe_of_a_package_if_the_first_fails() {
    let recipes = vec![recipe("a", "u", &["pp"], ""), recipe("b", "w", &["pp"], "")];
    let mut bench = Bench::with_options(Options { build_jobs: 2, ..options(true) }, recipes);
    bench.tags("u", &["v1"]);
    bench.tags("w", &["v1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 once", "build b@1-1"]);
}

#[test]
fn retry_of_a_recipe_that_waits_for_a_reload_is_not_started() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.fail();
    bench.finish(BuildOutcome::RecipeChanged);
    assert_eq!(bench.seen(), ["build a@2-1", "failed a@2-1 1m", "build a@1-1", "changed a"]);
    bench.sleep_until(at(MINUTE * 2));
    assert!(bench.seen().is_empty());
}

#[test]
fn tag_that_names_no_commit_is_built_once_it_is_moved() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.finish(BuildOutcome::NoCommit(names_a_tree("v1")));
    bench.event(Event::ReloadRequested);
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "")]));
    bench.tags("u", &["v1"]);
    bench.seen();
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), [""; 0], "it is where it was");
    bench.event(loaded(vec![]));
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "")]));
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"], "the recipe was gone");
    bench.finish(BuildOutcome::NoCommit(names_a_tree("v1")));
    bench.seen();
    let mut tags = Tags::default();
    let object = peipkg_format::object_id::ObjectId::from_bytes(&[1; 20]).expect("an id");
    tags.push("v1", events::ListedTag { object, peeled: None });
    bench.event(Event::PollFinished { upstream: "u".into(), tags: Ok(tags) });
    assert_eq!(bench.seen(), ["build a@1-1"]);
}

#[test]
fn recipe_whose_package_another_recipe_was_building_is_not_urgent_by_a_later_hook() {
    let mut bench = Bench::with_options(
        Options { build_jobs: 2, ..options(false) },
        vec![
            recipe("a", "u", &["pp"], ""),
            recipe("b", "https://h/b", &["pp"], HOOK),
            recipe("c", "x", &["pc"], ""),
            recipe("d", "y", &["pd"], ""),
        ],
    );
    bench.tags("u", &["v1"]);
    bench.tags("https://h/b", &["v1"]); // dropped: claimed
    bench.tags("x", &["v1"]);
    bench.tags("y", &["v1"]);
    bench.fail();
    hook(&mut bench, &["h/b"]);
    bench.tags("https://h/b", &["v1", "v2"]);
    assert_eq!(urgent(&bench), ["2-1"]);
}

#[test]
fn build_of_an_older_recipe_that_fails_after_a_reload_is_retried_at_once() {
    let mut bench = Bench::new(false, vec![stamped("a", "u", "pa", 1)]);
    bench.tags("u", &["v1"]);
    for minutes in [1, 6, 21, 81, 441] {
        bench.fail();
        bench.sleep_until(at(MINUTE * minutes));
    }
    assert!(!bench.farm.flights.is_empty());
    // The operator mends the recipe during the sixth attempt.
    bench.event(loaded(vec![stamped("a", "u", "pa", 2)]));
    bench.tags("u", &["v1"]);
    bench.fail();
    bench.sleep_until(at(MINUTE * 441 + HOUR * 2));
    assert!(!bench.farm.flights.is_empty(), "waits until {:?}", bench.farm.failures.next_retry());
}

#[test]
fn stop_before_a_retry_within_a_poll_s_grace_starts_no_upload_twice() {
    let mut bench =
        Bench::uploading(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1"]);
    bench.done();
    bench.upload_fails();
    bench.now = at(Duration::from_secs(59));
    bench.event(Event::StopRequested);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.seen();
    bench.now = bench.farm.next_deadline().unwrap();
    bench.event(Event::DeadlineReached);
    assert!(bench.seen().is_empty());
}
