//! The two indexes as documents: reading their head, and writing them (PSD-009 §6.2, §6.3).
//!
//! Must not interpret entries: that belongs to `entry`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use peipkg_format::repository_layout as layout;

use super::error::RepoError;
use super::hashing::Output;
use crate::digest::Digest;
use crate::manifest::SCHEMA_VERSION;

pub(super) use peipkg_format::regular_file::MAX_INDEX;

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
#[derive(Debug)]
pub struct Index<'a, P> {
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The repository's name.
    pub repo: Cow<'a, str>,
    /// `active` or `archive`.
    pub kind: Cow<'a, str>,
    /// Grows with each publish.
    pub index_version: Option<u64>,
    /// The time of the publish: RFC 3339 in UTC.
    pub generated_at: Cow<'a, str>,
    /// The entries.
    pub packages: P,
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

/// Writes an index, entry by entry.
pub(super) struct IndexWriter {
    out: Rc<RefCell<Output>>,
    count: usize,
}

impl IndexWriter {
    /// Writes the fields before the entries. The file will have some `expected` bytes.
    pub(super) fn begin(file: File, kind: IndexKind, header: Header<'_>, expected: u64) -> io::Result<Self> {
        let repo = serde_json::to_string(header.repo)?;
        let head = format!(
            "{{\"schema_version\":{SCHEMA_VERSION},\"repo\":{repo},\"kind\":\"{}\",\"index_version\":{},\"generated_at\":\"{}\",\"packages\":[",
            kind.as_str(),
            header.index_version,
            header.generated_at
        );
        let mut out = Output::new(file, expected);
        out.write_all(head.as_bytes())?;
        Ok(Self { out: Rc::new(RefCell::new(out)), count: 0 })
    }

    /// Returns the file, to hash it beside another.
    pub(super) fn output(&self) -> Rc<RefCell<Output>> {
        Rc::clone(&self.out)
    }

    /// Writes an entry.
    pub(super) fn add(&mut self, json: &str) -> io::Result<()> {
        let mut out = self.out.borrow_mut();
        if self.count > 0 {
            out.write_all(b",")?;
        }
        self.count += 1;
        out.write_all(json.as_bytes())
    }

    /// The number of entries so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Ends the index, and returns its SHA-256, which its signature covers.
    pub(super) fn end(self) -> io::Result<Digest> {
        let mut out = self.out.borrow_mut();
        out.write_all(b"]}\n")?;
        out.end()
    }
}
