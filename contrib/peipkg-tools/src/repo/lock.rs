//! One writer at a time: a lock on the repository's directory.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::RepoError;

/// Holds the lock until it is dropped, or until the process ends in any way.
pub(super) struct Lock {
    _directory: File,
}

/// Takes the lock of `root`, waiting for a publish that has it: a second one
/// that came at the same time is a matter of order, not an error.
pub(super) fn take(root: &Path) -> Result<Lock, RepoError> {
    hold(root, FlockOperation::LockExclusive)
}

/// Keeps publishes away from `root` while it is read, beside others who read it.
pub(super) fn share(root: &Path) -> Result<Lock, RepoError> {
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
