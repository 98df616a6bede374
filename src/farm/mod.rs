//! The pure core: every decision of the farm, and nothing else.
//!
//! [`Farm::handle`] takes one [`Event`] and the time and returns [`Effect`]s;
//! [`Farm::next_deadline`] says when to call it again if nothing happens. It decides which
//! upstreams to list, which versions are published, what to build next, when to retry and when a
//! sweep is over. It does no I/O, starts no thread and reads no clock: a table test can play days
//! of a farm's life.

pub(crate) mod backoff;
mod build_warnings;
mod builds;
mod calendar;
pub(crate) mod commits;
mod counted;
pub(crate) mod events;
mod failures;
mod flight;
mod holds;
mod hooks;
mod matched;
#[cfg(test)]
mod model_tests;
pub(crate) mod moment;
mod moved_tags;
pub(crate) mod plan;
mod polls;
pub(crate) mod progress;
mod publishes;
mod publishing;
pub(crate) mod queue;
pub(crate) mod schedule;
mod skipped_tags;
mod snapshot;
pub mod status;
#[cfg(test)]
mod tests;
mod turns;
mod upload_state;
mod uploads;
pub(crate) mod warnings;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use build_warnings::BuildWarnings;
use commits::PublishedCommits;
use counted::Counted;
use events::{Effect, Event, JobKey, Notice, Warned};
use failures::Failures;
use flight::{Flight, Lost};
use hooks::Hooks;
use matched::Matched;
use moment::Moment;
use peipkg_format::archive_index::Archive;
use peipkg_format::problem::Problem;
use peipkg_format::sort;
use progress::Counts;
use publishing::Publishing;
use queue::{Candidate, Queue};
use schedule::Schedule;
use skipped_tags::SkippedTags;
use upload_state::UploadState;

use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;

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

/// The loaded recipes by their ids.
pub(crate) type Roster = BTreeMap<Arc<str>, Arc<Recipe>>;

/// The state of the farm.
#[derive(Debug)]
pub(crate) struct Farm {
    options: Options,
    roster: Roster,
    /// The recipes of each upstream, sorted by both.
    watchers: Counted<Vec<(UpstreamUrl, Arc<str>)>>,
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
    /// The warnings given already, by recipe; none without any.
    warned: HashMap<Arc<str>, Warned>,
    /// The warnings about the builds of each recipe, with the version as subject.
    build_warnings: HashMap<Arc<str>, BuildWarnings>,
    /// When the last publish of each recipe ended that has had one, and how long build and publish
    /// took.
    successes: HashMap<Arc<str>, (Moment, Duration)>,
    /// The last reload, if it was refused.
    refused: Option<Refused>,
    /// The recipes that say that nothing is built.
    paused: BTreeSet<Arc<str>>,
    /// Since when a file holds all builds, if one does.
    paused_since: Option<Moment>,
    /// The builds in progress, the oldest first.
    flights: Vec<Flight>,
    /// The commits from which the published versions were built.
    commits: PublishedCommits,
    skipped_tags: SkippedTags,
    upload: UploadState,
    stopping: Option<Stop>,
    builds_attempted: u64,
    builds_succeeded: u64,
    tally: Counts,
}

