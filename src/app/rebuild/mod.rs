//! `--rebuild`: builds a published version again and compares it with the published packages.
//!
//! Takes no lock and writes nothing below `state_dir`, so it may run beside a manager, and for a user who
//! may only read the repository. Its work lies in a directory of its own below `TMPDIR`.

mod provenance;
mod report;

use std::cell::RefCell;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use peipkg_format::package::PackageName;
use peipkg_format::version::Version;

use crate::app::builder::{BuildError, Builder};
use crate::app::comparison::{Comparison, compare};
use crate::app::error::Error;
use crate::app::key_files::check_keys;
use crate::app::rebuild::report::{Report, Verdict};
use crate::app::recipe_files::CopyError;
use crate::app::roster::{self, Expected};
use crate::app::signals::Signals;
use crate::app::tools::Tools;
use crate::build_log::BuildLog;
use crate::config::{BinaryKey, Config};
use crate::farm::events::{BuildJob, JobKey, PendingOutputs};
use crate::farm::queue::Candidate;
use crate::process::users_of::WorkUsers;
use crate::process::{Interrupt, environment};
use crate::recipe::{Recipe, Upstream};
use crate::repository::Repository;
use crate::repository::published_files::{self, PublishedFile};
use crate::state::durable;
use crate::state::state_dir::{self, StateDir};
use crate::upstream::git::Git;
use crate::upstream::listing::{LISTING_DEADLINE, Lister};
use crate::upstream::source::fetch::Sources;

/// Where the work lies without `TMPDIR`: large files, which need not survive a restart.
const PLACE: &str = "/var/tmp";

/// How long to wait for the end of a publish of a manager at work, which may be writing the index.
const PUBLISH: Duration = Duration::from_secs(10);

/// How often to look for that end.
const INTERVAL: Duration = Duration::from_millis(100);

/// Builds `version` of the recipe `id` again.
///
/// # Errors
/// If it is not published, or cannot be built.
pub(super) fn rebuild(config: Config, id: &str, version: Version) -> Result<Report, Error> {
    state_dir::open_umask();
    let mut signals = Signals::register()?;
    let interrupt = Interrupt::new()?;
    signals.forward(None, interrupt.clone())?;
    let Tools { git, peipkg_build, peipkg_repo, .. } = Tools::find_needed().map_err(Error::Tools)?;
    let key = JobKey { recipe: id.into(), version };
    let failed = |reason: String| Error::Rebuild(key.clone(), reason);
    let (recipe, upstream) = recipe(&config, id, &failed)?;
    let grant = config.grant_of(id);
    let used: Vec<BinaryKey> = config
        .binary_keys
        .iter()
        .filter(|key| {
            grant.sign.iter().any(|granted| granted.private == key.private)
                || grant.inject_pubkey.iter().any(|granted| granted.private == key.private)
        })
        .cloned()
        .collect();
    let public_keys = check_keys(Some(&config.key_file), &used).map_err(Error::Problems)?;
    let state = StateDir::unlocked(&config.manager.state_dir);
    let published = published(&state, &key, &recipe.packages, &interrupt).map_err(failed)?;

    let mut report = Report::of(&key);
    // At the root, git finds no checkout whose configuration it would heed.
    let lister =
        Lister::new(Arc::new(Git::new(git.clone(), "/".into()).limits(config.git)), 1, LISTING_DEADLINE);
    let recorded = provenance::find(&state.repo(), &published, &recipe.packages, &key.version, &mut report);
    let recorded_tag = recorded.as_ref().map(|found| found.parameters().tag.as_str());
    let tag =
        tag_of(&upstream, &key, recorded_tag, &lister.guessing(), &interrupt, &mut report).map_err(failed)?;

    let work =
        Work::create(&config).map_err(|(path, error)| failed(format!("{}: {error}", path.display())))?;
    let state = Arc::new(StateDir::unlocked(&work.0));
    for directory in [state.sources(), state.stage(), state.logs()] {
        state_dir::make_private(&directory)
            .map_err(|error| failed(format!("{}: {error}", directory.display())))?;
    }
    let git_program = git.clone();
    let git = Arc::new(Git::new(git, state.sources()).limits(config.git));
    let config = Arc::new(config);
    let builder = Builder {
        verifiers: Arc::new(Tools::find_verifiers()),
        sources: Arc::new(Sources::new(git, state.clone())),
        work_users: Arc::new(WorkUsers::new([state.sources(), state.stage()])),
        git: git_program,
        peipkg_build: peipkg_build.clone(),
        peipkg_repo: peipkg_repo.clone(),
        faketime: None,
        versions: RefCell::default(),
        public_keys,
        repository: Arc::new(Repository::new(PathBuf::new(), config.clone(), state.clone())),
        interrupt: interrupt.clone(),
        state: state.clone(),
        config: config.clone(),
    };
    let secrets = upstream.url.secrets();
    let log = BuildLog::begin(&state.logs(), id, &key.version, &format!("tag {tag}"), secrets.clone());
    let job = BuildJob {
        recipe: recipe.clone(),
        // The published packages are compared, not two builds.
        upstream: Upstream { reproduce: Some(false), ..upstream },
        candidate: Candidate { tag: tag.as_str().into(), version: key.version.clone(), listed: None },
        urgent: false,
        next_tags: Vec::new(),
    };
    let built = builder.make(&job, &log, &|_| {}).map_err(|error| {
        if matches!(error, BuildError::Recipe(CopyError::Changed)) {
            return failed("somebody has changed the recipe meanwhile, try again".to_owned());
        }
        let tail = if interrupt.is_triggered() { Vec::new() } else { log.tail() };
        failed(secrets.redact(&format!("{error}\n{}", tail.join("\n"))).trim_end().to_owned())
    })?;
    report.built(&tag, &built.commit.id);
    if let Some(recorded) = &recorded {
        provenance::compare(recorded, &built, &builder.version_of(&peipkg_build), &mut report);
    }
    for (package, published) in recipe.packages.iter().zip(published) {
        let name = package.file_name(&key.version);
        let verdict = verdict(&peipkg_repo, &built.out.join("packages").join(&name), published, &interrupt);
        report.add(name, verdict.map_err(failed)?);
    }
    if !report.is_same() && !used.is_empty() {
        let names: Vec<&str> = used.iter().map(|key| key.name.as_str()).collect();
        report.note(format!(
            "the recipe uses the binary-signing keys {}: other keys than the farm's give other packages",
            names.join(", ")
        ));
    }
    Ok(report)
}

