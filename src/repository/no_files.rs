//! Finds published packages without files, by the file lists that `peipkg-repo` puts beside packages.
//! The manager cannot read packages: they are compressed.

use std::fs;
use std::path::Path;

use peipkg_format::package::PackageName;
use peipkg_format::regular_file;
use peipkg_format::sidecars::{place, sidecars};
use peipkg_format::version::Version;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::farm::events::PendingOutputs;
use crate::repository::Repository;
use crate::repository::sidecars::conventional_path;

/// The longest file list that may be empty, in bytes.
const MAX_EMPTY: u64 = 1024;

/// A package's file list (PSD-009 §3.5.1). It has the regular files, so a package of links alone looks
/// empty.
#[derive(Deserialize)]
struct FileList {
    entries: Vec<IgnoredAny>,
}

impl Repository {
    /// Whether all packages of a published version lack files. A package whose list is not there, such as
    /// one at an unusual place, counts as one with files.
    pub(crate) fn has_no_files(&self, outputs: &PendingOutputs) -> bool {
        let repo = self.state.repo();
        outputs.packages.iter().all(|package| is_empty(&repo, package, &outputs.key.version))
    }
}

fn is_empty(repo: &Path, package: &PackageName, version: &Version) -> bool {
    let Some(path) = conventional_path(&package.name, version.as_str(), &package.architecture) else {
        return false;
    };
    let package = repo.join(&path);
    let entries = package.parent().map(fs::read_dir).into_iter().flatten().flatten();
    let place = place(&path, entries.flatten().map(|entry| entry.file_name()));
    let [_, list] = sidecars(&package, place);
    // A longer list is not read: it has entries.
    let list = regular_file::read(&list, MAX_EMPTY).ok();
    let list = list.and_then(|json| serde_json::from_slice::<FileList>(&json).ok());
    list.is_some_and(|list| list.entries.is_empty())
}
