//! Decides whether an upstream is listed natively or by `git ls-remote`. Pure.
//!
//! Native listing is for the plain case only. If the environment, git's configuration or the netrc
//! file might change what git sends, or to whom, git lists; when in doubt, git lists too. A
//! `credential.helper` for all hosts is no reason: git asks the helper only after a 401, and after
//! a 401 to the native listing git lists anyway.

use crate::recipe::upstream_url::{PlainHttp, UpstreamUrl};

/// A way to list an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// By our own HTTP client.
    Native,
    /// By git, for this reason.
    Git(String),
}

/// The settings of this machine that can change what git sends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Environment variables; see [`is_relevant_variable`].
    pub environment: Vec<(String, String)>,
    /// git's configuration: keys as `git config --list` writes them, and values.
    pub configuration: Vec<(String, String)>,
    /// The text of the netrc file.
    pub netrc: String,
    /// Why some of the above could not be read. git then lists every upstream.
    pub unreadable: Option<String>,
}

impl Settings {
    /// Decides the way for `url`.
    pub(crate) fn way(&self, url: &UpstreamUrl) -> Way {
        match url.plain_http() {
            Ok(plain) => self.way_of(url, plain),
            Err(unusual) => Way::Git(unusual.to_string()),
        }
    }

    /// Decides the way for `url`, whose parts are `plain`.
    pub(crate) fn way_of(&self, url: &UpstreamUrl, plain: PlainHttp<'_>) -> Way {
        self.reason_for_git(url.secret_text(), plain).map_or(Way::Native, Way::Git)
    }

    /// Returns why git has to list every `http` and `https` URL, if it has to.
    pub(crate) fn reason_for_git_everywhere(&self) -> Option<String> {
        // No setting names a host of the reserved domain `invalid`.
        let host = "any.invalid";
        let http = PlainHttp { scheme: "http", authority: host, host };
        let reason = self.reason_for_git("http://any.invalid/", http)?;
        let https = PlainHttp { scheme: "https", ..http };
        self.reason_for_git("https://any.invalid/", https).map(|_| reason)
    }

    /// Returns why git has to list `url`, whose parts are `plain`.
    fn reason_for_git(&self, url: &str, plain: PlainHttp<'_>) -> Option<String> {
        let PlainHttp { scheme, host, .. } = plain;
        let mut entries = self.configuration.iter();
        self.unreadable
            .clone()
            .or_else(|| self.variable_reason(scheme))
            .or_else(|| entries.find_map(|(key, value)| entry_reason(key, value, url, host)))
            .or_else(|| names_host(&self.netrc, host).then(|| "netrc names the host".to_owned()))
    }

    /// Finds an environment variable that rules out native listing of URLs of `scheme`.
    fn variable_reason(&self, scheme: &str) -> Option<String> {
        let rules_out = |(name, value): &&(String, String)| match name.as_str() {
            // curl never reads HTTP_PROXY, which a CGI client can set.
            "http_proxy" => scheme == "http" && !value.is_empty(),
            "https_proxy" | "HTTPS_PROXY" => scheme == "https" && !value.is_empty(),
            "SSL_CERT_FILE" | "SSL_CERT_DIR" | "SSLKEYLOGFILE" => scheme == "https",
            name if name.starts_with("GIT_SSL_") => scheme == "https",
            name => is_relevant_variable(name) && !value.is_empty(),
        };
        let (name, _) = self.environment.iter().find(rules_out)?;
        Some(format!("the environment sets {name}"))
    }
}

