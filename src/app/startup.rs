//! From a configuration to a farm that can run: tools, keys, roster, state directory, repository and
//! HTTP server. Everything that can be wrong before the first poll is found here, and a start ends
//! at the first group of problems. `--check` reads the same things with the same functions, but goes
//! on after a problem and changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use log::{info, warn};
use peipkg_format::problem::Problem;
use peipkg_format::sort;

use crate::app::error::Error;
use crate::app::key_files::{check_keys, read_webhook_secret, warn_if_exposed, warn_if_unlisted};
use crate::app::public_keys::PublicKeys;
use crate::app::roster::{self, Expected, Reading};
use crate::app::tools::Tools;
use crate::build_log;
use crate::config::{Config, Upload};
use crate::farm::Roster;
use crate::http;
use crate::process::Interrupt;
use crate::recipe::Recipe;
use crate::repository::Repository;
use crate::repository::upload::Uploader;
use crate::state::durable;
use crate::state::state_dir::{StateDir, StateDirError};
use crate::state::troubles;
use crate::upstream::source::signatures::Verifiers;

/// Everything that the loop needs to run a farm.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The configuration.
    pub config: Arc<Config>,
    /// The programs.
    pub tools: Tools,
    /// The programs that verify signatures.
    pub verifiers: Arc<Verifiers>,
    /// The locked state directory.
    pub state: Arc<StateDir>,
    /// The public keys that grants inject.
    pub public_keys: PublicKeys,
    /// The repository.
    pub repository: Arc<Repository>,
    /// Uploads the repository, if uploads are configured.
    pub uploader: Option<Uploader>,
    /// The first roster.
    pub recipes: Vec<Arc<Recipe>>,
}

/// Checks and opens everything that a run needs, in the order in which an operator would fix it.
/// Initialises the repository if there is none.
///
/// # Errors
/// The first group of problems.
pub(super) fn prepare(config: Config, interrupt: &Interrupt) -> Result<Prepared, Error> {
    let tools = Tools::find(&config.upload, &config.notify).map_err(Error::Tools)?;
    let public_keys = check_keys(Some(&config.key_file), &config.binary_keys).map_err(Error::Problems)?;
    let verifiers = Tools::find_verifiers();
    let recipes = load_roster(&config, &verifiers, &Roster::new()).map_err(Error::Problems)?;
    let state = Arc::new(StateDir::open(&config.manager.state_dir)?);
    build_log::forget_gone(
        &state.logs(),
        &recipes.iter().map(|recipe| &*recipe.id).fold(BTreeSet::new(), sort::included),
    );
    let config = Arc::new(config);
    let repository = Arc::new(Repository::new(tools.peipkg_repo.clone(), config.clone(), state.clone()));
    repository.prepare(interrupt).map_err(Error::Repository)?;
    // Only now: a surviving peipkg-repo may have read the packages of a group there, and `prepare`
    // has waited for its end.
    for (path, error) in state.clear_leftovers() {
        durable::not_cleared(&path, &error);
    }
    repository.clear_loose(&recipes);
    let uploader = match (&config.upload, &tools.rclone) {
        (Upload::Rclone { remote }, Some(rclone)) => {
            Some(Uploader { rclone: rclone.clone(), remote: remote.clone(), repository: repository.clone() })
        }
        _ => None,
    };
    let verifiers = Arc::new(verifiers);
    Ok(Prepared { config, tools, verifiers, state, public_keys, repository, uploader, recipes })
}

/// An HTTP server that does not answer yet. It holds its sockets before the first poll, so that a
/// taken address ends the start.
pub(super) struct Http {
    /// The server with its sockets.
    pub server: http::Server,
    /// The webhook secret. Without one, the server accepts no webhook.
    pub secret: Option<Vec<u8>>,
}

/// Binds the listen address and reads the webhook secret, if HTTP is configured.
///
/// # Errors
/// If the address is taken, or the secret cannot be used.
pub(super) fn open_http(config: &Config, state: &StateDir) -> Result<Option<Http>, Error> {
    let Some(addr) = &config.http.addr else { return Ok(None) };
    let secret = config.http.webhook_secret_file.as_deref().map(read_webhook_secret);
    let secret = secret.transpose().map_err(|problem| Error::Problems(vec![problem]))?;
    let listener = http::bind(addr).map_err(|error| Error::Listen(addr.clone(), error))?;
    let unusable = |error| match error {
        http::OpenError::Socket(error) => {
            Error::from(StateDirError::NotWritable { path: state.root().join("http.sock"), error })
        }
        http::OpenError::Connection(error) => Error::System(error),
    };
    let server = http::Server::open(listener, state.root()).map_err(unusable)?;
    Ok(Some(Http { server, secret }))
}

/// Reads the recipes and logs warnings about them. `present` has the recipes that are loaded.
///
/// # Errors
/// Every problem of every recipe.
pub(super) fn load_roster(
    config: &Config,
    verifiers: &Verifiers,
    present: &Roster,
) -> Result<Vec<Arc<Recipe>>, Vec<Problem>> {
    let (http, grants) = (Some(&config.http), &config.grants);
    let expected = Expected { config: &config.path, http, grants, verifiers };
    let reading = roster::read(&config.manager.recipes_dir, expected, present);
    let Reading { recipes, warnings, unbuildable, problems, .. } =
        reading.map_err(|problem| vec![problem])?;
    if !problems.is_empty() {
        return Err(problems);
    }
    troubles::end("recipe warning");
    for warning in warnings.into_iter().chain(unbuildable) {
        warn!(problem:% = warning; "recipe warning");
        let below = warning.path.strip_prefix(&config.manager.recipes_dir).ok();
        let recipe = below.and_then(|path| path.iter().next()?.to_str()).map(Arc::from);
        troubles::begin_of("recipe warning", recipe, &warning.to_string());
    }
    Ok(recipes)
}

/// Logs the start, and warnings about the configuration.
pub(super) fn announce(config: &Config, once: bool) {
    let mode = if once { "once" } else { "daemon" };
    let version = env!("CARGO_PKG_VERSION");
    info!(farm_id = config.manager.id, mode, version; "peipkg-manager starting");
    let secret = config.http.webhook_secret_file.as_deref();
    let exposed = warn_if_exposed(Some(&config.key_file), &config.binary_keys, secret);
    let unlisted = warn_if_unlisted(&config.key_file, &config.manager.state_dir);
    for warning in exposed.into_iter().chain(unlisted) {
        warn!(problem:% = warning; "configuration warning");
        troubles::begin("configuration warning", &warning.to_string(), &"");
    }
}
