//! The table of every reader of outside bytes. The mutation tests and libFuzzer in `contrib/fuzz` fuzz
//! them; `tests/corpus` has a directory of examples for each. Only those two builds compile this
//! file.
//!
//! A reader must return soon for any input, and must not panic. Some have more properties, asserted
//! here.

use std::path::Path;
use std::time::SystemTime;

use peipkg_format::archive_index::Archive;
use peipkg_format::duration;
use peipkg_format::index_reader::IndexReader;
use peipkg_format::problem::{MAX_EXCERPT, OneLine};
use peipkg_format::provenance::Statement;
use peipkg_format::signing_key;
use peipkg_format::version::{Version, newest_first};

use crate::app::logfmt::Quoted;
use crate::app::public_keys;
use crate::build_log;
use crate::config::{Config, ListenAddr};
use crate::http;
use crate::http::signature;
use crate::http::webhook::{self, Forge};
use crate::process;
use crate::recipe::Recipe;
use crate::recipe::tag_pattern::TagPattern;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::repository::journal::form;
use crate::repository::{pending, published_commits, timestamp};
use crate::upstream::listing::http_url;
use crate::upstream::listing::ls_refs::{self, ObjectFormat, Server};
use crate::upstream::listing::ls_remote;
use crate::upstream::listing::pkt_line::{self, Packets};
use crate::upstream::listing::ref_name;
use crate::upstream::listing::retry_after;
use crate::upstream::source::{commit_times, gitmodules};

/// A function that reads bytes, whatever they are.
pub type Reader = fn(&[u8]);

