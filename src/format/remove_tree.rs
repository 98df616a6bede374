//! Removes a directory tree of any depth.
//!
//! Upstreams and builds make these trees. They can nest directories deeper than the limits on open
//! files, on the length of a path or on the stack allow. Therefore a directory that lies deep is
//! moved up into the top directory, and emptied there.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Directories more levels down than this are moved up. Each level keeps two files open and takes
/// some of the stack.
const DEPTH: usize = 16;

/// How often a directory is emptied again because somebody still writes to it, such as a git that
/// outlived its manager. Each pass takes away the directories that it writes to; a writer that
/// makes new ones without end must not keep the caller forever.
const MAX_REFILLS: u32 = 100;

/// Removes the directory at `path` and everything in it. Removes symbolic links and follows none.
///
/// # Errors
/// The first entry that cannot be removed.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path) {
        Ok(top) => top,
        // An empty directory of another user, such as the lost+found of a new file system, cannot
        // be opened but can be removed.
        Err(error) => return unlinkat(CWD, path, AtFlags::REMOVEDIR).map_err(|_| error),
    };
    let (mut moved, mut refills) = (0, 0);
    loop {
        let before = moved;
        empty(top.as_fd(), top.as_fd(), DEPTH, &mut moved)?;
        if moved > before {
            continue;
        }
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) if refills < MAX_REFILLS => refills += 1,
            result => return Ok(result?),
        }
    }
}

/// Empties `directory`. Some directories that it moves into `top` may remain there; `moved` counts
/// them, and the caller repeats until a pass moves none.
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
                    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
                        // Somebody added an entry; the next pass finds it.
                        Err(Errno::NOTEMPTY) => {}
                        result => result?,
                    }
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

/// Moves a directory to an unused name in `top`.
fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        match renameat(from, name, top, moved.to_string()) {
            // Another entry has this name.
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            result => return Ok(result?),
        }
    }
}

/// Opens a directory, and makes it writable: some tools leave the directories that they fetch
/// read-only.
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
    // Another user's directory fails here; the removals in it report that if they fail too.
    let _ = fchmod(&directory, Mode::RWXU);
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn directory_that_is_written_to_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().join("tree");
        let inner = tree.join("a/b");
        for _ in 0..5 {
            fs::create_dir_all(&inner).unwrap();
            std::thread::scope(|scope| {
                let written = inner.join("0");
                let inner = &inner;
                // Like a surviving tool, it goes on until its directory is gone.
                scope.spawn(move || {
                    (0..20_000).take_while(|n| fs::write(inner.join(n.to_string()), "").is_ok()).count()
                });
                while !written.exists() {}
                remove_directory(&tree).unwrap();
            });
            assert!(!tree.exists());
        }
    }

    #[test]
    fn tree_deeper_than_any_path_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let (tree, outside) = (home.path().join("tree"), home.path().join("outside"));
        fs::create_dir_all(tree.join("1/2/3")).unwrap();
        // Directories that move up get such names.
        fs::write(tree.join("2"), "").unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "").unwrap();
        let mut directory = open(CWD, &*tree).unwrap();
        // Together, their names are longer than a path may be.
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
