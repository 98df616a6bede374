//! What the core is told, and what it asks for: past facts in, imperatives out. Pure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::holds::Hold;
use super::queue::Candidate;
use super::schedule::Moment;
use crate::archive::Archive;
use crate::identity::PackageName;
use crate::problem::Problem;
use crate::recipe::Recipe;
use crate::version::Version;

/// A version of a recipe: what is built, fails and is retried as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobKey {
    /// The recipe's id.
    pub recipe: Arc<str>,
    /// The package version.
    pub version: Version,
}

impl fmt::Display for JobKey {
    /// `<recipe>@<version>`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.recipe, self.version)
    }
}

/// How many versions' sources are fetched ahead at most, in one go with the one
/// that is built: a recipe's backlog costs a fraction of the round trips then.
pub const FETCH_AHEAD: usize = 64;

/// A build: one version of one recipe.
#[derive(Debug, Clone)]
pub struct BuildJob {
    /// The recipe, as it was when the build was decided.
    pub recipe: Arc<Recipe>,
    /// The version and its tag.
    pub candidate: Candidate,
    /// Whether a webhook has brought it, so that it went ahead of all recipes.
    pub urgent: bool,
    /// The tags of the upstream's versions that wait to be built, the next one first: at most [`FETCH_AHEAD`].
    pub next_tags: Vec<String>,
    /// Whether further versions of the same upstream wait to be built.
    pub more_of_upstream: bool,
}

/// The outputs of a finished build that still have to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOutputs {
    /// Their directory's name below `state_dir/publish`.
    pub directory: String,
    /// What they were built from.
    pub key: JobKey,
    /// The packages among them.
    pub packages: Vec<PackageName>,
}

/// What the builder thread does, one at a time.
#[derive(Debug, Clone)]
pub enum Job {
    /// Fetch, build and publish.
    Build(BuildJob),
    /// Publish what an earlier build has left.
    Publish(KeptOutputs),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobOutcome {
    /// Built (where that was asked for) and published.
    Done,
    /// The job failed, and nothing is left of it.
    Failed {
        /// Why, in one line.
        reason: String,
        /// Of whom it tells what to expect of other versions.
        blame: Blame,
    },
    /// The outputs are built and kept, but not published.
    PublishFailed {
        /// Why, in one line.
        reason: String,
        /// Where they are.
        outputs: KeptOutputs,
    },
    /// The outputs that were to be published are there no more: somebody has taken them away.
    OutputsGone,
    /// Ended by the manager's own shutdown.
    Interrupted,
}

/// Of whom a failed job tells what to expect of other versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Its upstream: the source could not be fetched.
    Upstream,
    /// Its recipe: the build did not end in time.
    Recipe,
    /// Nobody.
    Version,
}

/// How an upload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadOutcome {
    /// The remote has what the repository had when the upload was started.
    Done,
    /// It has not.
    Failed {
        /// Why, in one line.
        reason: String,
    },
    /// Ended by the manager's own shutdown.
    Interrupted,
}

/// Why an upstream could not be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollError {
    /// In one line.
    pub reason: String,
    /// What that tells about its host.
    pub fault: PollFault,
}

/// What a failed listing tells about the upstream's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollFault {
    /// It cannot be reached, or did not answer in time.
    NoAnswer,
    /// It answers, and redirects to one that does not.
    NoAnswerElsewhere,
    /// It wants to be left alone.
    Busy {
        /// For how long.
        pause: Duration,
        /// The URL a redirect led to, if that is what answered.
        redirected_to: Option<String>,
    },
    /// Nothing.
    Other,
}

/// Something that has happened.
#[derive(Debug)]
pub enum Event {
    /// Nothing but time has passed.
    DeadlineReached,
    /// The recipes were read, at the start or for a reload.
    RosterLoaded(Result<Vec<Recipe>, Vec<Problem>>),
    /// The archive index was read, or why it could not be.
    ArchiveRead(Result<Archive, String>),
    /// Outputs of an earlier run lie in `publish/`.
    OutputsFound(Vec<KeptOutputs>),
    /// The last upload of an earlier run did not succeed.
    UploadOwed,
    /// A listing has ended: the names of all tags, or why there is no answer.
    PollFinished {
        /// The upstream's URL.
        upstream: Arc<str>,
        /// The tags, without `refs/tags/`.
        tags: Result<Vec<String>, PollError>,
    },
    /// The builder has begun the log of its job, in this file.
    LogBegun(Arc<str>),
    /// The builder is done with its job.
    JobFinished(JobOutcome),
    /// An upload has ended.
    UploadFinished(UploadOutcome),
    /// A signed webhook has told of news in a repository.
    WebhookReceived {
        /// Its names (see [`crate::upstream_url::repository_name`]).
        repositories: Vec<String>,
    },
    /// SIGHUP.
    ReloadRequested,
    /// The first SIGTERM or SIGINT.
    StopRequested,
    /// A further one.
    AbortRequested,
}

/// Something that is to be done.
#[derive(Debug)]
pub enum Effect {
    /// List the tags of this upstream; answer with [`Event::PollFinished`].
    StartPoll(Arc<str>),
    /// Give the builder this job; it answers with [`Event::JobFinished`].
    StartJob(Job),
    /// Copy the repository to the remote; answer with [`Event::UploadFinished`].
    StartUpload,
    /// Remove outputs that turned out to be published.
    DiscardOutputs(KeptOutputs),
    /// Read the recipes; answer with [`Event::RosterLoaded`].
    LoadRoster,
    /// End the listings in progress.
    InterruptPolls,
    /// End the job in progress.
    InterruptJob,
    /// Tell the operator.
    Report(Notice),
}

/// Something the operator is told; one log line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the variants and fields are the log's own vocabulary, documented with the log events"
)]
pub enum Notice {
    RosterLoaded { count: usize },
    ReloadRefused { problems: Vec<Problem> },
    WebhookAccepted { recipe: Arc<str> },
    PollStarted { recipe: Arc<str>, upstream: Arc<str> },
    PollComplete { recipe: Arc<str>, tags_seen: usize, matches: usize, queued: usize },
    PollFailed { recipe: Arc<str>, upstream: Arc<str>, reason: String, next_poll: Option<Moment> },
    NoTagMatches { recipe: Arc<str>, tag_pattern: String, example: String },
    TagSkipped { recipe: Arc<str>, tag: String, reason: String },
    MoreTagsSkipped { recipe: Arc<str>, count: usize },
    PartlyPublished { key: JobKey },
    DedupCheckFailed { recipe: Arc<str>, reason: String },
    BuildStarted { key: JobKey, tag: String },
    AlreadyPublished { key: JobKey },
    PublishStarted { key: JobKey },
    BuildComplete { key: JobKey, took: Moment },
    BuildFailed { key: JobKey, failures: u32, retry_after: Moment, log: Option<Arc<str>>, reason: String },
    PublishFailed { key: JobKey, failures: u32, retry_after: Moment, log: Option<Arc<str>>, reason: String },
    RecipeHeld { recipe: Arc<str>, versions: usize, hold: Hold },
    UpstreamHeld { upstream: String, versions: usize, hold: Hold },
    OutputsGone { key: JobKey },
    JobInterrupted { key: JobKey },
    UploadStarted,
    UploadComplete { took: Moment },
    UploadFailed { failures: u32, retry_after: Moment, reason: String },
    Draining { in_flight: Option<JobKey> },
    Aborting,
}
