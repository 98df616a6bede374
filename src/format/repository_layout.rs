//! The name of every file of a repository, each written once (PSD-009 §6.4). Pure.
//!
//! Names are relative to the repository's root. A URL is the name after a slash. Names of
//! unfinished files do not belong here: they are private to the tool that writes them.

use std::ffi::OsStr;
use std::path::PathBuf;

/// The repository descriptor (PSD-009 §6.4.2).
pub const DESCRIPTOR: &str = "repo.json";
/// The directory of both indexes and their signatures (PSD-009 §6.4.2).
pub const INDEX_DIRECTORY: &str = "index";
/// The index of current versions (PSD-009 §6.4.2).
pub const ACTIVE_INDEX: &str = "index/active.json";
/// The index of all versions (PSD-009 §6.4.2).
pub const ARCHIVE_INDEX: &str = "index/archive.json";
/// The directory of the public keys (PSD-009 §6.4.2).
pub const KEY_DIRECTORY: &str = "keys";
/// The template of the conventional package URLs (PSD-009 §6.4.3). Only new entries get such a URL:
/// [`package_url`](crate::package_url) tells where a published file is.
pub const PACKAGE_URL: &str = "/p/{name}/{version}/{filename}";

/// Returns the name of the detached signature of a document, given by name or by path.
pub fn signature(document: impl AsRef<OsStr>) -> PathBuf {
    let mut name = document.as_ref().to_owned();
    name.push(".sig");
    name.into()
}

/// Returns the name of a public key's file (PSD-009 §6.4.2).
pub fn key(fingerprint: &str) -> String {
    format!("{KEY_DIRECTORY}/{fingerprint}.pub")
}

/// Returns the name of a package file, without its directory (PSD-009 §2.1.4).
pub fn package_file_name(name: &str, version: &str, architecture: &str) -> String {
    format!("{name}_{version}_{architecture}.peipkg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_the_specification() {
        assert_eq!(signature(ACTIVE_INDEX), PathBuf::from("index/active.json.sig"));
        assert_eq!(key("0f"), "keys/0f.pub");
        let file = package_file_name("jq", "1-1", "noarch");
        assert_eq!(file, "jq_1-1_noarch.peipkg");
        for index in [ACTIVE_INDEX, ARCHIVE_INDEX] {
            assert!(index.strip_prefix(INDEX_DIRECTORY).is_some_and(|file| file.starts_with('/')));
        }
    }
}
