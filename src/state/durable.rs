//! Writing files so that they outlast a power cut, and removing them. Knows no particular file.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use log::warn;
use peipkg_format::remove_tree::remove_directory;
use rustix::fs::syncfs;

/// A file or directory that could not be read, written, moved or removed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub(crate) struct FileError {
    /// Its path.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

/// Names the file in an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |error| FileError { path, error }
}

/// Syncs the content of a file, or the names in a directory.
///
/// # Errors
/// When there is none, or the file system refuses.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs the directory of `path`, so that the file's renaming or removal lasts.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}

/// Syncs all that was written to the file system that the directory at `path` is on.
///
/// # Errors
/// When there is no such directory, or the file system refuses.
pub(crate) fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(syncfs(File::open(path)?)?)
}

/// Creates an empty file that outlasts a power cut, unless there is one.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn create_marker(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    File::create(path)?.sync_all()?;
    sync_parent(path)
}

/// Replaces the file at `path` in one step by what `write` writes, and syncs it: a reader or a crash sees the old bytes
/// or the new ones.
///
/// # Errors
/// When `write` fails or the file system refuses; the old file is then unharmed.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = unfinished(path);
    let mut file = File::create(&temporary)?;
    let written = write(&mut file).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The disk may be full: free what the half-written file takes.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_parent(path)
}

/// Where [`replace`] writes a file before it takes the place of `path`: a crash leaves it behind.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Removes a file or a directory with all it holds, without following links.
///
/// # Errors
/// When something of it cannot be removed; its absence is no error.
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

/// Removes work files that nobody needs any more, or that nobody may trust; warns if that fails.
pub(crate) fn clear(path: &Path) {
    if let Err(error) = remove(path) {
        warn!(path = path.display().to_string(), error:%; "clear staging dir failed");
    }
}
