//! The `git` program: listing an upstream's tags, fetching one tag's source.
//!
//! git never prompts here, no hook runs, and neither a URL nor a tag can become
//! an option: a URL comes after `--`, and a tag is always written as
//! `refs/tags/<tag>`, which also keeps a branch of the same name from winning.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use super::source_tree;
use crate::process::{Interrupt, ProcessError, Program};

/// How long a listing may take: far longer than any answer, short enough that an
/// upstream that hangs keeps a poller from others for a minute only.
const LISTING_DEADLINE: Duration = Duration::from_mins(1);

/// The longest listing accepted, in bytes: about a million tags.
const LISTING_LIMIT: usize = 64 * 1024 * 1024;

/// What git says when a server only serves files and cannot send a part of the history.
const NO_SHALLOW_FETCH: &str = "dumb http transport does not support shallow";

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
    #[error("cannot prepare the source in {path}: {error}")]
    Tree {
        /// The source directory.
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

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The upstream's URL.
    pub url: &'a str,
    /// The tag, without `refs/tags/`.
    pub tag: &'a str,
    /// Whether to fetch submodules, recursively.
    pub submodules: bool,
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
        let program = self.program(interrupt).deadline(Some(LISTING_DEADLINE)).capture_stdout(LISTING_LIMIT);
        let output = program.args(["ls-remote", "--tags", "--refs", "--", url]).run(interrupt)?;
        parse_listing(&output.stdout)
    }

    /// Fetches exactly one tag into `directory`, which must not exist, without
    /// its history. Returns the committer time of its commit.
    ///
    /// # Errors
    /// When git fails or `end` has come.
    pub fn fetch(
        &self,
        source: Source<'_>,
        directory: &Path,
        end: Option<Instant>,
        interrupt: &Interrupt,
    ) -> Result<SystemTime, GitError> {
        let Source { url, tag, submodules } = source;
        let reference = format!("refs/tags/{tag}");
        let deadline = || end.map(|end| end.saturating_duration_since(Instant::now()));
        let git = || self.program(interrupt).deadline(deadline()).arg("-C").arg(directory);
        let init = self.program(interrupt).deadline(deadline()).args(["init", "--quiet", "--template="]);
        init.arg("--").arg(directory).run(interrupt)?;

        let refspec = format!("+{reference}:{reference}");
        let fetch = |depth: &[&str]| {
            let options =
                ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance"];
            git().args(options).args(depth).args(["--", url, &refspec]).run(interrupt)
        };
        match fetch(&["--depth=1"]) {
            Err(ProcessError::Failed { tail, .. }) if tail.contains(NO_SHALLOW_FETCH) => fetch(&[])?,
            result => result?,
        };
        git().args(["checkout", "--quiet", "--detach", &reference]).run(interrupt)?;
        let show = git().args(["show", "--no-patch", "--no-show-signature", "--format=%ct", "HEAD"]);
        let committed = parse_commit_time(&show.capture_stdout(1024).run(interrupt)?.stdout)?;
        if submodules {
            // Submodule URLs may be relative to this one.
            git().args(["config", "remote.origin.url", url]).run(interrupt)?;
            let update = |depth: &[&str]| {
                let options = ["submodule", "--quiet", "update", "--init", "--recursive"];
                git().args(options).args(depth).run(interrupt)
            };
            // Not every server gives out a commit that is no branch's tip, which is all that depth 1 asks for.
            match update(&["--depth=1"]) {
                Err(ProcessError::Failed { .. }) => update(&[])?,
                result => result?,
            };
        }
        source_tree::remove_git_metadata(directory)
            .map_err(|error| GitError::Tree { path: directory.to_owned(), error })?;
        Ok(committed)
    }

    /// git, told never to ask anybody anything.
    fn program(&self, interrupt: &Interrupt) -> Program {
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

fn parse_commit_time(output: &[u8]) -> Result<SystemTime, GitError> {
    /// The last second that RFC 3339 can write: the end of the year 9999.
    const LATEST: u64 = 253_402_300_799;
    let text = String::from_utf8_lossy(output);
    let seconds = text.trim().parse().ok().filter(|seconds| *seconds <= LATEST);
    seconds
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| unexpected(text.trim(), "a commit time between 1970 and 9999"))
}

fn unexpected(found: &str, expected: &'static str) -> GitError {
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

    #[test]
    fn commit_times() {
        let time = parse_commit_time(b"1700000000\n").unwrap();
        assert_eq!(humantime::format_rfc3339_seconds(time).to_string(), "2023-11-14T22:13:20Z");
        for bad in ["", "x", "-1", "99999999999999"] {
            assert!(parse_commit_time(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
