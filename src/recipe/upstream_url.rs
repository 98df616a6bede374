//! An upstream's URL: which host and repository it means, and what of it may be shown. Pure.
//!
//! No other file takes a URL apart. Whoever prints an [`UpstreamUrl`] prints it without its
//! secrets; [`UpstreamUrl::secret_text`] alone gives the whole, to git and to HTTP requests.
//! The text of a tool may repeat what is secret: [`UpstreamUrl::secrets`] takes it out.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// A URL that git takes, with its secrets. It is no option of git's and has no control
/// character.
///
/// A clone costs a reference. URLs are equal, sorted and hashed as their whole texts are.
/// `Display` and `Debug` show no secret.
#[derive(Clone)]
pub struct UpstreamUrl(Arc<Inner>);

struct Inner {
    text: Box<str>,
    shown: Box<str>,
    repository: Box<str>,
    host: Option<Arc<str>>,
}

/// Why a text is no [`UpstreamUrl`]. The message begins with the text, less its secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A line of a log or of git's input would end within the URL, or a terminal would act on it.
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
    /// Host and port as they were written.
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

    /// Accepts whatever git might: which URLs there are is git's knowledge.
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
    /// The whole URL, with every secret in it: for git and for HTTP requests, never for a
    /// message.
    pub fn secret_text(&self) -> &str {
        &self.0.text
    }

    /// What may not be shown of it.
    pub fn secrets(&self) -> Secrets {
        Secrets::of(&Parts::of(&self.0.text))
    }

    /// The host, without port, in lower case; an IPv6 address keeps its brackets. `None` for a
    /// local path.
    pub fn host(&self) -> Option<&Arc<str>> {
        self.0.host.as_ref()
    }

    /// What stands before `://`, as it is written. `None` for a local path and for git's short
    /// form of an ssh URL.
    pub fn scheme(&self) -> Option<&str> {
        Parts::of(&self.0.text).scheme
    }

    /// What the URLs of one repository have in common: `<host>/<path>` without scheme, user,
    /// port, `.git` and trailing slashes, in lower case. Two repositories that share a name by
    /// chance cost a poll, nothing more.
    pub fn repository(&self) -> &str {
        &self.0.repository
    }

    /// What of it an HTTP client needs.
    ///
    /// # Errors
    /// When clients might read it in different ways, or it is for another transport.
    pub fn plain_http(&self) -> Result<PlainHttp<'_>, Unusual> {
        let Parts { scheme, user_info, authority, path, query, .. } = Parts::of(&self.0.text);
        let scheme = scheme.filter(|scheme| matches!(*scheme, "http" | "https")).ok_or(Unusual::Scheme)?;
        if user_info.is_some() {
            return Err(Unusual::UserInfo);
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte);
        // A client takes dot segments out before it asks.
        let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        let host = self.host().filter(|_| query.is_empty() && !has_dots).ok_or(Unusual::Form)?;
        if !authority.bytes().chain(path.bytes()).all(is_plain) {
            return Err(Unusual::Form);
        }
        Ok(PlainHttp { scheme, authority, host })
    }
}

impl fmt::Display for UpstreamUrl {
    /// The URL without its secrets.
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

/// What of a URL may not be shown, wherever it appears. It has no `Debug` form.
#[derive(Default)]
pub struct Secrets {
    /// What to look for, and what to write in its place, in this order. None of it is empty.
    rules: Vec<(String, &'static str)>,
}

impl Secrets {
    fn of(parts: &Parts<'_>) -> Self {
        /// Shorter secrets are none, and would be found everywhere. In bytes.
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

    /// `text` without them.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.rules.iter().fold(text.to_owned(), |text, (secret, shown)| text.replace(secret, shown))
    }

    /// How many bytes at the end of `text` may be the beginning of a secret whose rest is still
    /// to come.
    pub fn begun(&self, text: &str) -> usize {
        let longest = |secret: &str| {
            let lengths = secret.char_indices().map(|(length, _)| length);
            lengths.filter(|length| text.ends_with(&secret[..*length])).max().unwrap_or(0)
        };
        self.rules.iter().map(|(secret, _)| longest(secret)).max().unwrap_or(0)
    }
}

/// Where the parts of a URL are.
struct Parts<'a> {
    text: &'a str,
    /// What stands before `://`.
    scheme: Option<&'a str>,
    /// What stands before the host's `@`.
    user_info: Option<&'a str>,
    /// Host and port.
    authority: &'a str,
    path: &'a str,
    /// Query and fragment, with the character that begins them.
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let Some((scheme, rest)) = text.split_once("://") else { return Self::without_scheme(text) };
        // A password may have a ? or @ that should have been written as %3F or %40. It is no less
        // secret: the user info reaches to the last @ before the path.
        let slash = rest.find('/').unwrap_or(rest.len());
        let (user_info, rest) = split_user_info(rest, slash);
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // To ssh and to git's own transports a query is a part of the path. An unknown transport may
        // have secrets in it.
        let end = if is_of(scheme, &["ssh", "git+ssh", "ssh+git", "git", "file"]) {
            None
        } else {
            rest.find(['?', '#'])
        };
        let (path, query) = rest.split_at(end.unwrap_or(rest.len()));
        Self { text, scheme: Some(scheme), user_info, authority, path, query }
    }

    /// A local path, or git's short form of an ssh URL: `[user@]host:path`.
    fn without_scheme(text: &'a str) -> Self {
        let (user_and_host, path) =
            text.split_once(':').filter(|(host, _)| !host.contains('/')).unwrap_or(("", text));
        let (user_info, authority) = split_user_info(user_and_host, user_and_host.len());
        Self { text, scheme: None, user_info, authority, path, query: "" }
    }

    /// The user info, if it may not be shown. The user of an ssh URL is no secret.
    fn hidden_user_info(&self) -> Option<&'a str> {
        let (scheme, user_info) = (self.scheme?, self.user_info?);
        (!user_info.is_empty() && (!shows_user(scheme) || user_info.contains(':'))).then_some(user_info)
    }

    /// The URL without its secrets.
    fn shown(&self) -> String {
        let Some(scheme) = self.scheme else { return self.text.to_owned() };
        let user = self.user_info.filter(|_| shows_user(scheme));
        let user = user.map(|user_info| user_info.split(':').next().unwrap_or_default());
        let (user, at) = user.map_or(("", ""), |user| (user, "@"));
        format!("{scheme}://{user}{at}{}{}", self.authority, self.path)
    }

    /// See [`UpstreamUrl::repository`].
    fn repository(&self, host: &str) -> String {
        let path = self.path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
        format!("{host}/{path}").to_ascii_lowercase()
    }
}

/// Splits off what stands before the last `@` of the first `end` bytes.
fn split_user_info(text: &str, end: usize) -> (Option<&str>, &str) {
    match text[..end].rsplit_once('@') {
        Some((user_info, _)) => (Some(user_info), &text[user_info.len() + 1..]),
        None => (None, text),
    }
}

/// Whether the user in a URL is an account only. Elsewhere it may be a token.
fn shows_user(scheme: &str) -> bool {
    is_of(scheme, &["ssh", "git+ssh", "ssh+git", "git"])
}

fn is_of(scheme: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// The host in `authority`, without port, in lower case; an IPv6 address keeps its brackets.
fn host_of(authority: &str) -> String {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let port = authority[end..].find(':').map_or(authority.len(), |colon| end + colon);
    authority[..port].to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
