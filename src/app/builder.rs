//! The builder threads: each fetches and builds one version at a time. They must not decide which
//! version is next.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::warn;
use peipkg_format::duration;
use peipkg_format::problem::excerpt;
use peipkg_format::sort;

use crate::app::public_keys::PublicKeys;
use crate::app::recipe_files::{self, CopyError};
use crate::build_log::BuildLog;
use crate::config::Config;
use crate::farm::events::{Blame, BuildJob, BuildOutcome, Event, NoCommit, PendingOutputs, Warning};
use crate::process::users_of::WorkUsers;
use crate::process::{Interrupt, ProcessError, Program};
use crate::recipe::EXPORTED_VARIABLES;
use crate::repository::Repository;
use crate::state::durable::{FileError, at};
use crate::state::state_dir::StateDir;
use crate::upstream::git::GitError;
use crate::upstream::source::commit_times::Commit;
use crate::upstream::source::fetch::{Source, Sources};
use crate::upstream::source::not_commits;

/// How long to keep prefetched sources without a job. The core may drop the jobs that they were
/// fetched for, and an idle builder must not fill the disk.
const SOURCES_IDLE: Duration = Duration::from_mins(1);

/// The builder's configuration, directories and tools.
#[derive(Debug)]
pub(super) struct Builder {
    /// The configuration.
    pub config: Arc<Config>,
    /// The state directory.
    pub state: Arc<StateDir>,
    /// Fetches sources. The builders share it.
    pub sources: Arc<Sources>,
    /// Finds the processes that earlier builds have left. The builders share it.
    pub work_users: Arc<WorkUsers>,
    /// The path of `peipkg-build`.
    pub peipkg_build: PathBuf,
    /// The public keys that grants inject.
    pub public_keys: PublicKeys,
    /// Takes the packages.
    pub repository: Arc<Repository>,
    /// Ends the job in progress.
    pub interrupt: Interrupt,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(transparent)]
    Recipe(#[from] CopyError),
    #[error("cannot fetch the source: {0}")]
    Fetch(#[from] GitError),
    #[error(transparent)]
    Tool(#[from] ProcessError),
    #[error("{error}; the fetch of the source took {} of it", duration::format(Duration::from_secs(fetching.as_secs())))]
    SlowFetch { fetching: Duration, error: ProcessError },
    #[error("cannot move the packages to publish: {0}")]
    Keep(FileError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "peipkg-build wrote {}, expected {} by the recipe's [[package]] stanzas",
        some_of(found),
        some_of(expected)
    )]
    Outputs { found: BTreeSet<String>, expected: BTreeSet<String> },
}

/// Starts a builder thread. It answers each job with [`Event::LogBegun`], if the job has a log, and
/// with [`Event::BuildFinished`]. It ends when `jobs` is closed.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn start<M: From<Event> + Send + 'static>(
    mut builder: Builder,
    number: usize,
    jobs: Receiver<BuildJob>,
    answers: Sender<M>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("builder-{number}")).spawn(move || {
        while let Some(job) = builder.next(&jobs) {
            let key = job.key();
            // A send fails only if the loop has ended.
            let answer = |event: Event| drop(answers.send(event.into()));
            let log = builder.begin_log(&job);
            if let Some(log) = log.path() {
                answer(Event::LogBegun { key: key.clone(), log });
            }
            let outcome = builder.run(&job, &log, &answer);
            // The publisher continues the log.
            drop(log);
            answer(Event::BuildFinished { key, outcome });
        }
    })
}

impl Builder {
    /// Waits for the next job. Removes prefetched sources that were not used for [`SOURCES_IDLE`].
    fn next(&self, jobs: &Receiver<BuildJob>) -> Option<BuildJob> {
        while !self.sources.is_empty() {
            match jobs.recv_timeout(SOURCES_IDLE) {
                Err(RecvTimeoutError::Timeout) => self.sources.forget_unused(SOURCES_IDLE),
                other => return other.ok(),
            }
        }
        jobs.recv().ok()
    }

