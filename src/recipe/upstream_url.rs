//! What an upstream's URL says: which repository it is, and what of it may be shown. Pure.

/// A URL that may be shown: `https://user:secret@host/` without its user info.
/// An ssh URL keeps its user, which is no secret.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    let Some((user_info, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    let path = &rest[authority.len()..];
    match user_info.split_once(':') {
        None if !scheme.starts_with("http") => url.to_owned(),
        Some((user, _)) if !scheme.starts_with("http") => format!("{scheme}://{user}@{host}{path}"),
        _ => format!("{scheme}://{host}{path}"),
    }
}

/// `text` without the user name and password of `url`: a tool may repeat them in its messages.
pub(crate) fn redact(text: &str, url: &str) -> String {
    Secrets::of(url).redact(text)
}

/// What of a URL may not be shown, wherever it appears. It has no `Debug` form.
#[derive(Default)]
pub(crate) struct Secrets {
    /// What to look for, and what to write in its place, in this order. None of it is empty.
    rules: Vec<(String, &'static str)>,
}

impl Secrets {
    /// The secrets in `url`, mostly none.
    pub(crate) fn of(url: &str) -> Self {
        let authority = url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        let user_info =
            authority.and_then(|authority| authority.rsplit_once('@')).map(|(user_info, _)| user_info);
        let user_info = user_info.filter(|_| without_password(url) != url);
        let Some(user_info) = user_info else { return Self::default() };
        let (user, password) = user_info.split_once(':').unwrap_or(("", user_info));
        let mut rules = vec![(format!("{user_info}@"), "")];
        if !user.is_empty() {
            rules.push((format!("{user}@"), ""));
        }
        // A secret of one or two letters is none, and would be found everywhere.
        if password.len() > 2 {
            rules.push((password.to_owned(), "***"));
        }
        Self { rules }
    }

    /// `text` without them.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.rules.iter().fold(text.to_owned(), |text, (secret, shown)| text.replace(secret, shown))
    }

    /// How many bytes at the end of `text` may be the beginning of a secret whose rest is still to come.
    pub(crate) fn begun(&self, text: &str) -> usize {
        let longest = |secret: &str| {
            let lengths = secret.char_indices().map(|(length, _)| length);
            lengths.filter(|length| text.ends_with(&secret[..*length])).max().unwrap_or(0)
        };
        self.rules.iter().map(|(secret, _)| longest(secret)).max().unwrap_or(0)
    }
}

/// What the URLs of one repository have in common: `<host>/<path>`, without
/// scheme, user, port, `.git` and trailing slashes. Two repositories that share
/// a name by chance cost a poll, nothing more; so case does not matter either.
pub(crate) fn repository_name(url: &str) -> String {
    let (authority, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').unwrap_or((rest, "")),
        // git's short form of an ssh URL: [user@]host:path
        None => match url.split_once(':').filter(|(host, _)| !host.contains('/')) {
            Some((host, path)) => (host, path),
            None => ("", url),
        },
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
    format!("{host}/{path}").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_its_secrets() {
        for (url, shown) in [
            ("https://example.org/a@b", "https://example.org/a@b"),
            ("https://token@example.org/x.git", "https://example.org/x.git"),
            ("https://user:p@ss@example.org:8443/x", "https://example.org:8443/x"),
            ("ssh://git@example.org/x", "ssh://git@example.org/x"),
            ("ssh://git:secret@example.org/x", "ssh://git@example.org/x"),
            ("git@example.org:x.git", "git@example.org:x.git"),
            ("file:///srv/x", "file:///srv/x"),
            ("/srv/x", "/srv/x"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn message_is_shown_without_the_urls_secrets() {
        let git = "could not read Password for 'http://ghp_Secret@h.example'";
        assert_eq!(
            redact(git, "http://ghp_Secret@h.example/x.git"),
            "could not read Password for 'http://h.example'"
        );
        let text = "fatal: 'https://me:s3cret@h/x' and s3cret; me@h";
        assert_eq!(redact(text, "https://me:s3cret@h/x"), "fatal: 'https://h/x' and ***; h");
        assert_eq!(redact("git@h: denied", "ssh://git@h/x"), "git@h: denied");
        assert_eq!(redact("plain", "/srv/x"), "plain");
    }

    #[test]
    fn secret_begun_at_the_end_is_noticed() {
        let secrets = Secrets::of("https://me:s3cret@h/x");
        for (text, begun) in [
            ("", 0),
            ("nothing", 0),
            ("https://m", 1),
            ("https://me:s3c", 6),
            ("password s3cre", 5),
            ("me:s3cret", 9),
            ("s3cret.", 0),
        ] {
            assert_eq!(secrets.begun(text), begun, "{text}");
        }
        assert_eq!(Secrets::of("https://h/x").begun("https://h/x"), 0);
    }

    #[test]
    fn urls_of_one_repository_have_one_name() {
        for url in [
            "https://github.com/madler/zlib",
            "https://GitHub.com/madler/zlib.git",
            "https://github.com/madler/zlib/",
            "http://user:pw@github.com:8080/madler/zlib.git/",
            "git@github.com:madler/zlib.git",
            "ssh://git@github.com:22/madler/zlib",
            "git://github.com/madler/zlib",
        ] {
            assert_eq!(repository_name(url), "github.com/madler/zlib", "{url}");
        }
        assert_eq!(repository_name("file:///srv/git/x.git"), "/srv/git/x");
        assert_eq!(repository_name("/srv/git/x.git"), "/srv/git/x");
        assert_eq!(repository_name("http://[::1]:80/x"), "[::1]/x");
        assert_ne!(repository_name("https://a.org/x"), repository_name("https://b.org/x"));
    }
}
