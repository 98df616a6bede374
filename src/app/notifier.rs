//! Runs the program of `[notify]` for each change of state, on a thread of its own: one at a time, in
//! order, each with a deadline. Nothing waits for it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use log::{info, warn};
use peipkg_format::version::Version;
use serde::Serialize;

use crate::app::notices::shown_problems;
use crate::farm::events::{JobKey, Notice};
use crate::farm::status::Notifications;
use crate::farm::warnings::moved;
use crate::process::{Interrupt, Program};
use crate::state::troubles;

/// How long one run of the program may take: far longer than a mail or a request does.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long the program has to end after its deadline: it has nothing to clean up.
const GRACE: Duration = Duration::from_secs(1);

/// How long the farm waits at its end for the notifications that the program has not had yet.
pub(super) const FLUSH: Duration = Duration::from_secs(30);

/// How many notifications may wait. When more do, one is dropped: a program that hangs must not fill
/// the memory.
const WAITING: usize = 256;

/// A version is published.
const PUBLISHED: &str = "published";

/// The tag of a published version leads to another commit.
const TAG_MOVED: &str = "tag_moved";

/// It leads to the published one again.
const TAG_MOVED_BACK: &str = "tag_moved_back";

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
    /// The failures that were told and are not over, by recipe: version and event.
    failing: HashMap<Arc<str>, Vec<(Version, &'static str)>>,
    queue: Sender<Box<Notification>>,
    /// The other end of the queue, to take some out.
    waiting: Receiver<Box<Notification>>,
    counts: Arc<Counts>,
    /// Whether notifications were dropped since the queue was empty: one warning for a row of them.
    is_dropping: bool,
    /// Closed by the thread at its end.
    end: Receiver<()>,
    interrupt: Interrupt,
    thread: JoinHandle<()>,
}

/// Counts of the notifications since the start, by what has become of each.
#[derive(Debug, Default)]
pub(super) struct Counts {
    queued: AtomicU64,
    told: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// Returns the counts as `/status` has them.
    pub(super) fn status(&self) -> Notifications {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        // The thread adds to these two only after this one has added to `queued`.
        let (told, failed, dropped) = (count(&self.told), count(&self.failed), count(&self.dropped));
        let waiting = count(&self.queued).saturating_sub(told + failed + dropped);
        Notifications { told, failed, dropped, waiting }
    }
}

impl Notifier {
    /// Starts the thread, which runs `program` with `args`, and calls `at_end` when it ends.
    ///
    /// # Errors
    /// If the system refuses a thread or a pipe.
    pub(super) fn start(
        program: PathBuf,
        args: Vec<String>,
        farm_id: Arc<str>,
        at_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, waiting) = bounded::<Box<Notification>>(WAITING);
        let (ended, end) = bounded(0);
        let interrupt = Interrupt::new()?;
        let counts = Arc::new(Counts::default());
        let thread = thread::Builder::new().name("notifier".into()).spawn({
            let (waiting, interrupt, counts) = (waiting.clone(), interrupt.clone(), counts.clone());
            move || {
                let closed_at_the_end: Sender<()> = ended;
                let mut is_failing = false;
                while let Ok(notification) = waiting.recv() {
                    let run = run(&program, &args, &notification, &interrupt);
                    let count = if run.is_ok() { &counts.told } else { &counts.failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    if waiting.is_empty() {
                        troubles::end("too many notifications wait, dropping the oldest");
                    }
                    let before = std::mem::replace(&mut is_failing, run.is_err());
                    match run {
                        Ok(()) => {
                            troubles::end("notification failed");
                            if before {
                                info!("notification succeeded");
                            }
                        }
                        Err(error) => {
                            troubles::begin("notification failed", "", &error);
                            if !before {
                                let event = notification.event;
                                warn!(event, error; "notification failed");
                            }
                        }
                    }
                }
                drop(closed_at_the_end);
                at_end();
            }
        })?;
        let (failing, is_dropping) = (HashMap::new(), false);
        Ok(Self { farm_id, failing, queue, waiting, counts, is_dropping, end, interrupt, thread })
    }

    /// Queues what the program is to be told after `notice`, if anything. Never waits. `is_failing` says
    /// whether the failure of a version is not over.
    pub(super) fn tell(&mut self, notice: &Notice, is_failing: impl Fn(&JobKey) -> bool) {
        match notice {
            // A reload may give a failed version up, and then no poll tells.
            Notice::RosterLoaded { .. } => {
                let recipes: Vec<_> = self.failing.keys().cloned().collect();
                for recipe in recipes {
                    self.end_failures(&recipe, &is_failing);
                }
            }
            Notice::PollComplete { recipe, .. } => self.end_failures(recipe, &is_failing),
            _ => {}
        }
        let Some((event, key, cause)) = change(notice) else { return };
        match key {
            Some(key) if event == PUBLISHED => self.end_failures(&key.recipe, |other| other != key),
            // The version is published and stays so.
            Some(_) if [TAG_MOVED, TAG_MOVED_BACK].contains(&event) => {}
            Some(JobKey { recipe, version }) => {
                // A version that keeps failing has not changed.
                let of_recipe = self.failing.entry(recipe.clone()).or_default();
                if of_recipe.iter().any(|known| known == &(version.clone(), event)) {
                    return;
                }
                of_recipe.push((version.clone(), event));
            }
            None => {}
        }
        self.add(event, key, cause);
    }

