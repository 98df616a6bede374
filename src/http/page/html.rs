//! Writes HTML. Foreign text gets in by [`Html::text`] only, which escapes it. Pure.

use std::fmt::{self, Write as _};

use peipkg_format::printable::is_printable;
use peipkg_format::problem::{MAX_EXCERPT, shortened};

/// How many bytes an excerpt may take.
const MOST: usize = 600;

/// A page that grows.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup. It is part of the program, so that no foreign text can become markup.
    pub(super) fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text.
    pub(super) fn text(&mut self, text: impl fmt::Display) -> &mut Self {
        self.write(&text);
        self
    }

    fn write(&mut self, text: &dyn fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(Escaped(&mut self.0), "{text}");
    }

    /// Adds an excerpt of a foreign text, with at most [`MOST`] bytes of markup: an escaped character may
    /// take eight.
    pub(super) fn excerpt(&mut self, text: &str) -> &mut Self {
        let mut most = MAX_EXCERPT;
        loop {
            let start = self.len();
            self.text(shortened(text, most));
            if self.len() - start <= MOST || most == 0 {
                return self;
            }
            self.0.truncate(start);
            most /= 2;
        }
    }

    /// Adds what another page holds.
    pub(super) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    /// Removes what comes after the first `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// Returns how many bytes there are so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the page.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// Escapes what is written to it.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' => self.0.push(c),
                // These would move the text around them, hide in it, or are not allowed in a page.
                _ if !is_printable(c) => self.0.extend(c.escape_unicode()),
                _ => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut html = Html::default();
        html.text(text);
        assert_eq!(html.0, expected);
    }

    #[test]
    fn excerpt_takes_few_bytes_however_its_characters_are_escaped() {
        for (text, fewest) in [("a", 200), ("大", 500), ("&", 400), ("\u{202e}", 300), ("'", 400)] {
            let mut html = Html::default();
            html.excerpt(&text.repeat(10_000));
            assert!((fewest..=MOST).contains(&html.len()), "{} bytes of {text:?}", html.len());
        }
        let mut html = Html::default();
        html.excerpt("<short>");
        assert_eq!(html.0, "&lt;short&gt;");
    }

    #[test]
    fn text_that_is_markup_or_moves_its_neighbours_is_escaped() {
        check("a<b>&\"'", "a&lt;b&gt;&amp;&quot;&#39;");
        check("&lt;", "&amp;lt;");
        check("x\u{202e}y\u{2066}", "x\\u{202e}y\\u{2066}");
        check("v5\u{200b}\u{ad}\u{feff}\u{2028}0", "v5\\u{200b}\\u{ad}\\u{feff}\\u{2028}0");
        check("\u{e0041}x", "\\u{e0041}x");
        check("\0\x1b[31m\r\t", "\\u{0}\\u{1b}[31m\\u{d}\\u{9}");
        check("two\nlines, größer 大", "two\nlines, größer 大");
    }
}
