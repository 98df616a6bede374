//! Removes the sidecars of packages whose publish is undone. The package files stay: the next publish
//! finds them in place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use peipkg_format::archive_index::each_package;
use peipkg_format::repository_layout::ARCHIVE_INDEX;
use peipkg_format::sidecars::{Place, is_package, sidecars};
use peipkg_format::version::Version;
use serde::Deserialize;

use crate::repository::Repository;
use crate::repository::inspect::package;
use crate::repository::journal::Saved;
use crate::state::durable;

/// An entry of an index (PSD-009 §6.2.4), as far as it identifies a package.
#[derive(Deserialize)]
struct Entry {
    name: String,
    version: String,
    architecture: String,
}

impl Repository {
    /// Removes the sidecars of the packages that the publish in `saved` brought. Warns if that fails:
    /// sidecars are for people, and must not keep a repository from being restored.
    pub(super) fn remove_sidecars(&self, saved: &Saved) {
        let members = saved.group.iter().map(|member| self.completed(member));
        let mut brought: BTreeSet<_> = members.flat_map(|member| member.packages).collect();
        let before = saved.file(ARCHIVE_INDEX).unwrap_or_default();
        let published = each_package(before, |entry: Entry| {
            brought.remove(&(entry.name, entry.version, entry.architecture));
        });
        if published.is_err() {
            // Nobody knows which packages were published before.
            return;
        }
        let mut directories: BTreeMap<PathBuf, BTreeSet<OsString>> = BTreeMap::new();
        for (name, version, architecture) in brought {
            let Some(package) = package(&name, &architecture) else { continue };
            let Ok(version) = version.parse::<Version>() else { continue };
            let path = self.state.repo().join(package.published_path(&version));
            remove(&sidecars(&path, Place::Shared));
            let directory = path.parent().unwrap_or(&path).to_owned();
            directories.entry(directory).or_default().extend(path.file_name().map(OsString::from));
        }
        for (directory, brought) in directories {
            // These may be of a package that is published.
            if holds_only(&directory, &brought) {
                remove(&sidecars(&directory.join("x"), Place::Alone));
            }
        }
    }
}

/// Whether the directory holds no other package than these.
fn holds_only(directory: &Path, packages: &BTreeSet<OsString>) -> bool {
    let names = |entries: fs::ReadDir| entries.map(|entry| Some(entry.ok()?.file_name()));
    fs::read_dir(directory).is_ok_and(|entries| {
        names(entries).all(|name| name.is_some_and(|name| !is_package(&name) || packages.contains(&name)))
    })
}

/// Removes these sidecars, as far as they are regular files: nothing else was written.
fn remove(paths: &[PathBuf]) {
    for path in paths.iter().filter(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file())) {
        durable::clear(path);
    }
}
