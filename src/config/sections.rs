//! The sections of the configuration. Pure.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::duration;
use peipkg_format::problem::Problem;
use peipkg_format::strict_toml::{At, Section};

use super::listen_addr::{ListenAddr, ListenAddrError};
use super::remote::{Place, place};
use super::values::{file, line, optional_text};
use crate::recipe::secrets::Secrets;
use crate::recipe::{self, Recipe};

/// The default of `[poll] jobs`.
pub(crate) const DEFAULT_POLL_JOBS: usize = 8;

/// The upper limit of `[poll] jobs`: each job is a thread, and at times a git process.
pub(crate) const MAX_POLL_JOBS: usize = 256;

/// The default of `[build] timeout`. Long enough to build a compiler on a small machine, short
/// enough to notice a hung build.
pub(crate) const DEFAULT_BUILD_TIMEOUT: Duration = Duration::from_hours(24);

/// The upper limit of `[build] jobs`: each job is a thread with a process tree on this machine, even
/// if the build itself runs elsewhere.
pub(crate) const MAX_BUILD_JOBS: usize = 256;

/// `[manager] id` of the sample configuration.
pub(crate) const SAMPLE_ID: &str = "farm-1";

/// `[repo] name` of the sample configuration.
pub(crate) const SAMPLE_NAME: &str = "example";

/// `[manager]`: the farm itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// The farm's identifier. Every package records it.
    pub id: String,
    /// The directory with one sub-directory per recipe.
    pub recipes_dir: PathBuf,
    /// The directory that the manager writes to.
    pub state_dir: PathBuf,
}

/// `[repo]`: the repository's identity, used to initialise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// The repository's name.
    pub name: String,
    /// The repository's description; may be empty.
    pub description: String,
}

/// `[upload]`: where the published repository is uploaded to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Upload {
    /// No upload.
    #[default]
    None,
    /// An upload with rclone.
    Rclone {
        /// rclone's remote and path.
        remote: String,
    },
}

/// `[http]`: the status pages and the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Http {
    /// The address to listen on; `None` is no HTTP.
    pub addr: Option<ListenAddr>,
    /// The file that holds the webhook secret.
    pub webhook_secret_file: Option<PathBuf>,
}

/// `[poll]`: how upstreams are polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The poll interval of recipes that do not set their own, at least
    /// [`recipe::MIN_POLL_INTERVAL`].
    pub default_interval: Duration,
    /// How many listings run at once, from 1 to [`MAX_POLL_JOBS`].
    pub jobs: usize,
}

/// `[build]`: how versions are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// How long one build may take; `None` is no limit.
    pub timeout: Option<Duration>,
    /// How many builds run at once, from 1 to [`MAX_BUILD_JOBS`].
    pub jobs: usize,
    /// Whether a version is built twice, and published only if both builds made the same packages.
    pub reproduce: bool,
}

impl Default for Build {
    fn default() -> Self {
        Self { timeout: Some(DEFAULT_BUILD_TIMEOUT), jobs: 1, reproduce: false }
    }
}

impl Repo {
    /// Reads `[repo]`; returns `None` if a key is missing or wrong. Adds a warning to
    /// `sample_names` if the name is still the sample's.
    pub(super) fn read(mut section: Section<'_, '_>, sample_names: &mut Vec<Problem>) -> Option<Self> {
        let name = section.required_text("name");
        if let Some(found) = name.as_ref().filter(|found| found.value == SAMPLE_NAME) {
            let message = format!(
                "[repo] name is the sample's {SAMPLE_NAME:?}, choose your own; the repository keeps it permanently"
            );
            sample_names.push(section.remark(&found.span, message));
        }
        let name = name.and_then(|found| line(&section, "[repo] name", found));
        let description = optional_text(&mut section, "description")
            .map_or(Some(String::new()), |found| line(&section, "[repo] description", found));
        section.deny_unknown_keys();
        Some(Self { name: name?, description: description? })
    }
}

