//! Locks: one manager for a state directory, one tool for the repository or the remote.
//!
//! The kernel releases a lock with the last process that has its file open, so no lock outlives a
//! crash. The content of a lock file decides nothing.
//!
//! Whoever can open a lock file can hold its lock, so only the manager's user can: see [`open`].

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use log::warn;
use peipkg_format::{duration, regular_file};
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::state::troubles;

/// How long a start tries for the manager's lock. A manager that was just killed holds it until its
/// last thread has ended, and a child that it was starting until that child runs its own program.
/// `START_SECONDS` of `contrib/sysvinit/peipkg-manager` must be longer.
const RELEASE: Duration = Duration::from_secs(1);

/// How often to try for the manager's lock.
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// How often to try for the lock of a tool that has outlived its manager. Ten tries a second cost
/// nothing, and a start waits little longer than the tool runs.
const SURVIVOR_POLL: Duration = Duration::from_millis(100);

/// The longest process id with its line feed, in bytes.
const MAX_PID: u64 = 32;

/// The manager's lock, until it is dropped.
#[derive(Debug)]
pub(super) struct ManagerLock(File);

/// Why the manager's lock cannot be taken.
pub(super) enum LockError {
    /// The file cannot be written or locked.
    Unusable(io::Error),
    /// Another manager keeps it: the process with this id, according to the file, which may be
    /// empty.
    Held(String),
}

