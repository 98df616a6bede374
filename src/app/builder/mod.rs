//! The builder threads: each fetches and builds one version at a time. They must not decide which
//! version is next.

mod error;
mod other_clock;
mod parts;
mod provenance;
mod second;
mod signers;
mod tool;
mod versions;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::warn;
use peipkg_format::problem::excerpt;

pub(super) use crate::app::builder::error::BuildError;
use crate::app::builder::error::{in_own_paths, late};
pub(super) use crate::app::builder::parts::Builder;
use crate::app::builder::provenance::Inputs;
use crate::app::builder::tool::check_outputs;
use crate::app::message::Message;
use crate::app::recipe_files::{self, CopyError};
use crate::build_log::BuildLog;
use crate::farm::events::{BuildJob, BuildOutcome, BuiltFrom, Event, NoCommit, PendingOutputs, Warning};
use crate::state::durable::at;
use crate::state::state_dir::StateDir;
use crate::upstream::git::GitError;
use crate::upstream::source::commit_times::Commit;
use crate::upstream::source::fetch::Source;
use crate::upstream::source::not_commits;

/// How long to keep prefetched sources without a job. The core may drop the jobs that they were
/// fetched for, and an idle builder must not fill the disk.
const SOURCES_IDLE: Duration = Duration::from_mins(1);

/// Starts a builder thread. It answers each job with [`Event::LogBegun`], if the job has a log, and
/// with [`Event::BuildFinished`]. It ends when `jobs` is closed.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn start(
    builder: Builder,
    number: usize,
    jobs: Receiver<Box<BuildJob>>,
    answers: Sender<Message>,
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
    fn next(&self, jobs: &Receiver<Box<BuildJob>>) -> Option<Box<BuildJob>> {
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

    fn run(&self, job: &BuildJob, log: &BuildLog, answer: &dyn Fn(Event)) -> BuildOutcome {
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
            Err(BuildError::Fetch(
                ref error @ (GitError::NoCommit { ref id, .. } | GitError::Refused { ref id, .. }),
            )) => {
                let is_refused = matches!(error, GitError::Refused { .. });
                let signers = job.upstream.signers.as_ref().filter(|_| is_refused);
                let found = NoCommit {
                    upstream: job.upstream.url.to_string(),
                    tag: job.candidate.tag.to_string(),
                    object: id.clone(),
                    reason: error.to_string(),
                    signers: signers.map(|signers| signers.digest),
                };
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

    /// Fetches and builds one version, and makes its packages pending.
    fn build(
        &self,
        job: &BuildJob,
        log: &BuildLog,
        answer: &dyn Fn(Event),
    ) -> Result<PendingOutputs, BuildError> {
        let built = self.make(job, log, answer)?;
        self.write_provenance(job, &built.inputs, &built.commit, &built.out)?;
        let pending = self.repository.pending();
        let commit = built.commit.id.parse().ok();
        let built_from = commit.map(|commit| BuiltFrom { tag: job.candidate.tag.clone(), commit });
        pending.add(&built.out, &job.key(), &job.recipe.packages, built_from).map_err(BuildError::Keep)
    }

    /// Fetches and builds one version. Removes its source and its stage, even after an error; the stage
    /// of a success when the result is dropped.
    pub(super) fn make(
        &self,
        job: &BuildJob,
        log: &BuildLog,
        answer: &dyn Fn(Event),
    ) -> Result<Built<'_>, BuildError> {
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
        let inputs = Inputs::of(&copy)?;
        let begun = Instant::now();
        let deadline = self.config.build.timeout.and_then(|limit| begun.checked_add(limit));
        let signers = self.signers(job, &copy)?;
        let home = stage.1.join("signers");
        let wanted = Source {
            url: &job.upstream.url,
            tag: &job.candidate.tag,
            next_tags: &job.next_tags,
            submodules: job.upstream.submodules,
            keys: signers.as_ref().map(|signers| signers.keys(&home)),
        };
        let fetched = self.sources.fetch(wanted, &source.1, deadline, &self.interrupt, log);
        if job.next_tags.is_empty() {
            self.sources.forget(&job.upstream.url);
        }
        let fetched = fetched?;
        if let Some(signer) = &fetched.signer {
            log.note(format_args!("tag signed by {}, key {}", excerpt(&signer.name), excerpt(&signer.key)));
        }
        warn_of_submodules(job, &fetched.left_out, log, answer);
        let fetching = begun.elapsed();
        let out = stage.1.join("out");
        let (packages, scratch) = (out.join("packages"), stage.1.join("tmp"));
        for directory in [&packages, &scratch] {
            fs::create_dir_all(directory).map_err(at(directory))?;
        }
        let twice = self.builds_twice(job);
        let second =
            twice.then(|| self.prepare_second(job, &fetched.commit, &source.1, &stage.1)).transpose()?;
        if twice {
            log.note("first of two builds");
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
        // A build may leave gigabytes in its source.
        drop(source);
        if let Some(second) = second {
            self.build_second(job, &fetched.commit, &second, &packages, deadline, log)
                .map_err(|error| error.late(fetching, self.config.build.timeout))?;
        }
        Ok(Built { out, inputs, commit: fetched.commit, _stage: stage })
    }
}

/// A version that was built.
pub(super) struct Built<'a> {
    /// The directory that becomes pending; `packages` in it has the packages.
    pub out: PathBuf,
    /// The commit that it was built from.
    pub commit: Commit,
    /// Its start and the digest of its recipe.
    pub inputs: Inputs,
    _stage: Discarded<'a>,
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

/// A path to remove at the end of the attempt.
struct Discarded<'a>(&'a StateDir, PathBuf);

impl Drop for Discarded<'_> {
    fn drop(&mut self) {
        self.0.discard(&self.1);
    }
}
