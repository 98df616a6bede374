//! Keeps pending packages, built and not yet published, in `state_dir/publish`.
//!
//! The packages of each build have a directory of their own. A rename brings it in, complete and
//! synced:
//!
//! ```text
//! publish/<recipe>@<version>.<start>-<n>/job.json    the version and its packages
//! publish/<recipe>@<version>.<start>-<n>/packages/   the packages, and no other file
//! publish/<recipe>@<version>.<start>-<n>/provenance.json   what they were built from, if a build of
//!                                                    this manager left them
//! ```
//!
//! A package file outside of these directories is [loose](super::loose): another manager left it.
//!
//! A publish that fails leaves its packages here: the farm publishes them later without a build,
//! other versions do not wait, and a restart finds them.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use peipkg_format::package::PackageName;
use peipkg_format::regular_file::{self, MAX_TEXT};
use peipkg_format::sidecars::is_package;
use peipkg_format::sort;
use serde::{Deserialize, Serialize};

use crate::farm::events::{JobKey, PendingOutputs};
use crate::state::durable::{self, FileError, at};
use crate::state::state_dir::StateDir;
use crate::state::troubles;
use crate::state::volumes::{LOST_AND_FOUND, move_directory};

/// The file that describes the packages of a directory.
pub(crate) const JOB_FILE: &str = "job.json";

/// The provenance of the packages of a directory.
pub(crate) const PROVENANCE_FILE: &str = "provenance.json";

/// The content of `job.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    recipe: String,
    version: String,
    packages: Vec<(String, String)>,
    /// Whether the packages were loose: nobody saw them leave a build.
    #[serde(default, skip_serializing_if = "is_false")]
    loose: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The pending packages of a state directory.
#[derive(Debug)]
pub(crate) struct Pending {
    state: Arc<StateDir>,
}

impl Pending {
    /// The pending packages of `state`.
    pub(crate) fn new(state: Arc<StateDir>) -> Self {
        Self { state }
    }

    /// Syncs the packages that a build has left in `staged/packages`, with their provenance beside that
    /// directory, if there is one, and moves them to `publish/` in one step.
    ///
    /// # Errors
    /// When the file system refuses; `publish/` is then unchanged.
    pub(crate) fn add(
        &self,
        staged: &Path,
        key: &JobKey,
        packages: &[PackageName],
    ) -> Result<PendingOutputs, FileError> {
        self.add_from(staged, key, packages, false)
    }

    /// As [`Pending::add`]; says whether the packages were loose.
    pub(super) fn add_from(
        &self,
        staged: &Path,
        key: &JobKey,
        packages: &[PackageName],
        loose: bool,
    ) -> Result<PendingOutputs, FileError> {
        let job = JobFile {
            recipe: key.recipe.to_string(),
            version: key.version.to_string(),
            packages: packages.iter().map(|p| (p.name.clone(), p.architecture.clone())).collect(),
            loose,
        };
        let job_file = staged.join(JOB_FILE);
        let json = serde_json::to_vec(&job).map_err(io::Error::from);
        json.and_then(|json| durable::create(&job_file)?.write_all(&json)).map_err(at(&job_file))?;
        let package_dir = staged.join("packages");
        let files = packages.iter().map(|package| package_dir.join(package.file_name(&key.version)));
        let provenance = Some(staged.join(PROVENANCE_FILE)).filter(|path| path.exists());
        for path in files.chain(provenance).chain([job_file, package_dir.clone(), staged.to_owned()]) {
            durable::sync(&path).map_err(at(&path))?;
        }
        loop {
            let directory = self.state.unique_name(&format!("{}@{}", key.recipe, key.version));
            let target = self.path_of(&directory);
            if target.exists() {
                continue; // an earlier process left it
            }
            let beside = self.path_of(&hidden(&directory));
            move_directory(staged, &target, &beside).map_err(at(&target))?;
            let publish = self.state.publish();
            // Only a power cut makes a failed sync matter; an error here would build again at once.
            troubles::end("cannot sync pending packages");
            if let Err(error) = durable::sync(&publish) {
                let path = publish.display().to_string();
                warn!(path, error:%; "cannot sync pending packages");
                troubles::begin("cannot sync pending packages", &path, &error);
            }
            return Ok(PendingOutputs { directory, key: key.clone(), packages: packages.to_vec() });
        }
    }

