//! The two indexes as documents: reading without taking entries apart, and writing (PSD-009 §6.2, §6.3).
//!
//! Entries that are already published stay the text they are: a publish copies
//! them, so that nothing a later version of the format adds is lost.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::error::RepoError;
use super::{ACTIVE, ARCHIVE};
use crate::digest::{Digest, hex};
use crate::manifest::SCHEMA_VERSION;
use crate::package_reader::Package;

/// Longest index that is read, in bytes: a million entries, and a bound on memory.
pub(super) const MAX_INDEX: u64 = 1 << 30;

/// Which index (PSD-009 §9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The current version of every package.
    Active,
    /// Every version of every package.
    Archive,
}

impl Kind {
    /// As `kind` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archive => "archive",
        }
    }

    /// The file's name in the index directory.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Active => ACTIVE,
            Self::Archive => ARCHIVE,
        }
    }
}

/// An index whose packages are `P` (PSD-009 §6.2.2).
#[derive(Debug, Deserialize)]
pub struct Index<'a, P> {
    /// Always 1.
    pub schema_version: u32,
    /// The repository's name.
    #[serde(borrow)]
    pub repo: Cow<'a, str>,
    /// `active` or `archive`.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Grows with each publish.
    pub index_version: Option<u64>,
    /// RFC 3339 in UTC.
    #[serde(borrow)]
    pub generated_at: Cow<'a, str>,
    /// The entries.
    pub packages: P,
}

impl<'a, P: Deserialize<'a>> Index<'a, P> {
    /// Reads the index at `path` from its bytes and checks that it is the one that it should be.
    pub fn parse(path: &Path, bytes: &'a [u8], kind: Kind, repo: &str) -> Result<Self, RepoError> {
        let index: Self = serde_json::from_slice(bytes)
            .map_err(|source| RepoError::Json { path: path.to_owned(), source })?;
        let refuse = |message: String| Err(RepoError::invalid(path, message));
        if index.schema_version != SCHEMA_VERSION {
            return refuse(format!("schema_version {} is not known", index.schema_version));
        }
        if index.kind != kind.as_str() {
            return refuse(format!("kind is {:?}, expected {:?}", index.kind, kind.as_str()));
        }
        if index.repo != repo {
            return refuse(format!("belongs to repository {:?}, expected {repo:?}", index.repo));
        }
        Ok(index)
    }
}

/// An entry as far as merging has to know it.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Package name.
    pub name: Cow<'a, str>,
    /// Package version.
    pub version: Cow<'a, str>,
    /// Architecture identifier.
    pub architecture: Cow<'a, str>,
    /// The whole entry as JSON.
    pub json: &'a str,
}

/// What identifies an entry.
#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    architecture: Cow<'a, str>,
}

impl<'a> Entry<'a> {
    /// Reads what identifies the entry `raw`.
    pub fn parse(raw: &'a RawValue) -> Result<Self, serde_json::Error> {
        let json = raw.get();
        let Identity { name, version, architecture } = serde_json::from_str(json)?;
        Ok(Self { name, version, architecture, json })
    }
}

/// A new entry; fields in the order of PSD-009 §6.2.4.
#[derive(Serialize)]
struct NewEntry<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    description: &'a str,
    license: &'a str,
    homepage: &'a str,
    dependencies: Box<RawValue>,
    optional_dependencies: Box<RawValue>,
    conflicts: Box<RawValue>,
    provides: Box<RawValue>,
    replaces: Box<RawValue>,
    side_effects: &'a [String],
    size_compressed: u64,
    size_installed: u64,
    hash: Hash,
    url: String,
    build: Build<'a>,
}

#[derive(Serialize)]
struct Hash {
    algorithm: &'static str,
    value: String,
}

#[derive(Serialize)]
struct Build<'a> {
    timestamp: &'a str,
    farm_id: &'a str,
}

/// The entry of a package that is fetched from `url`, as compact JSON.
///
/// # Panics
/// Never: the entry has string keys only and cannot fail to serialize.
pub fn entry_json(package: &Package, url: String) -> String {
    let metadata = &package.metadata;
    let manifest = &metadata.manifest;
    let relations = &metadata.relations;
    let entry = NewEntry {
        name: &manifest.name,
        version: &manifest.version,
        architecture: &manifest.architecture,
        description: &manifest.description,
        license: &manifest.license,
        homepage: &manifest.homepage,
        dependencies: compact(&relations.dependencies),
        optional_dependencies: compact(&relations.optional_dependencies),
        conflicts: compact(&relations.conflicts),
        provides: compact(&relations.provides),
        replaces: compact(&relations.replaces),
        side_effects: &manifest.side_effects,
        size_compressed: package.size,
        size_installed: manifest.size_installed,
        hash: Hash { algorithm: "sha256", value: hex(&package.hash) },
        url,
        build: Build { timestamp: &manifest.build.timestamp, farm_id: &manifest.build.farm_id },
    };
    serde_json::to_string(&entry).expect("string keys only")
}

/// The same JSON without white space between its tokens; a manifest may be indented (PSD-009 §3.3.9).
fn compact(json: &RawValue) -> Box<RawValue> {
    let mut text = String::with_capacity(json.get().len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.get().chars() {
        if in_string || !character.is_ascii_whitespace() {
            text.push(character);
        }
        in_string ^= character == '"' && !escaped;
        escaped = in_string && character == '\\' && !escaped;
    }
    RawValue::from_string(text).expect("valid JSON stays valid without the space between its tokens")
}

/// What an index says before its entries.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The repository's name.
    pub repo: &'a str,
    /// See [`Index::index_version`].
    pub index_version: u64,
    /// See [`Index::generated_at`].
    pub generated_at: &'a str,
}

/// Writes an index and returns its SHA-256, which is what its signature is over.
pub fn write(file: File, kind: Kind, header: Header<'_>, entries: &[&str]) -> io::Result<Digest> {
    let name = serde_json::to_string(header.repo)?;
    let mut out = BufWriter::with_capacity(128 * 1024, Hashing { inner: file, hasher: Sha256::new() });
    write!(
        out,
        "{{\"schema_version\":{SCHEMA_VERSION},\"repo\":{name},\"kind\":\"{}\",\"index_version\":{},\"generated_at\":\"{}\",\"packages\":[",
        kind.as_str(),
        header.index_version,
        header.generated_at
    )?;
    for (position, entry) in entries.iter().enumerate() {
        if position > 0 {
            out.write_all(b",")?;
        }
        out.write_all(entry.as_bytes())?;
    }
    out.write_all(b"]}\n")?;
    let hashing = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(hashing.hasher.finalize().into())
}

/// Hashes what is written.
struct Hashing {
    inner: File,
    hasher: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_leaves_strings_alone() {
        let spaced = "[ {\n \"name\" : \"a b\\\" { c\\\\\" ,\t\"x\": [ 1, 2 ] } ]";
        let raw = RawValue::from_string(spaced.to_owned()).unwrap();
        assert_eq!(compact(&raw).get(), "[{\"name\":\"a b\\\" { c\\\\\",\"x\":[1,2]}]");
    }
}
