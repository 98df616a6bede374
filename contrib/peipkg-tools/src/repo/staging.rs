//! The commit: makes four new index files visible at once. [`super`] explains the steps.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ed25519_dalek::SigningKey;
use peipkg_format::repository_layout as layout;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::error::RepoError;
use super::hashing::Output;
use super::index::{Header, IndexKind, IndexWriter};
use super::merge::Sink;
use super::site::{Newest, NewestSoFar};
use super::{MARKER, MOVING, WORKING_FILES, WRITING, files};
use crate::signature::Envelope;

/// The indexes in the order in which they move: moving the archive is the commit.
const ORDER: [IndexKind; 2] = [IndexKind::Archive, IndexKind::Active];

/// The attempt that fails when an index cannot be written.
const WRITE: &str = "write the file";

/// New index files that are not visible yet.
pub(super) struct Staging {
    root: PathBuf,
}

/// Completes or discards an interrupted publish into `root`, and removes its temporary files.
pub(super) fn settle(root: &Path) -> Result<(), RepoError> {
    let moving = root.join(MOVING);
    if moving.is_dir() {
        if is_committed(root) {
            move_all(root)?;
        }
        // Rename before removing. If a kill interrupted the removal of `.index.next` after its
        // archive was gone, the next publish would take the rest for committed.
        files::remove_dir(&root.join(WRITING))?;
        files::rename(&moving, &root.join(WRITING))?;
        files::sync_all(&[root.to_owned()])?;
    }
    for name in WORKING_FILES {
        files::remove_file(&root.join(name))?;
    }
    if root.join(layout::DESCRIPTOR).exists() {
        // `init` writes the descriptor last, so it has finished; only the marker is left.
        files::remove_dir(&root.join(MARKER))?;
    }
    files::remove_dir(&root.join(WRITING))
}

/// New index files while entries are added to them.
pub(super) struct Writing {
    archive: IndexWriter,
    active: IndexWriter,
    newest: Option<NewestSoFar>,
    staging: Staging,
}

impl Writing {
    /// Starts both indexes below `root`. With `newest`, finds the newest packages for the browse site.
    pub(super) fn begin(
        root: &Path,
        header: Header<'_>,
        newest: Option<NewestSoFar>,
    ) -> Result<Self, RepoError> {
        let directory = root.join(WRITING);
        files::remove_dir(&directory)?;
        files::create_dir(&directory)?;
        // Removes the directory if a step fails.
        let staging = Staging { root: root.to_owned() };
        copy_owner_and_mode(&root.join(layout::INDEX_DIRECTORY), &directory)?;
        let begin = |kind: IndexKind| {
            let path = staging.path(kind);
            let expected = fs::metadata(kind.path(root)).map_or(0, |before| before.len());
            IndexWriter::begin(files::create(&path)?, kind, header, expected)
                .map_err(RepoError::io(&path, WRITE))
        };
        let (archive, active) = (begin(IndexKind::Archive)?, begin(IndexKind::Active)?);
        Ok(Self { archive, active, newest, staging })
    }

    /// Returns the file of the new archive, to hash it beside the old one.
    pub(super) fn archive_output(&self) -> Rc<RefCell<Output>> {
        self.archive.output()
    }

    /// Turns an error of [`Sink`] into one about the archive, which is the longer file.
    pub(super) fn error(&self, error: io::Error) -> RepoError {
        RepoError::io(&self.staging.path(IndexKind::Archive), WRITE)(error)
    }

    /// Ends both indexes and signs them. Sync [`Staging::paths`] before [`Staging::commit`].
    pub(super) fn end(self, key: &SigningKey) -> Result<(Staging, Written), RepoError> {
        let Self { archive, active, newest, staging } = self;
        let written = Written {
            archived: archive.count(),
            active: active.count(),
            newest: newest.map(NewestSoFar::into_newest).unwrap_or_default(),
        };
        for (kind, writer) in [(IndexKind::Archive, archive), (IndexKind::Active, active)] {
            let path = staging.path(kind);
            let digest = writer.end().map_err(RepoError::io(&path, WRITE))?;
            files::write(&layout::signature(&path), &Envelope::sign_digest(key, &digest).to_json())?;
        }
        Ok((staging, written))
    }
}

impl Sink for Writing {
    fn archive(&mut self, json: &str) -> io::Result<()> {
        self.archive.add(json)
    }

