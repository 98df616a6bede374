//! From built outputs to the signed repository: `peipkg-repo`, and what becomes of
//! what it has begun.

mod kept;
mod settle;
mod timestamp;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::archive_file::{OwnChange, Stamp};
use crate::build_log::BuildLog;
use crate::config::Config;
use crate::durable;
use crate::farm::events::PendingOutputs;
use crate::identity::PackageName;
use crate::journal::Journal;
use crate::process::{Interrupt, ProcessError, Program};
use crate::state_dir::StateDir;
use crate::state_dir::lock::wait_for_tool;
use crate::version::Version;

use self::kept::read_kept;
pub use self::settle::Settled;
use self::settle::Whose;
#[cfg(any(test, fuzzing))]
pub(crate) use self::{kept::read_job, timestamp::generated_at};

/// How long one run of `peipkg-repo` may take. It needs seconds for the largest index; the rest is for slow
/// disks. Everybody waits for the builder meanwhile.
const TOOL_DEADLINE: Duration = Duration::from_mins(15);

/// The repository and the tool that changes it.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Where `peipkg-repo` is.
    pub peipkg_repo: PathBuf,
    /// The configuration.
    pub config: Arc<Config>,
    /// The state directory.
    pub state: Arc<StateDir>,
    /// Whether there is a remote that is going to lack what is published.
    pub uploads: bool,
    /// Held while the repository is changed, or must not change.
    pub access: Arc<Mutex<()>>,
}

/// Why something could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// `peipkg-repo` failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file could not be read, written or moved.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// `peipkg-repo` has ended as if all was well, but a package is not where it should be.
    #[error("peipkg-repo publish exited with status 0, but {missing}")]
    NotPublished {
        /// What is missing.
        missing: String,
    },
    /// Kept outputs are no longer there: somebody has taken them away.
    #[error("{0} is gone")]
    Gone(PathBuf),
    /// The repository has lost a package. Its index must not reach the remote, and nothing may be removed from there.
    #[error("the archive index names {package}, but {found}; restore it before anything is uploaded")]
    Lost {
        /// The package's file.
        package: PathBuf,
        /// What is in its place.
        found: String,
    },
    /// The remote has what the repository has not. To go on would remove it.
    #[error(
        "the remote {0}: it was not uploaded from this repository as it is; \
         bring the repository back from the remote or a backup, or give it another remote"
    )]
    OtherRemote(String),
    /// Nobody can tell any more what the last publish has changed.
    #[error(
        "{journal}: cannot be used to undo the last publish, {reason}; and the repository is not whole: {found}; \
         restore its index or make it anew from its packages, then start again"
    )]
    CannotSettle {
        /// The journal.
        journal: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
        /// What is wrong with the repository.
        found: String,
    },
    /// A publish was cut short in a `repo/` that is empty now, as where a disk is not mounted.
    #[error(
        "{repo} is empty, but a publish in it was cut short; mount it, or remove {journal} if it is lost"
    )]
    Emptied {
        /// The directory.
        repo: PathBuf,
        /// What can undo the publish.
        journal: PathBuf,
    },
    /// There is a `repo/` that is no repository.
    #[error("{0} has no repo.json but is not empty; move its files away, or restore its repo.json")]
    NoRepository(PathBuf),
}

impl PublishError {
    /// Whether it was the manager's own shutdown that ended it.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Process(ProcessError::Interrupted { .. }))
    }
}

impl Publisher {
    /// Creates the repository if there is none yet. It appears whole or not at all.
    ///
    /// # Errors
    /// When `peipkg-repo init` fails or `repo/` holds something else.
    pub fn init_repository(&self, interrupt: &Interrupt) -> Result<(), PublishError> {
        let repo = self.state.repo();
        if repo.join("repo.json").exists() {
            return Ok(());
        }
        if !is_missing(&repo) && !is_empty(&repo)? {
            return Err(PublishError::NoRepository(repo));
        }
        let fresh = self.state.stage().join(self.state.unique_name("repo"));
        let program = self.tool("init", interrupt)?;
        program
            .args(["--name", &self.config.repo.name, "--description", &self.config.repo.description])
            .arg("--out")
            .arg(&fresh)
            .run(interrupt)
            .map_err(PublishError::from)
            .and_then(|_| Journal::sync_small_files(&fresh).map_err(at(&fresh)))
            // And the rest, such as the keys: no publish writes that again.
            .and_then(|()| durable::sync_file_system(&fresh).map_err(at(&fresh)))
            // An empty directory gives way to the rename.
            .and_then(|()| fs::rename(&fresh, &repo).map_err(at(&repo)))
            .inspect_err(|_| drop(durable::remove(&fresh)))
    }

