//! How a poll fails: its listing fails, or the schedule gives it up without one. And the tags that
//! no listing tells from releases. Pure.

use std::time::Duration;

use crate::recipe::upstream_url::UpstreamUrl;

/// Why a poll brought no tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollError {
    /// The error, in one line.
    pub reason: String,
    /// The host's part in it.
    pub fault: PollFault,
}

/// A tag that names a tree or a blob, or that no signer of its recipe has signed. A listing does not
/// tell; only a fetch finds out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoCommit {
    /// The upstream's URL, redacted.
    pub upstream: String,
    /// The tag, without `refs/tags/`.
    pub tag: String,
    /// The id of the tag's object. A moved tag has another one.
    pub object: String,
    /// Why it is no version, in one line.
    pub reason: String,
    /// The digest of the file with the signers, if the reason is that none of them has signed it: for
    /// other recipes it may be a version.
    pub signers: Option<u64>,
}

/// The host's part in a failed poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollFault {
    /// The host cannot be reached, or did not answer in time.
    NoAnswer,
    /// The host asks for a pause.
    Busy {
        /// Its length.
        pause: Duration,
        /// The URL that asked for it, if a redirect led to another host.
        redirected_to: Option<UpstreamUrl>,
    },
    /// None that is known: the answer makes no sense, or the host redirects to one that gives none.
    Other,
}
