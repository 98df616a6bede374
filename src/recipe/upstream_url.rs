//! An upstream's URL: its host, its repository, and its text without secrets. Pure.
//!
//! No other file parses URLs. `Display` and `Debug` leave out the secrets, so no message can leak
//! them. git gets the URL in parts: [`UpstreamUrl::address`] may stand on a command line, which every
//! user of the machine can read; [`UpstreamUrl::credentials`] and [`UpstreamUrl::with_query`] may
//! not. A tool's output may repeat secrets: [`UpstreamUrl::secrets`] removes them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use peipkg_format::provenance::percent_encoded;

use crate::recipe::secrets::{Secrets, decoded};

/// The characters that a path of a URI may have beside letters, digits and `-._~` (RFC 3986 §3.3).
const PATH_CHARACTERS: &[u8] = b"/:@!$&'()*+,;=";

/// A URL for git, with its secrets. git cannot take it for an option, and it has no control
/// character.
///
/// A clone shares the text. URLs compare and hash by their whole texts. A farm holds thousands, so
/// this holds no part of the text again.
#[derive(Clone)]
pub struct UpstreamUrl(Arc<Inner>);

struct Inner {
    text: Box<str>,
    /// The host in lower case, if the text has it otherwise.
    host: Option<Box<str>>,
}

/// The user and password with which git logs in over HTTP, decoded. It has no `Debug`, which would
/// show them.
pub(crate) struct Credentials {
    /// The URLs to use it for: the scheme and the host, with its port.
    pub site: String,
    /// The user, or a token.
    pub user: Vec<u8>,
    /// `None` if the URL has no colon after the user.
    pub password: Option<Vec<u8>>,
}

/// Why a text is no [`UpstreamUrl`]. The message begins with the text, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A line feed would forge a log line, and an escape would control a terminal.
    #[error("{shown:?} has the control character {control:?}; expected a URL")]
    Control {
        /// The URL without its secrets.
        shown: String,
        /// The first control character.
        control: char,
    },
    /// git refuses such credentials: they would forge a line of its credential protocol.
    #[error("{shown:?} has an encoded control character in its user or password; expected a URL")]
    EncodedControl {
        /// The URL without its secrets.
        shown: String,
    },
    /// git would take it for an option.
    #[error("{shown:?} starts with '-', like an option; expected a URL")]
    Option {
        /// The URL without its secrets.
        shown: String,
    },
}

/// A URL that every HTTP client reads in one way: `http` or `https`, no user info, query,
/// fragment, dot segment or unusual character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainHttp<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port as written.
    pub authority: &'a str,
    /// The host, see [`UpstreamUrl::host`].
    pub host: &'a str,
}

/// Why a URL is no [`PlainHttp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusual {
    /// The URL is for another transport.
    #[error("it is not an http or https URL")]
    Scheme,
    /// The URL may hold a password.
    #[error("the URL names a user")]
    UserInfo,
    /// The URL has no host, or has a query, a fragment, a dot segment or an unusual character.
    #[error("HTTP clients may read the URL in different ways")]
    Form,
}

impl FromStr for UpstreamUrl {
    type Err = UrlError;

    /// Accepts whatever git might accept: only git knows all forms of URLs.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = Parts::of(text);
        let shown = parts.shown();
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(UrlError::Control { shown, control });
        }
        if text.starts_with('-') {
            return Err(UrlError::Option { shown });
        }
        if decoded(parts.user_info.unwrap_or_default()).iter().any(u8::is_ascii_control) {
            return Err(UrlError::EncodedControl { shown });
        }
        let has_capital = parts.host().contains(|c: char| c.is_ascii_uppercase());
        let host = has_capital.then(|| parts.host().to_ascii_lowercase().into());
        Ok(Self(Arc::new(Inner { text: text.into(), host })))
    }
}

impl UpstreamUrl {
    /// Returns the whole URL with its secrets: for the requests of our own client, never for a
    /// message or a command line.
    pub fn secret_text(&self) -> &str {
        &self.0.text
    }

