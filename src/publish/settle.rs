//! Whether a publish has come to its end: asked of one that is just over, and of one that was cut short.
//!
//! A publish stands if all that was to be published is in the repository, to the
//! byte, and the repository verifies. Else its journal brings the repository back
//! to what it was. A journal that is damaged cannot do that; then it is enough
//! that the repository is whole as it is, with the outputs or without them.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::slice;

use log::warn;

use super::{PublishError, Publisher, at, is_empty, lock, read_kept};
use crate::archive::{Archive, Presence};
use crate::farm::event::KeptOutputs;
use crate::identity::PackageName;
use crate::journal::{JournalError, Kept};
use crate::process::{Interrupt, ProcessError};

/// How a publish that was cut short has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// There was none, or nobody can tell which.
    Nothing,
    /// It was whole.
    Stands,
    /// It was not, and the repository is as it was before.
    Undone,
}

impl Publisher {
    /// Ends a publish that was cut short: it stands if it is whole, else it is undone.
    ///
    /// # Errors
    /// When the repository cannot be brought back; this can be tried again.
    pub fn settle(&self, interrupt: &Interrupt) -> Result<Settled, PublishError> {
        let (repo, journal) = (self.state.repo(), self.state.journal());
        let kept = match journal.read() {
            Ok(None) => return Ok(Settled::Nothing),
            Ok(Some(kept)) => Ok(kept),
            Err(JournalError::Damaged(reason)) => Err(reason),
            Err(JournalError::Unreadable(error)) => return Err(at(journal.path())(error)),
        };
        if is_empty(&repo) {
            // Somebody has taken the repository away, and with it all that could be mended.
            journal.forget().map_err(at(journal.path()))?;
            return Ok(Settled::Nothing);
        }
        // The tool may have outlived its manager, and be at it still.
        drop(lock(&self.state.tool_lock(), interrupt)?);
        let settled = match kept {
            Ok(kept) if !self.stands(&kept, interrupt)? => {
                journal.undo(&kept).map_err(at(&repo))?;
                warn!(outputs = kept.outputs; "publish was cut short, repository restored");
                return Ok(Settled::Undone);
            }
            Ok(_) => Settled::Stands,
            Err(reason) => {
                if let Some(found) = self.unsoundness(interrupt)? {
                    let journal = journal.path().to_owned();
                    return Err(PublishError::CannotSettle { journal, reason, found });
                }
                warn!(path = journal.path().display().to_string(), reason; "journal is damaged, but the repository is whole");
                Settled::Nothing
            }
        };
        journal.forget().map_err(at(journal.path()))?;
        Ok(settled)
    }

    /// What of `outputs` is not in the repository, or not as it was built.
    pub(super) fn missing(&self, outputs: &KeptOutputs) -> Option<String> {
        let (path, version) = (self.state.archive_index(), &outputs.key.version);
        // This is done after each publish: what is not about these packages is only passed over.
        let archive =
            fs::read(&path).and_then(|index| Ok(Archive::read_part(&index, &outputs.packages, version)?));
        let archive = match archive {
            Ok(archive) => archive,
            Err(error) => return Some(format!("{}: {error}", path.display())),
        };
        outputs.packages.iter().find_map(|package| {
            let name = package.file_name(version);
            if archive.presence(slice::from_ref(package), version) != Presence::Complete {
                return Some(format!("{name} is not in the archive index"));
            }
            (!self.is_published_as_kept(outputs, package))
                .then(|| format!("{name} is not the file that was built"))
        })
    }

    /// Whether the publish that `kept` would undo is whole.
    fn stands(&self, kept: &Kept, interrupt: &Interrupt) -> Result<bool, PublishError> {
        let outputs = read_kept(&self.state.publish().join(&kept.outputs));
        // The packages may have been there since an earlier publish that was undone: the indexes come to their end last.
        let is_there = outputs.is_some_and(|outputs| self.missing(&outputs).is_none());
        Ok(is_there && self.state.journal().is_superseded(kept) && self.fault(interrupt)?.is_none())
    }

    /// Why the repository is not whole, if a publish of any of the kept outputs may have been cut short in it.
    fn unsoundness(&self, interrupt: &Interrupt) -> Result<Option<String>, PublishError> {
        if let Some(found) = self.fault(interrupt)? {
            return Ok(Some(found));
        }
        let archive = match self.read_archive() {
            Ok(archive) => archive,
            Err(error) => return Ok(Some(error)),
        };
        let publish = self.state.publish();
        for entry in fs::read_dir(&publish).map_err(at(&publish))? {
            let path = entry.map_err(at(&publish))?.path();
            let Some(outputs) = read_kept(&path) else {
                return Ok(Some(format!("{} may have been published and cannot be read", path.display())));
            };
            let version = &outputs.key.version;
            let is_listed = |package: &&PackageName| {
                archive.presence(slice::from_ref(*package), version) == Presence::Complete
            };
            let half =
                outputs.packages.iter().filter(is_listed).find(|p| !self.is_published_as_kept(&outputs, p));
            if let Some(package) = half {
                return Ok(Some(format!("{} is not the file that was built", package.file_name(version))));
            }
        }
        Ok(None)
    }

    /// What `peipkg-repo verify` finds wrong, if anything.
    fn fault(&self, interrupt: &Interrupt) -> Result<Option<String>, PublishError> {
        match self.verify(interrupt) {
            Ok(()) => Ok(None),
            Err(error @ PublishError::Process(ProcessError::Failed { .. })) => Ok(Some(error.to_string())),
            // What could not be asked is not answered with no.
            Err(error) => Err(error),
        }
    }

    fn read_archive(&self) -> Result<Archive, String> {
        let path = self.state.archive_index();
        let archive = File::open(&path).and_then(|file| Ok(Archive::read(BufReader::new(file))?));
        archive.map_err(|error| format!("{}: {error}", path.display()))
    }

    fn is_published_as_kept(&self, outputs: &KeptOutputs, package: &PackageName) -> bool {
        let version = &outputs.key.version;
        let kept = self.packages_of(&outputs.directory).join(package.file_name(version));
        is_same_file(&kept, &self.published_path(package, version)).unwrap_or(false)
    }
}

/// Whether two files have the same bytes.
fn is_same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (BufReader::with_capacity(64 * 1024, a), BufReader::with_capacity(64 * 1024, b));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 || left[..length] != right[..length] {
            return Ok(left.is_empty() && right.is_empty());
        }
        a.consume(length);
        b.consume(length);
    }
}
