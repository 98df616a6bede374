//! The documents inside a package: `.peipkg/manifest.json` (PSD-009 §3.3) and
//! `.peipkg/files.json` (PSD-009 §3.5.1). Pure: touches no file.
//!
//! Owns the order of keys and which fields are left out, so that the same inputs give the same
//! bytes. Checks nothing: [`rules`] checks a manifest, [`mentions`] compares it with the payload.

pub mod mentions;
mod read;
pub mod rules;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::read::{list, slots};
use crate::payload::MAX_ENTRIES;

/// The only schema version of every document of the format (PSD-009 §3.3.2).
pub const SCHEMA_VERSION: u32 = 1;

/// The path of the manifest in the archive (PSD-009 §3.2.2).
pub const MANIFEST_PATH: &str = ".peipkg/manifest.json";
/// The path of the file list in the archive (PSD-009 §3.2.2).
pub const FILES_PATH: &str = ".peipkg/files.json";
/// The longest manifest that a consumer must accept, in bytes (PSD-009 §3.2.10).
pub const MAX_MANIFEST: usize = 16 * 1024 * 1024;
/// The longest file list that a consumer must accept, in bytes (PSD-009 §3.2.10).
pub const MAX_FILES: usize = 64 * 1024 * 1024;
/// Most entries of a list of relations (PSD-009 §3.2.10).
pub const MAX_RELATIONS: usize = 10_000;
/// Most entries of `replaces` (PSD-009 §3.2.10).
pub const MAX_REPLACES: usize = 1_000;
/// Most entries of `sd_overrides` (PSD-009 §3.2.10).
pub const MAX_OVERRIDES: usize = 100_000;
/// Most slots of a claim (PSD-009 §3.2.10).
pub const MAX_SLOTS: usize = 64;
/// Most side effects that are read: far more than exist, and each may be listed once.
const MAX_EFFECTS: usize = 1_000;

/// The description of a package (PSD-009 §3.3). Fields have the order of the schema, in which they
/// are written. Reading ignores unknown fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Package name (PSD-009 §2.1).
    pub name: String,
    /// Package version (PSD-009 §2.2).
    pub version: String,
    /// Architecture identifier (PSD-009 §2.3).
    pub architecture: String,
    /// One line of printable characters, or empty.
    #[serde(default)]
    pub description: String,
    /// SPDX expression, or empty.
    #[serde(default)]
    pub license: String,
    /// `http` or `https` URL, or empty.
    #[serde(default)]
    pub homepage: String,
    /// The root that a top-level install goes to (PSD-009 §3.3.6); absent if the
    /// operator chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_root: Option<String>,
    /// Packages that must be installed with it.
    #[serde(deserialize_with = "list::<MAX_RELATIONS, _, _>")]
    pub dependencies: Vec<Dependency>,
    /// Packages that make it more useful.
    #[serde(default, deserialize_with = "list::<MAX_RELATIONS, _, _>")]
    pub optional_dependencies: Vec<Dependency>,
    /// Packages that must not be installed with it.
    #[serde(deserialize_with = "list::<MAX_RELATIONS, _, _>")]
    pub conflicts: Vec<Dependency>,
    /// Virtual names that it satisfies.
    #[serde(default, deserialize_with = "list::<MAX_RELATIONS, _, _>")]
    pub provides: Vec<Provides>,
    /// Packages that it supersedes.
    #[serde(default, deserialize_with = "list::<MAX_REPLACES, _, _>")]
    pub replaces: Vec<Replaces>,
    /// Maintenance operations after an install (PSD-009 §4.3).
    #[serde(default, deserialize_with = "list::<MAX_EFFECTS, _, _>")]
    pub side_effects: Vec<String>,
    /// Sum of the sizes of its regular files, in bytes.
    pub size_installed: u64,
    /// Security descriptors of single payload entries (PSD-009 §3.3.5).
    #[serde(default, deserialize_with = "list::<MAX_OVERRIDES, _, _>")]
    pub sd_overrides: Vec<SdOverride>,
    /// Time, place and source of the build.
    pub build: Build,
}

/// An entry of `dependencies`, `optional_dependencies` or `conflicts` (PSD-009 §4.1.1, §4.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// A package or virtual name.
    pub name: String,
    /// Version constraint (PSD-009 §2.2.8); absent for any version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    /// Architecture qualifier, `any` when present (PSD-009 §4.1.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The root that it is installed to (PSD-009 §3.3.6); absent for the root of the package that
    /// depends on it. A conflict has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Paths at which it expects the provider of the role, by slot (PSD-009 §4.4).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "slots")]
    pub claims: BTreeMap<String, Claim>,
}

