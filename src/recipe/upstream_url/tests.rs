//! Tables of URLs: their parts, and their texts without secrets.

use super::*;

/// Lets the tests of all modules write URLs as literals.
impl From<&str> for UpstreamUrl {
    fn from(text: &str) -> Self {
        text.parse().unwrap()
    }
}

fn url(text: &str) -> UpstreamUrl {
    text.into()
}

#[test]
fn url_is_shown_without_secrets() {
    for (text, shown) in [
        ("https://example.org/a@b", "https://example.org/a@b"),
        ("https://token@example.org/x.git", "https://example.org/x.git"),
        ("https://user:p@ss@example.org:8443/x", "https://example.org:8443/x"),
        ("https://user:p?ss#@example.org/x", "https://example.org/x"),
        ("HTTPS://token@example.org/x", "HTTPS://example.org/x"),
        ("ext::https://token@example.org/x", "ext::https://example.org/x"),
        ("https://example.org/x?private_token=s3cret#f", "https://example.org/x"),
        ("https://example.org?private_token=s3cret", "https://example.org"),
        ("https://me@example.org:s3/cr@et@other.org/x", "https://other.org/x"),
        ("ssh://git@example.org/x?y#z", "ssh://git@example.org/x?y#z"),
        ("ssh://git:secret@example.org/x", "ssh://git@example.org/x"),
        ("ssh://git%3Asecret@example.org/x", "ssh://git@example.org/x"),
        ("[git@example.org:22]:x", "[git@example.org:22]:x"),
        ("git@[::1]:x", "git@[::1]:x"),
        ("git@example.org:x.git", "git@example.org:x.git"),
        ("file:///srv/x#y", "file:///srv/x#y"),
        ("/srv/x", "/srv/x"),
        ("me:secret@example.org:x.git", "me@example.org:x.git"),
        ("me:secret@example.org/x.git", "me@example.org/x.git"),
        ("https://me:sec/ret@example.org/x", "https://example.org/x"),
        ("me:sec@ret@example.org:x.git", "me@example.org:x.git"),
        ("me@example.org:a@b:c", "me@example.org:a@b:c"),
        ("host:x/a@b", "host:x/a@b"),
        ("/srv/a:b@c", "/srv/a:b@c"),
        (":x", ":x"),
    ] {
        let url = url(text);
        assert_eq!((url.to_string().as_str(), url.secret_text()), (shown, text));
        assert_eq!(format!("{url:?}"), format!("{shown:?}"));
    }
}

#[test]
fn url_becomes_a_uri_without_secrets() {
    for (text, expected) in [
        ("https://Example.ORG/A/x.git", "git+https://example.org/A/x.git"),
        ("HTTPS://me:s3cret@example.org:8443/x?token=s3cret", "git+https://example.org:8443/x"),
        ("https://u%3As3c%40@h/x#s3cret", "git+https://h/x"),
        ("https::https://u:p@example.org/x", "git+https://example.org/x"),
        ("https://h/a%20b \"[<", "git+https://h/a%20b%20%22%5B%3C"),
        ("ssh://Git@Example.org/~/x?y#z", "git+ssh://Git@example.org/~/x%3Fy%23z"),
        ("ssh://git%3as3cret@h:22/x", "git+ssh://git@h:22/x"),
        ("git+ssh://git@example.org/x", "git+ssh://git@example.org/x"),
        ("git://[::1]:9418/x", "git+git://[::1]:9418/x"),
        ("git@Example.org:a/x.git", "git+ssh://git@example.org/a/x.git"),
        ("me:s3cret@example.org:a/x", "git+ssh://me@example.org/a/x"),
        ("host:/a?b%20", "git+ssh://host/a%3Fb%2520"),
        ("git@[::1]:a/x", "git+ssh://git@[::1]/a/x"),
        ("[::1]:a", "git+ssh://[::1]/a"),
        ("[Host:2222]:a", "git+ssh://host:2222/a"),
        ("[git@host:2222]:a", "git+ssh://git@host:2222/a"),
        ("/srv/git/my x%20?#", "git+file:///srv/git/my%20x%2520%3F%23"),
        ("file:///srv/ü", "git+file:///srv/%C3%BC"),
        ("../x:y", "git+file:../x:y"),
        ("foo::a b", "git+foo:a%20b"),
    ] {
        assert_eq!(url(text).uri(), expected, "{text}");
    }
    assert_eq!(url("git@[::1]:x").host(), Some("[::1]"));
}

