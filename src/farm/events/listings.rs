//! How a listing fails, as the core sees it. Pure.

use std::time::Duration;

/// Why an upstream could not be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollError {
    /// In one line.
    pub reason: String,
    /// How far its host is to blame.
    pub fault: PollFault,
}

/// How far the upstream's host is to blame for a failed listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollFault {
    /// It cannot be reached, or did not answer in time.
    NoAnswer,
    /// It answers, and redirects to one that does not.
    NoAnswerElsewhere,
    /// It asks for a pause.
    Busy {
        /// Its length.
        pause: Duration,
        /// The URL that answered, if a redirect led there.
        redirected_to: Option<String>,
    },
    /// Not at all, or it cannot be told.
    Other,
}
