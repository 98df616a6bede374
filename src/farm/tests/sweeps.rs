//! Single sweeps: one attempt a version, and their end.

use super::*;

#[test]
fn sweep_in_which_everything_fails_tries_each_version_once() {
    for are_built in [false, true] {
        let ids = ["aa", "bb", "cc", "dd"];
        let mut bench = Bench::new(true, ids.map(|id| recipe(id, id, &[id], "")).to_vec());
        for id in ids {
            bench.tags(id, &["v1"]);
        }
        let mut tried = Vec::new();
        while let Some(flight) = bench.farm.flights.first() {
            tried.push(flight.job.recipe.id.clone());
            // Every retry is due before the last recipe has had its turn.
            bench.now += MINUTE * 10;
            if are_built {
                bench.publish_fails();
            } else {
                bench.fail();
            }
            assert!(tried.len() <= ids.len(), "{tried:?}");
        }
        assert_eq!(tried, ids.map(Arc::from));
        assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
        assert_eq!(bench.farm.next_deadline(), None);
    }
}

#[test]
fn sweep_leaves_out_the_versions_of_an_upstream_whose_fetches_hang() {
    let recipes = vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")];
    for (blame, expected) in [(Blame::Upstream, "left 2 of u"), (Blame::Recipe, "left 2 of a")] {
        let mut bench = Bench::new(true, recipes.clone());
        bench.tags("u", &["v1", "v2", "v3", "v4"]);
        bench.tags("w", &["v1", "v2"]);
        let hang = |bench: &mut Bench| {
            bench.now += MINUTE * 6;
            bench.finish(BuildOutcome::Failed { reason: "no answer".into(), blame });
        };
        hang(&mut bench);
        assert_eq!(bench.seen(), ["build a@4-1", "failed a@4-1 once", "build b@2-1"]);
        bench.done();
        bench.done();
        assert_eq!(bench.seen(), ["build b@1-1", "build a@3-1"], "one failure is no reason to give up");
        hang(&mut bench);
        assert_eq!(bench.seen(), ["failed a@3-1 once", expected]);
        assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
    }
}

#[test]
fn sweep_stopped_with_work_left_is_unfinished() {
    // The tags of one upstream, whether the other one is listed, and the outcome.
    let cases: [(bool, &[&str], bool, Outcome); 4] = [
        (true, &["v1"], true, Outcome::Clean),
        (true, &["v1", "v2"], true, Outcome::Unfinished),
        (true, &["v1"], false, Outcome::Unfinished),
        (false, &["v1", "v2"], false, Outcome::Clean),
    ];
    for (once, tags, is_listed, expected) in cases {
        let mut bench = Bench::new(once, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
        bench.tags("u", tags);
        if is_listed {
            bench.tags("w", &[]);
        }
        bench.event(Event::StopRequested);
        if !is_listed {
            bench.event(Event::PollFinished { upstream: "w".into(), tags: Err(no_route()) });
        }
        bench.done();
        assert_eq!(bench.farm.outcome(bench.now), Some(expected), "{once} {tags:?} {is_listed}");
    }
}

#[test]
fn sweep_stopped_once_another_recipe_has_published_the_rest_is_clean() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.tags("w", &["v1"]);
    bench.event(Event::StopRequested);
    bench.done();
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
}

#[test]
fn sweep_tallies_what_it_has_done() {
    let ids = ["aa", "bb", "cc"];
    let mut bench = Bench::new(true, ids.map(|id| recipe(id, id, &[id], "")).to_vec());
    bench.tags("aa", &["v1", "v2"]);
    bench.tags("bb", &["v1"]);
    let error = PollError { reason: "no route".into(), fault: PollFault::Other };
    bench.event(Event::PollFinished { upstream: "cc".into(), tags: Err(error) });
    // Of three versions, one is published, the build of one fails, and the publish of the last.
    bench.done();
    bench.fail();
    bench.publish_fails();
    let expected = Tally { polled: 3, polls_failed: 1, built: 2, published: 1, failed: 2 };
    assert_eq!(bench.farm.tally(), Some(expected));
    let failures = bench.effects.iter().filter_map(|effect| match effect {
        Effect::Report(
            Notice::BuildFailed { retry_after, .. } | Notice::PublishFailed { retry_after, .. },
        ) => Some(*retry_after),
        _ => None,
    });
    assert_eq!(failures.collect::<Vec<_>>(), [None, None], "a sweep retries nothing");
    assert_eq!(Bench::new(false, vec![]).farm.tally(), None);
}

#[test]
fn sweep_names_the_host_whose_pause_it_waits_for() {
    let upstreams = ["1", "2", "3", "4", "5"].map(|path| format!("https://a.example/{path}"));
    let recipes = upstreams.each_ref().map(|url| recipe(&url[url.len() - 1..], url, &["pp"], ""));
    let mut bench = Bench::new(true, recipes.to_vec());
    assert_eq!(bench.farm.progress().paused_host, None, "listings run");
    // The host is asked four times at once, and the fifth poll waits.
    for upstream in &upstreams[..4] {
        let fault = PollFault::Busy { pause: MINUTE / 2, redirected_to: None };
        let error = PollError { reason: "429".into(), fault };
        bench.event(Event::PollFinished { upstream: upstream.as_str().into(), tags: Err(error) });
    }
    let host = bench.farm.progress().paused_host;
    assert!(host.as_ref().is_some_and(|host| host.starts_with("a.example")), "{host:?}");
}
