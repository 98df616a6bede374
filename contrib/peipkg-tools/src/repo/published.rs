//! An index on the disk as a publish reads it: entry by entry, with its SHA-256 computed on the way.
//!
//! Owns the order of the verdicts on an index: a wrong signature comes before a fault in what it
//! should have signed.

use std::cell::RefCell;
use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use peipkg_format::index_reader::IndexReader;
use peipkg_format::regular_file;
use peipkg_format::repository_layout as layout;

use super::descriptor::KeySet;
use super::entry::Entry;
use super::error::RepoError;
use super::files;
use super::hashing::{Input, Output};
use super::index::{Index, IndexKind, MAX_INDEX};
use crate::signature::{Envelope, MAX_ENVELOPE};

/// An open index. It stays the same when a publish replaces it.
pub(super) struct StoredIndex {
    pub(super) path: PathBuf,
    kind: IndexKind,
    file: File,
    /// Its signature; empty if nobody asks for it.
    signature: Vec<u8>,
}

/// The fields of an index beside its entries.
pub(super) struct Head {
    pub(super) index_version: u64,
    pub(super) generated_at: String,
}

/// Receives each entry that has an identity.
pub(super) type Watch<'a> = &'a mut dyn FnMut(&Entry<'_>);

impl StoredIndex {
    /// Opens the index at `path`.
    pub(super) fn open(path: PathBuf, kind: IndexKind) -> Result<Self, RepoError> {
        let file = regular_file::open_up_to(&path, MAX_INDEX);
        let file = file.map_err(RepoError::io(&path, "read the file"))?;
        Ok(Self { path, kind, file, signature: Vec::new() })
    }

    /// Opens the index `kind` of the repository at `root`, and reads its signature: the next publish
    /// would bring another.
    pub(super) fn open_signed(root: &Path, kind: IndexKind) -> Result<Self, RepoError> {
        let index = Self::open(kind.path(root), kind)?;
        let signature = files::read(&layout::signature(&index.path), MAX_ENVELOPE as u64)?;
        Ok(Self { signature, ..index })
    }

    /// Returns the file, to read parts of it again.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the fingerprint of the key that allegedly made the signature.
    pub(super) fn signer(&self) -> Result<String, RepoError> {
        let path = layout::signature(&self.path);
        let envelope = Envelope::parse(&self.signature);
        let envelope = envelope.map_err(|source| RepoError::Signature { path, source })?;
        Ok(envelope.fingerprint().to_owned())
    }

    /// Starts to read the entries. `watch` receives all, also those that only [`Entries::end`] reads.
    pub(super) fn entries<'a>(&'a self, watch: Watch<'a>) -> Result<Entries<'a>, RepoError> {
        self.entries_beside(None, watch)
    }

    /// Does the same, and hashes `output` at the same time.
    pub(super) fn entries_beside<'a>(
        &'a self,
        output: Option<Rc<RefCell<Output>>>,
        watch: Watch<'a>,
    ) -> Result<Entries<'a>, RepoError> {
        (&self.file).rewind().map_err(RepoError::io(&self.path, "read the file"))?;
        let reader = IndexReader::new(Input::new(&self.file, output));
        Ok(Entries { index: self, reader, watch, only_head: false, broken: None, fault: None })
    }

    /// Passes the entries to `each`, with their numbers from 1, and returns the head of an index of the
    /// repository `repo`. Checks no signature.
    pub(super) fn each(
        &self,
        repo: &str,
        mut each: impl FnMut(usize, &Entry<'_>) -> Result<(), RepoError>,
    ) -> Result<Head, RepoError> {
        let mut nothing = |_: &Entry<'_>| ();
        let mut entries = self.entries(&mut nothing)?;
        let mut number = 0;
        while let Some((_, entry)) = entries.next() {
            number += 1;
            entry.map_or(Ok(()), |entry| each(number, &entry))?;
        }
        entries.broken.take().map_or_else(|| entries.head(repo), Err)
    }

    /// Returns the head of an index of the repository `repo`. Reads no further than the first entry if
    /// all of the head comes before it. Checks no signature.
    pub(super) fn head(&self, repo: &str) -> Result<Head, RepoError> {
        let mut nothing = |_: &Entry<'_>| ();
        let mut entries = self.entries(&mut nothing)?;
        while entries.next().is_some() && !entries.reader.has_all_fields() {}
        entries.broken.take().map_or_else(|| entries.head(repo), Err)
    }

    /// Reads the index to its end, and returns its head, if a key of `trusted` signed it, and it is one
    /// of the repository `repo`.
    pub(super) fn check(&self, trusted: &KeySet, repo: &str) -> Result<Head, RepoError> {
        let mut nothing = |_: &Entry<'_>| ();
        self.entries(&mut nothing)?.end(trusted, repo).map(|(head, _)| head)
    }

    /// Does the same for an index whose entries nobody needs. Only hashes those that follow the head.
    pub(super) fn check_head(&self, trusted: &KeySet, repo: &str) -> Result<Head, RepoError> {
        let mut nothing = |_: &Entry<'_>| ();
        let entries = Entries { only_head: true, ..self.entries(&mut nothing)? };
        entries.end(trusted, repo).map(|(head, _)| head)
    }

    fn error(&self, source: serde_json::Error) -> RepoError {
        if source.is_io() {
            return RepoError::io(&self.path, "read the file")(source.into());
        }
        RepoError::Json { path: self.path.clone(), source }
    }
}

