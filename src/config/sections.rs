//! The sections of the configuration, and how each is read. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use peipkg_format::duration;
use peipkg_format::problem::Problem;
use peipkg_format::strict_toml::{At, Section};

use super::listen_addr::{ListenAddr, ListenAddrError};
use super::values::{file, line, optional_text};
use crate::recipe::{self, Recipe};

/// Listings of upstreams that run at once unless `[poll] jobs` says otherwise.
pub(crate) const DEFAULT_POLL_JOBS: usize = 8;

/// The most that `[poll] jobs` may ask for: each is a thread, and at times a git process.
pub(crate) const MAX_POLL_JOBS: usize = 256;

/// One build's wall clock unless `[build] timeout` says otherwise. Long enough
/// for a compiler on a small machine, short enough that a hung build is noticed.
pub(crate) const DEFAULT_BUILD_TIMEOUT: Duration = Duration::from_hours(24);

/// `[manager] id` of the sample configuration, which nobody should keep.
pub(crate) const SAMPLE_ID: &str = "farm-1";

/// `[repo] name` of the sample configuration.
pub(crate) const SAMPLE_NAME: &str = "example";

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

impl Repo {
    /// If the name is still the sample's, `sample` says so.
    pub(super) fn read(mut section: Section<'_, '_>, sample: &mut Option<Problem>) -> Option<Self> {
        let name = section.required_text("name");
        *sample = name.as_ref().filter(|found| found.value == SAMPLE_NAME).map(|found| {
            let message = format!(
                "[repo] name is the sample's {SAMPLE_NAME:?}, choose your own; the repository keeps it permanently"
            );
            section.remark(&found.span, message)
        });
        let name = name.and_then(|found| line(&section, "[repo] name", found));
        let description = optional_text(&mut section, "description")
            .map_or(Some(String::new()), |found| line(&section, "[repo] description", found));
        section.deny_unknown_keys();
        Some(Self { name: name?, description: description? })
    }
}

impl Upload {
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
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
    /// What is missing in the configuration at `path` for the recipes: the secret of a webhook that one of
    /// them asks for.
    pub fn check_recipes<'r>(
        &self,
        path: &Path,
        recipes: impl IntoIterator<Item = &'r Recipe>,
    ) -> Option<Problem> {
        if self.addr.is_none() || self.webhook_secret_file.is_some() {
            return None;
        }
        let asks = recipes.into_iter().find(|recipe| recipe.github_webhook)?;
        let message = format!(
            "missing key \"webhook_secret_file\" in [http], recipe {:?} has github_webhook = true",
            asks.id
        );
        Some(Problem::of_file(path, message))
    }

    /// `None` when something is wrong, which is reported. Beside it stands the line of `addr`.
    pub(super) fn read(
        mut section: Section<'_, '_>,
        state_dir: Option<&Path>,
    ) -> (Option<Self>, Option<usize>) {
        let addr = optional_text(&mut section, "addr");
        let line = addr.as_ref().map(|found| section.line_of(&found.span));
        let addr = addr.map_or(Some(None), |found| {
            let report = |error: &ListenAddrError| {
                section.report(&found.span, format!("[http] addr: {error}"));
            };
            found.value.parse().inspect_err(report).ok().map(Some)
        });
        let secret = optional_text(&mut section, "webhook_secret_file").map_or(Some(None), |found| {
            file(&section, "[http] webhook_secret_file", found, state_dir).map(Some)
        });
        section.deny_unknown_keys();
        (addr.zip(secret).map(|(addr, webhook_secret_file)| Self { addr, webhook_secret_file }), line)
    }
}

impl Poll {
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
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
pub(super) fn build_timeout(mut section: Section<'_, '_>) -> Option<Duration> {
    let timeout = section.optional::<String>("timeout").map(|found| {
        let report = |error: &duration::DurationError| {
            section.report(&found.span, format!("[build] timeout: {error}"));
        };
        duration::parse(&found.value).inspect_err(report).unwrap_or_default()
    });
    section.deny_unknown_keys();
    Some(timeout.unwrap_or(DEFAULT_BUILD_TIMEOUT)).filter(|timeout| !timeout.is_zero())
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
