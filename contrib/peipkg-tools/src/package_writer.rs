//! Writes a package: the archive of PSD-009 §3.1 and §3.2, signed (§5.1), compressed, and renamed
//! into place when it is complete.
//!
//! Keeps only names and hashes in memory, so that a package may be larger than memory. Reads every
//! file twice: for its hash in the file list, which precedes the payload, and for its content.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;

use crate::chunks::for_each_chunk;
use crate::digest::hex;
use crate::manifest::{
    FILES_PATH, FileEntry, Files, MANIFEST_PATH, MAX_FILES, MAX_MANIFEST, Manifest, SCHEMA_VERSION, to_json,
};
use crate::payload::{MAX_DECOMPRESSED, MAX_ENTRIES};
use crate::signature::{Envelope, SIGNATURE_PATH};
use crate::stamp::Stamp;
use crate::tar_header::{BLOCK, END, EntryType, header, header_length, padding};

/// The compression level, the default of zstd: takes a few megabytes of memory for a package of
/// any size.
const LEVEL: i32 = 3;
/// The most bytes of an archive besides the payload and the two documents: headers and padding of
/// three entries, the signature, the end.
const FRAME: u64 = 8 * 1024;

/// A package to write.
#[derive(Debug)]
pub struct Package {
    /// The manifest; the writer fills in `size_installed`.
    pub manifest: Manifest,
    /// The payload, in any order.
    pub entries: Vec<Entry>,
    /// The timestamp of the manifest in seconds since 1970, at most
    /// [`MAX_NUMBER`](crate::tar_header::MAX_NUMBER).
    pub mtime: u64,
}

/// One payload entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Path in the archive. A directory's ends in a slash.
    pub path: String,
    /// Type and content.
    pub content: Content,
}

/// Type and content of a payload entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A regular file with the bytes of this one.
    File(PathBuf),
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(String),
}

/// A complete package that is not in place yet. Dropping it removes the temporary file.
#[derive(Debug)]
pub struct PendingFile {
    temporary: TempPath,
    path: PathBuf,
}