    /// Returns the URL for git's command line: without password, query and fragment, and without
    /// the user, who may be a token, unless the transport takes it from nowhere else.
    pub(crate) fn address(&self) -> String {
        let parts = Parts::of(&self.0.text);
        let is_known = parts.is_http() || parts.scheme.is_some_and(|s| is_of(s, &["ftp", "ftps", "file"]));
        parts.with_user(if is_known { None } else { parts.user_info })
    }

    /// Returns the credentials in an HTTP URL. git takes none from the URLs of other transports: ssh
    /// reads no password there, and git would show one of an FTP server in its command lines.
    pub(crate) fn credentials(&self) -> Option<Credentials> {
        let parts = Parts::of(&self.0.text);
        let user_info = parts.user_info.filter(|user_info| parts.is_http() && !user_info.is_empty())?;
        let (user, password) = user_info.split_once(':').map_or((user_info, None), |(u, p)| (u, Some(p)));
        let site = format!("{}://{}", parts.transport(), parts.authority);
        Some(Credentials { site, user: decoded(user), password: password.map(decoded) })
    }

    /// Returns an HTTP URL without credentials, but with its query, which may be secret, and the
    /// transport's name in lower case. `None` if the URL has no query.
    pub(crate) fn with_query(&self) -> Option<(String, String)> {
        let parts = Parts::of(&self.0.text);
        let query = parts.query.split('#').next().filter(|query| parts.is_http() && query.len() > 1)?;
        Some((format!("{}{query}", parts.with_user(None)), parts.transport()))
    }

    /// Returns the parts that no message may show.
    pub fn secrets(&self) -> Secrets {
        let parts = Parts::of(&self.0.text);
        Secrets::of_url(parts.hidden_user_info(), parts.query)
    }

    /// Returns the repository as a URI without secrets, such as `git+https://example.org/x.git`, also for
    /// git's other forms. Scheme and host are in lower case, as in-toto demands.
    pub(crate) fn uri(&self) -> String {
        let parts = Parts::of(&self.0.text);
        let host = |text: &str| percent_encoded(text, b":[]%").to_ascii_lowercase();
        let path = percent_encoded(parts.path, PATH_CHARACTERS);
        let user = parts.shown_user().map(|user| user.trim_start_matches('['));
        let user = user.map(|user| percent_encoded(user, b"%") + "@").unwrap_or_default();
        // `[host:port]:path`, but not an IPv6 address.
        let bare = parts.authority.trim_start_matches('[').trim_end_matches(']');
        match parts.authority {
            authority if parts.scheme.is_some() => {
                let (transport, path) = (parts.transport(), path.replace("%25", "%"));
                let scheme = transport.strip_prefix("git+").unwrap_or(&transport);
                format!("git+{scheme}://{user}{}{path}", host(authority))
            }
            "" if path.starts_with('/') => format!("git+file://{path}"),
            "" => format!("git+file:{path}"),
            // `helper::address`
            helper if path.starts_with(':') && user.is_empty() => format!("git+{}{path}", host(helper)),
            authority => {
                let authority = if bare.matches(':').count() < 2 { bare } else { authority };
                format!("git+ssh://{user}{}/{}", host(authority), path.trim_start_matches('/'))
            }
        }
    }

    /// Returns the host, without port, in lower case; an IPv6 address with its brackets. `None` for
    /// a local path.
    pub fn host(&self) -> Option<&str> {
        self.host_of(&Parts::of(&self.0.text))
    }

    /// Returns the host, given the parts of the URL.
    fn host_of<'a>(&'a self, parts: &Parts<'a>) -> Option<&'a str> {
        let host = self.0.host.as_deref().unwrap_or_else(|| parts.host());
        Some(host).filter(|host| !host.is_empty())
    }

