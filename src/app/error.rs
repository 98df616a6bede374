//! Why the manager could not start or go on, and the exit code that says so.

use std::fmt;
use std::io;

use peipkg_format::problem::Problem;

use crate::app::cli::UsageError;
use crate::app::tools::MissingTool;
use crate::config::ListenAddr;
use crate::repository::publish::PublishError;
use crate::state::state_dir::StateDirError;

/// An error that ends the manager. Its `Display` form is one line per defect.
#[derive(Debug)]
pub(super) enum Error {
    /// The command line is wrong.
    Usage(UsageError),
    /// The configuration file cannot be read.
    ConfigUnreadable(Problem),
    /// The configuration does not fit its schema.
    Config(Vec<Problem>),
    /// Recipes cannot be loaded, or a key cannot be used.
    Problems(Vec<Problem>),
    /// Programs are missing.
    Tools(Vec<MissingTool>),
    /// The state directory cannot be used.
    StateDir(StateDirError),
    /// The repository cannot be initialised, or not be restored after a publish that was cut short.
    Repository(PublishError),
    /// The listen address cannot be bound.
    Listen(ListenAddr, io::Error),
    /// The system refused a thread, a pipe or a signal handler.
    System(io::Error),
}

impl Error {
    /// 2 for a command line or a configuration that is wrong in itself, else 1.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::ConfigUnreadable(problem) => problem.fmt(f),
            Self::Config(problems) | Self::Problems(problems) => lines(f, problems),
            Self::Tools(missing) => lines(f, missing),
            Self::StateDir(error) => error.fmt(f),
            Self::Repository(error) => write!(f, "cannot prepare the repository: {error}"),
            Self::Listen(addr, error) => write!(f, "[http] addr {addr}: cannot listen there: {error}"),
            Self::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for Error {}

fn lines<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str("\n")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

impl From<UsageError> for Error {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

impl From<StateDirError> for Error {
    fn from(error: StateDirError) -> Self {
        Self::StateDir(error)
    }
}

impl From<Vec<MissingTool>> for Error {
    fn from(missing: Vec<MissingTool>) -> Self {
        Self::Tools(missing)
    }
}
