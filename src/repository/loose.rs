//! Clears `publish/` of loose packages, which lie there without a directory of their own.
//!
//! The Go manager moves packages there and publishes all of them together. If one is published
//! already, its every later publish fails, so nothing loose may stay there for its return. A package
//! that is published is removed, the packages of one whole build become pending, and everything else
//! is set aside. Nothing that is not in the repository to the byte is deleted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{info, warn};
use peipkg_format::archive_index::{Archive, Presence};
use peipkg_format::package::{PackageName, check_architecture, check_package_name};
use peipkg_format::sidecars::is_package;
use peipkg_format::sort;
use peipkg_format::version::Version;

use crate::farm::events::{JobKey, PendingOutputs};
use crate::process::ProcessError;
use crate::recipe::Recipe;
use crate::repository::Repository;
use crate::repository::group::link_or_copy;
use crate::repository::inspect::sha256;
use crate::repository::listed::Entry;
use crate::repository::publish::PublishError;
use crate::repository::same_bytes::is_same_file;
use crate::repository::settle::is_missing;
use crate::state::durable::{self, FileError, at};
use crate::state::state_dir::{StateDir, make_private};
use crate::state::troubles;

/// How a loose package stands to the repository.
enum Judgement {
    /// The repository has it, to the byte.
    Published,
    /// The repository does not have it.
    New(PackageName, Version),
    /// It can neither be published nor removed, for this reason.
    Unfit(String),
}

impl Repository {
    /// Clears `publish/` of loose packages, before the first publish. Warns of each that it could not
    /// publish.
    pub(crate) fn clear_loose(&self, recipes: &[Arc<Recipe>]) {
        if let Err(error) = self.try_clear_loose(recipes) {
            let path = self.state.publish().display().to_string();
            warn!(path, error:%; "cannot clear loose packages");
            troubles::begin("cannot clear loose packages", &path, &error);
        }
    }

    fn try_clear_loose(&self, recipes: &[Arc<Recipe>]) -> Result<(), FileError> {
        let loose = paths(&self.state)?;
        if loose.is_empty() {
            return Ok(());
        }
        // Without the index, nobody knows what is published.
        let named = loose.iter().filter_map(|path| parse(path.file_name()?));
        let named: Vec<_> = named.map(|(package, version)| outputs_of(package, version)).collect();
        let listing = self.listing(&named)?;
        let mut new: BTreeMap<String, Box<(Version, Vec<PackageName>)>> = BTreeMap::new();
        for path in loose {
            match self.judge(&path, |package, version| listing.get(package, version)) {
                Judgement::Published => {
                    let removed = fs::remove_file(&path).and_then(|()| durable::sync_parent(&path));
                    removed.map_err(at(&path))?;
                    info!(path = path.display().to_string(); "loose package is published already, removing it");
                }
                Judgement::New(package, version) => {
                    new.entry(version.to_string())
                        .or_insert_with(|| Box::new((version, Vec::new())))
                        .1
                        .push(package);
                }
                Judgement::Unfit(reason) => self.set_aside(&path, &reason, move_file)?,
            }
        }
        for (version, mut packages) in new.into_values().map(|of_version| *of_version) {
            for recipe in take_builds(recipes, &mut packages) {
                self.take_in(recipe, &version)?;
            }
            for package in packages {
                let path = self.state.publish().join(package.file_name(&version));
                let reason = "no recipe builds exactly the loose packages of this version";
                self.set_aside(&path, reason, move_file)?;
            }
        }
        Ok(())
    }

