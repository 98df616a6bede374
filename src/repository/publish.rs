//! Publishes built outputs: runs `peipkg-repo`, and holds it to what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peipkg_format::repository_layout::DESCRIPTOR;

use crate::build_log::BuildLog;
use crate::config::{Config, Repo, Upload};
use crate::farm::events::PendingOutputs;
use crate::process::{Interrupt, ProcessError};
use crate::repository::archive_file::ArchiveFile;
use crate::repository::journal::{self, Journal};
use crate::repository::peipkg_repo::PeipkgRepo;
use crate::repository::pending::Pending;
use crate::repository::published::Published;
use crate::repository::settle::{SettleError, Settled, Settler, Whose, is_empty, is_missing};
use crate::state::durable::{self, FileError, at};
use crate::state::state_dir::StateDir;

/// The repository and the tool that changes it. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    config: Arc<Config>,
    state: Arc<StateDir>,
    tool: PeipkgRepo,
    journal: Journal,
    pending: Pending,
    published: Published,
    settler: Settler,
    archive: Arc<ArchiveFile>,
    /// Held while the repository is changed, or must not change.
    access: Arc<Mutex<()>>,
}

/// Why something could not be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// `peipkg-repo` failed.
    #[error(transparent)]
    Tool(#[from] ProcessError),
    /// A file could not be read, written or moved.
    #[error(transparent)]
    File(#[from] FileError),
    /// An earlier publish, or this one, could not be settled.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// `peipkg-repo` has ended as if all was well, but a package is not where it should be.
    #[error("peipkg-repo publish exited with status 0, but {missing}")]
    NotPublished {
        /// What is missing.
        missing: String,
    },
    /// Pending outputs are no longer there: somebody has taken them away.
    #[error("{0} is gone")]
    Gone(PathBuf),
    /// There is a `repo/` that is no repository.
    #[error("{0} has no repo.json but is not empty; move its files away, or restore its repo.json")]
    NoRepository(PathBuf),
}

impl PublishError {
    /// Whether it was the manager's own shutdown that ended it.
    pub(crate) fn is_interrupted(&self) -> bool {
        match self {
            Self::Tool(error) => matches!(error, ProcessError::Interrupted { .. }),
            Self::Settle(error) => error.is_interrupted(),
            _ => false,
        }
    }
}

impl Publisher {
    /// Publishes to the repository of `state` with the `peipkg-repo` at `program`.
    pub(crate) fn new(program: PathBuf, config: Arc<Config>, state: Arc<StateDir>) -> Self {
        let tool = PeipkgRepo { program, key_file: config.key_file.clone(), state: state.clone() };
        let journal = Journal::new(state.journal(), state.repo());
        Self {
            settler: Settler::new(&state, journal.clone(), tool.clone()),
            pending: Pending::new(state.clone()),
            published: Published::new(state.clone()),
            archive: Arc::new(ArchiveFile::new(state.archive_index())),
            config,
            state,
            tool,
            journal,
            access: Arc::default(),
        }
    }

    /// The outputs that wait to be published.
    pub(crate) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// The archive index, as far as it was read.
    pub(crate) fn archive(&self) -> &ArchiveFile {
        &self.archive
    }

    /// Settles what an earlier manager has left, then creates the repository if there is none yet. It appears whole or
    /// not at all.
    ///
    /// # Errors
    /// When a publish cannot be settled, `peipkg-repo init` fails or `repo/` holds something else.
    pub(crate) fn prepare_repository(&self, interrupt: &Interrupt) -> Result<(), PublishError> {
        self.journal.clear_unfinished();
        // First: a publish that was cut short may have cost the repository its descriptor.
        self.settle(interrupt)?;
        let repo = self.state.repo();
        if repo.join(DESCRIPTOR).exists() {
            return Ok(());
        }
        if !is_missing(&repo) && !is_empty(&repo)? {
            return Err(PublishError::NoRepository(repo));
        }
        let fresh = self.state.stage().join(self.state.unique_name("repo"));
        self.create_repository(&fresh, &repo, interrupt).inspect_err(|_| drop(durable::remove(&fresh)))
    }

    fn create_repository(
        &self,
        fresh: &Path,
        repo: &Path,
        interrupt: &Interrupt,
    ) -> Result<(), PublishError> {
        let Repo { name, description } = &self.config.repo;
        let program =
            self.tool.writer("init", interrupt)?.args(["--name", name, "--description", description]);
        program.arg("--out").arg(fresh).run(interrupt)?;
        journal::sync_small_files(fresh).map_err(at(fresh))?;
        // And the rest, such as the keys: no publish writes that again.
        durable::sync_file_system(fresh).map_err(at(fresh))?;
        // If `repo` is an empty directory, the rename replaces it.
        Ok(fs::rename(fresh, repo).map_err(at(repo))?)
    }

    /// Publishes pending outputs, whole or not at all. What the tool says goes to `log`.
    ///
    /// The index that this leaves counts as read, as the caller tells the farm what was published.
    ///
    /// # Errors
    /// When `peipkg-repo publish` fails; the repository is then as it was before.
    pub(crate) fn publish(
        &self,
        outputs: &PendingOutputs,
        interrupt: &Interrupt,
        log: &BuildLog,
    ) -> Result<(), PublishError> {
        let _access = self.access();
        let before = self.archive.stamp();
        // An earlier publish that could not be undone then must not be built upon. It may have been this one.
        if self.settle(interrupt)? == Settled::Stands(outputs.directory.clone()) {
            return Ok(());
        }
        let packages = self.pending.packages_of(&outputs.directory);
        if !self.pending.contains(&outputs.directory) {
            return Err(PublishError::Gone(packages));
        }
        let repo = self.state.repo();
        let program = self.tool.writer("publish", interrupt)?;
        let program = program.arg("--in").arg(&repo).arg("--new").arg(packages).arg("--out").arg(&repo);
        if self.config.upload != Upload::None {
            // From here on the remote may lack something, even if this process dies.
            let owed = self.state.upload_owed();
            durable::create_marker(&owed).map_err(at(&owed))?;
        }
        self.journal.begin(&outputs.directory)?;
        let error = match program.log_to(log).run(interrupt) {
            Ok(_) => {
                let after = self.archive.stamp();
                // What it says is not enough: the pending outputs are about to go.
                match self.published.missing(outputs) {
                    None => {
                        self.published.sync(outputs)?;
                        self.journal.forget()?;
                        self.archive.acknowledge(before, after);
                        return Ok(());
                    }
                    Some(missing) => PublishError::NotPublished { missing },
                }
            }
            // The shutdown does not wait: the next start settles it.
            Err(error @ ProcessError::Interrupted { .. }) => return Err(error.into()),
            Err(error) => error.into(),
        };
        match self.settler.settle(Whose::Own, interrupt)? {
            // It has failed after it was done.
            Settled::Stands(_) => Ok(()),
            Settled::Undone | Settled::Nothing => Err(error),
        }
    }

    /// Keeps everybody else in this process from the repository, until it is dropped.
    pub(crate) fn access(&self) -> MutexGuard<'_, ()> {
        // Nothing is kept in it that a panic could have broken.
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a publish that was cut short: it stands if it is whole, else it is undone.
    ///
    /// # Errors
    /// When the repository cannot be brought back; this can be tried again.
    pub(crate) fn settle(&self, interrupt: &Interrupt) -> Result<Settled, SettleError> {
        self.settler.settle(Whose::Earlier, interrupt)
    }

    /// Whether a publish has begun and was not settled: until then the archive index may be half written, or name
    /// packages that are not there.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.journal.exists()
    }

    /// Checks the repository's signatures and indexes.
    ///
    /// # Errors
    /// When `peipkg-repo verify` finds something wrong.
    pub(crate) fn verify(&self, interrupt: &Interrupt) -> Result<(), ProcessError> {
        self.tool.verify(interrupt)
    }
}
