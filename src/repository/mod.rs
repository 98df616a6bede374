//! The signed repository: publishes into it, settles a publish that was cut short, tells when its
//! archive index has changed, and uploads it.
//!
//! Only `peipkg-repo` writes package files and new indexes. The journal restores old indexes, and the
//! manager itself writes the provenance of packages beside them.

pub(crate) mod archive_file;
mod create;
mod group;
mod index_head;
pub(crate) mod inspect;
pub(crate) mod journal;
mod listed;
pub(crate) mod listed_keys;
pub(crate) mod loose;
mod no_files;
pub(crate) mod peipkg_repo;
pub(crate) mod pending;
mod provenance;
pub(crate) mod publish;
pub(crate) mod published;
pub(crate) mod published_commits;
pub(crate) mod published_files;
mod recorded_commits;
pub(crate) mod same_bytes;
mod saved_indexes;
pub(crate) mod settle;
mod sidecars;
pub(crate) mod timestamp;
pub(crate) mod upload;
mod verdict;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::repository::archive_file::ArchiveFile;
use crate::repository::journal::Journal;
use crate::repository::peipkg_repo::PeipkgRepo;
use crate::repository::pending::Pending;
use crate::state::state_dir::StateDir;

/// The repository of a state directory, and the tool that changes it. The builder, the uploader
/// and the loop share one.
#[derive(Debug)]
pub(crate) struct Repository {
    config: Arc<Config>,
    state: Arc<StateDir>,
    tool: PeipkgRepo,
    journal: Journal,
    pending: Pending,
    archive: ArchiveFile,
    /// Held while the repository changes, or must not change.
    access: Mutex<()>,
}

impl Repository {
    /// The repository of `state`, changed by the `peipkg-repo` at `program`.
    pub(crate) fn new(program: PathBuf, config: Arc<Config>, state: Arc<StateDir>) -> Self {
        Self {
            tool: PeipkgRepo { program, key_file: config.key_file.clone(), state: state.clone() },
            journal: Journal::new(state.journal(), state.repo()),
            pending: Pending::new(state.clone()),
            archive: ArchiveFile::new(state.archive_index()),
            access: Mutex::default(),
            config,
            state,
        }
    }

    /// The pending packages.
    pub(crate) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// The archive index as a file.
    pub(crate) fn archive(&self) -> &ArchiveFile {
        &self.archive
    }

    /// Whether a publish has begun and is not settled. Until then the archive index may be half
    /// written, or list packages that are not there.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.journal.exists()
    }

    /// Locks the repository against the other threads of this process.
    fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data that a panic could have broken.
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
