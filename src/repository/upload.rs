//! Uploading: copies the repository to its remote with rclone.
//!
//! A reader of the remote must never see an index that names a package which is
//! not there. So the packages go first, the index and the descriptor after
//! them, and what the remote has and the repository has not goes last. The small
//! files are copied aside at the start: while an upload runs, the next version may
//! be published, and its packages are not on their way.
//!
//! Nothing is changed on a remote that may be the last copy: see [`refusal`].

mod refusal;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::repository_layout::{ARCHIVE_INDEX, DESCRIPTOR, INDEX_DIRECTORY};

use crate::farm::events::UploadOutcome;
use crate::process::{Interrupt, ProcessError, Program};
use crate::repository::peipkg_repo::exclusive;
use crate::repository::publish::Publisher;
use crate::repository::settle::SettleError;
use crate::repository::upload::refusal::Refusal;
use crate::state::durable::{self, FileError, at};
use crate::state::state_dir::StateDir;

/// How long one pass may take: a first upload of a large repository over a thin
/// line is a matter of hours; rclone ends stalled transfers by itself.
const PASS_DEADLINE: Duration = Duration::from_hours(24);

/// How often a pass is begun again because of a publish: builds that follow each other closely are few in such a row.
const OVERTAKEN: u32 = 5;

/// The files that readers start from (PSD-009 §6.1, §6.2), as rclone filters.
const ENTRY_POINTS: [&str; 2] = ["/repo.json*", "/index/**"];

/// The longest list of what a remote has at its top, in bytes: a repository's is short.
const MAX_LISTING: usize = 16 * 1024 * 1024;

/// What tools are still writing.
const WORK_FILES: [&str; 2] = [".*", ".*/**"];

/// rclone's exit statuses for what is not there: directory, file.
const NOT_FOUND: [Option<i32>; 2] = [Some(3), Some(4)];

/// The remote and the tool that copies to it.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    /// Where `rclone` is.
    pub rclone: PathBuf,
    /// rclone's remote and path.
    pub remote: String,
    /// The state directory.
    pub state: Arc<StateDir>,
    /// The repository.
    pub publisher: Publisher,
}

/// Why the repository could not be uploaded.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    File(#[from] FileError),
    /// A publish that was cut short cannot be settled, so the indexes may be half written.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The repository does not verify, or rclone has failed.
    #[error(transparent)]
    Tool(#[from] ProcessError),
    /// The upload would lose something.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl UploadError {
    /// Whether the manager's own shutdown ended it.
    fn is_interrupted(&self) -> bool {
        match self {
            Self::Settle(error) => error.is_interrupted(),
            Self::Tool(error) => matches!(error, ProcessError::Interrupted { .. }),
            _ => false,
        }
    }

    /// Whether rclone has failed with the exit status for what is not there.
    fn is_not_found(&self) -> bool {
        let Self::Tool(ProcessError::Failed { status, .. }) = self else { return false };
        NOT_FOUND.contains(&status.code())
    }

    /// Whether rclone has met a file that was being written.
    fn is_overtaken(&self) -> bool {
        let Self::Tool(ProcessError::Failed { tail, .. }) = self else { return false };
        tail.contains("source file is being updated")
    }
}

impl Uploader {
    /// Uploads the repository.
    pub(crate) fn run(&self, interrupt: &Interrupt) -> UploadOutcome {
        match self.upload(interrupt) {
            Ok(()) => UploadOutcome::Done,
            Err(error) if error.is_interrupted() => UploadOutcome::Interrupted,
            Err(error) => UploadOutcome::Failed { reason: without_secrets(&error.to_string(), &self.remote) },
        }
    }

    /// Whether an upload of an earlier run is still owed.
    pub(crate) fn is_owed(&self) -> bool {
        self.state.upload_owed().exists() || self.state.upload_begun().exists()
    }

    /// Makes the remote the same as the repository is now.
    fn upload(&self, interrupt: &Interrupt) -> Result<(), UploadError> {
        let begun = self.state.upload_begun();
        let snapshot = self.state.stage().join(self.state.unique_name("upload"));
        let result = self.begin(&snapshot, interrupt).and_then(|()| self.copy(&snapshot, interrupt));
        let cleared = durable::remove(&snapshot);
        result?;
        let done = cleared.and_then(|()| durable::remove(&begun));
        Ok(done.map_err(at(&begun))?)
    }

    /// Copies the small files aside, if the repository is in order: what does not
    /// verify must not reach the remote.
    fn begin(&self, snapshot: &Path, interrupt: &Interrupt) -> Result<(), UploadError> {
        let _access = self.publisher.access();
        self.publisher.settle(interrupt)?;
        self.publisher.verify(interrupt)?;
        let (owed, begun) = (self.state.upload_owed(), self.state.upload_begun());
        let noted = durable::create_marker(&begun).and_then(|()| durable::remove(&owed));
        noted.map_err(at(&begun))?;
        Ok(copy_entry_points(&self.state.repo(), snapshot).map_err(at(snapshot))?)
    }