#[test]
fn url_invalid_is_refused_without_its_secrets() {
    for (text, expected) in [
        ("https://u:p@h/a\nb", "\"https://h/a\\nb\" has the control character '\\n'; expected a URL"),
        (
            "https://me:s%0ahost=evil@h/a",
            "\"https://h/a\" has an encoded control character in its user or password; expected a URL",
        ),
        ("--upload-pack=x", "\"--upload-pack=x\" starts with '-', like an option; expected a URL"),
    ] {
        assert_eq!(text.parse::<UpstreamUrl>().unwrap_err().to_string(), expected);
    }
}

#[test]
fn url_for_git_is_in_parts() {
    for (text, address, credentials, with_query) in [
        ("https://h/x", "https://h/x", None, None),
        ("https://tok@h:8/x", "https://h:8/x", Some(("https://h:8", "tok", None)), None),
        ("https::https://u:@h/x", "https::https://h/x", Some(("https://h", "u", Some(""))), None),
        ("http://u:p%40:q@h/x", "http://h/x", Some(("http://h", "u", Some("p@:q"))), None),
        ("http://@h/x#y", "http://h/x", None, None),
        ("http://u@h/x?y#z", "http://h/x", Some(("http://h", "u", None)), Some(("http://h/x?y", "http"))),
        ("http://h/x?", "http://h/x", None, None),
        ("ftp://u:p@h/x?y", "ftp://h/x", None, None),
        ("ssh://u:p@h/x?y", "ssh://u@h/x?y", None, None),
        ("u:p@h:x", "u@h:x", None, None),
        ("u@h:x", "u@h:x", None, None),
        ("codecommit::eu://profile@x", "codecommit::eu://profile@x", None, None),
        ("other://u:p@h/x?y", "other://u@h/x", None, None),
        ("/srv/x?y#z", "/srv/x?y#z", None, None),
    ] {
        let url = url(text);
        let found = url.credentials().map(|c| {
            let lossy = |bytes| String::from_utf8(bytes).unwrap();
            (c.site, lossy(c.user), c.password.map(lossy))
        });
        let expected = credentials.map(|(site, user, password): (&str, &str, Option<&str>)| {
            (site.to_owned(), user.to_owned(), password.map(str::to_owned))
        });
        assert_eq!((url.address().as_str(), found), (address, expected), "{text}");
        let expected =
            with_query.map(|(url, transport): (&str, &str)| (url.to_owned(), transport.to_owned()));
        assert_eq!(url.with_query(), expected, "{text}");
    }
}

#[test]
fn urls_with_other_secrets_differ() {
    let (one, other) = (url("https://a:b@h/x"), url("https://a:c@h/x"));
    assert_eq!(one.to_string(), other.to_string());
    assert!(one < other && one == url("https://a:b@h/x"));
}

#[test]
fn message_with_secrets_of_the_url_is_redacted() {
    let redact = |text: &str, of: &str| url(of).secrets().redact(text);
    let git = "could not read Password for 'http://ghp_Secret@h.example'";
    assert_eq!(
        redact(git, "http://ghp_Secret@h.example/x.git"),
        "could not read Password for 'http://h.example'"
    );
    let text = "fatal: 'https://me:s3cret@h/x' and s3cret; me@h";
    assert_eq!(redact(text, "https://me:s3cret@h/x"), "fatal: 'https://h/x' and ***; h");
    let text = "unable to access 'https://h/x?token=s3cret/'";
    assert_eq!(redact(text, "https://h/x?token=s3cret"), "unable to access 'https://h/x/'");
    assert_eq!(redact("git@h: denied", "ssh://git@h/x"), "git@h: denied");
    assert_eq!(redact("me@h: what?", "https://@h/x?"), "me@h: what?");
    assert_eq!(redact("plain", "/srv/x"), "plain");
}

