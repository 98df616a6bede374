//! The pure core: every decision of the farm, and nothing else.
//!
//! [`Farm::handle`] takes one [`Event`] and the time and returns [`Effect`]s;
//! [`Farm::next_deadline`] says when to call it again if nothing happens. It decides which
//! upstreams to list, which versions are published, what to build next, when to retry and when a
//! sweep is over. It does no I/O, starts no thread and reads no clock: a table test can play days
//! of a farm's life.

pub(crate) mod backoff;
pub(crate) mod events;
mod holds;
mod jobs;
pub(crate) mod ledger;
#[cfg(test)]
mod model_tests;
pub(crate) mod moment;
mod polls;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod schedule;
mod snapshot;
pub mod status;
#[cfg(test)]
mod tests;
mod upload_state;
mod uploads;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use events::{Effect, Event, Job, JobKey, Notice, PendingOutputs};
use ledger::Holds;
use moment::Moment;
use peipkg_format::archive_index::{Archive, Presence};
use queue::{Candidate, Queue};
use schedule::Schedule;
use upload_state::UploadState;

use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;

/// How long a stopping farm waits for listings. Interrupted git processes end well within it; a
/// listing that still waits for a silent server can be cut off without loss.
const POLLS_GRACE: Duration = Duration::from_secs(2);

/// The part of the configuration that the decisions depend on.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Stop after one sweep (`--once`) instead of running until told to stop.
    pub once: bool,
    /// The poll interval of recipes that name none.
    pub default_interval: Duration,
    /// How many listings may run at once.
    pub poll_jobs: usize,
    /// Whether a remote is configured.
    pub uploads: bool,
    /// Shuffles the first polls; `None` keeps the order of the URLs.
    pub order_seed: Option<u64>,
}

/// Why the farm is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The sweep is done, or the daemon has drained.
    Clean,
    /// The sweep was told to stop and has left work.
    Unfinished,
    /// A second signal cut the drain short.
    Aborted,
}

/// The state of the farm.
#[derive(Debug)]
pub(crate) struct Farm {
    options: Options,
    roster: BTreeMap<Arc<str>, Arc<Recipe>>,
    /// The recipes of each upstream.
    watchers: BTreeMap<UpstreamUrl, Vec<Arc<str>>>,
    schedule: Schedule,
    archive: Archive,
    /// Why the last read of the archive index failed, if it did.
    archive_error: Option<String>,
    queue: Queue,
    failures: HashMap<JobKey, Failure>,
    holds: Holds,
    pending: Vec<PendingOutputs>,
    /// The recipes whose tags a poll has matched since they were loaded or changed.
    matched: HashSet<Arc<str>>,
    /// The subjects of the warnings given already, by recipe.
    warned: HashMap<Arc<str>, HashSet<String>>,
    in_flight: Option<Flight>,
    upload: UploadState,
    stopping: Option<Stop>,
    builds_attempted: u64,
    builds_succeeded: u64,
}

/// The builder's current job.
#[derive(Debug)]
struct Flight {
    job: Job,
    started: Moment,
    /// The name of its log file, once it has one.
    log: Option<Arc<str>>,
}

/// A version that failed, and its retry.
#[derive(Debug)]
struct Failure {
    /// Failures in a row.
    count: u32,
    retry_at: Moment,
    /// Whether `retry_at` lies ahead; afterwards the version waits in the queue.
    is_backed_off: bool,
    reason: String,
    /// The name of the last attempt's log file, if it had one.
    log: Option<Arc<str>>,
    /// The version to build again; `None` if it is built and only its publish failed.
    candidate: Option<Candidate>,
}

/// A requested end of the farm.
#[derive(Debug)]
struct Stop {
    outcome: Outcome,
    /// When the farm stops waiting for running listings.
    polls_abandoned: Moment,
    /// Whether an upstream was still to be listed.
    has_polls_left: bool,
}

impl Farm {
    /// Creates a farm without recipes; its first [`Event::RosterLoaded`] starts it.
    pub(crate) fn new(options: Options) -> Self {
        Self {
            schedule: Schedule::new(options.poll_jobs, !options.once, options.order_seed),
            options,
            roster: BTreeMap::new(),
            watchers: BTreeMap::new(),
            archive: Archive::default(),
            archive_error: None,
            queue: Queue::default(),
            failures: HashMap::new(),
            holds: Holds::default(),
            pending: Vec::new(),
            matched: HashSet::new(),
            warned: HashMap::new(),
            in_flight: None,
            upload: UploadState::default(),
            stopping: None,
            builds_attempted: 0,
            builds_succeeded: 0,
        }
    }

