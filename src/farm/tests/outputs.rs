//! Pending outputs: built and not yet published, and the groups in which they are published.

use super::*;

#[test]
fn failed_publish_keeps_its_outputs_and_delays_no_build() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1"]);
    bench.tags("w", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.built();
    assert_eq!(bench.seen(), ["build b@1-1"], "while the publish is running");
    bench.publish_fails();
    assert_eq!(bench.seen(), ["unpublished a@1-1 1m"]);
    bench.done();
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.seen(), ["publish a@1-1"], "without another build");
    bench.publish_fails();
    assert_eq!(bench.seen(), ["unpublished a@1-1 5m"]);
    bench.sleep_until(at(MINUTE * 6));
    assert_eq!(bench.seen(), ["publish a@1-1"]);
    bench.published();
    assert!(bench.farm.failures.is_empty() && bench.farm.publishing.is_empty());
    assert_eq!((bench.farm.builds_attempted, bench.farm.builds_succeeded), (2, 2));
}

/// Returns a farm that has built these versions of `a` to `d` while the publish of the first one is
/// running.
fn with_finished(recipes: &[&str]) -> Bench {
    let list = recipes.iter().map(|id| recipe(id, id, &[&format!("p{id}")], "")).collect();
    let mut bench = Bench::new(false, list);
    for id in recipes {
        bench.tags(id, &["v1"]);
    }
    for _ in recipes {
        bench.built();
    }
    assert_eq!(bench.publishing(), [format!("{}@1-1", recipes[0])]);
    bench.seen();
    bench
}

#[test]
fn versions_finished_during_a_publish_are_published_together() {
    let mut bench = with_finished(&["a", "b", "c", "d"]);
    bench.published();
    assert_eq!(bench.publishing(), ["b@1-1", "c@1-1", "d@1-1"]);
    bench.published();
    assert!(bench.farm.publishing.is_empty());
    assert_eq!((bench.farm.builds_attempted, bench.farm.builds_succeeded), (4, 4));
}

#[test]
fn publisher_rests_three_times_as_long_as_it_worked_while_builds_run() {
    let seconds = Duration::from_secs;
    for (publish, rest) in [(seconds(2), seconds(6)), (MINUTE * 5, seconds(10))] {
        let mut bench = with_finished(&["a", "b", "c", "d"]);
        bench.tags("d", &["v1", "v2", "v3", "v4"]);
        bench.now += publish;
        bench.published();
        assert!(bench.publishing().is_empty(), "a build is running");
        bench.built();
        let rested = bench.now + rest;
        assert_eq!(bench.farm.next_deadline(), Some(rested));
        bench.now += rest.saturating_sub(Duration::from_millis(1));
        bench.event(Event::DeadlineReached);
        assert!(bench.publishing().is_empty());
        bench.sleep_until(rested);
        assert_eq!(bench.publishing(), ["b@1-1", "c@1-1", "d@1-1", "d@4-1"]);
        // Nothing more can come: it begins at once. So it does after a refusal.
        bench.now += publish;
        bench.built();
        bench.built();
        bench.publish_fails();
        assert_eq!(bench.publishing(), ["d@2-1", "d@3-1"]);
        bench.now += publish;
        bench.published();
        assert!(bench.farm.flights.is_empty());
        assert_eq!(bench.publishing(), ["b@1-1"]);
    }
}

#[test]
fn stop_does_not_wait_for_the_rest_of_the_publisher() {
    let mut bench = with_finished(&["a", "b"]);
    bench.tags("a", &["v1", "v2"]);
    bench.now += MINUTE;
    bench.published();
    bench.event(Event::StopRequested);
    assert!(bench.publishing().is_empty(), "a build is running");
    assert_eq!(bench.farm.next_deadline(), Some(bench.now + Duration::from_secs(10)));
    bench.built();
    assert_eq!(bench.publishing(), ["a@2-1", "b@1-1"]);
}

#[test]
fn refused_group_is_published_one_by_one_and_a_bad_member_delays_only_itself() {
    let mut bench = with_finished(&["a", "b", "c", "d"]);
    bench.published();
    bench.publish_fails();
    assert_eq!(bench.seen(), ["refused 3 together"], "no member has failed");
    assert_eq!(bench.publishing(), ["b@1-1"]);
    bench.published();
    assert_eq!(bench.publishing(), ["c@1-1"]);
    bench.publish_fails();
    assert_eq!(bench.seen(), ["unpublished c@1-1 1m"]);
    assert_eq!(bench.publishing(), ["d@1-1"]);
    bench.published();
    // From now on, no version is published together with the one that failed.
    bench.tags("b", &["v1", "v2"]);
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.publishing(), ["c@1-1"]);
    bench.built();
    bench.publish_fails();
    assert_eq!(bench.publishing(), ["b@2-1"]);
    bench.published();
    bench.sleep_until(at(MINUTE * 6));
    bench.published();
    assert!(bench.farm.failures.is_empty() && bench.farm.publishing.is_empty());
    assert_eq!(bench.farm.builds_succeeded, 5);
}

