//! Compares pending packages with the repository: whether the archive index lists them, and whether
//! the published files are theirs, to the byte.

use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use peipkg_format::archive_index::{Entry, each_package};
use peipkg_format::package::PackageName;
use peipkg_format::regular_file::{self, MAX_INDEX};
use peipkg_format::version::Version;

use crate::farm::events::PendingOutputs;
use crate::repository::{Repository, index_scan, journal};
use crate::state::durable::{self, FileError, at};

/// How much of a file is held in memory at a time, in bytes.
const BLOCK: usize = 64 * 1024;

impl Repository {
    /// Returns which package of `outputs` is not in the repository as it was built, as the end of a
    /// sentence.
    pub(super) fn missing(&self, outputs: &PendingOutputs) -> Option<String> {
        if !self.lists_plainly(outputs) {
            let unlisted = match self.unlisted(outputs) {
                Ok(unlisted) => unlisted,
                Err(error) => return Some(error.to_string()),
            };
            if let Some(package) = unlisted.first() {
                return Some(format!(
                    "{} is not in the archive index",
                    package.file_name(&outputs.key.version)
                ));
            }
        }
        outputs.packages.iter().find_map(|package| self.altered(outputs, package))
    }

    /// Whether the archive index lists `outputs` in the form in which tools write it. If not, it
    /// must be parsed.
    fn lists_plainly(&self, outputs: &PendingOutputs) -> bool {
        let PendingOutputs { key, packages, .. } = outputs;
        let index = regular_file::open_up_to(&self.state.archive_index(), MAX_INDEX);
        let index = index.map(|file| BufReader::with_capacity(BLOCK, file));
        index.and_then(|index| index_scan::lists_all(index, packages, &key.version)).unwrap_or(false)
    }

    /// Returns which package of `outputs` the archive index lists although the repository does not
    /// have it as it was built, as the end of a sentence.
    pub(super) fn listed_but_altered(&self, outputs: &PendingOutputs) -> Option<String> {
        match self.unlisted(outputs) {
            Err(error) => Some(error.to_string()),
            Ok(unlisted) => {
                let mut listed = outputs.packages.iter().filter(|package| !unlisted.contains(package));
                listed.find_map(|package| self.altered(outputs, package))
            }
        }
    }

    /// Syncs the indexes and the published `files` before the pending packages, perhaps the only other
    /// copy, are removed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn sync(&self, files: impl Iterator<Item = PathBuf>) -> Result<(), FileError> {
        let repo = self.state.repo();
        journal::sync_small_files(&repo).map_err(at(&repo))?;
        for file in files {
            // Sync the file and the directories above it: all of `p/<name>/<version>` may be new.
            for path in file.ancestors().take_while(|path| *path != repo) {
                durable::sync(path).map_err(at(path))?;
            }
        }
        Ok(())
    }

    /// Returns the paths in the repository of the packages of `outputs`.
    pub(super) fn files_of(&self, outputs: &PendingOutputs) -> impl Iterator<Item = PathBuf> {
        outputs.packages.iter().map(|package| self.path_of(package, &outputs.key.version))
    }

    /// Returns the packages of `outputs` that the archive index does not list.
    fn unlisted<'a>(&self, outputs: &'a PendingOutputs) -> Result<Vec<&'a PackageName>, FileError> {
        let path = self.state.archive_index();
        let index = regular_file::open_up_to(&path, MAX_INDEX);
        index.and_then(|index| unlisted(index, outputs)).map_err(at(&path))
    }

    /// Says that `package` is not published as it was built, if so.
    fn altered(&self, outputs: &PendingOutputs, package: &PackageName) -> Option<String> {
        let version = &outputs.key.version;
        let file_name = package.file_name(version);
        let built = self.pending.packages_of(&outputs.directory).join(&file_name);
        let is_same = is_same_file(&built, &self.path_of(package, version)).unwrap_or(false);
        (!is_same).then(|| format!("{file_name} is not the file that was built"))
    }

    pub(super) fn path_of(&self, package: &PackageName, version: &Version) -> PathBuf {
        self.state.repo().join(package.published_path(version))
    }
}

/// Returns the packages of `outputs` that the archive index `index` does not list. Holds no more
/// of the index in memory than one entry, because an index may be long.
fn unlisted(index: impl Read, outputs: &PendingOutputs) -> io::Result<Vec<&PackageName>> {
    let version = outputs.key.version.as_str();
    let mut unlisted: Vec<_> = outputs.packages.iter().collect();
    each_package(index, |entry: Entry| {
        let is_entry =
            |package: &&PackageName| package.name == entry.name && package.architecture == entry.architecture;
        if entry.version == version {
            unlisted.retain(|package| !is_entry(package));
        }
    })?;
    Ok(unlisted)
}

/// Whether two files have the same bytes.
pub(super) fn is_same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (regular_file::open(a)?, regular_file::open(b)?);
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
    use crate::farm::events::JobKey;

    use super::*;

    fn index(names: impl Iterator<Item = String>) -> String {
        let entry = |name| {
            format!(r#"{{"name":{name:?},"version":"1-1","architecture":"noarch","hash":{{"x":"{{"}}}}"#)
        };
        format!("{{\"packages\":[{}]}}\n", names.map(entry).collect::<Vec<_>>().join(","))
    }

    fn outputs(names: &[&str], version: &str, architecture: &str) -> PendingOutputs {
        let package = |name: &&str| PackageName { name: (*name).into(), architecture: architecture.into() };
        let key = JobKey { recipe: "r".into(), version: version.parse().unwrap() };
        PendingOutputs { directory: String::new(), key, packages: names.iter().map(package).collect() }
    }

    #[track_caller]
    fn check(index: &str, outputs: &PendingOutputs, expected: &[&str]) {
        let found = unlisted(index.as_bytes(), outputs).unwrap();
        assert_eq!(found.iter().map(|package| &*package.name).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn packages_are_listed_wherever_their_entries_are() {
        let long = index((0..2_000).map(|n| format!("tool-{n}")));
        let wanted = ["tool-0", "tool-1999", "lost", "tool-999", "tool-"];
        check(&long, &outputs(&wanted, "1-1", "noarch"), &["lost", "tool-"]);
        check(&long, &outputs(&["tool-0"], "1-2", "noarch"), &["tool-0"]);
        check(&long, &outputs(&["tool-0"], "1-1", "x86_64"), &["tool-0"]);
        // The text of an entry within a string is no entry.
        let quoted = format!("{{\"packages\":[],\"x\":{long:?}}}");
        check(&quoted, &outputs(&["tool-0"], "1-1", "noarch"), &["tool-0"]);
    }

    #[test]
    fn index_cut_off_lists_nothing() {
        let whole = index(["first", "last"].map(str::to_owned).into_iter());
        let outputs = outputs(&["first"], "1-1", "noarch");
        check(&whole, &outputs, &[]);
        for length in 0..whole.len() - 1 {
            assert!(unlisted(&whole.as_bytes()[..length], &outputs).is_err(), "{length}");
        }
        assert!(unlisted(format!("{whole}x").as_bytes(), &outputs).is_err());
    }
}
