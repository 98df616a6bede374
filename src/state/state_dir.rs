//! The state directory: names its files, opens and locks it, and removes leftovers at the start.
//!
//! ```text
//! lock          held by the running manager; contains its process id
//! tool-lock     held by the peipkg-repo that is changing repo/
//! upload-lock   held by the rclone that is changing the remote
//! sources/      fetched sources, one directory a build
//! stage/        packages being built, one directory a build
//! publish/      pending packages, one directory a build
//! publish-set-aside/  packages that another manager left in publish/ and that cannot be published
//! repo/         the signed repository
//! logs/         build logs, one directory a recipe
//! journal       exists until a publish is settled; can undo it, with journal.archive.json and the like
//! http.sock     exists briefly during the start: the gate connects to the HTTP server
//! upload-begun  exists from the begin of an upload until one has succeeded
//! not-commits.json  the tags that only a fetch shows to be no release: of a tree or a blob, or not signed
//! upload-owed   exists while the remote lacks a published version and no upload of it has begun
//! pause         an operator's: nothing is built while it is there
//! ```

mod probe;
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

use self::probe::{probe_directory, probe_existing};
use crate::config::STATE_SUBDIRS;
use crate::state::durable::{self, FileError, at};
use crate::state::lock::{self, LockError, ManagerLock};
use crate::state::volumes::{LOST_AND_FOUND, mount_of};

/// The lock file of the manager.
const LOCK: &str = "lock";

/// The directory of the build logs.
const LOGS: &str = "logs";

/// The directory of the signed repository.
const REPO: &str = "repo";

/// The directory of packages that another manager left and that cannot be published.
const SET_ASIDE: &str = "publish-set-aside";

/// A state directory, open and locked, unless it was made by [`StateDir::unlocked`].
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    /// Released when this is dropped; none if this only names the files.
    _lock: Option<ManagerLock>,
    /// Distinguishes the file names of this process from the names of earlier ones.
    token: u128,
    counter: AtomicU64,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateDirError {
    /// The directory, or a file in it, cannot be created or written to.
    #[error("state_dir {path}: {error}; the manager must be able to write there")]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// Another manager holds the lock.
    #[error("state_dir {path}: in use by another peipkg-manager{holder}; each needs a state_dir of its own")]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// ` (process <id>)`, or empty if the id is unknown.
        holder: String,
    },
}

impl StateDir {
    /// Locks the state directory at `root`, and creates the directories that are missing.
    ///
    /// # Errors
    /// When it cannot be written to, or another manager holds its lock.
    pub(crate) fn open(root: &Path) -> Result<Self, StateDirError> {
        let not_writable = |path: &Path| {
            let path = path.to_owned();
            move |error| StateDirError::NotWritable { path, error }
        };
        let in_use = |holder| StateDirError::InUse { path: root.to_owned(), holder };
        fs::create_dir_all(root).map_err(not_writable(root))?;
        close_to_writers(root);
        let lock_path = root.join(LOCK);
        let lock = ManagerLock::take(&lock_path).map_err(|error| match error {
            LockError::Unusable(error) => not_writable(&lock_path)(error),
            LockError::Held(pid) if pid.is_empty() => in_use(String::new()),
            LockError::Held(pid) => in_use(format!(" (process {pid})")),
        })?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let token = since_epoch.unwrap_or_default().as_millis();
        let state = Self { root: root.to_owned(), _lock: Some(lock), token, counter: AtomicU64::new(0) };
        for directory in [state.sources(), state.stage(), state.publish()] {
            make_private(&directory).map_err(not_writable(&directory))?;
        }
        // Close it to the group too: it has the sources of private upstreams, and nobody needs to look
        // at them. The change fails only if another user owns the directory; then its owner decides.
        let _ = fs::set_permissions(state.sources(), Permissions::from_mode(0o700));
        // Ignore an error: a farm works without logs, and each attempt warns if it cannot write
        // one.
        let _ = make_private(&state.logs());
        close_tree_to_writers(&state.repo());
        Ok(state)
    }

    /// Names the files of the state directory at `root`, for a reader: locks and creates nothing.
    pub(crate) fn unlocked(root: &Path) -> Self {
        Self { root: root.to_owned(), _lock: None, token: 0, counter: AtomicU64::new(0) }
    }

    /// Whether a manager holds the lock.
    ///
    /// # Errors
    /// When the lock file is there and cannot be opened.
    pub(crate) fn is_locked(&self) -> Result<bool, FileError> {
        let path = self.root.join(LOCK);
        lock::is_held(&path).map_err(at(&path))
    }

