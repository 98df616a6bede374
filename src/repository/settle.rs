//! Settles a publish that is over or was cut short: it stands, or its journal undoes it.
//!
//! A publish stands if all that was to be published is in the repository, to the
//! byte, and the repository verifies. Else its journal brings the repository back
//! to what it was. A journal that is damaged cannot do that; then it is enough
//! that the repository is whole as it is, with the outputs or without them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;

use crate::process::{Interrupt, ProcessError};
use crate::repository::journal::{Journal, JournalError, Saved};
use crate::repository::peipkg_repo::PeipkgRepo;
use crate::repository::pending::Pending;
use crate::repository::published::Published;
use crate::state::durable::{FileError, at};
use crate::state::state_dir::StateDir;

/// How a publish was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// There was none, or it has left nothing to settle.
    Nothing,
    /// It was whole: the publish of the outputs in this directory below `publish/`.
    Stands(String),
    /// It was not, and the repository is as it was before.
    Undone,
}

/// Which publish to settle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// One that has just ended: what is in the repository now is its tool's work.
    Own,
    /// One that may have ended long ago: others may have published since.
    Earlier,
}

/// Why a publish could not be settled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tool is in the way, or `peipkg-repo verify` could not be run.
    #[error(transparent)]
    Tool(#[from] ProcessError),
    /// Nobody can tell any more what the last publish has changed.
    #[error(
        "{journal}: cannot be used to undo the last publish, {reason}; and the repository is not whole: {found}; \
         restore its index or make it anew from its packages, then start again"
    )]
    Damaged {
        /// The journal.
        journal: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
        /// What is wrong with the repository.
        found: String,
    },
    /// A publish was cut short in a `repo/` that is empty now, as where a disk is not mounted.
    #[error(
        "{repo} is empty, but a publish in it was cut short; mount it, or remove {journal} if it is lost"
    )]
    Emptied {
        /// The directory.
        repo: PathBuf,
        /// What can undo the publish.
        journal: PathBuf,
    },
}

impl SettleError {
    /// Whether the manager's own shutdown ended it.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self, Self::Tool(ProcessError::Interrupted { .. }))
    }
}

/// The repository, and what tells how a publish in it went.
#[derive(Debug, Clone)]
pub(crate) struct Settler {
    repo: PathBuf,
    journal: Journal,
    pending: Pending,
    published: Published,
    tool: PeipkgRepo,
}

impl Settler {
    /// That of the repository of a state directory.
    pub(crate) fn new(state: &Arc<StateDir>, journal: Journal, tool: PeipkgRepo) -> Self {
        let (pending, published) = (Pending::new(state.clone()), Published::new(state.clone()));
        Self { repo: state.repo(), journal, pending, published, tool }
    }

    /// Ends a publish that was cut short: it stands if it is whole, else it is undone.
    ///
    /// # Errors
    /// When the repository cannot be brought back; this can be tried again.
    pub(crate) fn settle(&self, whose: Whose, interrupt: &Interrupt) -> Result<Settled, SettleError> {
        let (repo, journal) = (&self.repo, &self.journal);
        let saved = match journal.read() {
            Ok(None) => return Ok(Settled::Nothing),
            Ok(Some(saved)) => Ok(saved),
            Err(JournalError::Damaged(reason)) => Err(reason),
            Err(JournalError::Unreadable(error)) => return Err(error.into()),
        };
        if is_missing(repo) {
            // Somebody has taken the repository away, and with it all that could be mended.
            journal.forget()?;
            return Ok(Settled::Nothing);
        }
        if is_empty(repo)? {
            // Its disk may be mounted again, and then only the journal can mend it.
            return Err(SettleError::Emptied { repo: repo.clone(), journal: journal.path().to_owned() });
        }
        self.tool.wait_for_writer(interrupt)?;
        let settled = match saved {
            Ok(saved) => {
                let Some(settled) = self.standing(&saved, whose, interrupt)? else {
                    if journal.undo(&saved)? {
                        warn!(outputs = saved.outputs; "publish was cut short, repository restored");
                    }
                    return Ok(Settled::Undone);
                };
                settled
            }
            Err(reason) => {
                if let Some(found) = self.unsoundness(interrupt)? {
                    let journal = journal.path().to_owned();
                    return Err(SettleError::Damaged { journal, reason, found });
                }
                let pending = self.pending.list();
                for outputs in pending.iter().filter(|outputs| self.published.missing(outputs).is_none()) {
                    self.published.sync(outputs)?;
                }
                warn!(path = journal.path().display().to_string(), reason; "journal is damaged, but the repository is whole");
                Settled::Nothing
            }
        };
        journal.forget()?;
        Ok(settled)
    }

    /// What becomes of the publish that `saved` would undo, if it must not be undone: it is whole, or it has left no
    /// trace and somebody else has published since, which the undo would lose.
    fn standing(
        &self,
        saved: &Saved,
        whose: Whose,
        interrupt: &Interrupt,
    ) -> Result<Option<Settled>, SettleError> {
        // The packages may have been there since an earlier publish that was undone: the indexes come to their end last.
        let outputs = self.pending.get(&saved.outputs);
        let Some(outputs) = outputs.filter(|_| self.journal.is_superseded(saved)) else {
            return Ok(None);
        };
        let is_whole = self.published.missing(&outputs).is_none();
        let is_of_others = !is_whole && whose == Whose::Earlier && self.published.has_none_of(&outputs);
        if !(is_whole || is_of_others) || self.fault(interrupt)?.is_some() {
            return Ok(None);
        }
        if is_of_others {
            return Ok(Some(Settled::Nothing));
        }
        self.published.sync(&outputs)?;
        Ok(Some(Settled::Stands(outputs.directory)))
    }

    /// Why the repository is not whole, if a publish of any of the pending outputs may have been cut short in it.
    fn unsoundness(&self, interrupt: &Interrupt) -> Result<Option<String>, SettleError> {
        if let Some(found) = self.fault(interrupt)? {
            return Ok(Some(found));
        }
        let archive = match self.published.read_archive() {
            Ok(archive) => archive,
            Err(error) => return Ok(Some(error.to_string())),
        };
        let check = |(path, outputs): (PathBuf, _)| match outputs {
            Some(outputs) => self.published.listed_but_altered(&archive, &outputs),
            None => Some(format!("{} may have been published and cannot be read", path.display())),
        };
        Ok(self.pending.entries()?.into_iter().find_map(check))
    }

    /// What `peipkg-repo verify` finds wrong, if anything. If it could not run, that is an error: the repository may be
    /// whole.
    fn fault(&self, interrupt: &Interrupt) -> Result<Option<String>, ProcessError> {
        match self.tool.verify(interrupt) {
            Ok(()) => Ok(None),
            Err(error @ ProcessError::Failed { .. }) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// Whether nothing at all is at `path`: a link to a disk that is not there is something.
pub(crate) fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether there is nothing in the directory at `path`.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn is_empty(path: &Path) -> Result<bool, FileError> {
    Ok(fs::read_dir(path).map_err(at(path))?.next().is_none())
}
