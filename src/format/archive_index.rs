//! The archive index, which lists every published package (PSD-009 §6.3): parsed as a stream,
//! because an index may be far larger than the parts that a caller keeps. Pure.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};

use crate::index_reader::{Compact, FromCompact, IndexReader};
use crate::package::PackageName;
use crate::version::Version;

/// The published packages, for look-ups in memory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Archive {
    /// `<name> <version> <architecture>`; no part can contain a space.
    packages: HashSet<Box<str>>,
}

/// How many of a recipe's packages are published at one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// None of its packages.
    Absent,
    /// Some, but not all. A published version is immutable, so the others can never join it.
    Partial,
    /// All of its packages.
    Complete,
}

/// The fields of a package entry that identify it (PSD-009 §6.2.3).
#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    architecture: Cow<'a, str>,
}

impl<'a> FromCompact<'a> for Identity<'a> {
    fn from_compact(entry: Compact<'a>) -> Self {
        let Compact { name, version, architecture, .. } = entry;
        Self { name: name.into(), version: version.into(), architecture: architecture.into() }
    }
}

impl Archive {
    /// Reads an archive index. Keeps the identities of its packages and nothing else.
    ///
    /// # Errors
    /// When the document is truncated, not JSON, or not an archive index.
    pub fn read(mut index: impl Read) -> Result<Self, serde_json::Error> {
        // The set is made once all are known: while it grows, it hashes each again and again.
        let mut packages = Vec::new();
        // One reader for all sources, so that a program has one copy of it.
        let mut reader = IndexReader::new(&mut index as &mut dyn Read);
        while let Some(entry) = reader.next_entry()? {
            let Identity { name, version, architecture } = entry.read()?;
            packages.push(key(&name, &version, &architecture).into_boxed_str());
        }
        end(&reader).map(|_| Self { packages: packages.into_iter().collect() })
    }

    /// Returns how many of `packages` are published at `version`.
    pub fn presence(&self, packages: &[PackageName], version: &Version) -> Presence {
        match packages.iter().filter(|package| self.has(package, version)).count() {
            0 => Presence::Absent,
            all if all == packages.len() => Presence::Complete,
            _ => Presence::Partial,
        }
    }

    /// Whether `package` is published at `version`.
    pub fn has(&self, package: &PackageName, version: &Version) -> bool {
        self.packages.contains(key(&package.name, version.as_str(), &package.architecture).as_str())
    }

    /// Adds `packages`, which were published at `version`.
    pub fn insert(&mut self, packages: &[PackageName], version: &Version) {
        for package in packages {
            let key = key(&package.name, version.as_str(), &package.architecture);
            self.packages.insert(key.into_boxed_str());
        }
    }

    /// Removes packages.
    pub fn remove(&mut self, packages: &[PackageName], version: &Version) {
        for package in packages {
            self.packages.remove(key(&package.name, version.as_str(), &package.architecture).as_str());
        }
    }

    /// Returns the number of published packages.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether nothing is published.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }
}

fn key(name: &str, version: &str, architecture: &str) -> String {
    [name, version, architecture].join(" ")
}

/// Reads an archive index, passes each package to `each`, and returns the `index_version`, if the
/// index has one.
///
/// # Errors
/// When the document is truncated, not JSON, or not an archive index. By then, `each` may have
/// received packages.
pub fn each_package<E: DeserializeOwned + for<'a> FromCompact<'a>>(
    index: impl Read,
    mut each: impl FnMut(E),
) -> Result<Option<u64>, serde_json::Error> {
    let mut reader = IndexReader::new(index);
    while let Some(entry) = reader.next_entry()? {
        each(entry.read()?);
    }
    end(&reader)
}

/// Returns the `index_version` of an index that was read to its end, if it is an archive index.
fn end(index: &IndexReader<impl Read>) -> Result<Option<u64>, serde_json::Error> {
    match index.field::<String>("kind")? {
        Some(kind) if kind != "archive" => {
            Err(serde_json::Error::custom(format!("found an index of kind {kind:?}, expected \"archive\"")))
        }
        _ => index.field("index_version").map(Option::flatten),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> PackageName {
        PackageName { name: name.into(), architecture: "x86_64".into() }
    }

    fn index(entries: &[(&str, &str)]) -> String {
        let entries: Vec<String> = entries
            .iter()
            .map(|(name, version)| {
                format!(
                    r#"{{"name":"{name}","version":"{version}","architecture":"x86_64","size":1,"provides":[{{"name":"x"}}]}}"#
                )
            })
            .collect();
        format!(
            r#"{{"schema_version":1,"repo":"r","kind":"archive","index_version":3,"packages":[{}]}}"#,
            entries.join(",")
        )
    }

    #[track_caller]
    fn check(archive: &Archive, version: &str, expected: Presence) {
        let packages = [package("tool"), package("tool-doc")];
        assert_eq!(archive.presence(&packages, &version.parse().unwrap()), expected, "{version}");
    }

    #[test]
    fn version_is_present_only_with_all_its_packages() {
        let text = index(&[("tool", "1.0-1"), ("tool-doc", "1.0-1"), ("tool", "1.1-1"), ("other", "1.2-1")]);
        let mut archive = Archive::read(text.as_bytes()).unwrap();
        assert_eq!(archive.len(), 4);
        check(&archive, "1.0-1", Presence::Complete);
        check(&archive, "1.1-1", Presence::Partial);
        check(&archive, "1.2-1", Presence::Absent);
        check(&archive, "1.0-2", Presence::Absent);
        archive.insert(&[package("tool"), package("tool-doc")], &"1.2-1".parse().unwrap());
        check(&archive, "1.2-1", Presence::Complete);
    }

    #[test]
    fn entry_without_end_is_not_held_in_memory() {
        let (head, endless) = (br#"{"kind":"archive","packages":[{"name":""#, std::io::repeat(b'x'));
        let error = Archive::read(head.chain(endless)).unwrap_err().to_string();
        assert!(error.contains("no entry ends within 16777216 bytes"), "{error}");
    }

    #[test]
    fn index_broken_anywhere_is_an_error() {
        let whole = index(&[("tool", "1.0-1"), ("tool-doc", "1.0-1")]);
        for length in 0..whole.len() {
            assert!(Archive::read(&whole.as_bytes()[..length]).is_err(), "{}", &whole[..length]);
        }
        for bad in [
            "[]",
            "{}",
            r#"{"kind":"active","packages":[]}"#,
            r#"{"kind":"archive","packages":[{"name":1}]}"#,
        ] {
            assert!(Archive::read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Archive::read(format!("{whole}x").as_bytes()).is_err());
    }
}
