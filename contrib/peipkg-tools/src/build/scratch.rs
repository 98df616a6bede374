//! The temporary directory of one build, which is removed whatever happens.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

/// A private directory with a working and a staging directory in it.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    root: PathBuf,
}

/// The directory cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot create a temporary directory in {place}: {error}", place = std::env::temp_dir().display())]
pub struct ScratchError {
    #[from]
    error: io::Error,
}

impl Scratch {
    /// Makes the directory below `TMPDIR`, else `/tmp`.
    pub fn new() -> Result<Self, ScratchError> {
        let directory = tempfile::Builder::new().prefix("peipkg-build-").tempdir()?;
        let root = directory.path().canonicalize()?;
        let scratch = Self { directory, root };
        fs::create_dir(scratch.work())?;
        fs::create_dir(scratch.staged())?;
        Ok(scratch)
    }

    /// Where the build script starts.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// The build script's `DESTDIR`.
    pub fn staged(&self) -> PathBuf {
        self.root.join("staged")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Some build systems leave directories without write permission behind, which stand in
        // the way of removing what is in them; the drop of the `TempDir` then tries once more.
        if fs::remove_dir_all(self.directory.path()).is_err() {
            make_writable(self.directory.path());
        }
    }
}

/// Gives the owner all permissions on every directory below `directory`, as far as possible.
fn make_writable(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}
