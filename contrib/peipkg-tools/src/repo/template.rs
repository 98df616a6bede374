//! The template that makes the URLs of new packages (PSD-009 §6.4.3). Pure.
//!
//! A template is judged as a whole, whatever is published: one that would give some package a bad
//! URL must not wait for that package. Only a package whose name makes its URL one of the
//! repository's own files is refused by itself.

use peipkg_format::package_url::{Place, UrlError, after_scheme, place};
use peipkg_format::repository_layout as layout;

/// A URL with placeholders.
#[derive(Debug, Clone)]
pub struct Template(String);

/// The names allowed between braces.
const PLACEHOLDERS: [&str; 4] = ["name", "version", "arch", "filename"];

/// A text that is no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {reason}")]
pub struct TemplateError {
    text: String,
    reason: Reason,
}

/// Why a text is no template. Completes a sentence that starts with the text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    /// A brace has no partner, or the name between two braces is unknown.
    #[error(
        "has {0:?}, which is not a placeholder; known are {{name}}, {{version}}, {{arch}} and {{filename}}"
    )]
    Placeholder(String),
    /// Two packages could have one URL.
    #[error("needs {{filename}}, or all of {{name}}, {{version}} and {{arch}}; else packages share a URL")]
    Shared,
    /// A character that no path of a URL has, or that ends the path.
    #[error("has the character {0:?}, expected letters, digits and -._~!$&'()*+,;=:@/ only")]
    Character(char),
    /// A percent escape in a path of the repository.
    #[error("has a %; write the character itself, because files are stored under the text of their URL")]
    Escape,
    /// A `%` without two hexadecimal digits, or an escaped dot, which may lead elsewhere.
    #[error("has a % that is no escape such as %20, or one of a dot")]
    BadEscape,
    /// The host is missing or has a user, a placeholder or another character.
    #[error("has the host {0:?}, expected a name and perhaps a port; no user, no placeholder")]
    Host(String),
    /// The URL of a version with an epoch would look like one with a scheme.
    #[error(
        "puts the colon of a version with an epoch before its first slash, where a scheme has one; \
         begin it with a slash"
    )]
    Epoch,
    /// Each URL that it makes is bad.
    #[error(transparent)]
    Url(UrlError),
}

impl Default for Template {
    fn default() -> Self {
        Self(layout::PACKAGE_URL.to_owned())
    }
}

impl Template {
    /// Reads a template, and checks the URLs that it can make.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let template = Self(text.to_owned());
        match template.fault() {
            Ok(()) => Ok(template),
            Err(reason) => Err(TemplateError { text: text.to_owned(), reason }),
        }
    }

    /// Returns the URL of one package.
    pub fn expand(&self, name: &str, version: &str, architecture: &str) -> String {
        layout::package_url(&self.0, name, version, architecture)
    }

    fn fault(&self) -> Result<(), Reason> {
        let text = self.0.as_str();
        let (literals, found) = split(text)?;
        // A version with an epoch has a colon, which may turn the first part into a scheme.
        let sample = self.expand("aa", "1:1-1", "noarch");
        let has_own_colon = text.split('/').next().is_some_and(|first| first.contains(':'));
        let fault = |error| match error {
            UrlError::Scheme if !has_own_colon => Reason::Epoch,
            error => Reason::Url(error),
        };
        match place(&sample).map_err(fault)? {
            Place::Local(_) if text.contains('%') => return Err(Reason::Escape),
            Place::Local(_) => check_characters(&literals)?,
            Place::Elsewhere(_) => {
                let rest = after_scheme(text).unwrap_or_default();
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                check_host(authority)?;
                check_characters(&split(path)?.0)?;
                check_escapes(path)?;
                for part in path.split('/') {
                    match part {
                        "" => return Err(Reason::Url(UrlError::EmptySegment)),
                        "." | ".." => return Err(Reason::Url(UrlError::Dot)),
                        _ => {}
                    }
                }
            }
        }
        let has = |name: &&str| found.contains(name);
        let is_unique = has(&"filename") || ["name", "version", "arch"].iter().all(has);
        if is_unique { Ok(()) } else { Err(Reason::Shared) }
    }
}

/// Returns the text without its placeholders, and their names.
fn split(text: &str) -> Result<(String, Vec<&str>), Reason> {
    let (mut literals, mut found, mut rest) = (String::new(), Vec::new(), text);
    while let Some(start) = rest.find(['{', '}']) {
        let (literal, tail) = rest.split_at(start);
        let name = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        let Some((name, after)) = name.filter(|(name, _)| PLACEHOLDERS.contains(name)) else {
            let end = tail.find('}').map_or(tail.len(), |end| end + 1);
            return Err(Reason::Placeholder(tail[..end].to_owned()));
        };
        literals.push_str(literal);
        found.push(name);
        rest = after;
    }
    Ok((literals + rest, found))
}

/// Checks the characters of a path (RFC 3986 §3.3).
fn check_characters(literals: &str) -> Result<(), Reason> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
    literals.chars().find(|c| !is_fit(*c)).map_or(Ok(()), |found| Err(Reason::Character(found)))
}