impl Upload {
    /// Reads `[upload]`, and the line of `remote`. The section is `None` if a key is wrong.
    pub(super) fn read(mut section: Section<'_, '_>) -> (Option<Self>, Option<usize>) {
        let backend = optional_text(&mut section, "backend");
        let remote = optional_text(&mut section, "remote");
        let line = remote.as_ref().map(|found| section.line_of(&found.span));
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
        (upload, line)
    }
}

impl Http {
    /// Returns a problem of the configuration file at `path` if one of `recipes` has a webhook but
    /// the file names no secret.
    pub(crate) fn check_secret(&self, path: &Path, recipes: &[Arc<Recipe>]) -> Option<Problem> {
        if self.addr.is_none() || self.webhook_secret_file.is_some() {
            return None;
        }
        let recipe = recipes.iter().find(|recipe| recipe.github_webhook)?;
        let message = format!(
            "missing key \"webhook_secret_file\" in [http], recipe {:?} has github_webhook = true",
            recipe.id
        );
        Some(Problem::of_file(path, message))
    }

    /// Reads `[http]`, and the line of `addr`. The section is `None` if a key is wrong.
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
        let jobs = read_jobs(&mut section, "[poll]", DEFAULT_POLL_JOBS, MAX_POLL_JOBS);
        section.deny_unknown_keys();
        Some(Self { default_interval: default_interval?, jobs: jobs? })
    }
}

impl Build {
    /// Reads `[build]`; returns `None` if a key is wrong.
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let timeout = section.optional::<String>("timeout").map_or(Some(DEFAULT_BUILD_TIMEOUT), |found| {
            let report = |error: &duration::DurationError| {
                section.report(&found.span, format!("[build] timeout: {error}"));
            };
            duration::parse(&found.value).inspect_err(report).ok()
        });
        let jobs = read_jobs(&mut section, "[build]", 1, MAX_BUILD_JOBS);
        let reproduce = section.optional("reproduce").is_some_and(|found| found.value);
        section.deny_unknown_keys();
        Some(Self {
            timeout: timeout.map(|timeout| Some(timeout).filter(|timeout| !timeout.is_zero()))?,
            jobs: jobs?,
            reproduce,
        })
    }
}

/// Reads `jobs` of the section `name`: a number from 1 to `most`.
fn read_jobs(section: &mut Section<'_, '_>, name: &str, default: usize, most: usize) -> Option<usize> {
    section.optional::<i64>("jobs").map_or(Some(default), |found| {
        let jobs = usize::try_from(found.value).ok().filter(|jobs| (1..=most).contains(jobs));
        if jobs.is_none() {
            let message = format!("{name} jobs must be from 1 to {most}, found {}", found.value);
            section.report(&found.span, message);
        }
        jobs
    })
}

/// Checks the form of an rclone remote. Refuses a path that is not absolute: it most likely lacks a
/// colon, and rclone would upload to a directory below the working directory without a word.
/// Refuses parameters beside a name that is not ASCII: rclone reads them from variables with the name in
/// capital letters, and an upload makes capital letters of ASCII alone.
fn rclone_remote(section: &Section<'_, '_>, found: &At<String>) -> Option<String> {
    let remote = &found.value;
    let (wanted, advice) = match place(remote) {
        Some(Place::Named(name, _)) if !name.is_ascii() && remote[name.len()..].starts_with(',') => (
            "have an ASCII name beside parameters",
            "; rename it in rclone's configuration, or write the parameters there".to_owned(),
        ),
        Some(_) => return Some(remote.clone()),
        None => ("be \"name:path\", \":backend:path\" or an absolute path", meant(remote)),
    };
    let shown = Secrets::of_remote(remote).redact(remote);
    section.report(&found.span, format!("[upload] remote must {wanted}, found {shown:?}{advice}"));
    None
}

/// Asks whether a remote that lacks its colon was meant, if one may be.
fn meant(remote: &str) -> String {
    let meant = remote.replacen('/', ":", 1);
    match place(&meant) {
        Some(_) if remote.starts_with(char::is_alphanumeric) && !remote.contains(':') => {
            format!("; did you mean {meant:?}?")
        }
        _ => String::new(),
    }
}
