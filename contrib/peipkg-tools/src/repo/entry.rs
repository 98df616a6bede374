//! The entries of an index (PSD-009 §6.2.4). Pure.
//!
//! Owns two views of an entry, one for each use by a publish; `full_entry` has the view of `verify`:
//! - [`Entry`]: a publish reads only identity, URL and hash of a published entry and copies its JSON,
//!   so that fields of later format versions survive.
//! - [`entry_json`]: a publish writes the entry of a new package.

use std::borrow::Cow;
use std::fmt;

use peipkg_format::index_reader::{self, Compact, FromCompact};
use peipkg_format::repository_layout as layout;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::digest::hex;
use crate::package_reader::Package;

/// The three fields that identify a package.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) version: Cow<'a, str>,
    pub(super) architecture: Cow<'a, str>,
}

impl Identity<'_> {
    /// Borrows the identity, so that it can be a key while its owner stays in use.
    pub(super) fn borrowed(&self) -> Identity<'_> {
        Identity {
            name: Cow::Borrowed(&self.name),
            version: Cow::Borrowed(&self.version),
            architecture: Cow::Borrowed(&self.architecture),
        }
    }

    /// Copies the identity.
    pub(super) fn owned(&self) -> Identity<'static> {
        let own = |text: &str| Cow::Owned(text.to_owned());
        Identity { name: own(&self.name), version: own(&self.version), architecture: own(&self.architecture) }
    }

    pub(super) fn file_name(&self) -> String {
        layout::package_file_name(&self.name, &self.version, &self.architecture)
    }
}

impl fmt::Display for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.architecture)
    }
}

/// A published entry: its identity and URL, and its JSON unchanged.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub(super) identity: Identity<'a>,
    /// Unchecked; empty if the entry has none, or anything but a text.
    pub(super) url: Cow<'a, str>,
    pub(super) json: &'a str,
    /// When the package was built, unchecked, if that is known without parsing the entry.
    pub(super) built: Option<&'a str>,
}

/// The fields of an [`Entry`].
#[derive(Deserialize)]
struct Fields<'a> {
    // Repeats the fields of `Identity`: flattening it would make serde buffer every entry.
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    architecture: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_empty")]
    url: Cow<'a, str>,
    #[serde(skip)]
    built: Option<&'a str>,
}

impl<'a> FromCompact<'a> for Fields<'a> {
    fn from_compact(entry: Compact<'a>) -> Self {
        Self {
            name: entry.name.into(),
            version: entry.version.into(),
            architecture: entry.architecture.into(),
            url: entry.url.into(),
            built: Some(entry.built),
        }
    }
}

fn text_or_empty<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Cow<'a, str>, D::Error> {
    #[derive(Default, Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let value = <&RawValue>::deserialize(value)?;
    let Text(text) = serde_json::from_str(value.get()).unwrap_or_default();
    Ok(text)
}

impl<'a> Entry<'a> {
    /// Reads the identity and the URL of an entry.
    pub(super) fn read(entry: &index_reader::Entry<'a>) -> Result<Self, serde_json::Error> {
        let Fields { name, version, architecture, url, built } = entry.read()?;
        Ok(Self { identity: Identity { name, version, architecture }, url, json: entry.json, built })
    }

    /// Returns the hash of the package file, unchecked, if the entry has one.
    pub(super) fn hash(&self) -> Option<Hash<'a>> {
        hash_in(self.json)
    }
}

/// Returns the hash in the JSON of an entry, unchecked, if there is one.
pub(super) fn hash_in(json: &str) -> Option<Hash<'_>> {
    #[derive(Deserialize)]
    struct Hashed<'a> {
        #[serde(borrow)]
        hash: Hash<'a>,
    }
    serde_json::from_str(json).ok().map(|Hashed { hash }| hash)
}

/// The hash of a package file (PSD-009 §3.5.2).
#[derive(PartialEq, Eq, Hash, Deserialize, Serialize)]
pub(super) struct Hash<'a> {
    #[serde(borrow)]
    pub(super) algorithm: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) value: Cow<'a, str>,
}

/// A new entry; its fields have the order of PSD-009 §6.2.4.
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
    hash: Hash<'a>,
    url: &'a str,
    build: Build<'a>,
}

#[derive(Serialize)]
struct Build<'a> {
    timestamp: &'a str,
    farm_id: &'a str,
}

/// Returns the entry of a package at `url` as compact JSON.
pub(super) fn entry_json(package: &Package, url: &str) -> String {
    let manifest = &package.metadata.manifest;
    let relations = &package.metadata.relations;
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
        hash: Hash { algorithm: "sha256".into(), value: hex(&package.hash).into() },
        url,
        build: Build { timestamp: &manifest.build.timestamp, farm_id: &manifest.build.farm_id },
    };
    serde_json::to_string(&entry).expect("string keys only")
}

/// Removes the white space between the tokens of `json`: a manifest may be indented, an index is
/// not (PSD-009 §3.3.9). Parsing and writing it again would change numbers and the order of keys.
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
