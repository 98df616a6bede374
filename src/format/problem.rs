//! Defects of files that people write, and how messages quote text safely. Pure.
//!
//! Every reader of configuration and recipes returns all [`Problem`]s at once, so that one run is
//! enough to mend a file.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!("{line}:")).unwrap_or_default();
        OneLine(&format!("{}:{line} {}", self.path.display(), self.message)).fmt(f)
    }
}

/// Shows a text as one line. Escapes every character that would end the line or control the
/// terminal: the names of files and the output of tools may come from an attacker.
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let is_plain = matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
            if is_plain { f.write_char(c)? } else { write!(f, "{}", c.escape_debug())? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_with_line_breaks_stays_one_line() {
        let hostile = "a \"b\" 'c' \\d grün\n\u{1b}[31m\u{9b}31m\u{202e}x\r\u{7f}";
        let shown = "a \"b\" 'c' \\d grün\\n\\u{1b}[31m\\u{9b}31m\\u{202e}x\\r\\u{7f}";
        assert_eq!(OneLine(hostile).to_string(), shown);
        let problem = Problem { path: "a\nb".into(), line: Some(3), message: "c\td".into() };
        assert_eq!(problem.to_string(), "a\\nb:3: c\\td");
    }
}
