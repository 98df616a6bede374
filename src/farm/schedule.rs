//! Decides when each upstream is listed: at the start, after a reload, on its interval and after a
//! webhook. An upstream has one listing at a time, the pool as many as it has workers, one host a
//! few of them, and a host that asked for a pause none until the pause ends. Hosts that do not
//! answer let others go first for a minute, so that they delay them little. Pure.

mod hosts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::farm::backoff;
use crate::farm::events::{PollError, PollFault};
use crate::farm::moment::Moment;
use crate::farm::schedule::hosts::{Hosts, Turn, Waiter};
use crate::recipe::upstream_url::UpstreamUrl;

/// The polls of all upstreams.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// How many listings may run at once.
    workers: usize,
    /// Whether upstreams are polled again after their first time.
    repeats: bool,
    /// Shuffles the first polls; `None` keeps the order of the URLs.
    order_seed: Option<u64>,
    /// How many listings run.
    running: usize,
    upstreams: BTreeMap<UpstreamUrl, Upstream>,
    /// The upstreams in [`Phase::Waiting`], the one that has waited longest first.
    waiting: VecDeque<Waiter>,
    hosts: Hosts,
}

/// The answer of [`Schedule::start_due`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Upstreams to list now. Each counts as running until [`Schedule::on_listing_finished`].
    pub start: Vec<UpstreamUrl>,
    /// Upstreams that this sweep does not list, and why: their hosts asked for too long a pause,
    /// or do not answer. The caller must report each with [`Schedule::on_listing_finished`]; until
    /// then it counts as running.
    pub given_up: Vec<(UpstreamUrl, &'static str)>,
}

#[derive(Debug)]
struct Upstream {
    interval: Duration,
    /// The next regular poll.
    due: Moment,
    /// Not listed before this moment: then the pause of its host, or of the host that it redirects
    /// to, ends.
    not_before: Moment,
    phase: Phase,
    /// Whether to list it once more after the listing that runs.
    again: Again,
    /// Whether no recipe watches it any more. Only its running listing keeps it here.
    is_dropped: bool,
    /// Whether a webhook asked for the poll that waits or runs, or for one that failed.
    urgent: bool,
    /// Failed listings in a row.
    failures: u32,
    /// When the last listing ended, and the number of tags or the error.
    last: Option<(Moment, Result<usize, Arc<str>>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Waiting,
    Listing,
}

/// Whether an upstream needs one more listing, since the one that runs may be older than the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Again {
    No,
    /// After a reload.
    Regular,
    /// After a webhook.
    Urgent,
}

/// The polls of one upstream, for `/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PollState {
    /// When the last listing ended, and the number of tags or the error.
    pub last: Option<(Moment, Result<usize, Arc<str>>)>,
    /// When the next one is due; `None` while one waits or runs.
    pub next: Option<Moment>,
}

impl Schedule {
    /// Creates an empty schedule for a pool of `workers` threads. Without `repeats`, it polls every
    /// upstream once after each [`Schedule::watch`] and no more.
    ///
    /// A host may answer only a few requests. With an `order_seed` that differs from start to
    /// start, no upstream is always the last one.
    pub(crate) fn new(workers: usize, repeats: bool, order_seed: Option<u64>) -> Self {
        Self {
            workers,
            repeats,
            order_seed,
            running: 0,
            upstreams: BTreeMap::new(),
            waiting: VecDeque::new(),
            hosts: Hosts::default(),
        }
    }

    /// Watches exactly these upstreams from now on, each with its interval, and asks for a poll of
    /// each.
    pub(crate) fn watch(&mut self, wanted: BTreeMap<UpstreamUrl, Duration>, now: Moment) {
        self.waiting.retain(|waiter| wanted.contains_key(&waiter.url));
        self.upstreams.retain(|url, upstream| {
            upstream.is_dropped = !wanted.contains_key(url);
            !upstream.is_dropped || upstream.phase == Phase::Listing
        });
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        if let Some(seed) = self.order_seed {
            wanted.sort_by_cached_key(|(url, _)| hash_of(&(seed, url)));
        }
        for (url, interval) in wanted {
            let upstream = self.upstreams.entry(url.clone()).or_insert_with(|| Upstream {
                interval,
                due: Moment::ZERO,
                not_before: Moment::ZERO,
                phase: Phase::Idle,
                again: Again::No,
                is_dropped: false,
                urgent: false,
                failures: 0,
                last: None,
            });
            upstream.interval = interval;
            match upstream.phase {
                Phase::Idle => {
                    self.waiting.push_back(upstream.wait(url, now));
                }
                Phase::Listing => upstream.again = upstream.again.max(Again::Regular),
                Phase::Waiting => {}
            }
        }
        self.forget_hosts(now);
    }

