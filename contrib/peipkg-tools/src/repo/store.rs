//! Package files below `p/` (PSD-009 §6.4.3): found, compared, copied into place.
//!
//! A package is copied and never linked from where it was built: what is
//! published must not change when somebody writes to the original again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::RepoError;
use super::files;
use crate::digest::Digest;

/// Where a file stands, below the repository's root, until it is whole: one place for all, so
/// that nobody has to look for what a full disk or a kill has left.
pub(super) const INCOMING: &str = ".incoming.tmp";
/// The unit of reading, in bytes.
const BUFFER: usize = 128 * 1024;

/// What must be durable before an index may name it.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    files: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
}

impl Unsynced {
    /// Everything, files first.
    pub(super) fn into_paths(self) -> impl Iterator<Item = PathBuf> {
        self.files.into_iter().chain(self.directories)
    }
}

/// Where a package file belongs, below the repository's root.
pub(super) fn package_path(name: &str, version: &str, file_name: &str) -> String {
    format!("p/{name}/{version}/{file_name}")
}

/// Copies the package at `source`, which has been read and has `hash`, to `relative` below `root`.
/// A file that is already there with the same bytes stays.
pub(super) fn place(
    source: &Path,
    hash: &Digest,
    root: &Path,
    relative: &str,
    unsynced: &mut Unsynced,
) -> Result<(), RepoError> {
    let target = prepare(root, relative, unsynced)?;
    if target.exists() && hash_file(&target)? == *hash {
        return Ok(());
    }
    let temporary = root.join(INCOMING);
    let copied = copy(source, &temporary).and_then(|copied| {
        if copied == *hash {
            files::rename(&temporary, &target)
        } else {
            Err(RepoError::invalid(source, "changed while it was being published"))
        }
    });
    // Half a package would keep a disk full that has room for a smaller one.
    copied.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Takes a published file over from another repository, by a link if possible. Files that are
/// not in `from` are none of its concern: they may be hosted elsewhere.
pub(super) fn carry_over(
    from: &Path,
    root: &Path,
    relative: &str,
    unsynced: &mut Unsynced,
) -> Result<(), RepoError> {
    let source = from.join(relative);
    if !source.is_file() || root.join(relative).exists() {
        return Ok(());
    }
    let target = prepare(root, relative, unsynced)?;
    if fs::hard_link(&source, &target).is_ok() {
        return Ok(());
    }
    let temporary = root.join(INCOMING);
    let copied = copy(&source, &temporary).and_then(|_| files::rename(&temporary, &target));
    copied.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Creates the directories of a package file and notes what will have to be durable.
fn prepare(root: &Path, relative: &str, unsynced: &mut Unsynced) -> Result<PathBuf, RepoError> {
    let mut parts: Vec<&str> = relative.split('/').collect();
    parts.pop();
    let mut directory = root.to_owned();
    for part in parts {
        let parent = directory.clone();
        directory.push(part);
        files::create_dir(&directory)?;
        // Also where it was there: an interrupted publish may have made it and not got to this.
        unsynced.directories.insert(parent);
    }
    unsynced.directories.insert(directory);
    let target = root.join(relative);
    unsynced.files.insert(target.clone());
    Ok(target)
}

fn copy(source: &Path, target: &Path) -> Result<Digest, RepoError> {
    let mut reader = File::open(source).map_err(RepoError::io(source, "open the package"))?;
    let mut writer = files::create(target)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                writer.write_all(&buffer[..read]).map_err(RepoError::io(target, "write the file"))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RepoError::io(source, "read the package")(error)),
        }
    }
}

/// The SHA-256 of a file.
pub(super) fn hash_file(path: &Path) -> Result<Digest, RepoError> {
    struct Sink(Sha256);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let file = File::open(path).map_err(RepoError::io(path, "open the package"))?;
    let mut sink = io::BufWriter::with_capacity(BUFFER, Sink(Sha256::new()));
    io::copy(&mut &file, &mut sink).map_err(RepoError::io(path, "read the package"))?;
    let sink =
        sink.into_inner().map_err(|error| RepoError::io(path, "read the package")(error.into_error()))?;
    Ok(sink.0.finalize().into())
}

/// The packages in `directory`, sorted; with `deep`, those in its subdirectories too. A package is
/// a file or a link to one.
pub(super) fn find_packages(directory: &Path, deep: bool) -> Result<Vec<PathBuf>, RepoError> {
    let list = RepoError::io;
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).map_err(list(&directory, "list the directory"))? {
            let entry = entry.map_err(list(&directory, "list the directory"))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(list(&path, "look at the file"))?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let named = !hidden && path.extension().is_some_and(|it| it == "peipkg");
            if kind.is_dir() && deep {
                pending.push(path);
            } else if named && !kind.is_dir() && !path.is_file() {
                // Opening a FIFO would wait for somebody to write; a link to nothing is a mistake too.
                return Err(RepoError::invalid(&path, "is neither a file nor a link to one"));
            } else if named && !kind.is_dir() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
