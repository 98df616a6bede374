//! Asks a tool about the commands that only the companion tools have, and collects what it prints.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::process::{Interrupt, ProcessError, Program, Sink};

/// How long the tool may take for its help text. A wrapper may have to load it from elsewhere.
const HELP_DEADLINE: Duration = Duration::from_secs(10);

/// How long an overdue tool may clean up: these commands have nothing to clean up.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The longest help text to read, in bytes.
const MAX_HELP: usize = 64 * 1024;

/// The most output to read, in bytes.
pub(super) const MAX_OUTPUT: usize = 4 * 1024 * 1024;

/// A tool's answer to `COMMAND --help`.
pub(super) enum Answer {
    /// The help text: it has the command.
    Usage,
    /// Anything else. The text is empty, or the exit status and the tool's words in parentheses.
    Other(String),
}

/// Asks the tool whether it has a command. `usage` is the part of the help text that shows it.
///
/// # Errors
/// If the tool cannot be asked.
pub(super) fn has_command(
    tool: &Path,
    command: &str,
    usage: &str,
    interrupt: &Interrupt,
) -> Result<Answer, ProcessError> {
    let program = Program::new(tool).args([command, "--help"]).deadline(Some(HELP_DEADLINE)).grace(GRACE);
    match program.capture_stdout(MAX_HELP).run(interrupt) {
        Ok(help) if String::from_utf8_lossy(&help.stdout).contains(usage) => Ok(Answer::Usage),
        Ok(_) => Ok(Answer::Other(String::new())),
        // A command line that it does not know. A shell that cannot run it exits with 126 or 127.
        Err(error @ ProcessError::Failed { status, .. }) if matches!(status.code(), Some(1 | 2)) => {
            Ok(Answer::Other(format!(" ({error})")))
        }
        Err(error) => Err(error),
    }
}

/// The first [`MAX_OUTPUT`] bytes of the tool's output.
#[derive(Debug, Clone, Default)]
pub(super) struct Output(Rc<RefCell<Vec<u8>>>);

impl Output {
    /// Returns the output as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }

    /// Whether there may be more.
    pub(super) fn is_full(&self) -> bool {
        self.0.borrow().len() == MAX_OUTPUT
    }
}

impl Sink for Output {
    fn begin(&self, _: &str) {}

    fn output(&self, bytes: &[u8]) {
        let mut output = self.0.borrow_mut();
        let free = MAX_OUTPUT - output.len();
        output.extend_from_slice(&bytes[..bytes.len().min(free)]);
    }
}
