//! Refuses an upload that would remove the last copy of a file from the remote.
//!
//! The upload is refused if the repository has lost a package that its index lists, if the remote's
//! index lists a package that the repository's does not, and if the remote is no repository.

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use peipkg_format::problem::excerpt;
use peipkg_format::regular_file::{self, MAX_INDEX};
use peipkg_format::repository_layout::DESCRIPTOR;

use crate::repository::listed::{Entry, each_entry};
use crate::state::durable::{FileError, at};
use crate::state::volumes::LOST_AND_FOUND;

/// Why an upload is refused. The check that refuses it changes nothing on the remote.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    File(#[from] FileError),
    /// The repository has lost a package that its index lists.
    #[error("the archive index names {package}, but {found}; restore it before anything is uploaded")]
    Lost { package: PathBuf, found: String },
    /// An entry does not say where its file is.
    #[error("{0}")]
    Place(String),
    /// The remote is ahead of the repository: it was created again, or restored from an old backup.
    #[error("the remote has index_version {theirs}, this repository {ours}: {NOT_OURS}")]
    Newer { theirs: u64, ours: u64 },
    /// The remote may have the last copy of a package, which the upload would remove.
    #[error("the remote has {package}, which this repository lacks or has with other content: {NOT_OURS}")]
    Unknown { package: String },
    /// The remote is no repository.
    #[error(
        "the remote has {name:?} and no index: it is not a repository, and the upload would delete its files; \
         give the repository another remote, or empty this one"
    )]
    Occupied { name: String },
}

/// Why another repository's remote is refused, and how to proceed.
const NOT_OURS: &str = "it was not uploaded from this repository in its present state; \
                        restore the repository from the remote or a backup, or give it another remote";

/// Refuses a remote, with its archive index at `theirs`, that is no earlier state of the
/// repository, with its own at `ours`. An archive index only grows. If `repo/` was lost and created
/// again, the upload would remove the last copy of its packages.
pub(super) fn of_other_remote(ours: &Path, theirs: &Path) -> Result<(), Refusal> {
    // Keep only a hash of each package: an index may list many.
    let (hasher, mut have) = (RandomState::new(), HashSet::new());
    // The URL may differ: a rebuilt index gives each package a new one.
    let content = |entry: &Entry| hasher.hash_one((entry.key(), entry.hash()));
    let version = read_index(ours, |entry| _ = have.insert(content(&entry)));
    let version = version.map_err(at(ours))?;
    let mut lacking = None;
    let read = read_index(theirs, |entry| {
        if lacking.is_none() && !have.contains(&content(&entry)) {
            lacking = Some(entry.key());
        }
    });
    // Ignore a read error: an earlier upload may have been cut short and left a part of the index.
    if let (Some(theirs), Some(ours)) = (read.ok().flatten(), version)
        && theirs > ours
    {
        return Err(Refusal::Newer { theirs, ours });
    }
    lacking.map_or(Ok(()), |key| Err(Refusal::Unknown { package: excerpt(&key).into_owned() }))
}

/// Refuses a remote that has no index, if `listing` of its top names a file that an upload of the
/// repository at `repo` cannot have left.
pub(super) fn of_occupied_remote(listing: &str, repo: &Path) -> Result<(), Refusal> {
    // No pass touches hidden files, or the root of a volume.
    let is_ours = |name: &&str| {
        name.starts_with(DESCRIPTOR)
            || name.starts_with('.')
            || name.trim_end_matches('/') == LOST_AND_FOUND
            || repo.join(name.trim_end_matches('/')).exists()
    };
    let other = listing.lines().find(|name| !is_ours(name));
    other.map_or(Ok(()), |name| Err(Refusal::Occupied { name: excerpt(name).into_owned() }))
}

/// Refuses to upload the repository at `repo` if it lacks a package that the archive index at
/// `index` lists, or has it in another size: `p/` may be a disk that is not mounted.
pub(super) fn of_lost_packages(index: &Path, repo: &Path) -> Result<(), Refusal> {
    let mut lost = None;
    let read = read_index(index, |listed| {
        if lost.is_none() {
            lost = check_package(&listed, repo).err();
        }
    });
    read.map_err(at(index))?;
    lost.map_or(Ok(()), Err)
}

fn check_package(listed: &Entry, repo: &Path) -> Result<(), Refusal> {
    let Some(package) = listed.path(repo).map_err(Refusal::Place)? else { return Ok(()) };
    let found = match (fs::metadata(&package), listed.size_compressed) {
        (Ok(file), _) if !file.is_file() => "it is not a file".to_owned(),
        (Ok(file), Some(size)) if file.len() != size => {
            format!("it has {} bytes, expected {size}", file.len())
        }
        (Ok(_), _) => return Ok(()),
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => "it is not there".to_owned(),
        (Err(error), _) => error.to_string(),
    };
    Err(Refusal::Lost { package, found })
}

/// Passes each package of the index at `path` to `each`, and returns the `index_version`.
fn read_index(path: &Path, mut each: impl FnMut(Entry)) -> io::Result<Option<u64>> {
    Ok(each_entry(&mut regular_file::open_up_to(path, MAX_INDEX)?, &mut each)?)
}
