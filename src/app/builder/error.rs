//! Why a build failed, and which other versions are likely to fail the same way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peipkg_format::duration;
use peipkg_format::problem::excerpt;
use peipkg_format::signing_key::KeyError;
use peipkg_format::sort;

use crate::app::comparison::ComparisonError;
use crate::app::recipe_files::CopyError;
use crate::farm::events::Blame;
use crate::process::ProcessError;
use crate::state::durable::FileError;
use crate::upstream::git::GitError;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::app) enum BuildError {
    #[error(transparent)]
    Recipe(#[from] CopyError),
    #[error("cannot fetch the source: {0}")]
    Fetch(#[from] GitError),
    #[error("[upstream] signers {signers:?} needs {program}, which was not on PATH when the manager started")]
    VerifierMissing { signers: String, program: &'static str },
    #[error(transparent)]
    Tool(#[from] ProcessError),
    #[error("{error}; the fetch of the source took {} of it", duration::format(Duration::from_secs(fetching.as_secs())))]
    SlowFetch { fetching: Duration, error: ProcessError },
    #[error("cannot sign the provenance: {path}: {error}")]
    Sign { path: PathBuf, error: KeyError },
    #[error("cannot move the packages to publish: {0}")]
    Keep(FileError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "peipkg-build wrote {}, expected {} by the recipe's [[package]] stanzas",
        some_of(found),
        some_of(expected)
    )]
    Outputs { found: BTreeSet<String>, expected: BTreeSet<String> },
    #[error("the second build failed, the first did not: {0}")]
    Second(Box<BuildError>),
    #[error(transparent)]
    Comparison(#[from] ComparisonError),
    #[error("not reproducible, {package} comes out different: {difference}")]
    NotReproducible { package: String, difference: String },
}

impl BuildError {
    /// Whether the manager's shutdown ended the build.
    pub(super) fn is_interrupted(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_interrupted(),
            Self::Tool(error)
            | Self::SlowFetch { error, .. }
            | Self::Comparison(ComparisonError::Tool(error)) => error.is_interrupted(),
            Self::Second(error) => error.is_interrupted(),
            _ => false,
        }
    }

    /// As [`late`], for the second build.
    pub(super) fn late(self, fetching: Duration, configured: Option<Duration>) -> Self {
        match self {
            Self::Second(error) => Self::Second(Box::new(error.late(fetching, configured))),
            Self::Tool(error) => late(error, fetching, configured),
            error => error,
        }
    }

    /// Returns which other versions are likely to fail the same way.
    pub(super) fn blame(&self) -> Blame {
        match self {
            // The upstream delivered the source, but the disk refused it or a program is missing.
            Self::Fetch(error) if error.is_local() => Blame::Version,
            Self::Fetch(_) | Self::SlowFetch { .. } => Blame::Upstream,
            Self::Tool(ProcessError::TimedOut { .. }) | Self::VerifierMissing { .. } => Blame::Recipe,
            Self::Second(error) => error.blame(),
            _ => Blame::Version,
        }
    }
}

/// Replaces the paths of the recipe's `copy`, which is removed, by those of the recipe itself.
pub(super) fn in_own_paths(error: ProcessError, copy: &Path, recipe: &Path) -> ProcessError {
    let own_paths = |tail: String| tail.replace(&*copy.to_string_lossy(), &recipe.to_string_lossy());
    match error {
        ProcessError::TimedOut { program, limit, tail } => {
            ProcessError::TimedOut { program, limit, tail: own_paths(tail) }
        }
        ProcessError::Failed { program, status, tail } => {
            ProcessError::Failed { program, status, tail: own_paths(tail) }
        }
        error => error,
    }
}

/// Replaces a time-out's limit, the time that was left, by the configured one, which the operator
/// knows. Blames the fetch if it took longer than the builds might: a first build takes time too.
pub(super) fn late(error: ProcessError, fetching: Duration, configured: Option<Duration>) -> BuildError {
    match error {
        ProcessError::TimedOut { program, limit: left, tail } => {
            let limit = configured.unwrap_or(left);
            let error = ProcessError::TimedOut { program, limit, tail };
            if fetching > limit.saturating_sub(fetching) {
                BuildError::SlowFetch { fetching, error }
            } else {
                error.into()
            }
        }
        error => error.into(),
    }
}

/// Lists a few of `names`, and how many more there are.
fn some_of(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 10;
    let shown: BTreeSet<_> =
        names.iter().take(SHOWN).map(|name| excerpt(name)).fold(BTreeSet::new(), sort::included);
    match names.len().saturating_sub(SHOWN) {
        0 => format!("{shown:?}"),
        more => format!("{shown:?} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn disk_full_blames_no_recipe() {
        let error = || io::Error::other("no space left on device");
        let tree = GitError::Tree { path: PathBuf::new(), error: error() };
        assert_eq!(BuildError::Fetch(tree).blame(), Blame::Version);
        let lfs = GitError::LfsMissing { files: 1, path: PathBuf::new() };
        let lfs = GitError::Submodule { path: PathBuf::new(), error: Box::new(lfs) };
        assert_eq!(BuildError::Fetch(lfs).blame(), Blame::Version);
        let answer = GitError::Answer { found: String::new(), expected: "a time" };
        assert_eq!(BuildError::Fetch(answer).blame(), Blame::Upstream);
        let program = || "peipkg-build".to_owned();
        let missing = ProcessError::NotStarted { program: program(), error: error() };
        assert_eq!(BuildError::Tool(missing).blame(), Blame::Version);
    }

    #[test]
    fn time_out_blames_the_recipe_unless_the_fetch_took_longer_than_the_build() {
        let minutes = Duration::from_mins;
        for (fetching, left, blame) in [
            (1, 59, Blame::Recipe),
            (10, 5, Blame::Recipe),
            (59, 1, Blame::Upstream),
            (60, 0, Blame::Upstream),
        ] {
            let program = "peipkg-build".to_owned();
            let error = ProcessError::TimedOut { program, limit: minutes(left), tail: "cc x".into() };
            let error = late(error, minutes(fetching), Some(minutes(60)));
            assert_eq!(error.blame(), blame, "{error}");
            let fetch = format!("; the fetch of the source took {fetching}m0s of it");
            let fetch = if blame == Blame::Recipe { "" } else { &fetch };
            let text = error.to_string().replace("1h0m0s of it", "60m0s of it");
            assert_eq!(text, format!("peipkg-build was still running after 1h0m0s: cc x{fetch}"));
        }
    }
}