/// Reads the recipe, and no other one.
fn recipe(
    config: &Config,
    id: &str,
    failed: &dyn Fn(String) -> Error,
) -> Result<(Arc<Recipe>, Upstream), Error> {
    let recipes_dir = &config.manager.recipes_dir;
    let verifiers = Tools::find_verifiers();
    let expected =
        Expected { config: &config.path, http: None, grants: &config.grants, verifiers: &verifiers };
    let mut reading = roster::read_one(recipes_dir, id, expected);
    if !reading.problems.is_empty() {
        return Err(Error::Problems(reading.problems));
    }
    let recipe = reading.recipes.pop();
    let recipe = recipe.ok_or_else(|| failed(format!("{} has no such recipe", recipes_dir.display())))?;
    let upstream = recipe.upstream.clone();
    let upstream = upstream.ok_or_else(|| failed("the recipe has no [upstream]".to_owned()))?;
    Ok((recipe, upstream))
}

/// Finds the published packages. Waits for a publish at work.
fn published(
    state: &StateDir,
    key: &JobKey,
    packages: &[PackageName],
    interrupt: &Interrupt,
) -> Result<Vec<Option<Result<PublishedFile, String>>>, String> {
    let version = PendingOutputs {
        directory: String::new(),
        key: key.clone(),
        packages: packages.to_vec(),
        built_from: None,
    };
    let deadline = Instant::now() + PUBLISH;
    let found = loop {
        let found = published_files::find(state, &version);
        let is_settled = found.is_ok() && !state.journal().exists();
        if is_settled || Instant::now() >= deadline || interrupt.is_triggered() {
            break found;
        }
        let is_missing = found.as_ref().is_err_and(|error| error.error.kind() == io::ErrorKind::NotFound);
        if is_missing && !state.journal().exists() {
            break found;
        }
        thread::sleep(INTERVAL);
    };
    let found = found.map_err(|error| error.to_string())?;
    if found.iter().all(Option::is_none) {
        let names: Vec<String> = packages.iter().map(|package| package.file_name(&key.version)).collect();
        let index = state.archive_index();
        return Err(format!("it is not published: {} does not list {}", index.display(), names.join(", ")));
    }
    Ok(found)
}

