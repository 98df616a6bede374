//! What the payload's entries have to do with each other: their order (PSD-009 §3.1.4), which is
//! in which, and where links lead (PSD-009 §3.4.8).
//!
//! Sees each entry once, in the archive's order, and keeps next to nothing of it.

use std::collections::BTreeMap;

use super::PackageError;
use super::archive::{Entry, Kind};
use crate::payload;

/// The payload as far as it has been read.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The last path, with the `/` of a directory.
    previous: String,
    /// Which of the two rules of order, without and with that `/`, some entry has broken.
    broken: (bool, bool),
    /// Lengths of the files and links whose paths begin the last one: all that a later entry
    /// can still turn out to be in, since what begins alike stands together.
    leaves: Vec<usize>,
    /// Directories outside the destinations that a link may lead to if the payload has them,
    /// each with whether it has and with a link.
    outside: BTreeMap<String, (bool, Option<(String, String)>)>,
}

impl Tree {
    /// Takes the next entry.
    pub(super) fn meet(&mut self, entry: &Entry) -> Result<(), PackageError> {
        let is_directory = entry.kind == Kind::Directory;
        let path = format!("{}{}", entry.path, if is_directory { "/" } else { "" });
        self.check_order(&entry.path, &path)?;
        while self.leaves.pop_if(|length| !path.starts_with(&self.previous[..*length])).is_some() {}
        if self.leaves.iter().any(|length| path.as_bytes().get(*length) == Some(&b'/')) {
            return Err(PackageError::entry(&entry.path, "is in something that is no directory"));
        }
        match &entry.kind {
            Kind::Directory if payload::is_outside_directory(&entry.path) => {
                self.outside.entry(entry.path.clone()).or_default().0 = true;
            }
            Kind::Symlink(target) => self.check_link(&entry.path, target)?,
            Kind::Directory | Kind::File => {}
        }
        if !is_directory {
            self.leaves.push(path.len());
        }
        self.previous = path;
        Ok(())
    }

    /// Checks what only the whole payload tells.
    pub(super) fn finish(self) -> Result<(), PackageError> {
        let missing = self.outside.into_values().find_map(|(met, link)| link.filter(|_| !met));
        missing.map_or(Ok(()), |(path, target)| Err(refuse_link(&path, &target, payload::LEADS_OUTSIDE)))
    }

    /// The format leaves open whether the `/` after a directory's name takes part in the order,
    /// so an archive may keep to either rule, but to one.
    fn check_order(&mut self, name: &str, path: &str) -> Result<(), PackageError> {
        let previous = self.previous.trim_end_matches('/');
        // Before the first entry, the path is empty and no entry's is.
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
