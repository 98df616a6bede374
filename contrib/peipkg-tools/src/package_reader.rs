//! Reads a package as a consumer does, and says why it is refused (PSD-009 §3, §5.3).
//!
//! Owns the verdict on one package file: form, limits, hash of each file, signature. Writes nothing
//! and keeps no payload: memory holds the metadata, a zstd window and one buffer. Does not check
//! times and owners (§3.1.4): they change nothing that is installed, and a rebuild compares them.

mod archive;
mod compare;
mod metadata;
mod tree;

use std::io::{self, Read, Seek};

use ed25519_dalek::VerifyingKey;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};

use self::archive::{Archive, Entry, EntryKind};
pub use self::compare::{Comparison, compare};
use self::metadata::FileList;
pub use self::metadata::Metadata;
use self::tree::Tree;
use crate::chunks::CHUNK;
use crate::detached_signature::START;
use crate::digest::Digest;
use crate::manifest::{FILES_PATH, MANIFEST_PATH, MAX_FILES, MAX_MANIFEST};
use crate::payload::{self, MAX_DECOMPRESSED, MAX_ENTRIES};
use crate::signature::{Envelope, MAX_ENVELOPE, SIGNATURE_PATH, SignatureError};

/// The largest zstd window that is allocated, as a power of two. Decoders accept 128 MiB by
/// default, and no level below 20 needs more (RFC 8878 §3.1.1.1.2).
const MAX_WINDOW_LOG: u32 = 27;

/// A package that was read to its end and found good.
#[derive(Debug)]
pub struct Package {
    /// Its manifest.
    pub metadata: Metadata,
    /// Length of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file (PSD-009 §3.5.2).
    pub hash: Digest,
    /// [`PackageError::Order`] if clients refuse the package for the order of its entries.
    pub misplaced: Option<PackageError>,
}

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The file cannot be read, or its compression or archive is damaged or ends early.
    #[error("cannot read the package: {0}")]
    Unreadable(#[source] io::Error),
    /// The tar stream breaks PSD-009 §3.1.
    #[error("not a package archive: {0}")]
    Archive(&'static str),
    /// An entry of the archive is not allowed.
    #[error("entry {path:?} {reason}")]
    Entry {
        /// The entry's path.
        path: String,
        /// The end of the sentence.
        reason: &'static str,
    },
    /// The entries are sorted by their paths without the `/` of directories.
    #[error(
        "entry {path:?} follows {previous:?}, which sorts after it: the / of a directory counts in the order of \
        entries (PSD-009 §3.1.4), and clients refuse the package; build it again with another peipkg-build"
    )]
    Order {
        /// The first entry that is out of place.
        path: String,
        /// The entry before it.
        previous: String,
    },
    /// A symbolic link leads where it may not.
    #[error("entry {path:?}: target {target:?} {reason}")]
    Link {
        /// The link's path.
        path: String,
        /// The link's target.
        target: String,
        /// The end of the sentence.
        reason: &'static str,
    },
    /// It decompresses to more than the cap (PSD-009 §3.5.4).
    #[error("decompresses to more than {MAX_DECOMPRESSED} bytes (4 GiB), the most that is allowed")]
    TooLarge,
    /// A metadata document does not fit its JSON schema.
    #[error("{document}: {source}")]
    Json {
        /// Its path in the archive.
        document: &'static str,
        /// The place in it and the reason.
        source: serde_json::Error,
    },
    /// A metadata document breaks a rule of its schema.
    #[error("{document}: {reason}")]
    Document {
        /// Its path in the archive.
        document: &'static str,
        /// The broken rule.
        reason: String,
    },
    /// There is no signature, or an entry follows it (PSD-009 §5.3.3).
    #[error("{0}")]
    Unsigned(&'static str),
    /// No trusted key made the signature.
    #[error("signed by key {0}, which the repository does not list as active or transitioning")]
    UntrustedKey(String),
    /// The signature is malformed or wrong.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl PackageError {
    fn entry(path: &str, reason: &'static str) -> Self {
        Self::Entry { path: path.to_owned(), reason }
    }
}

