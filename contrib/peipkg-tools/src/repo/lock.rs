//! The lock of a repository: one writer, or many readers.
//!
//! It is on the file `.lock`, which only those who may write to the repository can open. On the
//! directory itself, which a web server reads, every user of the machine could hold the lock and
//! stop all publishes. The file exists only while a publish runs, or after one was killed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;

use super::LOCK;
use super::error::RepoError;

/// The lock of a writer. Dropping it releases it and removes its file; so does the next writer, if
/// the process is killed.
pub(super) struct WriteLock {
    path: PathBuf,
    _file: File,
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // While the lock is held: afterwards the file may be the next writer's.
        let _ = fs::remove_file(&self.path);
    }
}

/// Locks the repository at `root` for writing. Blocks while another process holds the lock, so that
/// two publishes take turns and neither fails.
pub(super) fn exclusive(root: &Path) -> Result<WriteLock, RepoError> {
    let path = root.join(LOCK);
    let lock = || loop {
        let file = create(root, &path)?;
        hold(&file, FlockOperation::LockExclusive)?;
        // The writer before may have removed this file, and the next one may have made another.
        let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        if fs::symlink_metadata(&path)
            .is_ok_and(|found| file.metadata().is_ok_and(|own| id(found) == id(own)))
        {
            return Ok(file);
        }
    };
    let file = lock().map_err(RepoError::io(&path, "lock the repository"))?;
    Ok(WriteLock { path, _file: file })
}

/// Locks the repository at `root` for reading, until the returned file is closed. Blocks while a
/// publish runs. Returns nothing if none does, or if this user may not open the file: reading needs
/// no right to write.
pub(super) fn shared(root: &Path) -> Option<File> {
    let file = options().open(root.join(LOCK)).ok()?;
    hold(&file, FlockOperation::LockShared).ok()?;
    Some(file)
}

/// Options that follow no link and do not block on a FIFO.
fn options() -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    options
}

/// Opens the lock file at `path`, and gives it the owner and the writers of the directory `root`.
fn create(root: &Path, path: &Path) -> io::Result<File> {
    let file = options().write(true).create(true).mode(0o600).open(path)?;
    let (like, own) = (fs::metadata(root)?, file.metadata()?);
    // Owner and mode of another name's file must not change.
    if !own.is_file() || own.nlink() > 1 {
        return Err(io::Error::other("is no regular file of its own, remove it"));
    }
    // These fail if another user owns the file. Then its owner decides.
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        let _ = fchown(&file, Some(like.uid()), Some(like.gid()));
    }
    let group = if like.mode() & 0o020 == 0 { 0 } else { 0o060 };
    if own.mode() & 0o777 != 0o600 | group {
        let _ = fchmod(&file, Mode::from_raw_mode(0o600 | group));
    }
    Ok(file)
}

fn hold(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
