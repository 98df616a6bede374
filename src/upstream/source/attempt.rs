//! One attempt at a source: its deadline, its limits, its interrupt, its log, and the git programs
//! that heed them.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use crate::build_log::BuildLog;
use crate::process::{DiskLimit, Interrupt, Program};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::git::Git;
use crate::upstream::git_access;

/// git, the upstream, when the attempt must end, what it may write, the switch that ends it early, and
/// the log for git's output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) git: &'a Git,
    /// Its credentials also count for submodules on the same host.
    pub(super) upstream: &'a UpstreamUrl,
    pub(super) end: Instant,
    /// `None` for no limit, and until the place of the repository is known.
    pub(super) disk: Option<&'a DiskLimit>,
    pub(super) interrupt: &'a Interrupt,
    pub(super) log: &'a BuildLog,
}

impl Attempt<'_> {
    /// Halves the time that is left, so that a second attempt has the other half.
    pub(super) fn first_half(self) -> Self {
        let now = Instant::now();
        Self { end: now + self.end.saturating_duration_since(now) / 2, ..self }
    }

    /// Returns whether no time is left.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Prepares a git that talks to `url`, the upstream or a submodule, with the settings of the
    /// manager's user: proxies, credentials, `insteadOf`.
    pub(super) fn transport(&self, repository: &Path, url: &UpstreamUrl) -> Program {
        let access = if url.credentials().is_some() { url } else { self.upstream };
        let program = git_access::grant(self.in_time(self.git.program(self.interrupt)), access);
        // The manager made the repository, whoever owns it on a file system that maps users. git does
        // not pass this on to the git that serves a local upstream.
        program.args(["-c", "safe.directory=*"]).arg("-C").arg(repository)
    }

    /// Prepares a git that works on a repository of the manager. No setting of the machine or its
    /// users reaches it.
    pub(super) fn local(&self, repository: &Path) -> Program {
        self.in_time(self.git.without_settings()).arg("-C").arg(repository)
    }

    /// Prepares a git that writes files of `repository` below `directory`.
    pub(super) fn work_tree(&self, repository: &Path, directory: &Path) -> Program {
        let mut work_tree = OsString::from("--work-tree=");
        work_tree.push(directory);
        self.local(repository).env("GIT_INDEX_FILE", repository.join("index")).arg(work_tree)
    }

    fn in_time(&self, program: Program) -> Program {
        let left = self.end.saturating_duration_since(Instant::now());
        program.deadline(Some(left)).disk_limit(self.disk.cloned()).log_to(self.log)
    }
}
