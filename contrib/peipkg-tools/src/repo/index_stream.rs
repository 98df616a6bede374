//! Reads an index entry by entry, and computes its SHA-256 on the way: an index may be far longer
//! than the memory of the machine that checks it. Interprets no entry.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::path::Path;

use peipkg_format::archive_index::ByEntry;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::entry::FullEntry;
use super::error::RepoError;
use super::index::{Index, IndexKind};
use crate::chunks::{CHUNK, for_each_chunk};
use crate::digest::Digest;

/// Receives the entries of an index, each with its JSON.
pub(super) type Each<'a> = &'a mut dyn FnMut(FullEntry<'_>, &str);

/// Reads the index `file` at `path`, and passes its entries to `each`. Returns its SHA-256, and the
/// index with the number of its entries, checked like [`Index::parse`] does. After an error, `each` may
/// have received entries.
pub(super) fn read(
    path: &Path,
    mut file: &File,
    kind: IndexKind,
    repo: &str,
    each: Each<'_>,
) -> (Result<Digest, RepoError>, Result<Index<'static, usize>, RepoError>) {
    if let Err(error) = file.rewind() {
        let failed = || RepoError::io(path, "read the file");
        return (Err(failed()(error.kind().into())), Err(failed()(error)));
    }
    let since_entry = Cell::new(0);
    let mut reader = Hashing { file, hasher: Sha256::new() };
    let mut count = 0;
    let parsed = {
        let buffered = BufReader::with_capacity(CHUNK, ByEntry::new(&mut reader, &since_entry));
        let mut deserializer = serde_json::Deserializer::from_reader(buffered);
        let mut each = |entry: FullEntry<'_>, json: &str| {
            since_entry.set(0);
            count += 1;
            each(entry, json);
        };
        IndexSeed(&mut each)
            .deserialize(&mut deserializer)
            .and_then(|index| deserializer.end().map(|()| index))
    };
    let index = parsed.map_err(|source| RepoError::Json { path: path.to_owned(), source });
    let index = index.and_then(|index| Index { packages: count, ..index }.checked(path, kind, repo));
    // The rest of a broken index, so that its signature is judged by all of it.
    let Hashing { mut file, mut hasher } = reader;
    let rest = for_each_chunk(
        &mut file,
        |error| RepoError::io(path, "read the file")(error),
        |chunk| {
            hasher.update(chunk);
            Ok(())
        },
    );
    (rest.map(|()| hasher.finalize().into()), index)
}

/// Hashes what is read.
struct Hashing<'a> {
    file: &'a File,
    hasher: Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

/// Reads the index object, and its `packages` with [`PackagesSeed`].
struct IndexSeed<'a>(Each<'a>);

impl DeserializeSeed<'static> for IndexSeed<'_> {
    type Value = Index<'static, usize>;

    fn deserialize<D: Deserializer<'static>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl Visitor<'static> for IndexSeed<'_> {
    type Value = Index<'static, usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index")
    }

    fn visit_map<A: MapAccess<'static>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut schema_version, mut repo, mut kind, mut index_version, mut generated_at) =
            (None, None, None, None, None);
        let (mut has_packages, mut seen) = (false, HashSet::new());
        while let Some(field) = map.next_key::<String>()? {
            if !seen.insert(field.clone()) {
                return Err(A::Error::custom(format!("duplicate field {field:?}")));
            }
            match field.as_str() {
                "schema_version" => schema_version = Some(map.next_value()?),
                "repo" => repo = Some(map.next_value::<String>()?),
                "kind" => kind = Some(map.next_value::<String>()?),
                "index_version" => index_version = map.next_value()?,
                "generated_at" => generated_at = Some(map.next_value::<String>()?),
                "packages" => {
                    map.next_value_seed(PackagesSeed(&mut *self.0))?;
                    has_packages = true;
                }
                _ => drop(map.next_value::<Box<RawValue>>()?),
            }
        }
        let missing = A::Error::missing_field;
        if !has_packages {
            return Err(missing("packages"));
        }
        Ok(Index {
            schema_version: schema_version.ok_or_else(|| missing("schema_version"))?,
            repo: repo.ok_or_else(|| missing("repo"))?.into(),
            kind: kind.ok_or_else(|| missing("kind"))?.into(),
            index_version,
            generated_at: generated_at.ok_or_else(|| missing("generated_at"))?.into(),
            packages: 0,
        })
    }
}

struct PackagesSeed<'a>(Each<'a>);

impl DeserializeSeed<'static> for PackagesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'static>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl Visitor<'static> for PackagesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of packages")
    }

    fn visit_seq<A: SeqAccess<'static>>(self, mut seq: A) -> Result<(), A::Error> {
        // A field that is only skipped may hold bytes that are not UTF-8, which a publish refuses.
        while let Some(json) = seq.next_element::<Box<RawValue>>()? {
            (self.0)(serde_json::from_str(json.get()).map_err(A::Error::custom)?, json.get());
        }
        Ok(())
    }
}
