//! Copying the repository to its remote with rclone.
//!
//! A reader of the remote must never see an index that names a package which is
//! not there. So the packages go first, the index and the descriptor after
//! them, and what the remote has and the repository has not goes last.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::process::{Interrupt, Program};
use crate::publish::{PublishError, lock_tools};
use crate::state_dir::StateDir;

/// How long one pass may take: a first upload of a large repository over a thin
/// line is a matter of hours; rclone ends stalled transfers by itself.
const PASS_DEADLINE: Duration = Duration::from_hours(24);

/// The files that readers start from (PSD-009 §6.1, §6.2), as rclone filters.
const ENTRY_POINTS: [&str; 2] = ["/repo.json*", "/index/**"];

/// The remote and the tool that copies to it.
#[derive(Debug, Clone)]
pub struct Uploader {
    /// Where `rclone` is.
    pub rclone: PathBuf,
    /// rclone's remote and path.
    pub remote: String,
    /// The state directory.
    pub state: Arc<StateDir>,
}

impl Uploader {
    /// Notes that the remote is about to lack something; survives a restart.
    ///
    /// # Errors
    /// When the marker cannot be written.
    pub fn owe(&self) -> io::Result<()> {
        File::create(self.state.upload_owed())?.sync_all()
    }

    /// Whether an upload of an earlier run is still owed.
    pub fn is_owed(&self) -> bool {
        self.state.upload_owed().exists()
    }

    /// Makes the remote the same as the repository.
    ///
    /// # Errors
    /// When rclone fails in one of its passes; the upload is then still owed.
    pub fn upload(&self, interrupt: &Interrupt) -> Result<(), PublishError> {
        let [first, second] = ENTRY_POINTS;
        self.pass("copy", &["--exclude", first, "--exclude", second], interrupt)?;
        self.pass("copy", &["--include", first, "--include", second], interrupt)?;
        self.pass("sync", &["--delete-after"], interrupt)?;
        let marker = self.state.upload_owed();
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PublishError::File { path: marker, error })
            }
            _ => Ok(()),
        }
    }

    fn pass(&self, command: &str, options: &[&str], interrupt: &Interrupt) -> Result<(), PublishError> {
        let program = Program::new(&self.rclone).hold(lock_tools(&self.state, interrupt)?);
        let program = program.deadline(Some(PASS_DEADLINE)).arg(command).args(options.iter().copied());
        program.arg("--").arg(self.state.repo()).arg(&self.remote).run(interrupt)?;
        Ok(())
    }
}
