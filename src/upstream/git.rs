//! Runs the `git` program, and lists an upstream's tags with it.
//!
//! git never prompts here, runs no hook, and cannot take a URL for an option.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use peipkg_format::problem::excerpt;

use crate::config::GitLimits;
use crate::farm::events::{PollError, PollFault, Tags};
use crate::process::{Interrupt, Limit, ProcessError, Program, environment, processors};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::git_access;
pub(crate) use crate::upstream::git_error::GitError;
use crate::upstream::listing::{ls_remote, retry_after};

/// The time between SIGTERM and SIGKILL for a listing: git has nothing to clean up.
const LISTING_GRACE: Duration = Duration::from_secs(1);

/// The longest listing accepted, in bytes: about 250,000 annotated tags, each of which has two lines.
/// Each poller holds one in memory.
const MAX_LISTING: usize = 36 * 1024 * 1024;

/// The memory that the processes of a listing by git may allocate, each and together, in bytes: enough
/// for 250,000 annotated tags, of which git holds two refs each, and little enough for all pollers at
/// once. Over HTTP without protocol version 2 two processes hold the refs, and half as many tags fit.
const LISTING_MEMORY: u64 = 208 * 1024 * 1024;

/// The most threads that git unpacks with. Each has a stack and a cache of its own.
const MAX_THREADS: usize = 4;

/// The most memory that git caches in each of these threads, in bytes: git's own default.
const MAX_DELTA_CACHE: u64 = 96 * 1024 * 1024;

/// From which size git does not hold a file in memory as a whole, in bytes: git's own default.
const MAX_FILE_IN_MEMORY: u64 = 512 * 1024 * 1024;

/// How long git may take to print its configuration: it reads local files only.
pub(super) const CONFIG_DEADLINE: Duration = Duration::from_secs(10);

/// The variables that tie git to one repository, without those that carry configuration.
const LOCAL_TO_A_REPOSITORY: [&str; 14] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    // Only `git config` reads it: its output would differ from the settings of a listing.
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// The variables that change what git or git-lfs writes into a work tree or a new repository.
const SETTINGS: [&str; 8] = [
    "GIT_ATTR_SOURCE",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DEFAULT_REF_FORMAT",
    "GIT_LFS_SKIP_DOWNLOAD_ERRORS",
    "GIT_LFS_SKIP_SMUDGE",
    "GIT_REPLACE_REF_BASE",
    "GIT_TEMPLATE_DIR",
];

/// The git program.
#[derive(Debug)]
pub struct Git {
    path: PathBuf,
    /// Where git runs: outside of any checkout, whose configuration git would read.
    directory: PathBuf,
    limits: GitLimits,
    /// The value for `GIT_SSH_COMMAND`, computed when git is first needed.
    ssh_command: OnceLock<Option<OsString>>,
}

impl Git {
    /// Runs the program at `path` in `directory`, with the default limits.
    pub fn new(path: PathBuf, directory: PathBuf) -> Self {
        Self { path, directory, limits: GitLimits::default(), ssh_command: OnceLock::new() }
    }

    /// Replaces the limits.
    #[must_use]
    pub(crate) fn limits(self, limits: GitLimits) -> Self {
        Self { limits, ..self }
    }

    /// Returns what one fetch may write.
    pub(super) fn source_limit(&self) -> Option<Limit> {
        self.limits.source.map(|bytes| Limit { bytes, key: Some("[git] source_limit") })
    }

    /// Returns what one git child may allocate.
    fn memory_limit(&self) -> Option<Limit> {
        self.limits.memory.map(|bytes| Limit { bytes, key: Some("[git] memory_limit") })
    }

    /// Returns what a listing may allocate. It needs less than a fetch, and several run at once.
    fn listing_memory(&self) -> Option<Limit> {
        let fixed = Limit { bytes: LISTING_MEMORY, key: None };
        self.memory_limit().map(|limit| if limit.bytes < fixed.bytes { limit } else { fixed })
    }

