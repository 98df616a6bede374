//! What is wrong with a file a person wrote, and where.
//!
//! Every reader of configuration and recipes reports [`Problem`]s, all of them
//! at once, so that one run is enough to mend a file.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

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
}

impl fmt::Display for Problem {
    /// One line, whatever is in a file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!("{line}:")).unwrap_or_default();
        for c in format!("{}:{line} {}", self.path.display(), self.message).chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}
