//! Writes values in logfmt. Pure.

use std::fmt::{self, Write as _};

use peipkg_format::printable::is_printable;

/// Writes a value as logfmt: bare if it is plain, else in double quotes.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\'' => f.write_char(c)?,
                _ if is_printable(c) => f.write_char(c)?,
                _ if u32::from(c) <= 0xffff => write!(f, "\\u{:04x}", u32::from(c))?,
                _ => write!(f, "\\U{:08x}", u32::from(c))?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        assert_eq!(Quoted(value).to_string(), expected);
    }

    #[test]
    fn value_not_plain_is_quoted() {
        check("libz", "libz");
        check("https://example.org/a?b", "https://example.org/a?b");
        check("a=b", "\"a=b\"");
        check("", "\"\"");
        check("build failed", "\"build failed\"");
        check("it's", "it's");
        check("it's so", "\"it's so\"");
        check("say \"hi\" \\", "\"say \\\"hi\\\" \\\\\"");
        check("a\nlevel=error\tb\r", "\"a\\nlevel=error\\tb\\r\"");
        check("\u{1b}[31mred", "\"\\u001b[31mred\"");
        check("grün", "\"grün\"");
        check("\u{202e}x\u{2028}\u{7f}\u{e0001}", "\"\\u202ex\\u2028\\u007f\\U000e0001\"");
    }
}
