//! Reads whole files up to a cap, writes new ones, and syncs them.
//!
//! Every sync of the repository happens here: its promises after a power cut rest on this file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

use super::error::RepoError;

/// How many threads sync at once. A journaling file system commits concurrent syncs together.
const SYNC_THREADS: usize = 8;

/// Returns the path of a URL in the repository at `root`, if the URL is relative and does not lead
/// out of it.
pub(super) fn below(root: &Path, url: &str) -> Option<PathBuf> {
    let relative = !url.contains("://") && !url.split('/').any(|part| part == "..");
    let path = url.trim_start_matches('/');
    (relative && !path.is_empty()).then(|| root.join(path))
}

/// Reads a file of at most `cap` bytes.
pub(super) fn read(path: &Path, cap: u64) -> Result<Vec<u8>, RepoError> {
    let file = File::open(path).map_err(RepoError::io(path, "open the file"))?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(cap)).unwrap_or(0) + 1);
    file.take(cap + 1).read_to_end(&mut bytes).map_err(RepoError::io(path, "read the file"))?;
    if bytes.len() as u64 > cap {
        return Err(RepoError::invalid(path, format!("is longer than {cap} bytes, the most that is read")));
    }
    Ok(bytes)
}

/// Writes a file without syncing it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), RepoError> {
    create(path)?.write_all(bytes).map_err(RepoError::io(path, "write the file"))
}

/// Creates an empty file. Truncates one that an interrupted run left at `path`.
pub(super) fn create(path: &Path) -> Result<File, RepoError> {
    let open = || OpenOptions::new().write(true).create(true).truncate(true).open(path);
    open().map_err(RepoError::io(path, "create the file"))
}

/// Creates a directory, and returns whether it did not exist.
pub(super) fn create_dir(path: &Path) -> Result<bool, RepoError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(RepoError::io(path, "create the directory")(error)),
    }
}

/// Renames a file within a file system, replacing any file at `to`.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), RepoError> {
    fs::rename(from, to).map_err(RepoError::io(to, "rename into place"))
}

/// Removes a file if it exists.
pub(super) fn remove_file(path: &Path) -> Result<(), RepoError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RepoError::io(path, "remove the file")(error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory and everything in it if it exists.
pub(super) fn remove_dir(path: &Path) -> Result<(), RepoError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RepoError::io(path, "remove the directory")(error))
        }
        _ => Ok(()),
    }
}

/// Syncs files and directories.
pub(super) fn sync_all(paths: &[PathBuf]) -> Result<(), RepoError> {
    let sync = |path: &PathBuf| {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(RepoError::io(path, "sync"))
    };
    if paths.len() < 2 {
        return paths.iter().try_for_each(sync);
    }
    let share = paths.len().div_ceil(SYNC_THREADS);
    thread::scope(|scope| {
        let workers: Vec<_> =
            paths.chunks(share).map(|chunk| scope.spawn(move || chunk.iter().try_for_each(sync))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("syncing does not panic"))
    })
}