/// A reload that was refused.
#[derive(Debug)]
struct Refused {
    at: Moment,
    problems: Vec<Problem>,
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
            watchers: Counted::default(),
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
            build_warnings: HashMap::new(),
            successes: HashMap::new(),
            refused: None,
            paused: BTreeSet::new(),
            paused_since: None,
            flights: Vec::new(),
            commits: PublishedCommits::default(),
            skipped_tags: SkippedTags::default(),
            upload: UploadState::default(),
            stopping: None,
            builds_attempted: 0,
            builds_succeeded: 0,
            tally: Counts::default(),
        }
    }

    /// Records `event`, decides, and returns the effects to perform, in order.
    pub(crate) fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Effects::default();
        match event {
            Event::DeadlineReached => {}
            Event::RosterLoaded(Ok(recipes)) => self.on_roster_loaded(recipes, now, &mut effects),
            Event::RosterLoaded(Err(problems)) => {
                self.refused = Some(Refused { at: now, problems: problems.clone() });
                effects.report(Notice::ReloadRefused { problems });
            }
            Event::ArchiveRead(read) => self.on_archive_read(read, &mut effects),
            Event::OutputsFound(found) => self.on_outputs_found(found, now, &mut effects),
            Event::NoCommitsFound(found) => self.on_no_commits_found(found),
            Event::CommitsFound(commits) => self.commits = commits,
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
            Event::BuildWarned { recipe, .. } if !self.roster.contains_key(&recipe) => {}
            Event::BuildWarned { recipe, warning } => self.add_build_warning(&recipe, warning),
            Event::NoFilesPublished(key) => self.on_no_files_published(key, &mut effects),
            Event::PauseFound(is_paused) => self.on_pause_found(is_paused, now, &mut effects),
            Event::ReloadRequested => effects.0.push(Effect::LoadRoster),
            Event::StopRequested => self.on_stop_requested(now, &mut effects),
            Event::AbortRequested => self.on_abort_requested(now, &mut effects),
        }
        self.report_unmatched(now, &mut effects);
        self.requeue_due_retries(now);
        self.start_polls(now, &mut effects);
        self.start_builds(now, &mut effects);
        self.start_publish(now, &mut effects);
        self.start_upload(now, &mut effects);
        effects.0
    }

    /// Returns the recipes that are loaded.
    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Returns when to send [`Event::DeadlineReached`] if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        let rest = self.publishing.rests_until();
        if let Some(stop) = &self.stopping {
            return if self.is_working() {
                rest
            } else {
                self.schedule.has_running().then_some(stop.polls_abandoned)
            };
        }
        let retry = self.failures.next_retry().filter(|_| !self.options.once);
        let deadlines =
            [rest, retry, self.upload.next(), self.schedule.next_deadline(), self.hooks.line.due()];
        deadlines.into_iter().flatten().min()
    }

    fn on_roster_loaded(&mut self, recipes: Vec<Arc<Recipe>>, now: Moment, effects: &mut Effects) {
        effects.report(Notice::RosterLoaded { count: recipes.len() });
        let recipes = recipes.into_iter().map(|recipe| (recipe.id.clone(), recipe));
        let before = std::mem::replace(&mut self.roster, recipes.fold(BTreeMap::new(), sort::entered));
        self.refused = None;
        let stamp_in = |roster: &Roster, id: &Arc<str>| Some(roster.get(id)?.stamp);
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
            } else if self.roster.contains_key(id) && stamp_in(&before, id) != stamp_in(&self.roster, id) {
                // The operator has just touched the recipe and wants to see whether it works now.
                self.failures.retry_at_once(&key, now);
            }
        }
        // The old recipe found the waiting versions. The new one may build others, or from another
        // upstream.
        let paused = self.roster.values().filter(|recipe| recipe.is_paused());
        self.paused = paused.map(|recipe| recipe.id.clone()).fold(BTreeSet::new(), sort::included);
        let is_paused = |id: &Arc<str>| self.paused.contains(id);
        self.queue.retain(|id| is_watched(id) && is_the_same(id) && !is_paused(id), is_watched);
        self.matched.on_reload(|id| is_watched(id) && is_the_same(id));
        self.warned.retain(|id, _| is_watched(id));
        self.build_warnings.retain(|id, _| is_watched(id) && is_the_same(id));
        self.successes.retain(|id, _| is_watched(id));
        for id in &self.paused {
            self.matched.lose(id);
            if !before.get(id).is_some_and(|recipe| recipe.is_paused()) {
                effects.report(Notice::RecipePaused { recipe: id.clone() });
            }
        }
        self.skipped_tags.keep(self.roster.values().filter_map(|recipe| recipe.upstream.as_ref()));
        self.changed.clear();
        // The polls that follow find them again.
        for key in std::mem::take(&mut self.aside).into_keys() {
            self.matched.lose(&key.recipe);
        }
        let with_upstream =
            self.roster.iter().filter_map(|(id, recipe)| Some((id, recipe.upstream.as_ref()?)));
        let mut watchers: Vec<_> =
            with_upstream.map(|(id, upstream)| (upstream.url.clone(), id.clone())).collect();
        sort::sort(&mut watchers);
        watchers.shrink_to_fit();
        self.watchers = Counted(watchers);
        self.name_upstreams();
        if self.stopping.is_none() {
            self.schedule.watch(self.intervals(), now);
        }
    }

    /// Returns the upstreams, in order, each with its interval: one listing serves all recipes of an
    /// upstream, at the shortest of their intervals.
    fn intervals(&self) -> Vec<(UpstreamUrl, Duration)> {
        let default = self.options.default_interval;
        let wanted = |id| self.roster.get(id).and_then(|recipe| recipe.poll_interval).unwrap_or(default);
        let upstreams = self.upstreams().map(|watchers| {
            let shortest = watchers.iter().map(|(_, id)| wanted(id)).min();
            (watchers[0].0.clone(), shortest.unwrap_or(default))
        });
        upstreams.collect()
    }

    /// Returns the watchers of each upstream, at least one.
    fn upstreams(&self) -> impl Iterator<Item = &[(UpstreamUrl, Arc<str>)]> {
        self.watchers.chunk_by(|(one, _), (other, _)| one == other)
    }

    fn on_archive_read(&mut self, read: Result<Archive, String>, effects: &mut Effects) {
        match read {
            Ok(archive) => {
                self.archive = archive;
                if self.archive_error.take().is_some() {
                    effects.report(Notice::DedupCheckSucceeded);
                }
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
}

/// The effects of one turn.
#[derive(Debug, Default)]
struct Effects(Vec<Effect>);

impl Effects {
    fn report(&mut self, notice: Notice) {
        self.0.push(Effect::Report(notice));
    }
}
