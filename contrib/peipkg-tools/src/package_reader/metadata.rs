//! The two documents at the head of a package: manifest (PSD-009 §3.3) and file list (PSD-009 §3.5.1).
//!
//! Owns their validity and hands on what a repository index repeats of the
//! manifest. Pure: it gets bytes.

use peipkg_format::package::PackageName;
use peipkg_format::version::Version;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::PackageError;
use super::archive::{Entry, Kind};
use crate::digest::Digest;
use crate::manifest::mentions::Mentions;
use crate::manifest::{FILES_PATH, Files, MANIFEST_PATH, Manifest, SCHEMA_VERSION, rules};

/// What a valid manifest says.
#[derive(Debug)]
pub struct Metadata {
    /// The manifest itself.
    pub manifest: Manifest,
    /// Name and architecture.
    pub package: PackageName,
    /// The version, parsed.
    pub version: Version,
    /// The relations as the manifest has them, with fields this program does not know.
    pub relations: RawRelations,
    /// What it says of the payload.
    mentions: Mentions,
}

/// The manifest's lists, unchanged: an index repeats them exactly (PSD-009 §6.2.5).
#[derive(Debug, Deserialize)]
pub struct RawRelations {
    /// See [`Manifest::dependencies`].
    pub dependencies: Box<RawValue>,
    /// See [`Manifest::optional_dependencies`].
    #[serde(default = "empty_list")]
    pub optional_dependencies: Box<RawValue>,
    /// See [`Manifest::conflicts`].
    pub conflicts: Box<RawValue>,
    /// See [`Manifest::provides`].
    #[serde(default = "empty_list")]
    pub provides: Box<RawValue>,
    /// See [`Manifest::replaces`].
    #[serde(default = "empty_list")]
    pub replaces: Box<RawValue>,
}

fn empty_list() -> Box<RawValue> {
    RawValue::from_string("[]".to_owned()).expect("a list is JSON")
}

fn refuse(reason: impl Into<String>) -> PackageError {
    PackageError::Document { document: MANIFEST_PATH, reason: reason.into() }
}

impl Metadata {
    /// Reads and checks a manifest (PSD-009 §3.3).
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        let json = |source| PackageError::Json { document: MANIFEST_PATH, source };
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
        let relations: RawRelations = serde_json::from_slice(bytes).map_err(json)?;
        if let Some(problem) = rules::problems(&manifest).into_iter().next() {
            return Err(refuse(problem));
        }
        let version = manifest.version.parse().map_err(|error| refuse(format!("version: {error}")))?;
        let mentions = Mentions::of(&manifest);
        let package =
            PackageName { name: manifest.name.clone(), architecture: manifest.architecture.clone() };
        Ok(Self { manifest, package, version, relations, mentions })
    }

    /// `<name>_<version>_<architecture>.peipkg` (PSD-009 §2.1.4).
    pub fn file_name(&self) -> String {
        self.package.file_name(&self.version)
    }

    /// Notes an entry of the payload.
    pub(super) fn meet(&mut self, entry: &Entry) {
        self.mentions.meet(&entry.archive_path(), matches!(entry.kind, Kind::Symlink(_)));
    }

    /// Everything that the manifest mentions must have been met.
    pub(super) fn expect_all_met(&self) -> Result<(), PackageError> {
        self.mentions.unmet().into_iter().next().map_or(Ok(()), |line| Err(refuse(line)))
    }
}

/// The file list, taken from the front as the payload goes by.
pub(super) struct FileList {
    entries: std::vec::IntoIter<ExpectedFile>,
}

/// What a payload file must be.
pub(super) struct ExpectedFile {
    path: String,
    pub(super) size: u64,
    pub(super) hash: Digest,
}

impl FileList {
    /// Reads and checks a file list (PSD-009 §3.5.1) whose sizes must add up to `size_installed`.
    pub(super) fn parse(bytes: &[u8], size_installed: u64) -> Result<Self, PackageError> {
        let refuse = |reason: String| PackageError::Document { document: FILES_PATH, reason };
        let files: Files = serde_json::from_slice(bytes)
            .map_err(|source| PackageError::Json { document: FILES_PATH, source })?;
        if files.schema_version != SCHEMA_VERSION || files.algorithm != "sha256" {
            return Err(refuse("schema_version or algorithm is not known".to_owned()));
        }
        let mut entries: Vec<ExpectedFile> = Vec::with_capacity(files.entries.len());
        let mut total: u64 = 0;
        for file in files.entries {
            if entries.last().is_some_and(|previous| previous.path >= file.path) {
                return Err(refuse(format!(
                    "{:?} is not in the order of paths, or is there twice",
                    file.path
                )));
            }
            let Some(hash) = unhex(&file.hash) else {
                return Err(refuse(format!("{:?} has a malformed hash", file.path)));
            };
            total = total.saturating_add(file.size);
            entries.push(ExpectedFile { path: file.path, size: file.size, hash });
        }
        if total != size_installed {
            return Err(refuse(format!(
                "the files have {total} bytes, size_installed says {size_installed}"
            )));
        }
        Ok(Self { entries: entries.into_iter() })
    }

    /// The entry for the payload file at `path`, which must be the next one.
    pub(super) fn take(&mut self, path: &str) -> Result<ExpectedFile, PackageError> {
        let missing = || PackageError::entry(path, "is not in files.json at its place");
        self.entries.next().filter(|expected| expected.path == path).ok_or_else(missing)
    }

    /// No entry may be left without its file.
    pub(super) fn expect_end(&mut self) -> Result<(), PackageError> {
        match self.entries.next() {
            Some(left) => Err(PackageError::entry(&left.path, "is in files.json but not in the archive")),
            None => Ok(()),
        }
    }
}

/// A SHA-256 value from 64 lower-case hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Digest> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs: &[[u8; 2]] = text.as_bytes().as_chunks().0;
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(digest)
}