    /// Asks for a poll of `url` for a webhook: before all others and in spite of the wait after a
    /// failure, but not within a pause that a host asked for. Returns whether this adds a poll;
    /// a further hook before that poll does not.
    pub(crate) fn trigger(&mut self, url: &UpstreamUrl, now: Moment) -> bool {
        let Some(upstream) = self.upstreams.get_mut(url) else { return false };
        let coalesced = upstream.urgent && upstream.phase == Phase::Waiting;
        match upstream.phase {
            Phase::Idle | Phase::Waiting if !coalesced => {
                upstream.urgent = true;
                self.waiting.retain(|waiter| waiter.url != *url);
                self.waiting.push_back(upstream.wait(url.clone(), now));
                true
            }
            Phase::Listing if upstream.again < Again::Urgent => {
                upstream.again = Again::Urgent;
                true
            }
            _ => false,
        }
    }

    /// Makes the next regular poll of `url` due, unless it is being listed.
    pub(crate) fn make_due(&mut self, url: &UpstreamUrl) {
        if let Some(upstream) = self.upstreams.get_mut(url) {
            upstream.due = Moment::ZERO;
        }
    }

    /// Removes and returns the upstreams whose turn has come.
    pub(crate) fn start_due(&mut self, now: Moment) -> Due {
        for (url, upstream) in &mut self.upstreams {
            if upstream.phase == Phase::Idle && upstream.due <= now {
                self.waiting.push_back(upstream.wait(url.clone(), now));
            }
        }
        let mut due = Due::default();
        while self.running < self.workers {
            let is_probing = self.hosts.is_any_silent_listed();
            let turns =
                self.waiting.iter().map(|waiter| self.hosts.turn(waiter, self.repeats, is_probing, now));
            let found = turns.enumerate().filter_map(|(place, turn)| match turn {
                Turn::Now(rank) => Some((rank, place, None)),
                Turn::NotInThisSweep(reason) => Some(((false, false, 0), place, Some(reason))),
                Turn::At(_) | Turn::WhenOneEnds => None,
            });
            let Some((_, place, refusal)) = found.min() else { break };
            let Some(Waiter { url, .. }) = self.waiting.remove(place) else { break };
            match refusal {
                None => due.start.push(url.clone()),
                Some(reason) => due.given_up.push((url.clone(), reason)),
            }
            self.running += 1;
            self.hosts.on_listing_started(url.host());
            // Every waiter is in `upstreams`: `watch` drops an upstream from both.
            if let Some(upstream) = self.upstreams.get_mut(&url) {
                upstream.phase = Phase::Listing;
            }
        }
        due
    }

