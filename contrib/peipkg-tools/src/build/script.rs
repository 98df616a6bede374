//! Runs the build script in an empty directory, with an environment that differs between machines
//! only in `PATH`.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::interrupt::{Interrupt, Interrupted};

/// The variables that every script receives. `--build-env` may not set them.
pub const FIXED_VARIABLES: [&str; 6] = ["SOURCE_DIR", "DESTDIR", "SOURCE_DATE_EPOCH", "LC_ALL", "TZ", "PATH"];

/// A build script, with its directories and variables.
#[derive(Debug)]
pub struct Script<'a> {
    /// Absolute path of the script.
    pub path: &'a Path,
    /// Absolute path of the source tree.
    pub source: &'a Path,
    /// `DESTDIR`: an empty directory that the script fills.
    pub staged: &'a Path,
    /// The empty directory in which the script starts.
    pub work: &'a Path,
    /// `SOURCE_DATE_EPOCH`: the time of the source, in seconds since 1970.
    pub epoch: u64,
    /// The variables of `--build-env`.
    pub variables: &'a [(String, OsString)],
}

/// Why a build script failed.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It could not be started or waited for.
    #[error("cannot run build script {path}: {error}", path = path.display())]
    Start {
        /// The script.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It ended with a status other than zero.
    #[error("build script {path} failed: {status}", path = path.display())]
    Failed {
        /// The script.
        path: PathBuf,
        /// The exit status.
        status: ExitStatus,
    },
    /// A signal asked the program to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Script<'_> {
    /// Runs the script to its end. Sends its output to standard error, because standard output is
    /// for the paths of the packages.
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
        // Wait without reaping: the process id stays the child's until `interrupt` forgets it.
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
