//! The pure core: every decision of the farm, and nothing else.
//!
//! [`Farm::handle`] takes one [`Event`] and the time and answers with
//! [`Effect`]s; [`Farm::next_deadline`] says when to call it again if nothing
//! happens. What to poll, what is published, what to build next, when to retry
//! and when a sweep is over are decided here, without I/O, threads or clocks,
//! so that days of a farm's life are a table test.

pub mod backoff;
pub mod event;
pub mod queue;
pub mod schedule;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::archive::{Archive, Presence};
use crate::recipe::{Recipe, TagVersion, Upstream};
use crate::webhook;
use event::{BuildJob, Effect, Event, Job, JobKey, JobOutcome, KeptOutputs, Notice};
use queue::{Candidate, Queue};
use schedule::{Moment, Schedule};

/// How many unusable tags of one recipe are named in the log, each once; the
/// rest is only counted, so that a hostile upstream cannot fill the log.
const NAMED_BAD_TAGS: usize = 20;

/// What of the configuration the decisions depend on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stop after one sweep (`--once`) instead of running until told to stop.
    pub once: bool,
    /// The poll interval of recipes that name none.
    pub default_interval: Duration,
    /// How many listings may run at once.
    pub poll_jobs: usize,
    /// Whether there is a remote to upload to.
    pub uploads: bool,
}

/// Why the farm is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The sweep is done, or the daemon has drained.
    Clean,
    /// A second signal cut the drain short.
    Aborted,
}

/// The state of the farm.
#[derive(Debug)]
pub struct Farm {
    options: Options,
    roster: BTreeMap<Arc<str>, Arc<Recipe>>,
    /// The recipes of each upstream.
    watchers: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    schedule: Schedule,
    archive: Archive,
    /// Why the archive index could not be read the last time, if so.
    archive_error: Option<String>,
    queue: Queue,
    failures: HashMap<JobKey, Failure>,
    kept: Vec<KeptOutputs>,
    /// What was warned about already, by recipe.
    warned: HashMap<Arc<str>, HashSet<String>>,
    in_flight: Option<Flight>,
    upload: Option<OwedUpload>,
    stopping: Option<Outcome>,
    builds_attempted: u64,
    builds_succeeded: u64,
}

/// The job the builder has.
#[derive(Debug)]
struct Flight {
    job: Job,
    started: Moment,
}

/// A version that failed, and when it is tried again.
#[derive(Debug)]
struct Failure {
    /// Failures in a row.
    count: u32,
    retry_at: Moment,
    /// Whether `retry_at` is still to come; once it has passed, the version waits in the queue.
    waiting: bool,
    reason: String,
    /// What to build again; `None` when only the publish is missing.
    candidate: Option<Candidate>,
}

/// The repository has changed since the last upload that succeeded.
#[derive(Debug)]
struct OwedUpload {
    due: Moment,
    failures: u32,
    /// Why the last one failed, if it did.
    last_error: Option<String>,
}

impl Farm {
    /// A farm without recipes; its first [`Event::RosterLoaded`] starts it.
    pub fn new(options: Options) -> Self {
        Self {
            schedule: Schedule::new(options.poll_jobs, !options.once),
            options,
            roster: BTreeMap::new(),
            watchers: BTreeMap::new(),
            archive: Archive::default(),
            archive_error: None,
            queue: Queue::default(),
            failures: HashMap::new(),
            kept: Vec::new(),
            warned: HashMap::new(),
            in_flight: None,
            upload: None,
            stopping: None,
            builds_attempted: 0,
            builds_succeeded: 0,
        }
    }

