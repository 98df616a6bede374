//! Finds the files of a published version, for a reader that holds no lock.

use std::io;
use std::path::{Path, PathBuf};

use peipkg_format::provenance::Statement;

use crate::farm::events::PendingOutputs;
use crate::repository::inspect::sha256;
use crate::repository::listed::{Entry, Listing};
use crate::state::durable::{FileError, at};
use crate::state::state_dir::StateDir;

/// A published package, as the archive index lists it.
#[derive(Debug)]
pub(crate) struct PublishedFile {
    /// Its file; none if it is on another server.
    pub path: Option<PathBuf>,
    /// Its SHA-256 in hexadecimal, if the index has it.
    hash: Option<String>,
}

impl PublishedFile {
    /// Whether the file at `path` has the hash that the index lists.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn is_hash_of(&self, path: &Path) -> io::Result<bool> {
        Ok(sha256(path)?.is_some_and(|found| Some(found) == self.hash))
    }

    /// Whether `statement` is about it, by this file name and the hash that the index lists.
    pub(crate) fn is_subject_of(&self, statement: &Statement, name: &str) -> bool {
        self.hash.as_deref().is_some_and(|hash| statement.is_about(name, hash))
    }

    fn of(entry: &Entry, repo: &Path) -> Result<Self, String> {
        // Without a file in the repository, the hash in the index still tells.
        let path = entry.path(repo)?.filter(|path| path.exists());
        Ok(Self { path, hash: entry.hash().map(str::to_owned) })
    }
}

/// Returns the files of the packages of `version`, in their order; none for a package that the archive index
/// does not list, and the reason for one whose entry leads nowhere.
///
/// # Errors
/// When the index cannot be read.
pub(crate) fn find(
    state: &StateDir,
    version: &PendingOutputs,
) -> Result<Vec<Option<Result<PublishedFile, String>>>, FileError> {
    let index = state.archive_index();
    let listing = Listing::read(&index, [version]).map_err(at(&index))?;
    let file = |package| Some(PublishedFile::of(listing.get(package, &version.key.version)?, &state.repo()));
    Ok(version.packages.iter().map(file).collect())
}
