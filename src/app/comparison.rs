//! Compares two packages, and says where they differ. `peipkg-repo` knows the members of a package;
//! with the official one, which has no `compare`, only the bytes of the files are compared.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use crate::app::tool_commands::{Answer, GRACE, Output, has_command};
use crate::process::{Interrupt, ProcessError, Program};
use crate::repository::same_bytes::difference_of_files;
use crate::state::durable::FileError;

/// How long the tool may take. It reads both packages, which may have gigabytes.
const DEADLINE: Duration = Duration::from_hours(1);

/// The part of the help text by which a tool is known to have the command.
const USAGE: &str = "peipkg-repo compare --first ";

/// How two packages compare.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Every byte is equal.
    Same,
    /// All that is signed is equal. The text says what is not.
    SameContent(String),
    /// They differ: the first differences, a line each.
    Different(Vec<String>),
}

/// Why packages could not be compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComparisonError {
    #[error("cannot compare the packages: {0}")]
    File(#[from] FileError),
    #[error("cannot compare the packages: {0}")]
    Tool(#[from] ProcessError),
}

/// Compares the packages in two files. Asks `peipkg-repo` at `tool` only if they are not equal.
///
/// # Errors
/// If a file cannot be read, or the tool cannot be run.
pub(super) fn compare(
    tool: &Path,
    first: &Path,
    second: &Path,
    interrupt: &Interrupt,
) -> Result<Comparison, ComparisonError> {
    let Some(bytes) = difference_of_files(first, second)? else {
        return Ok(Comparison::Same);
    };
    let of_bytes = |reason: &dyn Display| {
        let line = format!("the files differ at {bytes}; this peipkg-repo compares no members{reason}");
        Ok(Comparison::Different(vec![line]))
    };
    match has_command(tool, "compare", USAGE, interrupt) {
        Ok(Answer::Usage) => {}
        Ok(Answer::Other(answer)) => return of_bytes(&answer),
        Err(error) if error.is_interrupted() => return Err(error.into()),
        Err(error) => return of_bytes(&format_args!(" ({error})")),
    }
    let output = Output::default();
    let program = Program::new(tool).arg("compare").arg("--first").arg(first).arg("--second").arg(second);
    let ended = program.deadline(Some(DEADLINE)).grace(GRACE).log_to(&output).run(interrupt);
    let text = output.text();
    match ended {
        Ok(_) => Ok(Comparison::SameContent(text.trim_end().to_owned())),
        Err(ProcessError::Failed { status, .. }) if status.code() == Some(1) && !text.is_empty() => {
            Ok(Comparison::Different(text.lines().map(str::to_owned).collect()))
        }
        Err(error) => Err(error.into()),
    }
}
