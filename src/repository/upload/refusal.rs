//! Whether an upload would lose something: what the remote alone has, or what the repository alone lacks.
//!
//! The remote may be the last copy there is. So an upload is refused when the repository has lost what its index names,
//! when the remote's index names what the repository has never had, and when the remote is no repository.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use peipkg_format::archive_index::each_package;
use peipkg_format::package::PackageName;
use peipkg_format::repository_layout::DESCRIPTOR;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::state::durable::{FileError, at};

/// Why an upload is refused. Nothing on the remote has changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    File(#[from] FileError),
    /// The repository has lost a package.
    #[error("the archive index names {package}, but {found}; restore it before anything is uploaded")]
    Lost { package: PathBuf, found: String },
    /// The remote is ahead of the repository, which was begun anew or set back.
    #[error("the remote has index_version {theirs}, this repository {ours}: {NOT_OURS}")]
    Newer { theirs: u64, ours: u64 },
    /// The remote may have the last copy of a package, which the upload would remove.
    #[error("the remote has {package}, and this repository has not, or another: {NOT_OURS}")]
    Unknown { package: String },
    /// The remote is no repository.
    #[error(
        "the remote has {name:?} and no index: it is not a repository, and the upload would delete what is there; \
         give the repository another remote, or empty this one"
    )]
    Occupied { name: String },
}

/// What is wrong with a remote that is a repository, and what to do about it.
const NOT_OURS: &str = "it was not uploaded from this repository as it is; bring the repository back from the remote \
                        or a backup, or give it another remote";

/// A package as the archive index has it (PSD-009 §6.2.3).
#[derive(Deserialize)]
struct Listed {
    name: String,
    version: String,
    architecture: String,
    size_compressed: Option<u64>,
}

/// Which package, to the byte, an index names (PSD-009 §6.2.3).
#[derive(Deserialize, Hash)]
struct Content {
    name: String,
    version: String,
    architecture: String,
    hash: Option<Digest>,
}

#[derive(Deserialize, Hash)]
struct Digest {
    value: String,
}

/// Refuses a remote, with its archive index at `theirs`, that is no earlier state of the repository, with its own at
/// `ours`: an archive index only grows. If `repo/` was lost and begun anew, the upload would remove the last copy.
pub(super) fn of_other_remote(ours: &Path, theirs: &Path) -> Result<(), Refusal> {
    // A few bytes of each package, as there may be many.
    let (hasher, mut have) = (RandomState::new(), HashSet::new());
    let version = read_index(ours, |content: Content| _ = have.insert(hasher.hash_one(&content)));
    let version = version.map_err(at(ours))?;
    let mut lacking = None;
    let read = read_index(theirs, |content: Content| {
        if lacking.is_none() && !have.contains(&hasher.hash_one(&content)) {
            lacking = Some(content);
        }
    });
    // One that was cut off by the end of an earlier upload tells what it can.
    if let (Some(theirs), Some(ours)) = (read.ok().flatten(), version)
        && theirs > ours
    {
        return Err(Refusal::Newer { theirs, ours });
    }
    lacking.map_or(Ok(()), |Content { name, version, architecture, .. }| {
        Err(Refusal::Unknown { package: format!("{name} {version} {architecture}") })
    })
}

/// Refuses a remote that has no index, if `listing` of its top has a line that an upload of the repository at `repo`
/// cannot have left.
pub(super) fn of_occupied_remote(listing: &str, repo: &Path) -> Result<(), Refusal> {
    // What is out of sight no pass touches.
    let is_ours = |name: &&str| {
        name.starts_with(DESCRIPTOR)
            || name.starts_with('.')
            || repo.join(name.trim_end_matches('/')).exists()
    };
    let other = listing.lines().find(|name| !is_ours(name));
    other.map_or(Ok(()), |name| Err(Refusal::Occupied { name: name.to_owned() }))
}

/// Refuses to upload the repository at `repo` if it lacks a package that the archive index at `index` names, or has it in
/// another size: `p/` may be a disk of its own that is not there, and the index alone does not tell.
pub(super) fn of_lost_packages(index: &Path, repo: &Path) -> Result<(), Refusal> {
    let mut lost = None;
    let read = read_index(index, |listed| {
        if lost.is_none() {
            lost = check_package(listed, index, repo).err();
        }
    });
    read.map_err(at(index))?;
    lost.map_or(Ok(()), Err)
}

fn check_package(listed: Listed, index: &Path, repo: &Path) -> Result<(), Refusal> {
    let Listed { name, version, architecture, size_compressed } = listed;
    let version = version.parse().map_err(io::Error::other).map_err(at(index))?;
    let package = repo.join(PackageName { name, architecture }.published_path(&version));
    let found = match (fs::metadata(&package), size_compressed) {
        (Ok(file), Some(size)) if file.len() != size => {
            format!("it has {} bytes, expected {size}", file.len())
        }
        (Ok(_), _) => return Ok(()),
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => "it is not there".to_owned(),
        (Err(error), _) => error.to_string(),
    };
    Err(Refusal::Lost { package, found })
}

/// Hands what the index at `path` says of each package to `each`; gives its `index_version`.
fn read_index<E: DeserializeOwned>(path: &Path, each: impl FnMut(E)) -> io::Result<Option<u64>> {
    Ok(each_package(BufReader::with_capacity(64 * 1024, File::open(path)?), each)?)
}
