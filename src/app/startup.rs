//! From the command line's options to a farm that can run: read the files, find
//! the tools, take the state directory. Everything that can be wrong before the
//! first poll is found here. A start ends at the first group of problems;
//! [`crate::app::check`] uses the same functions and goes on.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use log::{info, warn};
use peipkg_format::problem::Problem;
use peipkg_format::signing_key::{self, KeyError, PublicKeys};

use crate::app::error::Error;
use crate::app::key_permissions;
use crate::app::roster::{self, Reading};
use crate::app::tools::{MissingTool, Tools};
use crate::build_log;
use crate::config::{BinaryKey, Config, Draft, Upload};
use crate::http;
use crate::process::{Interrupt, environment};
use crate::recipe::Recipe;
use crate::repository::publish::Publisher;
use crate::repository::upload::Uploader;
use crate::state::state_dir::{StateDir, StateDirError};

/// Longest webhook secret that is read, in bytes: far above any secret, far below a mistake like a disk image.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// A farm that is ready to run.
#[derive(Debug)]
pub(super) struct Prepared {
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
pub(super) fn read_config(path: &Path) -> Result<Config, Error> {
    let (draft, problems) = read_draft(path).map_err(Error::ConfigUnreadable)?;
    match Config::of(draft) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Error::Config(problems)),
    }
}

/// Reads what can be read of the configuration file, and all that is wrong in it.
///
/// # Errors
/// When the file itself cannot be read.
pub(super) fn read_draft(path: &Path) -> Result<(Draft, Vec<Problem>), Problem> {
    let bytes = fs::read(path).map_err(|error| {
        let advice = "--config names another, docs/config.sample.toml is one to start from";
        Problem::unreadable(path, "the configuration", &error, advice)
    })?;
    let Ok(text) = str::from_utf8(&bytes) else {
        let problem = Problem::of_file(path, "not valid TOML: the file is not UTF-8");
        return Ok((Draft::empty(path), vec![problem]));
    };
    Ok(Draft::read(path, text))
}

/// Finds the programs that a run needs on the `PATH`.
///
/// # Errors
/// Every program that is missing.
pub(super) fn find_tools(upload: &Upload) -> Result<Tools, Vec<MissingTool>> {
    Tools::find(environment::variable("PATH").as_deref(), *upload != Upload::None)
}

/// Checks and opens everything a run needs, in the order in which an operator
/// would mend it, and initialises the repository if there is none.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn prepare(config: Config, interrupt: &Interrupt) -> Result<Prepared, Error> {
    let tools = find_tools(&config.upload)?;
    let public_keys = check_keys(Some(&config.key_file), &config.binary_keys).map_err(Error::Problems)?;
    let recipes = load_roster(&config).map_err(Error::Problems)?;
    let state = Arc::new(StateDir::open(&config.manager.state_dir)?);
    for (path, error) in state.clear_leftovers() {
        warn!(path = path.display().to_string(), error:%; "clear staging dir failed");
    }
    build_log::forget_gone(&state.logs(), &recipes.iter().map(|recipe| &*recipe.id).collect());
    let config = Arc::new(config);
    let publisher = Publisher::new(tools.peipkg_repo.clone(), config.clone(), state.clone());
    publisher.prepare_repository(interrupt).map_err(Error::Repository)?;
    let uploader = match (&config.upload, &tools.rclone) {
        (Upload::Rclone { remote }, Some(rclone)) => Some(Uploader {
            rclone: rclone.clone(),
            remote: remote.clone(),
            state: state.clone(),
            publisher: publisher.clone(),
        }),
        _ => None,
    };
    Ok(Prepared { config, tools, state, public_keys, publisher, uploader, recipes })
}

/// What the HTTP side needs from the system, taken before the first poll.
pub(super) struct Http {
    /// The server with its sockets.
    pub server: http::Server,
    /// The webhook secret; without one no webhook is accepted.
    pub secret: Option<Vec<u8>>,
}

