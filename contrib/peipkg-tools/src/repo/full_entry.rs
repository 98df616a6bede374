//! An entry of an index with every mandatory field, and the rules that it must keep on its own
//! (PSD-009 §6.2.4). Pure.

use std::borrow::Cow;

use peipkg_format::index_reader::{Compact, FromCompact};
use peipkg_format::package::{check_architecture, check_package_name};
use peipkg_format::package_url::{Place, place};
use peipkg_format::problem::excerpt;
use peipkg_format::repository_layout::package_file_name;
use peipkg_format::version::{Version, VersionError};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::entry::Hash;
use crate::digest::unhex;

/// An entry with every mandatory field. Checks that the lists are lists and does not store them.
#[derive(Deserialize)]
pub(super) struct FullEntry<'a> {
    // Repeats the fields of `Identity`: flattening it would make serde buffer every entry.
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) version: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) architecture: Cow<'a, str>,
    #[serde(rename = "dependencies")]
    _dependencies: Vec<IgnoredAny>,
    #[serde(rename = "conflicts")]
    _conflicts: Vec<IgnoredAny>,
    pub(super) size_compressed: u64,
    #[serde(rename = "size_installed")]
    _size_installed: u64,
    #[serde(borrow)]
    pub(super) hash: Hash<'a>,
    #[serde(borrow)]
    pub(super) url: Cow<'a, str>,
}

impl<'a> FromCompact<'a> for FullEntry<'a> {
    fn from_compact(entry: Compact<'a>) -> Self {
        Self {
            name: entry.name.into(),
            version: entry.version.into(),
            architecture: entry.architecture.into(),
            _dependencies: Vec::new(),
            _conflicts: Vec::new(),
            size_compressed: entry.size_compressed,
            _size_installed: entry.size_installed,
            hash: Hash { algorithm: "sha256".into(), value: entry.hash.into() },
            url: entry.url.into(),
        }
    }
}

impl FullEntry<'_> {
    pub(super) fn file_name(&self) -> String {
        package_file_name(&self.name, &self.version, &self.architecture)
    }

    /// Returns the file name of an unchecked entry, with every character escaped that could forge a
    /// line of the report.
    pub(super) fn shown(&self) -> String {
        self.file_name().escape_debug().to_string()
    }

    /// Returns where the file is, or how the URL is wrong.
    pub(super) fn place(&self) -> Result<Place<'_>, String> {
        place(&self.url).map_err(|error| format!("its url {:?} {error}", excerpt(&self.url)))
    }

    /// Checks the entry on its own.
    ///
    /// # Errors
    /// The first defect, as the end of a sentence that starts with the entry.
    pub(super) fn check(&self) -> Result<Checked<'_>, String> {
        check_package_name(&self.name)?;
        let version = self.version.parse().map_err(|error: VersionError| error.to_string())?;
        check_architecture(&self.architecture)?;
        if self.hash.algorithm != "sha256" || unhex(&self.hash.value).is_none() {
            return Err("has no hash of algorithm sha256 in 64 lower-case hexadecimal digits".to_owned());
        }
        Ok(Checked { version, place: self.place()? })
    }
}

/// The fields of an entry that a check has read.
pub(super) struct Checked<'a> {
    pub(super) version: Version,
    pub(super) place: Place<'a>,
}
