//! Locks: one manager for a state directory, one tool for the repository or the remote.
//!
//! The kernel releases a lock with the last process that has its file open, so no lock outlives a
//! crash. The content of a lock file decides nothing.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use log::warn;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How often to try for the lock of a tool that has outlived its manager. Ten tries a second cost
/// nothing, and a start waits little longer than the tool runs.
const SURVIVOR_POLL: Duration = Duration::from_millis(100);

/// The manager's lock, until it is dropped.
#[derive(Debug)]
pub(super) struct ManagerLock(File);

/// Why the manager's lock cannot be taken.
pub(super) enum LockError {
    /// The file cannot be written or locked.
    Unusable(io::Error),
    /// Another manager holds it: the process with this id, according to the file, which may be
    /// empty.
    Held(String),
}

impl ManagerLock {
    /// Takes the lock at `path` and writes this process's id into it.
    pub(super) fn take(path: &Path) -> Result<Self, LockError> {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(LockError::Unusable)?;
        if !try_lock(&file).map_err(LockError::Unusable)? {
            let mut pid = String::new();
            let read = file.read_to_string(&mut pid);
            return Err(LockError::Held(read.map(|_| pid.trim().to_owned()).unwrap_or_default()));
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(LockError::Unusable)?;
        Ok(Self(file))
    }
}

impl Drop for ManagerLock {
    /// Removes the process id: the kernel may give it to another process, which a reader of the
    /// file would take for the manager.
    fn drop(&mut self) {
        let _ = self.0.set_len(0);
    }
}

/// Waits for the lock at `path` and returns it, for a tool to inherit. A tool holds the lock while
/// it changes the repository or the remote, even if its manager is killed: the next manager waits
/// here until that tool has ended. Returns `None` as soon as `gives_up` returns true.
///
/// # Errors
/// When the lock file cannot be opened or locked.
pub(crate) fn wait_for_tool(path: &Path, gives_up: impl Fn() -> bool) -> io::Result<Option<File>> {
    File::options().write(true).create(true).truncate(true).open(path)?;
    // Open it for reading only: the tool gets it as its standard input and must not be able to
    // write to it.
    let file = File::open(path)?;
    let mut has_warned = false;
    while !try_lock(&file)? {
        if gives_up() {
            return Ok(None);
        }
        if !has_warned {
            warn!(lock = path.display().to_string(); "waiting for a tool of an earlier manager to end");
            has_warned = true;
        }
        thread::sleep(SURVIVOR_POLL);
    }
    Ok(Some(file))
}

/// Locks `file`; returns false if another process holds the lock.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
