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

/// The browse site's page, for people. This file and the next four are in no specification.
pub const SITE_PAGE: &str = "index.html";
/// The browse site's Atom feed.
pub const SITE_FEED: &str = "feed.xml";
/// The directory of the browse site's other files.
pub const SITE_ASSETS: &str = "assets";
/// The browse site's style sheet.
pub const SITE_STYLE: &str = "assets/browse.css";
/// The browse site's script.
pub const SITE_SCRIPT: &str = "assets/browse.js";
/// The browse site's icon.
pub const SITE_ICON: &str = "assets/browse.svg";
/// All files of the browse site, in the order in which they are written: the page needs the others.
pub const SITE: [&str; 5] = [SITE_STYLE, SITE_SCRIPT, SITE_ICON, SITE_FEED, SITE_PAGE];

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

/// Returns the URL that `template`, such as [`PACKAGE_URL`], gives a package.
pub fn package_url(template: &str, name: &str, version: &str, architecture: &str) -> String {
    // No value contains a brace (PSD-009 §2), so no replacement makes a new placeholder.
    template
        .replace("{name}", name)
        .replace("{version}", version)
        .replace("{arch}", architecture)
        .replace("{filename}", &package_file_name(name, version, architecture))
}

/// Returns the name under which a client may keep the repository `name`. It becomes part of a
/// command that people copy, so it has no character with a meaning for a shell.
pub fn handle(name: &str) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let kept: String = name.chars().map(|c| if is_kept(c) { c } else { '-' }).collect();
    match kept.trim_matches(['-', '.']) {
        "" => "packages".to_owned(),
        kept => kept.to_owned(),
    }
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
        for asset in [SITE_STYLE, SITE_SCRIPT, SITE_ICON] {
            assert!(asset.strip_prefix(SITE_ASSETS).is_some_and(|file| file.starts_with('/')));
        }
    }

    #[test]
    fn handle_has_no_character_with_a_meaning_for_a_shell() {
        for (name, expected) in [
            ("official", "official"),
            ("My Repo; rm -rf ~", "My-Repo--rm--rf"),
            ("--help", "help"),
            ("../$(x)", "x"),
            ("漢字", "packages"),
            ("a\n\u{202e}b", "a--b"),
        ] {
            assert_eq!(handle(name), expected, "{name:?}");
        }
    }
}
