//! Plays simulated days of the schedule.

mod hooks;
mod hosts;

use std::collections::BTreeMap;

use super::*;
use crate::farm::schedule::upstream::next_slot;
use crate::farm::tests::at;

const HOUR: Duration = Duration::from_hours(1);

fn schedule(workers: usize, urls: &[&str]) -> Schedule {
    let mut schedule = Schedule::new(workers, true, None);
    schedule.watch(roster(urls), Moment::ZERO);
    schedule
}

fn roster(urls: &[&str]) -> Vec<(UpstreamUrl, Duration)> {
    let upstreams: BTreeSet<_> = urls.iter().map(|url| (UpstreamUrl::from(*url), HOUR)).collect();
    upstreams.into_iter().collect()
}

fn start(schedule: &mut Schedule, now: Moment) -> String {
    schedule.start_due(now).start.iter().map(UpstreamUrl::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn first_polls_start_at_once_up_to_the_pool_size() {
    let mut schedule = schedule(2, &["a", "b", "c"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a b");
    assert_eq!(start(&mut schedule, Moment::ZERO), "");
    assert_eq!(schedule.on_listing_finished(&"b".into(), tags(3), Moment::ZERO), Some(false));
    assert_eq!(start(&mut schedule, Moment::ZERO), "c");
    assert!(!schedule.is_quiet());
    for url in ["a", "c"] {
        schedule.on_listing_finished(&url.into(), tags(0), Moment::ZERO);
    }
    assert!(schedule.is_quiet());
}

#[test]
fn upstreams_over_ten_days_are_polled_once_an_interval_and_spread_out() {
    let urls: Vec<String> = (0..50).map(|n| format!("https://example.org/{n}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let mut schedule = schedule(8, &urls);
    let mut now = Moment::ZERO;
    let mut polls: BTreeMap<UpstreamUrl, u32> = BTreeMap::new();
    let mut most_at_once = 0;
    while now < at(HOUR * 240) {
        loop {
            let started = schedule.start_due(now).start;
            if started.is_empty() {
                break;
            }
            if now > at(HOUR) {
                most_at_once = most_at_once.max(started.len());
            }
            for url in started {
                *polls.entry(url.clone()).or_default() += 1;
                schedule.on_listing_finished(&url, tags(1), now);
            }
        }
        now = schedule.next_deadline().unwrap();
    }
    assert!(polls.values().all(|count| (240..=241).contains(count)), "{polls:?}");
    assert!(most_at_once <= 2, "{most_at_once} upstreams were due in one millisecond");
}

#[test]
fn failed_listing_is_repeated_early_and_then_less_often() {
    let mut schedule = schedule(1, &["a"]);
    let mut now = Moment::ZERO;
    let mut waits = Vec::new();
    for _ in 0..4 {
        assert_eq!(start(&mut schedule, now), "a");
        schedule.on_listing_finished(&"a".into(), Err(error("no route", None)), now);
        let next = schedule.next_deadline().unwrap();
        assert!(next >= now, "{next:?}");
        waits.push(next.saturating_since(now).as_secs() / 60);
        now = next;
    }
    assert!(waits[0] <= 1 && waits[1] <= 5 && waits[2] <= 15 && waits[3] <= 60, "{waits:?}");
    assert_eq!(schedule.state(&"a".into()).unwrap().last.unwrap().1, Err("no route".into()));
}

#[test]
fn listing_that_flaps_is_repeated_at_most_twice_an_interval() {
    let mut schedule = schedule(1, &["a"]);
    let (mut now, mut listings) = (Moment::ZERO, 0_u32);
    while now < at(HOUR * 48) {
        if start(&mut schedule, now) == "a" {
            listings += 1;
            let result = if listings.is_multiple_of(2) { tags(1) } else { Err(error("no route", None)) };
            schedule.on_listing_finished(&"a".into(), result, now);
        }
        now = schedule.next_deadline().unwrap();
    }
    // A success ends the back-off, but the next regular poll is an interval away.
    assert!(listings <= 2 * 49, "{listings}");
}

#[test]
fn reload_polls_each_upstream_once_and_forgets_dropped_ones() {
    let mut schedule = schedule(2, &["a", "b", "c"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a b");
    schedule.watch(roster(&["b", "d"]), Moment::ZERO);
    assert_eq!(schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO), None);
    assert_eq!(start(&mut schedule, Moment::ZERO), "d");
    assert_eq!(schedule.on_listing_finished(&"b".into(), tags(1), Moment::ZERO), Some(false));
    assert_eq!(start(&mut schedule, Moment::ZERO), "b", "its first listing was older than the reload");
    for url in ["b", "d"] {
        schedule.on_listing_finished(&url.into(), tags(1), Moment::ZERO);
    }
    assert!(schedule.is_quiet());
    for _ in 0..100 {
        schedule.watch(roster(&["b", "d"]), Moment::ZERO);
    }
    assert_eq!(start(&mut schedule, Moment::ZERO), "b d");
    // An upstream dropped and watched again during its listing gets the answer.
    schedule.watch(roster(&["d"]), Moment::ZERO);
    schedule.watch(roster(&["b", "d"]), Moment::ZERO);
    assert_eq!(schedule.on_listing_finished(&"b".into(), tags(1), Moment::ZERO), Some(false));
}

#[test]
fn reload_during_a_listing_lists_the_upstream_again() {
    let mut schedule = schedule(1, &["a"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    for _ in 0..2 {
        schedule.watch(roster(&["a"]), Moment::ZERO);
    }
    assert_eq!(schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO), Some(false));
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    assert_eq!(schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO), Some(false));
    assert_eq!(start(&mut schedule, Moment::ZERO), "", "once is enough");
}

#[test]
fn single_sweep_polls_each_upstream_once() {
    let mut schedule = Schedule::new(4, false, None);
    schedule.watch(roster(&["a", "b"]), Moment::ZERO);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a b");
    schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
    schedule.on_listing_finished(&"b".into(), Err(error("gone", None)), Moment::ZERO);
    assert_eq!(schedule.next_deadline(), None);
    assert_eq!(start(&mut schedule, at(HOUR * 1000)), "");
}

#[test]
fn slots_lie_in_the_future_and_an_interval_apart() {
    for now in [0, 1, 3_599_999, 3_600_000, 86_400_000] {
        let now = at(Duration::from_millis(now));
        let next = next_slot(&"https://example.org/x".into(), HOUR, now);
        assert!(next > now && next <= now + HOUR, "{now:?} {next:?}");
        assert_eq!(next_slot(&"https://example.org/x".into(), HOUR, next), next + HOUR);
    }
}

#[test]
fn order_seed_lets_each_upstream_be_among_the_first() {
    let urls: Vec<String> = (0..6).map(|n| format!("https://a.example/{n}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let order = |seed| {
        let mut schedule = Schedule::new(4, false, seed);
        schedule.watch(roster(&urls), Moment::ZERO);
        schedule.start_due(Moment::ZERO).start
    };
    assert_eq!(order(None), urls[..4].iter().map(|url| UpstreamUrl::from(*url)).collect::<Vec<_>>());
    assert_eq!(order(Some(7)), order(Some(7)));
    let mut missing: Vec<&str> = urls.clone();
    for seed in 0..20 {
        let started = order(Some(seed));
        missing.retain(|url| !started.iter().any(|started| started.secret_text() == *url));
    }
    assert!(missing.is_empty(), "never among the first: {missing:?}");
}

/// Returns a listing of so many tags.
#[allow(clippy::unnecessary_wraps, reason = "it is the result of a listing")]
fn tags(count: usize) -> Result<Listing, PollError> {
    Ok(Listing { tags: count, fingerprint: count as u64 })
}

fn error(reason: &str, retry_after: Option<Duration>) -> PollError {
    let fault = retry_after.map_or(PollFault::Other, |pause| PollFault::Busy { pause, redirected_to: None });
    PollError { reason: reason.into(), fault }
}
