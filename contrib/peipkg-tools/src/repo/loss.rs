//! Refuses a publish that would lose what the repository in its place has.
//!
//! Compares the new archive index, as it is written already, with the one in its place. Holds two
//! hashes of each new entry: both indexes may have any order, and their texts are long.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};

use peipkg_format::repository_layout as layout;

use super::descriptor::{Descriptor, MAX_DESCRIPTOR};
use super::error::RepoError;
use super::files;
use super::index::IndexKind;
use super::previous::check_time;
use super::published::StoredIndex;
use crate::timestamp::Timestamp;

/// How many missing packages an error names: a message of thousands would hide the reason.
const MOST_NAMED: usize = 5;

/// The state that is about to replace a repository's.
pub(super) struct Successor<'a> {
    pub(super) repo: &'a str,
    pub(super) index_version: u64,
    pub(super) timestamp: &'a Timestamp,
    /// Its archive index.
    pub(super) archive: PathBuf,
}

/// Refuses to replace the repository `output` by a successor that is of another repository, older,
/// or lacks one of its packages.
pub(super) fn refuse_loss_in(output: &Path, successor: &Successor<'_>) -> Result<(), RepoError> {
    let path = output.join(layout::DESCRIPTOR);
    let found = files::read(&path, MAX_DESCRIPTOR).and_then(|bytes| Descriptor::parse(&path, &bytes));
    if let Ok(found) = found
        && found.repo.name != successor.repo
    {
        let message = format!("is of repository {:?}, expected {:?}", found.repo.name, successor.repo);
        return Err(RepoError::invalid(&path, message));
    }
    refuse_loss(&IndexKind::Archive.path(output), successor)
}

/// Packages that an error counts, the first of them by name.
#[derive(Default)]
struct Counted {
    count: usize,
    names: Vec<String>,
}

impl Counted {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.names.len() < MOST_NAMED {
            self.names.push(name());
        }
    }

    fn refuse(&self, path: &Path, before: &str, after: &str) -> Result<(), RepoError> {
        if self.count == 0 {
            return Ok(());
        }
        let more = if self.count > MOST_NAMED { ", …" } else { "" };
        let (count, names) = (self.count, self.names.join(", "));
        Err(RepoError::invalid(path, format!("lists {count} packages {before}: {names}{more}; {after}")))
    }
}

/// Refuses to replace the archive index at `path` by one that is not newer, lacks a package, or lists
/// other bytes for one. An index that cannot be read has nothing to lose.
pub(super) fn refuse_loss(path: &Path, successor: &Successor<'_>) -> Result<(), RepoError> {
    let Ok(former) = StoredIndex::open(path.to_owned(), IndexKind::Archive) else { return Ok(()) };
    let hasher = RandomState::new();
    let mut retained = HashMap::new();
    let new = StoredIndex::open(successor.archive.clone(), IndexKind::Archive)?;
    new.each(successor.repo, |_, entry| {
        retained.insert(hasher.hash_one(&entry.identity), hasher.hash_one(entry.hash()));
        Ok(())
    })?;
    let (mut lost, mut changed) = (Counted::default(), Counted::default());
    let read = former.each(successor.repo, |_, entry| {
        // Quoted, because the names of a foreign index may hold any character.
        let name = || format!("{:?}", entry.identity.to_string());
        match retained.get(&hasher.hash_one(&entry.identity)) {
            None => lost.add(name),
            Some(new) if entry.hash().is_some_and(|hash| hasher.hash_one(Some(hash)) != *new) => {
                changed.add(name);
            }
            Some(_) => {}
        }
        Ok(())
    });
    let Ok(head) = read else { return Ok(()) };
    check_time(path, &head.generated_at, successor.timestamp)?;
    let (before, after) = (head.index_version, successor.index_version);
    if before >= after {
        let message = format!("has index_version {before}; the new one would have {after}");
        return Err(RepoError::invalid(path, message));
    }
    lost.refuse(path, "that the new one would lack", "remove this file to drop them")?;
    let way_out = "published versions never change; remove this file to replace them";
    changed.refuse(path, "with another hash", way_out)
}
