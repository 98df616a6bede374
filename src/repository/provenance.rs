//! Brings the provenance of pending packages beside the packages, once these are published.
//!
//! `peipkg-repo` knows nothing of it, whichever it is, so the manager also keeps it when the tool gives
//! the sidecars of a directory other names. Only regular files are replaced, each by a rename.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use log::warn;
use peipkg_format::dsse::MAX_ENVELOPE;
use peipkg_format::provenance::{Statement, claimed_subjects};
use peipkg_format::regular_file;
use peipkg_format::sidecars::{Place, is_package, place, provenance};
use rustix::io::Errno;

use crate::farm::events::PendingOutputs;
use crate::repository::Repository;
use crate::repository::listed::Listing;
use crate::state::durable::{self, FileError, at};
use crate::state::troubles;

/// A file that is not finished, beside the one that it becomes. Uploads leave out hidden files, and a
/// crash leaves it to the next try.
const UNFINISHED: &str = ".provenance.tmp";

impl Repository {
    /// Copies the provenance of each of `group` beside those of its packages that the repository stores.
    /// Returns what is left to sync. Skips packages without provenance. Warns of one that cannot be read or
    /// placed, and goes on: it must not keep other versions from their publish.
    ///
    /// # Errors
    /// When the disk is full, or the system is out of files or memory, see [`may_pass`]. The caller keeps
    /// the journal or the pending packages, so that it is tried again.
    pub(super) fn place_provenance<'a>(
        &self,
        group: impl IntoIterator<Item = &'a PendingOutputs>,
        listing: &Listing,
    ) -> Result<Vec<PathBuf>, FileError> {
        let repo = self.state.repo();
        let mut placed = Vec::new();
        for outputs in group {
            let source = self.pending.provenance_of(&outputs.directory);
            let bytes = match regular_file::read(&source, MAX_ENVELOPE) {
                Ok(bytes) => bytes,
                // An earlier manager has built them, or nobody knows who.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if may_pass(&error) => return Err(at(&source)(error)),
                Err(error) => {
                    say_taken(&source, &error);
                    continue;
                }
            };
            // The builder has signed it, but others may write to `publish/`.
            let statement = match Statement::read(&bytes, &|_, _| true) {
                Ok(statement) => statement,
                Err(error) => {
                    say_taken(&source, &error);
                    continue;
                }
            };
            for package in &outputs.packages {
                let Some(entry) = listing.get(package, &outputs.key.version) else { continue };
                // The URL of another server has no place here.
                let Ok(Some(relative)) = entry.path(Path::new("")) else { continue };
                let name = package.file_name(&outputs.key.version);
                if !entry.hash().is_some_and(|hash| statement.is_about(&name, hash)) {
                    say_taken(&source, &"is not about the package that is published");
                    continue;
                }
                match put_beside(&repo, &relative, &bytes) {
                    Ok(path) => placed.extend(path),
                    Err(error) if may_pass(&error.error) => return Err(error),
                    Err(FileError { path, error }) => say_taken(&path, &error),
                }
            }
        }
        Ok(placed)
    }

    /// Removes pending packages that others have published: an operator, or a publish whose journal was
    /// damaged. Keeps them for the next start if their provenance cannot be placed; warns of it.
    pub(crate) fn discard_published(&self, outputs: &PendingOutputs) {
        let placed = self.listing([outputs]).and_then(|listing| self.place_provenance([outputs], &listing));
        match placed.and_then(|placed| self.sync(placed)) {
            Ok(()) => self.pending.discard(outputs),
            Err(FileError { path, error }) => say_taken(&path, &error),
        }
    }

    /// As [`Repository::place_provenance`], of the pending packages in `directories` below `publish/`.
    pub(super) fn place_settled(&self, directories: &[String]) -> Result<Vec<PathBuf>, FileError> {
        // An operator may have emptied `publish/`.
        let pending = directories.iter().filter(|directory| self.pending.contains(directory));
        let pending: Vec<_> = pending.filter_map(|directory| self.pending.get(directory)).collect();
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        self.place_provenance(&pending, &self.listing(&pending)?)
    }
}

