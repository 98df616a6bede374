//! The work of the builder and the uploader: jobs, their outputs and their outcomes. Pure.

use std::fmt;
use std::sync::Arc;

use peipkg_format::package::PackageName;
use peipkg_format::version::Version;

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
    /// The tags of the upstream's waiting versions, the next one first, at most [`FETCH_AHEAD`].
    pub next_tags: Vec<String>,
    /// Whether further versions of the same upstream wait to be built.
    pub more_of_upstream: bool,
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
}

/// The builder's work, one job at a time.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    /// Fetch, build and publish.
    Build(BuildJob),
    /// Publish the pending outputs of an earlier build.
    Publish(PendingOutputs),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JobOutcome {
    /// Published, after its build if it had one.
    Done,
    /// The job failed and left nothing.
    Failed {
        /// Why, in one line.
        reason: String,
        /// Which other versions are likely to fail the same way.
        blame: Blame,
    },
    /// The outputs are built and pending.
    PublishFailed {
        /// Why, in one line.
        reason: String,
        /// The pending outputs.
        outputs: PendingOutputs,
    },
    /// Somebody removed the pending outputs.
    OutputsGone,
    /// The manager's shutdown ended the job.
    Interrupted,
}

/// Which other versions are likely to fail the same way as a failed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Those of its upstream: the fetch of the source failed.
    Upstream,
    /// Those of its recipe: the build ran into its time limit.
    Recipe,
    /// No other version: the failure says nothing about them.
    Version,
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

impl Job {
    /// Returns the version to build or publish.
    pub(in crate::farm) fn key(&self) -> JobKey {
        match self {
            Self::Build(build) => build.key(),
            Self::Publish(outputs) => outputs.key.clone(),
        }
    }

    /// Returns the packages that the job builds or publishes.
    pub(in crate::farm) fn packages(&self) -> &[PackageName] {
        match self {
            Self::Build(build) => &build.recipe.packages,
            Self::Publish(outputs) => &outputs.packages,
        }
    }
}
