//! The configuration file: what it may say, and what it means.
//!
//! Pure: the text is an argument, and no path in it is looked up. Everything is
//! read strictly and all problems are reported together. Paths must be absolute
//! because a daemon's working directory is an accident of how it was started.
//! An empty string in an optional key means the same as the key's absence.

mod keys;
mod listen_addr;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::keys::{BinaryKey, Grant, InjectedKey};
pub use self::listen_addr::{ListenAddr, ListenAddrError};
use crate::document::{At, Document, Section};
use crate::duration;
use crate::problem::Problem;
use crate::recipe::{self, Recipe};

/// The directories below the state directory whose contents come and go, or get published.
pub const STATE_SUBDIRS: [&str; 4] = ["sources", "stage", "publish", "repo"];

/// Listings of upstreams that run at once unless `[poll] jobs` says otherwise.
pub const DEFAULT_POLL_JOBS: usize = 8;

/// The most that `[poll] jobs` may ask for: each is a thread and a git process.
pub const MAX_POLL_JOBS: usize = 256;

/// One build's wall clock unless `[build] timeout` says otherwise. Long enough
/// for a compiler on a small machine, short enough that a hung build is noticed.
pub const DEFAULT_BUILD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A configuration that is complete and consistent in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// `[manager]`.
    pub manager: Manager,
    /// `[repo]`.
    pub repo: Repo,
    /// `[signing] key_file`: the private key that signs packages and the repository.
    pub key_file: PathBuf,
    /// `[upload]`.
    pub upload: Upload,
    /// `[http]`.
    pub http: Http,
    /// `[poll]`.
    pub poll: Poll,
    /// `[build] timeout`: one build's wall clock; `None` is no limit.
    pub build_timeout: Option<Duration>,
    /// `[[signing_key]]`: the keys for signing binaries, by distinct names.
    pub binary_keys: Vec<BinaryKey>,
    /// `[[grant]]`: which recipe may use which of them, by recipe id.
    pub grants: BTreeMap<String, Grant>,
}

/// `[manager]`: the farm itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// The farm's identifier, recorded in every package.
    pub id: String,
    /// The directory that has one sub-directory per recipe.
    pub recipes_dir: PathBuf,
    /// The directory that the manager writes to.
    pub state_dir: PathBuf,
}

/// `[repo]`: the repository's identity, used when it is first initialised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// Its name.
    pub name: String,
    /// Its description; may be empty.
    pub description: String,
}

/// `[upload]`: where the published repository is copied to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Upload {
    /// Nowhere.
    #[default]
    None,
    /// To a remote that rclone knows.
    Rclone {
        /// rclone's remote and path.
        remote: String,
    },
}

/// `[http]`: the status pages and the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Http {
    /// Where to listen; `None` is no HTTP.
    pub addr: Option<ListenAddr>,
    /// The file with the webhook's secret.
    pub webhook_secret_file: Option<PathBuf>,
}

/// `[poll]`: how upstreams are polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The time between two polls of a recipe that does not set its own, at least
    /// [`recipe::MIN_POLL_INTERVAL`].
    pub default_interval: Duration,
    /// How many upstreams are listed at once, from 1 to [`MAX_POLL_JOBS`].
    pub jobs: usize,
}

impl Config {
    /// Reads the configuration from the text of the file at `path`.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let document = Document::parse(path, text)?;
        let config = Self::read(path, document.root());
        let problems = document.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// Which keys a recipe may use; none for a recipe that no `[[grant]]` names.
    pub fn grant_of(&self, recipe_id: &str) -> &Grant {
        const NONE: &Grant = &Grant { inject_pubkey: Vec::new(), sign: Vec::new() };
        self.grants.get(recipe_id).unwrap_or(NONE)
    }