    fn begin_log(&self, job: &BuildJob) -> BuildLog {
        let url = &job.upstream.url;
        let what = format!("tag {} of {url}", excerpt(&job.candidate.tag));
        BuildLog::begin(&self.state.logs(), &job.recipe.id, &job.candidate.version, &what, url.secrets())
    }

    fn run(&mut self, job: &BuildJob, log: &BuildLog, answer: &dyn Fn(Event)) -> BuildOutcome {
        match self.build(job, log, answer) {
            Ok(outputs) => {
                log.note("built, the packages are pending");
                BuildOutcome::Built { outputs, log: log.path() }
            }
            Err(error) if error.is_interrupted() => {
                log.note("interrupted");
                BuildOutcome::Interrupted
            }
            Err(BuildError::Recipe(error @ CopyError::Changed)) => {
                log.note(&error);
                BuildOutcome::RecipeChanged
            }
            Err(BuildError::Fetch(error @ GitError::NoCommit { .. })) => {
                let (upstream, tag) = (job.upstream.url.to_string(), job.candidate.tag.to_string());
                let found = NoCommit { upstream, tag, reason: error.to_string() };
                not_commits::add(&self.state.not_commits(), &found, SystemTime::now());
                log.note(format_args!("skipped: {}", found.reason));
                BuildOutcome::NoCommit(found)
            }
            Err(error) => {
                let reason = job.upstream.url.secrets().redact(&error.to_string());
                answer(Event::LogEnded { key: job.key(), tail: log.tail() });
                log.note(format_args!("failed: {reason}"));
                BuildOutcome::Failed { reason, blame: error.blame() }
            }
        }
    }

    /// Fetches and builds one version. Removes its source and its stage, even after an error.
    fn build(
        &mut self,
        job: &BuildJob,
        log: &BuildLog,
        answer: &dyn Fn(Event),
    ) -> Result<PendingOutputs, BuildError> {
        let name = format!("{}@{}", job.recipe.id, job.candidate.version);
        let name =
            self.state.work_name(&name, |directories: &[&Path]| self.work_users.are_in_use(directories));
        let source = Discarded(&self.state, self.state.sources().join(&name));
        // Only `out` becomes pending. Everything else goes with the stage, so that what cannot be
        // removed does not fail a finished build.
        let stage = Discarded(&self.state, self.state.stage().join(&name));
        // Before the fetch: an edit during the fetch must not matter.
        // Wrappers of peipkg-build tell recipes apart by the end of this path.
        let copy = stage.1.join("recipes").join(&*job.recipe.id);
        let recipe = recipe_files::copy(&job.recipe, &copy)?;
        let begun = Instant::now();
        let deadline = self.config.build.timeout.and_then(|limit| begun.checked_add(limit));
        let wanted = Source {
            url: &job.upstream.url,
            tag: &job.candidate.tag,
            next_tags: &job.next_tags,
            submodules: job.upstream.submodules,
        };
        let fetched = self.sources.fetch(wanted, &source.1, deadline, &self.interrupt, log);
        if job.next_tags.is_empty() {
            self.sources.forget(&job.upstream.url);
        }
        let fetched = fetched?;
        warn_of_submodules(job, &fetched.left_out, log, answer);
        let fetching = begun.elapsed();
        let out = stage.1.join("out");
        let (packages, scratch) = (out.join("packages"), stage.1.join("tmp"));
        for directory in [&packages, &scratch] {
            fs::create_dir_all(directory).map_err(at(directory))?;
        }
        let program = self.peipkg_build(job, &recipe, &fetched.commit, &source.1, &stage.1, deadline);
        program
            .supervised()
            .hide(job.upstream.url.secrets())
            .log_to(log)
            .run(&self.interrupt)
            .map_err(|error| in_own_paths(error, &copy, &job.recipe.dir))
            .map_err(|error| late(error, fetching, self.config.build.timeout))?;
        log.note("check of the outputs");
        check_outputs(job, &packages)?;
        let pending = self.repository.pending();
        pending.add(&out, &job.key(), &job.recipe.packages).map_err(BuildError::Keep)
    }