    /// Returns the path of the program.
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
    ) -> Result<Tags, PollError> {
        let program = git_access::grant(without_repository(self.program(interrupt)), url);
        let program = program.memory_limit(self.listing_memory());
        let program = program.deadline(Some(limit)).grace(LISTING_GRACE).capture_stdout(MAX_LISTING);
        let output = program.args(["ls-remote", "--tags", "--", &git_access::name(url)]).run(interrupt);
        output
            .map_err(GitError::from)
            .and_then(|output| {
                ls_remote::parse(output.stdout).map_err(|line| unexpected(&line, ls_remote::LINE))
            })
            .map_err(|error| poll_error(&error))
    }

    /// Prepares a git that never prompts, and that gives up on a server that stays silent.
    pub(super) fn program(&self, interrupt: &Interrupt) -> Program {
        let ssh_command = self.ssh_command(interrupt);
        // An empty GIT_ASKPASS also disables core.askPass and SSH_ASKPASS.
        let program = self.outside_checkouts().env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "");
        let program = program.args(["-c", "core.hooksPath=/dev/null"]);
        let program = program.args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60"]);
        // The manager itself made the bare repositories in which it runs git.
        let program = program.args(["-c", "safe.bareRepository=all"]);
        let program = self.frugal(program);
        match ssh_command {
            Some(command) => program.env("GIT_SSH_COMMAND", command),
            None => program,
        }
    }

    /// Prepares a git that no setting of the machine or its users reaches: they may change line
    /// ends, run filters or name a template. It must not talk to an upstream, because proxies and
    /// credentials are settings too.
    pub(super) fn without_settings(&self) -> Program {
        let program = self.outside_checkouts().env("GIT_CONFIG_GLOBAL", "/dev/null");
        let program = program.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_ATTR_NOSYSTEM", "1");
        let program = SETTINGS.iter().fold(program, |program, name| program.without_env(name));
        let program = program.args(["-c", "core.attributesFile=/dev/null", "-c", "core.hooksPath=/dev/null"]);
        // The manager itself made the repositories in which it runs git, whoever owns them on a
        // file system that maps users.
        self.frugal(program).args(["-c", "safe.bareRepository=all", "-c", "safe.directory=*"])
    }

    /// Makes git get by with its memory limit on a machine with many cores, or with large files.
    fn frugal(&self, program: Program) -> Program {
        self.frugal_settings().into_iter().fold(program, |program, setting| program.arg("-c").arg(setting))
    }

    fn frugal_settings(&self) -> Vec<String> {
        let Some(limit) = self.limits.memory else { return Vec::new() };
        let cores = processors::count();
        vec![
            format!("pack.threads={}", cores.min(MAX_THREADS)),
            format!("core.deltaBaseCacheLimit={}", MAX_DELTA_CACHE.min(limit / 16)),
            format!("core.bigFileThreshold={}", MAX_FILE_IN_MEMORY.min(limit / 8)),
        ]
    }

    /// Returns the option that makes the git which serves a local repository as frugal: that git has
    /// the same limit, but git does not pass on the settings of a command line.
    pub(super) fn upload_pack(&self, url: &UpstreamUrl) -> Option<String> {
        let limit = self.limits.memory.filter(|_| url.host().is_none())?;
        // git gives the option to a shell, and finds its own program there before others.
        let mut option = String::from("--upload-pack=git");
        let windows = [("windowMemory", limit / 32), ("deltaCacheSize", limit / 16)];
        let windows = windows.map(|(name, bytes)| format!("pack.{name}={bytes}"));
        for setting in self.frugal_settings().iter().chain(&windows) {
            option.extend([" -c ", setting]);
        }
        option += " upload-pack";
        Some(option)
    }

    /// Prepares a git that ignores the checkout in which the manager was started.
    fn outside_checkouts(&self) -> Program {
        let program = Program::new(&self.path).directory(&self.directory).memory_limit(self.memory_limit());
        // git ignores a ceiling at the directory where it starts, so set the parent.
        let program = match self.directory.parent() {
            Some(above) => program.env("GIT_CEILING_DIRECTORIES", above),
            None => program,
        };
        // The manager searches git's messages for English texts.
        let program = program.env("LC_ALL", "C").without_env("LANGUAGE");
        LOCAL_TO_A_REPOSITORY.iter().fold(program, |program, name| program.without_env(name))
    }

    /// Prepares a `git config` that reads the same configuration as a listing.
    pub(super) fn config(&self) -> Program {
        without_repository(self.outside_checkouts()).arg("config")
    }

    /// Returns the ssh command that the operator has set for git, with options for batch mode.
    /// `None` if `GIT_SSH` names a program, whose options are unknown. Remembers it, unless git
    /// could not be asked: a short lack of processes must not replace the operator's command until
    /// the next start.
    fn ssh_command(&self, interrupt: &Interrupt) -> Option<OsString> {
        if let Some(command) = self.ssh_command.get() {
            return command.clone();
        }
        let mut is_known = true;
        let command = match (environment::variable("GIT_SSH_COMMAND"), environment::variable("GIT_SSH")) {
            (Some(command), _) => Some(command),
            (None, Some(_)) => None,
            (None, None) => {
                let configured = self.configured_ssh_command(interrupt);
                is_known = configured.is_ok();
                Some(configured.ok().flatten().unwrap_or_else(|| "ssh".into()))
            }
        };
        let command = command.map(with_batch_options);
        if is_known {
            // Another thread may have set the same.
            let _ = self.ssh_command.set(command.clone());
        }
        command
    }

    /// Returns the setting, or nothing if there is none.
    fn configured_ssh_command(&self, interrupt: &Interrupt) -> Result<Option<OsString>, ProcessError> {
        let program = self.config().args(["--get", "core.sshCommand"]);
        match program.deadline(Some(CONFIG_DEADLINE)).capture_stdout(64 * 1024).run(interrupt) {
            Ok(output) => {
                let command = String::from_utf8(output.stdout).ok();
                Ok(command.map(|command| command.trim_end_matches('\n').into()))
            }
            // git exits so if the setting is missing, and otherwise if its configuration is broken.
            Err(ProcessError::Failed { status, .. }) if status.code().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Adds the options that keep ssh from prompting and from waiting for a silent server.
fn with_batch_options(mut command: OsString) -> OsString {
    command.push(" -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4");
    command
}

/// Keeps a command that needs no repository from finding one, even in the directory where it runs.
fn without_repository(program: Program) -> Program {
    program.env("GIT_DIR", "/dev/null")
}

/// Blames the host if git timed out or if curl reports status 429 (too many requests). git does not
/// tell for how long the server wants no requests. Other server errors are the repository's fault.
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

pub(super) fn unexpected(found: &str, expected: &'static str) -> GitError {
    GitError::Answer { found: excerpt(found).into_owned(), expected }
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
}
