//! The temporary directory of one build, which is removed whatever happens.

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
        // Its own way to remove itself is a recursive one.
        let _ = directory.keep();
        let scratch = Self { root };
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
        // Not by recursion, nor by long paths: a build may nest directories deeper than this stack reaches, or leave
        // them without write permission.
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
        for _ in 0..20_000 {
            mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = openat(&directory, "d", flags, Mode::empty()).unwrap();
        }
        drop(scratch);
        assert!(!root.exists());
    }
}
