//! The builder thread: fetch, build and publish one version at a time.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use peipkg_format::signing_key::PublicKeys;

use crate::build_log::BuildLog;
use crate::config::Config;
use crate::farm::events::{Blame, BuildJob, Event, Job, JobOutcome, PendingOutputs};
use crate::process::{Interrupt, ProcessError, Program};
use crate::recipe::upstream_url::Secrets;
use crate::repository::publish::{PublishError, Publisher};
use crate::state::durable::{self, FileError, at};
use crate::state::state_dir::StateDir;
use crate::upstream::git::GitError;
use crate::upstream::source::fetch::{Source, Sources};

/// How long fetched sources are kept for a version that was expected, but is not built after all.
const SOURCES_IDLE: Duration = Duration::from_mins(1);

/// What the builder works with.
#[derive(Debug)]
pub(super) struct Builder {
    /// The configuration.
    pub config: Arc<Config>,
    /// The state directory.
    pub state: Arc<StateDir>,
    /// Fetches sources.
    pub sources: Sources,
    /// Where `peipkg-build` is.
    pub peipkg_build: PathBuf,
    /// The public keys that grants inject.
    pub public_keys: PublicKeys,
    /// Publishes outputs.
    pub publisher: Publisher,
    /// Ends what the builder is doing.
    pub interrupt: Interrupt,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("cannot fetch the source: {0}")]
    Fetch(#[from] GitError),
    #[error(transparent)]
    Tool(#[from] ProcessError),
    #[error("cannot keep the outputs: {0}")]
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

/// Starts the builder thread, which answers each job with [`Event::LogBegun`], if it has a log, and with
/// [`Event::JobFinished`], and ends when `jobs` is closed.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn start<M: From<Event> + Send + 'static>(
    mut builder: Builder,
    jobs: Receiver<Job>,
    answers: Sender<M>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("builder".into()).spawn(move || {
        while let Some(job) = builder.next(&jobs) {
            // The loop outlives its builder, unless it failed; then nobody wants the answer.
            let answer = |event: Event| drop(answers.send(event.into()));
            let log = builder.begin_log(&job);
            log.path().map(Event::LogBegun).map(answer);
            answer(Event::JobFinished(builder.run(job, &log)));
        }
    })
}

impl Builder {
    /// Waits for the next job. Sources that nobody has asked for again in a while go.
    fn next(&mut self, jobs: &Receiver<Job>) -> Option<Job> {
        if !self.sources.is_empty() {
            match jobs.recv_timeout(SOURCES_IDLE) {
                Err(RecvTimeoutError::Timeout) => self.sources.forget_all(),
                other => return other.ok(),
            }
        }
        jobs.recv().ok()
    }

    fn begin_log(&self, job: &Job) -> BuildLog {
        let (key, what, secrets) = match job {
            Job::Build(job) => {
                let url = &job.upstream.url;
                (job.key(), format!("tag {} of {url}", job.candidate.tag), url.secrets())
            }
            Job::Publish(outputs) => {
                let what = "publish of what an earlier attempt has built".into();
                (outputs.key.clone(), what, Secrets::default())
            }
        };
        BuildLog::begin(&self.state.logs(), &key.recipe, &key.version, &what, secrets)
    }

    fn run(&mut self, job: Job, log: &BuildLog) -> JobOutcome {
        let outcome = self.attempt(job, log);
        match &outcome {
            JobOutcome::Done => {
                log.note("done");
                log.mark_success();
            }
            JobOutcome::Failed { reason, .. } => log.note(format_args!("failed: {reason}")),
            JobOutcome::PublishFailed { reason, .. } => {
                log.note(format_args!("publish failed, the packages are kept: {reason}"));
            }
            JobOutcome::OutputsGone => log.note("the packages are gone"),
            JobOutcome::Interrupted => log.note("interrupted"),
        }
        outcome
    }

    fn attempt(&mut self, job: Job, log: &BuildLog) -> JobOutcome {
        match job {
            Job::Build(job) => match self.build(&job, log) {
                Ok(outputs) => self.publish(outputs, log),
                Err(error) if error.is_interrupted() => JobOutcome::Interrupted,
                Err(error) => JobOutcome::Failed {
                    reason: job.upstream.url.secrets().redact(&error.to_string()),
                    blame: error.blame(),
                },
            },
            Job::Publish(outputs) => self.publish(outputs, log),
        }
    }

    /// Fetches and builds one version. Whatever happens, its source and stage are removed.
    fn build(&mut self, job: &BuildJob, log: &BuildLog) -> Result<PendingOutputs, BuildError> {
        let name = self.state.unique_name(&format!("{}@{}", job.recipe.id, job.candidate.version));
        let source = Removed(self.state.sources().join(&name));
        let stage = Removed(self.state.stage().join(&name));
        let end = self.config.build_timeout.and_then(|limit| Instant::now().checked_add(limit));
        let what = Source {
            url: &job.upstream.url,
            tag: &job.candidate.tag,
            next_tags: &job.next_tags,
            submodules: job.upstream.submodules,
        };
        let committed = self.sources.fetch(what, &source.0, end, &self.interrupt, log);
        if !job.more_of_upstream {
            self.sources.forget(&job.upstream.url);
        }
        let committed = committed?;
        let out = stage.0.join("packages");
        let scratch = stage.0.join("tmp");
        for directory in [&out, &scratch] {
            fs::create_dir_all(directory).map_err(at(directory))?;
        }
        let program = self.peipkg_build(job, committed, &source.0, &stage.0, end);
        program.log_to(log).run(&self.interrupt).map_err(|error| self.with_whole_limit(error))?;
        durable::remove(&scratch).map_err(at(&scratch))?;
        log.note("check of the outputs");
        check_outputs(job, &out)?;
        let pending = self.publisher.pending();
        pending.keep(&stage.0, &job.key(), &job.recipe.packages).map_err(BuildError::Keep)
    }

    /// The build, ready to run.
    fn peipkg_build(
        &self,
        job: &BuildJob,
        committed: SystemTime,
        source: &Path,
        stage: &Path,
        end: Option<Instant>,
    ) -> Program {
        // The reference is published with the package: no secret may be in it.
        let source_ref = format!("git+{}#refs/tags/{}", job.upstream.url, job.candidate.tag);
        let timestamp = humantime::format_rfc3339_seconds(committed).to_string();
        let mut program = Program::new(&self.peipkg_build)
            // What a tool that is killed leaves behind goes with the stage.
            .env("TMPDIR", stage.join("tmp"))
            .deadline(end.map(|end| end.saturating_duration_since(Instant::now())))
            .arg("build")
            .arg("--recipe")
            .arg(job.recipe.file())
            .arg("--source")
            .arg(source)
            .args(["--version", job.candidate.version.as_str(), "--source-ref", &source_ref])
            .args(["--farm-id", &self.config.manager.id, "--timestamp", &timestamp])
            .arg("--out")
            .arg(stage.join("packages"))
            .arg("--sign-key")
            .arg(&self.config.key_file);
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

    /// The tool had what the fetch has left of the time: the operator knows the whole.
    fn with_whole_limit(&self, error: ProcessError) -> ProcessError {
        match error {
            ProcessError::TimedOut { program, limit, tail } => {
                let limit = self.config.build_timeout.unwrap_or(limit);
                ProcessError::TimedOut { program, limit, tail }
            }
            error => error,
        }
    }

    fn publish(&self, outputs: PendingOutputs, log: &BuildLog) -> JobOutcome {
        match self.publisher.publish(&outputs, &self.interrupt, log) {
            Ok(()) => {
                self.publisher.pending().discard(&outputs);
                JobOutcome::Done
            }
            Err(error) if error.is_interrupted() => JobOutcome::Interrupted,
            Err(PublishError::Gone(_)) => JobOutcome::OutputsGone,
            Err(error) => JobOutcome::PublishFailed { reason: error.to_string(), outputs },
        }
    }
}

impl BuildError {
    fn is_interrupted(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_interrupted(),
            Self::Tool(error) => matches!(error, ProcessError::Interrupted { .. }),
            _ => false,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            // The upstream has done its part.
            Self::Fetch(GitError::Tree { .. }) => Blame::Version,
            Self::Fetch(_) => Blame::Upstream,
            Self::Tool(ProcessError::TimedOut { .. }) => Blame::Recipe,
            _ => Blame::Version,
        }
    }
}

/// Holds the tool to the recipe: exactly the expected packages, nothing else.
fn check_outputs(job: &BuildJob, out: &Path) -> Result<(), BuildError> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(out).map_err(at(out))? {
        let entry = entry.map_err(at(out))?;
        let is_file = entry.file_type().map_err(at(out))?.is_file();
        let name = entry.file_name().to_string_lossy().into_owned();
        found.insert(if is_file { name } else { format!("{name} (not a file)") });
    }
    let version = &job.candidate.version;
    let expected: BTreeSet<String> = job.recipe.packages.iter().map(|p| p.file_name(version)).collect();
    if found == expected { Ok(()) } else { Err(BuildError::Outputs { found, expected }) }
}

/// A few of `names`, and how many more there are.
fn some_of(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 10;
    let shown: BTreeSet<&String> = names.iter().take(SHOWN).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => format!("{shown:?}"),
        more => format!("{shown:?} and {more} more"),
    }
}

/// A path that is removed when the attempt is over.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        durable::clear(&self.0);
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
        let answer = GitError::Answer { found: String::new(), expected: "a time" };
        assert_eq!(BuildError::Fetch(answer).blame(), Blame::Upstream);
        let program = || "peipkg-build".to_owned();
        let late = ProcessError::TimedOut { program: program(), limit: Duration::ZERO, tail: String::new() };
        assert_eq!(BuildError::Tool(late).blame(), Blame::Recipe);
        let missing = ProcessError::NotStarted { program: program(), error: error() };
        assert_eq!(BuildError::Tool(missing).blame(), Blame::Version);
    }
}
