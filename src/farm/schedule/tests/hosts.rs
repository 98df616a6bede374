//! Hosts that upstreams share: their part of the pool, their pauses, their silence.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::farm::schedule::hosts::{GIVEN_UP_AFTER, JOBS_PER_HOST, SWEEP_PATIENCE};

#[test]
fn host_with_many_upstreams_gets_a_few_listings_at_a_time() {
    let urls: Vec<String> = (0..6).map(|n| format!("https://Big.example:8443/{n}")).collect();
    let mut urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    urls.extend(["https://small.example/x", "/srv/local/a", "/srv/local/b"]);
    let mut schedule = schedule(8, &urls);
    let started = schedule.start_due(Moment::ZERO).start;
    assert_eq!(started.len(), 7, "{started:?}");
    assert_eq!(started.iter().filter(|url| url.secret_text().contains("Big")).count(), JOBS_PER_HOST);
    schedule.on_listing_finished(&urls[0].into(), tags(1), Moment::ZERO);
    assert_eq!(start(&mut schedule, Moment::ZERO), urls[4]);
}

#[test]
fn host_in_a_pause_is_not_listed_and_delays_no_other() {
    let now = Moment::ZERO;
    let mut schedule = schedule(1, &["https://a.example/1", "https://a.example/2", "https://b.example/1"]);
    assert_eq!(start(&mut schedule, now), "https://a.example/1");
    let busy = error("429", Some(Duration::from_mins(7)));
    schedule.on_listing_finished(&"https://a.example/1".into(), Err(busy), now);
    assert_eq!(start(&mut schedule, now), "https://b.example/1");
    schedule.on_listing_finished(&"https://b.example/1".into(), tags(1), now);
    assert_eq!(start(&mut schedule, now), "");
    let woken = schedule.next_deadline().unwrap();
    assert!(woken <= at(Duration::from_mins(7)));
    assert_eq!(start(&mut schedule, at(Duration::from_mins(7))), "https://a.example/2");
}

#[test]
fn single_sweep_gives_up_a_host_in_a_long_pause() {
    let mut schedule = Schedule::new(1, false, None);
    schedule.watch(roster(&["https://a.example/1", "https://a.example/2"]), Moment::ZERO);
    assert_eq!(start(&mut schedule, Moment::ZERO), "https://a.example/1");
    let busy = error("503", Some(HOUR));
    schedule.on_listing_finished(&"https://a.example/1".into(), Err(busy), Moment::ZERO);
    let due = schedule.start_due(Moment::ZERO);
    assert_eq!(due.start.len(), 0);
    assert_eq!(due.given_up, [("https://a.example/2".into(), "not asked: its host wants a pause")]);
    assert!(!schedule.is_quiet());
    schedule.on_listing_finished(&"https://a.example/2".into(), Err(error("paused", None)), Moment::ZERO);
    assert!(schedule.is_quiet());
    // After a reload, it does not wait either for the pause of a host that its upstream redirects
    // to.
    let mut schedule = Schedule::new(1, false, None);
    for given_up in [false, true] {
        schedule.watch(roster(&["https://a.example/1"]), Moment::ZERO);
        let due = schedule.start_due(Moment::ZERO);
        assert_eq!((due.start.is_empty(), due.given_up.len()), (given_up, usize::from(given_up)));
        let redirected_to = Some("https://b.example/x".into());
        let fault = PollFault::Busy { pause: HOUR, redirected_to };
        let busy = PollError { reason: "429".into(), fault };
        schedule.on_listing_finished(&"https://a.example/1".into(), Err(busy), Moment::ZERO);
    }
}

#[test]
fn deadline_after_the_end_of_a_pause_is_in_the_past() {
    let mut schedule = schedule(1, &["https://a.example/1", "https://a.example/2"]);
    start(&mut schedule, Moment::ZERO);
    let busy = error("429", Some(Duration::from_mins(1)));
    schedule.on_listing_finished(&"https://a.example/1".into(), Err(busy), Moment::ZERO);
    assert_eq!(start(&mut schedule, at(Duration::from_millis(59_999))), "");
    // The pause is over by now: a deadline in the past wakes the farm at once.
    assert_eq!(schedule.next_deadline(), Some(at(Duration::from_mins(1))));
}

