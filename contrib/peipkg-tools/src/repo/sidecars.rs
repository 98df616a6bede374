//! Writes the sidecars of packages: manifest and file list beside each package, unchanged, for people.
//! [`names`] says how they are called. Keeps the provenance that a farm has put beside a package.
//!
//! No signature or check depends on sidecars, so an error must not fail a publish: it becomes a
//! problem to note. Only regular files are replaced or removed, each by a rename, so that no link is
//! followed. Knows no more of a package than the path of its file.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use peipkg_format::dsse::MAX_ENVELOPE;
use peipkg_format::provenance::claimed_subjects;
use peipkg_format::sidecars::{self as names, Place};

use super::error::RepoError;
use super::{INCOMING, files};
use crate::package_reader;

/// How many problems are named: on a disk that is full or read-only, every package has one.
const MOST_NAMED: usize = 20;

/// How many packages that were in a directory before get their sidecars when the directory becomes
/// shared. Usually one. If another tool filled the directory, the rest wait for a publish of an empty
/// directory.
const MOST_OTHERS: usize = 16;

/// How many sidecars are written before they are synced: a power cut may leave these empty.
const MOST_UNSYNCED: usize = 256;

/// The first bytes of every package: a zstd frame (RFC 8878 §3.1.1).
const PACKAGE_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The sidecars of a repository while a publish writes them.
pub(super) struct Sidecars {
    root: PathBuf,
    /// The files that were not there before; none after the commit.
    created: Vec<PathBuf>,
    is_committed: bool,
    written: Vec<PathBuf>,
    /// The files that other names have replaced.
    outdated: BTreeSet<PathBuf>,
    problems: Vec<String>,
    unnamed: usize,
}

