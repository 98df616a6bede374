//! Uploading: copies the repository to its remote with rclone.
//!
//! A reader of the remote must never see an index that lists a package which is not there. So the
//! upload copies the packages first, then the indexes and the descriptor, and last removes from the
//! remote the packages that the repository does not have. It uploads a snapshot of the small files
//! from its start: the farm may publish the next version meanwhile, and its packages may come too
//! late for the first pass.
//!
//! The uploader changes nothing on a remote that may be the last copy: see [`refusal`].

mod refusal;
mod remote;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::regular_file;
use peipkg_format::repository_layout::{
    ARCHIVE_INDEX, DESCRIPTOR, INDEX_DIRECTORY, SITE_ASSETS, SITE_FEED, SITE_PAGE,
};

use crate::farm::events::UploadOutcome;
use crate::process::{Interrupt, ProcessError, Program};
use crate::recipe::secrets::Secrets;
use crate::repository::Repository;
use crate::repository::peipkg_repo::exclusive;
use crate::repository::settle::SettleError;
use crate::repository::upload::refusal::Refusal;
use crate::repository::verdict::Ended;
use crate::state::durable::{self, FileError, at};

/// How long one run of rclone may take. The first upload of a large repository over a slow line
/// takes hours; rclone itself ends stalled transfers.
const PASS_DEADLINE: Duration = Duration::from_hours(24);

/// How often a pass is repeated because a publish changed a file under it. Publishes seldom follow
/// each other so closely; a file that always changes must not repeat the pass for ever.
const MAX_REPEATS: u32 = 5;

/// The files that readers start from (PSD-009 §6.1, §6.2), and the browse site, which names
/// packages too, as rclone filters. A directory in `index/` is a tool's work, and must not reach the
/// remote; one in `assets/` is an operator's, and its files go with the packages.
const ENTRY_POINTS: [&str; 5] = ["/repo.json*", "/index/**", "/index.html", "/feed.xml", "/assets/*"];

/// The longest list of the names at the top of a remote, in bytes: a repository has few.
const MAX_LISTING: usize = 16 * 1024 * 1024;

/// Unfinished work of tools, and a volume's own directory that only root may read, as rclone
/// filters.
const WORK_FILES: [&str; 3] = [".*", ".*/**", "/lost+found/**"];

/// rclone's exit statuses for "directory not found" and "file not found".
const NOT_FOUND: [Option<i32>; 2] = [Some(3), Some(4)];

/// The repository, its remote, and the tool that copies between them.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    /// The path of `rclone`.
    pub rclone: PathBuf,
    /// The remote and the path on it, as rclone names them.
    pub remote: String,
    /// The repository.
    pub repository: Arc<Repository>,
}

