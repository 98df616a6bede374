//! Reads git's answers about the submodules of a tree, and resolves their URLs. Pure.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// A submodule of a tree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Submodule {
    /// Its directory below the tree's root.
    pub(crate) path: OsString,
    /// The id of its commit.
    pub(crate) commit: String,
    /// Its URL as `.gitmodules` has it, if it has one.
    pub(crate) url: Option<String>,
    /// `update = none`: the upstream wants the submodule left out.
    pub(crate) is_left_out: bool,
}

/// Lists the submodules of a tree: `entries` is the output of `git ls-tree -r -d -z`, `settings` of
/// `git config --list -z` for its `.gitmodules`.
pub(crate) fn parse(entries: &[u8], settings: &[u8]) -> Vec<Submodule> {
    #[derive(Default)]
    struct Section {
        path: Vec<u8>,
        url: Option<String>,
        is_left_out: bool,
    }
    let mut sections: HashMap<&[u8], Section> = HashMap::new();
    for line in settings.split(|byte| *byte == 0) {
        let Some((key, value)) = split_at(line, b'\n') else { continue };
        let Some(rest) = key.strip_prefix(b"submodule.") else { continue };
        let Some(dot) = rest.iter().rposition(|byte| *byte == b'.') else { continue };
        let section = sections.entry(&rest[..dot]).or_default();
        match &rest[dot + 1..] {
            b"path" => value.clone_into(&mut section.path),
            b"url" => section.url = Some(String::from_utf8_lossy(value).into_owned()),
            b"update" => section.is_left_out = value == b"none",
            _ => {}
        }
    }
    let by_path: HashMap<&[u8], &Section> =
        sections.values().map(|section| (section.path.as_slice(), section)).collect();
    let entry = |line: &[u8]| {
        let (head, path) = split_at(line, b'\t')?;
        let commit = head.strip_prefix(b"160000 commit ")?;
        let section = by_path.get(path);
        Some(Submodule {
            path: OsString::from_vec(path.to_owned()),
            commit: String::from_utf8(commit.to_owned()).ok()?,
            url: section.and_then(|section| section.url.clone()),
            is_left_out: section.is_some_and(|section| section.is_left_out),
        })
    };
    entries.split(|byte| *byte == 0).filter_map(entry).collect()
}

/// Resolves a submodule's URL as git does: one that begins with `./` or `../` is relative to `base`,
/// the URL of the repository that has the submodule. Unlike git, it never leaves the base's host.
/// `None` if it would.
pub(crate) fn resolve(base: &str, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Some(url.to_owned());
    }
    let base = base.trim_end_matches('/');
    // The path begins after the host: `scheme://host/path`, `host:path` or only `/path`.
    let root = match (base.find("://"), base.find(':')) {
        (Some(scheme), _) => base[scheme + 3..].find('/').map_or(base.len(), |slash| scheme + 3 + slash),
        (None, Some(colon)) if !base[..colon].contains('/') => colon + 1,
        _ => 0,
    };
    let (host, mut directory) = base.split_at(root);
    let mut rest = url;
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            if directory.is_empty() {
                return None;
            }
            directory = &directory[..directory.rfind('/').unwrap_or(0)];
            rest = after;
        } else {
            break;
        }
    }
    // The path after `host:` may begin without a slash.
    let is_absolute = base[root..].starts_with('/') || root == base.len() && !host.ends_with(':');
    let slash = if directory.is_empty() && !is_absolute { "" } else { "/" };
    Some(format!("{host}{directory}{slash}{}", rest.trim_end_matches('/')))
}

fn split_at(line: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let place = line.iter().position(|byte| *byte == separator)?;
    Some((&line[..place], &line[place + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, url: &str, expected: Option<&str>) {
        assert_eq!(resolve(base, url).as_deref(), expected, "{url} of {base}");
    }

    #[test]
    fn submodule_url_relative_is_resolved_within_the_host() {
        for (base, url, expected) in [
            ("https://h/a/app.git", "https://other/lib.git", Some("https://other/lib.git")),
            ("https://h/a/app.git", "../lib.git", Some("https://h/a/lib.git")),
            ("https://u:p@h:8/a/app.git/", "../../b/lib.git/", Some("https://u:p@h:8/b/lib.git")),
            ("https://h/app.git", "./lib.git", Some("https://h/app.git/lib.git")),
            ("https://h/app.git", "../lib.git", Some("https://h/lib.git")),
            ("https://h/app.git", "../../lib.git", None),
            ("https://h", "./lib.git", Some("https://h/lib.git")),
            ("https://h", "../lib.git", None),
            ("git@h:a/app.git", "../lib.git", Some("git@h:a/lib.git")),
            ("git@h:a/app.git", "../../lib.git", Some("git@h:lib.git")),
            ("git@h:app.git", "../lib.git", Some("git@h:lib.git")),
            ("git@h:/app.git", "../lib.git", Some("git@h:/lib.git")),
            ("git@h:app.git", "../../lib.git", None),
            ("/srv/app.git", "../lib.git", Some("/srv/lib.git")),
            ("/app.git", "../lib.git", Some("/lib.git")),
            ("/app.git", "../../lib.git", None),
            ("file:///srv/app.git", ".././lib.git", Some("file:///srv/lib.git")),
            ("/srv/a:b/app.git", "../lib.git", Some("/srv/a:b/lib.git")),
        ] {
            check(base, url, expected);
        }
    }

    #[test]
    fn submodules_are_the_commits_of_the_tree() {
        let entries = b"040000 tree 1a\tdeps\x00160000 commit 2b\tdeps/a\x00160000 commit 3c\todd\n\x00\
                        160000 commit 4d\tc\x00";
        let settings = b"submodule.A.x.path\ndeps/a\x00submodule.A.x.url\n../a.git\x00submodule.b.path\nodd\n\x00\
                         submodule.b.update\nnone\x00core.x\ny\x00submodule.gone.path\nnowhere\x00submodule.flag\x00";
        let submodule = |path: &str, commit: &str, url: Option<&str>, is_left_out| Submodule {
            path: path.into(),
            commit: commit.into(),
            url: url.map(str::to_owned),
            is_left_out,
        };
        assert_eq!(
            parse(entries, settings),
            [
                submodule("deps/a", "2b", Some("../a.git"), false),
                submodule("odd\n", "3c", None, true),
                submodule("c", "4d", None, false),
            ]
        );
    }
}