    fn active(&mut self, json: &str, built: Option<&str>) -> io::Result<()> {
        self.newest.iter_mut().for_each(|newest| newest.add(json, built));
        self.active.add(json)
    }
}

/// Counts the entries of the new indexes, and names the newest.
pub(super) struct Written {
    /// The number of entries in the archive index.
    pub(super) archived: usize,
    /// The number of entries in the active index.
    pub(super) active: usize,
    /// The newest entries of the active index, if they were asked for.
    pub(super) newest: Vec<Newest>,
}

impl Drop for Staging {
    /// Removes files that were not committed, or that the commit has replaced.
    fn drop(&mut self) {
        let _ = files::remove_dir(&self.root.join(WRITING));
    }
}

impl Staging {
    /// Returns the path of the new index `kind`.
    pub(super) fn path(&self, kind: IndexKind) -> PathBuf {
        self.root.join(WRITING).join(kind.file_name())
    }

    /// Returns the written paths, files first.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let directory = self.root.join(WRITING);
        let files: Vec<_> = file_names().iter().map(|name| directory.join(name)).collect();
        files.into_iter().chain([directory])
    }

    /// Commits: makes the new indexes visible and syncs.
    ///
    /// # Errors
    /// When the publish was not committed. An error after the commit is the returned value.
    pub(super) fn commit(self) -> Result<Option<RepoError>, RepoError> {
        let (written, index) = (self.root.join(WRITING), self.root.join(layout::INDEX_DIRECTORY));
        if !index.exists() {
            files::rename(&written, &index)?;
        } else if !holds_only_ours(&index)? || !exchange(&written, &index)? {
            // `.index.next` does not exist: `settle` has removed it before anything was written.
            let moving = self.root.join(MOVING);
            files::rename(&written, &moving)?;
            files::sync_all(std::slice::from_ref(&self.root))?;
            let moved = move_all(&self.root);
            if moved.is_err() && !is_committed(&self.root) {
                return moved.map(|()| None);
            }
            if moved.is_ok() {
                // The publish is done; if this fails, the next one removes the directory.
                let _ = files::remove_dir(&moving);
            }
            return Ok(moved.err());
        }
        Ok(files::sync_all(std::slice::from_ref(&self.root)).err())
    }
}

/// Returns the names of the index files within their directory, in the order in which they move.
fn file_names() -> Vec<PathBuf> {
    let names = |kind: IndexKind| [kind.file_name().into(), layout::signature(kind.file_name())];
    ORDER.into_iter().flat_map(names).collect()
}

/// Whether the moves out of [`MOVING`] have passed the commit: the archive moves first.
fn is_committed(root: &Path) -> bool {
    !root.join(MOVING).join(ORDER[0].file_name()).exists()
}

/// Gives the directory `new` the owner and mode of `old`, which it will replace, if `old` exists.
fn copy_owner_and_mode(old: &Path, new: &Path) -> Result<(), RepoError> {
    let Ok(like) = fs::metadata(old) else { return Ok(()) };
    // Only root may change an owner. For any other user, only the mode is copied.
    let _ = chown(new, Some(like.uid()), Some(like.gid()));
    fs::set_permissions(new, like.permissions()).map_err(RepoError::io(new, "set the mode"))
}

/// Exchanges two directories; returns `false` if the file system cannot.
fn exchange(written: &Path, index: &Path) -> Result<bool, RepoError> {
    match renameat_with(CWD, written, CWD, index, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(error) => match std::io::Error::from(error) {
            // Network file systems, old kernels, and an index that is a mount point.
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

/// Whether an exchange would hide no foreign file.
fn holds_only_ours(index: &Path) -> Result<bool, RepoError> {
    let names: Vec<OsString> = fs::read_dir(index)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(RepoError::io(index, "list the directory"))?;
    let is_link = fs::symlink_metadata(index).is_ok_and(|metadata| metadata.is_symlink());
    let ours = file_names();
    Ok(!is_link && names.iter().all(|name| ours.iter().any(|known| known == name)))
}

/// Moves the files in [`MOVING`] into the index directory.
fn move_all(root: &Path) -> Result<(), RepoError> {
    let (moving, index) = (root.join(MOVING), root.join(layout::INDEX_DIRECTORY));
    files::create_dir(&index)?;
    for name in file_names() {
        let from = moving.join(&name);
        if from.exists() {
            files::rename(&from, &index.join(&name))?;
        }
    }
    files::sync_all(&[index])
}