    /// What is missing here for the recipes: the secret of a webhook that one of
    /// them asks for.
    pub fn check_recipes<'r>(&self, recipes: impl IntoIterator<Item = &'r Recipe>) -> Option<Problem> {
        if self.http.addr.is_none() || self.http.webhook_secret_file.is_some() {
            return None;
        }
        let asks = recipes.into_iter().find(|recipe| recipe.github_webhook)?;
        let message = format!(
            "missing key \"webhook_secret_file\" in [http], recipe {:?} has github_webhook = true",
            asks.id
        );
        Some(Problem::of_file(&self.path, message))
    }

    /// `None` when something that is required is missing or wrong, which is reported.
    fn read(path: &Path, mut root: Section<'_, '_>) -> Option<Self> {
        let manager = root.required_section("manager").and_then(Manager::read);
        let state_dir = manager.as_ref().map(|manager| manager.state_dir.as_path());
        let repo = root.required_section("repo").and_then(Repo::read);
        let key_file = root.required_section("signing").and_then(|mut section| {
            let found = section.required_text("key_file");
            let key_file = found.and_then(|found| file(&section, "[signing] key_file", found, state_dir));
            section.deny_unknown_keys();
            key_file
        });
        let upload = root.section("upload").map_or(Some(Upload::None), Upload::read);
        let http = root.section("http").map(|section| Http::read(section, state_dir));
        let poll = root.required_section("poll").and_then(Poll::read);
        let build_timeout = root.section("build").map_or(Some(DEFAULT_BUILD_TIMEOUT), build_timeout);
        let binary_keys = keys::binary_keys(root.sections("signing_key"), state_dir);
        let grants = keys::grants(root.sections("grant"), &binary_keys);
        root.deny_unknown_keys();
        Some(Self {
            path: path.to_owned(),
            manager: manager?,
            repo: repo?,
            key_file: key_file?,
            upload: upload?,
            http: http.unwrap_or_default(),
            poll: poll?,
            build_timeout,
            binary_keys: binary_keys.into_values().flatten().collect(),
            grants,
        })
    }
}

impl Manager {
    fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let id = section.required_text("id").and_then(|found| line(&section, "[manager] id", found));
        let state_dir = section.required_text("state_dir");
        let state_dir = state_dir.and_then(|found| file(&section, "[manager] state_dir", found, None));
        let recipes_dir = section.required_text("recipes_dir");
        let recipes_dir = recipes_dir
            .and_then(|found| file(&section, "[manager] recipes_dir", found, state_dir.as_deref()));
        section.deny_unknown_keys();
        Some(Self { id: id?, recipes_dir: recipes_dir?, state_dir: state_dir? })
    }
}

impl Repo {
    fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let name = section.required_text("name").and_then(|found| line(&section, "[repo] name", found));
        let description = optional_text(&mut section, "description")
            .map_or(Some(String::new()), |found| line(&section, "[repo] description", found));
        section.deny_unknown_keys();
        Some(Self { name: name?, description: description? })
    }
}

impl Upload {
    fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let backend = optional_text(&mut section, "backend");
        let remote = optional_text(&mut section, "remote");
        let checked = remote.as_ref().map(|remote| rclone_remote(&section, remote));
        let upload = match backend {
            None => Some(Self::None),
            Some(found) => match (found.value.as_str(), checked) {
                ("none", _) => Some(Self::None),
                ("rclone", Some(remote)) => remote.map(|remote| Self::Rclone { remote }),
                ("rclone", None) => {
                    let message = "missing key \"remote\" in [upload], backend \"rclone\" needs one";
                    section.report(&found.span, message);
                    None
                }
                (other, _) => {
                    let message = format!("[upload] backend must be \"none\" or \"rclone\", found {other:?}");
                    section.report(&found.span, message);
                    None
                }
            },
        };
        section.deny_unknown_keys();
        upload
    }
}

