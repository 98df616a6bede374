//! Reads whole files up to a cap, writes new ones, and syncs them.
//!
//! Every sync of the repository happens here: its promises after a power cut rest on this file.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

use peipkg_format::regular_file;

use super::error::RepoError;

/// How many threads sync at once. A journaling file system commits concurrent syncs together.
const SYNC_THREADS: usize = 8;

/// Reads a file of at most `cap` bytes.
pub(super) fn read(path: &Path, cap: u64) -> Result<Vec<u8>, RepoError> {
    regular_file::read(path, cap).map_err(RepoError::io(path, "read the file"))
}

/// Opens a file of any length, such as a package.
pub(super) fn open(path: &Path) -> Result<File, RepoError> {
    regular_file::open(path).map_err(RepoError::io(path, "open the file"))
}

/// Writes a file without syncing it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), RepoError> {
    create(path)?.write_all(bytes).map_err(RepoError::io(path, "write the file"))
}

/// Creates an empty file. Replaces one that an interrupted run left at `path`: opening it would write
/// to the target of a link, and block on a FIFO.
pub(super) fn create(path: &Path) -> Result<File, RepoError> {
    remove_file(path)?;
    File::create_new(path).map_err(RepoError::io(path, "create the file"))
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

/// Replaces the file at `path` in one step, by way of a `temporary` one. Syncs the bytes first: a power
/// cut must not leave an empty file.
pub(super) fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), RepoError> {
    write(temporary, bytes)
        .and_then(|()| sync_all(&[temporary.to_owned()]))
        .and_then(|()| rename(temporary, path))
        .inspect_err(|_| drop(remove_file(temporary)))
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
        let synced = regular_file::open_to_sync(path).and_then(|file| file.sync_all());
        synced.map_err(RepoError::io(path, "sync"))
    };
    if paths.len() < 2 {
        return paths.iter().try_for_each(sync);
    }
    let share = paths.len().div_ceil(SYNC_THREADS);
    let sync_share = |share: &[PathBuf]| share.iter().try_for_each(sync);
    let (own, others) = paths.split_at(share);
    thread::scope(|scope| {
        let start = |share| {
            let worker = thread::Builder::new().spawn_scoped(scope, move || sync_share(share));
            // If the system refuses a thread, sync its share here.
            worker.map_err(|_| sync_share(share))
        };
        let others: Vec<_> = others.chunks(share).map(start).collect();
        others.into_iter().fold(sync_share(own), |synced, share| {
            synced.and(match share {
                Ok(worker) => worker.join().expect("syncing does not panic"),
                Err(synced) => synced,
            })
        })
    })
}
