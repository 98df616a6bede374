//! Runs the program of `[notify]` for each change of state, on a thread of its own: one at a time, in
//! order, each with a deadline. Nothing waits for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use log::warn;
use serde::Serialize;

use crate::app::notices::shown_problems;
use crate::farm::events::{JobKey, Notice};
use crate::process::{Interrupt, Program};
use crate::state::troubles;

/// How long one run of the program may take: far longer than a mail or a request does.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long the program has to end after its deadline: it has nothing to clean up.
const GRACE: Duration = Duration::from_secs(1);

/// How long the farm waits at its end for the notifications that the program has not had yet.
const FLUSH: Duration = Duration::from_secs(30);

/// How many notifications may wait. When more do, the oldest is dropped: a program that hangs must not
/// fill the memory, and the newest state counts.
const WAITING: usize = 256;

/// One change of state: a line of JSON on the program's standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Notification {
    event: &'static str,
    recipe: Option<Arc<str>>,
    version: Option<String>,
    /// Why, in the words of `/status`.
    cause: Option<String>,
    time: String,
    farm_id: Arc<str>,
}

/// The thread that runs the program, and the notifications that wait for it.
pub(super) struct Notifier {
    farm_id: Arc<str>,
    queue: Sender<Notification>,
    /// The other end of the queue, to take the oldest out.
    waiting: Receiver<Notification>,
    /// Whether notifications are being dropped: one warning for each row of them.
    is_dropping: bool,
    /// Closed by the thread at its end.
    end: Receiver<()>,
    interrupt: Interrupt,
    thread: JoinHandle<()>,
}

impl Notifier {
    /// Starts the thread, which runs `program` with `args`.
    ///
    /// # Errors
    /// If the system refuses a thread or a pipe.
    pub(super) fn start(program: PathBuf, args: Vec<String>, farm_id: Arc<str>) -> io::Result<Self> {
        let (queue, waiting) = bounded::<Notification>(WAITING);
        let (ended, end) = bounded(0);
        let interrupt = Interrupt::new()?;
        let thread = thread::Builder::new().name("notifier".into()).spawn({
            let (waiting, interrupt) = (waiting.clone(), interrupt.clone());
            move || {
                let _closed_at_the_end: Sender<()> = ended;
                let mut is_failing = false;
                while let Ok(notification) = waiting.recv() {
                    let run = run(&program, &args, &notification, &interrupt);
                    let before = std::mem::replace(&mut is_failing, run.is_err());
                    match run {
                        Ok(()) => troubles::end("notification failed"),
                        Err(error) => {
                            troubles::begin("notification failed", "", &error);
                            if !before {
                                let event = notification.event;
                                warn!(event, error; "notification failed");
                            }
                        }
                    }
                }
            }
        })?;
        Ok(Self { farm_id, queue, waiting, is_dropping: false, end, interrupt, thread })
    }

    /// Queues what the program is to be told of `notice`, if anything. Never waits.
    pub(super) fn tell(&mut self, notice: &Notice) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        for (event, key, cause) in changes(notice) {
            let (recipe, version) = key.map(|key| (key.recipe.clone(), key.version.to_string())).unzip();
            let (time, farm_id) = (time.clone(), self.farm_id.clone());
            self.add(Notification { event, recipe, version, cause, time, farm_id });
        }
    }

    fn add(&mut self, notification: Notification) {
        let Err(TrySendError::Full(notification)) = self.queue.try_send(notification) else {
            if std::mem::take(&mut self.is_dropping) {
                troubles::end("too many notifications wait, dropping the oldest");
            }
            return;
        };
        if !std::mem::replace(&mut self.is_dropping, true) {
            warn!(waiting = WAITING; "too many notifications wait, dropping the oldest");
            troubles::begin("too many notifications wait, dropping the oldest", "", &"");
        }
        // The thread may have made room meanwhile; then nothing is dropped.
        let _ = self.waiting.try_recv();
        let _ = self.queue.try_send(notification);
    }

    /// Waits for the notifications that are left, at most for [`FLUSH`], or ends at once if the farm
    /// `is_aborted`.
    pub(super) fn finish(self, is_aborted: bool) {
        drop(self.queue);
        let limit = if is_aborted { Duration::ZERO } else { FLUSH };
        if self.end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            // Take out the rest first: the thread must not begin the next one.
            let left = self.waiting.try_iter().count() + 1;
            self.interrupt.trigger();
            warn!(left; "stopping before all notifications are sent");
        }
        // A thread that panicked has printed its message to standard error.
        let _ = self.thread.join();
    }
}

