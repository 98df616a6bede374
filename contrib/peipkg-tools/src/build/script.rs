//! Running the build script: in a fresh directory, with an environment that is
//! the same on every machine but for `PATH`.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::interrupt::{Interrupt, Interrupted};

/// The variables that every script gets; `--build-env` may not set them.
pub const FIXED_VARIABLES: [&str; 6] = ["SOURCE_DIR", "DESTDIR", "SOURCE_DATE_EPOCH", "LC_ALL", "TZ", "PATH"];

/// A build script and what it is given.
#[derive(Debug)]
pub struct Script<'a> {
    /// Absolute path of the script.
    pub path: &'a Path,
    /// Absolute path of the source tree.
    pub source: &'a Path,
    /// The empty directory it is to fill.
    pub staged: &'a Path,
    /// The empty directory it starts in.
    pub work: &'a Path,
    /// Seconds since 1970 that stand for the time of the build.
    pub epoch: u64,
    /// Further variables.
    pub variables: &'a [(String, OsString)],
}

/// Why a build script did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It could not be started or waited for.
    #[error("cannot run build script {path}: {error}", path = path.display())]
    Start {
        /// The script.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It ended with another status than zero.
    #[error("build script {path} failed: {status}", path = path.display())]
    Failed {
        /// The script.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// The program was asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Script<'_> {
    /// Runs the script to its end. All it prints goes to standard error, which
    /// leaves standard output to the names of the packages.
    pub fn run(&self, interrupt: &Interrupt) -> Result<(), ScriptError> {
        let start = |error| ScriptError::Start { path: self.path.to_owned(), error };
        let mut command = Command::new("sh");
        command.arg(self.path).current_dir(self.work).stdin(Stdio::null()).stdout(io::stderr());
        command.env_clear();
        command.env("SOURCE_DIR", self.source).env("DESTDIR", self.staged);
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string()).env("LC_ALL", "C").env("TZ", "UTC");
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().map_err(start)?;
        let pid = Pid::from_child(&child);
        interrupt.set_child(Some(pid));
        // Waits without reaping, so that the number stays the child's until nobody uses it.
        let waited = loop {
            match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        interrupt.set_child(None);
        waited.map_err(|errno| start(errno.into()))?;
        let status = child.wait().map_err(start)?;
        interrupt.check()?;
        if status.success() {
            Ok(())
        } else {
            Err(ScriptError::Failed { path: self.path.to_owned(), status })
        }
    }
}
