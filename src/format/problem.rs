//! Defects of files that people write, and how messages quote text safely. Pure.
//!
//! Every reader of configuration and recipes returns all [`Problem`]s at once, so that one run is
//! enough to mend a file.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use crate::printable::is_printable;

/// One defect of one file. Its `Display` form is `FILE:LINE: message`, which editors understand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as the person named it.
    pub path: PathBuf,
    /// The line, counted from 1; `None` if the problem is the whole file's.
    pub line: Option<usize>,
    /// The finding and the remedy: lower case, no full stop.
    pub message: String,
}

impl Problem {
    /// Makes a problem of the whole file.
    pub fn of_file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, message: message.into() }
    }

    /// Makes the problem that a file or directory, called `what` in the message, cannot be read.
    /// Adds `advice` if it does not exist.
    pub fn unreadable(path: &Path, what: &str, error: &io::Error, advice: &str) -> Self {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let advice = if is_missing { format!("; {advice}") } else { String::new() };
        Self::of_file(path, format!("cannot read {what}: {error}{advice}"))
    }
}

/// Returns the text of the TOML file at `path`.
///
/// # Errors
/// The line of the first byte that is not UTF-8.
pub fn utf8_text(path: &Path, bytes: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|error| {
        let (before, after) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let line = before.split(|byte| *byte == b'\n').count();
        let message =
            format!("not valid TOML: the byte 0x{:02x} is not UTF-8, save the file as UTF-8", after[0]);
        Problem { path: path.to_owned(), line: Some(line), message }
    })
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!("{line}:")).unwrap_or_default();
        OneLine(&format!("{}:{line} {}", self.path.display(), self.message)).fmt(f)
    }
}

/// How much of a foreign text a message shows, in characters: a tag, a line of a tool, an answer of
/// a server. Others choose its length, and a farm keeps many of them in its log and its memory.
pub const MAX_EXCERPT: usize = 200;

/// Cuts a foreign text to [`MAX_EXCERPT`] characters. Cuts out its middle, in whose place it puts an
/// ellipsis: tools write the cause of a failure at the end of a line.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    shortened(text, MAX_EXCERPT)
}

/// Cuts a text to `most` characters, as [`excerpt`] does.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    // Few texts are long: do not count the characters of the others.
    if text.len() <= most || text.chars().nth(most).is_none() {
        return text.into();
    }
    let kept = most.saturating_sub(1);
    let at = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(at, _)| at);
    let end = text.char_indices().rev().take(kept / 2).last().map_or(text.len(), |(at, _)| at);
    format!("{}…{}", &text[..at(kept - kept / 2)], &text[end..]).into()
}

/// Shows a text as one line. Escapes every character that would end the line or control the
/// terminal: the names of files and the output of tools may come from an attacker.
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_printable(c) { f.write_char(c)? } else { write!(f, "{}", c.escape_debug())? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_longer_than_allowed_loses_its_middle() {
        for (text, expected) in [
            ("", ""),
            ("abcdef", "abcdef"),
            ("abcdefg", "abc…fg"),
            ("äöüßäöü", "äöü…öü"),
            ("äöüßäö", "äöüßäö"),
        ] {
            assert_eq!(shortened(text, 6), expected);
        }
        assert_eq!(excerpt(&"ü".repeat(60_000)).chars().count(), MAX_EXCERPT);
        assert_eq!(shortened("ab", 1), "…");
    }

    #[test]
    fn byte_that_is_not_utf8_is_named_with_its_line() {
        let check = |bytes: &[u8], expected: &str| {
            let found = utf8_text(Path::new("a"), bytes.to_vec());
            let end = "is not UTF-8, save the file as UTF-8";
            let expected = format!("{expected} {end}");
            assert_eq!(found.unwrap_err().to_string(), expected);
        };
        check(b"\xff", "a:1: not valid TOML: the byte 0xff");
        check(b"# \xff\xfe\n", "a:1: not valid TOML: the byte 0xff");
        check(
            "ü\nx = 1\r\n# \u{fc}".as_bytes().split_last().unwrap().1,
            "a:3: not valid TOML: the byte 0xc3",
        );
        check(b"\n\n\xe9t\xe9\n", "a:3: not valid TOML: the byte 0xe9");
        assert_eq!(utf8_text(Path::new("a"), "ü\n".into()), Ok("ü\n".to_owned()));
    }

    #[test]
    fn message_with_line_breaks_stays_one_line() {
        let hostile = "a \"b\" 'c' \\d grün\n\u{1b}[31m\u{9b}31m\u{202e}x\r\u{7f}";
        let shown = "a \"b\" 'c' \\d grün\\n\\u{1b}[31m\\u{9b}31m\\u{202e}x\\r\\u{7f}";
        assert_eq!(OneLine(hostile).to_string(), shown);
        let problem = Problem { path: "a\nb".into(), line: Some(3), message: "c\td".into() };
        assert_eq!(problem.to_string(), "a\\nb:3: c\\td");
    }
}