/// Reads the package in `file` and checks all of it. `key` finds the trusted public key of a
/// fingerprint.
///
/// Reads the file twice, because the signature is at the end: once to verify the signature, once to
/// parse the content. Nothing unsigned reaches a parser of metadata.
///
/// # Errors
/// The first problem of the package.
pub fn read<'k>(
    mut file: impl Read + Seek,
    key: impl Fn(&str) -> Option<&'k VerifyingKey>,
) -> Result<Package, PackageError> {
    let mut first = Measured::new(&mut file);
    authenticate(&mut Archive::new(decoder(&mut first)?), key)?;
    let authentic = first.finish();
    file.rewind().map_err(PackageError::Unreadable)?;

    let mut second = Measured::new(&mut file);
    let mut archive = Archive::new_authentic(decoder(&mut second)?);
    let manifest = expect_document(&mut archive, MANIFEST_PATH, MAX_MANIFEST)?;
    let mut metadata = Metadata::parse(&manifest)?;
    drop(manifest);
    let files = expect_document(&mut archive, FILES_PATH, MAX_FILES)?;
    let mut files = FileList::parse(&files, metadata.manifest.size_installed)?;
    let misplaced = read_payload(&mut archive, &mut metadata, &mut files)?;
    drop(archive);
    if second.finish() != authentic {
        return Err(PackageError::Unreadable(io::Error::other("the file changed while it was read")));
    }
    let (size, hash) = authentic;
    Ok(Package { metadata, size, hash, misplaced })
}

/// Returns the manifest and the file list of the package in `file`, unchanged. Reads the front of the
/// file alone: checks neither the payload nor the signature.
///
/// # Errors
/// If the documents are not at the front, or are no JSON.
pub fn documents(file: impl Read) -> Result<[Vec<u8>; 2], PackageError> {
    let mut archive = Archive::new_authentic(decoder(file)?);
    let mut next = |document, cap| {
        let bytes = expect_document(&mut archive, document, cap)?;
        serde_json::from_slice::<IgnoredAny>(&bytes)
            .map_err(|source| PackageError::Json { document, source })?;
        Ok::<_, PackageError>(bytes)
    };
    Ok([next(MANIFEST_PATH, MAX_MANIFEST)?, next(FILES_PATH, MAX_FILES)?])
}

fn decoder<R: Read>(file: R) -> Result<zstd::Decoder<'static, io::BufReader<R>>, PackageError> {
    let mut decoder = zstd::Decoder::new(file).map_err(PackageError::Unreadable)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(PackageError::Unreadable)?;
    Ok(decoder)
}

/// Reads the archive to its end and verifies the signature (PSD-009 §5.3).
fn authenticate<'k, R: Read>(
    archive: &mut Archive<R>,
    key: impl Fn(&str) -> Option<&'k VerifyingKey>,
) -> Result<(), PackageError> {
    let unsigned = PackageError::Unsigned("it has no signature");
    loop {
        match archive.next_entry()? {
            Some(entry) if entry.path != SIGNATURE_PATH => {}
            None => return Err(unsigned),
            Some(entry) => {
                let envelope = Envelope::parse(&read_signature(archive, &entry)?)?;
                let trusted = key(envelope.fingerprint())
                    .ok_or_else(|| PackageError::UntrustedKey(envelope.fingerprint().to_owned()))?;
                let digest = archive.signed_digest().ok_or(unsigned)?;
                return Ok(envelope.verify_digest(trusted, &digest)?);
            }
        }
    }
}