    /// Returns the build's command line.
    fn peipkg_build(
        &self,
        job: &BuildJob,
        recipe: &Path,
        commit: &Commit,
        source: &Path,
        stage: &Path,
        deadline: Option<Instant>,
    ) -> Program {
        // `Display` redacts the URL: the reference is published with the package.
        let source_ref = format!("git+{}#refs/tags/{}", job.upstream.url, job.candidate.tag);
        let timestamp = humantime::format_rfc3339_seconds(commit.time).to_string();
        let mut program = Program::new(&self.peipkg_build)
            // A killed tool leaves its temporary files behind. Here they are removed with the stage.
            .env("TMPDIR", stage.join("tmp"))
            .deadline(deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())))
            .arg("build")
            .arg("--recipe")
            .arg(recipe)
            .arg("--source")
            .arg(source)
            .args(["--version", job.candidate.version.as_str(), "--source-ref", &source_ref])
            .args(["--farm-id", &self.config.manager.id, "--timestamp", &timestamp])
            .arg("--out")
            .arg(stage.join("out/packages"))
            .arg("--sign-key")
            .arg(&self.config.key_file);
        if job.upstream.export_version {
            let values = [job.candidate.version.as_str(), &job.candidate.tag, &commit.id];
            for (name, value) in EXPORTED_VARIABLES.into_iter().zip(values) {
                program = program.arg("--build-env").arg(format!("{name}={value}"));
            }
        }
        let grant = self.config.grant_of(&job.recipe.id);
        for key in &grant.inject_pubkey {
            if let Some(public) = self.public_keys.of(&key.private) {
                program = program.arg("--build-env").arg(format!("{}={public}", key.env));
            }
        }
        for key in &grant.sign {
            let mut value = OsString::from(format!("{}=", key.name));
            value.push(&key.private);
            program = program.arg("--binary-sign-key").arg(value);
        }
        program
    }
}

impl BuildError {
    fn is_interrupted(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_interrupted(),
            Self::Tool(error) | Self::SlowFetch { error, .. } => error.is_interrupted(),
            _ => false,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            // The upstream delivered the source, but the disk refused it or a program is missing.
            Self::Fetch(error) if error.is_local() => Blame::Version,
            Self::Fetch(_) | Self::SlowFetch { .. } => Blame::Upstream,
            Self::Tool(ProcessError::TimedOut { .. }) => Blame::Recipe,
            _ => Blame::Version,
        }
    }
}

/// Replaces the paths of the recipe's `copy`, which is removed, by those of the recipe itself.
fn in_own_paths(error: ProcessError, copy: &Path, recipe: &Path) -> ProcessError {
    let own_paths = |tail: String| tail.replace(&*copy.to_string_lossy(), &recipe.to_string_lossy());
    match error {
        ProcessError::TimedOut { program, limit, tail } => {
            ProcessError::TimedOut { program, limit, tail: own_paths(tail) }
        }
        ProcessError::Failed { program, status, tail } => {
            ProcessError::Failed { program, status, tail: own_paths(tail) }
        }
        error => error,
    }
}

/// Replaces a time-out's limit, the time that the fetch left, by the configured one, which the
/// operator knows. Blames the fetch if it took longer than the build might.
fn late(error: ProcessError, fetching: Duration, configured: Option<Duration>) -> BuildError {
    match error {
        ProcessError::TimedOut { program, limit: left, tail } => {
            let error = ProcessError::TimedOut { program, limit: configured.unwrap_or(left), tail };
            if fetching > left { BuildError::SlowFetch { fetching, error } } else { error.into() }
        }
        error => error.into(),
    }
}