impl Sidecars {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            created: Vec::new(),
            is_committed: false,
            written: Vec::new(),
            outdated: BTreeSet::new(),
            problems: Vec::new(),
            unnamed: 0,
        }
    }

    /// Writes the sidecars of the package file `package`, relative to the root, unless they are right.
    pub(super) fn write(&mut self, package: &str) {
        let written = self.try_write(Path::new(package));
        self.collect(written);
        let outdated = if self.is_committed { self.outdated.len() } else { 0 };
        if self.written.len().max(outdated) >= MOST_UNSYNCED {
            self.sync();
        }
    }

    /// Copies the provenance beside the package file `source` to the same package at `package`, relative
    /// to the root, unless there is one. `name` is the file name by which a provenance knows the package.
    pub(super) fn carry(&mut self, source: &Path, package: &str, name: &str) {
        let carried = self.try_carry(source, Path::new(package), name);
        self.collect(carried);
    }

    fn try_carry(&mut self, source: &Path, package: &Path, name: &str) -> Result<(), RepoError> {
        let paths = [Place::Shared, Place::Alone].map(|place| names::provenance(source, place));
        for found in paths.into_iter().filter(|path| path.is_file()) {
            let bytes = files::read(&found, MAX_ENVELOPE)?;
            // It may be of another package in the directory, or no provenance.
            if claimed_subjects(&bytes).iter().any(|subject| subject == name) {
                let path = self.root.join(package);
                let target = names::provenance(&path, names::place(package, siblings(&path)?));
                return if is_missing(&target) { self.write_one(target, &bytes) } else { Ok(()) };
            }
        }
        Ok(())
    }

    /// Gives the provenance that a package had while it was alone in the directory of `package` the name
    /// of its package. The provenance itself says of which packages it is.
    fn share_provenance(&mut self, package: &Path) -> Result<(), RepoError> {
        let alone = names::provenance(package, Place::Alone);
        if !alone.is_file() || self.outdated.contains(&alone) {
            return Ok(());
        }
        let bytes = files::read(&alone, MAX_ENVELOPE)?;
        let is_here = |name: &String| names::is_package(name.as_ref()) && !name.contains('/');
        let owners = claimed_subjects(&bytes).into_iter().filter(is_here);
        let owners: Vec<_> = owners.map(|name| package.with_file_name(name)).collect();
        let mut is_kept = false;
        for owner in owners.iter().filter(|owner| owner.is_file()) {
            let target = names::provenance(owner, Place::Shared);
            if is_missing(&target) {
                self.write_one(target, &bytes)?;
            }
            is_kept = true;
        }
        if is_kept {
            self.outdated.insert(alone);
        }
        Ok(())
    }

    /// Syncs the sidecars written so far; not their directories, which the packages share.
    pub(super) fn sync(&mut self) {
        let synced = files::sync_all(&std::mem::take(&mut self.written));
        self.collect(synced);
        // Removed files do not come back with [`Sidecars::undo`].
        if !self.is_committed {
            return;
        }
        for path in std::mem::take(&mut self.outdated) {
            let removed = remove(&path);
            self.collect(removed);
        }
    }

    /// Notes the commit: from now on, nothing is undone, and what other names have replaced is removed.
    pub(super) fn commit(&mut self) {
        (self.is_committed, self.created) = (true, Vec::new());
    }

    /// Ends the writing, after the commit.
    pub(super) fn finish(&mut self) {
        self.sync();
    }

    /// Removes the sidecars that were not there before.
    pub(super) fn undo(&mut self) {
        for path in &self.created {
            let _ = files::remove_file(path);
        }
    }

    /// Returns what could not be done, each as the end of a sentence.
    pub(super) fn into_problems(self) -> impl Iterator<Item = String> {
        let more = (self.unnamed > 0)
            .then(|| format!("cannot write the sidecars of {} more packages", self.unnamed));
        self.problems.into_iter().chain(more)
    }

    fn collect(&mut self, result: Result<(), RepoError>) {
        match result {
            Err(error) if self.problems.len() < MOST_NAMED => {
                self.problems.push(format!("cannot write all sidecars: {error}"));
            }
            Err(_) => self.unnamed += 1,
            Ok(()) => {}
        }
    }

    fn try_write(&mut self, package: &Path) -> Result<(), RepoError> {
        let path = self.root.join(package);
        let place = names::place(package, siblings(&path)?);
        self.write_as(&path, place)?;
        let [alone, shared] = [Place::Alone, Place::Shared].map(|place| names::sidecars(&path, place));
        if place == Place::Shared && names::may_be_alone(package) {
            self.share_provenance(&path)?;
        }
        if place == Place::Alone {
            self.outdated.extend(shared.into_iter().filter(|path| !is_missing(path)));
        } else if names::may_be_alone(package)
            && alone.iter().any(|path| path.is_file() && !self.outdated.contains(path))
        {
            // The directory had one package before, or another tool wrote these.
            // Without its new names, a package would lose the pair that it has.
            if self.write_others(&path)? {
                self.outdated.extend(alone);
            }
        }
        Ok(())
    }

    /// Writes the sidecars of other packages in the shared directory of `package` that lack one.
    /// Returns whether all could be written.
    fn write_others(&mut self, package: &Path) -> Result<bool, RepoError> {
        let lacks = |path: &PathBuf| names::sidecars(path, Place::Shared).iter().any(|path| is_missing(path));
        let own = package.file_name().unwrap_or_default();
        let packages = siblings(package)?.filter(|name| names::is_other_package(own, name));
        let others = packages.map(|name| package.with_file_name(name)).filter(lacks);
        let mut all = true;
        for other in others.take(MOST_OTHERS) {
            let written = self.write_as(&other, Place::Shared);
            all &= written.is_ok();
            self.collect(written);
        }
        Ok(all)
    }

    fn write_as(&mut self, package: &Path, place: Place) -> Result<(), RepoError> {
        let documents = package_reader::documents(files::open(package)?)
            .map_err(|source| RepoError::Package { path: package.to_owned(), source })?;
        let sidecars = names::sidecars(package, place).into_iter().zip(documents);
        // Write the second one even if the first cannot be written.
        sidecars.map(|(path, bytes)| self.write_one(path, &bytes)).fold(Ok(()), Result::and)
    }

    fn write_one(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), RepoError> {
        let before = read_start(&path, bytes.len() + 1)?;
        if before.as_deref() == Some(bytes) {
            return Ok(());
        }
        let temporary = self.root.join(INCOMING);
        files::write(&temporary, bytes)
            .and_then(|()| files::rename(&temporary, &path))
            .inspect_err(|_| drop(files::remove_file(&temporary)))?;
        if before.is_none() && !self.is_committed {
            self.created.push(path.clone());
        }
        self.written.push(path);
        Ok(())
    }
}

/// Returns the names in the directory of `path`, one after the other: a directory may have many.
fn siblings(path: &Path) -> Result<impl Iterator<Item = OsString>, RepoError> {
    let directory = path.parent().unwrap_or(path);
    let entries = fs::read_dir(directory).map_err(RepoError::io(directory, "list the directory"))?;
    Ok(entries.flatten().map(|entry| entry.file_name()))
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Returns at most the first `length` bytes of the sidecar at `path`, or nothing if there is none.
/// Refuses what must not be replaced: a URL template may give a package the name of a sidecar.
fn read_start(path: &Path, length: usize) -> Result<Option<Vec<u8>>, RepoError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(RepoError::invalid(path, "is not a regular file, remove it")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RepoError::io(path, "look at the file")(error)),
    }
    let mut start = Vec::new();
    let read = files::open(path)?.take(length as u64).read_to_end(&mut start);
    read.map_err(RepoError::io(path, "read the file"))?;
    if start.starts_with(&PACKAGE_MAGIC) {
        return Err(RepoError::invalid(path, "is a package, and not replaced by a sidecar"));
    }
    Ok(Some(start))
}

/// Removes the sidecar at `path` if there is one.
fn remove(path: &Path) -> Result<(), RepoError> {
    match read_start(path, PACKAGE_MAGIC.len())? {
        Some(_) => files::remove_file(path),
        None => Ok(()),
    }
}
