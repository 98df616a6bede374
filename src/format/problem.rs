//! What is wrong with a file a person wrote, and where.
//!
//! Every reader of configuration and recipes reports [`Problem`]s, all of them
//! at once, so that one run is enough to mend a file.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

/// One defect of one file. Its `Display` form is `FILE:LINE: message`, the form
/// that editors and `--check` share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as the person named it.
    pub path: PathBuf,
    /// The line, counted from 1; `None` when the whole file is meant.
    pub line: Option<usize>,
    /// What was found and what would be right: lower case, no full stop.
    pub message: String,
}

impl Problem {
    /// A problem with the whole file.
    pub fn of_file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, message: message.into() }
    }

    /// A file or directory that cannot be read, called `what`; if it is not there at all, `advice` says what to do.
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

/// A text as one line that a terminal can show: what would end the line or make the terminal act is escaped. Names of files
/// and the output of tools are anybody's.
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
