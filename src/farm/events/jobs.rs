//! The work of builders, publisher and uploader: jobs, their outputs and their outcomes. Pure.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use peipkg_format::object_id::ObjectId;
use peipkg_format::package::PackageName;
use peipkg_format::version::Version;

use crate::farm::events::polls::NoCommit;
use crate::farm::queue::Candidate;
use crate::recipe::{Recipe, Upstream};

/// A version of a recipe: the unit of builds, failures and retries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct JobKey {
    /// The recipe's id.
    pub recipe: Arc<str>,
    /// The package version.
    pub version: Version,
}

impl Ord for JobKey {
    /// Compares texts, so that equal keys are the same version.
    fn cmp(&self, other: &Self) -> Ordering {
        self.recipe.cmp(&other.recipe).then_with(|| self.version.as_str().cmp(other.version.as_str()))
    }
}

impl PartialOrd for JobKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for JobKey {
    /// `<recipe>@<version>`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.recipe, self.version)
    }
}

/// How many sources one fetch may bring ahead, beside the source to build. It saves a backlog most
/// of its round trips.
pub(crate) const FETCH_AHEAD: usize = 64;

/// A build: one version of one recipe.
#[derive(Debug, Clone)]
pub(crate) struct BuildJob {
    /// The recipe, as it was when the core decided on the build.
    pub recipe: Arc<Recipe>,
    /// The upstream of the recipe.
    pub upstream: Upstream,
    /// The version and its tag.
    pub candidate: Candidate,
    /// Whether a webhook brought the version. Urgent versions go ahead of all recipes.
    pub urgent: bool,
    /// The tags of the upstream's waiting versions, the next one first, at most [`FETCH_AHEAD`]. Empty
    /// if no other version of the upstream waits.
    pub next_tags: Vec<String>,
}

/// The outputs of a finished build that wait for their publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingOutputs {
    /// The name of their directory below `state_dir/publish`.
    pub directory: String,
    /// The version they belong to.
    pub key: JobKey,
    /// The packages among them.
    pub packages: Vec<PackageName>,
    /// The source that they were built from; `None` if nobody knows: they were loose, or an earlier
    /// manager built them.
    pub built_from: Option<BuiltFrom>,
}

/// The source of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuiltFrom {
    /// The upstream's tag, without `refs/tags/`.
    pub tag: Box<str>,
    /// The commit that was fetched.
    pub commit: ObjectId,
}

/// One version of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishJob {
    /// Its packages.
    pub outputs: PendingOutputs,
    /// The path of the log to continue; `None` begins a log of its own.
    pub log: Option<Arc<str>>,
    /// Whether its build has just ended, so that the publish is part of the same attempt.
    pub is_new: bool,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BuildOutcome {
    /// The packages are built and pending.
    Built {
        /// The packages.
        outputs: PendingOutputs,
        /// The path of the build's log, for the publisher to continue; `None` if it has none.
        log: Option<Arc<str>>,
    },
    /// The build failed and left nothing.
    Failed {
        /// Why, in one line.
        reason: String,
        /// Which other versions are likely to fail the same way.
        blame: Blame,
    },
    /// The tag names no commit, or no signer has signed it, so there is nothing to build.
    NoCommit(NoCommit),
    /// The recipe's files are no longer those that the farm has loaded: nothing was built.
    RecipeChanged,
    /// The manager's shutdown ended the build.
    Interrupted,
}

/// Which other versions are likely to fail the same way as a failed build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Those of its upstream: the fetch of the source failed.
    Upstream,
    /// Those of its recipe: the build ran into its time limit.
    Recipe,
    /// No other version: the failure says nothing about them.
    Version,
}

/// How a publish ended: one run of `peipkg-repo`, of one or several versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublishOutcome {
    /// All of them are published.
    Done,
    /// None of them is.
    Failed {
        /// Why, in one line.
        reason: String,
    },
    /// None was published, because these directories below `publish/` are gone: somebody removed them,
    /// or they were loose packages that had to be set aside.
    Gone(Vec<String>),
    /// The manager's shutdown ended the publish.
    Interrupted,
}

/// How an upload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadOutcome {
    /// The remote has everything that was published before the upload started.
    Done,
    /// The remote may lack some of it.
    Failed {
        /// Why, in one line.
        reason: String,
    },
    /// The manager's shutdown ended the upload.
    Interrupted,
}

impl BuildJob {
    /// Returns the version to build.
    pub(crate) fn key(&self) -> JobKey {
        JobKey { recipe: self.recipe.id.clone(), version: self.candidate.version.clone() }
    }
}
