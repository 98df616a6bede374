//! The state of the uploads: whether one is owed, and when it may start. Pure.

use std::time::Duration;

use super::moment::Moment;

/// The state of the uploads.
#[derive(Debug, Default)]
pub(super) struct UploadState {
    /// Whether the remote lacks a publish that no running upload brings.
    pub(super) is_owed: bool,
    /// When the owed upload may start; [`Moment::NEVER`] if a single sweep does not retry it.
    pub(super) due: Moment,
    /// When the running upload was started.
    pub(super) running_since: Option<Moment>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// When the last successful one ended, and how long it took.
    pub(super) last_done: Option<(Moment, Duration)>,
    /// Why the last one failed, if it did.
    pub(super) last_error: Option<String>,
    /// Whether something was published since the last upload was started.
    pub(super) has_untried: bool,
}

impl UploadState {
    /// Returns when the next upload may start, if one is owed and none runs.
    pub(super) fn next(&self) -> Option<Moment> {
        let waits = self.is_owed && self.running_since.is_none() && self.due < Moment::NEVER;
        waits.then_some(self.due)
    }

    /// Whether no upload runs and none is due.
    pub(super) fn is_quiet(&self, now: Moment) -> bool {
        self.running_since.is_none() && self.next().is_none_or(|due| due > now)
    }
}
