//! The temporary directory of one build. Dropping it removes it, however the build ended.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

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
#[error("cannot create a temporary directory in {place}: {error}", place = temp_dir().display())]
pub struct ScratchError {
    #[from]
    error: io::Error,
}

impl Scratch {
    /// Creates the directory below `TMPDIR`, else `/tmp`, for the recipe in the file `recipe`.
    pub fn new(recipe: &Path, version: &str) -> Result<Self, ScratchError> {
        let recipe = recipe.canonicalize().unwrap_or_else(|_| recipe.to_owned());
        let id = recipe.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        Ok(Self::new_in(&temp_dir(), &format!("peipkg-build-{id}@{version}"))?)
    }

    /// Creates the first of `name`, `name.2` and so on that does not exist: a build may record its
    /// paths, so they are the same for the same version, even if builds share their `TMPDIR`.
    fn new_in(place: &Path, name: &str) -> io::Result<Self> {
        /// More than builds run at once; then somebody has made these names to be in the way.
        const MOST: usize = 10_000;
        let place = place.canonicalize()?;
        // Some programs fail in a directory whose name has other characters, such as a space.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+~@-".contains(c);
        let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let names = (1..MOST).map(|n| if n == 1 { name.clone() } else { format!("{name}.{n}") });
        let create = |name: String| {
            let root = place.join(name);
            // It fails if anything has the name, even a link: others may write to `/tmp`.
            match DirBuilder::new().mode(0o700).create(&root) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                created => Some(created.map(|()| root)),
            }
        };
        let root = names.into_iter().find_map(create).unwrap_or(Err(io::ErrorKind::AlreadyExists.into()))?;
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

/// Returns `TMPDIR`, else `/tmp`. Shells and programs take an empty variable for an absent one.
fn temp_dir() -> PathBuf {
    let given = std::env::var_os("TMPDIR").filter(|given| !given.is_empty());
    given.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
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
    fn build_alone_in_its_place_has_the_same_paths() {
        let place = tempfile::tempdir().unwrap();
        let [first, again] = [(); 2].map(|()| Scratch::new_in(place.path(), "a b@1-1").unwrap().staged());
        assert_eq!(first, again);
        let held = Scratch::new_in(place.path(), "a b@1-1").unwrap();
        std::os::unix::fs::symlink("/nowhere", place.path().join("a_b@1-1.2")).unwrap();
        let second = Scratch::new_in(place.path(), "a b@1-1").unwrap();
        assert_eq!(held.staged(), first);
        assert_eq!(second.root, place.path().canonicalize().unwrap().join("a_b@1-1.3"));
    }

    #[test]
    fn build_nests_directories_without_end_leaves_nothing() {
        let scratch = Scratch::new(Path::new("x/peipkg.toml"), "1-1").unwrap();
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
