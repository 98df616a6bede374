//! Tracks the hosts that upstreams share: how many listings each has, when its pause ends, and
//! whether it answers. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::farm::events::PollFault;
use crate::farm::moment::Moment;
use crate::recipe::upstream_url::UpstreamUrl;

/// How many listings of one host may run at once. More would flood a host that serves many
/// upstreams, and fill the pool with it.
pub(super) const JOBS_PER_HOST: usize = 4;

/// After how many unanswered listings since its last answer a host gets one at a time, until one succeeds. Each
/// may keep a worker busy up to the deadline of a listing.
const SILENT_AFTER: u32 = 2;

/// After how many unanswered listings since its last answer a single sweep lists no more of the host. Otherwise
/// a dead host with many upstreams would take a minute for each.
pub(super) const GIVEN_UP_AFTER: u32 = 6;

/// How long a single sweep waits for one host's pauses, in all: as long as one listing may take.
pub(super) const SWEEP_PATIENCE: Duration = Duration::from_mins(1);

/// How long an upstream of a silent host lets all others go first. Without an end, a busy pool would
/// never list it again, and never learn that the host answers.
const SILENT_PATIENCE: Duration = Duration::from_mins(1);

/// The hosts, by name.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<Arc<str>, Host>);

#[derive(Debug, Default)]
struct Host {
    running: usize,
    /// Unanswered listings since the last answer: a success or a request for a pause.
    silences: u32,
    paused_until: Moment,
    /// The length of all its pauses together.
    pauses: Duration,
}

/// An upstream that waits to be listed.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) url: UpstreamUrl,
    /// When its wait began.
    pub(super) since: Moment,
    /// The end of the pause that the host it leads to asked for. Redirects may lead to another
    /// host.
    pub(super) not_before: Moment,
    /// Whether a webhook asked for the poll.
    pub(super) urgent: bool,
}

/// Whether a waiting upstream may be listed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It may. The lowest rank goes first.
    Now(Rank),
    /// Its host has all the listings that it may have.
    WhenOneEnds,
    /// Its host, or the one that it leads to, asked for a pause until then.
    At(Moment),
    /// This sweep lists no more of its host, for this reason.
    NotInThisSweep(&'static str),
}

/// Orders the waiters: webhooks first, then hosts that answer, then hosts with few listings.
pub(super) type Rank = (bool, bool, usize);

impl Hosts {
    /// Decides whether `waiter` has its turn. After [`SILENT_PATIENCE`] a silent host ranks like the
    /// others, but one at a time (`is_probing`): several would fill the pool.
    pub(super) fn turn(&self, waiter: &Waiter, repeats: bool, is_probing: bool, now: Moment) -> Turn {
        let unknown = Host::default();
        let host = waiter.url.host().and_then(|name| self.0.get(name)).unwrap_or(&unknown);
        let paused_until = host.paused_until.max(waiter.not_before);
        let is_paused = paused_until > now;
        let limit = if host.silences >= SILENT_AFTER { 1 } else { JOBS_PER_HOST };
        let pauses = host.pauses.max(waiter.not_before.saturating_since(now));
        if !repeats && is_paused && pauses > SWEEP_PATIENCE {
            Turn::NotInThisSweep("not asked: its host wants a pause")
        } else if !repeats && host.silences >= GIVEN_UP_AFTER {
            Turn::NotInThisSweep("not asked: its host does not answer")
        } else if host.running >= limit {
            Turn::WhenOneEnds
        } else if is_paused {
            Turn::At(paused_until)
        } else {
            let is_overdue = now.saturating_since(waiter.since) >= SILENT_PATIENCE;
            let lets_others_go = host.silences > 0 && (is_probing || !is_overdue);
            Turn::Now((!waiter.urgent, lets_others_go, host.running))
        }
    }

    /// Whether a host that did not answer the last time is being listed.
    pub(super) fn is_any_silent_listed(&self) -> bool {
        self.0.values().any(|host| host.silences > 0 && host.running > 0)
    }

    /// Records the start of a listing.
    pub(super) fn on_listing_started(&mut self, name: Option<&Arc<str>>) {
        if let Some(name) = name {
            self.0.entry(name.clone()).or_default().running += 1;
        }
    }

    /// Records the end of a listing, and its fault if it failed.
    pub(super) fn on_listing_finished(&mut self, name: Option<&Arc<str>>, fault: Option<&PollFault>) {
        let Some(host) = name.and_then(|name| self.0.get_mut(name)) else { return };
        host.running = host.running.saturating_sub(1);
        match fault {
            None | Some(PollFault::Busy { .. }) => host.silences = 0,
            Some(PollFault::NoAnswer) => host.silences = host.silences.saturating_add(1),
            Some(PollFault::Other) => {}
        }
    }

    /// Pauses the listings of a host.
    pub(super) fn pause(&mut self, name: Arc<str>, pause: Duration, now: Moment) {
        let host = self.0.entry(name).or_default();
        let begin = host.paused_until.max(now);
        let end = begin.max(now + pause);
        host.pauses = host.pauses.saturating_add(end.saturating_since(begin));
        host.paused_until = end;
    }

    /// Forgets all hosts but those `used`, those with a running listing and those in a pause.
    pub(super) fn retain(&mut self, used: &BTreeSet<Arc<str>>, now: Moment) {
        self.0.retain(|name, host| used.contains(name) || host.running > 0 || host.paused_until > now);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