#[test]
fn pause_of_a_redirect_target_is_not_the_redirecting_host_s() {
    let minutes = |minutes| at(Duration::from_mins(minutes));
    let second = at(Duration::from_secs(1));
    let now = Moment::ZERO;
    let mut schedule = schedule(1, &["https://a.example/1", "https://a.example/2", "https://b.example/1"]);
    assert_eq!(start(&mut schedule, now), "https://a.example/1");
    let redirected_to = Some("https://B.example:8443/x".into());
    let fault = PollFault::Busy { pause: Duration::from_mins(7), redirected_to };
    let busy = PollError { reason: "429".into(), fault };
    schedule.on_listing_finished(&"https://a.example/1".into(), Err(busy), now);
    assert_eq!(start(&mut schedule, now), "https://a.example/2");
    schedule.on_listing_finished(&"https://a.example/2".into(), tags(1), now);
    assert_eq!(start(&mut schedule, now), "", "b.example wants a pause");
    // The upstream that redirects there waits for the same pause.
    assert_eq!(schedule.state(&"https://a.example/1".into()).unwrap().next, Some(minutes(7)));
    assert_eq!(schedule.next_deadline(), Some(minutes(7)));
    schedule.watch(roster(&["https://a.example/1", "https://a.example/2", "https://b.example/1"]), second);
    assert_eq!(start(&mut schedule, second), "https://a.example/2", "nor after a reload");
    schedule.on_listing_finished(&"https://a.example/2".into(), tags(1), second);
    assert_eq!(start(&mut schedule, second), "");
    assert_eq!(start(&mut schedule, minutes(7)), "https://b.example/1");
}

#[test]
fn webhook_keeps_a_pause_and_ends_the_wait_after_a_failure() {
    const REDIRECTING: &str = "https://a.example/1";
    let (url, second, hour) = (UpstreamUrl::from(REDIRECTING), at(Duration::from_secs(1)), at(HOUR));
    let fault = PollFault::Busy { pause: HOUR, redirected_to: Some("https://b.example/x".into()) };
    let busy = PollError { reason: "429".into(), fault };
    let ask: [&dyn Fn(&mut Schedule); 3] = [
        &|schedule| assert!(schedule.trigger(&REDIRECTING.into(), Moment::ZERO)),
        &|schedule| schedule.make_due(&REDIRECTING.into()),
        &|schedule| schedule.watch(roster(&[REDIRECTING]), second),
    ];
    for (number, ask) in ask.iter().enumerate() {
        let mut schedule = schedule(1, &[REDIRECTING]);
        assert_eq!(start(&mut schedule, Moment::ZERO), REDIRECTING);
        schedule.on_listing_finished(&url, Err(busy.clone()), Moment::ZERO);
        ask(&mut schedule);
        assert_eq!(start(&mut schedule, second), "", "{number}");
        assert_eq!(schedule.next_deadline(), Some(hour), "{number}");
        assert_eq!(start(&mut schedule, hour), REDIRECTING, "{number}");
        // A webhook repeats a listing that failed without a pause at once.
        schedule.on_listing_finished(&url, Err(error("no route", None)), hour);
        assert_eq!(start(&mut schedule, hour), "", "{number}");
        let later = at(HOUR * 2);
        assert!(schedule.trigger(&url, later));
        assert_eq!(start(&mut schedule, later), REDIRECTING, "{number}");
    }
}

#[test]
fn hosts_without_upstreams_are_forgotten() {
    let mut schedule = Schedule::new(1, true, None);
    for n in 0..50 {
        schedule.watch(roster(&[&format!("https://{n}.example/x")]), Moment::ZERO);
        assert_eq!(schedule.hosts.len(), 1);
    }
    let mut now = Moment::ZERO;
    for n in 0..50 {
        let url = schedule.start_due(now).start.remove(0);
        let fault = PollFault::Busy {
            pause: HOUR,
            redirected_to: Some((*format!("https://{n}.example.org/x")).into()),
        };
        schedule.on_listing_finished(&url, Err(PollError { reason: "429".into(), fault }), now);
        now = schedule.next_deadline().unwrap();
        assert!(schedule.hosts.len() <= 3, "{:?}", schedule.hosts);
    }
    schedule.watch(roster(&["/srv/local"]), now + HOUR);
    schedule.start_due(now + HOUR);
    assert_eq!(schedule.hosts.len(), 1, "{:?}", schedule.hosts);
    // A pause lasts even if the recipes that led to it come and go.
    schedule.watch(roster(&["https://a.example/1"]), now);
    start(&mut schedule, now);
    schedule.on_listing_finished(&"https://a.example/1".into(), Err(error("429", Some(HOUR))), now);
    schedule.watch(roster(&[]), now);
    schedule.watch(roster(&["https://a.example/1"]), now);
    assert_eq!(start(&mut schedule, now), "");
    assert_eq!(schedule.next_deadline(), Some(now + HOUR));
}

