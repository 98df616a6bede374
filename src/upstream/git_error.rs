//! Why git, or what the manager does with its results, failed.

use std::io;
use std::path::PathBuf;

use crate::process::ProcessError;

/// Why a git operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// git itself failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// git printed something unexpected.
    #[error("git answered {found:?}, expected {expected}")]
    Answer {
        /// The output, at most 200 characters.
        found: String,
        /// The form that the output should have.
        expected: &'static str,
    },
    /// The tag names an object that is no commit, so it is no release.
    #[error("it names a {kind}, not a commit")]
    NoCommit {
        /// The object's type, as git names it.
        kind: &'static str,
        /// The id of the tag's object.
        id: String,
    },
    /// The tag has no good signature by one of the recipe's signers.
    #[error("{reason}")]
    Refused {
        /// Why not.
        reason: String,
        /// The id of the tag's object.
        id: String,
    },
    /// The programs could not verify the signature of the tag.
    #[error("cannot verify the signature of the tag by {signers:?}: {reason}")]
    Unverified {
        /// The file with the recipe's signers.
        signers: String,
        /// Why not.
        reason: String,
    },
    /// The manager could not prepare the fetched files.
    #[error("cannot prepare the source: {path}: {error}")]
    Tree {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The source needs a program that the machine lacks.
    #[error("the source has {files} files in git-lfs, such as {path}, and git-lfs is not installed")]
    LfsMissing {
        /// How many files there are.
        files: usize,
        /// The first of them, below the source's root.
        path: PathBuf,
    },
    /// git-lfs reported success, and a file is still a pointer.
    #[error("git-lfs has not replaced its pointer {path} by the content")]
    LfsPointer {
        /// The file, below the source's root.
        path: PathBuf,
    },
    /// A submodule cannot be fetched.
    #[error("submodule {path}: {error}")]
    Submodule {
        /// Its directory, below the source's root.
        path: PathBuf,
        /// Why.
        error: Box<GitError>,
    },
    /// A submodule has no usable URL, or its upstream lacks the commit.
    #[error("{reason}")]
    SubmoduleSource {
        /// Why not.
        reason: String,
    },
    /// The source has too many submodules.
    #[error("the source has more than {most} submodules")]
    Submodules {
        /// The most that are fetched.
        most: usize,
    },
}

impl GitError {
    /// Returns whether the manager's shutdown ended git.
    pub(crate) fn is_interrupted(&self) -> bool {
        match self {
            Self::Process(error) => error.is_interrupted(),
            Self::Submodule { error, .. } => error.is_interrupted(),
            _ => false,
        }
    }

    /// Returns whether the upstream has delivered, and this machine is at fault: its disk or its
    /// programs.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tree { .. } | Self::LfsMissing { .. } | Self::Unverified { .. } => true,
            Self::Submodule { error, .. } => error.is_local(),
            _ => false,
        }
    }
}