    /// Records `event`, decides, and returns the effects to perform, in order.
    pub(crate) fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Effects::default();
        match event {
            Event::DeadlineReached => {}
            Event::RosterLoaded(Ok(recipes)) => self.on_roster_loaded(recipes, now, &mut effects),
            Event::RosterLoaded(Err(problems)) => effects.report(Notice::ReloadRefused { problems }),
            Event::ArchiveRead(read) => self.on_archive_read(read),
            Event::OutputsFound(found) => self.on_outputs_found(found, now, &mut effects),
            Event::UploadOwed => self.owe_upload(now),
            Event::PollFinished { upstream, tags } => {
                self.on_poll_finished(&upstream, tags, now, &mut effects);
            }
            Event::UploadFinished(outcome) => self.on_upload_finished(outcome, now, &mut effects),
            Event::LogBegun(log) => self.on_log_begun(log),
            Event::JobFinished(outcome) => self.on_job_finished(outcome, now, &mut effects),
            Event::WebhookReceived { repositories } => {
                self.on_webhook_received(&repositories, now, &mut effects);
            }
            Event::ReloadRequested => effects.0.push(Effect::LoadRoster),
            Event::StopRequested => self.on_stop_requested(now, &mut effects),
            Event::AbortRequested => self.on_abort_requested(now, &mut effects),
        }
        self.requeue_due_retries(now);
        self.holds.end_due(now);
        self.start_polls(now, &mut effects);
        self.start_job(now, &mut effects);
        self.start_upload(now, &mut effects);
        effects.0
    }

    /// Returns when to send [`Event::DeadlineReached`] if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        if let Some(stop) = &self.stopping {
            return (self.in_flight.is_none()
                && self.upload.running_since.is_none()
                && self.schedule.has_running())
            .then_some(stop.polls_abandoned);
        }
        let retries = self
            .failures
            .values()
            .filter(|failure| failure.is_backed_off && !self.options.once)
            .map(|failure| failure.retry_at);
        let next = retries.chain(self.upload.next()).chain(self.schedule.next_deadline());
        next.chain(self.ends_of_holds()).min()
    }

    /// Returns how the farm ended, once it has.
    pub(crate) fn outcome(&self, now: Moment) -> Option<Outcome> {
        // An aborted farm starts no upload, even if one is owed.
        let upload_is_over =
            if self.is_aborted() { self.upload.running_since.is_none() } else { self.upload.is_quiet(now) };
        let idle = self.in_flight.is_none() && upload_is_over;
        match &self.stopping {
            Some(stop) => {
                let polls_are_over = !self.schedule.has_running() || stop.polls_abandoned <= now;
                (idle && polls_are_over).then(|| {
                    let has_work_left = stop.has_polls_left || self.has_versions_left();
                    if self.options.once && stop.outcome == Outcome::Clean && has_work_left {
                        Outcome::Unfinished
                    } else {
                        stop.outcome
                    }
                })
            }
            None if !self.options.once => None,
            None => (idle && self.has_built_all()).then_some(Outcome::Clean),
        }
    }

    /// Whether the sweep has no poll, no job and no version left to build.
    fn has_built_all(&self) -> bool {
        self.in_flight.is_none() && self.schedule.is_quiet() && !self.has_versions_left()
    }

    /// Whether a version waits that the sweep may still build or publish.
    fn has_versions_left(&self) -> bool {
        let may_build = |(recipe, candidate, urgent)| urgent || self.may_build(recipe, candidate);
        let may_publish = |outputs: &PendingOutputs| !self.is_backed_off(&outputs.key);
        self.queue.iter().any(may_build) || self.pending.iter().any(may_publish)
    }

    fn on_roster_loaded(&mut self, recipes: Vec<Recipe>, now: Moment, effects: &mut Effects) {
        effects.report(Notice::RosterLoaded { count: recipes.len() });
        let recipes = recipes.into_iter().map(|recipe| (recipe.id.clone(), Arc::new(recipe)));
        let before = std::mem::replace(&mut self.roster, recipes.collect());
        let stamp_in = |roster: &BTreeMap<Arc<str>, Arc<Recipe>>, id: &Arc<str>| Some(roster.get(id)?.stamp);
        for (key, failure) in &mut self.failures {
            // The operator has just changed the recipe and wants to see whether it builds now.
            let has_changed = stamp_in(&before, &key.recipe) != stamp_in(&self.roster, &key.recipe);
            if failure.candidate.is_some() && failure.is_backed_off && has_changed {
                failure.retry_at = now;
            }
        }
        self.watchers.clear();
        let mut intervals: BTreeMap<UpstreamUrl, Duration> = BTreeMap::new();
        for (id, recipe) in &self.roster {
            let Some(upstream) = &recipe.upstream else { continue };
            // One listing serves all recipes of an upstream, at the shortest of their intervals.
            let wanted = recipe.poll_interval.unwrap_or(self.options.default_interval);
            let interval = intervals.entry(upstream.url.clone()).or_insert(wanted);
            *interval = wanted.min(*interval);
            self.watchers.entry(upstream.url.clone()).or_default().push(id.clone());
        }
        // The old recipe found the waiting versions. The new one may build others, or from another
        // upstream.
        let roster = &self.roster;
        let is_the_same = |id: &Arc<str>| match (before.get(id), roster.get(id)) {
            (Some(before), Some(recipe)) => recipe.builds_the_same_as(before),
            _ => true,
        };
        self.queue.retain(|id| is_the_same(&Arc::from(id)));
        self.matched.retain(|id| roster.contains_key(id) && is_the_same(id));
        self.failures.retain(|key, failure| failure.candidate.is_none() || is_the_same(&key.recipe));
        let is_watched = |id: &str| roster.get(id).is_some_and(|recipe| recipe.upstream.is_some());
        self.queue.retain(is_watched);
        // Pending outputs are published even if their recipe is gone: their build is done.
        self.failures.retain(|key, failure| failure.candidate.is_none() || is_watched(&key.recipe));
        self.warned.retain(|id, _| is_watched(id));
        // A changed recipe is tried at once, as above.
        let is_untouched = |id: &Arc<str>| stamp_in(&before, id) == stamp_in(roster, id);
        let watchers = &self.watchers;
        let all_untouched =
            |url: &UpstreamUrl| watchers.get(url).is_some_and(|ids| ids.iter().all(is_untouched));
        self.holds.retain(all_untouched, is_untouched);
        if self.stopping.is_none() {
            self.schedule.watch(intervals, now);
        }
    }

    fn on_outputs_found(&mut self, found: Vec<PendingOutputs>, now: Moment, effects: &mut Effects) {
        for outputs in found {
            match self.archive.presence(&outputs.packages, &outputs.key.version) {
                Presence::Absent => self.pending.push(outputs),
                presence => self.drop_published(outputs, presence, now, effects),
            }
        }
    }

    fn on_archive_read(&mut self, read: Result<Archive, String>) {
        match read {
            Ok(archive) => {
                self.archive = archive;
                self.archive_error = None;
            }
            Err(reason) => self.archive_error = Some(reason),
        }
    }

    fn on_log_begun(&mut self, log: Arc<str>) {
        if let Some(flight) = &mut self.in_flight {
            flight.log = Some(log);
        }
    }

    fn on_stop_requested(&mut self, now: Moment, effects: &mut Effects) {
        if self.stopping.is_none() {
            self.stopping = Some(Stop {
                outcome: Outcome::Clean,
                polls_abandoned: now + POLLS_GRACE,
                has_polls_left: !self.schedule.is_quiet(),
            });
            effects.report(Notice::Draining { in_flight: self.key_in_flight() });
            effects.0.push(Effect::InterruptPolls);
        }
    }

    fn on_abort_requested(&mut self, now: Moment, effects: &mut Effects) {
        self.stopping = Some(Stop {
            outcome: Outcome::Aborted,
            polls_abandoned: now + POLLS_GRACE,
            has_polls_left: !self.schedule.is_quiet(),
        });
        effects.report(Notice::Aborting);
        effects.0.extend([Effect::InterruptPolls, Effect::InterruptJob]);
    }

    fn is_aborted(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stop| stop.outcome == Outcome::Aborted)
    }

    /// Returns the version of the builder's current job.
    fn key_in_flight(&self) -> Option<JobKey> {
        self.in_flight.as_ref().map(|flight| flight.job.key())
    }
}

/// The effects of one turn.
#[derive(Debug, Default)]
struct Effects(Vec<Effect>);

impl Effects {
    fn report(&mut self, notice: Notice) {
        self.0.push(Effect::Report(notice));
    }
}