fn check_escapes(path: &str) -> Result<(), Reason> {
    let is_good = |escape: &str| {
        let byte = escape.get(..2).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        byte.is_some_and(|hex| !hex.eq_ignore_ascii_case("2e"))
    };
    if path.split('%').skip(1).all(is_good) { Ok(()) } else { Err(Reason::BadEscape) }
}

/// Checks a host name or address, with or without a port.
fn check_host(authority: &str) -> Result<(), Reason> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().is_ok()),
        _ => (authority, true),
    };
    let is_address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match is_address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    if is_host && port { Ok(()) } else { Err(Reason::Host(authority.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(template: &Template) -> String {
        template.expand("jq", "1-1", "noarch")
    }

    #[test]
    fn template_good_is_expanded() {
        assert_eq!(expand(&Template::default()), "/p/jq/1-1/jq_1-1_noarch.peipkg");
        for (text, url) in [
            ("/pool/{filename}", "/pool/jq_1-1_noarch.peipkg"),
            ("pool/{filename}", "pool/jq_1-1_noarch.peipkg"),
            ("/{filename}", "/jq_1-1_noarch.peipkg"),
            ("/{name}/{version}/{arch}", "/jq/1-1/noarch"),
            ("/a+b~c/{filename}", "/a+b~c/jq_1-1_noarch.peipkg"),
            ("https://x.org/{arch}/{name}-{version}", "https://x.org/noarch/jq-1-1"),
            ("HTTP://127.0.0.1:8000/{filename}", "HTTP://127.0.0.1:8000/jq_1-1_noarch.peipkg"),
            ("http://[::1]:80/f/{filename}", "http://[::1]:80/f/jq_1-1_noarch.peipkg"),
            (
                "https://x.org/group%2Fproject/{filename}",
                "https://x.org/group%2Fproject/jq_1-1_noarch.peipkg",
            ),
            ("https://x.org/.well-known/{filename}/@a", "https://x.org/.well-known/jq_1-1_noarch.peipkg/@a"),
        ] {
            assert_eq!(expand(&Template::parse(text).expect(text)), url);
        }
    }

    #[test]
    fn template_bad_is_refused_whatever_is_published() {
        for (text, expected) in [
            ("", "is empty"),
            ("/p", "needs {filename}, or all of {name}, {version} and {arch}"),
            ("/{name}/{version}", "needs {filename}"),
            ("https://x.org/{name}-{arch}", "needs {filename}"),
            ("/{nmae}", "\"{nmae}\", which is not a placeholder"),
            ("/{name", "\"{name\", which is not a placeholder"),
            ("/name}/{filename}", "\"}\", which is not a placeholder"),
            ("/{na{me}}", "not a placeholder"),
            ("/{} {name}", "not a placeholder"),
            ("/\"{filename}", "the character '\"'"),
            ("/a b/{filename}", "the character ' '"),
            ("/\u{202e}/{filename}", "the character '\\u{202e}'"),
            ("/é/{filename}", "the character 'é'"),
            ("/a\\{filename}", "the character '\\\\'"),
            ("/{filename}?x", "the character '?'"),
            ("/{filename}#x", "the character '#'"),
            ("https://x.org/{filename}?x=y", "the character '?'"),
            ("https://x.org/{filename}#x", "the character '#'"),
            ("/../{filename}", "starts with a dot"),
            ("/pool/../../{filename}", "starts with a dot"),
            ("/./{filename}", "starts with a dot"),
            ("/.pool/{filename}", "starts with a dot"),
            ("https://x.org/../{filename}", "starts with a dot"),
            ("https://x.org/%2E%2e/{filename}", "or one of a dot"),
            ("https://x.org/50%/{filename}", "no escape such as %20"),
            ("/%2e%2e/{filename}", "write the character itself"),
            ("/a%20b/{filename}", "write the character itself"),
            ("/pool//{filename}", "an empty part"),
            ("/pool/{filename}/", "an empty part"),
            ("https://x.org//{filename}", "an empty part"),
            ("https://x.org/{filename}/", "an empty part"),
            ("//x.org/{filename}", "names a host without a scheme"),
            ("javascript:alert({filename})", "expected a path from /, http:// or https://"),
            ("file:///srv/{filename}", "expected a path from /"),
            ("ftp://x.org/{filename}", "expected a path from /"),
            ("https:/x.org/{filename}", "expected a path from /"),
            ("{filename}", "puts the colon of a version with an epoch before its first slash"),
            ("{name}-{version}/{arch}", "begin it with a slash"),
            ("a:{filename}", "has a colon in its first part"),
            ("https:///{filename}", "has no host"),
            ("https://kim:secret@x.org/{filename}", "has the host \"kim:secret@x.org\""),
            ("https://kim@x.org/{filename}", "no user"),
            ("https://{name}.x.org/{filename}", "no placeholder"),
            ("https://x.org{filename}", "has the host"),
            ("https://x.org:99999/{filename}", "has the host"),
            ("https://[::1/{filename}", "has the host"),
            ("/index/{filename}", "keeps its own files"),
            ("/keys/{filename}", "keeps its own files"),
            ("/repo.json/{filename}", "keeps its own files"),
            ("/repo.json-{filename}", "keeps its own files"),
        ] {
            let error = Template::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("{text:?} ")) && error.contains(expected), "{error}");
        }
    }
}
