//! Removes the sidecars of packages whose publish is undone. The package files stay: the next publish
//! finds them in place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use peipkg_format::package_url::{self, place};
use peipkg_format::regular_file::{self, MAX_INDEX};
use peipkg_format::repository_layout::{ARCHIVE_INDEX, PACKAGE_URL, package_url};
use peipkg_format::sidecars::{Place, is_at_root, is_other_package, provenance, sidecars};

use crate::repository::Repository;
use crate::repository::journal::Saved;
use crate::repository::listed::{each_entry, key};
use crate::state::durable;

impl Repository {
    /// Removes the sidecars of the packages that the publish in `saved` brought. Warns if that fails:
    /// sidecars are for people, and must not keep a repository from being restored.
    pub(super) fn remove_sidecars(&self, saved: &Saved) {
        let members = saved.group.iter().map(|member| self.completed(member));
        // Each at the place that a publish without a template gives it, unless the index says another.
        let mut brought: HashMap<String, Option<PathBuf>> = members
            .flat_map(|member| member.packages)
            .map(|(name, version, architecture)| {
                (key(&name, &version, &architecture), conventional_path(&name, &version, &architecture))
            })
            .collect();
        // Without the saved index, any of the packages may have been published before.
        let Some(Ok(mut before)) = saved.file(ARCHIVE_INDEX).map(|saved| self.journal.open(saved)) else {
            return;
        };
        if each_entry(&mut before, &mut |entry| drop(brought.remove(&entry.key()))).is_err() {
            return;
        }
        if let Ok(mut index) = regular_file::open_up_to(&self.state.archive_index(), MAX_INDEX) {
            // Take the entries before an error: the index may be half written.
            let _ = each_entry(&mut index, &mut |entry| {
                if let Some(path) = brought.get_mut(&entry.key()) {
                    *path = entry.path(Path::new("")).ok().flatten();
                }
            });
        }
        let repo = self.state.repo();
        let mut directories: BTreeMap<PathBuf, BTreeSet<OsString>> = BTreeMap::new();
        for package in brought.into_values().flatten() {
            let path = repo.join(&package);
            remove(&path, Place::Shared);
            if let (false, Some(directory), Some(name)) =
                (is_at_root(&package), path.parent(), path.file_name())
            {
                directories.entry(directory.to_owned()).or_default().insert(name.to_owned());
            }
        }
        for (directory, brought) in directories {
            // These may be of a package that is published.
            if holds_only(&directory, &brought) {
                remove(&directory.join("any"), Place::Alone);
            }
        }
    }
}

/// Returns the conventional place of a package below a repository (PSD-009 §6.4.3).
pub(super) fn conventional_path(name: &str, version: &str, architecture: &str) -> Option<PathBuf> {
    match place(&package_url(PACKAGE_URL, name, version, architecture)) {
        Ok(package_url::Place::Local(path)) => Some(path.into()),
        Ok(package_url::Place::Elsewhere(_)) | Err(_) => None,
    }
}

/// Whether the directory holds no other package than these.
fn holds_only(directory: &Path, packages: &BTreeSet<OsString>) -> bool {
    let names = |entries: fs::ReadDir| entries.map(|entry| Some(entry.ok()?.file_name()));
    fs::read_dir(directory).is_ok_and(|entries| {
        names(entries)
            .all(|name| name.is_some_and(|name| packages.iter().any(|own| !is_other_package(own, &name))))
    })
}

/// Removes the sidecars of `package`, as far as they are regular files: nothing else was written.
fn remove(package: &Path, place: Place) {
    let paths = sidecars(package, place).into_iter().chain([provenance(package, place)]);
    for path in paths.filter(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file())) {
        durable::clear(&path);
    }
}
