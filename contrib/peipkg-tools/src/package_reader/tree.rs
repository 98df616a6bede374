//! The rules between payload entries: their order (PSD-009 §3.1.4), parents that are directories,
//! and where links lead (PSD-009 §3.4.8).
//!
//! Sees each entry once, in the order of the archive, and keeps only the open questions: a hostile
//! archive must not fill the memory.

use std::collections::BTreeMap;

use super::PackageError;
use super::archive::{Entry, EntryKind};
use crate::payload;

/// The part of the payload that was read so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The path of the last entry, with the `/` of a directory.
    previous: String,
    /// Whether an entry broke the order of paths without the `/`, and the order with it.
    broken: (bool, bool),
    /// The files and links whose paths are prefixes of the last path, by length. A later entry can
    /// only lie below one of these, because paths with a common prefix are adjacent.
    leaves: Vec<usize>,
    /// Directories outside the destinations, each with whether the payload has it and with a link
    /// that leads to it. A link may lead there only if the payload has the directory.
    outside: BTreeMap<String, (bool, Option<(String, String)>)>,
}

impl Tree {
    /// Checks the next entry.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), PackageError> {
        let is_directory = entry.kind == EntryKind::Directory;
        let path = format!("{}{}", entry.path, if is_directory { "/" } else { "" });
        self.check_order(&entry.path, &path)?;
        while self.leaves.pop_if(|length| !path.starts_with(&self.previous[..*length])).is_some() {}
        if self.leaves.iter().any(|length| path.as_bytes().get(*length) == Some(&b'/')) {
            return Err(PackageError::entry(&entry.path, "lies below a file or symbolic link"));
        }
        match &entry.kind {
            EntryKind::Directory if payload::is_outside_directory(&entry.path) => {
                self.outside.entry(entry.path.clone()).or_default().0 = true;
            }
            EntryKind::Symlink(target) => self.check_link(&entry.path, target)?,
            EntryKind::Directory | EntryKind::File => {}
        }
        if !is_directory {
            self.leaves.push(path.len());
        }
        self.previous = path;
        Ok(())
    }

    /// Checks, after the last entry, that no link leads to a missing directory.
    pub(super) fn finish(self) -> Result<(), PackageError> {
        let missing = self.outside.into_values().find_map(|(met, link)| link.filter(|_| !met));
        missing.map_or(Ok(()), |(path, target)| Err(refuse_link(&path, &target, payload::LEADS_OUTSIDE)))
    }

    /// Checks the order of paths. The format does not say whether the `/` after a directory's name
    /// counts, so an archive may follow either order, but must follow one.
    fn check_order(&mut self, name: &str, path: &str) -> Result<(), PackageError> {
        let previous = self.previous.trim_end_matches('/');
        // Before the first entry, `previous` is empty, which is less than any path.
        self.broken.0 |= name <= previous;
        self.broken.1 |= path <= self.previous.as_str();
        if name == previous || self.broken == (true, true) {
            return Err(PackageError::entry(name, "is not in the order of paths, or is there twice"));
        }
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