/// The entries of an index while they are read.
pub(super) struct Entries<'a> {
    index: &'a StoredIndex,
    reader: IndexReader<Input<'a>>,
    watch: Watch<'a>,
    /// Whether nobody needs the entries.
    only_head: bool,
    /// Why the document cannot be read on.
    broken: Option<RepoError>,
    /// The first entry without an identity.
    fault: Option<RepoError>,
}

impl Entries<'_> {
    /// Returns the next entry, and the place of its JSON in the file. No entry if it has no identity,
    /// and nothing at the end or where the document is broken; [`Entries::end`] says which.
    pub(super) fn next(&mut self) -> Option<(u64, Option<Entry<'_>>)> {
        let raw = match self.reader.next_entry() {
            Ok(entry) => entry?,
            Err(error) => {
                self.broken = Some(self.index.error(error));
                return None;
            }
        };
        match Entry::read(&raw) {
            Ok(entry) => {
                (self.watch)(&entry);
                Some((raw.at, Some(entry)))
            }
            Err(error) => {
                let path = &self.index.path;
                self.fault.get_or_insert_with(|| RepoError::invalid(path, error.to_string()));
                Some((raw.at, None))
            }
        }
    }

    /// Reads on to the end, and returns the head and the verdict on the entries, if a key of `trusted`
    /// signed the index, and it is one of the repository `repo`.
    ///
    /// # Errors
    /// The first of these: the file cannot be read, the signature is wrong, the document is broken, it
    /// is another index.
    pub(super) fn end(
        mut self,
        trusted: &KeySet,
        repo: &str,
    ) -> Result<(Head, Result<(), RepoError>), RepoError> {
        let is_enough = |entries: &Self| entries.only_head && entries.reader.has_all_fields();
        while self.broken.is_none() && !is_enough(&self) && self.next().is_some() {}
        let head = self.head(repo);
        let Self { index, reader, broken, fault, .. } = self;
        let digest = reader.into_source().end().map_err(RepoError::io(&index.path, "read the file"))?;
        trusted.check_digest(&index.path, &digest, &index.signature)?;
        match broken {
            Some(error) => Err(error),
            None => Ok((head?, fault.map_or(Ok(()), Err))),
        }
    }

    /// Returns the head as far as it has been read.
    fn head(&self, repo: &str) -> Result<Head, RepoError> {
        let missing = |name: &'static str| self.index.error(serde::de::Error::missing_field(name));
        let error = |error| self.index.error(error);
        let text = |name| self.reader.field::<String>(name).map_err(error);
        let schema_version = self.reader.field("schema_version").map_err(error)?;
        let index = Index {
            schema_version: schema_version.ok_or_else(|| missing("schema_version"))?,
            repo: text("repo")?.ok_or_else(|| missing("repo"))?.into(),
            kind: text("kind")?.ok_or_else(|| missing("kind"))?.into(),
            index_version: self.reader.field("index_version").map_err(error)?.flatten(),
            generated_at: text("generated_at")?.ok_or_else(|| missing("generated_at"))?.into(),
            packages: self.reader.count(),
        };
        let index = index.checked(&self.index.path, self.index.kind, repo)?;
        Ok(Head {
            index_version: index.index_version.unwrap_or(0),
            generated_at: index.generated_at.into_owned(),
        })
    }
}