/// Finds the tag of the version, whatever revision and oldest version the recipe has by now. Prefers the
/// `recorded` one.
fn tag_of(
    upstream: &Upstream,
    key: &JobKey,
    recorded: Option<&str>,
    lister: &Lister,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<String, String> {
    let tags = lister.list_tags(&upstream.url, interrupt);
    let tags = tags.map_err(|error| {
        let reason = upstream.url.secrets().redact(&error.reason);
        format!("cannot list {}: {reason}", upstream.url)
    })?;
    let version = key.version.as_str();
    let revision = version.rsplit_once('-').map_or("", |(_, revision)| revision);
    let reader = upstream.tag_reader();
    let is_it = |tag: &&str| {
        let captured = reader.capture(tag);
        captured.is_some_and(|captured| {
            format!("{captured}-{revision}").parse::<Version>().is_ok_and(|found| found == key.version)
        })
    };
    let found: Vec<&str> = tags.iter().filter(is_it).collect();
    let missing = || format!("none of the {} tags of {} is this version", tags.len(), upstream.url);
    let first = *found.first().ok_or_else(missing)?;
    let tag = found.iter().copied().find(|tag| Some(*tag) == recorded).unwrap_or(first);
    if let Some(recorded) = recorded.filter(|recorded| *recorded != tag) {
        report.note(format!("the provenance names the tag {recorded}, which is not this version any more"));
    } else if found.len() > 1 && recorded.is_none() {
        report.note(format!("{} tags are this version; a sweep takes the first", found.len()));
    }
    if revision != upstream.peios_revision.to_string() {
        report.note(format!("the recipe has peios_revision {} now", upstream.peios_revision));
    }
    Ok(tag.to_owned())
}

fn verdict(
    tool: &Path,
    built: &Path,
    published: Option<Result<PublishedFile, String>>,
    interrupt: &Interrupt,
) -> Result<Verdict, String> {
    let file = match published {
        None => return Ok(Verdict::Missing("it is not published at this version".to_owned())),
        Some(Err(reason)) => return Ok(Verdict::Missing(reason)),
        Some(Ok(file)) => file,
    };
    let hash = |path: &Path| file.is_hash_of(path).map_err(|error| format!("{}: {error}", path.display()));
    let Some(path) = &file.path else {
        let reason = "the repository has no file to compare with, and the SHA-256 in the archive index differs, \
                      as it does with another key than the farm's";
        let is_same = hash(built)?;
        return Ok(if is_same { Verdict::Same(None) } else { Verdict::Missing(reason.to_owned()) });
    };
    let compared = compare(tool, path, built, interrupt).map_err(|error| error.to_string())?;
    let altered =
        (!hash(path)?).then(|| "the published file is not the one that the archive index lists".to_owned());
    Ok(match (compared, altered) {
        (Comparison::Same, None) => Verdict::Same(None),
        (Comparison::SameContent(remark), None) => Verdict::Same(Some(remark)),
        (Comparison::Same | Comparison::SameContent(_), Some(altered)) => Verdict::Different(vec![altered]),
        (Comparison::Different(lines), altered) => {
            Verdict::Different(altered.into_iter().chain(lines).collect())
        }
    })
}

/// The directory of the work. Dropping it removes it.
struct Work(PathBuf);

impl Work {
    /// Creates the first directory that does not exist: others may write to `/var/tmp`.
    fn create(config: &Config) -> Result<Self, (PathBuf, io::Error)> {
        /// More than rebuilds run at once; then somebody has made these names to be in the way.
        const MOST: usize = 1000;
        let place = environment::variable("TMPDIR").filter(|place| !place.is_empty());
        let place = place.map_or_else(|| PathBuf::from(PLACE), PathBuf::from);
        let place = place.canonicalize().map_err(|error| (place, error))?;
        for (key, kept) in
            [("state_dir", &config.manager.state_dir), ("recipes_dir", &config.manager.recipes_dir)]
        {
            if kept.canonicalize().is_ok_and(|kept| place.starts_with(kept)) {
                let reason = format!(
                    "is in {key}, in which a rebuild changes nothing; set TMPDIR to another directory"
                );
                return Err((place, io::Error::other(reason)));
            }
        }
        let mut number = 0;
        loop {
            let path = place.join(format!("peipkg-rebuild-{}-{number}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST => number += 1,
                Err(error) => return Err((path, error)),
            }
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = durable::remove(&self.0) {
            durable::not_cleared(&self.0, &error);
        }
    }
}
