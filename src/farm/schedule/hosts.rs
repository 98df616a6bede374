//! What is known of the hosts that upstreams share: how many listings each has,
//! until when it wants to be left alone, and whether it answers at all. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Moment;
use crate::upstream_url;

/// How many listings of one host may run at once, so that a host that serves
/// many of a farm's upstreams is neither flooded nor keeps the others waiting.
pub(super) const JOBS_PER_HOST: usize = 4;

/// How long a single sweep waits for one host's pauses, in all: as long as for a listing.
pub(super) const SWEEP_PATIENCE: Duration = Duration::from_mins(1);

/// The hosts, by name.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<Arc<str>, Host>);

#[derive(Debug, Default)]
struct Host {
    running: usize,
    /// When it may be asked again.
    paused_until: Moment,
    /// How long its pauses are, together.
    pauses: Duration,
}

/// Whether an upstream that waits may be listed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It may.
    Now,
    /// Its host has as many listings as it may have.
    WhenOneEnds,
    /// Its host wants a pause until then.
    At(Moment),
    /// Its host wants a pause for which a single sweep does not wait.
    NotInThisSweep,
}

/// The name of a URL's host; `None` for local paths.
pub(super) fn name_of(url: &str) -> Option<Arc<str>> {
    let repository = upstream_url::repository_name(url);
    repository.split('/').next().filter(|name| !name.is_empty()).map(Arc::from)
}

impl Hosts {
    /// Whether an upstream of that host has its turn.
    pub(super) fn turn(&self, name: Option<&Arc<str>>, repeats: bool, now: Moment) -> Turn {
        match name.and_then(|name| self.0.get(name)) {
            Some(host) if !repeats && host.paused_until > now && host.pauses > SWEEP_PATIENCE => {
                Turn::NotInThisSweep
            }
            Some(host) if host.running >= JOBS_PER_HOST => Turn::WhenOneEnds,
            Some(host) if host.paused_until > now => Turn::At(host.paused_until),
            _ => Turn::Now,
        }
    }

    /// Notes that a listing begins.
    pub(super) fn begin(&mut self, name: Option<&Arc<str>>) {
        if let Some(name) = name {
            self.0.entry(name.clone()).or_default().running += 1;
        }
    }

    /// Notes that a listing has ended.
    pub(super) fn end(&mut self, name: Option<&Arc<str>>) {
        if let Some(host) = name.and_then(|name| self.0.get_mut(name)) {
            host.running = host.running.saturating_sub(1);
        }
    }

    /// Leaves a host alone for a while.
    pub(super) fn pause(&mut self, name: Arc<str>, pause: Duration, now: Moment) {
        let host = self.0.entry(name).or_default();
        let begin = host.paused_until.max(now);
        let end = begin.max(now.saturating_add(pause));
        host.pauses = host.pauses.saturating_add(end - begin);
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
