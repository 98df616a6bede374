//! The tally of a sweep, for the last line of its log. Pure.

use std::time::Duration;

use crate::farm::Farm;

/// What a sweep has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many upstreams were listed, successfully or not.
    pub polled: usize,
    /// How many of these listings failed.
    pub polls_failed: usize,
    /// How many versions were built.
    pub built: usize,
    /// How many versions were published, including those that an earlier run built.
    pub published: u64,
    /// How many builds and publishes of a version alone failed.
    pub failed: usize,
}

/// The counts that no other part of the farm keeps.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) polls_failed: usize,
    pub(super) built: usize,
    pub(super) failed: usize,
}

impl Farm {
    /// Returns the tally of the sweep; none of a daemon, whose counts are on `/status`.
    pub(crate) fn tally(&self) -> Option<Tally> {
        let Counts { polls_failed, built, failed } = self.tally;
        let (polled, _) = self.schedule.listed();
        let published = self.builds_succeeded;
        self.options.once.then_some(Tally { polled, polls_failed, built, published, failed })
    }

    /// Returns the wait for a retry, unless the farm ends before: a sweep tries once.
    pub(super) fn promised(&self, retry_after: Duration) -> Option<Duration> {
        (!self.options.once).then_some(retry_after)
    }
}
