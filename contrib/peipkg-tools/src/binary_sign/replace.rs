//! Puts a signed binary in the place of the unsigned one: whole, or not at all.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use ed25519_dalek::SigningKey;

use super::{SignError, sign};
use crate::stamp::Stamp;

/// Why a file was not signed. It is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError<E> {
    /// It cannot be opened.
    #[error("{0}")]
    Open(io::Error),
    /// It is a link, which a rename would replace by a file.
    #[error("it is a symbolic link, expected the file that it leads to")]
    Link,
    /// Its bytes cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError<E>),
    /// Somebody wrote to it meanwhile.
    #[error("it changed while it was signed")]
    Changed,
    /// The signed file cannot be put in its place.
    #[error("cannot replace it by the signed file: {0}")]
    Replace(io::Error),
}

/// Signs the file at `path`, which `open` opens for reading. Keeps its owner and permission bits, but
/// no extended attributes.
///
/// A rename replaces the file, so that nobody sees half of it and a running program keeps its bytes.
/// Other hard links to the file keep the unsigned bytes.
pub fn sign_file<E>(
    path: &Path,
    key: &SigningKey,
    open: impl Fn(&Path) -> io::Result<File>,
    check: impl Fn() -> Result<(), E>,
) -> Result<(), ReplaceError<E>> {
    let found = fs::symlink_metadata(path).map_err(ReplaceError::Open)?;
    if found.is_symlink() {
        return Err(ReplaceError::Link);
    }
    let mut file = open(path).map_err(ReplaceError::Open)?;
    let opened = file.metadata().map_err(ReplaceError::Open)?;
    if (found.dev(), found.ino()) != (opened.dev(), opened.ino()) {
        return Err(ReplaceError::Changed);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut temporary = tempfile::Builder::new()
        .prefix(".binary-sign.")
        .suffix(".partial")
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .map_err(ReplaceError::Replace)?;
    sign(&mut file, temporary.as_file_mut(), key, check)?;
    if Stamp::of(&file.metadata().map_err(ReplaceError::Open)?) != Stamp::of(&opened) {
        return Err(ReplaceError::Changed);
    }
    // `found` has the mode from before `open`, which may have made the file readable.
    let kept = keep_attributes(temporary.as_file(), &found);
    // Without a sync, a power cut after the rename could leave an empty file in its place.
    let synced = kept.and_then(|()| temporary.as_file().sync_all());
    synced.map_err(ReplaceError::Replace)?;
    temporary.persist(path).map_err(|error| ReplaceError::Replace(error.error))?;
    Ok(())
}

/// Gives the new file the owner and the permission bits of the old one.
fn keep_attributes(new: &File, old: &fs::Metadata) -> io::Result<()> {
    let now = new.metadata()?;
    let mut mode = old.mode() & 0o7777;
    let is_same_owner = (now.uid(), now.gid()) == (old.uid(), old.gid());
    if !is_same_owner && fchown(new, Some(old.uid()), Some(old.gid())).is_err() {
        // A program must not run with the rights of another owner than before.
        mode &= 0o777;
    }
    new.set_permissions(Permissions::from_mode(mode))
}