#[test]
fn secret_cut_off_is_found_by_its_beginning() {
    let secrets = url("https://me:s3cret@h/x").secrets();
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
    assert_eq!(url("https://h/x").secrets().begun("https://h/x"), 0);
}

#[test]
fn urls_of_one_repository_have_one_name() {
    for text in [
        "https://github.com/madler/zlib",
        "https://GitHub.com/madler/zlib.git",
        "https://github.com/madler/zlib/",
        "http://user:pw@github.com:8080/madler/zlib.git/",
        "git@github.com:madler/zlib.git",
        "ssh://git@github.com:22/madler/zlib",
        "git://github.com/madler/zlib",
    ] {
        assert_eq!(url(text).repository(), "github.com/madler/zlib", "{text}");
    }
    assert_eq!(url("file:///srv/git/x.git").repository(), "/srv/git/x");
    assert_eq!(url("/srv/git/x.git").repository(), "/srv/git/x");
    assert_eq!(url("http://[::1]:80/x").repository(), "[::1]/x");
    assert_ne!(url("https://a.org/x").repository(), url("https://b.org/x").repository());
}

#[test]
fn host_has_no_port_and_is_in_lower_case() {
    for (text, host) in [
        ("https://me:pw@Example.ORG:8080/x", Some("example.org")),
        ("http://[2001:DB8::1]:80/x", Some("[2001:db8::1]")),
        ("git@example.org:x", Some("example.org")),
        ("https://example.org?x", Some("example.org")),
        ("file:///srv/x", None),
        ("/srv/x:y", None),
        ("x", None),
    ] {
        assert_eq!(url(text).host(), host, "{text}");
    }
}

#[test]
fn plain_url_is_split_into_its_parts() {
    for (text, scheme, authority, host) in [
        ("https://example.org/a/b.git", "https", "example.org", "example.org"),
        ("http://Example.ORG:8080/a%20b/", "http", "Example.ORG:8080", "example.org"),
        ("http://[2001:DB8::1]:80/x", "http", "[2001:DB8::1]:80", "[2001:db8::1]"),
        ("http://[::1]/x", "http", "[::1]", "[::1]"),
        ("https://example.org", "https", "example.org", "example.org"),
        ("https://example.org/~user/x@y", "https", "example.org", "example.org"),
    ] {
        assert_eq!(url(text).plain_http(), Ok(PlainHttp { scheme, authority, host }), "{text}");
    }
}

#[test]
fn url_unusual_is_not_plain() {
    for (text, expected) in [
        ("ssh://git@example.org/x", Unusual::Scheme),
        ("git@example.org:x.git", Unusual::Scheme),
        ("/srv/x.git", Unusual::Scheme),
        ("HTTPS://example.org/x", Unusual::Scheme),
        ("ext::https://example.org/x", Unusual::Scheme),
        ("https://user@example.org/x", Unusual::UserInfo),
        ("https://example.org\\@evil/", Unusual::UserInfo),
        ("https:///x", Unusual::Form),
        ("https://:80/x", Unusual::Form),
        ("https://example.org/x?y=1", Unusual::Form),
        ("https://example.org/x#y", Unusual::Form),
        ("https://example.org?y", Unusual::Form),
        ("https://example.org/a b", Unusual::Form),
        ("https://example.org/é", Unusual::Form),
        ("https://example.org/a/../b", Unusual::Form),
        ("https://example.org/a/.", Unusual::Form),
        ("https://[fe80::1%25eth0]/x", Unusual::Form),
        ("https://ex%61mple.org/x", Unusual::Form),
    ] {
        assert_eq!(url(text).plain_http(), Err(expected), "{text}");
    }
}