/// Warns if the source has submodules that the recipe does not ask for: a build without them fails
/// far from the cause.
fn warn_of_submodules(job: &BuildJob, left_out: &[PathBuf], log: &BuildLog, answer: &dyn Fn(Event)) {
    let Some(first) = left_out.first() else { return };
    let (recipe, version) = (&*job.recipe.id, job.candidate.version.as_str());
    let (count, first) = (left_out.len(), first.display().to_string());
    warn!(recipe:%, version:%, submodules = count, first; "submodules not fetched, the recipe lacks submodules = true");
    let detail = format!("{count} submodules are not fetched, such as {first}");
    log.note(format_args!("{detail}: the recipe lacks submodules = true"));
    let event = "submodules not fetched, the recipe lacks submodules = true";
    let warning = Warning { event, subject: version.to_owned(), detail };
    answer(Event::BuildWarned { recipe: job.recipe.id.clone(), warning });
}

/// Checks that the tool has written exactly the packages of the recipe.
fn check_outputs(job: &BuildJob, out: &Path) -> Result<(), BuildError> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(out).map_err(at(out))? {
        let entry = entry.map_err(at(out))?;
        let is_file = entry.file_type().map_err(at(out))?.is_file();
        let name = entry.file_name().to_string_lossy().into_owned();
        found.insert(if is_file { name } else { format!("(not a file) {name}") });
    }
    let version = &job.candidate.version;
    let expected: BTreeSet<String> =
        job.recipe.packages.iter().map(|p| p.file_name(version)).fold(BTreeSet::new(), sort::included);
    if found == expected { Ok(()) } else { Err(BuildError::Outputs { found, expected }) }
}

/// Lists a few of `names`, and how many more there are.
fn some_of(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 10;
    let shown: BTreeSet<_> =
        names.iter().take(SHOWN).map(|name| excerpt(name)).fold(BTreeSet::new(), sort::included);
    match names.len().saturating_sub(SHOWN) {
        0 => format!("{shown:?}"),
        more => format!("{shown:?} and {more} more"),
    }
}

/// A path to remove at the end of the attempt.
struct Discarded<'a>(&'a StateDir, PathBuf);

impl Drop for Discarded<'_> {
    fn drop(&mut self) {
        self.0.discard(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_full_blames_no_recipe() {
        let error = || io::Error::other("no space left on device");
        let tree = GitError::Tree { path: PathBuf::new(), error: error() };
        assert_eq!(BuildError::Fetch(tree).blame(), Blame::Version);
        let lfs = GitError::LfsMissing { files: 1, path: PathBuf::new() };
        let lfs = GitError::Submodule { path: PathBuf::new(), error: Box::new(lfs) };
        assert_eq!(BuildError::Fetch(lfs).blame(), Blame::Version);
        let answer = GitError::Answer { found: String::new(), expected: "a time" };
        assert_eq!(BuildError::Fetch(answer).blame(), Blame::Upstream);
        let program = || "peipkg-build".to_owned();
        let missing = ProcessError::NotStarted { program: program(), error: error() };
        assert_eq!(BuildError::Tool(missing).blame(), Blame::Version);
    }

    #[test]
    fn time_out_blames_the_recipe_unless_the_fetch_took_longer_than_the_build() {
        let minutes = Duration::from_mins;
        for (fetching, left, blame) in
            [(1, 59, Blame::Recipe), (59, 1, Blame::Upstream), (60, 0, Blame::Upstream)]
        {
            let program = "peipkg-build".to_owned();
            let error = ProcessError::TimedOut { program, limit: minutes(left), tail: "cc x".into() };
            let error = late(error, minutes(fetching), Some(minutes(60)));
            assert_eq!(error.blame(), blame, "{error}");
            let fetch = format!("; the fetch of the source took {fetching}m0s of it");
            let fetch = if blame == Blame::Recipe { "" } else { &fetch };
            let text = error.to_string().replace("1h0m0s of it", "60m0s of it");
            assert_eq!(text, format!("peipkg-build was still running after 1h0m0s: cc x{fetch}"));
        }
    }
}