    /// Sets packages aside that were loose and are refused or incomplete, and returns whether it did:
    /// then their version has to be built again. Leaves other packages where they are: their build has
    /// made them, and the next try may publish them.
    pub(crate) fn set_aside_refused(&self, outputs: &PendingOutputs, error: &PublishError) -> bool {
        let directory = self.pending.packages_of(&outputs.directory);
        let files = outputs.packages.iter().map(|package| package.file_name(&outputs.key.version));
        let (lost, there): (Vec<_>, Vec<_>) =
            files.map(|name| directory.join(name)).partition(|path| is_missing(path));
        let is_hopeless = match error {
            PublishError::Tool(ProcessError::Failed { .. }) => true,
            PublishError::NotPublished { .. } => !lost.is_empty(),
            _ => false,
        };
        if !is_hopeless || !self.pending.were_loose(&outputs.directory) {
            return false;
        }
        // Keep each file until all of them are set aside: no tool can publish a part of them. A kill
        // may leave both, and then the next refusal sets them aside again.
        match there.iter().try_for_each(|path| self.set_aside(path, &error.to_string(), copy_file)) {
            Ok(()) => {
                self.pending.discard(outputs);
                true
            }
            Err(error) => {
                let path = directory.display().to_string();
                warn!(path, error:%; "cannot clear loose packages");
                troubles::begin("cannot clear loose packages", &path, &error);
                false
            }
        }
    }

    fn judge<'a>(
        &self,
        path: &Path,
        entry: impl Fn(&PackageName, &Version) -> Option<&'a Entry>,
    ) -> Judgement {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Judgement::Unfit("it is not a regular file".to_owned()),
            Err(error) => return Judgement::Unfit(error.to_string()),
        }
        let Some((package, version)) = parse(path.file_name().unwrap_or_default()) else {
            return Judgement::Unfit("its name is not <name>_<version>_<architecture>.peipkg".to_owned());
        };
        let Some(entry) = entry(&package, &version) else { return Judgement::New(package, version) };
        let is_same = match entry.path(&self.state.repo()) {
            Ok(Some(published)) => is_same_file(path, &published),
            // Somebody else stores it: the index vouches for its bytes.
            Ok(None) => sha256(path).map(|found| found.as_deref() == entry.hash()),
            Err(error) => Err(io::Error::other(error)),
        };
        match is_same {
            Ok(true) => Judgement::Published,
            Ok(false) => Judgement::Unfit("it is published with other bytes".to_owned()),
            Err(error) => Judgement::Unfit(format!("it is published, but cannot be compared: {error}")),
        }
    }

    /// Makes the loose packages of `recipe` at `version` pending. Keeps each file until its copy is
    /// pending: a crash may leave both, and then the second one is found to be published.
    fn take_in(&self, recipe: &Recipe, version: &Version) -> Result<(), FileError> {
        let key = JobKey { recipe: recipe.id.clone(), version: version.clone() };
        let paths =
            recipe.packages.iter().map(|package| self.state.publish().join(package.file_name(version)));
        let paths: Vec<_> = paths.collect();
        let staged = self.state.stage().join(self.state.unique_name("loose"));
        let packages = staged.join("packages");
        fs::create_dir_all(&packages).map_err(at(&packages))?;
        let gathered = paths.iter().try_for_each(|path| {
            link_or_copy(path, &packages.join(path.file_name().unwrap_or_default())).map_err(at(path))
        });
        let added =
            gathered.and_then(|()| self.pending.add_from(&staged, &key, &recipe.packages, None, true));
        let outputs = added.inspect_err(|_| durable::clear(&staged))?;
        for path in &paths {
            fs::remove_file(path).map_err(at(path))?;
        }
        let (recipe, directory) = (&*key.recipe, outputs.directory);
        info!(recipe, version:% = key.version, directory; "loose packages found, publishing them");
        Ok(())
    }

    /// Brings the file at `path` from `publish/` to its place outside by `bring`.
    fn set_aside(
        &self,
        path: &Path,
        reason: &str,
        bring: fn(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), FileError> {
        let directory = self.state.set_aside();
        let name = path.file_name().unwrap_or_default();
        let mut target = directory.join(name);
        if fs::symlink_metadata(&target).is_ok() {
            target = directory.join(self.state.unique_name(&name.to_string_lossy()));
        }
        make_private(&directory).and_then(|()| bring(path, &target)).map_err(at(path))?;
        let (path, to) = (path.display().to_string(), target.display().to_string());
        warn!(path, to, reason; "loose package set aside");
        troubles::begin_while_there("loose package set aside", &target, &reason);
        Ok(())
    }
}