    /// Finds problems that would keep a manager from opening the state directory at `root`. Creates
    /// nothing and takes no lock: another manager may be running in it.
    pub(crate) fn probe(root: &Path) -> Vec<Problem> {
        if let Err(problem) = probe_directory(root) {
            return vec![problem];
        }
        let lock = root.join(LOCK);
        let unwritable =
            |error| Problem::of_file(&lock, format!("cannot write to the state_dir's lock: {error}"));
        let lock_error = match access(&lock, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) | Err(Errno::NOENT) => lock::probe(&lock).err(),
            Err(errno) => Some(io::Error::from(errno)),
        };
        let needed = STATE_SUBDIRS.iter().filter(|name| ![LOGS, SET_ASIDE].contains(name));
        // Only the repository may be a link to a directory that is not there yet.
        let place = |name: &str| match root.join(name) {
            repo if name == REPO && !repo.exists() => durable::link_target(&repo),
            path => path,
        };
        let subdirs = needed.filter_map(|name| probe_directory(&place(name)).err());
        lock_error.map(unwritable).into_iter().chain(subdirs).collect()
    }

    /// Finds a problem that would keep a manager from writing build logs below the state directory
    /// at `root`. The manager would run without them. Creates nothing.
    pub(crate) fn probe_logs(root: &Path) -> Option<Problem> {
        let logs = root.join(LOGS);
        // If `logs/` is missing, `probe` reports whether the manager can create it.
        fs::symlink_metadata(&logs).ok()?;
        let error = probe_existing(&logs).err()?;
        Some(Problem::of_file(logs, format!("cannot write build logs: {error}")))
    }

    /// Says which directories of the state directory at `root` are on other file systems, and
    /// whether one of these forgets what it should keep.
    pub(crate) fn volumes(root: &Path) -> (Vec<Problem>, Vec<Problem>) {
        let (mut notes, mut warnings) = (Vec::new(), Vec::new());
        let Some(own) = mount_of(root) else { return Default::default() };
        for name in STATE_SUBDIRS {
            let path = root.join(name);
            let Some(mount) = mount_of(&path).filter(|mount| mount.id != own.id) else { continue };
            let message =
                format!("on another file system than the state_dir: {} on {}", mount.kind, mount.source);
            if mount.is_volatile() && ["publish", "repo"].contains(&name) {
                let message = format!("{message}; a power cut loses the packages there");
                warnings.push(Problem::of_file(path, message));
            } else {
                notes.push(Problem::of_file(path, message));
            }
        }
        (notes, warnings)
    }

    /// The path of the state directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of fetched sources.
    pub(crate) fn sources(&self) -> PathBuf {
        self.root.join("sources")
    }

    /// The directory of packages being built.
    pub(crate) fn stage(&self) -> PathBuf {
        self.root.join("stage")
    }

    /// The directory of pending packages.
    pub(crate) fn publish(&self) -> PathBuf {
        self.root.join("publish")
    }

    /// The directory of build logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join(LOGS)
    }

    /// The directory of the signed repository.
    pub(crate) fn repo(&self) -> PathBuf {
        self.root.join(REPO)
    }

    /// The repository's archive index (PSD-009 §6.3).
    pub(crate) fn archive_index(&self) -> PathBuf {
        self.repo().join(ARCHIVE_INDEX)
    }

    /// Where packages go that another manager left in `publish/` and that cannot be published.
    pub(crate) fn set_aside(&self) -> PathBuf {
        self.root.join(SET_ASIDE)
    }

    /// The journal of a publish that is not settled.
    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The marker of an upload that is owed and has not begun.
    pub(crate) fn upload_owed(&self) -> PathBuf {
        self.root.join("upload-owed")
    }

    /// The marker of an upload that has begun and has not succeeded yet.
    pub(crate) fn upload_begun(&self) -> PathBuf {
        self.root.join("upload-begun")
    }

    /// The tags that name no commit, so that no later run fetches them.
    pub(crate) fn not_commits(&self) -> PathBuf {
        self.root.join("not-commits.json")
    }

    /// The commits from which the published versions were built.
    pub(crate) fn published_commits(&self) -> PathBuf {
        self.root.join("published-commits")
    }

    /// The file with which an operator holds all builds.
    pub(crate) fn pause(&self) -> PathBuf {
        self.root.join("pause")
    }

    /// The file whose lock rclone holds while it changes the remote.
    pub(crate) fn upload_lock(&self) -> PathBuf {
        self.root.join("upload-lock")
    }

    /// The file whose lock a tool holds while it changes `repo/`.
    pub(crate) fn tool_lock(&self) -> PathBuf {
        self.root.join("tool-lock")
    }

    /// Returns the name of a build's directories in `sources/` and `stage/`, where nothing is left:
    /// `subject`, so that the same version always has the same paths, which a build may record.
    /// With a number, if what an earlier attempt left cannot be removed, or if `are_in_use` says of
    /// the directories that a process of it lives on.
    pub(crate) fn work_name(&self, subject: &str, are_in_use: impl Fn(&[&Path]) -> bool) -> String {
        /// More names than processes can hold. After these, a name that nothing holds.
        const MOST: usize = 1000;
        let is_free = |name: &String| {
            let directories = [self.sources().join(name), self.stage().join(name)];
            // A tool may have resolved the links in a path.
            let resolved = directories.each_ref().map(|path| resolved(path));
            let all: Vec<&Path> = directories.iter().chain(&resolved).map(PathBuf::as_path).collect();
            !are_in_use(&all) && directories.iter().all(|directory| durable::remove(directory).is_ok())
        };
        let names = (1..MOST).map(|n| if n == 1 { subject.to_owned() } else { format!("{subject}.{n}") });
        names.into_iter().find(is_free).unwrap_or_else(|| self.unique_name(subject))
    }

    /// Returns a file name for `subject` that no other attempt uses: the children of an earlier
    /// process may still write to theirs.
    pub(crate) fn unique_name(&self, subject: &str) -> String {
        format!("{subject}.{:x}-{}", self.token, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Empties `sources/` and `stage/`, where an earlier manager may have left files, and removes
    /// what is half moved from `publish/`. Returns the paths that could not be removed, with their
    /// errors.
    pub(crate) fn clear_leftovers(&self) -> Vec<(PathBuf, io::Error)> {
        let mut failed = Vec::new();
        for directory in [self.sources(), self.stage(), self.publish()] {
            let is_leftover = |entry: &fs::DirEntry| {
                let name = entry.file_name();
                let is_half_moved = name.as_encoded_bytes().starts_with(b".");
                name != LOST_AND_FOUND && (directory != self.publish() || is_half_moved)
            };
            match fs::read_dir(&directory) {
                Ok(entries) => {
                    // List all entries first: an entry that cannot be removed would be listed again
                    // under its new name.
                    let entries: Vec<_> = entries.flatten().filter(is_leftover).collect();
                    for entry in entries {
                        // Rename the entry first, so that it goes in one step. A surviving rclone
                        // would sync a half-removed snapshot, and remove the rest from the remote.
                        if let Err(error) = self.remove_in_one_step(&entry.path()) {
                            failed.push((entry.path(), error));
                        }
                    }
                }
                Err(error) => failed.push((directory, error)),
            }
        }
        failed
    }

    /// Removes what an attempt has left at `path`, and warns if that fails: leftovers only cost
    /// space. The next start tries again.
    pub(crate) fn discard(&self, path: &Path) {
        if let Err(error) = self.remove_in_one_step(path) {
            durable::not_cleared(path, &error);
        }
    }

    /// Renames a file or directory before it removes it. A process that still works in it does not
    /// find it again, and `path` is free even if a part cannot be removed.
    fn remove_in_one_step(&self, path: &Path) -> io::Result<()> {
        let doomed = path.with_file_name(self.unique_name(".doomed"));
        match fs::rename(path, &doomed) {
            Ok(()) => durable::remove(&doomed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Such as a mount point.
            Err(_) => durable::remove(path),
        }
    }
}

/// Sets the umask of this process and its tools to 022, whatever the operator's is. A web server
/// reads `repo/`, and the operator's umask may be for private files; private files are in
/// directories that are closed to others. Also, a build records the modes of its files, and the same
/// tag must give the same bytes.
pub(crate) fn open_umask() {
    umask(Mode::WGRP | Mode::WOTH);
}

/// Takes from other users the right to write to a directory that a manager under umask 000 has
/// created. Ignores errors: there may be no such directory, or its owner is another user and decides.
/// Leaves a directory with the sticky bit alone: such as `/tmp`, it is meant for all.
fn close_to_writers(path: &Path) {
    let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o1002 == 0o002 {
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o7775));
    }
}

