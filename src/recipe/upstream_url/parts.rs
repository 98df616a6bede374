//! The parts of an upstream's URL, as git reads it: which of them are secret, and the host. Pure.

/// The parts of a URL.
pub(super) struct Parts<'a> {
    pub(super) text: &'a str,
    /// The text before `://`.
    pub(super) scheme: Option<&'a str>,
    /// The text before the host's `@`.
    pub(super) user_info: Option<&'a str>,
    /// Host and port.
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    /// Query and fragment, with the `?` or `#` before them.
    pub(super) query: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn of(text: &'a str) -> Self {
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
    pub(super) fn hidden_user_info(&self) -> Option<&'a str> {
        self.user_info.filter(|user_info| !user_info.is_empty() && self.shown_user() != Some(user_info))
    }

    /// Returns the user if it is no secret.
    pub(super) fn shown_user(&self) -> Option<&'a str> {
        self.user_info.filter(|_| self.scheme.is_none_or(shows_user)).map(user_of)
    }

    /// Returns the URL without its secrets.
    pub(super) fn shown(&self) -> String {
        self.with_user(self.shown_user())
    }

    /// Returns the URL with the user of `user_info`, without password, query and fragment.
    pub(super) fn with_user(&self, user_info: Option<&str>) -> String {
        let (user, at) = user_info.map_or(("", ""), |user_info| (user_of(user_info), "@"));
        match self.scheme {
            Some(scheme) => format!("{scheme}://{user}{at}{}{}", self.authority, self.path),
            None if self.user_info.is_none() => self.text.to_owned(),
            None if self.authority.is_empty() => format!("{user}{at}{}", self.path),
            None => format!("{user}{at}{}:{}", self.authority, self.path),
        }
    }

    /// Returns the name of the transport in lower case: git allows `https::https://…`.
    pub(super) fn transport(&self) -> String {
        self.scheme.and_then(|scheme| scheme.rsplit("::").next()).unwrap_or_default().to_ascii_lowercase()
    }

    pub(super) fn is_http(&self) -> bool {
        matches!(&*self.transport(), "http" | "https")
    }

    /// Returns the host as written, without port.
    pub(super) fn host(&self) -> &'a str {
        let end = self.authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let port = self.authority[end..].find(':').map_or(self.authority.len(), |colon| end + colon);
        &self.authority[..port]
    }

    /// Returns the name of the repository, see [`UpstreamUrl::repository`].
    pub(super) fn repository(&self) -> String {
        let path = self.path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
        format!("{}/{path}", self.host()).to_ascii_lowercase()
    }
}

/// Returns the place of the first ASCII character for which `is_it` holds, or the end of `text`. Searching
/// for characters instead of bytes takes several times as long.
fn place_of(text: &str, is_it: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(is_it).unwrap_or(text.len())
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

pub(super) fn is_of(scheme: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
}
