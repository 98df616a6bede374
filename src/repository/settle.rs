//! Settles a publish that failed or was cut short: it stands, or the journal undoes it.
//!
//! A publish stands if every package is in the repository, to the byte, and the repository
//! verifies. Otherwise the journal restores the repository. A damaged journal cannot do so; then
//! the repository need only be whole as it is, with the packages or without them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use log::warn;

use crate::process::{Interrupt, ProcessError};
use crate::repository::Repository;
use crate::repository::install::is_vacant;
use crate::repository::journal::{JournalError, Saved};
use crate::state::durable::{FileError, at};

/// How a publish was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// No publish was cut short, or it left nothing to settle.
    Nothing,
    /// The publish of the packages in this directory below `publish/` was whole.
    Stands(String),
    /// The publish was not whole. The repository is as it was before.
    Undone,
}

/// When the publish to settle has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Just now, under the lock: its tool has made every change in the repository since.
    JustNow,
    /// Perhaps long ago: others may have published since.
    Earlier,
}

/// Why a publish could not be settled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The tool's lock could not be taken, or `peipkg-repo verify` could not run.
    #[error(transparent)]
    Tool(#[from] ProcessError),
    /// The journal is damaged and the repository is not whole, so nothing can restore it.
    #[error(
        "{journal} is damaged ({reason}) and cannot undo the last publish; \
         the repository is not whole: {found}; \
         restore its index or rebuild it from its packages, then start again"
    )]
    Damaged {
        /// The journal.
        journal: PathBuf,
        /// How the journal is damaged.
        reason: &'static str,
        /// How the repository is not whole.
        found: String,
    },
    /// A publish was cut short in a `repo/` that is empty now, for example an unmounted disk.
    #[error(
        "{repo} is empty, but a publish in it was cut short; mount it, or remove {journal} if it is lost"
    )]
    Emptied {
        /// The directory.
        repo: PathBuf,
        /// The journal that can undo the publish.
        journal: PathBuf,
    },
}

impl SettleError {
    /// Whether the manager's own shutdown ended it.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self, Self::Tool(error) if error.is_interrupted())
    }
}

impl Repository {
    /// Settles the publish that the journal tells of, if any: lets it stand if it is whole, else
    /// undoes it.
    ///
    /// # Errors
    /// When the repository cannot be restored; the caller can try again.
    pub(super) fn settle(&self, ended: Ended, interrupt: &Interrupt) -> Result<Settled, SettleError> {
        let (repo, journal) = (self.state.repo(), &self.journal);
        let saved = match journal.read() {
            Ok(None) => return Ok(Settled::Nothing),
            Ok(Some(saved)) => Ok(saved),
            Err(JournalError::Damaged(reason)) => Err(reason),
            Err(JournalError::Unreadable(error)) => return Err(error.into()),
        };
        if is_missing(&repo) {
            // Somebody has removed the repository: nothing is left to restore.
            journal.forget()?;
            return Ok(Settled::Nothing);
        }
        if is_empty(&repo)? {
            // Keep the journal: if the repository's disk is mounted again, only it can restore.
            return Err(SettleError::Emptied { repo, journal: journal.path().to_owned() });
        }
        self.tool.wait_for_writer(interrupt)?;
        let settled = match saved {
            Ok(saved) => {
                let Some(settled) = self.standing(&saved, ended, interrupt)? else {
                    if journal.undo(&saved)? {
                        warn!(directory = saved.directory; "publish was cut short, repository restored");
                    }
                    return Ok(Settled::Undone);
                };
                settled
            }
            Err(reason) => self.settle_without_journal(reason, interrupt)?,
        };
        journal.forget()?;
        Ok(settled)
    }

    /// Returns how to settle a publish that must not be undone: it is whole, or it left no trace
    /// and somebody else has published since, which the undo would lose.
    fn standing(
        &self,
        saved: &Saved,
        ended: Ended,
        interrupt: &Interrupt,
    ) -> Result<Option<Settled>, SettleError> {
        // Check the indexes too, which a tool finishes last: the packages may have been there since
        // an earlier publish that was undone.
        let outputs = self.pending.get(&saved.directory);
        let Some(outputs) = outputs.filter(|_| self.journal.is_superseded(saved)) else {
            return Ok(None);
        };
        let is_whole = self.missing(&outputs).is_none();
        let is_others_work = !is_whole && ended == Ended::Earlier && self.lists_none_of(&outputs);
        if !(is_whole || is_others_work) || self.fault(interrupt)?.is_some() {
            return Ok(None);
        }
        if is_others_work {
            return Ok(Some(Settled::Nothing));
        }
        self.sync(&outputs)?;
        Ok(Some(Settled::Stands(outputs.directory)))
    }

    /// Accepts a repository that is whole although its journal is damaged, for `reason`.
    fn settle_without_journal(
        &self,
        reason: &'static str,
        interrupt: &Interrupt,
    ) -> Result<Settled, SettleError> {
        let journal = self.journal.path();
        if let Some(found) = self.fault_of_any_publish(interrupt)? {
            return Err(SettleError::Damaged { journal: journal.to_owned(), reason, found });
        }
        let pending = self.pending.list();
        for outputs in pending.iter().filter(|outputs| self.missing(outputs).is_none()) {
            self.sync(outputs)?;
        }
        warn!(path = journal.display().to_string(), reason; "journal is damaged, but the repository is whole");
        Ok(Settled::Nothing)
    }

    /// Returns why the repository is not whole, if a publish of any pending packages may have been
    /// cut short in it.
    fn fault_of_any_publish(&self, interrupt: &Interrupt) -> Result<Option<String>, SettleError> {
        if let Some(found) = self.fault(interrupt)? {
            return Ok(Some(found));
        }
        // Verify has read the index; only the packages that it lists are left to compare.
        let check = |(path, outputs): (PathBuf, _)| match outputs {
            Some(outputs) => self.listed_but_altered(&outputs),
            None => Some(format!("{} cannot be read, and may have been published", path.display())),
        };
        Ok(self.pending.entries()?.into_iter().find_map(check))
    }

    /// Returns the fault that `peipkg-repo verify` finds, if any. If verify could not run, returns
    /// that error: the repository may be whole.
    fn fault(&self, interrupt: &Interrupt) -> Result<Option<String>, ProcessError> {
        match self.tool.verify(interrupt) {
            Ok(()) => Ok(None),
            Err(error @ ProcessError::Failed { .. }) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// Whether there is nothing at `path`. A dangling link counts as something: it may lead to a disk
/// that is not mounted.
pub(super) fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether the directory at `path` is empty, as [`is_vacant`] tells.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_empty(path: &Path) -> Result<bool, FileError> {
    is_vacant(path).map_err(at(path))
}