    /// Returns the text before `://` as written. `None` for a local path and for git's short form
    /// of an ssh URL.
    pub fn scheme(&self) -> Option<&str> {
        Parts::of(&self.0.text).scheme
    }

    /// Returns the name that all URLs of one repository share: `<host>/<path>` in lower case,
    /// without scheme, user, port, `.git` and trailing slashes. If two repositories have the same
    /// name by chance, a webhook for one also polls the other.
    pub fn repository(&self) -> String {
        Parts::of(&self.0.text).repository()
    }

    /// Returns the parts that an HTTP client needs.
    ///
    /// # Errors
    /// When clients may read the URL in different ways, or it is for another transport.
    pub fn plain_http(&self) -> Result<PlainHttp<'_>, Unusual> {
        let parts = Parts::of(&self.0.text);
        let Parts { scheme, user_info, authority, path, query, .. } = parts;
        let scheme = scheme.filter(|scheme| matches!(*scheme, "http" | "https")).ok_or(Unusual::Scheme)?;
        if user_info.is_some() {
            return Err(Unusual::UserInfo);
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte);
        // Some clients remove dot segments before they send a request.
        let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        let host = self.host_of(&parts).filter(|_| query.is_empty() && !has_dots).ok_or(Unusual::Form)?;
        if !authority.bytes().chain(path.bytes()).all(is_plain) {
            return Err(Unusual::Form);
        }
        Ok(PlainHttp { scheme, authority, host })
    }
}

impl fmt::Display for UpstreamUrl {
    /// Writes the URL without its secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Parts::of(&self.0.text).shown())
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Parts::of(&self.0.text).shown().fmt(f)
    }
}

