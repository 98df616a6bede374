//! The temporary directory of one build. Dropping it removes it, however the build ended.

use std::path::PathBuf;
use std::{fs, io};

use peipkg_format::remove_tree::remove_directory;

use super::PROGRAM;
use crate::cli::note;

/// A private directory with a working and a staging directory in it.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
}

/// The temporary directory cannot be created.
#[derive(Debug, thiserror::Error)]
#[error("cannot create a temporary directory in {place}: {error}", place = std::env::temp_dir().display())]
pub struct ScratchError {
    #[from]
    error: io::Error,
}

impl Scratch {
    /// Creates the directory below `TMPDIR`, else `/tmp`.
    pub fn new() -> Result<Self, ScratchError> {
        let directory = tempfile::Builder::new().prefix("peipkg-build-").tempdir()?;
        let root = directory.path().canonicalize()?;
        // `TempDir` would remove the tree recursively; see `drop`.
        let _ = directory.keep();
        let scratch = Self { root };
        fs::create_dir(scratch.work())?;
        fs::create_dir(scratch.staged())?;
        Ok(scratch)
    }

    /// Returns the directory in which the build script starts.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Returns the build script's `DESTDIR`.
    pub fn staged(&self) -> PathBuf {
        self.root.join("staged")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A recursive removal can overflow the stack, and fails on directories without write
        // permission: a build may nest thousands of directories, or leave read-only ones.
        if let Err(error) = remove_directory(&self.root) {
            note(PROGRAM, &format!("cannot remove {}: {error}", self.root.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    use super::*;

    #[test]
    fn build_nests_directories_without_end_leaves_nothing() {
        let scratch = Scratch::new().unwrap();
        let root = scratch.root.clone();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = openat(CWD, scratch.work(), flags, Mode::empty()).unwrap();
        for _ in 0..5_000 {
            mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = openat(&directory, "d", flags, Mode::empty()).unwrap();
        }
        // On so small a stack, a recursive removal overflows.
        let small = std::thread::Builder::new().stack_size(128 << 10);
        small.spawn(move || drop(scratch)).unwrap().join().unwrap();
        assert!(!root.exists());
    }
}
