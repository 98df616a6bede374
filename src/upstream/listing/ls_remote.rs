//! The output of `git ls-remote --tags`. Pure: bytes in, tags out.

use peipkg_format::object_id::ObjectId;

use crate::farm::events::{ListedTag, Tags, push_ids};
use crate::upstream::listing::ref_name;

/// The form of a line. The line of an annotated tag is followed by one with `^{}` at its end, which has
/// the id that the tag leads to.
pub(crate) const LINE: &str = "<object id> TAB refs/tags/<tag>";

/// Ends the name of the second line of an annotated tag.
const PEELED: &[u8] = b"^{}";

/// A tag whose second line may follow.
struct Open {
    tag: ListedTag,
    /// Where its name begins, among the names.
    begins: usize,
}

/// Parses lines of the form [`LINE`], the names in the memory that they have: every poller may hold 36 MiB.
/// Leaves out tags whose name git does not accept, and second lines that do not follow the first one.
///
/// # Errors
/// The first line that has another form, or ids of another length than the lines before it.
pub(crate) fn parse(mut listing: Vec<u8>) -> Result<Tags, String> {
    let (mut from, mut to) = (0, 0);
    let mut ids = Vec::new();
    let mut open: Option<Open> = None;
    let mut length = None;
    while from < listing.len() {
        let line = listing[from..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        let end = from + line.len();
        let no_line = || String::from_utf8_lossy(line).into_owned();
        let (object, tag) = parse_line(line).ok_or_else(no_line)?;
        if object.as_bytes().len() != *length.get_or_insert(object.as_bytes().len()) {
            return Err(no_line());
        }
        let peels = |open: &Open| {
            open.tag.peeled.is_none() && tag.strip_suffix(PEELED) == Some(&listing[open.begins..to - 1])
        };
        match &mut open {
            Some(open) if peels(open) => open.tag.peeled = Some(object),
            _ if is_valid(tag) => {
                push_open(&mut ids, open.take());
                open = Some(Open { tag: ListedTag { object, peeled: None }, begins: to });
                let length = tag.len();
                listing.copy_within(end - length..end, to);
                to += length;
                listing[to] = b'\n';
                to += 1;
            }
            _ => {}
        }
        from = end + 1;
    }
    push_open(&mut ids, open);
    listing.truncate(to);
    listing.shrink_to_fit();
    ids.shrink_to_fit();
    let names = String::from_utf8(listing);
    let names = names.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Ok(Tags::from_parts(names, ids))
}

fn push_open(ids: &mut Vec<u8>, open: Option<Open>) {
    if let Some(open) = open {
        push_ids(ids, open.tag);
    }
}

fn parse_line(line: &[u8]) -> Option<(ObjectId, &[u8])> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let (object, reference) = line.split_at(tab);
    Some((ObjectId::from_hex(object)?, reference.strip_prefix(b"\trefs/tags/")?))
}

fn is_valid(tag: &[u8]) -> bool {
    ref_name::is_valid(&[b"tags/", tag].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a line for each `<id>:<name>`, where the id is one digit.
    fn text(lines: &[&str], digits: usize) -> Vec<u8> {
        let line = |line: &&str| {
            let (id, name) = line.split_once(':').unwrap();
            format!("{}\trefs/tags/{name}\n", id.repeat(digits))
        };
        lines.iter().map(line).collect::<String>().into_bytes()
    }

    /// Compares the tags with a list of `<object>[/<peeled>]:<name>`.
    #[track_caller]
    fn check(lines: &[&str], expected: &[&str]) {
        for digits in [40, 64] {
            let tags = parse(text(lines, digits)).unwrap();
            let short = |id: ObjectId| id.to_string()[..1].to_owned();
            let show = |(name, tag): (&str, ListedTag)| {
                let peeled = tag.peeled.map(|peeled| format!("/{}", short(peeled))).unwrap_or_default();
                format!("{}{peeled}:{name}", short(tag.object))
            };
            assert_eq!(tags.listed().map(show).collect::<Vec<_>>(), expected);
            assert_eq!(tags.len(), expected.len());
        }
    }

    #[test]
    fn listing_is_lines_of_object_and_reference() {
        check(&[], &[]);
        check(&["1:v1.0", "2:release/2"], &["1:v1.0", "2:release/2"]);
        check(&["1:v1", "2:v1^{}", "3:v2", "4:v3", "5:v3^{}"], &["1/2:v1", "3:v2", "4/5:v3"]);
        let mut bytes = text(&["1:v0", "2:v1", "3:v1^{}"], 40);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(parse(bytes.clone()).unwrap().listed().count(), 2, "no line feed");
        bytes.truncate(bytes.len() - 3);
        bytes.push(0xff);
        assert_eq!(parse(bytes).unwrap().iter().collect::<Vec<_>>(), ["v0", "v1", "v1\u{fffd}"]);
    }

    #[test]
    fn listing_odd_lines_are_left_out() {
        // A second line without the first, before it, twice, or of another tag; names that git refuses.
        check(&["2:v1^{}"], &[]);
        check(&["2:v1^{}", "1:v1"], &["1:v1"]);
        check(&["1:v1", "2:v1^{}", "3:v1^{}"], &["1/2:v1"]);
        check(&["1:v1", "2:v2^{}", "3:v1^{}"], &["1/3:v1"]);
        check(&["1:v1", "2:v2", "3:v1^{}"], &["1:v1", "2:v2"]);
        check(&["1:v1", "2:v1^{}^{}", "3:a..b", "4:a..b^{}", "5:^{}", "6:"], &["1:v1"]);
        check(&["1:v1", "2:v1", "3:v1^{}"], &["1:v1", "2/3:v1"]);
    }

    #[test]
    fn listing_of_another_form_is_refused_with_its_line() {
        let (id, long) = ("1".repeat(40), "1".repeat(64));
        for bad in [
            format!("{id} refs/tags/v1"),
            format!("{id}\trefs/heads/v1"),
            format!("{}\trefs/tags/v1", &id[1..]),
            format!("{}g\trefs/tags/v1", &id[1..]),
            format!("{long}\trefs/tags/v1"),
            format!("{long}\trefs/tags/v0^{{}}"),
            "<html>".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse(format!("{id}\trefs/tags/v0\n{bad}\n").into_bytes()), Err(bad));
        }
    }
}
