//! From the bytes that a child writes to text that may be shown. Pure.
//!
//! A log is read with `cat` and `less`, perhaps by root, and what builds and upstreams write is anybody's. So control
//! characters do not get through, nor do bytes that are not UTF-8: they are written as `\x1b`, or as `\u{9b}`. Tabs and
//! ends of lines stay; a carriage return, by which programs draw progress, ends a line as well.

use std::fmt::Write as _;

use crate::upstream_url::Secrets;

/// The longest part of a character that may be waiting for its rest, in bytes.
const PARTIAL: usize = 3;

/// Turns a stream of bytes into text, piece by piece, and takes the secrets of a URL out of it.
#[derive(Default)]
pub(super) struct Cleaner {
    secrets: Secrets,
    /// The beginning of a character.
    partial: Vec<u8>,
    /// What may be the beginning of a secret.
    held: String,
    after_return: bool,
    in_line: bool,
}

impl Cleaner {
    /// For text that has none of `secrets`.
    pub(super) fn new(secrets: Secrets) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// The next piece, as far as it can be shown already.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.reserve(bytes.len());
        if self.partial.is_empty() {
            self.add(bytes, &mut text);
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(bytes);
            self.add(&whole, &mut text);
        }
        let mut text = self.secrets.redact(&text);
        self.held = text.split_off(text.len() - self.secrets.begun(&text));
        self.note_line(text)
    }

    /// What was still waiting for its rest, and the end of the line if there is none.
    pub(super) fn end_line(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        escape_bytes(&std::mem::take(&mut self.partial), &mut text);
        self.after_return = false;
        let mut text = self.note_line(text);
        if std::mem::take(&mut self.in_line) {
            text.push('\n');
        }
        text
    }

    /// A line of the manager's own.
    pub(super) fn line(&mut self, line: &str) -> String {
        let mut text = self.end_line();
        text += &self.push(line.replace(['\n', '\r'], " ").as_bytes());
        text + &self.end_line()
    }

    fn add(&mut self, bytes: &[u8], text: &mut String) {
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.add_str(chunk.valid(), text);
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && invalid.len() <= PARTIAL && may_go_on(invalid) {
                invalid.clone_into(&mut self.partial);
            } else {
                self.after_return &= invalid.is_empty();
                escape_bytes(invalid, text);
            }
        }
    }

    fn add_str(&mut self, mut rest: &str, text: &mut String) {
        if !rest.is_empty() && std::mem::take(&mut self.after_return) {
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
        loop {
            let (plain, other) = rest.split_at(plain_length(rest.as_bytes()));
            text.push_str(plain);
            let mut others = other.chars();
            let Some(c) = others.next() else { break };
            rest = others.as_str();
            if c == '\r' {
                text.push('\n');
                self.after_return = rest.is_empty();
                // Of the two that end a line together, the first has done so.
                rest = rest.strip_prefix('\n').unwrap_or(rest);
            } else {
                add_char(c, text);
            }
        }
    }

    fn note_line(&mut self, text: String) -> String {
        self.in_line = text.chars().next_back().map_or(self.in_line, |last| last != '\n');
        text
    }
}

/// How many bytes at the beginning need no second look. Nearly all of them: so this is a plain loop.
fn plain_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    while length < bytes.len() && matches!(bytes[length], b' '..=b'~' | b'\t' | b'\n') {
        length += 1;
    }
    length
}

/// Adds a character that is neither printable ASCII nor white space.
fn add_char(c: char, text: &mut String) {
    if c.is_ascii() {
        escape_bytes(&[c as u8], text);
    } else if c.escape_debug().len() == 1 {
        text.push(c);
    } else {
        // What the standard library would escape is what a terminal might act upon.
        text.extend(c.escape_unicode());
    }
}

fn escape_bytes(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}"); // writing to a string cannot fail
    }
}

/// Whether `bytes`, which are not valid, are the beginning of a character.
fn may_go_on(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of every length; the result must always be the same.
    #[track_caller]
    fn check_with(url: &str, bytes: &[u8], expected: &str) {
        for length in 1..=bytes.len().max(1) {
            let mut cleaner = Cleaner::new(Secrets::of(url));
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
    fn plain_text_stays_as_it_is() {
        check(b"", "");
        check(b"cc -O2\t-c x.c \"a\\b\"\n\nok\n", "cc -O2\t-c x.c \"a\\b\"\n\nok\n");
        check("grün ‘x’ 統一 🦀\n".as_bytes(), "grün ‘x’ 統一 🦀\n");
        check(b"no end of line", "no end of line\n");
    }

    #[test]
    fn nothing_reaches_a_terminal_that_it_might_act_upon() {
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
    fn a_carriage_return_ends_a_line() {
        check(b"one\r\ntwo\r\n\r\nthree\r\n", "one\ntwo\n\nthree\n");
        check(b" 1%\r 2%\r100%\n", " 1%\n 2%\n100%\n");
        check(b"a\r\r\nb\r\xff\nc", "a\n\nb\n\\xff\nc\n");
    }

    #[test]
    fn secrets_do_not_get_through() {
        let url = "https://me:s3cret@h/x";
        check_with(url, b"see me, s3, me:s3 s3cre\n", "see me, s3, me:s3 s3cre\n");
        check_with(url, b"the password is s3cret.\n", "the password is ***.\n");
        for (url, secret) in [(url, "s3cret"), ("https://t0ken@h/x", "t0ken")] {
            let bytes = format!("fatal: '{url}' {secret} {secret}{secret}\n").into_bytes();
            for length in 1..bytes.len() {
                let mut cleaner = Cleaner::new(Secrets::of(url));
                let mut text: String = bytes.chunks(length).map(|piece| cleaner.push(piece)).collect();
                text += &cleaner.end_line();
                assert!(!text.contains(secret) && text.ends_with("h/x' *** ******\n"), "{text}");
            }
        }
    }

    #[test]
    fn the_managers_lines_are_lines() {
        let mut cleaner = Cleaner::new(Secrets::of("https://me:s3cret@h/x"));
        assert_eq!(cleaner.line("== one"), "== one\n");
        assert_eq!(cleaner.push(b"output s3"), "output ");
        assert_eq!(cleaner.line("== two\nlines \x1b s3cret"), "s3\n== two lines \\x1b ***\n");
        assert_eq!(cleaner.push(b"whole\r"), "whole\n");
        assert_eq!(cleaner.line("== three"), "== three\n");
    }
}
