//! `peipkg-repo`, and the lock that a tool holds while it changes what it shares with others.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::process::{Interrupt, ProcessError, Program};
use crate::repository::timestamp;
use crate::state::durable::at;
use crate::state::lock::wait_for_tool;
use crate::state::state_dir::StateDir;

/// How long one run of `peipkg-repo` may take. It needs seconds for the largest index; the rest is for slow
/// disks. Everybody waits for the builder meanwhile.
const DEADLINE: Duration = Duration::from_mins(15);

/// A run of `program` that holds `lock`, as soon as no run of an earlier manager does.
///
/// # Errors
/// When the lock file cannot be used, or the wait is interrupted.
pub(crate) fn exclusive(program: &Path, lock: &Path, interrupt: &Interrupt) -> Result<Program, ProcessError> {
    let name = || program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match wait_for_tool(lock, || interrupt.is_triggered()) {
        Ok(Some(file)) => Ok(Program::new(program).hold(file)),
        Ok(None) => Err(ProcessError::Interrupted { program: name() }),
        Err(error) => {
            Err(ProcessError::NotStarted { program: name(), error: io::Error::other(at(lock)(error)) })
        }
    }
}

/// The tool, for one repository.
#[derive(Debug, Clone)]
pub(crate) struct PeipkgRepo {
    /// Where it is.
    pub program: PathBuf,
    /// The key that it signs with.
    pub key_file: PathBuf,
    /// The state directory that has the repository.
    pub state: Arc<StateDir>,
}

impl PeipkgRepo {
    /// A sub-command that changes the repository, with the options that all of these need.
    ///
    /// # Errors
    /// When its lock cannot be taken.
    pub(crate) fn writer(&self, sub_command: &str, interrupt: &Interrupt) -> Result<Program, ProcessError> {
        let program = exclusive(&self.program, &self.state.tool_lock(), interrupt)?;
        let timestamp = timestamp::for_repository(&self.state.repo());
        let program = program.deadline(Some(DEADLINE)).arg(sub_command).arg("--sign-key");
        Ok(program.arg(&self.key_file).args(["--timestamp", &timestamp]))
    }

    /// Waits until no writer of an earlier manager is at work.
    ///
    /// # Errors
    /// When the lock file cannot be used, or the wait is interrupted.
    pub(crate) fn wait_for_writer(&self, interrupt: &Interrupt) -> Result<(), ProcessError> {
        exclusive(&self.program, &self.state.tool_lock(), interrupt).map(drop)
    }

    /// Checks the repository's signatures and indexes.
    ///
    /// # Errors
    /// When `peipkg-repo verify` finds something wrong, or cannot be run.
    pub(crate) fn verify(&self, interrupt: &Interrupt) -> Result<(), ProcessError> {
        let program = Program::new(&self.program).deadline(Some(DEADLINE)).arg("verify").arg("--repo");
        program.arg(self.state.repo()).args(["--mode", "metadata"]).run(interrupt).map(drop)
    }
}
