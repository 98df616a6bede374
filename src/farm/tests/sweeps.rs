//! Single sweeps: one attempt a version, and their end.

use super::*;

#[test]
fn sweep_in_which_everything_fails_tries_each_version_once() {
    let build_fails: fn(&str) -> JobOutcome =
        |_| JobOutcome::Failed { reason: "no compiler".into(), blame: Blame::Version };
    let publish_fails: fn(&str) -> JobOutcome =
        |id| JobOutcome::PublishFailed { reason: "full".into(), outputs: outputs(id, "1-1", &[id]) };
    for outcome in [build_fails, publish_fails] {
        let ids = ["aa", "bb", "cc", "dd"];
        let mut bench = Bench::new(true, ids.map(|id| recipe(id, id, &[id], "")).to_vec());
        for id in ids {
            bench.tags(id, &["v1"]);
        }
        let mut tried = Vec::new();
        while let Some(flight) = &bench.farm.in_flight {
            let id = flight.job.key().recipe;
            // Every retry is due before the last recipe has had its turn.
            bench.now += MINUTE * 10;
            bench.finish(outcome(&id));
            tried.push(id);
            assert!(tried.len() <= ids.len(), "{tried:?}");
        }
        assert_eq!(tried, ids.map(Arc::from));
        assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
        assert_eq!(bench.farm.next_deadline(), None);
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
        bench.finish(JobOutcome::Done);
        assert_eq!(bench.farm.outcome(bench.now), Some(expected), "{once} {tags:?} {is_listed}");
    }
}
