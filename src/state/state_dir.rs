//! The state directory: its layout, its lock, and tidying up at the start.
//!
//! ```text
//! lock       held by the running manager; holds its process id
//! tool-lock  held by the tool that is changing repo/
//! upload-lock  held by the rclone that is changing the remote
//! sources/   fetched sources, one directory a build
//! stage/     outputs being built, one directory a build
//! publish/   outputs waiting to be published, one directory a build
//! repo/      the signed repository
//! logs/      build logs, one directory a recipe
//! journal    exists while a publish is under way; undoes it
//! http.sock  exists for a moment of the start: the gate connects to the HTTP server
//! upload-begun  exists while an upload of what was owed has not succeeded
//! upload-owed  exists while the remote lacks something of repo/
//! ```

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use peipkg_format::problem::Problem;
use peipkg_format::repository_layout::ARCHIVE_INDEX;
use rustix::fs::{Access, Mode, access};
use rustix::io::Errno;
use rustix::process::umask;

use crate::config::STATE_SUBDIRS;
use crate::state::durable;
use crate::state::lock::{LockError, ManagerLock};

/// The lock of the manager.
const LOCK: &str = "lock";

/// The directory of the build logs.
const LOGS: &str = "logs";

/// An open, locked state directory. The lock is released when it is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    _lock: ManagerLock,
    /// What tells the names of this process from those of any earlier one.
    token: u128,
    counter: AtomicU64,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateDirError {
    /// It cannot be created or written to.
    #[error("state_dir {path}: {error}; the manager must be able to write there")]
    NotWritable {
        /// The file or directory in question.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another manager has it.
    #[error("state_dir {path}: in use by another peipkg-manager{holder}; each needs a state_dir of its own")]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// ` (process <id>)`, if that is known.
        holder: String,
    },
}

impl StateDir {
    /// Creates what is missing of the state directory at `root` and locks it.
    ///
    /// # Errors
    /// When it cannot be written to or another manager holds its lock.
    pub(crate) fn open(root: &Path) -> Result<Self, StateDirError> {
        let not_writable = |path: &Path| {
            let path = path.to_owned();
            move |error| StateDirError::NotWritable { path, error }
        };
        let in_use = |holder| StateDirError::InUse { path: root.to_owned(), holder };
        fs::create_dir_all(root).map_err(not_writable(root))?;
        let lock_path = root.join(LOCK);
        let lock = ManagerLock::take(&lock_path).map_err(|error| match error {
            LockError::Unusable(error) => not_writable(&lock_path)(error),
            LockError::Held(pid) if pid.is_empty() => in_use(String::new()),
            LockError::Held(pid) => in_use(format!(" (process {pid})")),
        })?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let token = since_epoch.unwrap_or_default().as_millis();
        let state = Self { root: root.to_owned(), _lock: lock, token, counter: AtomicU64::new(0) };
        for directory in [state.sources(), state.stage(), state.publish()] {
            make_private(&directory).map_err(not_writable(&directory))?;
        }
        // While a source is fetched, its repository may hold the password of its URL. Where this cannot be done,
        // somebody else has made the directory and decided who may look.
        let _ = fs::set_permissions(state.sources(), Permissions::from_mode(0o700));
        // A farm works without logs as well: each attempt says so if it cannot write its own.
        let _ = make_private(&state.logs());
        Ok(state)
    }

