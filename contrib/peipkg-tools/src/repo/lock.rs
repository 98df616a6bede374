//! The lock on a repository's directory: one writer, or many readers.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::RepoError;

/// A held lock. Dropping it, or the end of the process, releases it.
pub(super) struct Lock {
    _directory: File,
}

/// Locks `root` for writing. Blocks while another process holds the lock, so that two publishes
/// take turns and neither fails.
pub(super) fn exclusive(root: &Path) -> Result<Lock, RepoError> {
    hold(root, FlockOperation::LockExclusive)
}

/// Locks `root` for reading. Blocks while a publish holds the lock.
pub(super) fn shared(root: &Path) -> Result<Lock, RepoError> {
    hold(root, FlockOperation::LockShared)
}

fn hold(root: &Path, operation: FlockOperation) -> Result<Lock, RepoError> {
    let directory = File::open(root).map_err(RepoError::io(root, "open the directory"))?;
    loop {
        match flock(&directory, operation) {
            Ok(()) => return Ok(Lock { _directory: directory }),
            Err(Errno::INTR) => {}
            Err(error) => return Err(RepoError::io(root, "lock the directory")(error.into())),
        }
    }
}