/// Binds the listen address and reads the webhook secret, if HTTP is configured.
///
/// # Errors
/// When the address is taken, or the secret cannot be used.
pub(super) fn open_http(config: &Config, state: &StateDir) -> Result<Option<Http>, Error> {
    let Some(addr) = &config.http.addr else { return Ok(None) };
    let secret = config.http.webhook_secret_file.as_deref().map(read_webhook_secret);
    let secret = secret.transpose().map_err(|problem| Error::Problems(vec![problem]))?;
    let listener = http::bind(addr).map_err(|error| Error::Listen(addr.clone(), error))?;
    let unusable = |error| StateDirError::NotWritable { path: state.root().join("http.sock"), error };
    let server = http::Server::open(listener, state.root()).map_err(unusable)?;
    Ok(Some(Http { server, secret }))
}

/// Reads the recipes and logs what is odd about them.
///
/// # Errors
/// Every problem of every recipe.
pub(super) fn load_roster(config: &Config) -> Result<Vec<Recipe>, Vec<Problem>> {
    let reading = roster::read(&config.manager.recipes_dir).map_err(|problem| vec![problem])?;
    let Reading { recipes, warnings, mut problems, .. } = reading;
    problems.extend(config.check_recipes(&recipes));
    if !problems.is_empty() {
        return Err(problems);
    }
    for warning in warnings {
        warn!(problem:% = warning; "recipe warning");
    }
    for recipe in config.grants.keys().filter(|id| recipes.iter().all(|recipe| *recipe.id != **id)) {
        warn!(recipe:%; "grant for a recipe that does not exist");
    }
    Ok(recipes)
}

/// Whether every private key is one, that of the farm and those for binaries; the
/// public keys of the latter.
///
/// # Errors
/// Every file that holds no Ed25519 private key.
pub(super) fn check_keys(
    key_file: Option<&Path>,
    binary_keys: &[BinaryKey],
) -> Result<PublicKeys, Vec<Problem>> {
    let keys = PublicKeys::derive(binary_keys.iter().map(|key| key.private.as_path()));
    let Some((path, error)) = key_file.and_then(|path| Some((path, signing_key::load(path).err()?))) else {
        return keys;
    };
    let problem = match error {
        KeyError::Unreadable(error) => {
            let advice = "\"openssl genpkey -algorithm ed25519 -out FILE\" makes one";
            Problem::unreadable(path, "the key", &error, advice)
        }
        error => Problem::of_file(path, error.to_string()),
    };
    let mut problems = vec![problem];
    problems.extend(keys.err().unwrap_or_default());
    Err(problems)
}

/// Reads the webhook's secret: what the file holds, without white space at its end.
///
/// # Errors
/// When it cannot be read or is empty.
pub(super) fn read_webhook_secret(path: &Path) -> Result<Vec<u8>, Problem> {
    let problem = |reason: String| Problem::of_file(path, format!("cannot use the webhook secret: {reason}"));
    let mut secret = Vec::new();
    let file = File::open(path).map_err(|error| problem(error.to_string()))?;
    file.take(MAX_SECRET_FILE + 1).read_to_end(&mut secret).map_err(|error| problem(error.to_string()))?;
    if secret.len() as u64 > MAX_SECRET_FILE {
        return Err(problem(format!("the file is longer than {MAX_SECRET_FILE} bytes")));
    }
    secret.truncate(secret.trim_ascii_end().len());
    if secret.is_empty() { Err(problem("the file is empty".to_owned())) } else { Ok(secret) }
}

/// Says what has started, and what is odd about it.
pub(super) fn announce(config: &Config, once: bool) {
    let mode = if once { "once" } else { "daemon" };
    let version = env!("CARGO_PKG_VERSION");
    info!(farm_id = config.manager.id, mode, version; "peipkg-manager starting");
    let secret = config.http.webhook_secret_file.as_deref();
    for warning in key_permissions::warnings(Some(&config.key_file), &config.binary_keys, secret) {
        warn!(problem:% = warning; "configuration warning");
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
