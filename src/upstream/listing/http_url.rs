//! The request URLs of git's HTTP transport below an upstream's URL, and redirect targets. Pure.

use crate::recipe::upstream_url::UpstreamUrl;

/// The path and query of the first request.
const INFO_REFS: &str = "info/refs?service=git-upload-pack";

/// Returns the URL of the first request. It may hold secrets.
pub(crate) fn info_refs(base: &UpstreamUrl) -> String {
    below(base, INFO_REFS)
}

/// Returns the URL of the request that lists tags. It may hold secrets.
pub(crate) fn upload_pack(base: &UpstreamUrl) -> String {
    below(base, "git-upload-pack")
}

fn below(base: &UpstreamUrl, path: &str) -> String {
    let base = base.secret_text();
    let slash = if base.ends_with('/') { "" } else { "/" };
    format!("{base}{slash}{path}")
}

/// Returns the upstream's URL after a redirect of [`info_refs`] to `target`. `None` if the redirect
/// has changed the end of the URL, which git refuses too.
pub(crate) fn redirected_base(target: &UpstreamUrl) -> Option<UpstreamUrl> {
    let base = target.secret_text().strip_suffix(INFO_REFS)?;
    // Without the slash, `info` is only the end of a longer name, perhaps the host's.
    base.ends_with('/').then_some(base)?.parse().ok()
}

/// Returns the absolute URL that `location` means in an answer from the server of `base`. `None` if
/// `location` is relative to a path, which git can follow, or no URL.
pub(crate) fn resolve(base: &UpstreamUrl, location: &str) -> Option<UpstreamUrl> {
    let asked = base.plain_http().ok()?;
    let target = if location.starts_with("//") {
        format!("{}:{location}", asked.scheme)
    } else if location.starts_with('/') {
        format!("{}://{}{location}", asked.scheme, asked.authority)
    } else {
        let has_scheme = |scheme: &str| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        let (scheme, rest) = location.split_once(':').filter(|(scheme, _)| has_scheme(scheme))?;
        // Schemes have no case (RFC 3986); callers compare with lower case.
        format!("{}:{rest}", scheme.to_ascii_lowercase())
    };
    target.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_urls_are_below_the_base_and_redirects_keep_their_end() {
        let (base, slashed) = ("http://h/x".into(), "http://h/x/".into());
        assert_eq!(info_refs(&base), "http://h/x/info/refs?service=git-upload-pack");
        assert_eq!(info_refs(&slashed), info_refs(&base));
        assert_eq!(upload_pack(&base), "http://h/x/git-upload-pack");
        let base = |target: &str| redirected_base(&target.into());
        assert_eq!(
            base("https://h/y.git/info/refs?service=git-upload-pack"),
            Some("https://h/y.git/".into())
        );
        assert_eq!(base("https://h/y.git/info/refs"), None);
        assert_eq!(base("https://h/login"), None);
        assert_eq!(base("https://hinfo/refs?service=git-upload-pack"), None);
    }

    #[test]
    fn location_resolves_to_an_absolute_url() {
        for (location, expected) in [
            ("http://g/c", Some("http://g/c")),
            ("file:///etc/passwd", Some("file:///etc/passwd")),
            ("HTTPS://G/C", Some("https://G/C")),
            ("//g/c", Some("https://g/c")),
            ("/c?d", Some("https://h:1/c?d")),
            ("https://g/c\t", None),
            ("c", None),
            ("../c:d", None),
            ("?d", None),
            ("", None),
        ] {
            let target = resolve(&"https://h:1/a/b".into(), location);
            assert_eq!(target.as_ref().map(UpstreamUrl::secret_text), expected, "{location}");
        }
    }
}
