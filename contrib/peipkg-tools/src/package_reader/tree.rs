//! The rules between payload entries: their order (PSD-009 §3.1.4), parents that are directories,
//! where links lead (PSD-009 §3.4.8), and which files detached signatures sign.
//!
//! Sees each entry once, in the order of the archive, and keeps only the open questions: a hostile
//! archive must not fill the memory.

use std::collections::BTreeMap;

use super::PackageError;
use super::archive::{Entry, EntryKind};
use crate::{detached_signature, payload};

/// The part of the payload that was read so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The path of the last entry, with the `/` of a directory.
    previous: String,
    /// The same path as it is in the archive: some writers leave the `/` out.
    previous_written: String,
    /// Whether an entry broke the order of paths without the `/`.
    is_unsorted: bool,
    /// The first entry that broke the order of paths as they are in the archive.
    misplaced: Option<PackageError>,
    /// The files and links whose paths are prefixes of the last path. A later entry can only lie
    /// below one of these, or sign one, because paths with a common prefix are adjacent.
    leaves: Vec<Leaf>,
    /// Directories outside the destinations, each with whether the payload has it and with a link
    /// that leads to it. A link may lead there only if the payload has the directory.
    outside: BTreeMap<String, (bool, Option<(String, String)>)>,
}

/// A file or link.
#[derive(Debug)]
struct Leaf {
    /// The length of its path.
    length: usize,
    /// Whether it is an ELF file, once its content was read; `None` for a link.
    is_elf: Option<bool>,
}

impl Tree {
    /// Checks the next entry. [`Tree::add_content`] must follow for a file.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), PackageError> {
        let is_directory = entry.kind == EntryKind::Directory;
        let path = format!("{}{}", entry.path, if is_directory { "/" } else { "" });
        self.check_order(&entry.path, &entry.archive_path())?;
        while self.leaves.pop_if(|leaf| !path.starts_with(&self.previous[..leaf.length])).is_some() {}
        if self.leaves.iter().any(|leaf| path.as_bytes().get(leaf.length) == Some(&b'/')) {
            return Err(PackageError::entry(&entry.path, "lies below a file or symbolic link"));
        }
        if entry.kind != EntryKind::File && detached_signature::subject(&entry.path).is_some() {
            return Err(PackageError::entry(&entry.path, detached_signature::NO_FILE));
        }
        match &entry.kind {
            EntryKind::Directory if payload::is_outside_directory(&entry.path) => {
                self.outside.entry(entry.path.clone()).or_default().0 = true;
            }
            EntryKind::Symlink(target) => self.check_link(&entry.path, target)?,
            EntryKind::Directory | EntryKind::File => {}
        }
        if !is_directory {
            self.leaves.push(Leaf { length: path.len(), is_elf: None });
        }
        self.previous = path;
        Ok(())
    }

    /// Checks the content of the last entry, a file that starts with the bytes `start`.
    pub(super) fn add_content(&mut self, entry: &Entry, start: &[u8]) -> Result<(), PackageError> {
        if let Some(subject) = detached_signature::subject(&entry.path) {
            let subject = self.leaves.iter().find(|leaf| leaf.length == subject.len());
            detached_signature::check(entry.size, start, subject.and_then(|leaf| leaf.is_elf))
                .map_err(|reason| PackageError::entry(&entry.path, reason))?;
        }
        if let Some(leaf) = self.leaves.last_mut() {
            leaf.is_elf = Some(detached_signature::is_elf(start));
        }
        Ok(())
    }

    /// Checks, after the last entry, that no link leads to a missing directory. Returns the problem
    /// of a package whose order is that of the paths without the `/` of directories.
    pub(super) fn finish(self) -> Result<Option<PackageError>, PackageError> {
        let missing = self.outside.into_values().find_map(|(met, link)| link.filter(|_| !met));
        match missing {
            Some((path, target)) => Err(refuse_link(&path, &target, payload::LEADS_OUTSIDE)),
            None => Ok(self.misplaced),
        }
    }

    /// Checks the order of paths. `written` is the path as it is in the archive. One deployed writer
    /// sorts directories without their `/`. Its packages can be read as safely, so the caller
    /// decides about them.
    fn check_order(&mut self, name: &str, written: &str) -> Result<(), PackageError> {
        let previous = self.previous.trim_end_matches('/');
        // Before the first entry, `previous` is empty, which is less than any path.
        self.is_unsorted |= name <= previous;
        if written <= self.previous_written.as_str() && self.misplaced.is_none() {
            self.misplaced = Some(PackageError::Order {
                path: written.to_owned(),
                previous: std::mem::take(&mut self.previous_written),
            });
        }
        if name == previous || (self.is_unsorted && self.misplaced.is_some()) {
            return Err(PackageError::entry(name, "is not in the order of paths, or is there twice"));
        }
        written.clone_into(&mut self.previous_written);
        Ok(())
    }

    fn check_link(&mut self, path: &str, target: &str) -> Result<(), PackageError> {
        let refuse = |reason| refuse_link(path, target, reason);
        let Some(resolved) = payload::resolve_outside(path, target).map_err(refuse)? else {
            return Ok(());
        };
        if !payload::is_outside_directory(&resolved) {
            return Err(refuse(payload::LEADS_OUTSIDE));
        }
        let (_, link) = self.outside.entry(resolved).or_default();
        link.get_or_insert_with(|| (path.to_owned(), target.to_owned()));
        Ok(())
    }
}

fn refuse_link(path: &str, target: &str, reason: &'static str) -> PackageError {
    PackageError::Link { path: path.to_owned(), target: target.to_owned(), reason }
}