/// Does the same for everything below `path` if others may write to `path` itself: a repository that
/// umask 000 has not touched costs nothing. Follows no link below `path`.
fn close_tree_to_writers(path: &Path) {
    let mut paths = vec![path.to_owned()];
    let mut done = 0;
    while let Some(directory) = paths.get(done) {
        let is_open =
            fs::metadata(directory).is_ok_and(|metadata| metadata.permissions().mode() & 0o002 != 0);
        let entries = is_open.then(|| fs::read_dir(directory).ok()).flatten().into_iter().flatten().flatten();
        let found = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
        let found: Vec<_> = found.map(|entry| entry.path()).collect();
        paths.extend(found);
        done += 1;
    }
    // `path` itself comes last: a start that is killed before leaves the rest for the next one.
    for path in paths.iter().rev() {
        close_to_writers(path);
    }
}

/// Resolves the links in the directory of `path`, which may be missing itself.
fn resolved(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    parent.zip(path.file_name()).map_or_else(|| path.to_owned(), |(parent, name)| parent.join(name))
}

/// Creates the directory at `path` for its owner alone. If it exists, closes it to others but not
/// to its group, which the operator may have let in. Builds and logs reveal private sources.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o007 != 0 {
        // The change fails only if another user owns the directory; then its owner decides.
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o7770));
    }
    Ok(())
}
