//! Settles a publish that failed or was cut short: the repository stays as it is, or the journal
//! restores it.
//!
//! Four cases end before any fact is needed:
//!
//! | journal | `repo/` | done |
//! |---|---|---|
//! | none | any | nothing |
//! | unreadable | any | an error |
//! | there | missing | the journal is dropped |
//! | there | empty | an error: a disk may not be mounted |
//!
//! All others are the table of [`decide`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use log::warn;

use crate::process::{Interrupt, ProcessError};
use crate::repository::Repository;
use crate::repository::inspect::{Facts, Unknown};
use crate::repository::journal::{JournalError, Saved};
use crate::repository::verdict::{self, Ended, Group, Indexes, Repo, Verdict, decide};
use crate::state::durable::{FileError, at};
use crate::state::volumes::LOST_AND_FOUND;

/// Which directories below `publish/` the settled publish has published, as far as the journal tells.
pub(super) type Published = Vec<String>;

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
    /// Somebody has published since, so the journal must not undo anything, and the repository is not
    /// whole.
    #[error(
        "somebody has published since the publish that {journal} can undo, and the repository is not whole: \
         {found}; restore its index or rebuild it from its packages, then start again"
    )]
    Overtaken {
        /// The journal.
        journal: PathBuf,
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

impl From<Unknown> for SettleError {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::File(error) => error.into(),
            Unknown::Tool(error) => error.into(),
        }
    }
}

impl SettleError {
    /// Whether the manager's own shutdown ended it.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self, Self::Tool(error) if error.is_interrupted())
    }
}

impl Repository {
    /// Settles the publish that the journal tells of, if any: keeps the repository, or undoes the
    /// publish.
    ///
    /// # Errors
    /// When the facts cannot be found, nothing can restore the repository, or that fails. The
    /// journal stays, so the caller can try again.
    pub(super) fn settle(&self, ended: Ended, interrupt: &Interrupt) -> Result<Published, SettleError> {
        let (repo, journal) = (self.state.repo(), &self.journal);
        let saved = match journal.read() {
            Ok(None) => return Ok(Published::new()),
            Ok(Some(saved)) => Ok(saved),
            Err(JournalError::Damaged(reason)) => Err(reason),
            Err(JournalError::Unreadable(error)) => return Err(error.into()),
        };
        if is_missing(&repo) {
            // Somebody has removed the repository: nothing is left to restore.
            journal.forget()?;
            return Ok(Published::new());
        }
        if is_empty(&repo)? {
            // Keep the journal: if the repository's disk is mounted again, only it can restore.
            return Err(SettleError::Emptied { repo, journal: journal.path().to_owned() });
        }
        self.tool.wait_for_writer(interrupt)?;
        let (verdict, facts, saved) = self.judge_publish(saved, ended, interrupt)?;
        let found = facts.fault.unwrap_or_default();
        let path = journal.path();
        match (verdict, saved) {
            (Verdict::Keep, saved) => {
                let placed = self.place_settled(&facts.published)?;
                self.sync(facts.new_files.into_iter().chain(placed))?;
                if let Err(reason) = saved {
                    warn!(path = path.display().to_string(), reason; "journal is damaged, but the repository is whole");
                }
                journal.forget()?;
                Ok(facts.published)
            }
            (Verdict::Undo, Ok(saved)) => {
                self.remove_sidecars(&saved);
                if journal.undo(&saved)? {
                    let directories: Vec<_> = saved.group.iter().map(|member| &*member.directory).collect();
                    warn!(directory = directories.join(" "); "publish was cut short, repository restored");
                }
                Ok(Published::new())
            }
            (Verdict::Stop, Ok(_)) => Err(SettleError::Overtaken { journal: path.to_owned(), found }),
            (Verdict::Stop | Verdict::Undo, Err(reason)) => {
                Err(SettleError::Damaged { journal: path.to_owned(), reason, found })
            }
        }
    }

    /// Finds the facts about a publish and decides about it. A journal that could not restore the indexes is
    /// damaged too.
    fn judge_publish(
        &self,
        saved: Result<Saved, &'static str>,
        ended: Ended,
        interrupt: &Interrupt,
    ) -> Result<(Verdict, Facts, Result<Saved, &'static str>), SettleError> {
        let reason = match saved {
            Ok(saved) => {
                let facts = self.inspect(&saved, ended, interrupt)?;
                let verdict = decide_by(verdict::Journal::Usable, &facts);
                if verdict != Verdict::Undo || self.can_restore(&saved, interrupt)? {
                    return Ok((verdict, facts, Ok(saved)));
                }
                "the copies of the indexes beside it are not those that were signed"
            }
            Err(reason) => reason,
        };
        let facts = self.inspect_without_journal(interrupt)?;
        Ok((decide_by(verdict::Journal::Damaged, &facts), facts, Err(reason)))
    }

    /// Finds what is known of a publish whose journal is damaged: it may have been of any pending
    /// packages.
    fn inspect_without_journal(&self, interrupt: &Interrupt) -> Result<Facts, SettleError> {
        let fault = self.fault_of_any_publish(interrupt)?;
        let mut facts = Facts {
            indexes: Indexes::Unfinished,
            group: Group::Torn,
            fault,
            published: Published::new(),
            new_files: Vec::new(),
        };
        if facts.fault.is_none() {
            let pending = self.pending.list();
            let listing = self.listing(&pending)?;
            let published = pending.iter().filter_map(|outputs| self.published(outputs, &listing).ok());
            facts.new_files = published.flatten().collect();
        }
        Ok(facts)
    }

    /// Returns why the repository is not whole, if a publish of any pending packages may have been
    /// cut short in it.
    fn fault_of_any_publish(&self, interrupt: &Interrupt) -> Result<Option<String>, SettleError> {
        if let Some(found) = self.fault(interrupt)? {
            return Ok(Some(found));
        }
        // Verify has read the index; only the packages that it lists are left to compare.
        let entries = self.pending.entries()?;
        let listing = self.listing(entries.iter().filter_map(|(_, outputs)| outputs.as_ref()))?;
        let check = |(path, outputs): &(PathBuf, _)| match outputs {
            Some(outputs) => self.listed_but_altered(outputs, &listing),
            None => Some(format!("{} cannot be read, and may have been published", path.display())),
        };
        Ok(entries.iter().find_map(check))
    }
}

fn decide_by(journal: verdict::Journal, facts: &Facts) -> Verdict {
    let repo = if facts.fault.is_none() { Repo::Whole } else { Repo::Faulty };
    decide(journal, facts.indexes, repo, facts.group)
}

/// Whether there is nothing at `path`. A dangling link counts as something: it may lead to a disk
/// that is not mounted.
pub(super) fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether the directory at `path` is empty, but for the `lost+found` of a new disk.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_empty(path: &Path) -> Result<bool, FileError> {
    for entry in fs::read_dir(path).map_err(at(path))? {
        if entry.map_err(at(path))?.file_name() != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}
