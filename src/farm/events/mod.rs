//! The core's vocabulary: an [`Event`] is a past fact, an [`Effect`] an imperative. Decides
//! nothing. Pure.

mod jobs;
mod notices;
mod polls;
pub(in crate::farm) mod tags;
mod warnings;

use std::sync::Arc;

use peipkg_format::archive_index::Archive;
use peipkg_format::object_id::ObjectId;
use peipkg_format::problem::Problem;
use peipkg_format::version::Version;

use crate::farm::commits::PublishedCommits;
pub(crate) use crate::farm::events::jobs::{
    Blame, BuildJob, BuildOutcome, BuiltFrom, FETCH_AHEAD, JobKey, PendingOutputs, PublishJob,
    PublishOutcome, UploadOutcome,
};
pub(crate) use crate::farm::events::notices::Notice;
pub(crate) use crate::farm::events::polls::NoCommit;
pub use crate::farm::events::polls::{PollError, PollFault};
pub(crate) use crate::farm::events::tags::push_ids;
pub use crate::farm::events::tags::{ListedTag, Tags};
pub(crate) use crate::farm::events::warnings::{Warned, Warning};
use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;

/// Something that has happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Only time has passed.
    DeadlineReached,
    /// The recipes were read, at the start or for a reload.
    RosterLoaded(Result<Vec<Arc<Recipe>>, Vec<Problem>>),
    /// The archive index was read, or why the read failed.
    ArchiveRead(Result<Archive, String>),
    /// An earlier run left these outputs in `publish/`.
    OutputsFound(Vec<PendingOutputs>),
    /// Earlier runs found that these tags name no commit, or that no signer has signed them.
    NoCommitsFound(Vec<NoCommit>),
    /// Earlier runs have built the published versions from these commits.
    CommitsFound(PublishedCommits),
    /// The remote lacks something that an earlier run published.
    UploadOwed,
    /// A listing has ended: the names of all tags, or why it failed.
    PollFinished {
        /// The upstream's URL.
        upstream: UpstreamUrl,
        /// The tags, without `refs/tags/`.
        tags: Result<Tags, PollError>,
    },
    /// The listing that is about to end was answered at another URL than the upstream's.
    RedirectFollowed {
        /// The upstream's URL.
        upstream: UpstreamUrl,
        /// The URL after all redirects.
        target: UpstreamUrl,
    },
    /// A build, or the publish of a version, writes this log from now on.
    LogBegun {
        /// The version.
        key: JobKey,
        /// The path of the log.
        log: Arc<str>,
    },
    /// These are the last lines of the log of a build that is about to fail.
    LogEnded {
        /// The version.
        key: JobKey,
        /// The lines, fit to be shown.
        tail: Vec<String>,
    },
    /// A build has ended.
    BuildFinished {
        /// The version.
        key: JobKey,
        /// How it ended.
        outcome: BuildOutcome,
    },
    /// The publish in progress has ended.
    PublishFinished(PublishOutcome),
    /// An upload has ended.
    UploadFinished(UploadOutcome),
    /// A signed webhook has announced a change of a repository.
    WebhookReceived {
        /// The repository's names (see [`UpstreamUrl::repository`]); a name without a host begins
        /// with its slash. None if the event concerns no repository.
        repositories: Vec<String>,
    },
    /// Somebody has set up a webhook, and its forge has sent a signed ping.
    PingReceived {
        /// The repository's names, as of a webhook.
        repositories: Vec<String>,
    },
    /// A build works, but perhaps not as the recipe's author expects.
    BuildWarned {
        /// The recipe's id.
        recipe: Arc<str>,
        /// The warning, which the log has.
        warning: Warning,
    },
    /// None of the packages of this version, which was just published, has a file.
    NoFilesPublished(JobKey),
    /// Whether the file that holds builds is there: looked up at the start and before each reload.
    PauseFound(bool),
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
    /// Build this version; answer with [`Event::BuildFinished`].
    StartBuild(BuildJob),
    /// Publish these versions together; answer with [`Event::PublishFinished`].
    StartPublish(Vec<PublishJob>),
    /// Copy the repository to the remote; answer with [`Event::UploadFinished`].
    StartUpload,
    /// Remove pending outputs that turned out to be published.
    DiscardOutputs(PendingOutputs),
    /// Remember the commits of versions of this recipe that were published before, as a listing shows
    /// them.
    RememberCommits(Arc<str>, Vec<(Version, ObjectId)>),
    /// Read the recipes; answer with [`Event::RosterLoaded`].
    LoadRoster,
    /// End the polls in progress.
    InterruptPolls,
    /// End the builds, the publish and the upload in progress.
    InterruptJobs,
    /// Tell the operator.
    Report(Notice),
}
