//! Writes files that survive a power cut, and removes files. Must not know any particular file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use log::warn;
use peipkg_format::regular_file::open_to_sync;
use peipkg_format::remove_tree::remove_directory;
use rustix::fs::syncfs;

use crate::state::troubles;

/// A file or directory that could not be read, written, moved or removed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub(crate) struct FileError {
    /// The file or directory.
    pub path: PathBuf,
    /// The error of the system.
    pub error: io::Error,
}

/// Adds the path to an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |error| FileError { path, error }
}

/// Syncs the content of a file, or the names in a directory.
///
/// # Errors
/// When `path` does not exist, or the file system refuses.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    open_to_sync(path)?.sync_all()
}

/// Syncs the directory of `path`: a power cut could otherwise undo the rename or removal of a file.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}

/// Syncs the whole file system that holds the directory at `path`.
///
/// # Errors
/// When `path` does not exist, or the file system refuses.
pub(crate) fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(syncfs(open_to_sync(path)?)?)
}

/// Creates a file that others may read, less the umask. Replaces what is at `path`: writing through a
/// link would change its target, and opening a FIFO would block. A directory stays and is an error.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    create_with(path, 0o666)
}

fn create_with(path: &Path, mode: u32) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(mode).open(path)
}

/// Creates an empty file that survives a power cut, unless it exists.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn create_marker(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    create_with(path, 0o600)?.sync_all()?;
    sync_parent(path)
}

/// Replaces the file at `path` in one step by a synced file that `write` fills: a reader, or a
/// start after a crash, finds the old bytes or the new ones.
///
/// # Errors
/// When `write` fails or the file system refuses; the old file is then unchanged, unless only the sync of
/// its directory failed.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    replace_through(path, &unfinished(path), |file| write(file).and_then(|()| file.sync_all()))?;
    sync_parent(path)
}

/// Replaces the file at `path` in one step by one that `write` fills at `temporary`. Syncs nothing.
///
/// # Errors
/// When `write` fails or the file system refuses; the old file is then unchanged.
pub(crate) fn replace_through(
    path: &Path,
    temporary: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = create(temporary)?;
    let written = write(&mut file).and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        // The disk may be full: free the blocks of the half-written file.
        let _ = fs::remove_file(temporary);
    }
    written
}

/// Copies the rest of `from` to a synced file at `path`, and returns its length. The kernel copies: where
/// the file system can share blocks between files, it writes none.
///
/// # Errors
/// When the file system refuses; a part of the copy may be left.
pub(crate) fn copy(mut from: &File, path: &Path) -> io::Result<u64> {
    let mut file = create(path)?;
    let length = io::copy(&mut from, &mut file)?;
    file.sync_all()?;
    Ok(length)
}

/// The file that [`replace`] writes and renames to `path`. A crash leaves it behind.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Returns where the links at `path` lead, even if nothing is there. Gives up a circle of links.
pub(crate) fn link_target(path: &Path) -> PathBuf {
    // As many as the kernel follows.
    const MAX_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    path
}

/// Removes a file or a directory tree without following links. A missing `path` is no error.
///
/// # Errors
/// When a part of the tree cannot be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => remove_directory(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes work files, and warns if that fails: leftovers only cost space.
pub(crate) fn clear(path: &Path) {
    if let Err(error) = remove(path) {
        not_cleared(path, &error);
    }
}

/// Warns that work files could not be removed. The next start tries again.
pub(crate) fn not_cleared(path: &Path, error: &io::Error) {
    warn!(path:% = path.display(), error:%; "clear staging dir failed");
    troubles::begin_while_there("clear staging dir failed", path, &error);
}
