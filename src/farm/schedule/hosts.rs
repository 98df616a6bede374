//! The hosts that upstreams share: which upstreams wait for each, how many listings each has, when
//! its pause ends, and whether it answers. Finds the next upstream to list without looking at all
//! that wait. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::farm::counted::Counted;
use crate::farm::events::PollFault;
use crate::farm::moment::Moment;
use crate::recipe::upstream_url::UpstreamUrl;

/// How many listings of one host may run at once. More would flood a host that serves many
/// upstreams, and fill the pool with it.
pub(super) const JOBS_PER_HOST: usize = 4;

/// After how many unanswered listings since its last answer a host gets one at a time, until one
/// succeeds. Each may keep a worker busy up to the deadline of a listing.
const SILENT_AFTER: u32 = 2;

/// After how many unanswered listings since its last answer a single sweep lists no more of the host.
/// Otherwise a dead host with many upstreams would take a minute for each.
pub(super) const GIVEN_UP_AFTER: u32 = 6;

/// How long a single sweep waits for one host's pauses, in all: as long as one listing may take.
pub(super) const SWEEP_PATIENCE: Duration = Duration::from_mins(1);

/// How long an upstream of a silent host lets all others go first. Without an end, a busy pool would
/// never list it again, and never learn that the host answers.
const SILENT_PATIENCE: Duration = Duration::from_mins(1);

/// The hosts, and the upstreams that wait for them.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    by_name: BTreeMap<Name, Box<Counted<Host>>>,
    /// The hosts that answer and whose first waiter may be listed now.
    ready: BTreeSet<Seat>,
    /// The same of hosts that did not answer the last time.
    silent: BTreeSet<Seat>,
    /// The ends of the hosts' pauses.
    pauses: BTreeSet<(Moment, Name)>,
    /// How many silent hosts are being listed. Several at a time would fill the pool.
    probed: usize,
}

/// A host's name; the empty one is this machine, which has no limits.
type Name = Arc<str>;

#[derive(Debug, Default)]
struct Host {
    /// How many upstreams are watched.
    watched: usize,
    running: usize,
    /// Unanswered listings since the last answer: a success or a request for a pause.
    silences: u32,
    paused_until: Moment,
    /// The length of all its pauses together.
    pauses: Duration,
    /// The upstreams that wait for it, urgent ones first.
    waiters: BTreeSet<Waiter>,
    seat: Option<Seat>,
}

/// An upstream that waits to be listed. Ordered: webhooks first, then the one that has waited
/// longest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiter {
    pub(super) is_ordinary: bool,
    /// Counts the waiters in the order in which they began to wait.
    pub(super) number: u64,
    /// When its wait began.
    pub(super) since: Moment,
    pub(super) url: UpstreamUrl,
}

/// A host whose first waiter may be listed now. Ordered: webhooks first, then hosts with few
/// listings; of silent hosts, the one that has waited longest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    is_ordinary: bool,
    running: usize,
    number: u64,
    since: Moment,
    name: Name,
}

impl Host {
    fn is_silent(&self) -> bool {
        self.silences > 0
    }

    fn is_probed(&self) -> bool {
        self.is_silent() && self.running > 0
    }

    fn is_used(&self, now: Moment) -> bool {
        self.watched > 0 || self.running > 0 || !self.waiters.is_empty() || self.paused_until > now
    }
}

impl Hosts {
    /// Adds an upstream that is watched.
    pub(super) fn watch(&mut self, url: &UpstreamUrl, now: Moment) {
        self.update(url.host(), now, |host| host.watched += 1);
    }

    /// Removes an upstream that is watched no more.
    pub(super) fn unwatch(&mut self, url: &UpstreamUrl, now: Moment) {
        self.update(url.host(), now, |host| host.watched = host.watched.saturating_sub(1));
    }

    /// Lets an upstream wait.
    pub(super) fn add(&mut self, waiter: Waiter, now: Moment) {
        let url = waiter.url.clone();
        self.update(url.host(), now, |host| host.waiters.insert(waiter));
    }

    /// Removes an upstream that waits no more. Returns whether it waited here.
    pub(super) fn remove(&mut self, waiter: &Waiter, now: Moment) -> bool {
        self.update(waiter.url.host(), now, |host| host.waiters.remove(waiter))
    }

    /// Returns the host whose pause ends first.
    pub(super) fn first_paused(&self) -> Option<Arc<str>> {
        self.pauses.first().map(|(_, name)| name.clone()).filter(|name| !name.is_empty())
    }

    /// Ends the pauses that are over.
    pub(super) fn end_pauses(&mut self, now: Moment) {
        while let Some((end, name)) = self.pauses.first().filter(|(end, _)| *end <= now).cloned() {
            self.pauses.remove(&(end, name.clone()));
            self.update(Some(&name), now, |_| {});
        }
    }

