//! Whether what was built is in the repository: named by the archive index, and there to the byte.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peipkg_format::archive_index::{Archive, Presence};
use peipkg_format::package::PackageName;
use peipkg_format::version::Version;

use crate::farm::events::PendingOutputs;
use crate::repository::journal;
use crate::repository::pending::Pending;
use crate::state::durable::{self, FileError, at};
use crate::state::state_dir::StateDir;

/// How much of a file is held in memory at a time, in bytes.
const BLOCK: usize = 64 * 1024;

/// The published packages, as compared with pending ones.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    state: Arc<StateDir>,
    pending: Pending,
}

impl Published {
    /// Those of the repository of a state directory.
    pub(crate) fn new(state: Arc<StateDir>) -> Self {
        Self { pending: Pending::new(state.clone()), state }
    }

    /// What of `outputs` is not in the repository, or not as it was built; the end of a sentence.
    pub(crate) fn missing(&self, outputs: &PendingOutputs) -> Option<String> {
        let version = &outputs.key.version;
        if !self.are_listed_plainly(outputs) {
            let archive = match self.read_archive() {
                Ok(archive) => archive,
                Err(error) => return Some(error.to_string()),
            };
            if let Some(package) = outputs.packages.iter().find(|package| !archive.has(package, version)) {
                return Some(format!("{} is not in the archive index", package.file_name(version)));
            }
        }
        outputs.packages.iter().find_map(|package| self.altered(outputs, package))
    }

    /// What is wrong with those of the packages of `outputs` that `archive` names.
    pub(crate) fn listed_but_altered(&self, archive: &Archive, outputs: &PendingOutputs) -> Option<String> {
        let version = &outputs.key.version;
        let mut listed = outputs.packages.iter().filter(|package| archive.has(package, version));
        listed.find_map(|package| self.altered(outputs, package))
    }

    /// Whether the archive index can be read, and names none of the packages of `outputs`.
    pub(crate) fn has_none_of(&self, PendingOutputs { key, packages, .. }: &PendingOutputs) -> bool {
        self.read_archive().is_ok_and(|archive| archive.presence(packages, &key.version) == Presence::Absent)
    }

    /// Reads the archive index.
    ///
    /// # Errors
    /// When there is none, or it cannot be understood.
    pub(crate) fn read_archive(&self) -> Result<Archive, FileError> {
        let path = self.state.archive_index();
        let archive = File::open(&path).and_then(|file| Ok(Archive::read(BufReader::new(file))?));
        archive.map_err(at(&path))
    }

    /// Syncs the indexes and the published packages, before the pending ones are removed: they are the only other copy.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn sync(&self, outputs: &PendingOutputs) -> Result<(), FileError> {
        let repo = self.state.repo();
        journal::sync_small_files(&repo).map_err(at(&repo))?;
        for package in &outputs.packages {
            // The file, and the names that lead to it: all of `p/<name>/<version>` may be new.
            for path in self.path_of(package, &outputs.key.version).ancestors().take(4) {
                durable::sync(path).map_err(at(path))?;
            }
        }
        Ok(())
    }

    /// Says that `package` is not published as it was built, if so.
    fn altered(&self, outputs: &PendingOutputs, package: &PackageName) -> Option<String> {
        let version = &outputs.key.version;
        let file_name = package.file_name(version);
        let built = self.pending.packages_of(&outputs.directory).join(&file_name);
        let is_same = is_same_file(&built, &self.path_of(package, version)).unwrap_or(false);
        (!is_same).then(|| format!("{file_name} is not the file that was built"))
    }

    fn path_of(&self, package: &PackageName, version: &Version) -> PathBuf {
        self.state.repo().join(package.published_path(version))
    }

    /// Whether the archive index has all of `outputs` in the form in which tools write it: compact, with the keys in the
    /// order of PSD-009 §6.2.4. If not, the caller parses the index. The scan is here because each publish asks: of 1,000
    /// entries it takes 0.2 ms, a parse 5 ms; of 50,000 entries 10 ms and 270 ms.
    fn are_listed_plainly(&self, outputs: &PendingOutputs) -> bool {
        let version = &outputs.key.version;
        let fields = |PackageName { name, architecture }: &PackageName| {
            format!("\"name\":\"{name}\",\"version\":\"{version}\",\"architecture\":\"{architecture}\",")
        };
        let fields = outputs.packages.iter().map(fields).collect();
        let index = File::open(self.state.archive_index());
        index.is_ok_and(|index| has_all(BufReader::with_capacity(BLOCK, index), fields).unwrap_or(false))
    }
}

/// Whether an index ends as a whole one does, and has an object that begins with each of `fields`. Strings cannot be
/// taken for objects: their quotes are escaped.
fn has_all(mut index: impl BufRead, mut fields: Vec<String>) -> io::Result<bool> {
    let mut object = Vec::new();
    loop {
        object.clear();
        // A file without braces must not fill the memory.
        index.by_ref().take(BLOCK as u64).read_until(b'{', &mut object)?;
        fields.retain(|fields| !object.starts_with(fields.as_bytes()));
        if object.last() != Some(&b'{') {
            let is_end = object.len() < BLOCK && object.trim_ascii_end().ends_with(b"]}");
            return Ok(fields.is_empty() && is_end);
        }
    }
}

/// Whether two files have the same bytes.
fn is_same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (BufReader::with_capacity(BLOCK, a), BufReader::with_capacity(BLOCK, b));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str) -> String {
        format!("\"name\":\"{name}\",\"version\":\"1-1\",\"architecture\":\"noarch\",")
    }

    fn index(names: impl Iterator<Item = String>) -> String {
        let entries: Vec<_> =
            names.map(|name| format!("{{{}\"hash\":{{\"x\":1}}}}", fields(&name))).collect();
        format!("{{\"packages\":[{}]}}\n", entries.join(","))
    }

    #[track_caller]
    fn check(index: &str, names: &[&str], expected: bool) {
        for capacity in [1, 1000, BLOCK] {
            let index = BufReader::with_capacity(capacity, index.as_bytes());
            let found = has_all(index, names.iter().map(|name| fields(name)).collect());
            assert_eq!(found.unwrap(), expected, "{names:?} by {capacity}");
        }
    }

    #[test]
    fn scan_finds_entries_wherever_they_are() {
        let long = index((0..2_000).map(|n| format!("tool-{n}")));
        check(&long, &["tool-0"], true);
        check(&long, &["tool-1999", "tool-999", "tool-0"], true);
        check(&long, &["tool-0", "lost"], false);
        check(&long, &["tool-"], false);
    }

    #[test]
    fn scan_of_damaged_index_finds_nothing() {
        let whole = index(["first", "last"].map(str::to_owned).into_iter());
        check(&whole, &["first", "last"], true);
        check(&format!("{whole}{}", " ".repeat(1000)), &["first", "last"], true);
        for length in 0..whole.len() - 1 {
            check(&whole[..length], &["first"], false);
        }
        check(&format!("{whole}x"), &["first"], false);
        // Where the scan gives up is not the end.
        let long = "x".repeat(BLOCK - 2);
        check(&format!("{{{}\"x\":{{{long}]}}and more", fields("first")), &["first"], false);
    }

    #[test]
    fn scan_takes_no_string_for_an_entry() {
        let quoted = format!("{{\"packages\":[{{\"name\":{:?}}}]}}", format!("{{{}", fields("first")));
        check(&quoted, &["first"], false);
    }
}
