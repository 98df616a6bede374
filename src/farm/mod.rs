//! The pure core: every decision of the farm, and nothing else.
//!
//! [`Farm::handle`] takes one [`Event`] and the time and returns [`Effect`]s;
//! [`Farm::next_deadline`] says when to call it again if nothing happens. It decides which
//! upstreams to list, which versions are published, what to build next, when to retry and when a
//! sweep is over. It does no I/O, starts no thread and reads no clock: a table test can play days
//! of a farm's life.

pub(crate) mod backoff;
mod builds;
mod counted;
pub(crate) mod events;
mod failures;
mod flight;
mod hooks;
mod matched;
#[cfg(test)]
mod model_tests;
pub(crate) mod moment;
mod polls;
pub(crate) mod progress;
mod publishes;
mod publishing;
pub(crate) mod queue;
pub(crate) mod schedule;
mod snapshot;
pub mod status;
#[cfg(test)]
mod tests;
mod turns;
mod upload_state;
mod uploads;
mod webhooks;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use counted::Counted;
use events::{Effect, Event, JobKey, Notice};
use failures::Failures;
use flight::{Flight, Lost};
use hooks::Hooks;
use matched::Matched;
use moment::Moment;
use peipkg_format::archive_index::{Archive, Presence};
use peipkg_format::sort;
use publishing::Publishing;
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
    /// How many builds may run at once.
    pub build_jobs: usize,
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
    watchers: BTreeMap<UpstreamUrl, Counted<Vec<Arc<str>>>>,
    hooks: Hooks,
    schedule: Schedule,
    archive: Archive,
    /// Why the last read of the archive index failed, if it did.
    archive_error: Option<String>,
    queue: Queue,
    failures: Failures,
    /// The builder time that a sweep has lost in hung attempts.
    lost: Lost,
    publishing: Publishing,
    /// The last match of each recipe with its upstream's tags, since the recipe was loaded.
    matched: Matched,
    /// Versions whose packages another recipe makes at this time. They wait for its end.
    aside: BTreeMap<JobKey, Candidate>,
    /// The recipes whose files have changed since they were loaded. They wait for a reload.
    changed: HashSet<Arc<str>>,
    /// The subjects of the warnings given already, by recipe.
    warned: HashMap<Arc<str>, HashSet<String>>,
    /// The builds in progress, the oldest first.
    flights: Vec<Flight>,
    /// Why these tags are no versions, by redacted upstream and tag.
    not_commits: HashMap<(String, String), String>,
    upload: UploadState,
    stopping: Option<Stop>,
    builds_attempted: u64,
    builds_succeeded: u64,
}

