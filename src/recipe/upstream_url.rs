//! An upstream's URL: its host, its repository, and its text without secrets. Pure.
//!
//! No other file parses URLs. `Display` and `Debug` leave out the secrets, so no message can leak
//! them; only [`UpstreamUrl::secret_text`] returns the whole URL. A tool's output may repeat
//! secrets: [`UpstreamUrl::secrets`] removes them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// A URL for git, with its secrets. git cannot take it for an option, and it has no control
/// character.
///
/// A clone shares the text. URLs compare and hash by their whole texts.
#[derive(Clone)]
pub struct UpstreamUrl(Arc<Inner>);

struct Inner {
    text: Box<str>,
    shown: Box<str>,
    repository: Box<str>,
    host: Option<Arc<str>>,
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
        let host = host_of(parts.authority);
        Ok(Self(Arc::new(Inner {
            text: text.into(),
            shown: shown.into(),
            repository: parts.repository(&host).into(),
            host: Some(host).filter(|host| !host.is_empty()).map(Arc::from),
        })))
    }
}

impl UpstreamUrl {
    /// Returns the whole URL with its secrets: for git and HTTP requests, never for a message.
    pub fn secret_text(&self) -> &str {
        &self.0.text
    }

    /// Returns the parts that no message may show.
    pub fn secrets(&self) -> Secrets {
        Secrets::of(&Parts::of(&self.0.text))
    }

    /// Returns the host, without port, in lower case; an IPv6 address with its brackets. `None` for
    /// a local path.
    pub fn host(&self) -> Option<&Arc<str>> {
        self.0.host.as_ref()
    }

    /// Returns the text before `://` as written. `None` for a local path and for git's short form
    /// of an ssh URL.
    pub fn scheme(&self) -> Option<&str> {
        Parts::of(&self.0.text).scheme
    }

    /// Returns the name that all URLs of one repository share: `<host>/<path>` in lower case,
    /// without scheme, user, port, `.git` and trailing slashes. If two repositories have the same
    /// name by chance, a webhook for one also polls the other.
    pub fn repository(&self) -> &str {
        &self.0.repository
    }

    /// Returns the parts that an HTTP client needs.
    ///
    /// # Errors
    /// When clients may read the URL in different ways, or it is for another transport.
    pub fn plain_http(&self) -> Result<PlainHttp<'_>, Unusual> {
        let Parts { scheme, user_info, authority, path, query, .. } = Parts::of(&self.0.text);
        let scheme = scheme.filter(|scheme| matches!(*scheme, "http" | "https")).ok_or(Unusual::Scheme)?;
        if user_info.is_some() {
            return Err(Unusual::UserInfo);
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte);
        // Some clients remove dot segments before they send a request.
        let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        let host = self.host().filter(|_| query.is_empty() && !has_dots).ok_or(Unusual::Form)?;
        if !authority.bytes().chain(path.bytes()).all(is_plain) {
            return Err(Unusual::Form);
        }
        Ok(PlainHttp { scheme, authority, host })
    }
}

impl fmt::Display for UpstreamUrl {
    /// Writes the URL without its secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.shown)
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.shown.fmt(f)
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

/// The parts of a URL that no message may show. It has no `Debug`, which would show them.
#[derive(Default)]
pub struct Secrets {
    /// Texts to find and their replacements, in the order to apply them. No text to find is empty.
    rules: Vec<(String, &'static str)>,
}

impl Secrets {
    fn of(parts: &Parts<'_>) -> Self {
        /// The shortest secret, in bytes: a shorter one would be found in ordinary words.
        const MIN_SECRET: usize = 3;
        let mut rules = Vec::new();
        if let Some(user_info) = parts.hidden_user_info() {
            let (user, password) = user_info.split_once(':').unwrap_or(("", user_info));
            rules.push((format!("{user_info}@"), ""));
            if !user.is_empty() {
                rules.push((format!("{user}@"), ""));
            }
            if password.len() >= MIN_SECRET {
                rules.push((password.to_owned(), "***"));
            }
        }
        if parts.query.len() > MIN_SECRET {
            rules.push((parts.query.to_owned(), ""));
        }
        Self { rules }
    }

    /// Returns `text` without the secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.rules.iter().fold(text.to_owned(), |text, (secret, shown)| text.replace(secret, shown))
    }

    /// Returns how many bytes at the end of `text` may begin a secret whose rest is still to come.
    pub fn begun(&self, text: &str) -> usize {
        let longest = |secret: &str| {
            let lengths = secret.char_indices().map(|(length, _)| length);
            lengths.filter(|length| text.ends_with(&secret[..*length])).max().unwrap_or(0)
        };
        self.rules.iter().map(|(secret, _)| longest(secret)).max().unwrap_or(0)
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
        let slash = rest.find('/').unwrap_or(rest.len());
        let (user_info, rest) = split_user_info(rest, slash);
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // For ssh and git's own transports a ? is part of the path. For an unknown transport it may
        // begin a query with secrets.
        let end = if is_of(scheme, &["ssh", "git+ssh", "ssh+git", "git", "file"]) {
            None
        } else {
            rest.find(['?', '#'])
        };
        let (path, query) = rest.split_at(end.unwrap_or(rest.len()));
        Self { text, scheme: Some(scheme), user_info, authority, path, query }
    }

    /// Splits a local path, or git's short form of an ssh URL: `[user@]host:path`.
    fn without_scheme(text: &'a str) -> Self {
        let (user_and_host, path) =
            text.split_once(':').filter(|(host, _)| !host.contains('/')).unwrap_or(("", text));
        let (user_info, authority) = split_user_info(user_and_host, user_and_host.len());
        Self { text, scheme: None, user_info, authority, path, query: "" }
    }

    /// Returns the user info if it is secret. The user of an ssh URL is none.
    fn hidden_user_info(&self) -> Option<&'a str> {
        let (scheme, user_info) = (self.scheme?, self.user_info?);
        (!user_info.is_empty() && (!shows_user(scheme) || user_info.contains(':'))).then_some(user_info)
    }

    /// Returns the URL without its secrets.
    fn shown(&self) -> String {
        let Some(scheme) = self.scheme else { return self.text.to_owned() };
        let user = self.user_info.filter(|_| shows_user(scheme));
        let user = user.map(|user_info| user_info.split(':').next().unwrap_or_default());
        let (user, at) = user.map_or(("", ""), |user| (user, "@"));
        format!("{scheme}://{user}{at}{}{}", self.authority, self.path)
    }

    /// Returns the name of the repository, see [`UpstreamUrl::repository`].
    fn repository(&self, host: &str) -> String {
        let path = self.path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
        format!("{host}/{path}").to_ascii_lowercase()
    }
}

/// Splits off the text before the last `@` of the first `end` bytes.
fn split_user_info(text: &str, end: usize) -> (Option<&str>, &str) {
    match text[..end].rsplit_once('@') {
        Some((user_info, _)) => (Some(user_info), &text[user_info.len() + 1..]),
        None => (None, text),
    }
}

/// Returns whether the user in a URL is only an account name. In other schemes it may be a token.
fn shows_user(scheme: &str) -> bool {
    is_of(scheme, &["ssh", "git+ssh", "ssh+git", "git"])
}

fn is_of(scheme: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// Returns the host in `authority`, see [`UpstreamUrl::host`].
fn host_of(authority: &str) -> String {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let port = authority[end..].find(':').map_or(authority.len(), |colon| end + colon);
    authority[..port].to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