    /// Returns the end of the pause that ends first.
    pub(super) fn next_pause(&self) -> Option<Moment> {
        self.pauses.first().map(|(end, _)| *end)
    }

    /// Returns the next upstream to list. After [`SILENT_PATIENCE`] a silent host ranks like the
    /// others, but one at a time.
    pub(super) fn next(&self, now: Moment) -> Option<&Waiter> {
        let (ready, silent) = (self.ready.first(), self.silent.first());
        let yields = |seat: &Seat| {
            let is_overdue = now.saturating_since(seat.since) >= SILENT_PATIENCE;
            self.probed > 0 || !is_overdue
        };
        let rank =
            |seat: &Seat, lets_others_go: bool| (seat.is_ordinary, lets_others_go, seat.running, seat.number);
        let seat = match (ready, silent) {
            (Some(ready), Some(silent)) if rank(silent, yields(silent)) < rank(ready, false) => silent,
            (Some(ready), _) => ready,
            (None, silent) => silent?,
        };
        self.by_name.get(&seat.name)?.waiters.first()
    }

    /// Returns an upstream that a single sweep does not list, and why.
    pub(super) fn next_given_up(&self, name: Option<&str>, now: Moment) -> Option<(&Waiter, &'static str)> {
        let host = self.by_name.get(name.unwrap_or_default())?;
        let reason = if host.paused_until > now && host.pauses > SWEEP_PATIENCE {
            "not asked: its host wants a pause"
        } else if host.silences >= GIVEN_UP_AFTER {
            "not asked: its host does not answer"
        } else {
            return None;
        };
        Some((host.waiters.first()?, reason))
    }

    /// Records the start of a listing.
    pub(super) fn on_listing_started(&mut self, url: &UpstreamUrl, now: Moment) {
        self.update(url.host(), now, |host| host.running += 1);
    }

    /// Records the end of a listing, and its fault if it failed.
    pub(super) fn on_listing_finished(&mut self, url: &UpstreamUrl, fault: Option<&PollFault>, now: Moment) {
        // This machine is never silent.
        let fault = fault.filter(|_| url.host().is_some());
        self.update(url.host(), now, |host| {
            host.running = host.running.saturating_sub(1);
            match fault {
                None | Some(PollFault::Busy { .. }) => host.silences = 0,
                Some(PollFault::NoAnswer) => host.silences = host.silences.saturating_add(1),
                Some(PollFault::Other) => {}
            }
        });
    }

    /// Pauses the listings of a host.
    pub(super) fn pause(&mut self, name: &str, pause: Duration, now: Moment) {
        let (before, end) = self.update(Some(name), now, |host| {
            let before = host.paused_until;
            let begin = before.max(now);
            let end = begin.max(now + pause);
            host.pauses = host.pauses.saturating_add(end.saturating_since(begin));
            host.paused_until = end;
            (before, end)
        });
        let name: Name = name.into();
        self.pauses.remove(&(before, name.clone()));
        self.pauses.insert((end, name));
    }

    /// Changes a host, and gives it the seat that follows. Forgets a host that nothing uses.
    fn update<T>(&mut self, name: Option<&str>, now: Moment, change: impl FnOnce(&mut Host) -> T) -> T {
        let name = name.unwrap_or_default();
        let known = self.by_name.get_key_value(name).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| name.into());
        let host: &mut Host = self.by_name.entry(name.clone()).or_default();
        let (was_probed, was_silent) = (host.is_probed(), host.is_silent());
        let result = change(host);
        if let Some(seat) = host.seat.take() {
            if was_silent {
                self.silent.remove(&seat)
            } else {
                self.ready.remove(&seat)
            };
        }
        if was_probed {
            self.probed -= 1;
        }
        if host.is_probed() {
            self.probed += 1;
        }
        let is_here = name.is_empty();
        let limit = match host.silences {
            _ if is_here => usize::MAX,
            SILENT_AFTER.. => 1,
            _ => JOBS_PER_HOST,
        };
        if let Some(first) = host.waiters.first()
            && host.running < limit
            && host.paused_until <= now
        {
            // Silent hosts, and this machine, are not ordered by their listings.
            let running = if host.is_silent() || is_here { 0 } else { host.running };
            let Waiter { is_ordinary, number, since, .. } = *first;
            let seat = Seat { is_ordinary, running, number, since, name: name.clone() };
            if host.is_silent() {
                self.silent.insert(seat.clone())
            } else {
                self.ready.insert(seat.clone())
            };
            host.seat = Some(seat);
        }
        if !host.is_used(now) {
            self.by_name.remove(&name);
        }
        result
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }
}
