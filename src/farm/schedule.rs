//! Decides when each upstream is listed: at the start, after a reload, on its interval and after a
//! webhook. An upstream has one listing at a time, the pool as many as it has workers, one host a
//! few of them, and a host that asked for a pause none until the pause ends. Hosts that do not
//! answer let others go first for a minute, so that they delay them little. Pure.
//!
//! No call looks at all upstreams but [`Schedule::watch`]: what is due, what waits and what is paused
//! lie in order.

mod hosts;
mod phase;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::sort;

use crate::farm::counted::Counted;
use crate::farm::events::{PollError, PollFault};
use crate::farm::moment::Moment;
use crate::farm::schedule::hosts::{Hosts, SWEEP_PATIENCE, Waiter};
use crate::farm::schedule::phase::{Cause, Phase};
pub(crate) use crate::farm::schedule::upstream::Listing;
pub(super) use crate::farm::schedule::upstream::hash_of;
use crate::farm::schedule::upstream::{HOOK_REPEATS, Upstream};
use crate::recipe::upstream_url::UpstreamUrl;

/// The shortest time between two listings of one upstream for webhooks. A burst of webhooks would
/// otherwise cause a listing each.
const HOOK_SPACING: Duration = Duration::from_secs(1);

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
    /// How many upstreams wait for a worker or a host.
    waiting: usize,
    /// How many upstreams were listed.
    listed: usize,
    /// The records lie outside of the table, which has much free room.
    upstreams: HashMap<UpstreamUrl, Box<Counted<Upstream>>>,
    /// The idle upstreams, the next one to poll first.
    due: BTreeSet<(Moment, UpstreamUrl)>,
    /// The waiting upstreams in a pause of their own, since they redirect to a host that asked for
    /// one. The others wait for their hosts.
    paused: BTreeSet<(Moment, UpstreamUrl)>,
    hosts: Hosts,
    /// Upstreams that this sweep does not list, and why.
    given_up: Vec<(UpstreamUrl, &'static str)>,
    /// The number of the last waiter.
    last_number: u64,
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
            waiting: 0,
            listed: 0,
            upstreams: HashMap::new(),
            due: BTreeSet::new(),
            paused: BTreeSet::new(),
            hosts: Hosts::default(),
            given_up: Vec::new(),
            last_number: 0,
        }
    }

    /// Watches exactly these upstreams from now on, each with its interval, and asks for a poll of
    /// each. They are sorted.
    pub(crate) fn watch(&mut self, mut wanted: Vec<(UpstreamUrl, Duration)>, now: Moment) {
        let is_wanted = |url: &UpstreamUrl| wanted.binary_search_by(|(wanted, _)| wanted.cmp(url)).is_ok();
        let dropped: Vec<UpstreamUrl> =
            self.upstreams.keys().filter(|url| !is_wanted(url)).cloned().collect();
        for url in dropped {
            self.drop_upstream(&url, now);
        }
        if let Some(seed) = self.order_seed {
            let place = |(url, _): &(UpstreamUrl, _)| hash_of(&(seed, url));
            sort::sort_by(&mut wanted, |a, b| place(a).cmp(&place(b)));
        }
        for (url, interval) in wanted {
            let upstream = self.upstreams.entry(url.clone()).or_insert_with(|| {
                self.hosts.watch(&url, now);
                Box::new(Counted(Upstream::new(now)))
            });
            if std::mem::take(&mut upstream.is_dropped) {
                self.hosts.watch(&url, now);
            }
            upstream.interval = interval;
            self.step(&url, Cause::Reload, now);
        }
    }

    fn drop_upstream(&mut self, url: &UpstreamUrl, now: Moment) {
        let Some(upstream) = self.upstreams.get_mut(url) else { return };
        if !std::mem::replace(&mut upstream.is_dropped, true) {
            self.hosts.unwatch(url, now);
        }
        if upstream.phase.is_listing() {
            return;
        }
        self.due.remove(&(upstream.due, url.clone()));
        self.stop_waiting(url, now);
        self.forget(url);
    }

    fn forget(&mut self, url: &UpstreamUrl) {
        let upstream = self.upstreams.remove(url);
        self.listed -= usize::from(upstream.is_some_and(|upstream| upstream.last.is_some()));
    }

    /// Asks for a poll of `url` for a webhook: before all others and in spite of the wait after a
    /// failure, but not within a pause that a host asked for. Returns whether this adds a poll;
    /// a further hook before that poll does not.
    pub(crate) fn trigger(&mut self, url: &UpstreamUrl, now: Moment) -> bool {
        let Some(upstream) = self.upstreams.get_mut(url) else { return false };
        // A burst must not use up the last listing before a late tag is visible.
        if upstream.hook_listings <= 1 {
            upstream.hook_listings = 1 + HOOK_REPEATS.len();
        }
        let soonest = upstream.hook_listed.map_or(now, |ended| ended + HOOK_SPACING);
        match upstream.phase {
            Phase::Idle if soonest > now => {
                // The last listing for a webhook has just ended.
                upstream.urgent = true;
                let is_new = upstream.due > soonest;
                if is_new {
                    self.set_due(url, soonest);
                }
                is_new
            }
            Phase::Idle => {
                upstream.urgent = true;
                self.step(url, Cause::Hook, now);
                true
            }
            Phase::Waiting if upstream.urgent => false,
            Phase::Waiting => {
                upstream.urgent = true;
                self.stop_waiting(url, now);
                self.wait(url, now);
                true
            }
            Phase::AgainUrgent => false,
            Phase::Listing | Phase::Again => {
                self.step(url, Cause::Hook, now);
                true
            }
        }
    }

    /// Makes the next regular poll of `url` due, unless it is being listed.
    pub(crate) fn make_due(&mut self, url: &UpstreamUrl) {
        self.set_due(url, Moment::ZERO);
    }

    fn set_due(&mut self, url: &UpstreamUrl, due: Moment) {
        let Some(upstream) = self.upstreams.get_mut(url) else { return };
        if upstream.phase == Phase::Idle {
            self.due.remove(&(upstream.due, url.clone()));
            self.due.insert((due, url.clone()));
        }
        upstream.due = due;
    }

    /// Changes the phase of `url` by the table, and the sets that follow from it.
    fn step(&mut self, url: &UpstreamUrl, cause: Cause, now: Moment) {
        let Some(upstream) = self.upstreams.get_mut(url) else { return };
        let (before, after, due) = (upstream.phase, upstream.phase.after(cause), upstream.due);
        upstream.phase = after;
        if before == after {
            return;
        }
        match before {
            Phase::Idle => drop(self.due.remove(&(due, url.clone()))),
            Phase::Waiting => self.stop_waiting(url, now),
            Phase::Listing | Phase::Again | Phase::AgainUrgent => {}
        }
        match after {
            Phase::Idle if due < Moment::NEVER => drop(self.due.insert((due, url.clone()))),
            Phase::Waiting => self.wait(url, now),
            _ => {}
        }
    }

    /// Starts the wait of `url` for a worker and for its host.
    fn wait(&mut self, url: &UpstreamUrl, now: Moment) {
        let Some(upstream) = self.upstreams.get_mut(url) else { return };
        self.last_number += 1;
        let waiter =
            Waiter { is_ordinary: !upstream.urgent, number: self.last_number, since: now, url: url.clone() };
        upstream.waiter = Some(waiter.clone());
        self.waiting += 1;
        let pause = upstream.not_before.saturating_since(now);
        if !self.repeats && pause > SWEEP_PATIENCE {
            self.given_up.push((url.clone(), "not asked: its host wants a pause"));
        } else if pause.is_zero() {
            self.hosts.add(waiter, now);
        } else {
            self.paused.insert((upstream.not_before, url.clone()));
        }
    }

    /// Ends the wait of `url`, if it waits.
    fn stop_waiting(&mut self, url: &UpstreamUrl, now: Moment) {
        let Some(upstream) = self.upstreams.get_mut(url) else { return };
        let Some(waiter) = upstream.waiter.take() else { return };
        self.waiting -= 1;
        if !self.hosts.remove(&waiter, now) && !self.paused.remove(&(upstream.not_before, url.clone())) {
            self.given_up.retain(|(other, _)| other != url);
        }
    }

    /// Removes and returns the upstreams whose turn has come.
    pub(crate) fn start_due(&mut self, now: Moment) -> Due {
        while let Some((_, url)) = self.due.first().filter(|(due, _)| *due <= now).cloned() {
            self.step(&url, Cause::Due, now);
        }
        self.hosts.end_pauses(now);
        while let Some((end, url)) = self.paused.first().filter(|(end, _)| *end <= now).cloned() {
            self.paused.remove(&(end, url.clone()));
            let upstream = self.upstreams.get(&url);
            if let Some(waiter) = upstream.and_then(|upstream| upstream.waiter.clone()) {
                self.hosts.add(waiter, now);
            }
        }
        let mut due = Due::default();
        while self.running < self.workers {
            let given_up = self.given_up.last().cloned();
            let (url, refusal) = match given_up {
                Some((url, reason)) => (url, Some(reason)),
                None => match self.hosts.next(now) {
                    Some(waiter) => (waiter.url.clone(), None),
                    None => break,
                },
            };
            self.step(&url, Cause::Turn, now);
            self.running += 1;
            self.hosts.on_listing_started(&url, now);
            match refusal {
                None => due.start.push(url),
                Some(reason) => due.given_up.push((url, reason)),
            }
        }
        due
    }

    /// Records the end of a listing. Returns whether a webhook asked for it, or came during it, or `None`
    /// if no recipe watches the upstream any more.
    pub(crate) fn on_listing_finished(
        &mut self,
        url: &UpstreamUrl,
        result: Result<Listing, PollError>,
        now: Moment,
    ) -> Option<bool> {
        self.running = self.running.saturating_sub(1);
        self.hosts.on_listing_finished(url, result.as_ref().err().map(|error| &error.fault), now);
        let upstream = self.upstreams.get_mut(url)?;
        if let Err(PollError { fault: PollFault::Busy { pause, redirected_to }, .. }) = &result {
            upstream.not_before = now + *pause;
            if let Some(answering) = redirected_to.as_ref().unwrap_or(url).host() {
                self.hosts.pause(answering, *pause, now);
            }
        }
        if !self.repeats {
            self.give_up_waiters(url, now);
        }
        let upstream = self.upstreams.get_mut(url)?;
        if upstream.is_dropped {
            self.forget(url);
            return None;
        }
        let (was_for_hook, has_new_hook) = (upstream.urgent, upstream.phase == Phase::AgainUrgent);
        self.listed += usize::from(upstream.last.is_none());
        upstream.on_listed(url, result, self.repeats, now);
        if was_for_hook {
            upstream.hook_listed = Some(now);
        }
        upstream.urgent |= has_new_hook;
        if was_for_hook && has_new_hook {
            // A webhook came during the listing for another one: list again, but not at once.
            upstream.due = upstream.due.min(now + HOOK_SPACING).max(upstream.not_before);
            upstream.phase = Phase::Listing;
        }
        self.step(url, Cause::End, now);
        Some(was_for_hook || has_new_hook)
    }

    /// Gives up the upstreams that wait for a host of which this sweep lists no more.
    fn give_up_waiters(&mut self, url: &UpstreamUrl, now: Moment) {
        while let Some((waiter, reason)) = self.hosts.next_given_up(url.host(), now) {
            let waiter = waiter.clone();
            self.hosts.remove(&waiter, now);
            self.given_up.push((waiter.url, reason));
        }
    }

    /// Returns when the next poll may start without another event, if one may.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        let due = self.due.first().map(|(due, _)| *due);
        // The end of a listing is an event and starts the next waiter; only the end of a pause needs a
        // deadline.
        let pause = self.paused.first().map(|(end, _)| *end);
        [due, pause, self.hosts.next_pause()].into_iter().flatten().min()
    }

    /// Whether no poll waits or runs.
    pub(crate) fn is_quiet(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }

    /// Whether a poll runs.
    pub(crate) fn has_running(&self) -> bool {
        self.running > 0
    }

    /// Returns the host for whose pause all waiting polls wait, if no poll runs.
    pub(crate) fn paused_host(&self) -> Option<Arc<str>> {
        if self.running > 0 || self.waiting == 0 { None } else { self.hosts.first_paused() }
    }

    /// Returns how many upstreams were listed, successfully or not, and how many there are.
    pub(crate) fn listed(&self) -> (usize, usize) {
        (self.listed, self.upstreams.len())
    }

    /// Returns the state of the polls of `url`, if it is watched.
    pub(crate) fn state(&self, url: &UpstreamUrl) -> Option<PollState> {
        let upstream = self.upstreams.get(url)?;
        let next = (upstream.phase == Phase::Idle).then_some(upstream.due);
        Some(PollState { last: upstream.last.clone(), next })
    }

    /// Returns when the last successful listing ended of the watched upstream for which this is longest
    /// ago; before its first one, since when it is watched.
    pub(crate) fn oldest_listing(&self) -> Option<Moment> {
        let watched = self.upstreams.values().filter(|upstream| !upstream.is_dropped);
        watched.map(|upstream| upstream.tags_known).min()
    }
}
