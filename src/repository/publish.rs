//! Publishes pending packages with `peipkg-repo`. Trusts no exit status: a publish counts only when
//! the packages are in the repository.

use std::path::PathBuf;

use log::warn;

use crate::build_log::BuildLog;
use crate::config::Upload;
use crate::farm::events::PendingOutputs;
use crate::process::{Interrupt, ProcessError};
use crate::repository::Repository;
use crate::repository::group::{Alike, check_names};
use crate::repository::journal::Member;
use crate::repository::settle::SettleError;
use crate::repository::verdict::Ended;
use crate::state::durable::{self, FileError, at};

/// Why a publish failed, or the repository could not be created by [`create`](super::create).
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
    /// `peipkg-repo` exited with status 0, but a package is not where it should be.
    #[error("peipkg-repo publish exited with status 0, but {missing}")]
    NotPublished {
        /// Which package is missing or altered.
        missing: String,
    },
    /// Somebody has removed the pending packages in these directories below `publish/`.
    #[error("pending packages are gone: {}", .0.join(", "))]
    Gone(Vec<String>),
    /// Two builds of the group have the same package.
    #[error(transparent)]
    Alike(#[from] Alike),
    /// `repo/` holds files, but no repository.
    #[error("{0} has no repo.json but is not empty; move its files away, or restore its repo.json")]
    NoRepository(PathBuf),
    /// `repo/` is a link to a directory that is gone, and a repository was there before.
    #[error(
        "{repo} leads to {target}, which is gone; mount its disk, or create that directory to begin a new repository"
    )]
    Dangling {
        /// The link.
        repo: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
}

impl PublishError {
    /// Whether the manager's own shutdown ended the publish.
    pub(crate) fn is_interrupted(&self) -> bool {
        match self {
            Self::Tool(error) => error.is_interrupted(),
            Self::Settle(error) => error.is_interrupted(),
            _ => false,
        }
    }
}

impl Repository {
    /// Publishes the pending packages of a group of builds by one run of the tool, all or none. The
    /// tool's output goes to `log`. Packages that are published already, to the byte, are no error.
    ///
    /// The archive index counts as read after a publish that alone changed it: the caller tells the farm
    /// which packages it brought. After any other, the loop reads the index again.
    ///
    /// # Errors
    /// When `peipkg-repo publish` fails; the repository is then as it was before. Nothing is changed
    /// if pending packages are gone, or if two builds have the same package.
    pub(crate) fn publish(
        &self,
        group: &[PendingOutputs],
        interrupt: &Interrupt,
        log: &BuildLog,
    ) -> Result<(), PublishError> {
        let _lock = self.lock();
        let before = self.archive.edition();
        // Build on no earlier publish that could not be undone. It may have been of these packages.
        let published = self.settle(Ended::Earlier, interrupt)?;
        let is_pending = |outputs: &&PendingOutputs| !published.contains(&outputs.directory);
        let group: Vec<&PendingOutputs> = group.iter().filter(is_pending).collect();
        if group.is_empty() {
            return Ok(());
        }
        let gone = group.iter().filter(|outputs| !self.pending.contains(&outputs.directory));
        let gone: Vec<String> = gone.map(|outputs| outputs.directory.clone()).collect();
        if !gone.is_empty() {
            return Err(PublishError::Gone(gone));
        }
        check_names(&group)?;
        let program = self.tool.writer("publish", interrupt)?;
        let (repo, new) = (self.state.repo(), self.gather(&group)?);
        let program = program.arg("--in").arg(&repo).arg("--new").arg(new.path()).arg("--out").arg(&repo);
        if self.config.upload != Upload::None {
            // From here on the remote may lack a package, even if this process dies.
            let owed = self.state.upload_owed();
            durable::create_marker(&owed).map_err(at(&owed))?;
        }
        self.journal.begin(group.iter().copied().map(Member::from).collect())?;
        let error = match program.log_to(log).run(interrupt) {
            Ok(_) => {
                let after = self.archive.edition();
                // Do not trust the exit status: the pending packages are removed next.
                match self.conclude(&group) {
                    Ok(concluded) => {
                        concluded?;
                        self.journal.forget()?;
                        self.archive.acknowledge(before.as_ref(), after.as_ref());
                        return Ok(());
                    }
                    Err(missing) => PublishError::NotPublished { missing },
                }
            }
            // The shutdown does not wait: the next start settles this publish.
            Err(error @ ProcessError::Interrupted { .. }) => return Err(error.into()),
            Err(error) => error.into(),
        };
        // The loop may not know why: it reads the index again once this is settled.
        self.archive.forget();
        self.settle(Ended::JustNow, interrupt)?;
        // The tool may have failed after it had published everything, or because everything was
        // published already: an upload may have settled an earlier publish of these packages.
        let Ok(concluded) = self.conclude(&group) else { return Err(error) };
        let directories: Vec<_> = group.iter().map(|outputs| &*outputs.directory).collect();
        warn!(directory = directories.join(" "), error:%; "publish stands, although the tool failed");
        Ok(concluded?)
    }

    /// Brings the provenance of `group` to its published packages, and syncs all of it: the pending
    /// packages are removed next. Returns how that failed.
    ///
    /// # Errors
    /// Which package is not published as it was built.
    fn conclude(&self, group: &[&PendingOutputs]) -> Result<Result<(), FileError>, String> {
        let listing = self.listing(group.iter().copied()).map_err(|error| error.to_string())?;
        let files: Result<Vec<_>, _> =
            group.iter().map(|outputs| self.published(outputs, &listing)).collect();
        let files = files?.concat();
        let placed = self.place_provenance(group.iter().copied(), &listing);
        Ok(placed.and_then(|placed| self.sync(files.into_iter().chain(placed))))
    }
}
