//! Reads the tree that the build script left in `$DESTDIR`. Follows no symbolic link.

use std::fs::{self, DirEntry, FileType, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use peipkg_format::regular_file;

use crate::detached_signature::START;
use crate::payload::check_path;

/// A staged file, directory or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Path relative to `$DESTDIR`, without a trailing slash.
    pub path: String,
    /// Its type.
    pub kind: StagedKind,
}

/// The types of a payload entry (PSD-009 §3.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StagedKind {
    /// A regular file. Each hard link of a file becomes a file of its own in a package.
    File {
        /// Whether it has a set-user-ID or set-group-ID bit, which a package cannot carry.
        is_privileged: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(String),
}

/// Why a staged tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StagedError {
    /// A directory or link cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Unreadable {
        /// The directory or link.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// Entries that no package can carry, one line each.
    #[error("{}", .0.join("; "))]
    Unfit(Vec<String>),
}

/// Reads everything below `root`, sorted by name; the content of a directory follows it directly.
///
/// # Errors
/// The first directory or link that cannot be read; else a line for every entry whose type or name
/// PSD-009 §3.2 does not permit.
pub fn read(root: &Path) -> Result<Vec<Staged>, StagedError> {
    let mut walk = Walk { entries: Vec::new(), unfit: Vec::new() };
    let metadata = fs::symlink_metadata(root).map_err(|error| unreadable(root, error))?;
    if !metadata.is_dir() {
        return Err(StagedError::Unfit(vec![format!("{} is not a directory", root.display())]));
    }
    walk.directory(root, "", &metadata)?;
    if walk.unfit.is_empty() { Ok(walk.entries) } else { Err(StagedError::Unfit(walk.unfit)) }
}

struct Walk {
    entries: Vec<Staged>,
    unfit: Vec<String>,
}

impl Walk {
    fn directory(&mut self, directory: &Path, prefix: &str, metadata: &Metadata) -> Result<(), StagedError> {
        // A package does not carry modes, so a directory that its owner may not list is made
        // readable.
        if metadata.permissions().mode() & 0o500 != 0o500 {
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(directory, mode).map_err(|error| unreadable(directory, error))?;
        }
        let listing = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<DirEntry>>>);
        let mut listing = listing.map_err(|error| unreadable(directory, error))?;
        listing.sort_by_key(DirEntry::file_name);
        for entry in listing {
            self.entry(&entry, prefix)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry, prefix: &str) -> Result<(), StagedError> {
        let (name, place) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else {
            self.unfit.push(format!("{:?} is not UTF-8", format!("{prefix}{}", name.display())));
            return Ok(());
        };
        let path = format!("{prefix}{name}");
        if let Err(problem) = check_path(&path) {
            // Quoted, because the problem may be an invisible character.
            self.unfit.push(format!("{path:?} {problem}"));
            return Ok(());
        }
        let metadata = entry.metadata().map_err(|error| unreadable(&place, error))?;
        let kind = if metadata.is_file() {
            StagedKind::File { is_privileged: metadata.mode() & 0o6000 != 0 }
        } else if metadata.is_dir() {
            StagedKind::Directory
        } else if metadata.is_symlink() {
            let target = fs::read_link(&place).map_err(|error| unreadable(&place, error))?;
            let Some(target) = target.to_str() else {
                self.unfit.push(format!("{path} has a link target that is not UTF-8"));
                return Ok(());
            };
            StagedKind::Symlink(target.to_owned())
        } else {
            let found = special(metadata.file_type());
            self.unfit
                .push(format!("{path} is a {found}; a package holds files, directories and symbolic links"));
            return Ok(());
        };
        let below = format!("{path}/");
        let is_directory = kind == StagedKind::Directory;
        self.entries.push(Staged { path, kind });
        if is_directory { self.directory(&place, &below, &metadata) } else { Ok(()) }
    }
}

fn special(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    }
}

fn unreadable(path: &Path, error: io::Error) -> StagedError {
    StagedError::Unreadable { path: path.to_owned(), error }
}

/// Returns the size and the first bytes of an entry that is staged at `root`, or `None` if it is no
/// regular file.
///
/// # Errors
/// The system cannot read it.
pub fn start(root: &Path, staged: &Staged) -> Result<Option<(u64, Vec<u8>)>, StagedError> {
    if !matches!(staged.kind, StagedKind::File { .. }) {
        return Ok(None);
    }
    let path = root.join(&staged.path);
    let read = || {
        let file = open(&path)?;
        let size = file.metadata()?.len();
        let mut start = Vec::new();
        file.take(START as u64).read_to_end(&mut start)?;
        Ok(Some((size, start)))
    };
    read().map_err(|error| unreadable(&path, error))
}

/// Opens a staged file for reading. Makes a file readable that its owner may not read, such as a
/// program with mode 4111: a package does not carry modes.
pub fn open(path: &Path) -> io::Result<fs::File> {
    regular_file::open(path).or_else(|error| {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Err(error);
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        regular_file::open(path)
    })
}
