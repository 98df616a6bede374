//! How a poll fails: its listing does, or the schedule gives it up unasked. Pure.

use std::time::Duration;

use crate::recipe::upstream_url::UpstreamUrl;

/// Why a poll has brought no tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollError {
    /// In one line.
    pub reason: String,
    /// How far its host is to blame.
    pub fault: PollFault,
}

/// How far the upstream's host is to blame for a failed poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollFault {
    /// It cannot be reached, or did not answer in time.
    NoAnswer,
    /// It asks for a pause.
    Busy {
        /// Its length.
        pause: Duration,
        /// The URL that answered, if a redirect led to another host.
        redirected_to: Option<UpstreamUrl>,
    },
    /// Not at all, or it cannot be told: its answer makes no sense, or it redirects to a host that
    /// gives none.
    Other,
}