/// Runs the program once.
fn run(
    program: &Path,
    args: &[String],
    notification: &Notification,
    interrupt: &Interrupt,
) -> Result<(), String> {
    let mut line = serde_json::to_vec(notification).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let program = Program::new(program).args(args).input(line).deadline(Some(DEADLINE)).grace(GRACE);
    match program.run(interrupt) {
        Err(error) if !error.is_interrupted() => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Returns the changes of state in a notice: event, version and cause. A version that keeps failing
/// has not changed.
fn changes(notice: &Notice) -> Vec<(&'static str, Option<&JobKey>, Option<String>)> {
    match notice {
        Notice::BuildFailed { key, failures: 1, reason, .. } => {
            vec![("build_failed", Some(key), Some(reason.clone()))]
        }
        Notice::PublishFailed { key, failures: 1, reason, .. } => {
            vec![("publish_failed", Some(key), Some(reason.clone()))]
        }
        Notice::BuildComplete { key, recovered, .. } => {
            let recovered = recovered.then_some(("recovered", Some(key), None));
            recovered.into_iter().chain([("published", Some(key), None)]).collect()
        }
        Notice::UploadFailed { failures: 1, reason, .. } => {
            vec![("upload_failed", None, Some(reason.clone()))]
        }
        Notice::UploadComplete { recovered: true, .. } => vec![("upload_recovered", None, None)],
        Notice::ReloadRefused { problems } => {
            vec![("reload_refused", None, Some(shown_problems(problems)))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use peipkg_format::problem::Problem;

    use super::*;

    fn key(version: &str) -> JobKey {
        JobKey { recipe: "tool".into(), version: version.parse().unwrap() }
    }

    #[test]
    fn notice_is_told_if_it_is_a_change() {
        #[track_caller]
        fn check(notice: &Notice, expected: &[(&str, Option<&str>)]) {
            let changes = changes(notice);
            let found: Vec<_> = changes.iter().map(|(event, _, cause)| (*event, cause.as_deref())).collect();
            assert_eq!(found, expected, "{notice:?}");
        }
        let (took, retry_after, log) = (DEADLINE, Some(DEADLINE), None);
        for (failures, is_told) in [(1, true), (2, false), (9, false)] {
            let reason = || "no disk".to_owned();
            let expected = |event| if is_told { vec![(event, Some("no disk"))] } else { Vec::new() };
            let log = log.clone();
            let notice = Notice::BuildFailed {
                key: key("1-1"),
                failures,
                retry_after,
                log: log.clone(),
                reason: reason(),
            };
            check(&notice, &expected("build_failed"));
            let notice =
                Notice::PublishFailed { key: key("1-1"), failures, retry_after, log, reason: reason() };
            check(&notice, &expected("publish_failed"));
            let notice = Notice::UploadFailed { failures, retry_after, reason: reason() };
            check(&notice, &expected("upload_failed"));
        }
        let complete = |recovered| Notice::BuildComplete { key: key("1-1"), took, recovered };
        check(&complete(false), &[("published", None)]);
        check(&complete(true), &[("recovered", None), ("published", None)]);
        check(&Notice::UploadComplete { took, recovered: false }, &[]);
        check(&Notice::UploadComplete { took, recovered: true }, &[("upload_recovered", None)]);
        let problem = |text: &str| Problem::of_file("a/peipkg.toml", text);
        let refused = Notice::ReloadRefused { problems: vec![problem("b"), problem("c")] };
        check(&refused, &[("reload_refused", Some("a/peipkg.toml: b; a/peipkg.toml: c"))]);
        check(&Notice::Aborting, &[]);
    }

    #[test]
    fn queue_full_drops_the_oldest_and_keeps_the_order() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name).display().to_string();
        let script = format!(
            ": >'{}'; until [ -e '{}' ]; do sleep 0.02; done; cat >>'{}'",
            at("begun"),
            at("open"),
            at("told")
        );
        let args = vec!["-c".to_owned(), script];
        let mut notifier = Notifier::start("/bin/sh".into(), args, "farm".into()).unwrap();
        let publish = |notifier: &mut Notifier, number: usize| {
            let key = key(&format!("{number}-1"));
            notifier.tell(&Notice::BuildComplete { key, took: DEADLINE, recovered: false });
        };
        publish(&mut notifier, 0);
        // The first one is with the program, the queue is empty.
        let deadline = std::time::Instant::now() + DEADLINE;
        while !home.path().join("begun").exists() {
            assert!(std::time::Instant::now() < deadline, "the program does not begin");
            thread::sleep(Duration::from_millis(5));
        }
        for number in 1..=WAITING + 3 {
            publish(&mut notifier, number);
        }
        fs::write(at("open"), "").unwrap();
        notifier.finish(false);
        let told = fs::read_to_string(at("told")).unwrap();
        let versions = told.lines().map(|line| {
            let told: serde_json::Value = serde_json::from_str(line).unwrap();
            told["version"].as_str().unwrap().strip_suffix("-1").unwrap().parse::<usize>().unwrap()
        });
        let expected: Vec<usize> = std::iter::once(0).chain(4..=WAITING + 3).collect();
        assert_eq!(versions.collect::<Vec<_>>(), expected);
    }
}
