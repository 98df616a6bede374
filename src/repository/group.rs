//! Brings the packages of several builds into one directory, for one `peipkg-repo publish`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use peipkg_format::regular_file;

use crate::farm::events::PendingOutputs;
use crate::repository::Repository;
use crate::state::durable::{self, FileError, at};

/// The `--new` directory of a publish. Removed when dropped, unless it is a build's own.
#[derive(Debug)]
pub(super) struct NewPackages {
    path: PathBuf,
    is_temporary: bool,
}

impl NewPackages {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for NewPackages {
    fn drop(&mut self) {
        if self.is_temporary {
            durable::clear(&self.path);
        }
    }
}

/// Two builds of a group have the same package.
#[derive(Debug, thiserror::Error)]
#[error("{file_name} is in {first} and in {second}; they cannot be published together")]
pub(crate) struct Alike {
    /// The package's file name.
    file_name: String,
    /// The directory below `publish/` that has it.
    first: String,
    /// The other one.
    second: String,
}

/// Checks that no two builds of `group` have a package of the same name, version and architecture:
/// only one of them could be published.
pub(super) fn check_names(group: &[&PendingOutputs]) -> Result<(), Alike> {
    let mut seen = HashMap::new();
    for outputs in group {
        for package in &outputs.packages {
            let file_name = package.file_name(&outputs.key.version);
            if let Some(first) = seen.insert(file_name.clone(), &outputs.directory) {
                let (first, second) = (first.clone(), outputs.directory.clone());
                return Err(Alike { file_name, first, second });
            }
        }
    }
    Ok(())
}

impl Repository {
    /// Returns a directory of all packages of `group`: a build's own, or one of hard links in
    /// `stage/`.
    pub(super) fn gather(&self, group: &[&PendingOutputs]) -> Result<NewPackages, FileError> {
        if let [outputs] = group {
            let path = self.pending.packages_of(&outputs.directory);
            return Ok(NewPackages { path, is_temporary: false });
        }
        let path = self.state.stage().join(self.state.unique_name("publish"));
        fs::create_dir(&path).map_err(at(&path))?;
        let new = NewPackages { path, is_temporary: true };
        for outputs in group {
            let packages = self.pending.packages_of(&outputs.directory);
            for package in &outputs.packages {
                let file_name = package.file_name(&outputs.key.version);
                let built = packages.join(&file_name);
                link_or_copy(&built, &new.path.join(file_name)).map_err(at(&built))?;
            }
        }
        Ok(new)
    }
}

/// Links the file at `from` to `to`. Copies it where that is impossible: `publish/` may be a link to
/// another file system, some file systems have no hard links, and the kernel may refuse links to
/// files of another user.
pub(super) fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => regular_file::copy(from, to),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_another_file_system_is_copied() {
        let home = tempfile::tempdir().unwrap();
        let to = home.path().join("copy");
        link_or_copy(Path::new("/proc/version"), &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), fs::read("/proc/version").unwrap());
        let error = link_or_copy(&home.path().join("gone"), &home.path().join("other")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
