//! The core's vocabulary: an [`Event`] is a past fact, an [`Effect`] an imperative. Decides
//! nothing. Pure.

mod jobs;
mod notices;
mod polls;

use std::sync::Arc;

use peipkg_format::archive_index::Archive;
use peipkg_format::problem::Problem;

pub(crate) use crate::farm::events::jobs::{
    Blame, BuildJob, FETCH_AHEAD, Job, JobKey, JobOutcome, PendingOutputs, UploadOutcome,
};
pub(crate) use crate::farm::events::notices::{Hold, Notice};
pub use crate::farm::events::polls::{PollError, PollFault};
use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;

/// Something that has happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Only time has passed.
    DeadlineReached,
    /// The recipes were read, at the start or for a reload.
    RosterLoaded(Result<Vec<Recipe>, Vec<Problem>>),
    /// The archive index was read, or why the read failed.
    ArchiveRead(Result<Archive, String>),
    /// An earlier run left these outputs in `publish/`.
    OutputsFound(Vec<PendingOutputs>),
    /// The remote lacks something that an earlier run published.
    UploadOwed,
    /// A listing has ended: the names of all tags, or why it failed.
    PollFinished {
        /// The upstream's URL.
        upstream: UpstreamUrl,
        /// The tags, without `refs/tags/`.
        tags: Result<Vec<String>, PollError>,
    },
    /// The builder has begun the log of its job, in this file.
    LogBegun(Arc<str>),
    /// The builder has ended its job.
    JobFinished(JobOutcome),
    /// An upload has ended.
    UploadFinished(UploadOutcome),
    /// A signed webhook has announced a change of a repository.
    WebhookReceived {
        /// The repository's names (see [`UpstreamUrl::repository`]).
        repositories: Vec<String>,
    },
    /// SIGHUP.
    ReloadRequested,
    /// The first SIGTERM or SIGINT.
    StopRequested,
    /// A further one.
    AbortRequested,
}

/// Something for the loop to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// List the tags of this upstream; answer with [`Event::PollFinished`].
    StartPoll(UpstreamUrl),
    /// Give the builder this job; it answers with [`Event::JobFinished`].
    StartJob(Job),
    /// Copy the repository to the remote; answer with [`Event::UploadFinished`].
    StartUpload,
    /// Remove pending outputs that turned out to be published.
    DiscardOutputs(PendingOutputs),
    /// Read the recipes; answer with [`Event::RosterLoaded`].
    LoadRoster,
    /// End the polls in progress.
    InterruptPolls,
    /// End the job in progress.
    InterruptJob,
    /// Tell the operator.
    Report(Notice),
}
