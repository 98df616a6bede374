//! How the remote stands: what it lacks, and when the next upload may start. Pure.

use super::moment::Moment;

/// How the remote stands.
#[derive(Debug, Default)]
pub(super) struct UploadState {
    /// Whether the remote lacks something that no running upload brings.
    pub(super) owed: bool,
    /// When what is owed is (tried to be) uploaded.
    pub(super) due: Moment,
    /// When the running upload was started.
    pub(super) running: Option<Moment>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Why the last one failed, if it did.
    pub(super) last_error: Option<String>,
    /// Whether something was published since the last one failed.
    pub(super) news: bool,
}

impl UploadState {
    /// When an upload is to be started, if one waits.
    pub(super) fn next(&self) -> Option<Moment> {
        (self.owed && self.running.is_none()).then_some(self.due)
    }

    /// Whether nothing is running or to be started now.
    pub(super) fn is_quiet(&self, now: Moment) -> bool {
        self.running.is_none() && self.next().is_none_or(|due| due > now)
    }
}