impl PartialEq for UpstreamUrl {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for UpstreamUrl {}

impl PartialOrd for UpstreamUrl {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UpstreamUrl {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.text.cmp(&other.0.text)
    }
}

impl Hash for UpstreamUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

/// The parts of a URL.
struct Parts<'a> {
    text: &'a str,
    /// The text before `://`.
    scheme: Option<&'a str>,
    /// The text before the host's `@`.
    user_info: Option<&'a str>,
    /// Host and port.
    authority: &'a str,
    path: &'a str,
    /// Query and fragment, with the `?` or `#` before them.
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let Some((scheme, rest)) = text.split_once("://") else { return Self::without_scheme(text) };
        // A password may hold a ? or @ that should be %3F or %40. To hide all of it, the user info
        // reaches to the last @ before the path.
        let slash = place_of(rest, |byte| byte == b'/');
        // So may it hold a / that should be %2F: no host has such a port.
        let (_, host) = split_user_info(rest, slash);
        let host = &host[..place_of(host, |byte| byte == b'/')];
        let port = host.rsplit_once(':').map_or("", |(_, port)| port);
        let is_password = !host.contains('[') && !port.bytes().all(|byte| byte.is_ascii_digit());
        let (user_info, rest) = split_user_info(rest, if is_password { rest.len() } else { slash });
        let (authority, rest) = rest.split_at(place_of(rest, |byte| matches!(byte, b'/' | b'?' | b'#')));
        // For ssh and git's own transports a ? is part of the path. For an unknown transport it may
        // begin a query with secrets.
        let has_no_query = is_of(scheme, &["ssh", "git+ssh", "ssh+git", "git", "file"]);
        let end = if has_no_query { rest.len() } else { place_of(rest, |byte| matches!(byte, b'?' | b'#')) };
        let (path, query) = rest.split_at(end);
        Self { text, scheme: Some(scheme), user_info, authority, path, query }
    }

    /// Splits a local path, or git's short form of an ssh URL: `[user@]host:path`. Takes
    /// `user:password@host…` for credentials, although git would take `user` for the host.
    fn without_scheme(text: &'a str) -> Self {
        let before_path = &text[..text.find('/').unwrap_or(text.len())];
        // A colon after the @ ends the host: `git@host:path@x` has no password.
        let has_password = before_path.split_once('@').is_some_and(|(first, _)| first.contains(':'));
        if let Some(at) = before_path.rfind('@').filter(|_| has_password) {
            let rest = Self::without_scheme(&text[at + 1..]);
            return Self { text, user_info: Some(&text[..at]), ..rest };
        }
        let (user_and_host, path) = split_host(text).unwrap_or(("", text));
        let (user_info, authority) = split_user_info(user_and_host, user_and_host.len());
        Self { text, scheme: None, user_info, authority, path, query: "" }
    }

    /// Returns the user info if it is secret. The user of an ssh URL is none.
    fn hidden_user_info(&self) -> Option<&'a str> {
        self.user_info.filter(|user_info| !user_info.is_empty() && self.shown_user() != Some(user_info))
    }

    /// Returns the user if it is no secret.
    fn shown_user(&self) -> Option<&'a str> {
        self.user_info.filter(|_| self.scheme.is_none_or(shows_user)).map(user_of)
    }

    /// Returns the URL without its secrets.
    fn shown(&self) -> String {
        self.with_user(self.shown_user())
    }

    /// Returns the URL with the user of `user_info`, without password, query and fragment.
    fn with_user(&self, user_info: Option<&str>) -> String {
        let (user, at) = user_info.map_or(("", ""), |user_info| (user_of(user_info), "@"));
        match self.scheme {
            Some(scheme) => format!("{scheme}://{user}{at}{}{}", self.authority, self.path),
            None if self.user_info.is_none() => self.text.to_owned(),
            None if self.authority.is_empty() => format!("{user}{at}{}", self.path),
            None => format!("{user}{at}{}:{}", self.authority, self.path),
        }
    }

    /// Returns the name of the transport in lower case: git allows `https::https://…`.
    fn transport(&self) -> String {
        self.scheme.and_then(|scheme| scheme.rsplit("::").next()).unwrap_or_default().to_ascii_lowercase()
    }

    fn is_http(&self) -> bool {
        matches!(&*self.transport(), "http" | "https")
    }

    /// Returns the host as written, without port.
    fn host(&self) -> &'a str {
        let end = self.authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let port = self.authority[end..].find(':').map_or(self.authority.len(), |colon| end + colon);
        &self.authority[..port]
    }

    /// Returns the name of the repository, see [`UpstreamUrl::repository`].
    fn repository(&self) -> String {
        let path = self.path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
        format!("{}/{path}", self.host()).to_ascii_lowercase()
    }
}

/// Returns the place of the first ASCII character that is wanted, or the end of `text`. A poll calls it
/// many times, and searching for characters instead of bytes takes several times as long.
fn place_of(text: &str, is_wanted: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(is_wanted).unwrap_or(text.len())
}

/// Splits off the text before the last `@` of the first `end` bytes.
fn split_user_info(text: &str, end: usize) -> (Option<&str>, &str) {
    match text.as_bytes()[..end].iter().rposition(|byte| *byte == b'@') {
        Some(at) => (Some(&text[..at]), &text[at + 1..]),
        None => (None, text),
    }
}

/// Splits git's short form `host:path` at its colon, but at none in the brackets of `[host:port]:path`.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let before_path = &text[..text.find('/').unwrap_or(text.len())];
    let start = before_path.find(']').unwrap_or(0);
    let colon = start + before_path[start..].find(':')?;
    Some((&text[..colon], &text[colon + 1..]))
}

/// Returns the user of a user info: the text before the colon, which may be encoded.
fn user_of(user_info: &str) -> &str {
    let encoded = user_info.to_ascii_lowercase().find("%3a").unwrap_or(user_info.len());
    user_info[..encoded].split(':').next().unwrap_or_default()
}

/// Returns whether the user in a URL is only an account name. In other schemes it may be a token.
fn shows_user(scheme: &str) -> bool {
    is_of(scheme, &["ssh", "git+ssh", "ssh+git", "git"])
}

fn is_of(scheme: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests;
