//! When each upstream is listed: at the start, after a reload, on its interval,
//! after a webhook; never twice at a time, and never more at once than the pool
//! has workers. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::backoff;

/// A point in time: what a monotonic clock shows since the farm was started.
pub type Moment = Duration;

/// The polls of all upstreams.
#[derive(Debug)]
pub struct Schedule {
    /// How many listings may run at once.
    workers: usize,
    /// Whether upstreams are polled again after their first time.
    repeats: bool,
    running: usize,
    upstreams: BTreeMap<Arc<str>, Upstream>,
    /// The upstreams in [`Phase::Waiting`], the next one first.
    waiting: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Upstream {
    interval: Duration,
    /// The next regular poll.
    due: Moment,
    phase: Phase,
    /// Whether the poll that waits or runs was asked for by a webhook.
    urgent: bool,
    /// Failed listings in a row.
    failures: u32,
    last: Option<(Moment, Result<usize, String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Waiting,
    Listing,
    /// Being listed, but a webhook has come since: what it told of may be missing from the answer.
    ListingStale,
    /// Being listed, but no recipe wants the answer any more.
    ListingDropped,
}

/// How the polls of one upstream stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollState {
    /// When the last listing ended, and the number of tags or what went wrong.
    pub last: Option<(Moment, Result<usize, String>)>,
    /// When the next one is due; `None` while one waits or runs.
    pub next: Option<Moment>,
}

impl Schedule {
    /// An empty schedule for a pool of `workers` threads. Without `repeats`, every
    /// upstream is polled once after each [`Schedule::watch`] and no more.
    pub fn new(workers: usize, repeats: bool) -> Self {
        Self { workers, repeats, running: 0, upstreams: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Watches exactly these upstreams from now on, each with its interval, and
    /// asks for a poll of every one of them.
    pub fn watch(&mut self, wanted: BTreeMap<Arc<str>, Duration>) {
        self.waiting.retain(|url| wanted.contains_key(url));
        self.upstreams.retain(|url, upstream| {
            if !wanted.contains_key(url) && upstream.is_listing() {
                upstream.phase = Phase::ListingDropped;
            }
            wanted.contains_key(url) || upstream.is_listing()
        });
        for (url, interval) in wanted {
            let upstream = self.upstreams.entry(url.clone()).or_insert(Upstream {
                interval,
                due: Moment::ZERO,
                phase: Phase::Idle,
                urgent: false,
                failures: 0,
                last: None,
            });
            upstream.interval = interval;
            match upstream.phase {
                Phase::Idle => {
                    upstream.phase = Phase::Waiting;
                    self.waiting.push_back(url);
                }
                Phase::ListingDropped => upstream.phase = Phase::Listing,
                Phase::Waiting | Phase::Listing | Phase::ListingStale => {}
            }
        }
    }

    /// A webhook has told of news: polls `url` before all others. Returns whether
    /// that asks for a poll that was not about to happen anyway.
    pub fn trigger(&mut self, url: &Arc<str>) -> bool {
        let Some(upstream) = self.upstreams.get_mut(url) else { return false };
        let coalesced = upstream.urgent && upstream.phase == Phase::Waiting;
        match upstream.phase {
            Phase::Idle | Phase::Waiting if !coalesced => {
                upstream.phase = Phase::Waiting;
                upstream.urgent = true;
                self.waiting.retain(|other| other != url);
                let behind = |other: &Arc<str>| !self.upstreams[other].urgent;
                let place = self.waiting.iter().position(behind).unwrap_or(self.waiting.len());
                self.waiting.insert(place, url.clone());
                true
            }
            Phase::Listing => {
                upstream.phase = Phase::ListingStale;
                true
            }
            _ => false,
        }
    }

    /// The upstreams to list now; each is then being listed until [`Schedule::finished`].
    pub fn start_due(&mut self, now: Moment) -> Vec<Arc<str>> {
        for (url, upstream) in &mut self.upstreams {
            if upstream.phase == Phase::Idle && upstream.due <= now {
                upstream.phase = Phase::Waiting;
                self.waiting.push_back(url.clone());
            }
        }
        let free = self.workers.saturating_sub(self.running).min(self.waiting.len());
        let started: Vec<_> = self.waiting.drain(..free).collect();
        self.running += started.len();
        for url in &started {
            // Whatever waits is watched: `watch` drops the others from both at once.
            if let Some(upstream) = self.upstreams.get_mut(url) {
                upstream.phase = Phase::Listing;
            }
        }
        started
    }

    /// Notes the end of a listing. Returns whether a webhook had asked for it,
    /// or `None` when nobody wants the answer any more.
    pub fn finished(&mut self, url: &Arc<str>, result: Result<usize, String>, now: Moment) -> Option<bool> {
        self.running = self.running.saturating_sub(1);
        let upstream = self.upstreams.get_mut(url)?;
        if upstream.phase == Phase::ListingDropped {
            self.upstreams.remove(url);
            return None;
        }
        let was_urgent = std::mem::take(&mut upstream.urgent);
        let regular = next_slot(url, upstream.interval, now);
        if !self.repeats {
            upstream.due = Moment::MAX;
        } else if result.is_ok() {
            upstream.failures = 0;
            upstream.due = regular;
        } else {
            upstream.failures += 1;
            upstream.due = regular.min(now + backoff::wait_after(upstream.failures));
        }
        upstream.last = Some((now, result));
        let again = upstream.phase == Phase::ListingStale;
        upstream.phase = Phase::Idle;
        if again {
            self.trigger(url);
        }
        Some(was_urgent)
    }

    /// When the next regular poll falls due; `None` while no idle upstream is watched.
    pub fn next_deadline(&self) -> Option<Moment> {
        let idle = self.upstreams.values().filter(|upstream| upstream.phase == Phase::Idle);
        idle.map(|upstream| upstream.due).filter(|due| *due < Moment::MAX).min()
    }

    /// Whether no poll waits or runs.
    pub fn is_quiet(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// Whether no poll runs.
    pub fn nothing_runs(&self) -> bool {
        self.running == 0
    }

    /// How the polls of `url` stand, if it is watched.
    pub fn state(&self, url: &str) -> Option<PollState> {
        let upstream = self.upstreams.get(url)?;
        let next = (upstream.phase == Phase::Idle).then_some(upstream.due);
        Some(PollState { last: upstream.last.clone(), next })
    }
}

impl Upstream {
    fn is_listing(&self) -> bool {
        matches!(self.phase, Phase::Listing | Phase::ListingStale | Phase::ListingDropped)
    }
}

/// The first regular poll after `now`. Every upstream has slots of its own, an
/// interval apart and shifted by a hash of its URL: stable over polls, and
/// different from its neighbours', so that the polls of a farm spread out.
fn next_slot(url: &str, interval: Duration, now: Moment) -> Moment {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    let interval = interval.max(Duration::from_millis(1)).as_millis();
    let offset = u128::from(hasher.finish()) % interval;
    let now = now.as_millis();
    let past_slots = (now + interval - offset) / interval;
    let next = offset + past_slots * interval;
    Moment::from_millis(u64::try_from(next).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn schedule(workers: usize, urls: &[&str]) -> Schedule {
        let mut schedule = Schedule::new(workers, true);
        schedule.watch(roster(urls));
        schedule
    }

    fn roster(urls: &[&str]) -> BTreeMap<Arc<str>, Duration> {
        urls.iter().map(|url| (Arc::from(*url), HOUR)).collect()
    }

    fn start(schedule: &mut Schedule, now: Moment) -> String {
        schedule.start_due(now).join(" ")
    }

    #[test]
    fn everything_is_polled_at_once_but_no_more_than_the_pool_takes() {
        let mut schedule = schedule(2, &["a", "b", "c"]);
        assert_eq!(start(&mut schedule, Moment::ZERO), "a b");
        assert_eq!(start(&mut schedule, Moment::ZERO), "");
        assert_eq!(schedule.finished(&"b".into(), Ok(3), Moment::ZERO), Some(false));
        assert_eq!(start(&mut schedule, Moment::ZERO), "c");
        assert!(!schedule.is_quiet());
        for url in ["a", "c"] {
            schedule.finished(&url.into(), Ok(0), Moment::ZERO);
        }
        assert!(schedule.is_quiet());
    }

    #[test]
    fn over_ten_days_each_upstream_is_polled_once_an_interval_and_not_all_together() {
        let urls: Vec<String> = (0..50).map(|n| format!("https://example.org/{n}")).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let mut schedule = schedule(8, &urls);
        let mut now = Moment::ZERO;
        let mut polls: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let mut most_at_once = 0;
        while now < HOUR * 240 {
            loop {
                let started = schedule.start_due(now);
                if started.is_empty() {
                    break;
                }
                if now > HOUR {
                    most_at_once = most_at_once.max(started.len());
                }
                for url in started {
                    *polls.entry(url.clone()).or_default() += 1;
                    schedule.finished(&url, Ok(1), now);
                }
            }
            now = schedule.next_deadline().unwrap();
        }
        assert!(polls.values().all(|count| (240..=241).contains(count)), "{polls:?}");
        assert!(most_at_once <= 2, "{most_at_once} upstreams were due in one millisecond");
    }

    #[test]
    fn a_webhook_goes_ahead_and_coalesces() {
        let mut schedule = schedule(1, &["a", "b", "c"]);
        assert!(schedule.trigger(&"c".into()));
        assert!(!schedule.trigger(&"c".into()), "it was about to be polled");
        assert!(!schedule.trigger(&"unknown".into()));
        assert_eq!(start(&mut schedule, Moment::ZERO), "c");
        // News that come while it is being listed need another look, but only one.
        assert!(schedule.trigger(&"c".into()));
        assert!(!schedule.trigger(&"c".into()));
        assert_eq!(schedule.finished(&"c".into(), Ok(1), Moment::ZERO), Some(true));
        assert_eq!(start(&mut schedule, Moment::ZERO), "c");
        assert_eq!(schedule.finished(&"c".into(), Ok(1), Moment::ZERO), Some(true));
        assert_eq!(start(&mut schedule, Moment::ZERO), "a");
    }

    #[test]
    fn a_failed_listing_is_repeated_early_and_then_less_often() {
        let mut schedule = schedule(1, &["a"]);
        let mut now = Moment::ZERO;
        let mut waits = Vec::new();
        for _ in 0..4 {
            assert_eq!(start(&mut schedule, now), "a");
            schedule.finished(&"a".into(), Err("no route".into()), now);
            let next = schedule.next_deadline().unwrap();
            waits.push(next.checked_sub(now).unwrap().as_secs() / 60);
            now = next;
        }
        assert!(waits[0] <= 1 && waits[1] <= 5 && waits[2] <= 15 && waits[3] <= 60, "{waits:?}");
        assert_eq!(schedule.state("a").unwrap().last.unwrap().1, Err("no route".into()));
    }

    #[test]
    fn a_reload_polls_everything_once_and_forgets_what_is_gone() {
        let mut schedule = schedule(2, &["a", "b", "c"]);
        assert_eq!(start(&mut schedule, Moment::ZERO), "a b");
        schedule.watch(roster(&["b", "d"]));
        assert_eq!(schedule.finished(&"a".into(), Ok(1), Moment::ZERO), None);
        assert_eq!(start(&mut schedule, Moment::ZERO), "d");
        assert_eq!(schedule.finished(&"b".into(), Ok(1), Moment::ZERO), Some(false));
        schedule.finished(&"d".into(), Ok(1), Moment::ZERO);
        assert!(schedule.is_quiet());
        for _ in 0..100 {
            schedule.watch(roster(&["b", "d"]));
        }
        assert_eq!(start(&mut schedule, Moment::ZERO), "b d");
        // Dropped and taken up again while it is being listed: the answer counts.
        schedule.watch(roster(&["d"]));
        schedule.watch(roster(&["b", "d"]));
        assert_eq!(schedule.finished(&"b".into(), Ok(1), Moment::ZERO), Some(false));
    }

    #[test]
    fn a_single_sweep_polls_nothing_twice() {
        let mut schedule = Schedule::new(4, false);
        schedule.watch(roster(&["a", "b"]));
        assert_eq!(start(&mut schedule, Moment::ZERO), "a b");
        schedule.finished(&"a".into(), Ok(1), Moment::ZERO);
        schedule.finished(&"b".into(), Err("gone".into()), Moment::ZERO);
        assert_eq!(schedule.next_deadline(), None);
        assert_eq!(start(&mut schedule, HOUR * 1000), "");
    }

    #[test]
    fn slots_lie_in_the_future_and_an_interval_apart() {
        for now in [0, 1, 3_599_999, 3_600_000, 86_400_000] {
            let now = Moment::from_millis(now);
            let next = next_slot("https://example.org/x", HOUR, now);
            assert!(next > now && next <= now + HOUR, "{now:?} {next:?}");
            assert_eq!(next_slot("https://example.org/x", HOUR, next), next + HOUR);
        }
    }
}
