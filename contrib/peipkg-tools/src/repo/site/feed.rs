//! The Atom feed of the newest packages (RFC 4287). Pure.
//!
//! The repository does not know its address, so all links are relative to the feed's own. The ids
//! need no address: each is a UUID made from a SHA-256 (RFC 9562 §5.8).

use std::fmt::Write as _;

use super::Facts;
use super::markup::{escape, route};
use super::newest::Newest;
use crate::digest::{Digest, sha256};

/// Returns the feed as a document.
pub(super) fn render(facts: &Facts<'_>) -> String {
    let name = escape(facts.name);
    let updated = escape(facts.generated_at);
    let mut feed = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <feed xmlns=\"http://www.w3.org/2005/Atom\">\n\
         <id>{}</id>\n\
         <title>{name} packages</title>\n\
         <updated>{updated}</updated>\n\
         <author><name>{name}</name></author>\n\
         <link rel=\"self\" type=\"application/atom+xml\" href=\"feed.xml\"/>\n\
         <link rel=\"alternate\" type=\"text/html\" href=\"index.html\"/>\n",
        urn(&sha256(format!("peipkg repository {}", facts.name).as_bytes())),
    );
    if !facts.description.is_empty() {
        let _ = writeln!(feed, "<subtitle>{}</subtitle>", escape(facts.description));
    }
    for package in &facts.newest {
        push_entry(&mut feed, package, &updated);
    }
    feed + "</feed>\n"
}

fn push_entry(feed: &mut String, package: &Newest, published: &str) {
    let built = package.built.as_ref().map(|time| escape(time.as_str()));
    let _ = writeln!(
        feed,
        "<entry>\n<id>{}</id>\n<title>{} {} ({})</title>\n<updated>{}</updated>\n\
         <link rel=\"alternate\" type=\"text/html\" href=\"index.html{}\"/>\n<summary>{}</summary>\n</entry>",
        urn(&package.digest),
        escape(&package.name),
        escape(&package.version),
        escape(&package.architecture),
        built.as_deref().unwrap_or(published),
        escape(&route(&package.name, &package.version, &package.architecture)),
        escape(&package.description),
    );
}

/// Returns a UUID of version 8 as a URN.
fn urn(digest: &Digest) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let mut text = String::from("urn:uuid:");
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::facts;
    use super::*;

    #[test]
    fn feed_is_the_expected_document() {
        assert_eq!(render(&facts()), include_str!("golden/feed.xml"));
    }

    #[test]
    fn ids_are_uuids_that_depend_on_the_content_alone() {
        let (mut one, other) = (facts(), facts());
        let ids = |facts: &Facts<'_>| -> Vec<String> {
            render(facts).lines().filter(|line| line.starts_with("<id>")).map(str::to_owned).collect()
        };
        one.generated_at = "2027-01-01T00:00:00Z";
        one.description = "other";
        one.newest.reverse();
        let (mut found, mut expected) = (ids(&one), ids(&other));
        assert_eq!(found.len(), 1 + other.newest.len());
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        found.dedup();
        assert_eq!(found.len(), expected.len());
        assert_eq!(urn(&[0xff; 32]), "urn:uuid:ffffffff-ffff-8fff-bfff-ffffffffffff");
    }
}
