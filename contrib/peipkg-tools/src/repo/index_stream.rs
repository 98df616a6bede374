//! Reads an index entry by entry, and computes its SHA-256 on the way: an index may be far longer
//! than the memory of the machine that checks it. Interprets no entry.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use peipkg_format::index_reader::IndexReader;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::Error;
use sha2::{Digest as _, Sha256};

use super::error::RepoError;
use super::full_entry::FullEntry;
use super::index::{Index, IndexKind};
use crate::chunks::for_each_chunk;
use crate::digest::Digest;

/// An index without its entries, but with their number.
pub(super) type Head = Index<'static, usize>;

/// An index that is being read. Ends at its first error.
pub(super) struct IndexStream<'a> {
    reader: IndexReader<Hashing<'a>>,
    error: Option<Error>,
}

impl<'a> IndexStream<'a> {
    /// Starts at the beginning of `file`.
    pub(super) fn new(file: &'a File) -> Self {
        let source = Hashing { file, at: 0, hasher: Sha256::new() };
        Self { reader: IndexReader::new(source), error: None }
    }

    /// Returns the next entry and its JSON; none at the end, or after an error.
    pub(super) fn next(&mut self) -> Option<(FullEntry<'_>, &str)> {
        if self.error.is_some() {
            return None;
        }
        let read = self
            .reader
            .next_entry()
            .and_then(|entry| entry.map(|entry| entry.read().map(|fields| (fields, entry.json))).transpose());
        read.unwrap_or_else(|error| {
            self.error = Some(error);
            None
        })
    }

    /// Returns the SHA-256 of the whole file, and the head of the index, checked by
    /// [`Index::checked`], or the first error. Call it when there is no further entry.
    pub(super) fn finish(
        self,
        path: &Path,
        kind: IndexKind,
        repo: &str,
    ) -> (Result<Digest, RepoError>, Result<Head, RepoError>) {
        let head = head(&self.reader, self.error);
        let head = head.map_err(|source| RepoError::Json { path: path.to_owned(), source });
        let head = head.and_then(|head| head.checked(path, kind, repo));
        // The rest of a broken index, so that its signature is judged by all of it.
        let mut source = self.reader.into_source();
        let rest =
            for_each_chunk(&mut source, |error| RepoError::io(path, "read the file")(error), |_| Ok(()));
        (rest.map(|()| source.hasher.finalize().into()), head)
    }
}

/// Returns the fields of an index beside its entries. A wrong one comes before `error` in the file.
fn head<R: Read>(reader: &IndexReader<R>, error: Option<Error>) -> Result<Head, Error> {
    fn field<T: DeserializeOwned, R: Read>(
        reader: &IndexReader<R>,
        name: &'static str,
    ) -> Result<Result<T, Error>, Error> {
        Ok(reader.field(name)?.ok_or_else(|| Error::missing_field(name)))
    }
    let (schema_version, index_version) = (field(reader, "schema_version")?, reader.field("index_version")?);
    let (repo, kind) = (field::<String, _>(reader, "repo")?, field::<String, _>(reader, "kind")?);
    let generated_at = field::<String, _>(reader, "generated_at")?;
    if let Some(error) = error {
        return Err(error);
    }
    Ok(Index {
        schema_version: schema_version?,
        repo: repo?.into(),
        kind: kind?.into(),
        index_version: index_version.flatten(),
        generated_at: generated_at?.into(),
        packages: reader.count(),
    })
}

/// Hashes what is read. Keeps its own place in the file, which others read too.
struct Hashing<'a> {
    file: &'a File,
    at: u64,
    hasher: Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}
