//! Why a command of `peipkg-repo` fails. Every message names its file.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::package_reader::PackageError;
use crate::signature::{KeyFileError, SignatureError};

/// Why a command of `peipkg-repo` fails.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// The system refuses to read or change a file or directory.
    #[error("{path}: cannot {action}: {source}", path = .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The attempt: verb and object.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A document of the repository does not fit its JSON schema.
    #[error("{path}: {source}", path = .path.display())]
    Json {
        /// The document.
        path: PathBuf,
        /// The place in it and the reason.
        source: serde_json::Error,
    },
    /// A file or directory breaks a rule.
    #[error("{path}: {message}", path = .path.display())]
    Invalid {
        /// The file or directory.
        path: PathBuf,
        /// The finding, and what would be right.
        message: String,
    },
    /// A package is refused.
    #[error("{path}: {source}", path = .path.display())]
    Package {
        /// The package file.
        path: PathBuf,
        /// The reason.
        source: PackageError,
    },
    /// A detached signature is refused.
    #[error("{path}: {source}", path = .path.display())]
    Signature {
        /// The signature file.
        path: PathBuf,
        /// The reason.
        source: SignatureError,
    },
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Several errors at once.
    #[error("{} problems", .0.len())]
    Several(Vec<RepoError>),
}

impl RepoError {
    /// Turns an error of the system about `path` into a `RepoError`; `action` is verb and object.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }

    /// Makes the error that `path` breaks a rule.
    pub(super) fn invalid(path: &Path, message: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), message: message.into() }
    }

    /// Makes one error of several, if there are any.
    pub(super) fn several(errors: Vec<Self>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self::Several(errors)) }
    }

    /// Makes the failure of the command, one line per error.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Several(errors) => Failure::Failed(errors.iter().map(ToString::to_string).collect()),
            one => one.into(),
        }
    }
}