/// Returns the versions that a start would make pending from loose packages, beside an index that lists
/// `archive`. Changes nothing.
///
/// # Errors
/// If `publish/` cannot be read.
pub(crate) fn whole_builds(
    state: &StateDir,
    recipes: &[Arc<Recipe>],
    archive: &Archive,
) -> Result<Vec<PendingOutputs>, FileError> {
    let mut new: BTreeMap<String, Box<(Version, Vec<PackageName>)>> = BTreeMap::new();
    for path in paths(state)? {
        let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        if let Some((package, version)) = path.file_name().and_then(parse).filter(|_| is_file)
            && archive.presence(std::slice::from_ref(&package), &version) == Presence::Absent
        {
            new.entry(version.to_string()).or_insert_with(|| Box::new((version, Vec::new()))).1.push(package);
        }
    }
    let mut found = Vec::new();
    for (version, mut packages) in new.into_values().map(|of_version| *of_version) {
        for Recipe { id, packages, .. } in take_builds(recipes, &mut packages).into_iter().map(|one| &**one) {
            let key = JobKey { recipe: id.clone(), version: version.clone() };
            let (directory, packages) = (key.to_string(), packages.to_vec());
            found.push(PendingOutputs { directory, key, packages, built_from: None });
        }
    }
    Ok(found)
}

/// Returns the recipes of which `packages` has all packages, and takes these out.
fn take_builds<'r>(recipes: &'r [Arc<Recipe>], packages: &mut Vec<PackageName>) -> Vec<&'r Arc<Recipe>> {
    let mut found = Vec::new();
    for recipe in recipes.iter().filter(|recipe| !recipe.packages.is_empty()) {
        if recipe.packages.iter().all(|package| packages.contains(package)) {
            packages.retain(|package| !recipe.packages.contains(package));
            found.push(recipe);
        }
    }
    found
}

/// Returns the paths of everything in `publish/` that is named like a package.
fn paths(state: &StateDir) -> Result<Vec<PathBuf>, FileError> {
    let publish = state.publish();
    let entries = fs::read_dir(&publish).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let names = entries.map_err(at(&publish))?.into_iter().map(|entry| entry.file_name());
    let mut names: Vec<_> = names.filter(|name| is_package(name)).collect();
    sort::sort(&mut names);
    Ok(names.into_iter().map(|name| publish.join(name)).collect())
}

/// Reads `<name>_<version>_<architecture>.peipkg` (PSD-009 §2.1.4).
fn parse(file_name: &OsStr) -> Option<(PackageName, Version)> {
    let (name, rest) = file_name.to_str()?.strip_suffix(".peipkg")?.split_once('_')?;
    let (version, architecture) = rest.split_once('_')?;
    check_package_name(name).and_then(|()| check_architecture(architecture)).ok()?;
    let package = PackageName { name: name.to_owned(), architecture: architecture.to_owned() };
    Some((package, version.parse().ok()?))
}

/// A loose package as an output of no build, to look for its entry.
fn outputs_of(package: PackageName, version: Version) -> PendingOutputs {
    let key = JobKey { recipe: "".into(), version };
    PendingOutputs { directory: String::new(), key, packages: vec![package], built_from: None }
}

/// Brings the bytes of `from` to `to`, which may be on another file system, and keeps `from`.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let copied = link_or_copy(from, to).and_then(|()| durable::sync(to));
    copied.inspect_err(|_| drop(fs::remove_file(to)))?;
    durable::sync_parent(to)
}

/// Moves `from` to `to`, which may be on another file system.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            // A copy would be of the file that a link leads to.
            if !fs::symlink_metadata(from)?.is_file() {
                return Err(error);
            }
            copy_file(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error),
        Ok(()) => durable::sync_parent(to),
    }
}