    /// Returns all pending packages. Warns of an entry that it cannot read, and leaves it alone.
    pub(crate) fn list(&self) -> Vec<PendingOutputs> {
        let publish = self.state.publish();
        let entries = match fs::read_dir(&publish) {
            Ok(entries) => entries,
            Err(error) => {
                let path = publish.display().to_string();
                warn!(path, error:%; "cannot list pending packages");
                troubles::begin("cannot list pending packages", &path, &error);
                return Vec::new();
            }
        };
        // An entry that cannot be read must not hide the others: they would be built again.
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| is_entry(path));
        sort::sort(&mut paths);
        paths.iter().filter_map(|path| read(path)).collect()
    }

    /// Returns the path of every entry of `publish/`, with its packages if it can be read. Leaves out
    /// what is no directory: it has never been pending packages.
    ///
    /// # Errors
    /// When `publish/` or an entry cannot be read: a caller must not take the rest for all.
    pub(crate) fn entries(&self) -> Result<Vec<(PathBuf, Option<PendingOutputs>)>, FileError> {
        let publish = self.state.publish();
        let paths = || fs::read_dir(&publish)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let paths = paths().map_err(at(&publish))?;
        let entries = paths.into_iter().filter(|path| is_entry(path) && !is_stray(path));
        Ok(entries.map(|path| (path.clone(), read(&path))).collect())
    }

    /// Returns the packages in `directory` below `publish/`, if it is there and can be read.
    pub(crate) fn get(&self, directory: &str) -> Option<PendingOutputs> {
        read(&self.path_of(directory))
    }

    /// Whether the packages in `directory` below `publish/` were loose.
    pub(super) fn were_loose(&self, directory: &str) -> bool {
        let json = regular_file::read(&self.path_of(directory).join(JOB_FILE), MAX_TEXT);
        json.is_ok_and(|json| serde_json::from_slice(&json).is_ok_and(|job: JobFile| job.loose))
    }

    /// Whether `directory` is below `publish/`.
    pub(crate) fn contains(&self, directory: &str) -> bool {
        self.path_of(directory).exists()
    }

    /// The directory of the package files in `directory` below `publish/`.
    pub(crate) fn packages_of(&self, directory: &str) -> PathBuf {
        self.path_of(directory).join("packages")
    }

    /// The file of the provenance in `directory` below `publish/`.
    pub(super) fn provenance_of(&self, directory: &str) -> PathBuf {
        self.path_of(directory).join(PROVENANCE_FILE)
    }

    /// Removes packages that are published. Moves them out of `publish/` in one step first: the
    /// next start could not read a directory that is half removed.
    pub(crate) fn discard(&self, outputs: &PendingOutputs) {
        let path = self.path_of(&outputs.directory);
        // `stage/` may be another file system.
        let doomed = self.path_of(&hidden(&outputs.directory));
        match fs::rename(&path, &doomed).and_then(|()| durable::remove(&doomed)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                durable::not_cleared(&path, &error);
            }
            _ => {}
        }
    }

    fn path_of(&self, directory: &str) -> PathBuf {
        self.state.publish().join(directory)
    }
}

/// The name of a directory that is half moved to or from `directory`. The next start removes it.
fn hidden(directory: &str) -> String {
    format!(".{directory}")
}

/// Whether `path` in `publish/` may be pending packages: neither half moved, nor loose, nor a volume's
/// own.
fn is_entry(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    !name.as_encoded_bytes().starts_with(b".") && name != LOST_AND_FOUND && !is_package(name)
}

/// Whether `path` is certainly no directory, but for example a note that somebody has left.
fn is_stray(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_dir())
}

/// Reads the entry of `publish/` at `path`; warns and returns nothing if that fails.
fn read(path: &Path) -> Option<PendingOutputs> {
    let read = || -> io::Result<PendingOutputs> {
        if is_stray(path) {
            return Err(io::Error::other("it is no package and no directory of a build; move it away"));
        }
        let directory = path.file_name().and_then(|name| name.to_str());
        let directory = directory.ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
        let job = path.join(JOB_FILE);
        // The file's name, if it is the cause: the warning names the directory.
        let json = regular_file::read(&job, MAX_TEXT).map_err(|error| io::Error::other(at(&job)(error)))?;
        read_job(directory, &json)
    };
    let result = read();
    if let Err(error) = &result {
        warn!(path = path.display().to_string(), error:%; "cannot read pending packages, leaving them alone");
        troubles::begin_while_there("cannot read pending packages, leaving them alone", path, &error);
    }
    result.ok()
}

/// Reads the `job.json` of `directory`.
pub(crate) fn read_job(directory: &str, json: &[u8]) -> io::Result<PendingOutputs> {
    let job: JobFile = serde_json::from_slice(json)?;
    let version = job.version.parse().map_err(io::Error::other)?;
    let key = JobKey { recipe: job.recipe.into(), version };
    let name = |(name, architecture)| PackageName { name, architecture };
    let packages = job.packages.into_iter().map(name).collect();
    Ok(PendingOutputs { directory: directory.to_owned(), key, packages })
}
