//! The documents of a repository, all of the same publish.
//!
//! Owns the retry: documents read during a publish can be of two publishes, and then a good
//! signature seems wrong. Checks nothing.

use std::fs;
use std::path::{Path, PathBuf};

use peipkg_format::repository_layout as layout;

use super::error::RepoError;
use super::index::IndexKind;
use super::{files, lock};
use crate::signature::MAX_ENVELOPE;
use crate::stamp::Stamp;

/// How often all documents are read if they change meanwhile. Only a tool that ignores the lock can
/// change them, and it is unlikely to do so three times in a row.
const ATTEMPTS: usize = 3;

/// A document and its detached signature.
pub(super) struct Signed {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) signature: Result<Vec<u8>, RepoError>,
}

impl Signed {
    /// Reads the document at `path`, of at most `cap` bytes. A missing signature is no error here:
    /// an unsigned document can still be read for its problems.
    pub(super) fn read(path: PathBuf, cap: u64) -> Result<Self, RepoError> {
        let bytes = files::read(&path, cap)?;
        let signature = files::read(&layout::signature(&path), MAX_ENVELOPE as u64);
        Ok(Self { path, bytes, signature })
    }
}

/// Lets `read` read the documents of the repository at `root`, after a running publish has finished,
/// and keeps publishes waiting meanwhile. Repeats it if a document has changed.
pub(super) fn of_one_publish<T>(root: &Path, read: impl Fn() -> T) -> T {
    // The stamps alone reveal a publish that begins now, or on a network file system without locks.
    let _lock = lock::shared(root);
    let mut attempt = 1;
    loop {
        let before = stamps(root);
        let found = read();
        if attempt == ATTEMPTS || stamps(root) == before {
            return found;
        }
        attempt += 1;
    }
}

fn paths(root: &Path) -> [PathBuf; 3] {
    [root.join(layout::DESCRIPTOR), IndexKind::Active.path(root), IndexKind::Archive.path(root)]
}

fn stamps(root: &Path) -> Vec<Option<Stamp>> {
    let stamp = |path: PathBuf| fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
    paths(root).into_iter().flat_map(|path| [layout::signature(&path), path]).map(stamp).collect()
}