/// A stop that a signal asked for.
#[derive(Debug)]
struct Stop {
    outcome: Outcome,
    /// When the farm stops waiting for running listings.
    polls_abandoned: Moment,
    /// Whether a listing waited or ran when the stop came.
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
            hooks: Hooks::default(),
            archive: Archive::default(),
            archive_error: None,
            queue: Queue::default(),
            failures: Failures::default(),
            lost: Lost::default(),
            publishing: Publishing::default(),
            matched: Matched::default(),
            aside: BTreeMap::new(),
            changed: HashSet::new(),
            warned: HashMap::new(),
            flights: Vec::new(),
            not_commits: HashMap::new(),
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
            Event::NoCommitsFound(found) => self.on_no_commits_found(found),
            Event::UploadOwed => self.owe_upload(now),
            Event::PollFinished { upstream, tags } => {
                self.on_poll_finished(&upstream, tags, now, &mut effects);
            }
            Event::UploadFinished(outcome) => self.on_upload_finished(outcome, now, &mut effects),
            Event::LogBegun { key, log } => self.on_log_begun(&key, log),
            Event::LogEnded { key, tail } => self.on_log_ended(&key, tail),
            Event::BuildFinished { key, outcome } => {
                self.on_build_finished(key, outcome, now, &mut effects);
            }
            Event::PublishFinished(outcome) => self.on_publish_finished(outcome, now, &mut effects),
            Event::WebhookReceived { repositories } => {
                self.on_webhook_received(&repositories, false, now, &mut effects);
            }
            Event::PingReceived { repositories } => {
                self.on_webhook_received(&repositories, true, now, &mut effects);
            }
            Event::RedirectFollowed { upstream, target } => self.on_redirect_followed(upstream, &target),
            Event::ReloadRequested => {
                // An operator who knows that the upstream has moved the tag need not wait.
                self.not_commits.clear();
                self.matched.forget_all();
                effects.0.push(Effect::LoadRoster);
            }
            Event::StopRequested => self.on_stop_requested(now, &mut effects),
            Event::AbortRequested => self.on_abort_requested(now, &mut effects),
        }
        self.report_unmatched(now, &mut effects);
        self.requeue_due_retries(now);
        self.start_polls(now, &mut effects);
        self.start_publish(now, &mut effects);
        self.start_builds(now, &mut effects);
        self.start_upload(now, &mut effects);
        effects.0
    }

    /// Returns when to send [`Event::DeadlineReached`] if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        if let Some(stop) = &self.stopping {
            return (!self.is_working() && self.schedule.has_running()).then_some(stop.polls_abandoned);
        }
        let retry = self.failures.next_retry().filter(|_| !self.options.once);
        let deadlines = [retry, self.upload.next(), self.schedule.next_deadline(), self.hooks.line.due()];
        deadlines.into_iter().flatten().min()
    }

    /// Returns how the farm ended, once it has.
    pub(crate) fn outcome(&self, now: Moment) -> Option<Outcome> {
        if self.is_working() {
            return None;
        }
        // An aborted farm publishes and uploads no more, even if something is owed.
        let has_published = self.publishing.ready_len() == 0;
        let Some(stop) = &self.stopping else {
            let is_done = has_published && self.upload.is_quiet(now) && self.has_built_all();
            return (self.options.once && is_done).then_some(Outcome::Clean);
        };
        let polls_are_over = !self.schedule.has_running() || stop.polls_abandoned <= now;
        let is_done = has_published && !self.upload.has_untried;
        let has_work_left = stop.has_polls_left || self.has_versions_to_build();
        let outcome = match stop.outcome {
            Outcome::Clean if self.options.once && has_work_left => Outcome::Unfinished,
            outcome => outcome,
        };
        (polls_are_over && (is_done || self.is_aborted())).then_some(outcome)
    }

    /// Whether a version waits whose packages no other recipe has published meanwhile.
    fn has_versions_to_build(&self) -> bool {
        self.queue.iter().any(|(id, Candidate { version, .. }, _)| {
            let recipe = self.roster.get(id);
            recipe.is_some_and(|recipe| self.archive.presence(&recipe.packages, version) == Presence::Absent)
        })
    }

    /// Whether a build, a publish or an upload runs.
    fn is_working(&self) -> bool {
        !self.flights.is_empty() || self.publishing.running().is_some() || self.upload.running_since.is_some()
    }

    /// Whether the sweep has no poll, no build and no publish left.
    fn has_built_all(&self) -> bool {
        let has_published_all = self.publishing.running().is_none() && self.publishing.ready_len() == 0;
        self.flights.is_empty() && self.schedule.is_quiet() && self.queue.len() == 0 && has_published_all
    }

    fn on_roster_loaded(&mut self, recipes: Vec<Recipe>, now: Moment, effects: &mut Effects) {
        effects.report(Notice::RosterLoaded { count: recipes.len() });
        let recipes = recipes.into_iter().map(|recipe| (recipe.id.clone(), Arc::new(recipe)));
        let before = std::mem::replace(&mut self.roster, recipes.fold(BTreeMap::new(), sort::entered));
        let stamp_in = |roster: &BTreeMap<Arc<str>, Arc<Recipe>>, id: &Arc<str>| Some(roster.get(id)?.stamp);
        let failed: Vec<JobKey> = self.failures.iter().map(|(key, _)| key).collect();
        let is_the_same = |id: &Arc<str>| match (before.get(id), self.roster.get(id)) {
            (Some(before), Some(recipe)) => recipe.builds_the_same_as(before),
            _ => true,
        };
        let is_watched = |id: &Arc<str>| self.roster.get(id).is_some_and(|recipe| recipe.upstream.is_some());
        for key in failed {
            let id = &key.recipe;
            // Pending outputs are published even if their recipe is gone: their build is done.
            let is_build = self.failures.get(&key).is_some_and(|failure| failure.candidate.is_some());
            if is_build && !(is_watched(id) && is_the_same(id)) {
                self.failures.remove(&key);
            } else if is_build && stamp_in(&before, id) != stamp_in(&self.roster, id) {
                // The operator has just changed the recipe and wants to see whether it builds now.
                self.failures.retry_at_once(&key, now);
            }
        }
        // The old recipe found the waiting versions. The new one may build others, or from another
        // upstream.
        self.queue.retain(|id| is_watched(id) && is_the_same(id), is_watched);
        self.matched.on_reload(|id| is_watched(id) && is_the_same(id));
        self.warned.retain(|id, _| is_watched(id));
        self.changed.clear();
        // The polls that follow find them again.
        for key in std::mem::take(&mut self.aside).into_keys() {
            self.matched.lose(&key.recipe);
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
        self.name_upstreams();
        if self.stopping.is_none() {
            self.schedule.watch(intervals, now);
        }
    }

    fn on_archive_read(&mut self, read: Result<Archive, String>) {
        match read {
            Ok(archive) => {
                self.archive = archive;
                self.archive_error = None;
                self.matched.forget_all();
            }
            Err(reason) => self.archive_error = Some(reason),
        }
    }

    fn on_log_begun(&mut self, key: &JobKey, log: Arc<str>) {
        match self.flights.iter_mut().find(|flight| flight.job.key() == *key) {
            Some(flight) => flight.log = Some(log),
            None => self.publishing.set_log(key, &log),
        }
    }

    fn on_log_ended(&mut self, key: &JobKey, tail: Vec<String>) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.job.key() == *key) {
            flight.log_tail = tail;
        }
    }

    fn on_stop_requested(&mut self, now: Moment, effects: &mut Effects) {
        if self.stopping.is_none() {
            self.stopping = Some(Stop {
                outcome: Outcome::Clean,
                polls_abandoned: now + POLLS_GRACE,
                has_polls_left: !self.schedule.is_quiet(),
            });
            let building = self.flights.iter().map(|flight| flight.job.key());
            effects.report(Notice::Draining { in_flight: building.collect() });
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
        effects.0.extend([Effect::InterruptPolls, Effect::InterruptJobs]);
    }

    fn is_aborted(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stop| stop.outcome == Outcome::Aborted)
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
