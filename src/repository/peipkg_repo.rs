//! Runs `peipkg-repo`, and locks what a tool changes against the tools of an earlier manager.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::process::{Interrupt, ProcessError, Program};
use crate::repository::timestamp;
use crate::state::durable::at;
use crate::state::lock::wait_for_tool;
use crate::state::state_dir::StateDir;

/// How long one run of `peipkg-repo` may take. The largest index needs seconds; the rest is for
/// slow disks. A hung tool would otherwise stop the builder for ever.
const DEADLINE: Duration = Duration::from_mins(15);

/// Waits until no tool of an earlier manager holds `lock`, and returns a run of `program` that
/// will hold it, for `limit` at most. The wait has the same limit: the earlier tool had it too.
///
/// # Errors
/// When the lock file cannot be used, the wait is interrupted, or the earlier tool hangs.
pub(crate) fn exclusive(
    program: &Path,
    lock: &Path,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<Program, ProcessError> {
    let name = || program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match wait_for_tool(lock, limit, || interrupt.is_triggered()) {
        Ok(Some(file)) => Ok(Program::new(program).hold(file).deadline(Some(limit))),
        Ok(None) => Err(ProcessError::Interrupted { program: name() }),
        Err(error) => {
            Err(ProcessError::NotStarted { program: name(), error: io::Error::other(at(lock)(error)) })
        }
    }
}

/// The tool, for one repository.
#[derive(Debug)]
pub(crate) struct PeipkgRepo {
    /// The path of `peipkg-repo`.
    pub program: PathBuf,
    /// The key that it signs with.
    pub key_file: PathBuf,
    /// The state directory that holds the repository.
    pub state: Arc<StateDir>,
}

impl PeipkgRepo {
    /// Returns a run of a sub-command that changes the repository, with the lock and the options
    /// that all of these need.
    ///
    /// # Errors
    /// When the lock file cannot be used, or the wait for the lock is interrupted or too long.
    pub(crate) fn writer(&self, sub_command: &str, interrupt: &Interrupt) -> Result<Program, ProcessError> {
        let program = exclusive(&self.program, &self.state.tool_lock(), DEADLINE, interrupt)?;
        let timestamp = timestamp::for_repository(&self.state.repo());
        let program = program.arg(sub_command).arg("--sign-key");
        Ok(program.arg(&self.key_file).args(["--timestamp", &timestamp]))
    }

    /// Waits until no `peipkg-repo` of an earlier manager changes the repository.
    ///
    /// # Errors
    /// When the lock file cannot be used, or the wait is interrupted or too long.
    pub(crate) fn wait_for_writer(&self, interrupt: &Interrupt) -> Result<(), ProcessError> {
        exclusive(&self.program, &self.state.tool_lock(), DEADLINE, interrupt).map(drop)
    }

    /// Checks the signatures and indexes of the repository at `repo`.
    ///
    /// # Errors
    /// When `peipkg-repo verify` finds a fault, or cannot run.
    pub(crate) fn verify(&self, repo: &Path, interrupt: &Interrupt) -> Result<(), ProcessError> {
        let program = Program::new(&self.program).deadline(Some(DEADLINE)).arg("verify").arg("--repo");
        program.arg(repo).args(["--mode", "metadata"]).run(interrupt).map(drop)
    }
}
