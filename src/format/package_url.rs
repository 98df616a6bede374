//! Where the file of an index entry is, by its `url` (PSD-009 §6.2.7, §6.4.6). Pure.
//!
//! The one way from an entry to a path: the tools store, carry over and verify packages by it, and
//! the manager judges and uploads publishes by it. Another tool may have signed any `url`, so only
//! a path that [`place`] returns may be opened.

use crate::printable::is_printable;
use crate::repository_layout::{DESCRIPTOR, INDEX_DIRECTORY, KEY_DIRECTORY, SITE};

/// Where a file is. Two packages with equal places share a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place<'a> {
    /// Below the repository, at this path relative to its root: names joined by single slashes,
    /// none of them hidden.
    Local(&'a str),
    /// On a server, at this http or https URL. The repository has no file.
    Elsewhere(&'a str),
}

/// Why a URL names no place. Completes a sentence that starts with the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The entry has none.
    #[error("is empty, expected a path from /, http:// or https://")]
    Empty,
    /// `javascript:`, `file:`, or an http URL without two slashes.
    #[error("has a colon in its first part, as a scheme has; expected a path from /, http:// or https://")]
    Scheme,
    /// `https:///x`.
    #[error("has no host")]
    NoHost,
    /// `//host/x`.
    #[error("starts with //, which names a host without a scheme; expected one slash, http:// or https://")]
    Host,
    /// A character that ends the path, that browsers take for a slash, or that nobody can see.
    #[error("has the character {0:?}, which no path in a repository may have")]
    Character(char),
    /// Two slashes in a row, or one at the end.
    #[error("has an empty part between two slashes or at its end")]
    EmptySegment,
    /// `.`, `..`, or a name of unfinished work, which no upload copies.
    #[error("has a part that starts with a dot; such names lead out of the repository or are work files")]
    Dot,
    /// A file of the repository itself.
    #[error("is where the repository keeps its own files")]
    Reserved,
}

/// The names at the root of a repository that are no place for packages: the tools and the uploader
/// treat everything there as indexes, keys, or the system's own.
const RESERVED: [&str; 3] = [INDEX_DIRECTORY, KEY_DIRECTORY, "lost+found"];

/// Returns where the file of an entry with this `url` is.
///
/// Takes percent escapes as they are: `/p/a%2Bb` is stored as `a%2Bb`, as deployed tools do.
///
/// # Errors
/// When the URL leads out of the repository, or to a file of its own.
#[inline]
pub fn place(url: &str) -> Result<Place<'_>, UrlError> {
    let place = below(url)?;
    if let Place::Local(path) = place {
        let first = path.split('/').next().unwrap_or_default();
        // The uploader takes every `repo.json*` for the descriptor or a form of it.
        let is_site =
            |own: &&str| path.strip_prefix(*own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if RESERVED.contains(&first) || first.starts_with(DESCRIPTOR) || SITE.iter().any(is_site) {
            return Err(UrlError::Reserved);
        }
    }
    Ok(place)
}

/// Returns the place of any file of a repository, its own included, such as a public key.
///
/// # Errors
/// When the URL leads out of the repository.
#[inline]
pub fn below(url: &str) -> Result<Place<'_>, UrlError> {
    plain(url).map_or_else(|| any(url), |path| Ok(Place::Local(path)))
}

/// Returns the path in a URL if [`any`] would, and if one pass over its bytes can tell: an index has
/// many URLs, nearly all of them like this.
// Inline, so that the crate of a caller decides how this is optimised.
#[inline]
fn plain(url: &str) -> Option<&str> {
    let path = url.strip_prefix('/')?;
    let mut previous = b'/';
    for byte in path.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-'..=b':' | b'_' | b'~');
        if !is_plain || previous == b'/' && matches!(byte, b'/' | b'.') {
            return None;
        }
        previous = byte;
    }
    (previous != b'/').then_some(path)
}

fn any(url: &str) -> Result<Place<'_>, UrlError> {
    if url.is_empty() {
        return Err(UrlError::Empty);
    }
    // Browsers take a backslash for a slash.
    let is_unfit = |c: char| c == '\\' || !is_printable(c);
    if let Some(rest) = after_scheme(url) {
        if let Some(found) = url.chars().find(|c| is_unfit(*c) || c.is_whitespace()) {
            return Err(UrlError::Character(found));
        }
        let has_host = !rest.starts_with(['/', '?', '#', ':']) && !rest.is_empty();
        return if has_host { Ok(Place::Elsewhere(url)) } else { Err(UrlError::NoHost) };
    }
    if url.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err(UrlError::Scheme);
    }
    if url.starts_with("//") {
        return Err(UrlError::Host);
    }
    // No server sees what follows `?` or `#` as a path.
    if let Some(found) = url.chars().find(|c| is_unfit(*c) || matches!(c, '?' | '#')) {
        return Err(UrlError::Character(found));
    }
    let path = url.strip_prefix('/').unwrap_or(url);
    for part in path.split('/') {
        if part.is_empty() {
            return Err(UrlError::EmptySegment);
        }
        if part.starts_with('.') {
            return Err(UrlError::Dot);
        }
    }
    Ok(Place::Local(path))
}