    /// Takes note of `event` and decides what to do about it.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Effects::default();
        match event {
            Event::DeadlineReached => {}
            Event::RosterLoaded(Ok(recipes)) => self.take_roster(recipes, &mut effects),
            Event::RosterLoaded(Err(problems)) => effects.report(Notice::ReloadRefused { problems }),
            Event::ArchiveRead(Ok(archive)) => {
                self.archive = archive;
                self.archive_error = None;
            }
            Event::ArchiveRead(Err(reason)) => self.archive_error = Some(reason),
            Event::OutputsFound(found) => self.take_outputs(found, &mut effects),
            Event::UploadOwed => self.owe_upload(now),
            Event::PollFinished { upstream, tags } => self.take_poll(&upstream, tags, now, &mut effects),
            Event::JobFinished(outcome) => self.take_job_outcome(outcome, now, &mut effects),
            Event::WebhookReceived { repositories } => self.take_webhook(&repositories, &mut effects),
            Event::ReloadRequested => effects.0.push(Effect::LoadRoster),
            Event::StopRequested => self.stop(&mut effects),
            Event::AbortRequested => {
                self.stopping = Some(Outcome::Aborted);
                effects.report(Notice::Aborting);
                effects.0.extend([Effect::InterruptPolls, Effect::InterruptJob]);
            }
        }
        self.requeue_due_retries(now);
        self.start_polls(now, &mut effects);
        self.start_job(now, &mut effects);
        effects.0
    }

    /// When [`Event::DeadlineReached`] is to be handled, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.stopping.is_some() {
            return None;
        }
        let retries =
            self.failures.values().filter(|failure| failure.waiting).map(|failure| failure.retry_at);
        // An upload that is due while the builder is busy follows when the builder is done.
        let upload = self.upload.as_ref().filter(|_| self.in_flight.is_none()).map(|upload| upload.due);
        retries.chain(upload).chain(self.schedule.next_deadline()).min()
    }

    /// Whether the farm is over, and how.
    pub fn outcome(&self) -> Option<Outcome> {
        let idle = self.in_flight.is_none();
        match self.stopping {
            Some(outcome) => (idle && self.schedule.nothing_runs()).then_some(outcome),
            None if !self.options.once => None,
            None => (idle && self.schedule.is_quiet() && self.queue.is_empty()).then_some(Outcome::Clean),
        }
    }

    fn take_roster(&mut self, recipes: Vec<Recipe>, effects: &mut Effects) {
        effects.report(Notice::RosterLoaded { count: recipes.len() });
        self.roster =
            recipes.into_iter().map(|recipe| (Arc::from(recipe.id.as_str()), Arc::new(recipe))).collect();
        self.watchers.clear();
        let mut intervals: BTreeMap<Arc<str>, Duration> = BTreeMap::new();
        for (id, recipe) in &self.roster {
            let Some(upstream) = &recipe.upstream else { continue };
            let url: Arc<str> = Arc::from(upstream.git.as_str());
            // One listing serves all recipes of an upstream, as often as the most eager of them asks.
            let wanted = recipe.poll_interval.unwrap_or(self.options.default_interval);
            let interval = intervals.entry(url.clone()).or_insert(wanted);
            *interval = wanted.min(*interval);
            self.watchers.entry(url).or_default().push(id.clone());
        }
        let roster = &self.roster;
        let is_watched = |id: &str| roster.get(id).is_some_and(|recipe| recipe.upstream.is_some());
        self.queue.retain(is_watched);
        // Kept outputs are published even when their recipe is gone: they are built.
        self.failures.retain(|key, failure| failure.candidate.is_none() || is_watched(&key.recipe));
        self.warned.retain(|id, _| is_watched(id));
        if self.stopping.is_none() {
            self.schedule.watch(intervals);
        }
    }

    fn take_outputs(&mut self, found: Vec<KeptOutputs>, effects: &mut Effects) {
        for outputs in found {
            match self.archive.presence(&outputs.packages, &outputs.key.version) {
                Presence::Complete => effects.0.push(Effect::DiscardOutputs(outputs)),
                Presence::Partial => effects.report(Notice::PartlyPublished { key: outputs.key }),
                Presence::Absent => self.kept.push(outputs),
            }
        }
    }

    /// Polls every upstream of that name at once which a recipe with a webhook watches.
    fn take_webhook(&mut self, repositories: &[String], effects: &mut Effects) {
        if self.stopping.is_some() {
            return;
        }
        for (upstream, recipes) in &self.watchers {
            if !repositories.contains(&webhook::repository_name(upstream)) {
                continue;
            }
            let wants_hooks =
                |id: &&Arc<str>| self.roster.get(*id).is_some_and(|recipe| recipe.github_webhook);
            let mut recipes = recipes.iter().filter(wants_hooks).peekable();
            if recipes.peek().is_some() && self.schedule.trigger(upstream) {
                for recipe in recipes {
                    effects.report(Notice::WebhookAccepted { recipe: recipe.clone() });
                }
            }
        }
    }

    fn take_poll(
        &mut self,
        upstream: &Arc<str>,
        tags: Result<Vec<String>, String>,
        now: Moment,
        effects: &mut Effects,
    ) {
        let summary = tags.as_ref().map(Vec::len).map_err(Clone::clone);
        let Some(urgent) = self.schedule.finished(upstream, summary, now) else { return };
        if self.stopping.is_some() {
            return;
        }
        let recipes = self.watchers.get(upstream).cloned().unwrap_or_default();
        match tags {
            Ok(tags) => {
                for id in recipes {
                    self.match_tags(&id, &tags, urgent, effects);
                }
            }
            Err(reason) => {
                let next_poll = self.schedule.state(upstream).and_then(|state| state.next);
                let next_poll =
                    next_poll.filter(|next| *next < Moment::MAX).map(|next| next.saturating_sub(now));
                effects.report(Notice::PollFailed { recipes, upstream: upstream.clone(), reason, next_poll });
            }
        }
    }

    /// Queues what of an upstream's tags one recipe has still to build.
    fn match_tags(&mut self, id: &Arc<str>, tags: &[String], urgent: bool, effects: &mut Effects) {
        let Some((recipe, upstream)) = self.watched_recipe(id) else { return };
        if let Some(reason) = &self.archive_error {
            effects.report(Notice::DedupCheckFailed { recipe: id.clone(), reason: reason.clone() });
        }
        let mut warnings = Warnings::new(id, self.warned.remove(id).unwrap_or_default());
        let mut versions: HashMap<String, &String> = HashMap::new();
        let mut candidates = Vec::new();
        let mut matches = 0;
        for tag in tags {
            let version = match upstream.version_of(tag) {
                TagVersion::NoMatch | TagVersion::TooOld => continue,
                TagVersion::Invalid { reason, .. } => {
                    warnings.skipped(tag, reason.to_string(), effects);
                    continue;
                }
                TagVersion::Version(version) => version,
            };
            matches += 1;
            if let Some(first) = versions.insert(version.to_string(), tag) {
                versions.insert(version.to_string(), first);
                warnings.skipped(tag, format!("tag {first:?} is version {version} too"), effects);
                continue;
            }
            let key = JobKey { recipe: id.clone(), version };
            match self.archive.presence(&recipe.packages, &key.version) {
                Presence::Complete => {}
                Presence::Partial => {
                    if warnings.is_new(key.version.as_str()) {
                        effects.report(Notice::PartlyPublished { key });
                    }
                }
                Presence::Absent if self.is_under_way(&key) => {}
                Presence::Absent => {
                    candidates.push(Candidate { tag: tag.clone(), version: key.version });
                }
            }
        }
        self.forget_vanished_failures(id, &candidates);
        let queued = candidates.len();
        let recipe = id.clone();
        effects.report(Notice::PollComplete { recipe, tags_seen: tags.len(), matches, queued });
        self.warned.insert(id.clone(), warnings.finish(effects));
        self.queue.replace(id, candidates, urgent);
    }

    /// A failed version that was due again, but is no candidate any more, will not be tried again.
    fn forget_vanished_failures(&mut self, id: &Arc<str>, candidates: &[Candidate]) {
        let flying = self.flying();
        self.failures.retain(|key, failure| {
            key.recipe != *id
                || failure.waiting
                || failure.candidate.is_none()
                || flying.as_ref() == Some(key)
                || candidates.iter().any(|candidate| candidate.version == key.version)
        });
    }

    /// Whether a version is being built, is built, or waits to be tried again.
    fn is_under_way(&self, key: &JobKey) -> bool {
        self.flying().is_some_and(|flying| flying == *key)
            || self.kept.iter().any(|outputs| outputs.key == *key)
            || self.failures.get(key).is_some_and(|failure| failure.waiting)
    }

    fn take_job_outcome(&mut self, outcome: JobOutcome, now: Moment, effects: &mut Effects) {
        let Some(Flight { job, started }) = self.in_flight.take() else { return };
        let took = now.saturating_sub(started);
        match (job, outcome) {
            (Job::Upload, JobOutcome::Done) => {
                self.upload = None;
                effects.report(Notice::UploadComplete { took });
            }
            (Job::Upload, JobOutcome::Interrupted) => {}
            (Job::Upload, JobOutcome::Failed { reason }) => {
                let failures = 1 + self.upload.as_ref().map_or(0, |upload| upload.failures);
                let retry_after = backoff::wait_after(failures);
                let last_error = Some(reason.clone());
                self.upload = Some(OwedUpload { due: now + retry_after, failures, last_error });
                effects.report(Notice::UploadFailed { failures, retry_after, reason });
            }
            (job, outcome) => self.take_build_outcome(&job, outcome, took, now, effects),
        }
    }

    fn take_build_outcome(
        &mut self,
        job: &Job,
        outcome: JobOutcome,
        took: Moment,
        now: Moment,
        effects: &mut Effects,
    ) {
        let Some(key) = job.key() else { return };
        match outcome {
            JobOutcome::Done => {
                self.failures.remove(&key);
                self.kept.retain(|outputs| outputs.key != key);
                self.archive.insert(job.packages(), &key.version);
                self.builds_succeeded += 1;
                self.owe_upload(now);
                effects.report(Notice::BuildComplete { key, took });
            }
            JobOutcome::Interrupted => effects.report(Notice::JobInterrupted { key }),
            JobOutcome::PublishFailed { reason, outputs } => {
                self.kept.retain(|kept| kept.key != key);
                self.kept.push(outputs);
                let (failures, retry_after) = self.note_failure(&key, None, &reason, now);
                effects.report(Notice::PublishFailed { key, failures, retry_after, reason });
            }
            JobOutcome::Failed { reason } => {
                let candidate = match job {
                    Job::Build(build) => Some(build.candidate.clone()),
                    Job::Publish(_) | Job::Upload => None,
                };
                let (failures, retry_after) = self.note_failure(&key, candidate, &reason, now);
                // Its recipe may have been dropped meanwhile: then there is nothing to retry.
                if matches!(job, Job::Build(_)) && !self.roster.contains_key(&key.recipe) {
                    self.failures.remove(&key);
                }
                effects.report(Notice::BuildFailed { key, failures, retry_after, reason });
            }
        }
    }

    fn note_failure(
        &mut self,
        key: &JobKey,
        candidate: Option<Candidate>,
        reason: &str,
        now: Moment,
    ) -> (u32, Moment) {
        let count = 1 + self.failures.get(key).map_or(0, |failure| failure.count);
        let wait = backoff::wait_after(count);
        let failure =
            Failure { count, retry_at: now + wait, waiting: true, reason: reason.to_owned(), candidate };
        self.failures.insert(key.clone(), failure);
        (count, wait)
    }

    fn owe_upload(&mut self, now: Moment) {
        if self.options.uploads {
            let owed = self.upload.get_or_insert(OwedUpload { due: now, failures: 0, last_error: None });
            owed.due = now;
        }
    }

    fn stop(&mut self, effects: &mut Effects) {
        if self.stopping.is_none() {
            self.stopping = Some(Outcome::Clean);
            effects.report(Notice::Draining { in_flight: self.flying() });
            effects.0.push(Effect::InterruptPolls);
        }
    }

    /// Moves failed builds whose time has come back into the queue.
    fn requeue_due_retries(&mut self, now: Moment) {
        for (key, failure) in &mut self.failures {
            if !failure.waiting || failure.retry_at > now {
                continue;
            }
            failure.waiting = false;
            if let Some(candidate) = &failure.candidate {
                self.queue.add(&key.recipe, candidate.clone());
            }
        }
    }

    fn start_polls(&mut self, now: Moment, effects: &mut Effects) {
        if self.stopping.is_some() {
            return;
        }
        for upstream in self.schedule.start_due(now) {
            for recipe in self.watchers.get(&upstream).into_iter().flatten() {
                effects.report(Notice::PollStarted { recipe: recipe.clone(), upstream: upstream.clone() });
            }
            effects.0.push(Effect::StartPoll(upstream));
        }
    }

    /// Gives the builder its next job, if it is free and there is one.
    fn start_job(&mut self, now: Moment, effects: &mut Effects) {
        if self.in_flight.is_some() || self.stopping == Some(Outcome::Aborted) {
            return;
        }
        // While draining, only the upload that completes the last build is still started.
        let job = if self.upload.as_ref().is_some_and(|upload| upload.due <= now) {
            Some(Job::Upload)
        } else if self.stopping.is_some() {
            None
        } else {
            self.next_publish(effects).or_else(|| self.next_build(effects))
        };
        let Some(job) = job else { return };
        effects.report(match &job {
            Job::Build(build) => {
                self.builds_attempted += 1;
                Notice::BuildStarted { key: build.key(), tag: build.candidate.tag.clone() }
            }
            Job::Publish(outputs) => Notice::PublishStarted { key: outputs.key.clone() },
            Job::Upload => Notice::UploadStarted,
        });
        effects.0.push(Effect::StartJob(job.clone()));
        self.in_flight = Some(Flight { job, started: now });
    }

    /// Outputs that were never tried in this run, or whose retry is due.
    fn next_publish(&mut self, effects: &mut Effects) -> Option<Job> {
        let waits = |farm: &Self, outputs: &KeptOutputs| {
            farm.failures.get(&outputs.key).is_some_and(|failure| failure.waiting)
        };
        while let Some(index) = self.kept.iter().position(|outputs| !waits(self, outputs)) {
            // A publish that was cut short may have succeeded all the same.
            if self.archive.presence(&self.kept[index].packages, &self.kept[index].key.version)
                != Presence::Complete
            {
                return Some(Job::Publish(self.kept[index].clone()));
            }
            let outputs = self.kept.remove(index);
            self.failures.remove(&outputs.key);
            effects.0.push(Effect::DiscardOutputs(outputs));
        }
        None
    }

    fn next_build(&mut self, effects: &mut Effects) -> Option<Job> {
        while let Some((id, candidate)) = self.queue.pop() {
            let Some(recipe) = self.roster.get(&id).cloned() else { continue };
            let presence = self.archive.presence(&recipe.packages, &candidate.version);
            if presence == Presence::Absent {
                return Some(Job::Build(BuildJob { recipe, candidate }));
            }
            // Another recipe has published the same packages meanwhile.
            let key = JobKey { recipe: id, version: candidate.version };
            self.failures.remove(&key);
            if presence == Presence::Partial {
                effects.report(Notice::PartlyPublished { key });
            }
        }
        None
    }

    fn watched_recipe(&self, id: &Arc<str>) -> Option<(Arc<Recipe>, Upstream)> {
        let recipe = self.roster.get(id)?.clone();
        let upstream = recipe.upstream.clone()?;
        Some((recipe, upstream))
    }

    /// The version the builder is at.
    fn flying(&self) -> Option<JobKey> {
        self.in_flight.as_ref().and_then(|flight| flight.job.key())
    }
}