/// The readers, by the names of their directories.
pub const READERS: [(&str, Reader); 20] = [
    ("archive", read_index),
    ("build-log", read_output),
    ("config", |bytes| drop(Config::parse(Path::new("config.toml"), &text(bytes)))),
    ("duration", read_duration),
    ("git-listing", read_git),
    ("http-head", read_head),
    ("job", |bytes| drop(pending::read_job("a@1-1.0", bytes))),
    ("journal", read_journal),
    ("key", |bytes| drop(signing_key::parse(bytes).and_then(|key| public_keys::derive(&key)))),
    ("listen-addr", read_address),
    ("ls-refs", read_refs),
    ("published-commits", read_commits),
    ("provenance", read_provenance),
    ("recipe", read_recipe),
    ("retry-after", read_pause),
    ("tag-pattern", read_pattern),
    ("text", read_text),
    ("url", read_urls),
    ("version", read_versions),
    ("webhook", read_webhook),
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Tells whether a terminal acts upon a character or reorders others because of it.
fn is_raw(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Reads an archive index. Asserts that an index is JSON, and that its entries are those that a parser of
/// the whole finds.
fn read_index(bytes: &[u8]) {
    let _ = timestamp::generated_at(bytes);
    let archive = Archive::read(bytes);
    let (mut reader, mut entries) = (IndexReader::new(bytes), Vec::new());
    let end = loop {
        match reader.next_entry() {
            Ok(Some(entry)) => entries.push(serde_json::from_str::<serde_json::Value>(entry.json)),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(end.is_ok() || archive.is_err());
    // Values have limits that a text has not.
    if let (Ok(()), Ok(whole)) = (end, serde_json::from_slice::<serde_json::Value>(bytes)) {
        let entries: Result<Vec<_>, _> = entries.into_iter().collect();
        let entries = entries.expect("parts of a document that is read");
        assert_eq!(whole["packages"], serde_json::Value::Array(entries));
    }
}

/// Reads the bytes as an envelope and as a statement. Asserts that a statement survives being written.
fn read_provenance(bytes: &[u8]) {
    let _ = Statement::read(bytes, &|_, _| true);
    let Ok(statement) = Statement::parse(bytes) else { return };
    let written = statement.write(String::new(), &|_| Vec::new());
    assert_eq!(Statement::read(&written, &|_, _| true).ok(), Some(statement));
}

/// Asserts that a formatted duration is parsed as the same duration.
fn read_duration(bytes: &[u8]) {
    let Ok(read) = duration::parse(&text(bytes)) else { return };
    assert_eq!(duration::parse(&duration::format(read)), Ok(read));
}

/// Cleans the output of a tool for a build log, in pieces of several lengths. Asserts that no control
/// character and no secret of the upstream's URL is left.
fn read_output(bytes: &[u8]) {
    let Ok(url) = "https://me:s3cret@example.org/x".parse::<UpstreamUrl>() else { return };
    for length in [1, 2, 7, 4096] {
        let text = build_log::cleaned(url.secrets(), bytes.chunks(length));
        // Redaction removes a user's name without a mark, so the text around it may join to the secret.
        // Only an author who knows the secret can arrange that, with an `@`.
        assert!(bytes.contains(&b'@') || !text.contains("s3cret"), "{text:?}");
        assert!(!text.contains(|c| is_raw(c) && !matches!(c, '\t' | '\n')), "{text:?}");
    }
}

/// Reads the bytes as git's listing, and as git's commit times.
fn read_git(bytes: &[u8]) {
    if let Ok(tags) = ls_remote::parse(bytes.to_vec()) {
        assert_eq!((tags.iter().count(), tags.listed().count()), (tags.len(), tags.len()));
    }
    text(bytes).lines().for_each(|line| drop(commit_times::parse_line(line)));
    drop(gitmodules::parse(bytes, bytes));
    let _ = text(bytes).split_once('\t').map(|(base, url)| gitmodules::resolve(base, url));
}

/// Reads the head of a response and of a request. Asserts that the gate passes on exactly one request
/// with the same body, and that no shorter beginning is a request: the answer must not depend on
/// the packets.
fn read_head(bytes: &[u8]) {
    let _ = http::frame::response(bytes);
    let Ok(Some(request)) = http::frame::request(bytes) else { return };
    assert!(request.head <= bytes.len().min(http::frame::MAX_HEAD) && request.body <= http::frame::MAX_BODY);
    assert_eq!(http::frame::request(&bytes[..request.head - 1]), Ok(None), "{:?}", text(bytes));
    let again = http::frame::request(&request.passed_on);
    let again = again.ok().flatten().expect("a head that was passed on is whole");
    assert_eq!((again.head, again.body), (request.passed_on.len(), request.body));
    assert_eq!((&again.passed_on, again.head_only), (&request.passed_on, request.head_only));
}

fn read_address(bytes: &[u8]) {
    let Ok(address) = text(bytes).parse::<ListenAddr>() else { return };
    assert_eq!(address.to_string().parse(), Ok(address));
}

/// Reads the file that remembers commits. Asserts that it is read to its end.
fn read_commits(bytes: &[u8]) {
    let (commits, damaged) = published_commits::parse(&mut &*bytes);
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let found: usize = commits.recipes().map(|recipe| commits.of(recipe).len()).sum();
    assert!(found <= lines && (damaged.is_some() || lines == 0 || bytes.len() > 255 || found > 0));
}

/// Reads the bytes as a whole journal, and as the text before a valid checksum.
fn read_journal(bytes: &[u8]) {
    let length = bytes.len() as u64;
    let _ = form::read(&mut &*bytes, length);
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let _ = form::parse_head(line, length);
}

/// Reads the bytes as each of a server's answers.
fn read_refs(bytes: &[u8]) {
    let _ = ls_refs::read_advertisement(bytes);
    for object_format in [None, Some(ObjectFormat::Sha1), Some(ObjectFormat::Sha256)] {
        for tag in ls_refs::read_tags(bytes, Server { object_format }).unwrap_or_default().iter() {
            assert!(!tag.is_empty() && !tag.contains(|c: char| c.is_ascii_control()), "{tag:?}");
        }
    }
    let mut packets = Packets::new(bytes);
    let mut count = 0;
    while let Ok(Some(_)) = packets.next_packet() {
        count += 1;
    }
    assert!(count <= bytes.len() / 4);
    ref_name::is_valid(bytes);
}

fn read_recipe(bytes: &[u8]) {
    let Ok(recipe) = Recipe::parse("r", Path::new("r"), &text(bytes), 0, &mut Vec::new()) else { return };
    if let Some(upstream) = recipe.upstream {
        let reader = upstream.tag_reader();
        for tag in ["v1.0", "", "v\u{e9}", "release/2"] {
            reader.version_of(tag);
        }
    }
}

fn read_pause(bytes: &[u8]) {
    let pause = retry_after::wait(retry_after::parse(Some(&text(bytes)), SystemTime::UNIX_EPOCH));
    assert!(pause.as_secs() <= 3600, "{pause:?}");
}

/// Reads the first line as a pattern, the others as tags.
fn read_pattern(bytes: &[u8]) {
    let text = text(bytes);
    let Some((pattern, tags)) = text.split_once('\n') else { return };
    let Ok((pattern, _)) = TagPattern::parse(pattern) else { return };
    let pattern = pattern.matcher();
    for tag in tags.lines() {
        drop(pattern.capture(tag));
    }
}

/// Shows a text of another program. Asserts that it has one line and no control character.
fn read_text(bytes: &[u8]) {
    let text = text(bytes);
    for shown in [Quoted(&text).to_string(), OneLine(&text).to_string()] {
        assert!(!shown.contains(is_raw), "{shown:?}");
    }
    assert!(!pkt_line::one_line(bytes).contains(['\n', '\r']));
    let explained = process::explain(&text);
    assert!(
        !explained.contains('\n') && explained.chars().count() <= 2 * MAX_EXCERPT + 4200,
        "{explained:?}"
    );
}

/// Reads the first line as a URL, the second as a redirection from there.
fn read_urls(bytes: &[u8]) {
    let text = text(bytes);
    let (url, location) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(url) = url.parse::<UpstreamUrl>() else { return };
    let shown = url.to_string();
    assert_eq!(shown.parse().as_ref().map(UpstreamUrl::to_string), Ok(shown.clone()));
    url.secrets().redact(location);
    let Ok(plain) = url.plain_http() else { return };
    assert!(shown == url.secret_text() && !plain.host.contains(['@', '/']), "{url}");
    if let Some(place) = http_url::resolve(&url, location) {
        http_url::redirected_base(&place);
    }
}

/// Reads each line as a version. Asserts that the order is total and that a written version is read as
/// the same.
fn read_versions(bytes: &[u8]) {
    let versions: Vec<Version> = text(bytes).lines().filter_map(|line| line.parse().ok()).take(12).collect();
    let mut places = newest_first(&versions);
    places.sort_unstable();
    assert!(places.into_iter().eq(0..versions.len()));
    for one in &versions {
        assert_eq!(one.to_string().parse::<Version>().as_ref().map(Version::as_str), Ok(one.as_str()));
        for other in &versions {
            assert_eq!(one.compare(other), other.compare(one).reverse(), "{one} {other}");
            let order = one.sort_cmp(other);
            assert_eq!(order, other.sort_cmp(one).reverse(), "{one} {other}");
            for third in versions.iter().filter(|third| other.sort_cmp(third) == order) {
                assert_eq!(one.sort_cmp(third), order, "{one} {other} {third}");
            }
        }
    }
}

/// Reads the first line as a signature of each forge, the second as a content type, the rest as a
/// body.
fn read_webhook(bytes: &[u8]) {
    let text = text(bytes);
    let mut parts = text.splitn(3, '\n');
    let (signed, kind, body) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let header = |_| signed;
    for secret in [&b""[..], b"secret"] {
        assert!(signature::check_signature(secret, header, body.as_bytes()).is_err());
        let is_secret = secret == b"secret" && signed.map(str::trim_ascii) == Some("secret");
        assert_eq!(signature::check_token(secret, header).is_ok(), is_secret);
    }
    for forge in [Forge::GitHub, Forge::GitLab] {
        if let Err(error) = webhook::parse(forge, Some("push"), kind, body.as_bytes()) {
            assert!(error.to_string().len() < 400, "{error}");
        }
    }
}
