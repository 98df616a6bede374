//! The commit: four index files become visible at once (see the header of [`super`]).

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::error::RepoError;
use super::index::{self, Header, Kind};
use super::merge::Merged;
use super::{
    ACTIVE, ARCHIVE, DESCRIPTOR, INDEX_DIR, MARKER, MOVING, SIGNATURE_SUFFIX, WORKING_FILES, WRITING, files,
};
use crate::signature::Envelope;

/// The index files in the order in which they move: the archive is the commit.
const ORDER: [&str; 4] = [ARCHIVE, "archive.json.sig", ACTIVE, "active.json.sig"];

/// New index files that are not visible yet.
pub(super) struct Staging {
    root: PathBuf,
}

/// Puts right what an interrupted publish into `root` has left.
pub(super) fn settle(root: &Path) -> Result<(), RepoError> {
    let moving = root.join(MOVING);
    if moving.is_dir() {
        if !moving.join(ORDER[0]).exists() {
            move_all(root)?;
        }
        // Out of sight at once: removed in place, it would lose its archive first or last as it
        // happens, and a kill in between would turn what was not committed into what was.
        files::remove_dir(&root.join(WRITING))?;
        files::rename(&moving, &root.join(WRITING))?;
        files::sync_all(&[root.to_owned()])?;
    }
    for name in WORKING_FILES {
        files::remove_file(&root.join(name))?;
    }
    if root.join(DESCRIPTOR).exists() {
        // With its descriptor in place, a repository is complete; only the mark is left.
        files::remove_dir(&root.join(MARKER))?;
    }
    files::remove_dir(&root.join(WRITING))
}

impl Staging {
    /// Writes and signs both indexes below `root`; [`Staging::paths`] must be made durable
    /// before [`Staging::commit`].
    pub(super) fn write(
        root: &Path,
        key: &SigningKey,
        header: Header<'_>,
        merged: &Merged<'_>,
    ) -> Result<Self, RepoError> {
        let directory = root.join(WRITING);
        files::remove_dir(&directory)?;
        files::create_dir(&directory)?;
        resemble(&directory, &root.join(INDEX_DIR))?;
        for (kind, entries) in [(Kind::Archive, &merged.archive), (Kind::Active, &merged.active)] {
            let path = directory.join(kind.file_name());
            let digest = index::write(files::create(&path)?, kind, header, entries)
                .map_err(RepoError::io(&path, "write the file"))?;
            let signature = format!("{}{SIGNATURE_SUFFIX}", kind.file_name());
            files::write(&directory.join(signature), &Envelope::sign_digest(key, &digest).to_json())?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// What has been written, files and directory.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let directory = self.root.join(WRITING);
        let files: Vec<_> = ORDER.iter().map(|name| directory.join(name)).collect();
        files.into_iter().chain([directory])
    }

    /// Makes the new indexes the repository's, durably. What fails after that is no failure of
    /// the publish any more, and is returned.
    pub(super) fn commit(self) -> Result<Option<RepoError>, RepoError> {
        let (written, index) = (self.root.join(WRITING), self.root.join(INDEX_DIR));
        if !index.exists() {
            files::rename(&written, &index)?;
        } else if !holds_only_ours(&index)? || !exchange(&written, &index)? {
            // Where nothing is: an earlier one has been settled before anything was written.
            let moving = self.root.join(MOVING);
            files::rename(&written, &moving)?;
            files::sync_all(std::slice::from_ref(&self.root))?;
            let moved = move_all(&self.root);
            if moved.is_err() && moving.join(ORDER[0]).exists() {
                return moved.map(|()| None);
            }
            if moved.is_ok() {
                // Past the commit, only what was published counts; the next publish clears the rest.
                let _ = files::remove_dir(&moving);
            }
            return Ok(moved.err());
        }
        let synced = files::sync_all(std::slice::from_ref(&self.root));
        let _ = files::remove_dir(&written);
        Ok(synced.err())
    }
}

/// Gives a new directory the owner and the mode of the one that it will replace, if there is one.
fn resemble(new: &Path, old: &Path) -> Result<(), RepoError> {
    let Ok(like) = fs::metadata(old) else { return Ok(()) };
    // Nobody but root may give a directory away; whose it is then, its mode has to do.
    let _ = chown(new, Some(like.uid()), Some(like.gid()));
    fs::set_permissions(new, like.permissions()).map_err(RepoError::io(new, "set the mode"))
}

/// Exchanges two directories; `false` when the file system cannot.
fn exchange(written: &Path, index: &Path) -> Result<bool, RepoError> {
    match renameat_with(CWD, written, CWD, index, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(error) => match std::io::Error::from(error) {
            // Network file systems, old kernels, and an index that is a mount point or a link.
            error
                if matches!(
                    error.kind(),
                    ErrorKind::InvalidInput
                        | ErrorKind::Unsupported
                        | ErrorKind::CrossesDevices
                        | ErrorKind::ResourceBusy
                ) =>
            {
                Ok(false)
            }
            error => Err(RepoError::io(index, "exchange the directory")(error)),
        },
    }
}

/// Whether an exchange would take nobody else's files out of sight.
fn holds_only_ours(index: &Path) -> Result<bool, RepoError> {
    let names: Vec<OsString> = fs::read_dir(index)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(RepoError::io(index, "list the directory"))?;
    let link = fs::symlink_metadata(index).is_ok_and(|metadata| metadata.is_symlink());
    Ok(!link && names.iter().all(|name| ORDER.iter().any(|ours| name == ours)))
}

/// Moves what is in [`MOVING`] into the index directory.
fn move_all(root: &Path) -> Result<(), RepoError> {
    let (moving, index) = (root.join(MOVING), root.join(INDEX_DIR));
    files::create_dir(&index)?;
    for name in ORDER {
        let from = moving.join(name);
        if from.exists() {
            files::rename(&from, &index.join(name))?;
        }
    }
    files::sync_all(&[index])
}