impl BuildJob {
    /// The version this builds.
    pub fn key(&self) -> JobKey {
        JobKey { recipe: Arc::from(self.recipe.id.as_str()), version: self.candidate.version.clone() }
    }
}

impl Job {
    /// The version this is about; `None` for an upload, which is about all of them.
    fn key(&self) -> Option<JobKey> {
        match self {
            Self::Build(build) => Some(build.key()),
            Self::Publish(outputs) => Some(outputs.key.clone()),
            Self::Upload => None,
        }
    }

    fn packages(&self) -> &[crate::identity::PackageName] {
        match self {
            Self::Build(build) => &build.recipe.packages,
            Self::Publish(outputs) => &outputs.packages,
            Self::Upload => &[],
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

/// The warnings of one recipe: each is given once as long as its cause lasts.
struct Warnings<'a> {
    recipe: &'a Arc<str>,
    before: HashSet<String>,
    current: HashSet<String>,
    unnamed: usize,
}

impl<'a> Warnings<'a> {
    fn new(recipe: &'a Arc<str>, before: HashSet<String>) -> Self {
        Self { recipe, before, current: HashSet::new(), unnamed: 0 }
    }

    /// Whether the operator was not yet told about `subject`.
    fn is_new(&mut self, subject: &str) -> bool {
        self.current.insert(subject.to_owned());
        !self.before.contains(subject)
    }

    fn skipped(&mut self, tag: &str, reason: String, effects: &mut Effects) {
        if self.current.len() >= NAMED_BAD_TAGS {
            self.unnamed += 1;
        } else if self.is_new(tag) {
            let (recipe, tag) = (self.recipe.clone(), tag.to_owned());
            effects.report(Notice::TagSkipped { recipe, tag, reason });
        }
    }

    /// What was warned about, for the next poll.
    fn finish(mut self, effects: &mut Effects) -> HashSet<String> {
        let count = self.unnamed;
        // No tag has this name: it contains a space.
        if count > 0 && self.is_new(&format!("{count} more")) {
            effects.report(Notice::MoreTagsSkipped { recipe: self.recipe.clone(), count });
        }
        self.current
    }
}
