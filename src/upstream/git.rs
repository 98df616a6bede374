//! The `git` program, and listing an upstream's tags with it.
//!
//! git never prompts here, no hook runs, and a URL cannot become an option.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Interrupt, ProcessError, Program};

/// How long a listing may take: far longer than any answer, short enough that an
/// upstream that hangs keeps a poller from others for a minute only.
const LISTING_DEADLINE: Duration = Duration::from_mins(1);

/// What a listing has between SIGTERM and SIGKILL: there is nothing to clean up.
const LISTING_GRACE: Duration = Duration::from_secs(1);

/// The longest listing accepted, in bytes: about a million tags.
const LISTING_LIMIT: usize = 64 * 1024 * 1024;

/// The git program.
#[derive(Debug)]
pub struct Git {
    path: PathBuf,
    /// `GIT_SSH_COMMAND`, found out when git is first needed.
    ssh_command: OnceLock<Option<OsString>>,
}

/// Why a git operation failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git itself failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// git's answer is not what it should be.
    #[error("git answered {found:?}, expected {expected}")]
    Answer {
        /// What it printed, at most a line.
        found: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// The fetched files could not be made ready.
    #[error("cannot prepare the source: {path}: {error}")]
    Tree {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl GitError {
    /// Whether it was the manager's own shutdown that ended it.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Process(ProcessError::Interrupted { .. }))
    }
}

impl Git {
    /// The program at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, ssh_command: OnceLock::new() }
    }

    /// Lists the tags of `url`, without `refs/tags/`, in the server's order.
    ///
    /// # Errors
    /// When the upstream does not answer in time, answers too much or not at all.
    pub fn list_tags(&self, url: &str, interrupt: &Interrupt) -> Result<Vec<String>, GitError> {
        let program = self.program(interrupt).deadline(Some(LISTING_DEADLINE)).grace(LISTING_GRACE);
        let program = program.capture_stdout(LISTING_LIMIT);
        let output = program.args(["ls-remote", "--tags", "--refs", "--", url]).run(interrupt)?;
        parse_listing(&output.stdout)
    }

    /// git, told never to ask anybody anything.
    pub(super) fn program(&self, interrupt: &Interrupt) -> Program {
        let ssh_command = self.ssh_command.get_or_init(|| self.batch_ssh_command(interrupt));
        // An empty GIT_ASKPASS switches off core.askPass and SSH_ASKPASS as well.
        let program = Program::new(&self.path).env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "");
        // The repository's own configuration must not be that of a checkout the manager was started in.
        let program =
            program.without_env("GIT_DIR").without_env("GIT_WORK_TREE").without_env("GIT_INDEX_FILE");
        let program = program.args(["-c", "core.hooksPath=/dev/null"]);
        match ssh_command {
            Some(command) => program.env("GIT_SSH_COMMAND", command),
            None => program,
        }
    }

    /// ssh as the operator has set it up for git, in batch mode. `None` when
    /// `GIT_SSH` names a program whose options are unknown.
    fn batch_ssh_command(&self, interrupt: &Interrupt) -> Option<OsString> {
        let mut command = match (env::var_os("GIT_SSH_COMMAND"), env::var_os("GIT_SSH")) {
            (Some(command), _) => command,
            (None, Some(_)) => return None,
            (None, None) => self.configured_ssh_command(interrupt).unwrap_or_else(|| "ssh".into()),
        };
        command.push(" -o BatchMode=yes");
        Some(command)
    }

    fn configured_ssh_command(&self, interrupt: &Interrupt) -> Option<OsString> {
        let program = Program::new(&self.path).args(["config", "--get", "core.sshCommand"]);
        let output =
            program.deadline(Some(LISTING_DEADLINE)).capture_stdout(64 * 1024).run(interrupt).ok()?;
        let command = String::from_utf8(output.stdout).ok()?;
        Some(command.trim_end_matches('\n').into())
    }
}

/// Reads the lines `<object id> TAB refs/tags/<tag>` of a listing.
fn parse_listing(listing: &[u8]) -> Result<Vec<String>, GitError> {
    let listing = String::from_utf8_lossy(listing);
    let mut tags = Vec::new();
    for line in listing.lines() {
        let tag = line.split_once('\t').and_then(|(_, reference)| reference.strip_prefix("refs/tags/"));
        let tag = tag.ok_or_else(|| unexpected(line, "<object id> TAB refs/tags/<tag>"))?;
        tags.push(tag.to_owned());
    }
    Ok(tags)
}

pub(super) fn unexpected(found: &str, expected: &'static str) -> GitError {
    GitError::Answer { found: found.chars().take(200).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_lines_of_object_and_reference() {
        let listing = b"1f\trefs/tags/v1.0\n2f\trefs/tags/release/2\n";
        assert_eq!(parse_listing(listing).unwrap(), ["v1.0", "release/2"]);
        assert!(parse_listing(b"").unwrap().is_empty());
        for bad in ["1f refs/tags/v1", "1f\trefs/heads/v1", "<html>"] {
            assert!(parse_listing(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
