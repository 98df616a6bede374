//! The entries of the archive index (PSD-009 §6.2.4), as far as the manager reads them: which
//! package an entry is of, and where its file is.
//!
//! Owns the only way from an entry to a path in the repository. Another tool may have signed any
//! name and any URL, so neither becomes a path by itself.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use peipkg_format::archive_index::each_package;
use peipkg_format::index_reader::{Compact, FromCompact};
use peipkg_format::package::PackageName;
use peipkg_format::package_url::{Place, place};
use peipkg_format::problem::excerpt;
use peipkg_format::regular_file::{self, MAX_INDEX};
use peipkg_format::repository_layout::package_file_name;
use peipkg_format::version::Version;
use serde::Deserialize;

use crate::farm::events::PendingOutputs;

/// An entry of an index.
#[derive(Debug, Hash, Deserialize)]
pub(super) struct Entry {
    name: String,
    version: String,
    architecture: String,
    hash: Option<Hash>,
    /// The length of the package file, in bytes.
    pub(super) size_compressed: Option<u64>,
    #[serde(default)]
    url: String,
}

#[derive(Debug, Hash, Deserialize)]
struct Hash {
    value: String,
}

impl FromCompact<'_> for Entry {
    fn from_compact(entry: Compact<'_>) -> Self {
        Self {
            name: entry.name.to_owned(),
            version: entry.version.to_owned(),
            architecture: entry.architecture.to_owned(),
            hash: Some(Hash { value: entry.hash.to_owned() }),
            size_compressed: Some(entry.size_compressed),
            url: entry.url.to_owned(),
        }
    }
}

impl Entry {
    /// Returns the [`key`] of its package.
    pub(super) fn key(&self) -> String {
        key(&self.name, &self.version, &self.architecture)
    }

    /// Returns the name of the package file, without its directory, fit for a message and not for a
    /// path.
    pub(super) fn shown_name(&self) -> String {
        let name = package_file_name(&self.name, &self.version, &self.architecture);
        excerpt(&name.escape_debug().to_string()).into_owned()
    }

    /// Returns the SHA-256 of the package file in hexadecimal, if the entry has it.
    pub(super) fn hash(&self) -> Option<&str> {
        self.hash.as_ref().map(|hash| &*hash.value)
    }

    /// Returns the path of the package file in the repository at `repo`; none if the package is on
    /// a server of its own.
    ///
    /// # Errors
    /// When the URL leads out of the repository, or to a file of its own, as a sentence.
    pub(super) fn path(&self, repo: &Path) -> Result<Option<PathBuf>, String> {
        match place(&self.url) {
            Ok(Place::Local(path)) => Ok(Some(repo.join(path))),
            Ok(Place::Elsewhere(_)) => Ok(None),
            Err(error) => {
                let url = excerpt(&self.url);
                Err(format!("the url {url:?} of {} in the archive index {error}", self.shown_name()))
            }
        }
    }
}

/// The entries of the packages that were looked for, by their keys; none of those not listed.
#[derive(Debug, Default)]
pub(super) struct Listing(HashMap<String, Option<Entry>>);

impl Listing {
    /// Finds the entries of the packages of `group` in the archive index at `index`. Reads all of it: only
    /// then is it known to be whole. Holds no other entry in memory.
    ///
    /// # Errors
    /// When the index cannot be read, or is found to be broken.
    pub(super) fn read<'a>(
        index: &Path,
        group: impl IntoIterator<Item = &'a PendingOutputs>,
    ) -> io::Result<Self> {
        Self::read_from(&mut regular_file::open_up_to(index, MAX_INDEX)?, group)
    }

    fn read_from<'a>(
        index: &mut dyn Read,
        group: impl IntoIterator<Item = &'a PendingOutputs>,
    ) -> io::Result<Self> {
        let keys = |outputs: &'a PendingOutputs| {
            outputs.packages.iter().map(|package| (key_of(package, &outputs.key.version), None))
        };
        let mut found: HashMap<_, _> = group.into_iter().flat_map(keys).collect();
        each_entry(index, &mut |entry| {
            if let Some(slot) = found.get_mut(&entry.key()) {
                *slot = Some(entry);
            }
        })?;
        Ok(Self(found))
    }

    /// Returns the entry of `package` at `version`, if the index lists it.
    pub(super) fn get(&self, package: &PackageName, version: &Version) -> Option<&Entry> {
        self.0.get(&key_of(package, version))?.as_ref()
    }
}

/// Passes each entry of an archive index to `each`, and returns the `index_version`, if the index has one.
/// Not generic: each copy of the reader would make the program larger.
///
/// # Errors
/// As [`each_package`].
pub(super) fn each_entry(
    index: &mut dyn Read,
    each: &mut dyn FnMut(Entry),
) -> serde_json::Result<Option<u64>> {
    each_package(index, each)
}

fn key_of(package: &PackageName, version: &Version) -> String {
    key(&package.name, version.as_str(), &package.architecture)
}

/// Returns one text for the three parts. No part of a package of ours has a space, so a foreign entry
/// with spaces has another number of them.
pub(super) fn key(name: &str, version: &str, architecture: &str) -> String {
    [name, version, architecture].join(" ")
}

#[cfg(test)]
mod tests {
    use crate::farm::events::JobKey;

    use super::*;

    fn index(names: impl Iterator<Item = String>) -> String {
        let entry =
            |name| format!(r#"{{"name":{name:?},"version":"1-1","architecture":"noarch","x":{{"x":"{{"}}}}"#);
        format!("{{\"packages\":[{}]}}\n", names.map(entry).collect::<Vec<_>>().join(","))
    }

    fn outputs(names: &[&str], version: &str, architecture: &str) -> PendingOutputs {
        let package = |name: &&str| PackageName { name: (*name).into(), architecture: architecture.into() };
        let key = JobKey { recipe: "r".into(), version: version.parse().unwrap() };
        PendingOutputs {
            directory: String::new(),
            key,
            packages: names.iter().map(package).collect(),
            built_from: None,
        }
    }

    /// Checks which of the packages of `outputs` are not found.
    #[track_caller]
    fn check(index: &str, outputs: &PendingOutputs, expected: &[&str]) {
        let listing = Listing::read_from(&mut index.as_bytes(), [outputs]).unwrap();
        let lacking =
            outputs.packages.iter().filter(|package| listing.get(package, &outputs.key.version).is_none());
        assert_eq!(lacking.map(|package| &*package.name).collect::<Vec<_>>(), expected);
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
            assert!(Listing::read_from(&mut &whole.as_bytes()[..length], [&outputs]).is_err(), "{length}");
        }
        assert!(Listing::read_from(&mut format!("{whole}x").as_bytes(), [&outputs]).is_err());
    }

    #[test]
    fn entry_leads_to_a_path_only_below_the_repository() {
        let entry = |url: &str| -> Entry {
            serde_json::from_value(serde_json::json!({
                "name": "a\n", "version": "1-1", "architecture": "noarch", "url": url,
            }))
            .unwrap()
        };
        let repo = Path::new("/repo");
        assert_eq!(entry("/pool/x").path(repo), Ok(Some("/repo/pool/x".into())));
        assert_eq!(entry("https://example.org/x").path(repo), Ok(None));
        let refused =
            r#"the url "/../x" of a\n_1-1_noarch.peipkg in the archive index has a part that starts"#;
        assert!(entry("/../x").path(repo).unwrap_err().starts_with(refused));
        assert!(entry("").path(repo).is_err());
    }
}
