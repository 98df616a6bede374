//! Turns the bytes of a child into text that is safe to show. Pure.
//!
//! Operators read logs with `cat` and `less`, perhaps as root, and anybody may control the output
//! of a build or an upstream. So control characters and bytes that are not UTF-8 are escaped, as
//! `\x1b` or `\u{9b}`. Tabs and line feeds stay. A carriage return, by which programs redraw a
//! progress line, ends the line.

use std::fmt::Write as _;
use std::mem::take;

use peipkg_format::printable::is_printable;

use crate::recipe::secrets::Secrets;

/// Turns a stream of bytes into text, piece by piece, and redacts the secrets of a URL.
#[derive(Default)]
pub(super) struct Cleaner {
    secrets: Secrets,
    /// An incomplete character, or a carriage return that a line feed may follow.
    incomplete: Vec<u8>,
    /// Text that may be the beginning of a secret.
    held: String,
    in_line: bool,
}

impl Cleaner {
    /// Redacts `secrets`.
    pub(super) fn new(secrets: Secrets) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// Returns the text of the next piece, and holds back an end whose meaning depends on the piece
    /// after it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let bytes = [&take(&mut self.incomplete), bytes].concat();
        let (whole, incomplete) = bytes.split_at(bytes.len() - incomplete_at_end(&bytes));
        self.incomplete = incomplete.to_vec();
        let mut text = take(&mut self.held);
        add(whole, &mut text);
        text = self.secrets.redact(&text);
        self.held = text.split_off(text.len() - self.secrets.begun(&text));
        self.note_line(text)
    }

    /// Returns the text that was held back, and ends the line that it leaves open.
    pub(super) fn end_line(&mut self) -> String {
        let mut text = take(&mut self.held);
        add(&take(&mut self.incomplete), &mut text);
        let mut text = self.note_line(text);
        if take(&mut self.in_line) {
            text.push('\n');
        }
        text
    }

    /// Returns `line`, which the manager itself writes, as a whole line after the output so far.
    pub(super) fn line(&mut self, line: &str) -> String {
        let mut text = self.end_line();
        text += &self.push(line.replace(['\n', '\r'], " ").as_bytes());
        text + &self.end_line()
    }

    fn note_line(&mut self, text: String) -> String {
        self.in_line = text.chars().next_back().map_or(self.in_line, |last| last != '\n');
        text
    }
}

/// Counts the bytes at the end that cannot be shown before the next piece is known.
fn incomplete_at_end(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return 1;
    }
    let begins_character = |length: &usize| {
        let end = &bytes[bytes.len() - length..];
        str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    // The longest incomplete character has three of its four bytes.
    (1..=bytes.len().min(3)).find(begins_character).unwrap_or(0)
}

/// Adds `bytes` to `text`, with everything escaped that a terminal might act upon.
fn add(bytes: &[u8], text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        add_str(chunk.valid(), text);
        escape_bytes(chunk.invalid(), text);
    }
}

fn add_str(mut rest: &str, text: &mut String) {
    loop {
        let (plain, other) = rest.split_at(plain_length(rest.as_bytes()));
        text.push_str(plain);
        let mut others = other.chars();
        let Some(c) = others.next() else { break };
        rest = others.as_str();
        match c {
            '\r' if rest.starts_with('\n') => {}
            '\r' => text.push('\n'),
            c if c.is_ascii() => escape_bytes(&[c as u8], text),
            c if is_printable(c) => text.push(c),
            c => text.extend(c.escape_unicode()),
        }
    }
}

/// Counts the bytes at the beginning that need no second look. Nearly all bytes are such, so this
/// is a plain loop.
fn plain_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    while length < bytes.len() && matches!(bytes[length], b' '..=b'~' | b'\t' | b'\n') {
        length += 1;
    }
    length
}

fn escape_bytes(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}"); // writing to a string cannot fail
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::upstream_url::UpstreamUrl;

    /// Feeds `bytes` in pieces of every length and expects the same text each time.
    #[track_caller]
    fn check_with(url: &str, bytes: &[u8], expected: &str) {
        for length in 1..=bytes.len().max(1) {
            let mut cleaner = Cleaner::new(UpstreamUrl::from(url).secrets());
            let mut text: String = bytes.chunks(length).map(|piece| cleaner.push(piece)).collect();
            text += &cleaner.end_line();
            assert_eq!(text, expected, "in pieces of {length}");
        }
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        check_with("", bytes, expected);
    }

    #[test]
    fn plain_text_stays_unchanged() {
        check(b"", "");
        check(b"cc -O2\t-c x.c \"a\\b\"\n\nok\n", "cc -O2\t-c x.c \"a\\b\"\n\nok\n");
        check("grün ‘x’ 統一 🦀\n".as_bytes(), "grün ‘x’ 統一 🦀\n");
        check(b"no end of line", "no end of line\n");
    }

    #[test]
    fn control_characters_and_bad_bytes_are_escaped() {
        check(b"\x1b[31mred\x07\x00\x7f\n", "\\x1b[31mred\\x07\\x00\\x7f\n");
        check("\u{9b}31m\u{202e}\u{2028}\n".as_bytes(), "\\u{9b}31m\\u{202e}\\u{2028}\n");
        check(
            b"caf\xe9 \xff\xfe \xc0\xaf \xed\xa0\x80\n",
            "caf\\xe9 \\xff\\xfe \\xc0\\xaf \\xed\\xa0\\x80\n",
        );
        check(b"cut \xe2\x80", "cut \\xe2\\x80\n");
        check(b"\xf0\x9f\xa6", "\\xf0\\x9f\\xa6\n");
    }

    #[test]
    fn carriage_return_ends_a_line() {
        check(b"one\r\ntwo\r\n\r\nthree\r\n", "one\ntwo\n\nthree\n");
        check(b" 1%\r 2%\r100%\n", " 1%\n 2%\n100%\n");
        check(b"a\r\r\nb\r\xff\nc", "a\n\nb\n\\xff\nc\n");
    }

    #[test]
    fn secrets_in_any_pieces_are_redacted() {
        let url = "https://me:s3cret@h/x";
        check_with(url, b"see me, s3, me:s3 s3cre\n", "see me, s3, me:s3 s3cre\n");
        check_with(url, b"the password is s3cret.\n", "the password is ***.\n");
        for (url, secret) in [(url, "s3cret"), ("https://t0ken@h/x", "t0ken")] {
            let bytes = format!("fatal: '{url}' {secret} {secret}{secret}\n").into_bytes();
            for length in 1..bytes.len() {
                let mut cleaner = Cleaner::new(UpstreamUrl::from(url).secrets());
                let mut text: String = bytes.chunks(length).map(|piece| cleaner.push(piece)).collect();
                text += &cleaner.end_line();
                assert!(!text.contains(secret) && text.ends_with("h/x' *** ******\n"), "{text}");
            }
        }
    }

    #[test]
    fn line_of_the_manager_stands_alone() {
        let mut cleaner = Cleaner::new(UpstreamUrl::from("https://me:s3cret@h/x").secrets());
        assert_eq!(cleaner.line("== one"), "== one\n");
        assert_eq!(cleaner.push(b"output s3"), "output ");
        assert_eq!(cleaner.line("== two\nlines \x1b s3cret"), "s3\n== two lines \\x1b ***\n");
        assert_eq!(cleaner.push(b"whole\r"), "whole");
        assert_eq!(cleaner.line("== three"), "\n== three\n");
    }
}