#[test]
fn single_sweep_waits_for_short_pauses_up_to_its_patience() {
    let urls: Vec<String> = (0..9).map(|n| format!("https://a.example/{n}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    // The length of each pause in seconds, and how many upstreams the sweep lists in spite of it.
    for (pause, asked) in [(1, 9), (20, 4), (29, 3), (30, 3), (31, 2), (60, 2), (61, 1)] {
        let mut schedule = Schedule::new(1, false, None);
        schedule.watch(roster(&urls), Moment::ZERO);
        let (mut now, mut count, mut given_up) = (Moment::ZERO, 0, 0);
        while !schedule.is_quiet() {
            let due = schedule.start_due(now);
            for url in &due.start {
                count += 1;
                let busy = error("429", Some(Duration::from_secs(pause)));
                schedule.on_listing_finished(url, Err(busy), now);
            }
            for (url, _) in &due.given_up {
                given_up += 1;
                schedule.on_listing_finished(url, Err(error("paused", None)), now);
            }
            if due == Due::default() {
                now = schedule.next_deadline().expect("an end of the pause").max(now);
            }
        }
        assert_eq!((count, given_up), (asked, 9 - asked), "pauses of {pause} s");
        assert!(now <= at(SWEEP_PATIENCE), "{now:?}");
    }
}

/// Lists `urls`; a listing takes a second, on a dead host a minute. Returns when each ended, and
/// how many were given up.
fn simulate(workers: usize, repeats: bool, urls: &[&str]) -> (BTreeMap<UpstreamUrl, Moment>, usize) {
    let mut schedule = Schedule::new(workers, repeats, None);
    schedule.watch(roster(urls), Moment::ZERO);
    let (mut now, mut running, mut done, mut given_up) = (Moment::ZERO, Vec::new(), BTreeMap::new(), 0);
    while done.len() + given_up < urls.len() {
        let due = schedule.start_due(now);
        for (url, reason) in &due.given_up {
            schedule.on_listing_finished(url, Err(error(reason, None)), now);
        }
        given_up += due.given_up.len();
        for url in due.start {
            let takes = if is_dead(&url) { 60 } else { 1 };
            running.push((now + Duration::from_secs(takes), url));
        }
        if !due.given_up.is_empty() {
            continue;
        }
        running.sort();
        let (end, url) = running.remove(0);
        now = end;
        let result = if is_dead(&url) { silence() } else { tags(1) };
        schedule.on_listing_finished(&url, result, now);
        done.entry(url).or_insert(now);
    }
    (done, given_up)
}

fn is_dead(url: &UpstreamUrl) -> bool {
    url.host().is_some_and(|host| host.contains("dead"))
}

fn silence() -> Result<Listing, PollError> {
    Err(PollError { reason: "no answer".into(), fault: PollFault::NoAnswer })
}

#[test]
fn dead_hosts_do_not_delay_the_others() {
    let numbered = |host: &str| (0..9).map(|n| format!("https://{host}.example/{n}")).collect::<Vec<_>>();
    let urls = [numbered("a-dead"), numbered("b-dead"), numbered("good"), numbered("well")].concat();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    for (workers, repeats) in [(4, true), (8, true), (4, false), (8, false)] {
        let (done, given_up) = simulate(workers, repeats, &urls);
        let healthy = done.iter().filter(|(url, _)| !is_dead(url));
        let last = healthy.map(|(_, end)| *end).max().unwrap();
        assert!(last < at(Duration::from_secs(20)), "{workers} workers: {done:?}");
        let end = *done.values().max().unwrap();
        assert_eq!(given_up > 0, !repeats);
        assert!(repeats || end <= at(Duration::from_mins(5)), "the sweep took {end:?}");
    }
}

#[test]
fn silent_host_gets_one_listing_at_a_time_until_one_succeeds() {
    let urls: Vec<String> = (0..20).map(|n| format!("https://a.example/{n:02}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let page = || Err(error("a page", None));
    let now = Moment::ZERO;
    let mut schedule = schedule(8, &urls);
    let mut running: VecDeque<UpstreamUrl> = schedule.start_due(now).start.into();
    // The result of a listing, and how many run afterwards.
    let steps: [(Result<Listing, PollError>, usize); 10] = [
        (silence(), 4),
        (tags(1), 4),
        (silence(), 4),
        (silence(), 3),
        (page(), 2),
        (silence(), 1),
        (silence(), 1),
        (page(), 1),
        (silence(), 1),
        (tags(1), 4),
    ];
    for (number, (result, expected)) in steps.into_iter().enumerate() {
        let url = running.pop_front().unwrap();
        schedule.on_listing_finished(&url, result, now);
        running.extend(schedule.start_due(now).start);
        assert_eq!(running.len(), expected, "after step {number}");
        // A waiter for a place sets no deadline: a past one would wake the farm without an end.
        assert!(schedule.next_deadline().is_none_or(|deadline| deadline > now), "after step {number}");
    }
}

#[test]
fn blameless_host_keeps_its_share_and_is_not_given_up() {
    let urls: Vec<String> = (0..20).map(|n| format!("https://a.example/{n:02}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    // For example, a redirect to a host that does not answer.
    let blameless = || Err(error("no answer", None));
    for repeats in [true, false] {
        let mut schedule = Schedule::new(8, repeats, None);
        schedule.watch(roster(&urls), Moment::ZERO);
        let mut running: VecDeque<UpstreamUrl> = schedule.start_due(Moment::ZERO).start.into();
        let mut step = |result: Result<Listing, PollError>, expected: usize| {
            schedule.on_listing_finished(&running.pop_front().unwrap(), result, Moment::ZERO);
            let due = schedule.start_due(Moment::ZERO);
            assert_eq!(due.given_up, []);
            running.extend(due.start);
            assert_eq!(running.len(), expected, "{repeats}");
        };
        for _ in 0..12 {
            step(blameless(), JOBS_PER_HOST);
        }
        step(silence(), 4);
        step(blameless(), 4);
        step(silence(), 3);
    }
}

#[test]
fn single_sweep_gives_up_a_silent_host() {
    let urls: Vec<String> = (0..200).map(|n| format!("https://dead.example/{n}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let (done, given_up) = simulate(8, false, &urls);
    assert_eq!((done.len(), given_up), (GIVEN_UP_AFTER as usize, 194));
    assert!(*done.values().max().unwrap() <= at(Duration::from_mins(3)));
}

#[test]
fn host_silent_once_is_listed_under_full_load_and_first_after_a_webhook() {
    const ONCE_SILENT: &str = "https://h.example/a";
    let urls: Vec<String> = (0..100).map(|n| format!("https://busy{n}.example/x")).collect();
    let mut urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    urls.push(ONCE_SILENT);
    let mut schedule = Schedule::new(1, true, None);
    let minutely = urls.iter().map(|url| (UpstreamUrl::from(*url), Duration::from_mins(1)));
    schedule.watch(minutely.collect(), Moment::ZERO);
    let (mut now, mut listed) = (Moment::ZERO, Vec::new());
    // One worker cannot keep up: somebody waits for it always.
    while now < at(HOUR) {
        let url = schedule.start_due(now).start.pop().expect("a waiter");
        now += Duration::from_millis(700);
        let is_first = url == ONCE_SILENT.into() && listed.is_empty();
        if url == ONCE_SILENT.into() {
            listed.push(now);
        }
        schedule.on_listing_finished(&url, if is_first { silence() } else { tags(1) }, now);
        if listed.len() == 1 && is_first {
            assert!(schedule.trigger(&ONCE_SILENT.into(), Moment::ZERO));
            assert_eq!(start(&mut schedule, now), ONCE_SILENT, "the webhook goes first");
            schedule.on_listing_finished(&ONCE_SILENT.into(), silence(), now);
        }
    }
    assert!(listed.len() > 20, "{listed:?}");
}
