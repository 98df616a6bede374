//! Package files: finds, compares and copies them. Knows no URL: `places` says where a file belongs.
//!
//! Copies a new package and never links it: a published file must not change when somebody writes
//! to the original again.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::RepoError;
use super::places::Carried;
use super::{INCOMING, files};
use crate::chunks::for_each_chunk;
use crate::digest::{Digest, hex};

/// How many packages are placed before they are synced.
const MOST_UNSYNCED: usize = 256;

/// Paths to sync before an index may name their packages.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    files: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
}

impl Unsynced {
    /// Syncs the paths so far if they are many: files first.
    pub(super) fn sync_many(&mut self) -> Result<(), RepoError> {
        if self.files.len() < MOST_UNSYNCED {
            return Ok(());
        }
        files::sync_all(&std::mem::take(self).into_paths().collect::<Vec<_>>())
    }

    /// Returns all paths, files first.
    pub(super) fn into_paths(self) -> impl Iterator<Item = PathBuf> {
        self.files.into_iter().chain(self.directories)
    }
}

/// Keeps the file `relative` below `root`, which an interrupted publish has left.
pub(super) fn keep(root: &Path, relative: &str, unsynced: &mut Unsynced) -> Result<(), RepoError> {
    prepare(root, relative, unsynced).map(drop)
}

/// Copies the package `source` to `relative` below `root`. Replaces a file there. `hash` is the
/// SHA-256 of the package as it was checked.
pub(super) fn place(
    source: &Path,
    hash: &Digest,
    root: &Path,
    relative: &str,
    unsynced: &mut Unsynced,
) -> Result<(), RepoError> {
    let target = prepare(root, relative, unsynced)?;
    copy_into_place(source, root, &target, |copied| {
        if copied == hash {
            Ok(())
        } else {
            Err(RepoError::invalid(source, "changed while it was being published"))
        }
    })
}

/// Links, or else copies, a published package that is missing at `root` from the repository `from`.
/// Returns whether it arrived. Skips a file that `from` lacks: `verify` reports it.
///
/// # Errors
/// Within the result: the file is not the package. It may be anybody's, and is skipped.
pub(super) fn carry_over(
    from: &Path,
    root: &Path,
    package: &Carried<'_>,
    unsynced: &mut Unsynced,
) -> Result<Result<bool, RepoError>, RepoError> {
    let relative = package.relative;
    let source = from.join(relative);
    if !source.is_file() || root.join(relative).exists() {
        return Ok(Ok(false));
    }
    match hash_file(&source) {
        Ok(found) if Some(hex(&found)) == package.hash() => {}
        Ok(_) => {
            let message = "is not carried over: its SHA-256 is not that of the index";
            return Ok(Err(RepoError::invalid(&source, message)));
        }
        Err(error) => return Ok(Err(error)),
    }
    let target = prepare(root, relative, unsynced)?;
    // The package of a symbolic link: the link itself would lead elsewhere from `root`, or nowhere.
    if fs::canonicalize(&source).and_then(|package| fs::hard_link(package, &target)).is_err() {
        copy_into_place(&source, root, &target, |_| Ok(()))?;
    }
    Ok(Ok(true))
}

/// Creates the directories of a package file, and adds the paths to sync to `unsynced`.
fn prepare(root: &Path, relative: &str, unsynced: &mut Unsynced) -> Result<PathBuf, RepoError> {
    let mut parts: Vec<&str> = relative.split('/').collect();
    parts.pop();
    let mut directory = root.to_owned();
    for part in parts {
        let parent = directory.clone();
        directory.push(part);
        files::create_dir(&directory)?;
        // Even if the directory existed: an interrupted publish may have made it and not synced it.
        unsynced.directories.insert(parent);
    }
    unsynced.directories.insert(directory);
    let target = root.join(relative);
    unsynced.files.insert(target.clone());
    Ok(target)
}

/// Copies `source` beside `root`'s files, asks `check` about the copy's SHA-256, and renames the
/// copy to `target`.
fn copy_into_place(
    source: &Path,
    root: &Path,
    target: &Path,
    check: impl Fn(&Digest) -> Result<(), RepoError>,
) -> Result<(), RepoError> {
    let temporary = root.join(INCOMING);
    let copied = copy(source, &temporary)
        .and_then(|digest| check(&digest))
        .and_then(|()| files::rename(&temporary, target));
    // Half a package would fill a disk that has room for a smaller one.
    copied.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn copy(source: &Path, target: &Path) -> Result<Digest, RepoError> {
    let mut reader = files::open(source)?;
    let mut writer = files::create(target)?;
    let mut hasher = Sha256::new();
    for_each_chunk(
        &mut reader,
        |error| RepoError::io(source, "read the package")(error),
        |chunk| {
            hasher.update(chunk);
            writer.write_all(chunk).map_err(RepoError::io(target, "write the file"))
        },
    )?;
    Ok(hasher.finalize().into())
}

/// Returns the SHA-256 of a package file.
pub(super) fn hash_file(path: &Path) -> Result<Digest, RepoError> {
    let mut file = files::open(path)?;
    let mut hasher = Sha256::new();
    for_each_chunk(
        &mut file,
        |error| RepoError::io(path, "read the package")(error),
        |chunk| {
            hasher.update(chunk);
            Ok(())
        },
    )?;
    Ok(hasher.finalize().into())
}

/// Returns the packages in `directory`, sorted; with `deep`, those in its subdirectories too. A
/// package is a file, or a link to a file, named `*.peipkg`.
pub(super) fn find_packages(directory: &Path, deep: bool) -> Result<Vec<PathBuf>, RepoError> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let unlisted = || RepoError::io(&directory, "list the directory");
        for entry in fs::read_dir(&directory).map_err(unlisted())? {
            let entry = entry.map_err(unlisted())?;
            let path = entry.path();
            let kind = entry.file_type().map_err(RepoError::io(&path, "look at the file"))?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let named = !hidden && path.extension().is_some_and(|it| it == "peipkg");
            if kind.is_dir() && deep {
                pending.push(path);
            } else if named && !kind.is_dir() && !path.is_file() {
                // Opening a FIFO would block until somebody writes; a dangling link is a mistake.
                return Err(RepoError::invalid(&path, "is neither a file nor a link to one"));
            } else if named && !kind.is_dir() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