    /// Publishes kept outputs, whole or not at all; returns how this has changed the archive index.
    /// What the tool says goes to `log`.
    ///
    /// # Errors
    /// When `peipkg-repo publish` fails; the repository is then as it was before.
    pub fn publish(
        &self,
        outputs: &PendingOutputs,
        interrupt: &Interrupt,
        log: &BuildLog,
    ) -> Result<OwnChange, PublishError> {
        let _access = self.access();
        let index = self.state.archive_index();
        let before = Stamp::of_file(&index);
        let change = || OwnChange { before, after: Stamp::of_file(&index) };
        // An earlier publish that could not be undone then must not be built upon. It may have been this one.
        if self.settle(interrupt)? == Settled::Stands(outputs.directory.clone()) {
            return Ok(change());
        }
        let (repo, journal) = (self.state.repo(), self.journal());
        let packages = self.packages_of(&outputs.directory);
        if !self.state.publish().join(&outputs.directory).exists() {
            return Err(PublishError::Gone(packages));
        }
        let program = self.tool("publish", interrupt)?;
        let program = program.arg("--in").arg(&repo).arg("--new").arg(packages).arg("--out").arg(&repo);
        if self.uploads {
            // From here on the remote may lack something, even if this process dies.
            let owed = self.state.upload_owed();
            durable::create_marker(&owed).map_err(at(&owed))?;
        }
        journal.begin(&outputs.directory).map_err(at(journal.path()))?;
        let error = match program.log_to(log).run(interrupt) {
            Ok(_) => {
                let change = change();
                // What it says is not enough: the kept outputs are about to go.
                match self.missing(outputs) {
                    None => {
                        self.sync_published(outputs)?;
                        return journal.forget().map(|()| change).map_err(at(journal.path()));
                    }
                    Some(missing) => PublishError::NotPublished { missing },
                }
            }
            // The shutdown does not wait: the next start settles it.
            Err(error @ ProcessError::Interrupted { .. }) => return Err(error.into()),
            Err(error) => error.into(),
        };
        match self.settle_of(Whose::Own, interrupt)? {
            // It has failed after it was done.
            Settled::Stands(_) => Ok(change()),
            Settled::Undone | Settled::Nothing => Err(error),
        }
    }

    /// Keeps everybody else in this process from the repository, until it is dropped.
    pub fn access(&self) -> MutexGuard<'_, ()> {
        // Nothing is kept in it that a panic could have broken.
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal of the publish that is under way.
    pub fn journal(&self) -> Journal {
        Journal::new(self.state.journal(), self.state.repo())
    }

    /// Checks the repository's signatures and indexes.
    ///
    /// # Errors
    /// When `peipkg-repo verify` finds something wrong.
    pub fn verify(&self, interrupt: &Interrupt) -> Result<(), PublishError> {
        let program = Program::new(&self.peipkg_repo).deadline(Some(TOOL_DEADLINE));
        program
            .arg("verify")
            .arg("--repo")
            .arg(self.state.repo())
            .args(["--mode", "metadata"])
            .run(interrupt)?;
        Ok(())
    }

    /// Makes what the tool has written last: the kept outputs are about to go.
    fn sync_published(&self, outputs: &PendingOutputs) -> Result<(), PublishError> {
        let packages =
            outputs.packages.iter().map(|package| self.published_path(package, &outputs.key.version));
        Journal::sync_small_files(&self.state.repo()).map_err(at(&self.state.repo()))?;
        // The file, and the names that lead to it: all of `p/<name>/<version>` may be new.
        for path in packages {
            for path in path.ancestors().take(4) {
                durable::sync(path).map_err(at(path))?;
            }
        }
        Ok(())
    }

    /// Where a package is published (PSD-009 §6.4).
    pub fn published_path(&self, package: &PackageName, version: &Version) -> PathBuf {
        let directory = self.state.repo().join("p").join(&package.name).join(version.as_str());
        directory.join(package.file_name(version))
    }

    /// `peipkg-repo` with what all its sub-commands need.
    fn tool(&self, sub_command: &str, interrupt: &Interrupt) -> Result<Program, PublishError> {
        let program = Program::new(&self.peipkg_repo).hold(lock(&self.state.tool_lock(), interrupt)?);
        let program = program.deadline(Some(TOOL_DEADLINE)).arg(sub_command).arg("--sign-key");
        let timestamp = timestamp::for_repository(&self.state.repo());
        Ok(program.arg(&self.config.key_file).args(["--timestamp", &timestamp]))
    }
}

/// Waits for the lock of a tool (see [`wait_for_tool`]).
///
/// # Errors
/// When the lock file cannot be opened, or the wait is interrupted.
pub fn lock(path: &Path, interrupt: &Interrupt) -> Result<File, PublishError> {
    let lock = wait_for_tool(path, || interrupt.is_triggered()).map_err(at(path))?;
    lock.ok_or_else(|| ProcessError::Interrupted { program: "waiting for an earlier tool".into() }.into())
}

/// Whether nothing at all is at `path`: a link to a disk that is not there is something.
fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether there is nothing in the directory at `path`.
fn is_empty(path: &Path) -> Result<bool, PublishError> {
    Ok(fs::read_dir(path).map_err(at(path))?.next().is_none())
}

/// Names the file in an I/O error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> PublishError {
    let path = path.to_owned();
    move |error| PublishError::File { path, error }
}
