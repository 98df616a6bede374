//! The two documents at the head of a package: manifest (PSD-009 §3.3) and file list (PSD-009 §3.5.1).
//!
//! Owns their validity and hands on what a repository index repeats of the
//! manifest. Pure: it gets bytes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use peipkg_manager::identity::{PackageName, check_architecture, check_package_name};
use peipkg_manager::version::Version;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::PackageError;
use super::archive::Kind;
use super::relations;
use crate::cli::Timestamp;
use crate::digest::Digest;
use crate::expression;
use crate::manifest::{FILES_PATH, Files, MANIFEST_PATH, Manifest, SCHEMA_VERSION};

/// Longest security descriptor, in bytes (PSD-009 §3.2.10).
const MAX_SD: usize = 64 * 1024;
/// The header of a self-relative security descriptor, in bytes.
const SD_HEADER: usize = 20;

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
    /// The same as in the manifest, in bytes.
    pub size_installed: u64,
    /// Whether the entry of each override has been met.
    overrides: BTreeMap<String, bool>,
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
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(refuse(format!("schema_version {} is not known", manifest.schema_version)));
        }
        check_package_name(&manifest.name)
            .map_err(|reason| refuse(format!("name {:?} {reason}", manifest.name)))?;
        check_architecture(&manifest.architecture)
            .map_err(|reason| refuse(format!("architecture {:?} {reason}", manifest.architecture)))?;
        let version = manifest.version.parse().map_err(|error| refuse(format!("{error}")))?;
        check_texts(&manifest)?;
        relations::check(&manifest).map_err(refuse)?;
        let overrides = check_overrides(&manifest)?;
        let package =
            PackageName { name: manifest.name.clone(), architecture: manifest.architecture.clone() };
        let size_installed = manifest.size_installed;
        Ok(Self { manifest, package, version, relations, size_installed, overrides })
    }

    /// `<name>_<version>_<architecture>.peipkg` (PSD-009 §2.1.4).
    pub fn file_name(&self) -> String {
        self.package.file_name(&self.version)
    }

    /// Notes that the payload has an entry at `path` (PSD-009 §3.3.5).
    pub(super) fn meet_override(&mut self, path: &str, kind: &Kind) -> Result<(), PackageError> {
        if let Some(met) = self.overrides.get_mut(path) {
            if matches!(kind, Kind::Symlink(_)) {
                return Err(refuse(format!("sd_overrides names {path:?}, which is a symbolic link")));
            }
            *met = true;
        }
        Ok(())
    }

    /// Every override must have had its entry.
    pub(super) fn expect_overrides_met(&self) -> Result<(), PackageError> {
        match self.overrides.iter().find(|(_, met)| !**met) {
            Some((path, _)) => {
                Err(refuse(format!("sd_overrides names {path:?}, which is not in the archive")))
            }
            None => Ok(()),
        }
    }
}

fn check_texts(manifest: &Manifest) -> Result<(), PackageError> {
    let named = |field: &'static str| move |reason: &str| refuse(format!("{field} {reason}"));
    expression::check_description(&manifest.description).map_err(named("description"))?;
    if !manifest.homepage.is_empty() {
        expression::check_homepage(&manifest.homepage).map_err(named("homepage"))?;
    }
    if let Some(root) = &manifest.default_root {
        expression::check_root_reference(root).map_err(named("default_root"))?;
    }
    let unknown = |name: &&String| !expression::SIDE_EFFECTS.contains(&name.as_str());
    if let Some(unknown) = manifest.side_effects.iter().find(unknown) {
        return Err(refuse(format!("side effect {unknown:?} is not known")));
    }
    Timestamp::parse(&manifest.build.timestamp)
        .map_err(|error| refuse(format!("build.timestamp: {error}")))?;
    Ok(())
}

fn check_overrides(manifest: &Manifest) -> Result<BTreeMap<String, bool>, PackageError> {
    if manifest.sd_overrides.len() > 100_000 {
        return Err(refuse("sd_overrides has more than 100000 entries"));
    }
    let mut found = BTreeMap::new();
    let mut previous: Option<&str> = None;
    for one in &manifest.sd_overrides {
        if previous.is_some_and(|previous| previous >= one.path.as_str()) {
            return Err(refuse("sd_overrides is not sorted by path"));
        }
        previous = Some(&one.path);
        let sd = STANDARD_NO_PAD.decode(&one.sd).unwrap_or_default();
        // Revision 1 and room for the header; what the descriptor grants is the installer's to judge.
        if sd.len() < SD_HEADER || sd.len() > MAX_SD || sd[0] != 1 {
            return Err(refuse(format!("the security descriptor of {:?} is malformed", one.path)));
        }
        found.insert(one.path.trim_end_matches('/').to_owned(), false);
    }
    Ok(found)
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
