//! An upstream's URL: its host, its repository, and its text without secrets. Pure.
//!
//! No other file parses URLs. `Display` and `Debug` leave out the secrets, so no message can leak
//! them. git gets the URL in parts: [`UpstreamUrl::address`] may stand on a command line, which every
//! user of the machine can read; [`UpstreamUrl::credentials`] and [`UpstreamUrl::with_query`] may
//! not. A tool's output may repeat secrets: [`UpstreamUrl::secrets`] removes them.

mod parts;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use peipkg_format::provenance::percent_encoded;

use crate::recipe::secrets::{Secrets, decoded};
use crate::recipe::upstream_url::parts::{Parts, is_of};

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
        // Some clients decode a host's name, or take the interface of an IPv6 address from it.
        let is_encoded = authority.contains('%');
        // Some clients remove dot segments before they send a request.
        let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        let host = self
            .host_of(&parts)
            .filter(|_| query.is_empty() && !has_dots && !is_encoded)
            .ok_or(Unusual::Form)?;
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

#[cfg(test)]
mod tests;