    fn copy(&self, snapshot: &Path, interrupt: &Interrupt) -> Result<(), UploadError> {
        let (repo, remote) = (self.state.repo(), OsStr::new(&self.remote));
        let exclude =
            |patterns: &[&'static str]| patterns.iter().flat_map(|p| ["--exclude", p]).collect::<Vec<_>>();
        let packages = exclude(&[ENTRY_POINTS, WORK_FILES].concat());
        self.check_remote(snapshot, interrupt)?;
        // Each pass may take long enough for a disk to go.
        self.check_packages(snapshot)?;
        self.pass("copy", &packages, repo.as_ref(), remote, interrupt)?;
        self.check_packages(snapshot)?;
        let entry_points: Vec<_> = ENTRY_POINTS.iter().flat_map(|p| ["--include", p]).collect();
        // Two versions of an index may well have the same length, and signatures always have: of a remote that keeps no
        // times, or whole seconds, rclone would take the old one for the new. They are few and small.
        let options = [&["--delete-after"][..], &entry_points, &["--ignore-times"]].concat();
        self.pass("sync", &options, snapshot.as_ref(), remote, interrupt)?;
        self.check_packages(snapshot)?;
        self.pass("sync", &[&["--delete-after"][..], &packages].concat(), repo.as_ref(), remote, interrupt)
    }

    /// Looks whether the remote is an earlier state of this repository, or has nothing but what an upload that was cut
    /// short may have left there.
    fn check_remote(&self, snapshot: &Path, interrupt: &Interrupt) -> Result<(), UploadError> {
        // No filter of the later passes includes it.
        let fetched = snapshot.join("remote");
        let filter = format!("/{ARCHIVE_INDEX}");
        let options = ["--include", &filter];
        match self.pass("copy", &options, self.remote.as_ref(), fetched.as_ref(), interrupt) {
            Err(error) if error.is_not_found() => {}
            result => result?,
        }
        let theirs = archive_index(&fetched);
        if theirs.exists() {
            return Ok(refusal::of_other_remote(&archive_index(snapshot), &theirs)?);
        }
        // The last pass would remove all that the repository has not, be it the contents of a whole account.
        let list = self.rclone(interrupt)?.capture_stdout(MAX_LISTING).args(["lsf", "--", &self.remote]);
        match list.run(interrupt).map_err(UploadError::Tool) {
            Err(error) if error.is_not_found() => Ok(()),
            result => {
                let listing = result?.stdout;
                Ok(refusal::of_occupied_remote(&String::from_utf8_lossy(&listing), &self.state.repo())?)
            }
        }
    }

    /// Looks whether the repository has every package that the index in `snapshot` names.
    fn check_packages(&self, snapshot: &Path) -> Result<(), UploadError> {
        Ok(refusal::of_lost_packages(&archive_index(snapshot), &self.state.repo())?)
    }

    /// Runs rclone, and again if the next package was being published meanwhile, which a tool may write in place: this is
    /// no fault, and the rest of the upload still waits.
    fn pass(
        &self,
        command: &str,
        options: &[&str],
        from: &OsStr,
        to: &OsStr,
        interrupt: &Interrupt,
    ) -> Result<(), UploadError> {
        let mut repeats = 0;
        loop {
            let program = self.rclone(interrupt)?.arg(command).args(options.iter().copied());
            let result = program.arg("--").arg(from).arg(to).run(interrupt);
            match result.map_err(UploadError::Tool) {
                Err(error) if error.is_overtaken() && repeats < OVERTAKEN => repeats += 1,
                result => return result.map(drop),
            }
            // Wait until that publish is over.
            drop(self.publisher.access());
        }
    }

    /// rclone, as soon as none of an earlier manager is at work.
    fn rclone(&self, interrupt: &Interrupt) -> Result<Program, ProcessError> {
        let program = exclusive(&self.rclone, &self.state.upload_lock(), interrupt)?;
        Ok(program.deadline(Some(PASS_DEADLINE)))
    }
}

/// Where a copy of the small files has the archive index.
fn archive_index(copy: &Path) -> PathBuf {
    copy.join(ARCHIVE_INDEX)
}

/// Copies descriptor and indexes, with their signatures.
fn copy_entry_points(repo: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to.join(INDEX_DIRECTORY))?;
    for directory in ["", INDEX_DIRECTORY] {
        for entry in fs::read_dir(repo.join(directory))? {
            let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let is_wanted = directory == INDEX_DIRECTORY || name.to_string_lossy().starts_with(DESCRIPTOR);
            if is_wanted && entry.is_file() {
                fs::copy(&entry, to.join(directory).join(name))?;
            }
        }
    }
    Ok(())
}

/// `text` without what a remote that is configured in its own name
/// (`:sftp,host=…,pass=…:path`) says about itself.
fn without_secrets(text: &str, remote: &str) -> String {
    let Some((name, _)) = remote.split_once(',') else { return text.to_owned() };
    let parameters = remote.rsplit_once(':').map_or(remote, |(parameters, _)| parameters);
    text.replace(remote, name).replace(parameters, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_with_a_password_is_shown_without() {
        let remote = ":sftp,host=h,pass=secret:pkgs";
        let text =
            "Failed to create file system for \":sftp,host=h,pass=secret:pkgs\": :sftp,host=h,pass=secret:x";
        let shown = without_secrets(text, remote);
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(without_secrets("r2:pkgs: denied", "r2:pkgs"), "r2:pkgs: denied");
    }
}