impl Http {
    fn read(mut section: Section<'_, '_>, state_dir: Option<&Path>) -> Self {
        let addr = optional_text(&mut section, "addr").and_then(|found| {
            let report = |error: &ListenAddrError| {
                section.report(&found.span, format!("[http] addr: {error}"));
            };
            found.value.parse().inspect_err(report).ok()
        });
        let webhook_secret_file = optional_text(&mut section, "webhook_secret_file")
            .and_then(|found| file(&section, "[http] webhook_secret_file", found, state_dir));
        section.deny_unknown_keys();
        Self { addr, webhook_secret_file }
    }
}

impl Poll {
    fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let default_interval = section
            .required::<String>("default_interval")
            .and_then(|found| recipe::interval(&section, "[poll] default_interval", &found));
        let jobs = section.optional::<i64>("jobs").map_or(Some(DEFAULT_POLL_JOBS), |found| {
            let jobs = usize::try_from(found.value).ok().filter(|jobs| (1..=MAX_POLL_JOBS).contains(jobs));
            if jobs.is_none() {
                let message = format!("[poll] jobs must be from 1 to {MAX_POLL_JOBS}, found {}", found.value);
                section.report(&found.span, message);
            }
            jobs
        });
        section.deny_unknown_keys();
        Some(Self { default_interval: default_interval?, jobs: jobs? })
    }
}

/// Reads `[build]`; `None` is no limit, or a duration that is wrong, which is reported.
fn build_timeout(mut section: Section<'_, '_>) -> Option<Duration> {
    let timeout = section.optional::<String>("timeout").map(|found| {
        let report = |error: &duration::DurationError| {
            section.report(&found.span, format!("[build] timeout: {error}"));
        };
        duration::parse(&found.value).inspect_err(report).unwrap_or_default()
    });
    section.deny_unknown_keys();
    Some(timeout.unwrap_or(DEFAULT_BUILD_TIMEOUT)).filter(|timeout| !timeout.is_zero())
}

/// A string that is there and not empty.
fn optional_text(section: &mut Section<'_, '_>, key: &'static str) -> Option<At<String>> {
    section.optional::<String>(key).filter(|found| !found.value.is_empty())
}

/// A string of one line, as it ends up in arguments, logs and the repository; `key` names it in messages.
fn line(section: &Section<'_, '_>, key: &str, found: At<String>) -> Option<String> {
    let Some(control) = found.value.chars().find(|c| c.is_control()) else { return Some(found.value) };
    let message = format!("{key}: {:?} has the control character {control:?}", found.value);
    section.report(&found.span, message);
    None
}

/// An absolute path outside the directories that the manager fills, empties and
/// publishes: what lay there would be lost, or a private key made public.
fn file(
    section: &Section<'_, '_>,
    key: &str,
    found: At<String>,
    state_dir: Option<&Path>,
) -> Option<PathBuf> {
    let span = found.span.clone();
    let text = line(section, key, found)?;
    let path = Path::new(&text);
    if !path.is_absolute() {
        section.report(&span, format!("{key} must be an absolute path, found {text:?}"));
        return None;
    }
    let managed =
        state_dir.and_then(|state| STATE_SUBDIRS.into_iter().find(|sub| path.starts_with(state.join(sub))));
    if let Some(sub) = managed {
        let message = format!(
            "{key} must be outside the state_dir's {sub:?}, which the manager fills itself, found {text:?}"
        );
        section.report(&span, message);
        return None;
    }
    Some(text.into())
}

/// Checks that rclone will take `found` for a place. A bare word is refused: it
/// would be a directory below the working directory, and most likely lacks its colon.
fn rclone_remote(section: &Section<'_, '_>, found: &At<String>) -> Option<String> {
    let remote = &found.value;
    let is_place = remote.contains(':') || remote.contains('/');
    if is_place && !remote.starts_with('-') && !remote.contains(char::is_control) {
        return Some(remote.clone());
    }
    let message = format!("[upload] remote must be like \"remote:path\" or \"/path\", found {remote:?}");
    section.report(&found.span, message);
    None
}

#[cfg(test)]
mod tests;