/// Why the repository could not be uploaded.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    File(#[from] FileError),
    /// A publish that was cut short cannot be settled: the indexes may be half written.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The repository does not verify, or rclone failed.
    #[error(transparent)]
    Tool(#[from] ProcessError),
    /// The upload would remove the last copy of a package.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl UploadError {
    /// Whether the manager's own shutdown ended the upload.
    fn is_interrupted(&self) -> bool {
        match self {
            Self::Settle(error) => error.is_interrupted(),
            Self::Tool(error) => error.is_interrupted(),
            _ => false,
        }
    }

    /// Whether rclone did not find the directory or file.
    fn is_not_found(&self) -> bool {
        let Self::Tool(ProcessError::Failed { status, .. }) = self else { return false };
        NOT_FOUND.contains(&status.code())
    }

    /// Whether a file changed while rclone read it.
    fn has_met_a_change(&self) -> bool {
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
            Err(error) => UploadOutcome::Failed { reason: self.secrets().redact(&error.to_string()) },
        }
    }

    /// Whether an upload of an earlier run is still owed.
    pub(crate) fn is_owed(&self) -> bool {
        let state = &self.repository.state;
        state.upload_owed().exists() || state.upload_begun().exists()
    }

    /// Makes the remote equal to the repository as it is now.
    fn upload(&self, interrupt: &Interrupt) -> Result<(), UploadError> {
        let state = &self.repository.state;
        let snapshot = state.stage().join(state.unique_name("upload"));
        let result = self.begin(&snapshot, interrupt).and_then(|()| self.copy(&snapshot, interrupt));
        durable::clear(&snapshot);
        result?;
        let begun = state.upload_begun();
        Ok(durable::remove(&begun).map_err(at(&begun))?)
    }

    /// Copies the small files to `snapshot`, if the repository verifies: a broken index must not
    /// reach the remote.
    fn begin(&self, snapshot: &Path, interrupt: &Interrupt) -> Result<(), UploadError> {
        let Repository { state, tool, .. } = &*self.repository;
        let _lock = self.repository.lock();
        self.repository.settle(Ended::Earlier, interrupt)?;
        tool.verify(&state.repo(), interrupt)?;
        let (owed, begun) = (state.upload_owed(), state.upload_begun());
        let marked = durable::create_marker(&begun).and_then(|()| durable::remove(&owed));
        marked.map_err(at(&begun))?;
        Ok(copy_small_files(&state.repo(), snapshot).map_err(at(snapshot))?)
    }

    /// Brings the packages of the repository and the small files of `snapshot` to the remote.
    fn copy(&self, snapshot: &Path, interrupt: &Interrupt) -> Result<(), UploadError> {
        let (repo, remote) = (self.repository.state.repo(), remote::of(&self.remote).name);
        let remote = OsStr::new(&remote);
        let exclude =
            |patterns: &[&'static str]| patterns.iter().flat_map(|p| ["--exclude", p]).collect::<Vec<_>>();
        let packages = exclude(&[&ENTRY_POINTS[..], &WORK_FILES].concat());
        self.check_remote(snapshot, interrupt)?;
        // Check before each pass: a pass may take hours, and the disk of `p/` may vanish meanwhile.
        self.check_packages(snapshot)?;
        self.pass("copy", &packages, repo.as_ref(), remote, interrupt)?;
        self.check_packages(snapshot)?;
        let entry_points: Vec<_> = ENTRY_POINTS.iter().flat_map(|p| ["--include", p]).collect();
        // Copy them without comparing times: two indexes may have the same length, and two
        // signatures always do. On a remote that keeps no times, rclone would take the old file for
        // the new one.
        let options = [&["--delete-after"][..], &entry_points, &["--ignore-times"]].concat();
        self.pass("sync", &options, snapshot.as_ref(), remote, interrupt)?;
        self.check_packages(snapshot)?;
        self.pass("sync", &[&["--delete-after"][..], &packages].concat(), repo.as_ref(), remote, interrupt)
    }

    /// Checks that the remote is an earlier state of this repository, or has only files that an
    /// upload of it may have left.
    fn check_remote(&self, snapshot: &Path, interrupt: &Interrupt) -> Result<(), UploadError> {
        // The later passes do not upload this directory: no filter includes it.
        let fetched = snapshot.join("remote");
        let filter = format!("/{ARCHIVE_INDEX}");
        let options = ["--include", &filter];
        let remote = remote::of(&self.remote).name;
        match self.pass("copy", &options, remote.as_ref(), fetched.as_ref(), interrupt) {
            Err(error) if error.is_not_found() => {}
            result => result?,
        }
        let theirs = fetched.join(ARCHIVE_INDEX);
        if theirs.exists() {
            return Ok(refusal::of_other_remote(&snapshot.join(ARCHIVE_INDEX), &theirs)?);
        }
        // The last pass would remove every other file, even the contents of a whole account.
        let list = self.rclone(interrupt)?.capture_stdout(MAX_LISTING).args(["lsf", "--", &remote]);
        match list.run(interrupt).map_err(UploadError::Tool) {
            Err(error) if error.is_not_found() => Ok(()),
            result => {
                let listing = result?.stdout;
                let repo = self.repository.state.repo();
                Ok(refusal::of_occupied_remote(&String::from_utf8_lossy(&listing), &repo)?)
            }
        }
    }

    /// Checks that the repository has every package that the index in `snapshot` lists.
    fn check_packages(&self, snapshot: &Path) -> Result<(), UploadError> {
        Ok(refusal::of_lost_packages(&snapshot.join(ARCHIVE_INDEX), &self.repository.state.repo())?)
    }

    /// Runs rclone, and repeats the run if a publish changed a file meanwhile: a tool may write the
    /// next package in place. Without the repeat, the upload would fail although nothing is wrong.
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
                Err(error) if error.has_met_a_change() && repeats < MAX_REPEATS => repeats += 1,
                result => return result.map(drop),
            }
            // Wait until that publish has ended.
            drop(self.repository.lock());
        }
    }

    /// Waits until no rclone of an earlier manager changes the remote, and returns a run of rclone.
    fn rclone(&self, interrupt: &Interrupt) -> Result<Program, ProcessError> {
        let program =
            exclusive(&self.rclone, &self.repository.state.upload_lock(), PASS_DEADLINE, interrupt)?;
        let program = program.deadline(Some(PASS_DEADLINE)).hide(self.secrets());
        let parameters = remote::of(&self.remote).parameters;
        Ok(parameters.into_iter().fold(program, |program, (name, value)| program.env(name, value)))
    }

    fn secrets(&self) -> Secrets {
        Secrets::of_remote(&self.remote)
    }
}

/// Copies the descriptor, the indexes and the browse site, with everything that [`ENTRY_POINTS`]
/// includes: a file that an operator put beside them, such as `repo.json.gz`, would otherwise be
/// removed from the remote. Follows links.
fn copy_small_files(repo: &Path, to: &Path) -> io::Result<()> {
    for directory in ["", INDEX_DIRECTORY, SITE_ASSETS] {
        let entries = match fs::read_dir(repo.join(directory)) {
            // A repository need not have a browse site.
            Err(error) if directory == SITE_ASSETS && error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        fs::create_dir_all(to.join(directory))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let is_wanted = !directory.is_empty()
                || name.to_string_lossy().starts_with(DESCRIPTOR)
                || [SITE_PAGE, SITE_FEED].iter().any(|page| name == *page);
            if is_wanted && entry.path().is_file() {
                let mut from = regular_file::open(&entry.path())?;
                io::copy(&mut from, &mut durable::create(&to.join(directory).join(name))?)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_of_operators_are_copied_too() {
        let home = tempfile::tempdir().unwrap();
        let (repo, to) = (home.path().join("repo"), home.path().join("copy"));
        fs::create_dir_all(repo.join("index/work")).unwrap();
        let small = ["repo.json", "repo.json.gz", "repo.json.sig", "index/archive.json"];
        copy_small_files(&repo, &to).unwrap();
        fs::create_dir(repo.join("assets")).unwrap();
        let site = ["index.html", "feed.xml", "assets/browse.js", "assets/logo.png"];
        for name in small.into_iter().chain(site).chain(["other.json", "elsewhere"]) {
            fs::write(repo.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink(repo.join("elsewhere"), repo.join("index/linked")).unwrap();
        copy_small_files(&repo, &to).unwrap();
        for name in small.into_iter().chain(site) {
            assert_eq!(fs::read_to_string(to.join(name)).unwrap(), name);
        }
        assert_eq!(fs::read_to_string(to.join("index/linked")).unwrap(), "elsewhere");
        assert!(!to.join("other.json").exists() && !to.join("index/work").exists());
    }
}
