//! Decides when the repository is uploaded: after each publish, one upload at a time, and after a
//! failure at its own retry time. One upload brings everything published before it started. No
//! build waits for an upload. Pure.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::farm::events::{Effect, Notice, UploadOutcome};
use crate::farm::moment::Moment;
use crate::farm::{Effects, Farm, backoff};

/// The longest wait of a failing upload for its retry. Often only the network is down, and
/// everything published meanwhile waits for this one upload.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

impl Farm {
    /// Records that the repository changed.
    pub(super) fn owe_upload(&mut self, now: Moment) {
        if !self.options.uploads {
            return;
        }
        self.upload.is_owed = true;
        self.upload.has_untried = true;
        // A further publish does not shorten the wait for a failing remote.
        if self.upload.failures == 0 {
            self.upload.due = now;
        }
    }

    /// Starts the upload that is due, if any.
    pub(super) fn start_upload(&mut self, now: Moment, effects: &mut Effects) {
        // Before its end, the farm tries once to upload everything it published.
        let is_ending = self.stopping.is_some() || self.options.once && self.has_built_all();
        if is_ending && self.upload.has_untried && self.upload.running_since.is_none() {
            self.upload.due = self.upload.due.min(now);
        }
        // A drain repeats no failure.
        let is_needless = self.stopping.is_some() && !self.upload.has_untried;
        if self.is_aborted() || is_needless || self.upload.next().is_none_or(|due| due > now) {
            return;
        }
        self.upload.is_owed = false;
        self.upload.has_untried = false;
        self.upload.running_since = Some(now);
        effects.report(Notice::UploadStarted);
        effects.0.push(Effect::StartUpload);
    }

    pub(super) fn on_upload_finished(&mut self, outcome: UploadOutcome, now: Moment, effects: &mut Effects) {
        let Some(started) = self.upload.running_since.take() else { return };
        match outcome {
            UploadOutcome::Done => {
                let recovered = std::mem::take(&mut self.upload.failures) > 0;
                self.upload.last_error = None;
                self.upload.due = now;
                let took = now.saturating_since(started);
                self.upload.last_done = Some((now, took));
                self.tally.uploads += 1;
                effects.report(Notice::UploadComplete { took, recovered });
            }
            // The process ends now; the next start finds the upload still owed.
            UploadOutcome::Interrupted => {}
            UploadOutcome::Failed { reason } => {
                self.upload.is_owed = true;
                self.upload.failures += 1;
                self.tally.uploads_failed += 1;
                let failures = self.upload.failures;
                let retry_after = backoff::wait_after(failures).min(LONGEST_WAIT);
                // A single sweep retries at its end, and only if it has published more since.
                self.upload.due = if self.options.once { Moment::NEVER } else { now + retry_after };
                self.upload.last_error = Some(reason.clone());
                let retry_after = self.promised(retry_after);
                effects.report(Notice::UploadFailed { failures, retry_after, reason });
            }
        }
    }
}
