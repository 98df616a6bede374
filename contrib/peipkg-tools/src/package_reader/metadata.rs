//! The two documents that open a package: manifest (PSD-009 §3.3) and file list (PSD-009 §3.5.1).
//!
//! Owns their validity, and keeps the lists that an index repeats. Pure: bytes are arguments.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::PackageError;
use super::archive::{Entry, EntryKind};
use crate::digest::{Digest, unhex};
use crate::manifest::mentions::Mentions;
use crate::manifest::{FILES_PATH, Files, MANIFEST_PATH, Manifest, SCHEMA_VERSION, rules};

/// A valid manifest.
#[derive(Debug)]
pub struct Metadata {
    /// The fields that this program knows.
    pub manifest: Manifest,
    /// The relations as JSON, with the fields that this program does not know.
    pub relations: RawRelations,
    mentions: Mentions,
}

/// The manifest's relations, unchanged: an index repeats them exactly (PSD-009 §6.2.5).
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
        let mentions = Mentions::of(&manifest);
        Ok(Self { manifest, relations, mentions })
    }

    /// Records an entry of the payload for [`Metadata::check_mentions`].
    pub(super) fn add(&mut self, entry: &Entry) {
        self.mentions.add(&entry.archive_path(), matches!(entry.kind, EntryKind::Symlink(_)));
    }

    /// Checks that the payload had every entry that the manifest mentions.
    pub(super) fn check_mentions(&self) -> Result<(), PackageError> {
        self.mentions.missing().into_iter().next().map_or(Ok(()), |line| Err(refuse(line)))
    }
}

/// The rest of the file list. Reading the payload consumes it from the front.
pub(super) struct FileList {
    entries: std::vec::IntoIter<ExpectedFile>,
}

/// Size and hash that a payload file must have.
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
            return Err(refuse(format!(
                "schema_version is {} and algorithm {:?}, expected {SCHEMA_VERSION} and \"sha256\"",
                files.schema_version, files.algorithm
            )));
        }
        let mut entries: Vec<ExpectedFile> = Vec::with_capacity(files.entries.len());
        let mut total: u64 = 0;
        for file in files.entries {
            if entries.last().is_some_and(|previous| previous.path >= file.path) {
                return Err(refuse(format!(
                    "{:?} is not in the order of paths, or is listed twice",
                    file.path
                )));
            }
            let Some(hash) = unhex(&file.hash) else {
                return Err(refuse(format!(
                    "{:?} has a hash that is not 64 lower-case hexadecimal digits",
                    file.path
                )));
            };
            total = total.saturating_add(file.size);
            entries.push(ExpectedFile { path: file.path, size: file.size, hash });
        }
        if total != size_installed {
            return Err(refuse(format!(
                "the files have {total} bytes, but size_installed says {size_installed}"
            )));
        }
        Ok(Self { entries: entries.into_iter() })
    }

    /// Takes the next file, which must be the one at `path`.
    pub(super) fn expect_next(&mut self, path: &str) -> Result<ExpectedFile, PackageError> {
        let missing = || PackageError::entry(path, "is not in files.json at its place");
        self.entries.next().filter(|expected| expected.path == path).ok_or_else(missing)
    }

    /// Checks that the payload had every file of the list.
    pub(super) fn expect_end(&mut self) -> Result<(), PackageError> {
        match self.entries.next() {
            Some(left) => Err(PackageError::entry(&left.path, "is in files.json but not in the archive")),
            None => Ok(()),
        }
    }
}
