//! Prepares a fetched source tree for a build.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use peipkg_format::regular_file;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::process::Interrupt;
use crate::state::durable::{self, FileError, at};

/// Removes every `.git` below `root`, of any file type and in submodules too, so that a build sees
/// only the released files. Gives each file and directory the time `committed`: a build could
/// record the time of the fetch, and make would compare the times at which git wrote the files.
/// Removes links and never follows them: an upstream chooses their targets.
///
/// # Errors
/// When a directory cannot be read, or an entry cannot be changed.
pub(super) fn prepare(root: &Path, committed: SystemTime) -> io::Result<()> {
    let since = committed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = Timespec { tv_sec: since.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let date = |path: &Path| utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // A link to a directory is no directory here.
            let is_directory = entry.file_type()?.is_dir();
            if entry.file_name() == ".git" {
                durable::remove(&entry.path())?;
            } else if is_directory {
                directories.push(entry.path());
            } else {
                date(&entry.path())?;
            }
        }
        // Nothing below changes the directory's own entries any more.
        date(&directory)?;
    }
    Ok(())
}

/// Copies a prepared source tree from `from` to `to`, which must not exist: the same files, modes, links
/// and times. Creates the entries of a directory in the reverse order, which some file systems list them
/// in. Ends early after an interrupt, as no build starts then.
///
/// # Errors
/// When an entry cannot be read or written.
pub(crate) fn copy(
    from: &Path,
    to: &Path,
    committed: SystemTime,
    interrupt: &Interrupt,
) -> Result<(), FileError> {
    let mut directories = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = directories.pop() {
        let list = || fs::read_dir(&from)?.collect::<io::Result<Vec<_>>>();
        fs::create_dir(&to).map_err(at(&to))?;
        let permissions = fs::metadata(&from).map_err(at(&from))?.permissions();
        fs::set_permissions(&to, permissions).map_err(at(&to))?;
        for entry in list().map_err(at(&from))?.into_iter().rev() {
            if interrupt.is_triggered() {
                return Ok(());
            }
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type().map_err(at(&source))?;
            if kind.is_dir() {
                directories.push((source, target));
            } else if kind.is_symlink() {
                fs::read_link(&source).and_then(|leads| symlink(leads, &target)).map_err(at(&target))?;
            } else {
                copy_file(&source, &target).map_err(at(&target))?;
            }
        }
    }
    prepare(to, committed).map_err(at(to))
}

/// The kernel copies: where the file system can share blocks between files, it writes none.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let (mut source, mut target) = (regular_file::open(from)?, File::create_new(to)?);
    io::copy(&mut source, &mut target)?;
    target.set_permissions(source.metadata()?.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn git_entries_are_removed_files_dated_and_links_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join(".git")).unwrap();
        fs::write(outside.path().join(".git/config"), "").unwrap();
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        for directory in [".git/objects", "sub/.git", "sub/deep"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("sub/deep/.git"), "gitdir: ../../.git/modules/deep").unwrap();
        fs::write(root.join(".gitignore"), "").unwrap();
        symlink(outside.path(), root.join("link")).unwrap();
        fs::create_dir(root.join("linked")).unwrap();
        symlink(outside.path().join(".git"), root.join("linked/.git")).unwrap();
        let committed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        prepare(root, committed).unwrap();
        for dated in ["", ".gitignore", "sub", "sub/deep", "link", "linked"] {
            let modified = fs::symlink_metadata(root.join(dated)).unwrap().modified().unwrap();
            assert_eq!(modified, committed, "{dated}");
        }
        assert!(fs::metadata(outside.path()).unwrap().modified().unwrap() > committed);
        for gone in [".git", "sub/.git", "sub/deep/.git", "linked/.git"] {
            assert!(fs::symlink_metadata(root.join(gone)).is_err(), "{gone}");
        }
        for kept in [".gitignore", "sub/deep", "link"] {
            assert!(fs::symlink_metadata(root.join(kept)).is_ok(), "{kept}");
        }
        assert!(outside.path().join(".git/config").exists());
    }

    #[test]
    fn copy_has_the_same_files_modes_links_and_times() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::create_dir_all(from.join("deep/empty")).unwrap();
        fs::write(from.join("deep/run"), "run").unwrap();
        fs::set_permissions(from.join("deep/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(from.join("plain"), "").unwrap();
        symlink("nowhere", from.join("link")).unwrap();
        symlink("deep", from.join("deep-link")).unwrap();
        let committed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        prepare(&from, committed).unwrap();
        let interrupt = Interrupt::new().unwrap();
        copy(&from, &to, committed, &interrupt).unwrap();
        let state = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.mode(), found.len(), found.mtime(), found.mtime_nsec(), fs::read_link(path).ok())
        };
        for inner in ["", "deep", "deep/empty", "deep/run", "plain", "link", "deep-link"] {
            assert_eq!(state(&from.join(inner)), state(&to.join(inner)), "{inner}");
        }
        assert_eq!(fs::read_to_string(to.join("deep/run")).unwrap(), "run");
        assert!(copy(&from, &to, committed, &interrupt).is_err());
        interrupt.trigger();
        copy(&from, &home.path().join("third"), committed, &interrupt).unwrap();
        assert!(!home.path().join("third/plain").exists());
    }
}