    /// Records the end of a listing. Returns whether a webhook asked for it, or `None` if no recipe
    /// watches the upstream any more.
    pub(crate) fn on_listing_finished(
        &mut self,
        url: &UpstreamUrl,
        result: Result<usize, PollError>,
        now: Moment,
    ) -> Option<bool> {
        self.running = self.running.saturating_sub(1);
        let upstream = self.upstreams.get_mut(url)?;
        self.hosts.on_listing_finished(url.host(), result.as_ref().err().map(|error| &error.fault));
        let mut redirects = false;
        if let Err(PollError { fault: PollFault::Busy { pause, redirected_to }, .. }) = &result {
            upstream.not_before = now + *pause;
            redirects = redirected_to.is_some();
            if let Some(answering) = redirected_to.as_ref().unwrap_or(url).host() {
                self.hosts.pause(answering.clone(), *pause, now);
            }
        }
        if upstream.is_dropped {
            self.upstreams.remove(url);
            return None;
        }
        // A failed listing keeps its urgency: the webhook's tag is still to be seen.
        let was_urgent = upstream.urgent;
        upstream.urgent &= result.is_err() && self.repeats;
        let regular = next_slot(url, upstream.interval, now);
        if !self.repeats {
            upstream.due = Moment::NEVER;
        } else if result.is_ok() {
            upstream.failures = 0;
            upstream.due = regular;
        } else {
            upstream.failures += 1;
            upstream.due = regular.min(now + backoff::wait_after(upstream.failures)).max(upstream.not_before);
        }
        upstream.last = Some((now, result.map_err(|error| Arc::from(error.reason))));
        upstream.phase = Phase::Idle;
        match std::mem::replace(&mut upstream.again, Again::No) {
            Again::No => {}
            Again::Regular => self.waiting.push_back(upstream.wait(url.clone(), now)),
            Again::Urgent => drop(self.trigger(url, now)),
        }
        if redirects {
            // Redirects may lead to new hosts each time: without this their map would only grow.
            self.forget_hosts(now);
        }
        Some(was_urgent)
    }

    /// Returns when the next poll may start without another event, if one may.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        let idle = self.upstreams.values().filter(|upstream| upstream.phase == Phase::Idle);
        let due = idle.map(|upstream| upstream.due).filter(|due| *due < Moment::NEVER);
        // The end of a listing starts the waiters for a place; only the end of a pause needs a
        // deadline.
        let has_room = self.running < self.workers;
        let pauses = self.waiting.iter().filter(|_| has_room).filter_map(|waiter| {
            // Ask with time zero: a pause that has ended since then still gives its past end, so
            // the loop wakes at once.
            match self.hosts.turn(waiter, true, false, Moment::ZERO) {
                Turn::At(end) => Some(end),
                Turn::Now(_) | Turn::WhenOneEnds | Turn::NotInThisSweep(_) => None,
            }
        });
        due.chain(pauses).min()
    }

    /// Forgets the hosts that no watched upstream has.
    fn forget_hosts(&mut self, now: Moment) {
        let used = self.upstreams.keys().filter_map(|url| url.host().cloned()).collect();
        self.hosts.retain(&used, now);
    }

    /// Whether no poll waits or runs.
    pub(crate) fn is_quiet(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// Whether a poll runs.
    pub(crate) fn has_running(&self) -> bool {
        self.running > 0
    }

    /// Returns how many upstreams were listed, successfully or not, and how many there are.
    pub(crate) fn listed(&self) -> (usize, usize) {
        (self.upstreams.values().filter(|upstream| upstream.last.is_some()).count(), self.upstreams.len())
    }

    /// Returns the state of the polls of `url`, if it is watched.
    pub(crate) fn state(&self, url: &UpstreamUrl) -> Option<PollState> {
        let upstream = self.upstreams.get(url)?;
        let next = (upstream.phase == Phase::Idle).then_some(upstream.due);
        Some(PollState { last: upstream.last.clone(), next })
    }
}

impl Upstream {
    /// Starts the wait for a listing. Returns the waiter for the queue.
    fn wait(&mut self, url: UpstreamUrl, now: Moment) -> Waiter {
        self.phase = Phase::Waiting;
        Waiter { url, since: now, not_before: self.not_before, urgent: self.urgent }
    }
}

/// Returns the first regular poll after `now`. Each upstream has its own slots, an interval apart
/// and shifted by a hash of its URL, so that the polls of a farm spread out and stay where they
/// are.
fn next_slot(url: &UpstreamUrl, interval: Duration, now: Moment) -> Moment {
    let interval = interval.max(Duration::from_millis(1)).as_millis();
    let offset = u128::from(hash_of(url)) % interval;
    let now = now.since_start().as_millis();
    let past_slots = (now + interval - offset) / interval;
    let next = offset + past_slots * interval;
    Moment::from_duration(Duration::from_millis(u64::try_from(next).unwrap_or(u64::MAX)))
}

/// Returns the same hash for equal values in every run.
fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
