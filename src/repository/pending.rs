//! What is built and not yet published: `state_dir/publish`.
//!
//! The outputs of each build have a directory of their own, renamed in when they
//! are complete and synced:
//!
//! ```text
//! publish/<recipe>@<version>.<n>/job.json    what was built
//! publish/<recipe>@<version>.<n>/packages/   the packages, and nothing else
//! ```
//!
//! So a publish that fails keeps its outputs, can be tried again without a
//! build, and blocks nothing else; and a restart finds what was built.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use peipkg_format::package::PackageName;
use serde::{Deserialize, Serialize};

use crate::farm::events::{JobKey, PendingOutputs};
use crate::state::durable::{self, FileError, at};
use crate::state::state_dir::StateDir;

/// The content of `job.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    recipe: String,
    version: String,
    packages: Vec<(String, String)>,
}

/// The directories below `state_dir/publish`.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    state: Arc<StateDir>,
}

impl Pending {
    /// Those of a state directory.
    pub(crate) fn new(state: Arc<StateDir>) -> Self {
        Self { state }
    }

    /// Takes the packages that a build has left in `staged/packages`, syncs them
    /// and moves them to `publish/` in one step.
    ///
    /// # Errors
    /// When the file system refuses; then nothing is in `publish/`.
    pub(crate) fn keep(
        &self,
        staged: &Path,
        key: &JobKey,
        packages: &[PackageName],
    ) -> Result<PendingOutputs, FileError> {
        let job = JobFile {
            recipe: key.recipe.to_string(),
            version: key.version.to_string(),
            packages: packages.iter().map(|p| (p.name.clone(), p.architecture.clone())).collect(),
        };
        let job_file = staged.join("job.json");
        let json = serde_json::to_vec(&job).map_err(io::Error::from);
        json.and_then(|json| fs::write(&job_file, json)).map_err(at(&job_file))?;
        let package_dir = staged.join("packages");
        let files = packages.iter().map(|package| package_dir.join(package.file_name(&key.version)));
        for path in files.chain([job_file, package_dir.clone(), staged.to_owned()]) {
            durable::sync(&path).map_err(at(&path))?;
        }
        loop {
            let directory = self.state.unique_name(&format!("{}@{}", key.recipe, key.version));
            let target = self.path_of(&directory);
            if target.exists() {
                continue; // left by an earlier process
            }
            fs::rename(staged, &target).map_err(at(&target))?;
            let publish = self.state.publish();
            // They are built, whatever happens now: to build them again would be worse than to go on.
            if let Err(error) = durable::sync(&publish) {
                warn!(path = publish.display().to_string(), error:%; "cannot sync outputs to publish");
            }
            return Ok(PendingOutputs { directory, key: key.clone(), packages: packages.to_vec() });
        }
    }

    /// The outputs of earlier builds. What it cannot understand it leaves alone, with a warning.
    pub(crate) fn list(&self) -> Vec<PendingOutputs> {
        let entries = self.entries().unwrap_or_else(|FileError { path, error }| {
            warn!(path = path.display().to_string(), error:%; "cannot look for outputs to publish");
            Vec::new()
        });
        entries.into_iter().filter_map(|(_, outputs)| outputs).collect()
    }

    /// All that is in `publish/`, in the order of the names; each with its outputs, if they can be understood.
    ///
    /// # Errors
    /// When `publish/` cannot be read.
    pub(crate) fn entries(&self) -> Result<Vec<(PathBuf, Option<PendingOutputs>)>, FileError> {
        let publish = self.state.publish();
        let paths = || fs::read_dir(&publish)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut paths = paths().map_err(at(&publish))?;
        paths.sort();
        let with_outputs = |path: PathBuf| {
            let outputs = read(&path);
            (path, outputs)
        };
        Ok(paths.into_iter().map(with_outputs).collect())
    }

    /// The outputs in `directory` below `publish/`, if they are there and can be understood.
    pub(crate) fn get(&self, directory: &str) -> Option<PendingOutputs> {
        read(&self.path_of(directory))
    }

    /// Whether the outputs in `directory` are there.
    pub(crate) fn contains(&self, directory: &str) -> bool {
        self.path_of(directory).exists()
    }

    /// Where the packages of the outputs in `directory` are.
    pub(crate) fn packages_of(&self, directory: &str) -> PathBuf {
        self.path_of(directory).join("packages")
    }

    /// Removes outputs that are published. They leave `publish/` in one step: half of them would be found by the next
    /// start, and understood by nobody.
    pub(crate) fn discard(&self, outputs: &PendingOutputs) {
        let path = self.path_of(&outputs.directory);
        let doomed = self.state.stage().join(&outputs.directory);
        match fs::rename(&path, &doomed).and_then(|()| durable::remove(&doomed)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = path.display().to_string(), error:%; "clear staging dir failed");
            }
            _ => {}
        }
    }

    fn path_of(&self, directory: &str) -> PathBuf {
        self.state.publish().join(directory)
    }
}

/// The outputs at `path`, if they can be understood.
fn read(path: &Path) -> Option<PendingOutputs> {
    let read = || -> io::Result<PendingOutputs> {
        let directory = path.file_name().and_then(|name| name.to_str());
        let directory = directory.ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
        read_job(directory, &fs::read(path.join("job.json"))?)
    };
    let result = read();
    if let Err(error) = &result {
        warn!(path = path.display().to_string(), error:%; "found something in publish that is no build's output");
    }
    result.ok()
}

/// Reads the `job.json` of the outputs in `directory`.
pub(crate) fn read_job(directory: &str, json: &[u8]) -> io::Result<PendingOutputs> {
    let job: JobFile = serde_json::from_slice(json)?;
    let version = job.version.parse().map_err(io::Error::other)?;
    let key = JobKey { recipe: job.recipe.into(), version };
    let name = |(name, architecture)| PackageName { name, architecture };
    let packages = job.packages.into_iter().map(name).collect();
    Ok(PendingOutputs { directory: directory.to_owned(), key, packages })
}
