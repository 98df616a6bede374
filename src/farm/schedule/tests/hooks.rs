//! Webhooks: their listings, and those that follow until the tag appears.

use super::*;

/// Plays a webhook whose listings show `counts` tags each, and further webhooks at `hooks`. Returns
/// the seconds at which the upstream was listed.
fn hook_listings(counts: &[usize], hooks: &[u64]) -> Vec<u64> {
    let mut schedule = schedule(1, &["a"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
    let (mut hooks, mut counts) = (hooks.iter().copied().peekable(), counts.iter().copied());
    let mut listed = Vec::new();
    for second in 10..600 {
        let now = at(Duration::from_secs(second));
        while hooks.next_if_eq(&second).is_some() {
            schedule.trigger(&"a".into(), now);
        }
        if start(&mut schedule, now) == "a" {
            listed.push(second);
            schedule.on_listing_finished(&"a".into(), tags(counts.next().unwrap_or(1)), now);
        }
    }
    listed
}

/// Plays webhooks every `gap` milliseconds for `span`; each listing takes `takes`. Returns the starts.
fn burst(gap: u64, span: u64, takes: u64, has_news: bool) -> Vec<u64> {
    let mut schedule = schedule(1, &["a"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
    let (mut ends, mut listed, mut count) = (None, Vec::new(), 1);
    for milli in 10_000..10_000 + span * 2 {
        let now = at(Duration::from_millis(milli));
        if ends == Some(milli) {
            ends = None;
            count += usize::from(has_news);
            schedule.on_listing_finished(&"a".into(), tags(count), now);
        }
        if milli < 10_000 + span && milli % gap == 0 {
            schedule.trigger(&"a".into(), now);
        }
        if start(&mut schedule, now) == "a" {
            listed.push(milli - 10_000);
            ends = Some(milli + takes);
        }
    }
    listed
}

/// Plays a webhook during a listing that ends at 10 s; returns the seconds of the later listings.
fn after_hook_during_listing(first: bool, before: usize) -> Vec<u64> {
    let mut schedule = schedule(1, &["a"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    if !first {
        schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
        schedule.make_due(&"a".into());
        assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    }
    schedule.trigger(&"a".into(), at(Duration::from_secs(9)));
    schedule.on_listing_finished(&"a".into(), tags(before), at(Duration::from_secs(10)));
    let mut listed = Vec::new();
    for second in 10..600 {
        let now = at(Duration::from_secs(second));
        if start(&mut schedule, now) == "a" {
            listed.push(second);
            schedule.on_listing_finished(&"a".into(), tags(before), now);
        }
    }
    listed
}

#[test]
fn webhook_whose_listing_fails_keeps_its_urgency() {
    let mut schedule = schedule(1, &["a"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
    assert!(schedule.trigger(&"a".into(), Moment::ZERO));
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    schedule.on_listing_finished(&"a".into(), Err(error("no route", None)), Moment::ZERO);
    let retry = schedule.next_deadline().unwrap();
    for expected in [true, false] {
        assert_eq!(start(&mut schedule, retry), if expected { "a" } else { "" });
        if expected {
            assert_eq!(schedule.on_listing_finished(&"a".into(), tags(1), retry), Some(true));
        }
    }
}

#[test]
fn webhook_before_its_tag_lists_again_until_the_tag_appears() {
    assert_eq!(hook_listings(&[1, 1, 1, 1], &[10]), [10, 15, 45, 165]);
    assert_eq!(hook_listings(&[2], &[10]), [10]);
    assert_eq!(hook_listings(&[1, 2, 2], &[10]), [10, 15]);
    assert_eq!(hook_listings(&[1, 1, 2], &[10]), [10, 15, 45]);
    // A second webhook is as prompt as the first.
    assert_eq!(hook_listings(&[1, 2, 3], &[10, 100]), [10, 15, 100]);
    assert_eq!(hook_listings(&[1, 1, 1, 1], &[10, 50])[..4], [10, 15, 45, 50]);
}

#[test]
fn webhook_during_a_listing_is_not_answered_by_its_news() {
    let mut schedule = schedule(1, &["a"]);
    let second = |seconds| at(Duration::from_secs(seconds));
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    assert!(schedule.trigger(&"a".into(), second(1)));
    schedule.on_listing_finished(&"a".into(), tags(2), second(2));
    let mut listed = Vec::new();
    for now in 2..600 {
        if start(&mut schedule, second(now)) == "a" {
            listed.push(now);
            schedule.on_listing_finished(&"a".into(), tags(2), second(now));
        }
    }
    assert_eq!(listed, [2, 7, 37, 157]);
}

#[test]
fn burst_of_webhooks_causes_four_listings() {
    assert_eq!(hook_listings(&[1, 1, 1, 1], &[10; 50]), [10, 15, 45, 165]);
    let around_the_first: Vec<u64> = [[10; 20], [11; 20]].concat();
    assert_eq!(hook_listings(&[1, 1, 1, 1], &around_the_first), [10, 11, 41, 161]);
    assert_eq!(hook_listings(&[1, 2], &around_the_first), [10, 11]);
    // Within a second of the last listing, a webhook waits for the end of that second.
    let mut schedule = schedule(1, &["a"]);
    let millis = |millis| at(Duration::from_millis(millis));
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
    assert!(schedule.trigger(&"a".into(), millis(9_000)));
    assert_eq!(start(&mut schedule, millis(9_000)), "a");
    schedule.on_listing_finished(&"a".into(), tags(1), millis(9_010));
    assert!(schedule.trigger(&"a".into(), millis(9_020)));
    assert!(!schedule.trigger(&"a".into(), millis(9_030)));
    assert_eq!(start(&mut schedule, millis(9_030)), "");
    assert_eq!(schedule.next_deadline(), Some(millis(10_010)));
    assert_eq!(start(&mut schedule, millis(10_010)), "a");
}

#[test]
fn webhook_whose_listings_fail_is_repeated_as_soon() {
    let mut schedule = schedule(1, &["a"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
    let mut now = at(Duration::from_secs(10));
    assert!(schedule.trigger(&"a".into(), now));
    let mut waits = Vec::new();
    for _ in 0..4 {
        assert_eq!(start(&mut schedule, now), "a");
        schedule.on_listing_finished(&"a".into(), Err(error("no route", None)), now);
        let next = schedule.next_deadline().unwrap();
        waits.push(next.saturating_since(now).as_secs());
        now = next;
    }
    assert_eq!(waits[..3], [5, 30, 120]);
    assert!(waits[3] > 120, "{waits:?}");
}

#[test]
fn webhook_during_a_listing_outlives_a_drop_of_its_recipe() {
    let mut schedule = schedule(1, &["a"]);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    assert!(schedule.trigger(&"a".into(), Moment::ZERO));
    schedule.watch(roster(&[]), Moment::ZERO);
    schedule.watch(roster(&["a"]), Moment::ZERO);
    schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    assert_eq!(schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO), Some(true));
}

#[test]
fn webhooks_during_listings_keep_their_spacing() {
    let listed = burst(20, 1000, 50, false);
    assert!(listed.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{listed:?}");
}

#[test]
fn webhooks_with_news_keep_their_spacing() {
    let listed = burst(20, 1000, 5, true);
    assert!(listed.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{listed:?}");
}

#[test]
fn webhooks_of_a_long_burst_keep_their_spacing() {
    let listed = burst(500, 10_000, 5, false);
    assert!(listed.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{listed:?}");
}

#[test]
fn webhook_during_a_regular_listing_is_repeated_as_any_other() {
    assert_eq!(after_hook_during_listing(false, 1), [10, 15, 45, 165]);
}

#[test]
fn webhook_during_the_first_listing_is_repeated_as_any_other() {
    assert_eq!(after_hook_during_listing(true, 1), [10, 15, 45, 165]);
}

#[test]
fn webhook_during_a_listing_with_older_news_is_repeated_as_any_other() {
    assert_eq!(after_hook_during_listing(false, 2), [10, 15, 45, 165]);
}

#[test]
fn webhook_goes_ahead_and_coalesces() {
    let mut schedule = schedule(1, &["a", "b", "c"]);
    assert!(schedule.trigger(&"c".into(), Moment::ZERO));
    assert!(!schedule.trigger(&"c".into(), Moment::ZERO), "it was about to be polled");
    assert!(!schedule.trigger(&"unknown".into(), Moment::ZERO));
    assert_eq!(start(&mut schedule, Moment::ZERO), "c");
    // Hooks during a listing ask for one more.
    assert!(schedule.trigger(&"c".into(), Moment::ZERO));
    assert!(!schedule.trigger(&"c".into(), Moment::ZERO));
    assert_eq!(schedule.on_listing_finished(&"c".into(), tags(1), Moment::ZERO), Some(true));
    assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    schedule.on_listing_finished(&"a".into(), tags(1), Moment::ZERO);
    let second = at(Duration::from_secs(1));
    assert_eq!(start(&mut schedule, second), "c");
    assert_eq!(schedule.on_listing_finished(&"c".into(), tags(1), second), Some(true));
    assert_eq!(start(&mut schedule, second), "b");
}