#[test]
fn failing_publishes_take_at_most_half_of_the_publisher() {
    let ids: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
    let mut recipes: Vec<Recipe> = ids.iter().map(|id| recipe(id, id, &[&format!("p{id}")], "")).collect();
    recipes.push(recipe("z", "z", &["pz"], ""));
    let mut bench = Bench::new(false, recipes);
    let found = ids.iter().map(|id| outputs(id, "1-1", &[&format!("p{id}")])).collect();
    bench.event(Event::OutputsFound(found));
    // The first publish hangs, then all that it had are tried alone, and each hangs.
    bench.now += MINUTE * 15;
    bench.publish_fails();
    let tags: Vec<String> = (1..=20).map(|number| format!("v{number}")).collect();
    bench.tags("z", &tags.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut good, mut bad) = (Duration::ZERO, Duration::ZERO);
    while bench.farm.builds_succeeded < 20 {
        // Builds take a minute, and do not wait for the publisher.
        if !bench.farm.flights.is_empty() {
            bench.now += MINUTE;
            bench.built();
            continue;
        }
        if bench.publishing()[0].starts_with('z') {
            good += MINUTE * 2;
            bench.now += MINUTE * 2;
            bench.published();
        } else {
            bad += MINUTE * 15;
            bench.now += MINUTE * 15;
            bench.publish_fails();
        }
    }
    assert!(bad <= good + MINUTE * 15, "{bad:?} in vain, {good:?} of use");
}

#[test]
fn failing_publishes_of_one_recipe_do_not_delay_those_of_another() {
    let mut bench = Bench::new(false, vec![]);
    let mut found: Vec<_> = (1..=30).map(|n| outputs("a", &format!("{n}-1"), &["pa"])).collect();
    found.push(outputs("b", "1-1", &["pb"]));
    bench.event(Event::OutputsFound(found));
    bench.publish_fails();
    let mut tried = Vec::new();
    while !tried.contains(&"b@1-1".to_owned()) {
        tried.extend(bench.publishing());
        bench.now += MINUTE * 15;
        bench.publish_fails();
    }
    assert!(tried.len() <= 2, "{tried:?}");
}

#[test]
fn removed_outputs_are_built_again() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.publish_fails();
    bench.seen();
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.seen(), ["publish a@1-1"]);
    bench.gone(&["a@1-1.0"]);
    assert!(bench.farm.failures.is_empty() && bench.farm.publishing.is_empty());
    let effects = std::mem::take(&mut bench.effects);
    let is_poll = |effect: &Effect| matches!(effect, Effect::StartPoll(upstream) if *upstream == "u".into());
    assert!(effects.iter().any(is_poll), "it is polled long before its time: {effects:?}");
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.done();

    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::OutputsFound(vec![outputs("dropped", "1-1", &["pd"])]));
    bench.gone(&["dropped@1-1.0"]);
    assert_eq!(bench.seen(), ["publish dropped@1-1", "gone dropped@1-1"]);
    assert_eq!(bench.farm.next_deadline(), None);
}

#[test]
fn removed_outputs_of_one_version_leave_the_others_of_its_group() {
    let mut bench = with_finished(&["a", "b", "c"]);
    bench.published();
    assert_eq!(bench.publishing(), ["b@1-1", "c@1-1"]);
    bench.gone(&["b@1-1.0"]);
    assert_eq!(bench.seen(), ["gone b@1-1"]);
    assert_eq!(bench.publishing(), ["c@1-1"]);
    bench.published();
    bench.tags("b", &["v1"]);
    assert_eq!(bench.seen(), ["build b@1-1"]);
}

#[test]
fn outputs_of_an_earlier_run_are_published_without_a_build() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["pa"], "")]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1"), ("pa", "2-1")]))));
    let found = [("a", "1-1", "pa"), ("gone", "2-1", "pa"), ("a", "3-1", "pa")];
    bench.event(Event::OutputsFound(found.iter().map(|(id, v, p)| outputs(id, v, &[p])).collect()));
    assert_eq!(bench.seen(), ["discard a@1-1", "discard gone@2-1", "publish a@3-1"]);
    bench.tags("u", &["v1", "v2", "v3"]);
    assert!(bench.seen().is_empty());
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.published();
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
}

#[test]
fn outputs_with_the_same_packages_are_not_published_together() {
    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::OutputsFound(vec![outputs("a", "1-1", &["p"]), outputs("b", "1-1", &["p"])]));
    assert_eq!(bench.seen(), ["publish a@1-1"]);
    bench.published();
    assert_eq!(bench.seen(), ["discard b@1-1"]);
    assert!(bench.farm.publishing.is_empty());
}

#[test]
fn partly_published_outputs_are_left_to_a_person() {
    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    let both = |version| outputs("a", version, &["pa", "pb"]);
    bench.event(Event::OutputsFound(vec![both("1-1"), both("2-1")]));
    assert_eq!(bench.seen(), ["partly published a@1-1", "publish a@2-1"]);
    bench.publish_fails();
    // Somebody else published one of their packages meanwhile.
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1"), ("pa", "2-1")]))));
    bench.sleep_until(at(HOUR));
    assert_eq!(bench.seen(), ["unpublished a@2-1 1m", "partly published a@2-1"]);
    assert!(bench.farm.failures.is_empty() && bench.farm.next_deadline().is_none());
}

#[test]
fn partly_published_version_is_warned_about_once() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa", "pb"], "")]);
    bench.tags("u", &["v1"]);
    bench.built();
    bench.publish_fails();
    bench.seen();
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.seen(), ["partly published a@1-1"]);
    bench.tags("u", &["v1"]);
    assert!(bench.seen().is_empty());
}

#[test]
fn publish_that_succeeded_in_spite_of_its_error_is_not_repeated() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.publish_fails();
    bench.seen();
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    bench.sleep_until(at(MINUTE));
    assert_eq!(bench.seen(), ["discard a@1-1"]);
    assert!(bench.publishing().is_empty() && bench.farm.failures.is_empty());
}

#[test]
fn outputs_found_published_are_uploaded() {
    let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.publish_fails();
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    let uploads = |bench: &Bench| bench.effects.iter().filter(|e| matches!(e, Effect::StartUpload)).count();
    assert_eq!(uploads(&bench), 0);
    bench.sleep_until(at(MINUTE));
    assert_eq!(uploads(&bench), 1);
    assert!(bench.farm.publishing.is_empty());
}