    /// What would keep a manager from opening the state directory at `root`, as
    /// far as that can be told without leaving a trace: nothing is created, no
    /// lock is taken, and another manager may be at work in it.
    pub(crate) fn probe(root: &Path) -> Vec<Problem> {
        if let Err(problem) = probe_directory(root) {
            return vec![problem];
        }
        let lock = root.join(LOCK);
        let unwritable =
            |error| Problem::of_file(&lock, format!("cannot write to the state_dir's lock: {error}"));
        let lock_error = match access(&lock, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) | Err(Errno::NOENT) => None,
            Err(errno) => Some(unwritable(io::Error::from(errno))),
        };
        let needed = STATE_SUBDIRS.iter().filter(|name| **name != LOGS);
        let subdirs = needed.filter_map(|name| probe_directory(&root.join(name)).err());
        lock_error.into_iter().chain(subdirs).collect()
    }

    /// What would keep a manager, which works without them all the same, from writing its build logs below the state
    /// directory at `root`. Leaves no trace either.
    pub(crate) fn probe_logs(root: &Path) -> Option<Problem> {
        let logs = root.join(LOGS);
        // Whether it can be made is for the other probe to say.
        fs::symlink_metadata(&logs).ok()?;
        let error = probe_existing(&logs).err()?;
        Some(Problem::of_file(logs, format!("cannot write build logs: {error}")))
    }

    /// The state directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where sources are fetched to.
    pub(crate) fn sources(&self) -> PathBuf {
        self.root.join("sources")
    }

    /// Where outputs are built.
    pub(crate) fn stage(&self) -> PathBuf {
        self.root.join("stage")
    }

    /// Where outputs wait to be published.
    pub(crate) fn publish(&self) -> PathBuf {
        self.root.join("publish")
    }

    /// Where build logs are.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join(LOGS)
    }

    /// The signed repository.
    pub(crate) fn repo(&self) -> PathBuf {
        self.root.join("repo")
    }

    /// The repository's archive index (PSD-009 §6.3).
    pub(crate) fn archive_index(&self) -> PathBuf {
        self.repo().join(ARCHIVE_INDEX)
    }

    /// Where the journal of a publish is.
    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The marker of an upload that is still owed.
    pub(crate) fn upload_owed(&self) -> PathBuf {
        self.root.join("upload-owed")
    }

    /// The marker of an upload that has begun and has not succeeded yet.
    pub(crate) fn upload_begun(&self) -> PathBuf {
        self.root.join("upload-begun")
    }

    /// The file whose lock rclone holds while it changes the remote.
    pub(crate) fn upload_lock(&self) -> PathBuf {
        self.root.join("upload-lock")
    }

    /// The file whose lock a tool holds while it changes `repo/`.
    pub(crate) fn tool_lock(&self) -> PathBuf {
        self.root.join("tool-lock")
    }

    /// A file name for an attempt at `subject` that no other attempt has, of this
    /// process or of an earlier one whose children may still be at work.
    pub(crate) fn unique_name(&self, subject: &str) -> String {
        format!("{subject}.{:x}-{}", self.token, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes what an earlier manager has left in `sources/` and `stage/`. Returns what could not be removed, and why.
    pub(crate) fn clear_leftovers(&self) -> Vec<(PathBuf, io::Error)> {
        let mut failed = Vec::new();
        for directory in [self.sources(), self.stage()] {
            match fs::read_dir(&directory) {
                Ok(entries) => {
                    // All of them first: what cannot be removed would be found again under its new name.
                    let entries: Vec<_> = entries.flatten().collect();
                    for entry in entries {
                        // Out of sight at once: a tool that has outlived its manager must find all of it or nothing, and
                        // rclone would take what is gone already for what the remote must not have.
                        let doomed = directory.join(self.unique_name("doomed"));
                        match fs::rename(entry.path(), &doomed).and_then(|()| durable::remove(&doomed)) {
                            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                                failed.push((entry.path(), error));
                            }
                            _ => {}
                        }
                    }
                }
                Err(error) => failed.push((directory, error)),
            }
        }
        failed
    }
}

/// Lets everybody read what this process and its tools make from now on, as far as they do not forbid it: `repo/` is for
/// web servers, and whoever starts the manager may have an umask for private files. What is private lies in directories
/// that are closed.
pub(crate) fn open_umask() {
    let before = umask(Mode::RWXU | Mode::RWXG | Mode::RWXO);
    // Whether a group may write is for whoever has set it.
    umask(before & (Mode::WGRP | Mode::WOTH));
}

/// Creates the directory at `path` for its owner alone, or closes it to others if it is there: what private sources are,
/// their builds tell. A group that was let in stays in.
fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o007 != 0 {
        // Where this cannot be done, somebody else has made the directory and decided who may look.
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o7770));
    }
    Ok(())
}

/// Whether files can be made in the directory at `path`, or, if it does not
/// exist, whether it can be made itself.
fn probe_directory(path: &Path) -> Result<(), Problem> {
    let problem = |place: &Path, error: io::Error| {
        let message = if place == path {
            format!("cannot write to the state_dir: {error}")
        } else {
            format!("cannot create the state_dir in {}: {error}", place.display())
        };
        Problem::of_file(path, format!("{message}; the manager must be able to write there"))
    };
    for place in path.ancestors() {
        match fs::symlink_metadata(place) {
            Ok(_) => return probe_existing(place).map_err(|error| problem(place, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(problem(path, error)),
        }
    }
    Ok(())
}

fn probe_existing(place: &Path) -> io::Result<()> {
    if !fs::metadata(place)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(place, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}
