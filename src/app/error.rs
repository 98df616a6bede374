//! The errors that end the manager, and their exit codes.

use std::fmt::Display;
use std::io;

use peipkg_format::problem::Problem;

use crate::app::cli::UsageError;
use crate::app::tools::MissingTool;
use crate::config::ListenAddr;
use crate::farm::events::JobKey;
use crate::repository::publish::PublishError;
use crate::state::state_dir::StateDirError;

/// An error that ends the manager. Its text has one line per problem.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The command line is wrong.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The configuration file cannot be read.
    #[error("{0}")]
    ConfigUnreadable(Problem),
    /// The configuration file has problems.
    #[error("{}", lines(.0))]
    Config(Vec<Problem>),
    /// Recipes, keys or the webhook secret have problems.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
    /// Programs are missing.
    #[error("{}", lines(.0))]
    Tools(Vec<MissingTool>),
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The repository cannot be initialised, or cannot be restored after an interrupted publish.
    #[error("cannot prepare the repository: {0}")]
    Repository(PublishError),
    /// The manager cannot listen on the configured address.
    #[error("[http] addr {0}: cannot listen there: {1}")]
    Listen(ListenAddr, io::Error),
    /// A version cannot be built again.
    #[error("cannot rebuild {0}: {1}")]
    Rebuild(JobKey, String),
    /// The system refused a thread, a pipe or a signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl Error {
    /// Returns 2 for a wrong command line or configuration file, else 1.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            _ => 1,
        }
    }
}

fn lines(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
