//! Removing a tree, whatever its shape.
//!
//! Who makes trees here are upstreams and builds. They may nest directories deeper
//! than this process may have files open, than a path may be long, or than a stack
//! reaches. So what lies deep is moved up to the top, and then has its turn there.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// How deep directories are removed where they are.
const DEPTH: usize = 16;

/// Removes the directory at `path` with all it holds. Links in it are removed, not followed.
///
/// # Errors
/// When something of it cannot be removed.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path) {
        Ok(top) => top,
        // It may be empty and somebody else's, such as the lost+found of a new file system.
        Err(error) => return unlinkat(CWD, path, AtFlags::REMOVEDIR).map_err(|_| error),
    };
    let mut moved = 0;
    loop {
        let before = moved;
        empty(top.as_fd(), top.as_fd(), DEPTH, &mut moved)?;
        if moved == before {
            return Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?);
        }
    }
}

/// Empties `directory`, but for what was moved to `top` after it had been read.
fn empty(directory: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                let inner = open(directory, name)?;
                if depth > 0 {
                    empty(inner.as_fd(), top, depth - 1, moved)?;
                    unlinkat(directory, name, AtFlags::REMOVEDIR)?;
                } else {
                    move_up(directory, name, top, moved)?;
                }
            }
            Err(Errno::NOENT) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Moves a directory to a name of its own in `top`.
fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        match renameat(from, name, top, moved.to_string()) {
            // Something else has this name.
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            result => return Ok(result?),
        }
    }
}

/// Opens a directory for changes to it. A build may have made it read-only, as some tools do with what they fetch.
fn open(parent: impl AsFd, name: impl Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(&parent, name, flags, Mode::empty());
    let directory = match open() {
        Err(Errno::ACCESS) => {
            chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        result => result?,
    };
    // If it is not ours to change, what follows says so.
    let _ = fchmod(&directory, Mode::RWXU);
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tree_nested_without_end_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let (tree, outside) = (home.path().join("tree"), home.path().join("outside"));
        fs::create_dir_all(tree.join("1/2/3")).unwrap();
        // What is moved up gets such names.
        fs::write(tree.join("2"), "").unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "").unwrap();
        let mut directory = open(CWD, &*tree).unwrap();
        // Together their names are longer than a path may be.
        for _ in 0..1000 {
            rustix::fs::mkdirat(&directory, "directory", Mode::RUSR | Mode::XUSR).unwrap();
            directory = open(&directory, "directory").unwrap();
        }
        rustix::fs::symlinkat(&outside, &directory, "link").unwrap();
        remove_directory(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("precious").exists());
    }
}