impl ManagerLock {
    /// Takes the lock at `path` and writes this process's id into it. Waits a moment for one that is
    /// held: a start right after a `kill -9` must not fail.
    pub(super) fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = open(path).map_err(LockError::Unusable)?;
        let begun = Instant::now();
        while !try_lock(&file).map_err(LockError::Unusable)? {
            if begun.elapsed() < RELEASE {
                thread::sleep(RELEASE_POLL);
                continue;
            }
            let mut pid = String::new();
            let read = (&mut file).take(MAX_PID).read_to_string(&mut pid);
            let is_id = |pid: &str| pid.bytes().all(|byte| byte.is_ascii_digit());
            let pid = read.ok().map(|_| pid.trim()).filter(|pid| is_id(pid)).unwrap_or_default();
            return Err(LockError::Held(pid.to_owned()));
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
/// When the lock file cannot be opened or locked, or a tool has held it for `limit`: it hangs, and
/// its manager, which would have ended it, is gone.
pub(crate) fn wait_for_tool(
    path: &Path,
    limit: Duration,
    gives_up: impl Fn() -> bool,
) -> io::Result<Option<File>> {
    let created = open(path)?.metadata()?;
    // Open it for reading only: the tool gets it as its standard input and must not be able to
    // write to it.
    let file = regular_file::open(path)?;
    let opened = file.metadata()?;
    if (created.dev(), created.ino()) != (opened.dev(), opened.ino()) {
        return Err(io::Error::other("was exchanged while it was opened"));
    }
    let is_locked = wait(&file, path, limit, gives_up);
    troubles::end_one("waiting for a tool of an earlier manager to end", &path.display().to_string());
    Ok(is_locked?.then_some(file))
}

/// Waits for the lock of `file`, which is at `path`. Returns whether it has it.
fn wait(file: &File, path: &Path, limit: Duration, gives_up: impl Fn() -> bool) -> io::Result<bool> {
    let begun = Instant::now();
    let mut has_warned = false;
    while !try_lock(file)? {
        if gives_up() {
            return Ok(false);
        }
        if begun.elapsed() >= limit {
            let (holder, limit) = (holders(file), duration::format(limit));
            let error = format!("{holder} has held this lock for {limit}; if it hangs, end it");
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        if !has_warned {
            let (lock, holder) = (path.display().to_string(), holders(file));
            warn!(lock, holder; "waiting for a tool of an earlier manager to end");
            troubles::begin("waiting for a tool of an earlier manager to end", &lock, &holder);
            has_warned = true;
        }
        thread::sleep(SURVIVOR_POLL);
    }
    Ok(true)
}

/// Opens the lock file at `path`, and creates it if it is missing. Closes it to all other users: one
/// who could open it could hold its lock for ever. Follows no link, truncates nothing and does not
/// block on a FIFO: in a directory that others may write to, they may have made the file.
///
/// # Errors
/// When the file system refuses, the file is no regular file, or a stranger owns it.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    probe(path)?;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    check(path, &metadata)?;
    if metadata.mode() & 0o777 != 0o600 {
        fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    }
    Ok(file)
}

/// Whether a process holds the lock at `path`. Looks by taking it for a moment, shared, so that two who
/// look do not see each other; a start tries longer than that.
///
/// # Errors
/// When the lock file is there and cannot be opened.
pub(super) fn is_held(path: &Path) -> io::Result<bool> {
    match regular_file::open(path) {
        Ok(file) => Ok(flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Checks what is at the path of a lock file, if anything is. Changes nothing.
///
/// # Errors
/// When it is no regular file, or a stranger owns it.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        metadata => check(path, &metadata?),
    }
}

fn check(path: &Path, metadata: &Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::other("is not a regular file, remove it"));
    }
    if metadata.nlink() > 1 {
        // The process id would overwrite the other one, perhaps a key.
        return Err(io::Error::other("is another file's hard link, remove it"));
    }
    let (owner, own) = (metadata.uid(), geteuid().as_raw());
    // The directory's owner can replace the file anyway. Root may work in a user's directory.
    let is_of_directory = || path.parent().is_some_and(|it| it.metadata().is_ok_and(|it| it.uid() == owner));
    if owner != own && !is_of_directory() {
        let message = format!("belongs to user {owner}, who could hold the lock; remove it");
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// Names the other processes that have `file` open, as far as this user may see them. The kernel
/// itself only remembers who took the lock, the manager that is gone.
fn holders(file: &File) -> String {
    let Ok(wanted) = file.metadata() else { return "a process".to_owned() };
    let has_it = |process: &Path| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut files = files.filter_map(|file| fs::metadata(file.path()).ok());
        files.any(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
    };
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let (path, name) = (process.path(), process.file_name());
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid != std::process::id() && has_it(&path) {
            let program = regular_file::read_text(&path.join("comm")).unwrap_or_default();
            found.push(format!("process {pid} ({})", program.trim_end()));
        }
    }
    if found.is_empty() {
        "a process that has ended, or of another user".to_owned()
    } else {
        found.join(", ")
    }
}

/// Locks `file`; returns false if another process holds the lock.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn lock_of_a_manager_that_was_just_killed_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        // Try three times: on a busy machine, the child can have the file for longer than `RELEASE`.
        let is_taken = (0..3).any(|_| {
            let lock = open(&path).unwrap();
            assert!(try_lock(&lock).unwrap());
            // A child that the killed manager was starting still has the file.
            let mut child = Command::new("sleep").arg("0.2").stdin(Stdio::from(lock)).spawn().unwrap();
            let taken = ManagerLock::take(&path);
            child.wait().unwrap();
            taken.is_ok()
        });
        assert!(is_taken);
    }

    #[test]
    fn lock_of_a_tool_that_hangs_is_waited_for_until_the_limit() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tool-lock");
        let lock = wait_for_tool(&path, Duration::ZERO, || false).unwrap().unwrap();
        // The child inherits the lock, as a tool does, and outlives this holder.
        let mut child = Command::new("sleep").arg("20").stdin(Stdio::from(lock)).spawn().unwrap();
        let begun = Instant::now();
        let error = wait_for_tool(&path, Duration::from_millis(300), || false).unwrap_err();
        let is_interrupted = wait_for_tool(&path, Duration::MAX, || true).unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // A process that another test starts has the file too for a moment.
        let (holder, error) = (format!("process {} (sleep)", child.id()), error.to_string());
        assert!(error.contains(&holder) && error.contains(" has held this lock for "), "{error}");
        assert!(is_interrupted);
        assert!(wait_for_tool(&path, Duration::ZERO, || false).unwrap().is_some());
    }
}
