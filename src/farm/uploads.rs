//! When the repository is uploaded: after each publish, one upload at a time, and
//! after a failure at its own time. What is published meanwhile goes along with
//! the next one, and no build waits for any of it. Pure.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::farm::events::{Effect, Notice, UploadOutcome};
use crate::farm::moment::Moment;
use crate::farm::{Effects, Farm, Outcome, backoff};

/// The longest wait for a remote that fails. It needs no person, often, but a network; and all that is published
/// meanwhile waits with it.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

impl Farm {
    /// The repository has changed.
    pub(super) fn owe_upload(&mut self, now: Moment) {
        if !self.options.uploads {
            return;
        }
        self.upload.owed = true;
        self.upload.news = true;
        // News do not shorten the wait for a remote that fails; the end of a farm does.
        if self.upload.failures == 0 || self.stopping.is_some() {
            self.upload.due = now;
        }
    }

    pub(super) fn start_upload(&mut self, now: Moment, effects: &mut Effects) {
        // Nor may a sweep end without having tried to upload all that it has published.
        if self.options.once && self.upload.news && self.upload.running.is_none() && self.has_built_all() {
            self.upload.due = self.upload.due.min(now);
        }
        let is_aborted = self.stopping.as_ref().is_some_and(|stop| stop.outcome == Outcome::Aborted);
        if is_aborted || self.upload.next().is_none_or(|due| due > now) {
            return;
        }
        self.upload.owed = false;
        self.upload.news = false;
        self.upload.running = Some(now);
        effects.report(Notice::UploadStarted);
        effects.0.push(Effect::StartUpload);
    }

    pub(super) fn on_upload_finished(&mut self, outcome: UploadOutcome, now: Moment, effects: &mut Effects) {
        let Some(started) = self.upload.running.take() else { return };
        match outcome {
            UploadOutcome::Done => {
                self.upload.failures = 0;
                self.upload.last_error = None;
                self.upload.due = now;
                effects.report(Notice::UploadComplete { took: now.saturating_since(started) });
            }
            // The process is about to end; its next start finds that an upload is owed.
            UploadOutcome::Interrupted => {}
            UploadOutcome::Failed { reason } => {
                self.upload.owed = true;
                self.upload.failures += 1;
                let failures = self.upload.failures;
                let retry_after = backoff::wait_after(failures).min(LONGEST_WAIT);
                self.upload.due = now + retry_after;
                self.upload.last_error = Some(reason.clone());
                effects.report(Notice::UploadFailed { failures, retry_after, reason });
            }
        }
    }
}
