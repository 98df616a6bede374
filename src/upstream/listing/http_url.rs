//! URLs as git's HTTP transport treats them: what is asked for, and where a redirect
//! leads. Pure. Only plain URLs are taken apart; whatever a client might read in
//! more than one way is `None` here, and git's to read.

/// What is asked for below an upstream's URL: this path, and by this query.
const INFO_REFS: &str = "info/refs?service=git-upload-pack";

/// The parts of an `http` or `https` URL without user info, query and fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HttpUrl<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port as they were written.
    pub authority: &'a str,
}

/// What is unusual about a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusual {
    /// It is for another transport.
    Scheme,
    /// It names a user.
    UserInfo,
    /// It has parts or characters that are not plain.
    Form,
}

impl<'a> HttpUrl<'a> {
    /// Takes `url` apart.
    ///
    /// # Errors
    /// When it is not a plain HTTP URL.
    pub(crate) fn parse(url: &'a str) -> Result<Self, Unusual> {
        let (scheme, rest) = url.split_once("://").ok_or(Unusual::Scheme)?;
        if !matches!(scheme, "http" | "https") {
            return Err(Unusual::Scheme);
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(Unusual::UserInfo);
        }
        let path = &rest[authority.len()..];
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte);
        // A client takes dot segments out before it asks.
        let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        if authority.is_empty() || !rest.bytes().all(is_plain) || has_dots {
            return Err(Unusual::Form);
        }
        Ok(Self { scheme, authority })
    }

    /// The host without port, in lower case.
    pub(crate) fn host(&self) -> String {
        host_of(self.authority)
    }
}

/// The host in `authority`, without port, in lower case; an IPv6 address keeps its brackets.
pub(crate) fn host_of(authority: &str) -> String {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let port = authority[end..].find(':').map_or(authority.len(), |colon| end + colon);
    authority[..port].to_ascii_lowercase()
}

/// `url` with the slash at its end that paths are appended to.
pub(crate) fn base(url: &str) -> String {
    if url.ends_with('/') { url.to_owned() } else { format!("{url}/") }
}

/// What is asked for first.
pub(crate) fn info_refs(base: &str) -> String {
    format!("{base}{INFO_REFS}")
}

/// Where tags are listed.
pub(crate) fn upload_pack(base: &str) -> String {
    format!("{base}git-upload-pack")
}

/// The base that follows from having been redirected to `answered` when [`info_refs`]
/// was asked for. As with git, the redirect must have kept the end of the URL.
pub(crate) fn redirected_base(answered: &str) -> Option<&str> {
    answered.strip_suffix(INFO_REFS)
}

/// The absolute URL that `location` means in an answer from `asked`. `None` if it is not plain.
pub(crate) fn resolve(asked: &str, location: &str) -> Option<String> {
    let (scheme, rest) = asked.split_once("://")?;
    let authority = rest.split('/').next()?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let has_scheme = location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    // A scheme may be written in either case; we compare with the lower one.
    let (scheme, rest) = location.split_once(':').filter(|_| has_scheme)?;
    Some(format!("{}:{rest}", scheme.to_ascii_lowercase()))
}

/// `url` without its query.
pub(crate) fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(url, _)| url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_plain_are_parsed() {
        for (url, scheme, host) in [
            ("https://example.org/a/b.git", "https", "example.org"),
            ("http://Example.ORG:8080/a%20b/", "http", "example.org"),
            ("http://[2001:DB8::1]:80/x", "http", "[2001:db8::1]"),
            ("http://[::1]/x", "http", "[::1]"),
            ("https://example.org", "https", "example.org"),
            ("https://example.org/~user/x@y", "https", "example.org"),
        ] {
            let parsed = HttpUrl::parse(url).unwrap();
            assert_eq!((parsed.scheme, parsed.host().as_str()), (scheme, host), "{url}");
        }
    }

    #[test]
    fn urls_not_plain_are_refused() {
        for (url, expected) in [
            ("ssh://git@example.org/x", Unusual::Scheme),
            ("git@example.org:x.git", Unusual::Scheme),
            ("/srv/x.git", Unusual::Scheme),
            ("HTTPS://example.org/x", Unusual::Scheme),
            ("ext::https://example.org/x", Unusual::Scheme),
            ("https://user@example.org/x", Unusual::UserInfo),
            ("https:///x", Unusual::Form),
            ("https://example.org/x?y=1", Unusual::Form),
            ("https://example.org/x#y", Unusual::Form),
            ("https://example.org/a b", Unusual::Form),
            ("https://example.org/é", Unusual::Form),
            ("https://example.org/a/../b", Unusual::Form),
            ("https://example.org/a/.", Unusual::Form),
            ("https://example.org\\@evil/", Unusual::UserInfo),
        ] {
            assert_eq!(HttpUrl::parse(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn request_urls_and_redirects_are_derived() {
        assert_eq!(info_refs(&base("http://h/x")), "http://h/x/info/refs?service=git-upload-pack");
        assert_eq!(info_refs(&base("http://h/x/")), info_refs(&base("http://h/x")));
        assert_eq!(upload_pack(&base("http://h/x")), "http://h/x/git-upload-pack");
        let base = |answered| redirected_base(answered);
        assert_eq!(base("https://h/y.git/info/refs?service=git-upload-pack"), Some("https://h/y.git/"));
        assert_eq!(base("https://h/y.git/info/refs"), None);
        assert_eq!(base("https://h/login"), None);
    }

    #[test]
    fn locations_are_resolved() {
        let asked = "https://h:1/a/b/info/refs?service=x";
        for (location, expected) in [
            ("http://g/c", Some("http://g/c")),
            ("file:///etc/passwd", Some("file:///etc/passwd")),
            ("HTTPS://G/C", Some("https://G/C")),
            ("//g/c", Some("https://g/c")),
            ("/c?d", Some("https://h:1/c?d")),
            ("c", None),
            ("../c:d", None),
            ("?d", None),
            ("", None),
        ] {
            assert_eq!(resolve(asked, location).as_deref(), expected, "{location}");
        }
    }
}
