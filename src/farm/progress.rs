//! The progress of a sweep, for the live line of a terminal, and its tally, for the last line of its log.
//! Pure.

use std::fmt;
use std::sync::Arc;

use peipkg_format::problem::OneLine;

use super::moment::Moment;

/// The progress of a sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many upstreams were listed, successfully or not.
    pub polled: usize,
    /// How many there are.
    pub upstreams: usize,
    /// How many versions wait to be built.
    pub queued: usize,
    /// How many versions have failed and wait for a retry.
    pub failed: usize,
    /// Whether a file holds all builds.
    pub is_paused: bool,
    /// Whether the last reload was refused.
    pub is_reload_refused: bool,
    /// The current work, such as `building libz 1.3.1-1`, and its start.
    pub work: Option<(String, Moment)>,
    /// The host that asked for a pause, if the polls wait for its end.
    pub paused_host: Option<Arc<str>>,
}

/// Counts the work of a sweep.
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
    /// How many builds, and publishes of a version alone, failed.
    pub failed: usize,
}

/// Counts since the start, for the tally and for `/metrics`.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) polls: usize,
    pub(super) polls_failed: usize,
    /// When the last listing ended.
    pub(super) last_poll: Option<Moment>,
    pub(super) built: usize,
    pub(super) builds_failed: usize,
    pub(super) publishes_failed: usize,
    /// When a version was published the last time. Its recipe may be gone.
    pub(super) last_success: Option<Moment>,
    pub(super) uploads: usize,
    pub(super) uploads_failed: usize,
}

impl Progress {
    /// Returns the progress without the polls, which change too often for a service manager's status.
    pub(crate) fn in_short(&self) -> String {
        let count = |count: usize, what: &str| {
            if count > 0 { format!(", {count} {what}") } else { String::new() }
        };
        let work = self.work.as_ref().map_or("idle", |(work, _)| work);
        let paused = if self.is_paused { ", builds are paused" } else { "" };
        let refused = if self.is_reload_refused { ", reload refused" } else { "" };
        let (queued, failed) = (count(self.queued, "queued"), count(self.failed, "failed"));
        format!("{work}{paused}{queued}{failed}{refused}")
    }
}

impl fmt::Display for Progress {
    /// `polled 37 of 200, 12 queued, building libz 1.3.1-1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "polled {} of {}, {} queued", self.polled, self.upstreams, self.queued)?;
        // A recipe's id is a directory name, which may hold control characters.
        match (&self.work, &self.paused_host) {
            (Some((work, _)), _) => write!(f, ", {}", OneLine(work)),
            (None, Some(host)) => write!(f, ", waiting for {}, which asked for a pause", OneLine(host)),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_with_and_without_work_is_one_clean_line() {
        let mut progress = Progress { polled: 1, upstreams: 3, ..Progress::default() };
        assert_eq!(progress.to_string(), "polled 1 of 3, 0 queued");
        progress.paused_host = Some("git.example.org:443".into());
        let waits = ", waiting for git.example.org:443, which asked for a pause";
        assert_eq!(progress.to_string(), format!("polled 1 of 3, 0 queued{waits}"));
        progress.work = Some(("building libz 1.3.1-1".to_owned(), Moment::ZERO));
        assert_eq!(progress.to_string(), "polled 1 of 3, 0 queued, building libz 1.3.1-1");
        progress.work = Some(("building it's\u{1b}[2J\u{202e} 1-1".to_owned(), Moment::ZERO));
        assert_eq!(progress.to_string(), "polled 1 of 3, 0 queued, building it's\\u{1b}[2J\\u{202e} 1-1");
    }

    #[test]
    fn state_for_the_service_manager_says_what_needs_a_person() {
        let mut progress = Progress::default();
        assert_eq!(progress.in_short(), "idle");
        progress.work = Some(("building libz 1.3.1-1".to_owned(), Moment::ZERO));
        progress.queued = 3;
        assert_eq!(progress.in_short(), "building libz 1.3.1-1, 3 queued");
        progress = Progress {
            queued: 3,
            failed: 2,
            is_paused: true,
            is_reload_refused: true,
            ..Progress::default()
        };
        assert_eq!(progress.in_short(), "idle, builds are paused, 3 queued, 2 failed, reload refused");
    }
}
