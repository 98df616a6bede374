//! The `git` program, and listing an upstream's tags with it.
//!
//! git never prompts here, no hook runs, and a URL cannot become an option.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::farm::events::{PollError, PollFault};
use crate::process::{Interrupt, ProcessError, Program, environment};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::listing::retry_after;

/// What a listing has between SIGTERM and SIGKILL: there is nothing to clean up.
const LISTING_GRACE: Duration = Duration::from_secs(1);

/// The longest listing accepted, in bytes: about 250,000 tags.
const LISTING_LIMIT: usize = 16 * 1024 * 1024;

/// How long git may take to print its configuration, which is in local files.
pub(super) const CONFIG_DEADLINE: Duration = Duration::from_secs(10);

/// What ties git to one repository (`git rev-parse --local-env-vars`), less what
/// carries configuration for all of its commands.
const LOCAL_TO_A_REPOSITORY: [&str; 13] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    // Only `git config` reads it: it would tell us of other settings than those that count.
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// The git program.
#[derive(Debug)]
pub struct Git {
    path: PathBuf,
    /// Where it runs: in no checkout, whose configuration would be taken into account.
    directory: PathBuf,
    /// `GIT_SSH_COMMAND`, found out when git is first needed.
    ssh_command: OnceLock<Option<OsString>>,
}

/// Why a git operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
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
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self, Self::Process(ProcessError::Interrupted { .. }))
    }

    /// Whether trying again at once is pointless: there is no time left.
    pub(super) fn is_final(&self) -> bool {
        self.is_interrupted() || matches!(self, Self::Process(ProcessError::TimedOut { .. }))
    }
}

impl Git {
    /// The program at `path`, run in `directory`.
    pub fn new(path: PathBuf, directory: PathBuf) -> Self {
        Self { path, directory, ssh_command: OnceLock::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists the tags of `url`, without `refs/tags/`, in the server's order, within `limit`.
    ///
    /// # Errors
    /// When the upstream does not answer in time, answers too much or not at all.
    pub fn list_tags(
        &self,
        url: &UpstreamUrl,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Vec<String>, PollError> {
        let program = nowhere(self.program(interrupt)).deadline(Some(limit)).grace(LISTING_GRACE);
        let program = program.capture_stdout(LISTING_LIMIT);
        let output = program.args(["ls-remote", "--tags", "--refs", "--", url.secret_text()]).run(interrupt);
        output
            .map_err(GitError::from)
            .and_then(|output| parse_listing(&output.stdout))
            .map_err(|error| poll_error(&error))
    }

    /// git, told never to ask anybody anything, and to give up on who says nothing.
    pub(super) fn program(&self, interrupt: &Interrupt) -> Program {
        let ssh_command = self.ssh_command.get_or_init(|| self.batch_ssh_command(interrupt));
        // An empty GIT_ASKPASS switches off core.askPass and SSH_ASKPASS as well.
        let program = self.plain().env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "");
        let program = program.args(["-c", "core.hooksPath=/dev/null"]);
        let program = program.args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60"]);
        // The bare repositories that it is used in are the manager's own.
        let program = program.args(["-c", "safe.bareRepository=all"]);
        match ssh_command {
            Some(command) => program.env("GIT_SSH_COMMAND", command),
            None => program,
        }
    }

    /// git, outside of whatever checkout the manager was started in.
    fn plain(&self) -> Program {
        let program = Program::new(&self.path).directory(&self.directory);
        // The directory that git starts in is no ceiling to it; the one above is.
        let program = match self.directory.parent() {
            Some(above) => program.env("GIT_CEILING_DIRECTORIES", above),
            None => program,
        };
        // What git says is read by the manager as well, and has to be in the language that it knows.
        let program = program.env("LC_ALL", "C").without_env("LANGUAGE");
        LOCAL_TO_A_REPOSITORY.iter().fold(program, |program, name| program.without_env(name))
    }

    /// `git config`, as a listing would see the configuration.
    pub(super) fn config(&self) -> Program {
        nowhere(self.plain()).arg("config")
    }

    /// ssh as the operator has set it up for git, in batch mode. `None` when
    /// `GIT_SSH` names a program whose options are unknown.
    fn batch_ssh_command(&self, interrupt: &Interrupt) -> Option<OsString> {
        let mut command = match (environment::variable("GIT_SSH_COMMAND"), environment::variable("GIT_SSH")) {
            (Some(command), _) => command,
            (None, Some(_)) => return None,
            (None, None) => self.configured_ssh_command(interrupt).unwrap_or_else(|| "ssh".into()),
        };
        command.push(
            " -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
        );
        Some(command)
    }

    fn configured_ssh_command(&self, interrupt: &Interrupt) -> Option<OsString> {
        let program = self.config().args(["--get", "core.sshCommand"]);
        let output = program.deadline(Some(CONFIG_DEADLINE)).capture_stdout(64 * 1024).run(interrupt).ok()?;
        let command = String::from_utf8(output.stdout).ok()?;
        Some(command.trim_end_matches('\n').into())
    }
}

/// A command that needs no repository, and must not find one: not even one that somebody
/// has made where it runs.
fn nowhere(program: Program) -> Program {
    program.env("GIT_DIR", "/dev/null")
}

/// Blames the host where git is silent for too long or, in curl's words, was asked too often. git
/// tells no length of the pause. A server error without one is the repository's fault alone.
fn poll_error(error: &GitError) -> PollError {
    let fault = match error {
        GitError::Process(ProcessError::TimedOut { .. }) => PollFault::NoAnswer,
        GitError::Process(ProcessError::Failed { tail, .. }) if tail.contains("returned error: 429") => {
            PollFault::Busy { pause: retry_after::DEFAULT, redirected_to: None }
        }
        _ => PollFault::Other,
    };
    PollError { reason: error.to_string(), fault }
}

/// Reads the lines `<object id> TAB refs/tags/<tag>` of a listing.
pub(crate) fn parse_listing(listing: &[u8]) -> Result<Vec<String>, GitError> {
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
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn failed_listing_host_silent_or_busy_blames_the_host() {
        let program = || "git".to_owned();
        let failed = |tail: &str| ProcessError::Failed {
            program: program(),
            status: ExitStatus::from_raw(128 << 8),
            tail: tail.to_owned(),
        };
        let timed_out =
            ProcessError::TimedOut { program: program(), limit: CONFIG_DEADLINE, tail: String::new() };
        let busy = PollFault::Busy { pause: retry_after::DEFAULT, redirected_to: None };
        for (error, expected) in [
            (timed_out, PollFault::NoAnswer),
            (failed("fatal: unable to access: The requested URL returned error: 429"), busy),
            (failed("fatal: unable to access: The requested URL returned error: 503"), PollFault::Other),
            (ProcessError::Interrupted { program: program() }, PollFault::Other),
        ] {
            let error = GitError::Process(error);
            assert_eq!(poll_error(&error), PollError { reason: error.to_string(), fault: expected });
        }
    }

    #[test]
    fn listing_is_lines_of_object_and_reference() {
        let listing = b"1f\trefs/tags/v1.0\n2f\trefs/tags/release/2\n";
        assert_eq!(parse_listing(listing).unwrap(), ["v1.0", "release/2"]);
        assert!(parse_listing(b"").unwrap().is_empty());
        for bad in ["1f refs/tags/v1", "1f\trefs/heads/v1", "<html>"] {
            assert!(parse_listing(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
