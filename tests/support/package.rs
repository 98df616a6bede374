//! The content of published packages, read by the crates zstd and tar and not by our own code.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::farm::Farm;

/// A package file.
pub struct Package {
    /// The file, byte for byte.
    pub bytes: Vec<u8>,
    entries: BTreeMap<String, Vec<u8>>,
}

impl Package {
    /// Reads the package at `path`.
    #[track_caller]
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tar = zstd::decode_all(bytes.as_slice()).expect("a zstd frame");
        let mut entries = BTreeMap::new();
        for entry in tar::Archive::new(tar.as_slice()).entries().expect("a tar stream") {
            let mut entry = entry.expect("a tar entry");
            let name = String::from_utf8(entry.path_bytes().into_owned()).expect("a UTF-8 path");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("a whole entry");
            entries.insert(name, content);
        }
        Self { bytes, entries }
    }

    /// The content of the file `path`; fails the test if the package has no such file.
    #[track_caller]
    pub fn content(&self, path: &str) -> &[u8] {
        let paths: Vec<&String> = self.entries.keys().collect();
        self.entries.get(path).unwrap_or_else(|| panic!("no {path} in {paths:?}"))
    }

    /// The text of the file `path`; fails the test if the package has no such file.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        String::from_utf8_lossy(self.content(path)).into_owned()
    }

    /// The manifest.
    #[track_caller]
    pub fn manifest(&self) -> serde_json::Value {
        serde_json::from_str(&self.text(".peipkg/manifest.json")).expect("a JSON document")
    }
}

impl Farm {
    /// The published noarch package `name` at `version`; fails the test if there is none.
    #[track_caller]
    pub fn package(&self, name: &str, version: &str) -> Package {
        let file = format!("{name}_{version}_noarch.peipkg");
        Package::read(&self.repo_dir().join("p").join(name).join(version).join(file))
    }
}