    /// Tells that the failures of a recipe have ended, but for those of versions that are still failing.
    fn end_failures(&mut self, recipe: &Arc<str>, is_failing: impl Fn(&JobKey) -> bool) {
        let Some(of_recipe) = self.failing.get_mut(recipe) else { return };
        let mut ended: Vec<JobKey> = Vec::new();
        of_recipe.retain(|(version, _)| {
            let key = JobKey { recipe: recipe.clone(), version: version.clone() };
            let stays = is_failing(&key);
            if !stays && !ended.contains(&key) {
                ended.push(key);
            }
            stays
        });
        if of_recipe.is_empty() {
            self.failing.remove(recipe);
        }
        for key in ended {
            self.add("recovered", Some(&key), None);
        }
    }

    fn add(&mut self, event: &'static str, key: Option<&JobKey>, cause: Option<String>) {
        let (recipe, version) = key.map(|key| (key.recipe.clone(), key.version.to_string())).unzip();
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let farm_id = self.farm_id.clone();
        // In a box: see the jobs of the builders.
        let notification = Box::new(Notification { event, recipe, version, cause, time, farm_id });
        self.is_dropping &= !self.queue.is_empty();
        self.counts.queued.fetch_add(1, Ordering::Relaxed);
        let Err(TrySendError::Full(notification)) = self.queue.try_send(notification) else { return };
        // Only this thread fills the queue, so there is room for all but one.
        let mut waiting: Vec<Box<Notification>> = self.waiting.try_iter().collect();
        waiting.push(notification);
        if waiting.len() > WAITING {
            // A failure is told once, so it matters more than a publish.
            let dropped = waiting.iter().position(|waiting| waiting.event == PUBLISHED);
            waiting.remove(dropped.unwrap_or_default());
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut self.is_dropping, true) {
                warn!(waiting = WAITING; "too many notifications wait, dropping the oldest");
            }
            troubles::begin("too many notifications wait, dropping the oldest", "", &"");
        }
        for notification in waiting {
            let _ = self.queue.try_send(notification);
        }
    }

    /// Returns the counts, which go on after this.
    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Takes no more notifications. Returns those that the program has not had yet.
    pub(super) fn close(self) -> Unsent {
        let Self { waiting, counts, end, interrupt, thread, .. } = self;
        Unsent { waiting, counts, end, interrupt, thread }
    }
}

/// The notifications that the program has not had when the farm has ended.
pub(super) struct Unsent {
    waiting: Receiver<Box<Notification>>,
    counts: Arc<Counts>,
    end: Receiver<()>,
    interrupt: Interrupt,
    thread: JoinHandle<()>,
}

impl Unsent {
    /// Logs that the end waits, unless nothing is left.
    pub(super) fn announce(&self) {
        let left = self.counts.status().waiting;
        if left > 0 {
            info!(left; "waiting for the program of [notify]");
        }
    }

    /// Whether the program is done with all of them.
    pub(super) fn is_told(&self) -> bool {
        self.end.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Ends the program if it runs, and drops what it was not told.
    pub(super) fn end(self) {
        if !self.is_told() {
            // Take out the rest first: the thread must not begin the next one.
            self.waiting.try_iter().for_each(drop);
            let left = self.counts.status().waiting;
            self.interrupt.trigger();
            if left > 0 {
                warn!(left; "stopping before all notifications are sent");
            }
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

/// Returns the change of state in a notice: event, version and cause.
fn change(notice: &Notice) -> Option<(&'static str, Option<&JobKey>, Option<String>)> {
    match notice {
        Notice::BuildFailed { key, reason, .. } => Some(("build_failed", Some(key), Some(reason.clone()))),
        Notice::PublishFailed { key, reason, .. } => {
            Some(("publish_failed", Some(key), Some(reason.clone())))
        }
        // A publish whose end nobody has seen is found by the next start.
        Notice::BuildComplete { key, .. } | Notice::AlreadyPublished { key } => {
            Some((PUBLISHED, Some(key), None))
        }
        Notice::TagMoved { key, tag, published, listed } => {
            Some((TAG_MOVED, Some(key), Some(moved(tag, *published, *listed))))
        }
        Notice::TagMovedBack { key, .. } => Some((TAG_MOVED_BACK, Some(key), None)),
        Notice::UploadFailed { failures: 1, reason, .. } => {
            Some(("upload_failed", None, Some(reason.clone())))
        }
        Notice::UploadComplete { recovered: true, .. } => Some(("upload_recovered", None, None)),
        Notice::ReloadRefused { problems } => Some(("reload_refused", None, Some(shown_problems(problems)))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
