//! From the command line's options to a farm that can run: read the files, find
//! the tools, take the state directory. Everything that can be wrong before the
//! first poll is found here.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use log::{info, warn};

use crate::config::{Config, Upload};
use crate::error::Error;
use crate::problem::Problem;
use crate::process::Interrupt;
use crate::publish::Publisher;
use crate::recipe::Recipe;
use crate::roster;
use crate::signing_key::{self, PublicKeys};
use crate::state_dir::StateDir;
use crate::tools::Tools;
use crate::upload::Uploader;

/// A farm that is ready to run.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration.
    pub config: Arc<Config>,
    /// The programs.
    pub tools: Tools,
    /// The locked state directory.
    pub state: Arc<StateDir>,
    /// The public keys that grants inject.
    pub public_keys: PublicKeys,
    /// The repository.
    pub publisher: Publisher,
    /// The remote, if there is one.
    pub uploader: Option<Uploader>,
    /// The first roster.
    pub recipes: Vec<Recipe>,
}

/// Reads the configuration file.
///
/// # Errors
/// When it cannot be read, or anything in it is wrong.
pub fn read_config(path: &Path) -> Result<Config, Error> {
    let unreadable = |error| Error::ConfigUnreadable(path.to_owned(), error);
    let bytes = fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Config(vec![Problem::of_file(path, "not valid TOML: the file is not UTF-8")]))?;
    Config::parse(path, &text).map_err(Error::Config)
}

/// Checks and opens everything a run needs, in the order in which an operator
/// would mend it, and initialises the repository if there is none.
///
/// # Errors
/// The first thing that is wrong.
pub fn prepare(config: Config, interrupt: &Interrupt) -> Result<Prepared, Error> {
    let uploads = config.upload != Upload::None;
    let tools = Tools::find(env::var_os("PATH").as_deref(), uploads)?;
    let public_keys = check_keys(&config).map_err(Error::Problems)?;
    let recipes = load_roster(&config).map_err(Error::Problems)?;
    let state = Arc::new(StateDir::open(&config.manager.state_dir)?);
    for (path, error) in state.clear_leftovers() {
        warn!(path = path.display().to_string(), error:%; "clear staging dir failed");
    }
    let config = Arc::new(config);
    let publisher =
        Publisher { peipkg_repo: tools.peipkg_repo.clone(), config: config.clone(), state: state.clone() };
    publisher.init_repository(interrupt).map_err(Error::Repository)?;
    let uploader = match (&config.upload, &tools.rclone) {
        (Upload::Rclone { remote }, Some(rclone)) => {
            Some(Uploader { rclone: rclone.clone(), remote: remote.clone(), state: state.clone() })
        }
        _ => None,
    };
    Ok(Prepared { config, tools, state, public_keys, publisher, uploader, recipes })
}

/// Reads the recipes and logs what is odd about them.
///
/// # Errors
/// Every problem of every recipe.
pub fn load_roster(config: &Config) -> Result<Vec<Recipe>, Vec<Problem>> {
    let (recipes, warnings) = roster::load(&config.manager.recipes_dir)?;
    if let Some(problem) = config.check_recipes(&recipes) {
        return Err(vec![problem]);
    }
    for warning in warnings {
        warn!(problem:% = warning; "recipe warning");
    }
    for recipe in config.grants.keys().filter(|id| recipes.iter().all(|recipe| recipe.id != **id)) {
        warn!(recipe:%; "grant for a recipe that does not exist");
    }
    Ok(recipes)
}

/// Whether every private key is one; the public keys of those for binaries.
fn check_keys(config: &Config) -> Result<PublicKeys, Vec<Problem>> {
    let files = config.binary_keys.iter().map(|key| key.private.as_path());
    let keys = PublicKeys::derive(files);
    match signing_key::load(&config.key_file) {
        Ok(_) => keys,
        Err(error) => {
            let mut problems = vec![Problem::of_file(&config.key_file, error.to_string())];
            problems.extend(keys.err().unwrap_or_default());
            Err(problems)
        }
    }
}

/// Says what has started.
pub fn announce(config: &Config, once: bool) {
    let mode = if once { "once" } else { "daemon" };
    let version = env!("CARGO_PKG_VERSION");
    info!(farm_id = config.manager.id, mode, version; "peipkg-manager starting");
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