/// Returns whether an environment variable can change what git sends, or to whom.
pub(crate) fn is_relevant_variable(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSLKEYLOGFILE",
        "NETRC",
        "GIT_ALLOW_PROTOCOL",
        "GIT_PROTOCOL_FROM_USER",
        "GIT_SMART_HTTP",
        "GIT_CURL_VERBOSE",
        "GIT_EXEC_PATH",
    ];
    const PREFIXES: [&str; 4] = ["GIT_SSL_", "GIT_HTTP_", "GIT_PROXY_", "GIT_TRACE"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns why one configuration entry rules out native listing of `url`. The reason names keys
/// without their URLs, which may hold passwords.
fn entry_reason(key: &str, value: &str, url: &str, host: &str) -> Option<String> {
    let (section, rest) = key.split_once('.')?;
    let (subsection, name) = rest.rsplit_once('.').map_or((None, rest), |(sub, name)| (Some(sub), name));
    let name = name.to_ascii_lowercase();
    let shown = match (section.to_ascii_lowercase().as_str(), subsection) {
        ("url", Some(_)) => (name == "insteadof" && url.starts_with(value)).then_some("url.*.insteadOf"),
        // If a remote has the URL as its name, git uses that remote's settings.
        ("remote", Some(remote)) => (remote == url).then_some("remote.* for this URL"),
        // Listings are too small for these three limits to matter.
        ("http", None) if ["postbuffer", "maxrequests", "minsessions"].contains(&name.as_str()) => None,
        ("http", None) => return Some(format!("git's configuration sets http.{name}")),
        ("http", Some(pattern)) => may_name_host(pattern, host).then_some("http.* for this host"),
        ("credential", Some(pattern)) => may_name_host(pattern, host).then_some("credential.* for this host"),
        ("protocol", None) if name == "version" && value == "2" => None,
        ("protocol", None) => return Some(format!("git's configuration sets protocol.{name}")),
        ("protocol", Some(protocol)) => {
            ["http", "https"].contains(&protocol).then_some("protocol.* for HTTP")
        }
        _ => None,
    };
    shown.map(|shown| format!("git's configuration sets {shown}"))
}

/// Returns whether the URL pattern of a configuration section may match `host`. Patterns with a
/// path, port or user count as if they had none: git decides about those.
fn may_name_host(pattern: &str, host: &str) -> bool {
    let pattern: Option<UpstreamUrl> = pattern.parse().ok();
    let named = pattern.as_ref().filter(|pattern| pattern.scheme().is_some()).and_then(UpstreamUrl::host);
    named.is_none_or(|named| named.contains(['*', '%']) || *named == *host)
}

/// Returns whether the netrc file has credentials for `host`.
fn names_host(netrc: &str, host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut words = netrc.split_whitespace();
    while let Some(word) = words.next() {
        if word == "default"
            || word == "machine" && words.next().is_some_and(|name| name.eq_ignore_ascii_case(host))
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://example.org/a/b.git";

    #[track_caller]
    fn check(settings: &Settings, url: &str, expected: Option<&str>) {
        let expected = expected.map_or(Way::Native, |reason| Way::Git(reason.to_owned()));
        assert_eq!(settings.way(&url.into()), expected, "{url}");
    }

    #[test]
    fn url_unusual_goes_to_git() {
        let settings = Settings::default();
        check(&settings, URL, None);
        check(&settings, "http://example.org:8080/a", None);
        check(&settings, "git@example.org:a", Some("it is not an http or https URL"));
        check(&settings, "https://me:secret@example.org/a", Some("the URL names a user"));
        check(&settings, "https://example.org/a?b", Some("HTTP clients may read the URL in different ways"));
    }

    #[track_caller]
    fn check_variable(name: &str, value: &str, http: bool, https: bool) {
        let settings =
            Settings { environment: vec![(name.to_owned(), value.to_owned())], ..Settings::default() };
        let reason = format!("the environment sets {name}");
        check(&settings, "http://example.org/a", http.then_some(reason.as_str()));
        check(&settings, URL, https.then_some(reason.as_str()));
    }

    #[test]
    fn environment_variable_that_changes_requests_goes_to_git() {
        check_variable("http_proxy", "http://p", true, false);
        check_variable("http_proxy", "", false, false);
        check_variable("https_proxy", "http://p", false, true);
        check_variable("HTTPS_PROXY", "http://p", false, true);
        check_variable("HTTP_PROXY", "http://p", false, false);
        check_variable("ALL_PROXY", "http://p", true, true);
        check_variable("all_proxy", "http://p", true, true);
        check_variable("SSL_CERT_FILE", "/x", false, true);
        check_variable("SSL_CERT_DIR", "/x", false, true);
        check_variable("GIT_SSL_NO_VERIFY", "", false, true);
        check_variable("GIT_HTTP_USER_AGENT", "x", true, true);
        check_variable("GIT_PROXY_SSL_CERT", "x", true, true);
        check_variable("GIT_ALLOW_PROTOCOL", "https", true, true);
        check_variable("GIT_TRACE_CURL", "1", true, true);
        check_variable("GIT_TRACE2_EVENT", "/x", true, true);
        check_variable("GIT_CURL_VERBOSE", "1", true, true);
        check_variable("GIT_TERMINAL_PROMPT", "0", false, false);
        check_variable("GIT_CONFIG_GLOBAL", "/x", false, false);
    }

    #[track_caller]
    fn check_entry(key: &str, value: &str, expected: Option<&str>) {
        let settings =
            Settings { configuration: vec![(key.to_owned(), value.to_owned())], ..Settings::default() };
        let reason = expected.map(|reason| format!("git's configuration sets {reason}"));
        check(&settings, URL, reason.as_deref());
    }

    #[test]
    fn configuration_entry_that_changes_requests_goes_to_git() {
        let instead = Some("url.*.insteadOf");
        check_entry("url.ssh://git@example.org/.insteadof", "https://example.org/", instead);
        check_entry("url.https://t.k@mirror/.insteadof", "https://", instead);
        check_entry("url.x.insteadof", "https://example.com/", None);
        check_entry("url.x.pushinsteadof", "https://example.org/", None);
        check_entry("http.proxy", "http://p", Some("http.proxy"));
        check_entry("http.extraheader", "X: y", Some("http.extraheader"));
        check_entry("http.sslcainfo", "/x", Some("http.sslcainfo"));
        check_entry("http.postbuffer", "1048576", None);
        let http = Some("http.* for this host");
        check_entry("http.https://example.org/.extraheader", "X: y", http);
        check_entry("http.https://Example.org:443/a.b/.proxy", "", http);
        check_entry("http.https://me@example.org.proxy", "", http);
        check_entry("http.https://*.org/.proxy", "", http);
        check_entry("http.https://*.example.com/.proxy", "", http);
        check_entry("http.example.org.proxy", "", http);
        check_entry("http.https://example.com/.proxy", "", None);
        check_entry("credential.helper", "store", None);
        check_entry("credential.https://example.org.helper", "store", Some("credential.* for this host"));
        check_entry("credential.https://example.com.helper", "store", None);
        check_entry("protocol.version", "1", Some("protocol.version"));
        check_entry("protocol.version", "2", None);
        check_entry("protocol.allow", "never", Some("protocol.allow"));
        check_entry("protocol.https.allow", "never", Some("protocol.* for HTTP"));
        check_entry("protocol.file.allow", "always", None);
        let remote = Some("remote.* for this URL");
        check_entry("remote.https://example.org/a/b.git.url", "https://example.com/", remote);
        check_entry("remote.https://example.org/a/b.git.proxy", "http://p", remote);
        check_entry("remote.https://example.org/a/b.url", "https://example.com/", None);
        check_entry("remote.origin.url", "https://example.org/a/b.git", None);
        check_entry("remote.pushdefault", "https://example.org/a/b.git", None);
        check_entry("user.name", "x", None);
        check_entry("core.askpass", "x", None);
    }

    #[test]
    fn netrc_that_names_the_host_goes_to_git() {
        let check_netrc = |netrc: &str, expected: bool| {
            let settings = Settings { netrc: netrc.to_owned(), ..Settings::default() };
            check(&settings, URL, expected.then_some("netrc names the host"));
        };
        check_netrc("machine example.org login a password b", true);
        check_netrc("machine example.com\nlogin a\nmachine\tEXAMPLE.org\n", true);
        check_netrc("default login a", true);
        check_netrc("machine example.com login default2 password x", false);
        check_netrc("", false);
    }

    #[test]
    fn settings_unreadable_go_to_git() {
        let settings = Settings { unreadable: Some("why".to_owned()), ..Settings::default() };
        check(&settings, URL, Some("why"));
        assert_eq!(settings.reason_for_git_everywhere().as_deref(), Some("why"));
    }

    #[test]
    fn settings_against_some_hosts_do_not_affect_the_others() {
        let check_all = |key: &str, value: &str, expected: Option<&str>| {
            let configuration = vec![(key.to_owned(), value.to_owned())];
            let settings = Settings { configuration, ..Settings::default() };
            assert_eq!(settings.reason_for_git_everywhere().as_deref(), expected, "{key}");
        };
        check_all("http.proxy", "http://p", Some("git's configuration sets http.proxy"));
        check_all("http.https://example.org.proxy", "http://p", None);
        check_all("url.x.insteadof", "https://", None);
        check_all("protocol.https.allow", "never", Some("git's configuration sets protocol.* for HTTP"));
    }
}