/// Reads and checks every entry after the two leading documents. Returns what [`Tree::finish`] does.
fn read_payload<R: Read>(
    archive: &mut Archive<R>,
    metadata: &mut Metadata,
    files: &mut FileList,
) -> Result<Option<PackageError>, PackageError> {
    let mut buffer = vec![0; CHUNK];
    let architecture = &metadata.manifest.architecture.clone();
    let mut payload = 0;
    let mut tree = Tree::default();
    while let Some(entry) = archive.next_entry()? {
        if entry.path == SIGNATURE_PATH {
            files.expect_end()?;
            metadata.check_mentions()?;
            let misplaced = tree.finish()?;
            return read_signature(archive, &entry).map(|_| misplaced);
        }
        if entry.path == ".peipkg" || entry.path.starts_with(".peipkg/") {
            // Later format versions may add entries before the payload; skip them (PSD-009 §3.2.4).
            if payload > 0 || matches!(entry.path.as_str(), ".peipkg" | MANIFEST_PATH | FILES_PATH) {
                return Err(PackageError::entry(&entry.path, "is out of place"));
            }
            continue;
        }
        payload += 1;
        if payload > MAX_ENTRIES {
            return Err(PackageError::Archive(
                "it has more than 100000 payload entries, the most that is allowed",
            ));
        }
        let refuse = |reason| PackageError::entry(&entry.path, reason);
        payload::check_path(&entry.path).map_err(refuse)?;
        let is_directory = entry.kind == EntryKind::Directory;
        payload::check_destination(&entry.path, is_directory, architecture).map_err(refuse)?;
        tree.add(&entry)?;
        metadata.add(&entry);
        if entry.kind == EntryKind::File {
            let start = check_file(archive, &entry, files, &mut buffer)?;
            tree.add_content(&entry, &start)?;
        }
    }
    Err(PackageError::Unsigned("it has no signature"))
}

/// Reads the signature entry, and checks that it is the last one.
fn read_signature<R: Read>(archive: &mut Archive<R>, entry: &Entry) -> Result<Vec<u8>, PackageError> {
    if entry.kind != EntryKind::File {
        return Err(PackageError::entry(&entry.path, "is not a file"));
    }
    let envelope = archive.read_all(entry, MAX_ENVELOPE)?;
    match archive.next_entry()? {
        None => Ok(envelope),
        Some(_) => Err(PackageError::Unsigned("its signature is not the last entry")),
    }
}

/// Hashes one payload file and compares it with the file list, which has the same order. Returns its
/// first bytes.
fn check_file<R: Read>(
    archive: &mut Archive<R>,
    entry: &Entry,
    files: &mut FileList,
    buffer: &mut [u8],
) -> Result<Vec<u8>, PackageError> {
    let expected = files.expect_next(&entry.path)?;
    if expected.size != entry.size {
        return Err(PackageError::entry(&entry.path, "has another size than files.json says"));
    }
    let (mut hasher, mut start) = (Sha256::new(), Vec::new());
    loop {
        match archive.read_content(buffer)? {
            0 => break,
            read => {
                hasher.update(&buffer[..read]);
                // A read may return fewer bytes than asked for.
                start.extend(buffer[..read].iter().take(START - start.len()));
            }
        }
    }
    if Digest::from(hasher.finalize()) != expected.hash {
        return Err(PackageError::entry(&entry.path, "has another SHA-256 than files.json says"));
    }
    Ok(start)
}

/// Reads the content of the next entry, which must be the document at `path`.
fn expect_document<R: Read>(
    archive: &mut Archive<R>,
    path: &'static str,
    cap: usize,
) -> Result<Vec<u8>, PackageError> {
    match archive.next_entry()? {
        Some(entry) if entry.path == path && entry.kind == EntryKind::File => archive.read_all(&entry, cap),
        _ => Err(PackageError::Archive(if path == MANIFEST_PATH {
            "its first entry is not .peipkg/manifest.json"
        } else {
            "its second entry is not .peipkg/files.json"
        })),
    }
}

/// Counts and hashes the compressed bytes that pass through.
struct Measured<R> {
    inner: R,
    size: u64,
    hasher: Sha256,
}

impl<R> Measured<R> {
    fn new(inner: R) -> Self {
        Self { inner, size: 0, hasher: Sha256::new() }
    }

    fn finish(self) -> (u64, Digest) {
        (self.size, self.hasher.finalize().into())
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}