/// Returns what follows `http://` or `https://`, in either case of letters.
pub fn after_scheme(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use super::*;

    #[test]
    fn url_local_is_the_path_below_the_repository() {
        for (url, path) in [
            ("/p/jq/1.7-1/jq_1.7-1_noarch.peipkg", "p/jq/1.7-1/jq_1.7-1_noarch.peipkg"),
            ("pool/a", "pool/a"),
            ("/a_1:2-1_noarch.peipkg", "a_1:2-1_noarch.peipkg"),
            ("pool/1:2~rc+x-1", "pool/1:2~rc+x-1"),
            ("/p/a%2Bb", "p/a%2Bb"),
            ("/p/%2e%2e/b", "p/%2e%2e/b"),
            ("/a..b/c.", "a..b/c."),
            ("/@a/x", "@a/x"),
            ("/indexes/a", "indexes/a"),
            ("/p/index/keys", "p/index/keys"),
            ("/repo/json", "repo/json"),
        ] {
            assert_eq!(place(url), Ok(Place::Local(path)), "{url}");
        }
    }

    #[test]
    fn url_of_a_server_is_elsewhere() {
        for url in [
            "https://example.org/f/a.peipkg",
            "http://[::1]:8000/x",
            "HTTPS://Example.org/",
            "https://example.org/x?a=b&c=%2F#d",
            "https://kim@example.org/../x",
        ] {
            assert_eq!(place(url), Ok(Place::Elsewhere(url)), "{url}");
        }
    }

    #[test]
    fn url_that_leads_out_or_to_other_files_is_refused() {
        use UrlError::{Character, Dot, Empty, EmptySegment, Host, NoHost, Reserved, Scheme};
        for (url, error) in [
            ("", Empty),
            ("/", EmptySegment),
            ("//", Host),
            ("//example.org/x", Host),
            ("///etc/passwd", Host),
            ("/p//x", EmptySegment),
            ("/p/x/", EmptySegment),
            ("/..", Dot),
            ("../x", Dot),
            ("/p/../../etc/passwd", Dot),
            ("/p/./x", Dot),
            ("/p/...", Dot),
            ("/.lock", Dot),
            ("/p/.x.peipkg", Dot),
            ("/p\\..\\x", Character('\\')),
            ("/\\example.org/x", Character('\\')),
            ("/p/x?y", Character('?')),
            ("/p/x#y", Character('#')),
            ("/p/a\nb", Character('\n')),
            ("/p/a\0", Character('\0')),
            ("/p/x\u{202e}y", Character('\u{202e}')),
            ("/p/x\u{200b}", Character('\u{200b}')),
            ("/p/x\u{2028}", Character('\u{2028}')),
            ("https://x.org/\u{ad}", Character('\u{ad}')),
            ("javascript:alert(1)", Scheme),
            ("file:///etc/passwd", Scheme),
            ("ftp://example.org/x", Scheme),
            ("https:/example.org/x", Scheme),
            ("a_1:2-1_noarch.peipkg", Scheme),
            (" https://example.org/x", Scheme),
            ("https:///x", NoHost),
            ("http://", NoHost),
            ("https://:80/x", NoHost),
            ("https://a b/x", Character(' ')),
            ("https://a\\b/x", Character('\\')),
            ("/repo.json", Reserved),
            ("repo.json.sig", Reserved),
            ("/repo.json.gz", Reserved),
            ("/index/active.json", Reserved),
            ("/index", Reserved),
            ("/keys/0f.pub", Reserved),
            ("/lost+found/x", Reserved),
            ("/index.html", Reserved),
            ("/feed.xml/x", Reserved),
            ("/assets/browse.css", Reserved),
        ] {
            assert_eq!(place(url), Err(error), "{url:?}");
        }
        assert_eq!(below("/keys/0f.pub"), Ok(Place::Local("keys/0f.pub")));
    }

    #[test]
    fn url_of_any_text_never_leads_out() {
        const PARTS: [&str; 22] = [
            "/",
            "//",
            ".",
            "..",
            "../",
            "/..",
            ":",
            "http",
            "https",
            "://",
            "\\",
            "?",
            "#",
            "%2e",
            "\0",
            "\n",
            "p",
            "index",
            "keys",
            "repo.json",
            "@",
            "é",
        ];
        let (mut state, mut locals, mut plains) = (1_u64, 0, 0);
        let mut next = || {
            // Marsaglia's xorshift: the same texts in each run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 32).expect("32 bits")
        };
        for _ in 0..200_000 {
            let length = next() % 8;
            let url: String = (0..length).map(|_| PARTS[next() % PARTS.len()]).collect();
            if let Some(path) = plain(&url) {
                assert_eq!(any(&url), Ok(Place::Local(path)), "{url:?}");
                plains += 1;
            }
            let Ok(Place::Local(path)) = place(&url) else { continue };
            locals += 1;
            assert!(url.ends_with(path) && url.len() - path.len() <= 1, "{url:?}");
            // As the system takes the path apart.
            let names: Vec<_> = Path::new(path)
                .components()
                .map(|part| match part {
                    Component::Normal(name) => name.to_str().expect("from a text"),
                    other => panic!("{url:?}: {other:?}"),
                })
                .collect();
            assert_eq!(names.join("/"), path);
            assert!(!names.iter().any(|name| name.starts_with('.')), "{url:?}");
            assert!(!["index", "keys", "repo.json"].contains(&names[0]), "{url:?}");
        }
        assert!(locals > 1_000 && plains > 500, "{locals} {plains}");
    }
}
