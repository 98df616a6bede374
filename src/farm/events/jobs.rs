//! The builder's and the uploader's work: jobs, their outputs and their outcomes. Pure.

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

/// How many sources one fetch may bring beside the version that is built. A backlog then costs a
/// fraction of the round trips.
pub(crate) const FETCH_AHEAD: usize = 64;

/// A build: one version of one recipe.
#[derive(Debug, Clone)]
pub(crate) struct BuildJob {
    /// The recipe, as it was when the build was decided.
    pub recipe: Arc<Recipe>,
    /// The upstream of the recipe.
    pub upstream: Upstream,
    /// The version and its tag.
    pub candidate: Candidate,
    /// Whether a webhook has brought it. Such a version goes ahead of all recipes.
    pub urgent: bool,
    /// The tags of the upstream's versions that wait to be built, the next one first: at most
    /// [`FETCH_AHEAD`].
    pub next_tags: Vec<String>,
    /// Whether further versions of the same upstream wait to be built.
    pub more_of_upstream: bool,
}

/// The outputs of a finished build that still have to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingOutputs {
    /// Their directory's name below `state_dir/publish`.
    pub directory: String,
    /// The version that they are the outputs of.
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
    /// The job failed, and nothing is left of it.
    Failed {
        /// Why, in one line.
        reason: String,
        /// Which other versions are likely to fail the same way.
        blame: Blame,
    },
    /// The outputs are built, and pending.
    PublishFailed {
        /// Why, in one line.
        reason: String,
        /// Where they are.
        outputs: PendingOutputs,
    },
    /// Somebody has removed the pending outputs.
    OutputsGone,
    /// Ended by the manager's own shutdown.
    Interrupted,
}

/// Which other versions are likely to fail the same way as a failed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Those of its upstream: the source could not be fetched.
    Upstream,
    /// Those of its recipe: the build did not end in time.
    Recipe,
    /// None.
    Version,
}

/// How an upload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadOutcome {
    /// The remote has what the repository had when the upload was started.
    Done,
    /// The remote lacks some of it.
    Failed {
        /// Why, in one line.
        reason: String,
    },
    /// Ended by the manager's own shutdown.
    Interrupted,
}

impl BuildJob {
    /// The version this builds.
    pub(crate) fn key(&self) -> JobKey {
        JobKey { recipe: self.recipe.id.clone(), version: self.candidate.version.clone() }
    }
}

impl Job {
    /// The version this is about.
    pub(in crate::farm) fn key(&self) -> JobKey {
        match self {
            Self::Build(build) => build.key(),
            Self::Publish(outputs) => outputs.key.clone(),
        }
    }

    /// The packages this makes, or would publish.
    pub(in crate::farm) fn packages(&self) -> &[PackageName] {
        match self {
            Self::Build(build) => &build.recipe.packages,
            Self::Publish(outputs) => &outputs.packages,
        }
    }
}
