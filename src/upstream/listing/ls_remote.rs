//! The output of `git ls-remote`. Pure: bytes in, tags out.

use crate::farm::events::Tags;

/// The form of a line.
pub(crate) const LINE: &str = "<object id> TAB refs/tags/<tag>";

/// Parses lines of the form [`LINE`], in the memory that they have: every poller may hold 16 MiB.
///
/// # Errors
/// The first line that has another form.
pub(crate) fn parse(mut listing: Vec<u8>) -> Result<Tags, String> {
    let (mut from, mut to) = (0, 0);
    while from < listing.len() {
        let line = listing[from..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        let end = from + line.len();
        let reference = line.splitn(2, |byte| *byte == b'\t').nth(1);
        let tag = reference.and_then(|reference| reference.strip_prefix(b"refs/tags/"));
        let length = tag.ok_or_else(|| String::from_utf8_lossy(line).into_owned())?.len();
        listing.copy_within(end - length..end, to);
        to += length;
        listing[to] = b'\n';
        to += 1;
        from = end + 1;
    }
    listing.truncate(to);
    listing.shrink_to_fit();
    let text = String::from_utf8(listing);
    Ok(Tags::from_lines(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_is_lines_of_object_and_reference() {
        let parse = |text: &[u8]| parse(text.to_vec());
        let found = parse(b"1f\trefs/tags/v1.0\n2f\trefs/tags/release/2\n3f\trefs/tags/\xff\n").unwrap();
        assert_eq!(found, ["v1.0", "release/2", "\u{fffd}"].into_iter().collect());
        assert_eq!(parse(b"1f\trefs/tags/v1").unwrap(), ["v1"].into_iter().collect(), "no line feed");
        assert_eq!(parse(b"").unwrap(), Tags::default());
        for bad in ["1f refs/tags/v1", "1f\trefs/heads/v1", "<html>"] {
            assert_eq!(parse(format!("1f\trefs/tags/v0\n{bad}\n").as_bytes()), Err(bad.to_owned()));
        }
    }
}