/// Why a package cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// A file of the payload cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The package cannot be written.
    #[error("cannot write {path}: {error}", path = path.display())]
    Write {
        /// The package.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A file changed between its two readings.
    #[error("{path} changed while it was packed", path = .0.display())]
    Changed(PathBuf),
    /// It would decompress to more than a consumer must accept (PSD-009 §3.5.4).
    #[error("the package would decompress to {0} bytes, at most {MAX_DECOMPRESSED} (4 GiB) are allowed")]
    TooLarge(u64),
    /// There are more entries than a consumer must accept (PSD-009 §3.2.10).
    #[error("the payload has {0} entries, at most {MAX_ENTRIES} are allowed")]
    TooManyEntries(usize),
    /// A document is longer than a consumer must accept (PSD-009 §3.2.10).
    #[error("{path} would be {found} bytes long, at most {limit} are allowed")]
    DocumentTooLong {
        /// The document's path in the archive.
        path: &'static str,
        /// Its length in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The caller asked to stop.
    #[error(transparent)]
    Stopped(E),
}

impl PendingFile {
    /// Creates the temporary file beside `path`, whose directory must exist. Returns it open.
    fn create(path: PathBuf) -> io::Result<(Self, File)> {
        let name = path.file_name().unwrap_or_default().display();
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let (file, temporary) = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            // The mode of any new file: readable to all, less the umask.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory.unwrap_or(Path::new(".")))?
            .into_parts();
        Ok((Self { temporary, path }, file))
    }

    /// Returns the final path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the complete file into place. Does not sync it, as no compiler does: a build can be
    /// repeated, and a publish syncs the copies that it makes.
    pub fn publish(self) -> io::Result<()> {
        self.temporary.persist(&self.path).map_err(|error| error.error)
    }
}

impl Package {
    /// Writes the package for `path` under a temporary name. Without a key, the package is unsigned
    /// (PSD-009 §5.1.7). `open` opens the files of the payload. `check` runs before each
    /// file, and its error stops the writing.
    pub fn write<E>(
        mut self,
        path: &Path,
        key: Option<&SigningKey>,
        open: impl Fn(&Path) -> io::Result<File>,
        check: impl Fn() -> Result<(), E>,
    ) -> Result<PendingFile, WriteError<E>> {
        if self.entries.len() > MAX_ENTRIES {
            return Err(WriteError::TooManyEntries(self.entries.len()));
        }
        self.entries.sort();
        let length = |source: &Path| {
            let read = |error| WriteError::Read { path: source.to_owned(), error };
            fs::symlink_metadata(source).map(|file| file.len()).map_err(read)
        };
        // Checked early, before a payload that is too large is read; checked again after reading.
        let mut sizes = Vec::new();
        for entry in &self.entries {
            if let Content::File(source) = &entry.content {
                sizes.push(length(source)?);
            }
        }
        self.check_size(sizes.into_iter(), 0)?;
        let (files, stamps) = self.list_files(&open, &check)?;
        let files = document(FILES_PATH, files, MAX_FILES)?;
        self.manifest.size_installed = stamps.iter().map(|stamp| stamp.size).sum();
        let manifest = document(MANIFEST_PATH, to_json(&self.manifest), MAX_MANIFEST)?;
        self.check_size(stamps.iter().map(|stamp| stamp.size), (manifest.len() + files.len()) as u64)?;

        let write = |error| WriteError::Write { path: path.to_owned(), error };
        let (pending, file) = PendingFile::create(path.to_owned()).map_err(write)?;
        let mut archive = Archive::new(file, self.mtime).map_err(write)?;
        archive.document(MANIFEST_PATH, &manifest).map_err(write)?;
        archive.document(FILES_PATH, &files).map_err(write)?;
        drop((manifest, files));
        let mut stamps = stamps.into_iter();
        for entry in &self.entries {
            match &entry.content {
                Content::Directory => archive.entry(&entry.path, EntryType::Directory).map_err(write)?,
                Content::Symlink(target) => {
                    archive.entry(&entry.path, EntryType::Symlink(target)).map_err(write)?;
                }
                Content::File(source) => {
                    check().map_err(WriteError::Stopped)?;
                    let opened = stamped(source, &open)?;
                    let (stamp, file) = stamps.next().zip(Some(opened)).ok_or_else(|| changed(source))?;
                    archive.entry(&entry.path, EntryType::File(stamp.size)).map_err(write)?;
                    archive.content(source, file, &stamp, path)?;
                }
            }
        }
        archive.finish(key).map_err(write)?;
        Ok(pending)
    }

    /// Refuses a package that decompresses to too many bytes. `sizes` has the size of each file, in
    /// order.
    fn check_size<E>(
        &self,
        mut sizes: impl Iterator<Item = u64>,
        documents: u64,
    ) -> Result<(), WriteError<E>> {
        let mut total = documents + FRAME;
        for entry in &self.entries {
            let (kind, size) = match &entry.content {
                Content::File(_) => (EntryType::File(0), sizes.next().unwrap_or(0)),
                Content::Directory => (EntryType::Directory, 0),
                Content::Symlink(target) => (EntryType::Symlink(target), 0),
            };
            let padded = size.saturating_add(padding(size) as u64);
            total = total.saturating_add(header_length(&entry.path, kind)).saturating_add(padded);
        }
        if total > MAX_DECOMPRESSED { Err(WriteError::TooLarge(total)) } else { Ok(()) }
    }

    /// Hashes every file. Returns the file list as JSON, and a stamp of each file. Appends to the
    /// JSON file by file: the text takes less memory than the parsed list.
    fn list_files<E>(
        &self,
        open: impl Fn(&Path) -> io::Result<File>,
        check: impl Fn() -> Result<(), E>,
    ) -> Result<(Vec<u8>, Vec<Stamp>), WriteError<E>> {
        let whole =
            Files { schema_version: SCHEMA_VERSION, algorithm: "sha256".to_owned(), entries: Vec::new() };
        let mut list = to_json(&whole);
        let end = list.split_off(list.len() - "]}\n".len());
        let mut stamps: Vec<Stamp> = Vec::new();
        for entry in &self.entries {
            let Content::File(source) = &entry.content else { continue };
            check().map_err(WriteError::Stopped)?;
            let read = |error| WriteError::Read { path: source.clone(), error };
            let (before, mut file) = stamped(source, &open)?;
            let (mut hasher, mut size) = (Sha256::new(), 0);
            for_each_chunk(&mut file, read, |chunk| {
                hasher.update(chunk);
                size += chunk.len() as u64;
                Ok(())
            })?;
            if Stamp::of(&file.metadata().map_err(read)?) != before || size != before.size {
                return Err(changed(source));
            }
            if !stamps.is_empty() {
                list.push(b',');
            }
            let mut line =
                to_json(&FileEntry { path: entry.path.clone(), size, hash: hex(&hasher.finalize()) });
            line.pop();
            list.append(&mut line);
            stamps.push(before);
        }
        list.extend(end);
        Ok((list, stamps))
    }
}

fn stamped<E>(path: &Path, open: impl Fn(&Path) -> io::Result<File>) -> Result<(Stamp, File), WriteError<E>> {
    let read = |error| WriteError::Read { path: path.to_owned(), error };
    let file = open(path).map_err(read)?;
    let stamp = Stamp::of(&file.metadata().map_err(read)?);
    Ok((stamp, file))
}

fn changed<E>(path: &Path) -> WriteError<E> {
    WriteError::Changed(path.to_owned())
}

fn document<E>(path: &'static str, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, WriteError<E>> {
    let found = bytes.len();
    if found > limit { Err(WriteError::DocumentTooLong { path, found, limit }) } else { Ok(bytes) }
}

/// The archive that is being written. Compresses the bytes and hashes them for the signature.
struct Archive {
    encoder: zstd::stream::write::Encoder<'static, File>,
    hasher: Sha256,
    mtime: u64,
}

impl Archive {
    fn new(file: File, mtime: u64) -> io::Result<Self> {
        let mut encoder = zstd::stream::write::Encoder::new(file, LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(Self { encoder, hasher: Sha256::new(), mtime })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.encoder.write_all(bytes)
    }

    fn entry(&mut self, path: &str, entry: EntryType<'_>) -> io::Result<()> {
        self.write(&header(path, entry, self.mtime))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.write(&[0; BLOCK][..padding(size)])
    }

    fn document(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        self.entry(path, EntryType::File(size))?;
        self.write(bytes)?;
        self.pad(size)
    }

    /// Writes the content of a file, which must not have changed since it was hashed.
    fn content<E>(
        &mut self,
        source: &Path,
        (opened, mut file): (Stamp, File),
        stamp: &Stamp,
        path: &Path,
    ) -> Result<(), WriteError<E>> {
        if opened != *stamp {
            return Err(changed(source));
        }
        let write = |error| WriteError::Write { path: path.to_owned(), error };
        let read = |error| WriteError::Read { path: source.to_owned(), error };
        let mut size = 0;
        for_each_chunk(&mut file, read, |chunk| {
            size += chunk.len() as u64;
            self.write(chunk).map_err(write)
        })?;
        let after = Stamp::of(&file.metadata().map_err(read)?);
        if after != *stamp || size != stamp.size {
            return Err(changed(source));
        }
        self.pad(size).map_err(write)
    }

    /// Signs the bytes written so far, if there is a key, and ends the archive.
    fn finish(mut self, key: Option<&SigningKey>) -> io::Result<File> {
        if let Some(key) = key {
            let digest = self.hasher.clone().finalize().into();
            self.document(SIGNATURE_PATH, &Envelope::sign_digest(key, &digest).to_json())?;
        }
        self.write(&END)?;
        self.encoder.finish()
    }
}
