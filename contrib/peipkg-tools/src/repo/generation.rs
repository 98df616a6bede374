//! The documents of a repository as one publish left them.
//!
//! Read one by one, they may be of two publishes, and signatures then seem wrong that are not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::descriptor::{MAX_DESCRIPTOR, signature_path};
use super::error::RepoError;
use super::index::{Kind, MAX_INDEX};
use super::{DESCRIPTOR, INDEX_DIR, files, lock};
use crate::signature::MAX_ENVELOPE;

/// How often all of them are read anew when something has changed meanwhile. Tools that publish
/// without a lock are met again only by chance.
const ATTEMPTS: usize = 3;

/// Descriptor and indexes, each with its signature.
pub(super) struct Generation {
    pub(super) descriptor: Result<Signed, RepoError>,
    pub(super) active: Result<Signed, RepoError>,
    pub(super) archive: Result<Signed, RepoError>,
}

/// A document and, if it can be read, its detached signature.
pub(super) struct Signed {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) signature: Result<Vec<u8>, RepoError>,
}

impl Generation {
    /// Reads the documents of the repository at `root`, after a publish that is under way.
    pub(super) fn read(root: &Path) -> Self {
        // Where there are no locks, as in some network file systems, what follows has to do.
        let _lock = lock::share(root);
        let mut attempt = 1;
        loop {
            let before = stamps(root);
            let found = Self::read_once(root);
            if attempt == ATTEMPTS || stamps(root) == before {
                return found;
            }
            attempt += 1;
        }
    }

    fn read_once(root: &Path) -> Self {
        let read = |path: PathBuf, cap: u64| {
            let bytes = files::read(&path, cap)?;
            let signature = files::read(&signature_path(&path), MAX_ENVELOPE as u64);
            Ok(Signed { path, bytes, signature })
        };
        let [descriptor, active, archive] = paths(root);
        Self {
            descriptor: read(descriptor, MAX_DESCRIPTOR),
            active: read(active, MAX_INDEX),
            archive: read(archive, MAX_INDEX),
        }
    }
}

fn paths(root: &Path) -> [PathBuf; 3] {
    let index = |kind: Kind| root.join(INDEX_DIR).join(kind.file_name());
    [root.join(DESCRIPTOR), index(Kind::Active), index(Kind::Archive)]
}

/// What tells a file from the one that was there before: nobody can set a change time.
type Stamp = (u64, u64, u64, i64, i64);

fn stamps(root: &Path) -> Vec<Option<Stamp>> {
    let stamp = |path: PathBuf| {
        let file = fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
    };
    paths(root).into_iter().flat_map(|path| [signature_path(&path), path]).map(stamp).collect()
}
