//! What is known of the hosts that upstreams share: how many listings each has,
//! until when it wants to be left alone, and whether it answers at all. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::farm::events::PollFault;
use crate::farm::moment::Moment;
use crate::recipe::upstream_url::UpstreamUrl;

/// How many listings of one host may run at once, so that a host that serves
/// many of a farm's upstreams is neither flooded nor keeps the others waiting.
pub(super) const JOBS_PER_HOST: usize = 4;

/// After how many listings in a row without an answer a host gets one at a time, until one
/// succeeds: each of them may keep a worker for as long as a listing may take.
const SILENT_AFTER: u32 = 2;

/// After how many of them a single sweep asks it no more.
pub(super) const GIVEN_UP_AFTER: u32 = 6;

/// How long a single sweep waits for one host's pauses, in all: as long as for a listing.
pub(super) const SWEEP_PATIENCE: Duration = Duration::from_mins(1);

/// The hosts, by name.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<Arc<str>, Host>);

#[derive(Debug, Default)]
struct Host {
    running: usize,
    /// Listings without an answer since the last one that succeeded.
    silences: u32,
    /// When it may be asked again.
    paused_until: Moment,
    /// How long its pauses are, together.
    pauses: Duration,
}

/// An upstream that waits to be listed.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) url: UpstreamUrl,
    /// When the host that it leads to, which need not be its own, may be asked again.
    pub(super) not_before: Moment,
    /// Whether a webhook has told of it.
    pub(super) urgent: bool,
}

/// Whether an upstream that waits may be listed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It may; who has the least of these first.
    Now(Rank),
    /// Its host has as many listings as it may have.
    WhenOneEnds,
    /// Its host, or the one that it leads to, wants a pause until then.
    At(Moment),
    /// A single sweep does not ask its host any more.
    NotInThisSweep(&'static str),
}

/// Who goes first: hosts that answer, what a webhook has told of, hosts with few listings.
pub(super) type Rank = (bool, bool, usize);

impl Hosts {
    /// Whether an upstream of that host has its turn.
    pub(super) fn turn(&self, waiter: &Waiter, repeats: bool, now: Moment) -> Turn {
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
            Turn::Now((host.silences > 0, !waiter.urgent, host.running))
        }
    }

    /// Notes that a listing begins.
    pub(super) fn begin(&mut self, name: Option<&Arc<str>>) {
        if let Some(name) = name {
            self.0.entry(name.clone()).or_default().running += 1;
        }
    }

    /// Notes that a listing has ended, and what was wrong with it.
    pub(super) fn end(&mut self, name: Option<&Arc<str>>, fault: Option<&PollFault>) {
        let Some(host) = name.and_then(|name| self.0.get_mut(name)) else { return };
        host.running = host.running.saturating_sub(1);
        match fault {
            None | Some(PollFault::Busy { .. }) => host.silences = 0,
            Some(PollFault::NoAnswer) => host.silences = host.silences.saturating_add(1),
            Some(PollFault::Other) => {}
        }
    }

    /// Leaves a host alone for a while.
    pub(super) fn pause(&mut self, name: Arc<str>, pause: Duration, now: Moment) {
        let host = self.0.entry(name).or_default();
        let begin = host.paused_until.max(now);
        let end = begin.max(now + pause);
        host.pauses = host.pauses.saturating_add(end.saturating_since(begin));
        host.paused_until = end;
    }

    /// Forgets the hosts that nobody needs to know of any more: all but `used`, and those of which
    /// something is going on.
    pub(super) fn retain(&mut self, used: &BTreeSet<Arc<str>>, now: Moment) {
        self.0.retain(|name, host| used.contains(name) || host.running > 0 || host.paused_until > now);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