/// Puts a provenance beside the package `relative` in the repository at `repo`. Returns its path, unless
/// something else has taken the place.
fn put_beside(repo: &Path, relative: &Path, bytes: &[u8]) -> Result<Option<PathBuf>, FileError> {
    let package = repo.join(relative);
    let directory = package.parent().unwrap_or(repo);
    let names = fs::read_dir(directory).map_err(at(directory))?;
    let place = place(relative, names.flatten().map(|entry| entry.file_name()));
    let target = provenance(&package, place);
    let written = write(&target, &package, bytes)?;
    if place == Place::Shared && is_package(package.file_name().unwrap_or_default()) {
        share(directory, &package)?;
    }
    Ok(written.then_some(target))
}

/// Gives the provenance that a package had while it was alone in `directory` the name of its package.
/// The provenance itself says of which packages it is.
fn share(directory: &Path, package: &Path) -> Result<(), FileError> {
    let alone = provenance(package, Place::Alone);
    let Ok(bytes) = regular_file::read(&alone, MAX_ENVELOPE) else { return Ok(()) };
    let is_here = |name: &String| is_package(name.as_ref()) && !name.contains('/');
    let owners = claimed_subjects(&bytes).into_iter().filter(is_here).map(|name| directory.join(name));
    let owners: Vec<PathBuf> = owners.filter(|owner| owner.is_file()).collect();
    for owner in &owners {
        let target = provenance(owner, Place::Shared);
        if fs::symlink_metadata(&target).is_err() {
            write(&target, owner, &bytes)?;
            // Before the other copy goes.
            durable::sync(&target).map_err(at(&target))?;
        }
    }
    // Without an owner it is a file of somebody else.
    if owners.is_empty() { Ok(()) } else { durable::remove(&alone).map_err(at(&alone)) }
}

/// Writes a file unless it has these bytes. Returns whether it is there now: not if something else, such
/// as a directory or the package itself, has the name.
fn write(target: &Path, package: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    let found = match fs::symlink_metadata(target) {
        Ok(found) if found.is_file() && target != package => Some(found),
        Ok(_) => {
            say_taken(target, &"is not a provenance, move it away");
            return Ok(false);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(at(target)(error)),
    };
    // A URL template may give another package this name.
    let limit = bytes.len() as u64;
    if let Some(found) = found {
        let is_same = found.len() == limit && regular_file::read(target, limit).is_ok_and(|old| old == bytes);
        if !is_same && !is_json(target).map_err(at(target))? {
            say_taken(target, &"is not a provenance, move it away");
            return Ok(false);
        }
        if is_same {
            return Ok(true);
        }
    }
    let temporary = target.with_file_name(UNFINISHED);
    let written = durable::replace_through(target, &temporary, |file| file.write_all(bytes));
    written.map_err(at(target))?;
    troubles::end_one("cannot put the provenance beside its package", &target.display().to_string());
    Ok(true)
}

/// Whether a file may be a provenance, whole or damaged: empty, or JSON by its first byte.
fn is_json(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    regular_file::open(path)?.take(1).read_to_end(&mut start)?;
    // A power cut may have left zeros.
    Ok(matches!(start.first(), None | Some(b'{' | 0)))
}

/// Whether an error may end without a change to the file: the system is out of space, files or memory.
/// Any other error is of one file, such as a loop of links or a directory of another user.
fn may_pass(error: &io::Error) -> bool {
    let found = Errno::from_io_error(error);
    found.is_some_and(|found| {
        [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM].contains(&found)
    })
}

fn say_taken(path: &Path, error: &dyn std::fmt::Display) {
    warn!(path = path.display().to_string(), error:%; "cannot put the provenance beside its package");
    troubles::begin_while_there("cannot put the provenance beside its package", path, error);
}