/// An entry of `provides` (PSD-009 §4.1.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provides {
    /// A virtual name.
    pub name: String,
    /// Version of the capability, its revision optional; absent for any version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Files that fill the role, by slot (PSD-009 §4.4).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "slots")]
    pub claims: BTreeMap<String, Claim>,
}

/// An entry of `replaces` (PSD-009 §4.1.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaces {
    /// A package name.
    pub name: String,
    /// Version constraint; absent for any version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
}

/// One slot of a claim (PSD-009 §4.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Absolute path of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Absolute path of the file that the link leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A security descriptor for one payload entry (PSD-009 §3.3.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SdOverride {
    /// Path of the entry in the archive.
    pub path: String,
    /// The descriptor in base64 without padding.
    pub sd: String,
}

/// Time, place and source of a build (PSD-009 §3.3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// RFC 3339 in UTC. Also the modification time of every archive entry.
    pub timestamp: String,
    /// Identifier of the farm.
    pub farm_id: String,
    /// The source, such as `git+<url>#refs/tags/<tag>`.
    pub source_ref: String,
    /// Name of the package with the corresponding source, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_package: Option<String>,
}

/// The file list, `.peipkg/files.json` (PSD-009 §3.5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Always `sha256`.
    pub algorithm: String,
    /// One entry per regular file, sorted by path.
    #[serde(deserialize_with = "list::<MAX_ENTRIES, _, _>")]
    pub entries: Vec<FileEntry>,
}

/// One regular file of the payload (PSD-009 §3.5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path of the entry in the archive.
    pub path: String,
    /// Length of the content in bytes.
    pub size: u64,
    /// SHA-256 of the content in lower-case hexadecimal.
    pub hash: String,
}

/// Returns `document` as it is stored: compact JSON and one final newline (PSD-009 §3.3.9).
///
/// # Panics
/// Never: serializing fails only for a map with keys that are not strings, and no document here has
/// one.
pub fn to_json(document: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(document).expect("string keys only");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest manifest of PSD-009 §3.3.2.
    const SMALLEST: &str = r#"{"schema_version":1,"name":"jq","version":"1-1","architecture":"noarch","dependencies":[],
        "conflicts":[],"size_installed":0,"later":{},"build":{"timestamp":"t","farm_id":"f","source_ref":"s"}}"#;

    #[test]
    fn keys_are_in_schema_order_and_empty_lists_are_written() {
        let manifest: Manifest = serde_json::from_str(SMALLEST).unwrap();
        let expected = "{\"schema_version\":1,\"name\":\"jq\",\"version\":\"1-1\",\"architecture\":\"noarch\",\
            \"description\":\"\",\"license\":\"\",\"homepage\":\"\",\"dependencies\":[],\
            \"optional_dependencies\":[],\"conflicts\":[],\"provides\":[],\"replaces\":[],\
            \"side_effects\":[],\"size_installed\":0,\"sd_overrides\":[],\
            \"build\":{\"timestamp\":\"t\",\"farm_id\":\"f\",\"source_ref\":\"s\"}}\n";
        assert_eq!(String::from_utf8(to_json(&manifest)).unwrap(), expected);
    }

    #[test]
    fn relation_without_a_field_leaves_it_out() {
        for text in [
            r#"{"name":"a","constraint":"= 1-1","claims":{"s":{"path":"/usr/bin/a"}}}"#,
            r#"{"name":"a","constraint":"1","arch":"any","root":"initramfs.b","claims":{"s":{"path":"/etc/a"}}}"#,
        ] {
            let dependency: Dependency = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&dependency).unwrap(), text);
        }
        let bare = Provides { name: "b".into(), version: None, claims: BTreeMap::new() };
        assert_eq!(serde_json::to_string(&bare).unwrap(), r#"{"name":"b"}"#);
    }

    #[test]
    fn required_field_missing_is_refused() {
        let without = SMALLEST.replace("\"conflicts\":[],", "");
        let error = serde_json::from_str::<Manifest>(&without).unwrap_err().to_string();
        assert!(error.contains("conflicts"), "{error}");
    }
}
