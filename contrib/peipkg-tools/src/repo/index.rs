//! The two indexes as documents: reading their head, and writing them (PSD-009 §6.2, §6.3).
//!
//! Must not interpret entries: that belongs to `entry`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use peipkg_format::repository_layout as layout;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::error::RepoError;
use crate::digest::Digest;
use crate::manifest::SCHEMA_VERSION;

pub(super) use peipkg_format::regular_file::MAX_INDEX;

/// Bytes that are buffered before a write, so that system calls take no noticeable time.
const BUFFER: usize = 128 * 1024;

/// The two indexes (PSD-009 §9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    /// Lists the current version of every package.
    Active,
    /// Lists every version of every package.
    Archive,
}

impl IndexKind {
    /// Returns the value of the field `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archive => "archive",
        }
    }

    /// Returns the index's name, relative to the repository's root.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => layout::ACTIVE_INDEX,
            Self::Archive => layout::ARCHIVE_INDEX,
        }
    }

    /// Returns the index's path in the repository at `root`.
    pub fn path(self, root: &Path) -> PathBuf {
        root.join(self.name())
    }

    /// Returns the index's name within its directory.
    pub fn file_name(self) -> &'static str {
        self.name().rsplit_once('/').map_or(self.name(), |(_, file_name)| file_name)
    }
}

/// An index whose entries are read as `P` (PSD-009 §6.2.2).
#[derive(Debug, Deserialize)]
pub struct Index<'a, P> {
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The repository's name.
    #[serde(borrow)]
    pub repo: Cow<'a, str>,
    /// `active` or `archive`.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Grows with each publish.
    pub index_version: Option<u64>,
    /// The time of the publish: RFC 3339 in UTC.
    #[serde(borrow)]
    pub generated_at: Cow<'a, str>,
    /// The entries.
    pub packages: P,
}

impl<'a, P: Deserialize<'a>> Index<'a, P> {
    /// Reads the index at `path` from its bytes and checks that it is the index `kind` of the
    /// repository `repo`: a signature alone does not tell one index from another.
    pub fn parse(path: &Path, bytes: &'a [u8], kind: IndexKind, repo: &str) -> Result<Self, RepoError> {
        let index: Self = serde_json::from_slice(bytes)
            .map_err(|source| RepoError::Json { path: path.to_owned(), source })?;
        index.checked(path, kind, repo)
    }
}

impl<P> Index<'_, P> {
    /// Returns the index, read from `path`, if it is the index `kind` of the repository `repo`.
    pub(super) fn checked(self, path: &Path, kind: IndexKind, repo: &str) -> Result<Self, RepoError> {
        let index = self;
        let refuse = |message: String| Err(RepoError::invalid(path, message));
        if index.schema_version != SCHEMA_VERSION {
            return refuse(format!("schema_version is {}, expected {SCHEMA_VERSION}", index.schema_version));
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

/// The fields of an index before its entries.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// See [`Index::repo`].
    pub repo: &'a str,
    /// See [`Index::index_version`].
    pub index_version: u64,
    /// See [`Index::generated_at`].
    pub generated_at: &'a str,
}

/// Writes an index and returns its SHA-256, which its signature covers.
pub fn write(file: File, kind: IndexKind, header: Header<'_>, entries: &[&str]) -> io::Result<Digest> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let mut hasher = Sha256::new();
    let mut put = |text: &str| {
        hasher.update(text);
        out.write_all(text.as_bytes())
    };
    put(&format!(
        "{{\"schema_version\":{SCHEMA_VERSION},\"repo\":{},\"kind\":\"{}\",\"index_version\":{},\"generated_at\":\"{}\",\"packages\":[",
        serde_json::to_string(header.repo)?,
        kind.as_str(),
        header.index_version,
        header.generated_at
    ))?;
    for (position, entry) in entries.iter().enumerate() {
        if position > 0 {
            put(",")?;
        }
        put(entry)?;
    }
    put("]}\n")?;
    out.flush()?;
    Ok(hasher.finalize().into())
}
