//! The builder: holds the configuration, directories and tools. The steps of a build are in the files beside
//! this one.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use crate::app::builder::versions::KnownVersions;
use crate::app::public_keys::PublicKeys;
use crate::config::Config;
use crate::process::Interrupt;
use crate::process::users_of::WorkUsers;
use crate::repository::Repository;
use crate::state::state_dir::StateDir;
use crate::upstream::source::fetch::Sources;
use crate::upstream::source::signatures::Verifiers;

/// The builder's configuration, directories and tools.
#[derive(Debug)]
pub(in crate::app) struct Builder {
    /// The configuration.
    pub config: Arc<Config>,
    /// The state directory.
    pub state: Arc<StateDir>,
    /// Fetches sources. The builders share it.
    pub sources: Arc<Sources>,
    /// Finds the processes that earlier builds have left. The builders share it.
    pub work_users: Arc<WorkUsers>,
    /// The path of `git`, for its version.
    pub git: PathBuf,
    /// The versions of `git` and `peipkg-build`, as they said last.
    pub versions: RefCell<KnownVersions>,
    /// The path of `peipkg-build`.
    pub peipkg_build: PathBuf,
    /// The programs that verify signatures.
    pub verifiers: Arc<Verifiers>,
    /// The path of `peipkg-repo`, which compares packages.
    pub peipkg_repo: PathBuf,
    /// The path of `faketime`, if the machine has it.
    pub faketime: Option<PathBuf>,
    /// The public keys that grants inject.
    pub public_keys: PublicKeys,
    /// Takes the packages.
    pub repository: Arc<Repository>,
    /// Ends the job in progress.
    pub interrupt: Interrupt,
}
