//! Why work on a repository fails; every message names its file.

use std::io;
use std::path::{Path, PathBuf};

use peipkg_format::signing_key::KeyError;

use crate::cli::Failure;
use crate::package_reader::PackageError;
use crate::signature::SignatureError;

/// Why a command of `peipkg-repo` fails.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// A file or directory cannot be read or written.
    #[error("{path}: cannot {action}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: the verb and its object.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A document of the repository is not the JSON of its schema.
    #[error("{path}: {source}", path = .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file or directory breaks a rule.
    #[error("{path}: {message}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was found, and what would be right.
        message: String,
    },
    /// A package is refused.
    #[error("{path}: {source}", path = .path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PackageError,
    },
    /// A detached signature is refused.
    #[error("{path}: {source}", path = .path.display())]
    Signature {
        /// The signature's file.
        path: PathBuf,
        /// Why.
        source: SignatureError,
    },
    /// The private key cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// Several things are wrong at once.
    #[error("{} problems", .0.len())]
    Several(Vec<RepoError>),
}

impl RepoError {
    /// An error of the file system: `path` and what was tried with it.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }

    /// A broken rule of `path`.
    pub(super) fn invalid(path: &Path, message: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), message: message.into() }
    }

    /// The failure of the command, one line per error.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Several(errors) => Failure::Failed(errors.iter().map(ToString::to_string).collect()),
            one => Failure::Failed(vec![one.to_string()]),
        }
    }
}
