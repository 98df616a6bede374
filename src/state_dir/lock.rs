//! Locks: one manager for a state directory, one tool for what it changes.
//!
//! A lock file holds the state of nothing. The kernel frees a lock with the last process that has its file open, so that
//! none outlives a crash.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use log::warn;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StateDirError;

/// The name of the manager's lock in the state directory.
pub(super) const MANAGER: &str = "lock";

/// How often to try for the lock of a tool that has outlived its manager.
const SURVIVOR_POLL: Duration = Duration::from_millis(100);

/// The manager's lock, until it is dropped.
#[derive(Debug)]
pub(super) struct ManagerLock(File);

impl ManagerLock {
    /// Takes the lock of the state directory at `root` and writes this process's id into it.
    pub(super) fn take(root: &Path) -> Result<Self, StateDirError> {
        let path = root.join(MANAGER);
        let not_writable = |error: io::Error| StateDirError::NotWritable { path: path.clone(), error };
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(not_writable)?;
        if !try_lock(&file).map_err(not_writable)? {
            let mut pid = String::new();
            let holder = match file.read_to_string(&mut pid) {
                Ok(_) if !pid.trim().is_empty() => format!(" (process {})", pid.trim()),
                _ => String::new(),
            };
            return Err(StateDirError::InUse { path: root.to_owned(), holder });
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(not_writable)?;
        Ok(Self(file))
    }
}

impl Drop for ManagerLock {
    /// Removes the process id: a reader of the file must not take a later process for the manager.
    fn drop(&mut self) {
        let _ = self.0.set_len(0);
    }
}

/// Waits for the lock at `path`, which a tool inherits and holds while it changes something that it shares with others.
/// A tool keeps the lock even when its manager is killed, so the next manager waits here until that tool has ended.
/// Gives `None` if `gives_up` says so before.
///
/// # Errors
/// When the lock file cannot be opened or locked.
pub fn wait_for_tool(path: &Path, gives_up: impl Fn() -> bool) -> io::Result<Option<File>> {
    File::options().write(true).create(true).truncate(true).open(path)?;
    // Open it for reading only: the tool gets it as its standard input and must not be able to write to it.
    let file = File::open(path)?;
    let mut told = false;
    while !try_lock(&file)? {
        if gives_up() {
            return Ok(None);
        }
        if !told {
            warn!(lock = path.display().to_string(); "waiting for a tool of an earlier manager to end");
            told = true;
        }
        thread::sleep(SURVIVOR_POLL);
    }
    Ok(Some(file))
}

/// Locks `file`; gives false if somebody else holds it.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
