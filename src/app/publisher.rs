//! The publisher thread: runs one publish at a time. It must not decide what to publish.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};

use crate::app::message::Message;
use crate::build_log::BuildLog;
use crate::farm::events::{Event, PendingOutputs, PublishJob, PublishOutcome};
use crate::process::Interrupt;
use crate::recipe::secrets::Secrets;
use crate::repository::Repository;
use crate::repository::publish::PublishError;
use crate::state::state_dir::StateDir;

/// The publisher's repository and the directory of its logs.
#[derive(Debug)]
pub(super) struct Publisher {
    /// The repository to publish to.
    pub repository: Arc<Repository>,
    /// The state directory.
    pub state: Arc<StateDir>,
    /// Ends the publish in progress.
    pub interrupt: Interrupt,
}

/// Starts the publisher thread. It answers each group with an [`Event::LogBegun`] for each log that
/// it begins, and with [`Event::PublishFinished`]. It ends when `groups` is closed.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn start(
    publisher: Publisher,
    groups: Receiver<Vec<PublishJob>>,
    answers: Sender<Message>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("publisher".into()).spawn(move || {
        for group in groups {
            // A send fails only if the loop has ended.
            let answer = |event: Event| drop(answers.send(event.into()));
            let outcome = publisher.run(&group, answer);
            answer(Event::PublishFinished(outcome));
        }
    })
}

impl Publisher {
    fn run(&self, group: &[PublishJob], answer: impl Fn(Event)) -> PublishOutcome {
        let mut logs: Vec<Option<Arc<str>>> = group.iter().map(|job| self.log_of(job, &answer)).collect();
        if let ([job], [Some(log)]) = (group, &logs[..])
            && is_gone(log)
        {
            logs = vec![self.begin_log(job, &answer)];
        }
        let outputs: Vec<PendingOutputs> = group.iter().map(|job| job.outputs.clone()).collect();
        // Only one log is open at a time: a group may have more versions than the process may open
        // files. The tool writes to the first one that is still there.
        let first = logs.iter().flatten().find(|log| !is_gone(log));
        let log = open(first);
        if let [first, _, ..] = &outputs[..] {
            log.note(format_args!("publish of {} and {} more", first.key, outputs.len() - 1));
        }
        let outcome = match self.repository.publish(&outputs, &self.interrupt, &log) {
            Ok(()) => PublishOutcome::Done,
            Err(error) if error.is_interrupted() => PublishOutcome::Interrupted,
            Err(PublishError::Gone(gone)) => PublishOutcome::Gone(gone),
            Err(error) => match &outputs[..] {
                [outputs] if self.repository.set_aside_refused(outputs, &error) => {
                    log.note(format_args!("publish failed, the packages are set aside: {error}"));
                    PublishOutcome::Gone(vec![outputs.directory.clone()])
                }
                _ => PublishOutcome::Failed { reason: error.to_string() },
            },
        };
        for (path, outputs) in logs.iter().zip(&outputs) {
            if path.as_ref() == first {
                end_log(&log, &outcome, outputs);
            } else {
                let other = open(path.as_ref());
                other.note(format_args!("publish with {}", first.map_or("others", |first| &**first)));
                end_log(&other, &outcome, outputs);
            }
            if outcome == PublishOutcome::Done {
                if self.repository.has_no_files(outputs) {
                    answer(Event::NoFilesPublished(outputs.key.clone()));
                }
                self.repository.pending().discard(outputs);
            }
        }
        outcome
    }

    /// Returns the path of the log to continue. Begins one if the version was built earlier.
    fn log_of(&self, job: &PublishJob, answer: impl Fn(Event)) -> Option<Arc<str>> {
        if job.is_new { job.log.clone() } else { self.begin_log(job, answer) }
    }

    fn begin_log(&self, job: &PublishJob, answer: impl Fn(Event)) -> Option<Arc<str>> {
        let key = &job.outputs.key;
        let what = "publish of pending packages";
        let log = BuildLog::begin(&self.state.logs(), &key.recipe, &key.version, what, Secrets::default())
            .path()?;
        answer(Event::LogBegun { key: key.clone(), log: log.clone() });
        Some(log)
    }
}

/// Whether a log was removed: a recipe keeps only its newest logs, and a publish may wait long.
fn is_gone(log: &str) -> bool {
    !Path::new(log).exists()
}

/// Opens a log to continue it; without a path, one that discards everything.
fn open(path: Option<&Arc<str>>) -> BuildLog {
    path.map_or_else(BuildLog::nowhere, |path| BuildLog::resume(Path::new(&**path)))
}

/// Writes how the publish of `outputs` ended.
fn end_log(log: &BuildLog, outcome: &PublishOutcome, outputs: &PendingOutputs) {
    match outcome {
        PublishOutcome::Done => {
            log.note("done");
            log.mark_success();
        }
        PublishOutcome::Failed { reason } => {
            log.note(format_args!("publish failed, the packages stay pending: {reason}"));
        }
        PublishOutcome::Gone(gone) if gone.contains(&outputs.directory) => {
            log.note("the pending packages are gone");
        }
        PublishOutcome::Gone(_) => log.note("not published yet: packages of another version are gone"),
        PublishOutcome::Interrupted => log.note("interrupted"),
    }
}
