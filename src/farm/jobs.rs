//! What the builder does next, and what follows from how it ended. Pure.

use std::sync::Arc;
use std::time::Duration;

use peipkg_format::archive_index::Presence;

use crate::farm::events::{BuildJob, Effect, FETCH_AHEAD, Job, JobKey, JobOutcome, Notice, PendingOutputs};
use crate::farm::moment::Moment;
use crate::farm::queue::Candidate;
use crate::farm::{Effects, Failure, Farm, Flight, backoff};
use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;

impl Farm {
    pub(super) fn on_job_finished(&mut self, outcome: JobOutcome, now: Moment, effects: &mut Effects) {
        let Some(Flight { job, started, log }) = self.in_flight.take() else { return };
        let took = now.saturating_since(started);
        let key = job.key();
        let held = match &job {
            Job::Build(build) => self.learn_of_build(build, &outcome, took, now),
            Job::Publish(_) => None,
        };
        match outcome {
            JobOutcome::Done => {
                self.failures.remove(&key);
                self.pending.retain(|outputs| outputs.key != key);
                self.archive.insert(job.packages(), &key.version);
                self.builds_succeeded += 1;
                self.owe_upload(now);
                effects.report(Notice::BuildComplete { key, took });
            }
            JobOutcome::Interrupted => effects.report(Notice::JobInterrupted { key }),
            JobOutcome::OutputsGone => {
                self.pending.retain(|outputs| outputs.key != key);
                self.failures.remove(&key);
                // Whoever has taken them away wants the version to be built anew.
                self.poll_again(&key.recipe);
                effects.report(Notice::OutputsGone { key });
            }
            JobOutcome::PublishFailed { reason, outputs } => {
                self.pending.retain(|pending| pending.key != key);
                self.pending.push(outputs);
                let (failures, retry_after) = self.note_failure(&key, None, &reason, log.clone(), now);
                effects.report(Notice::PublishFailed { key, failures, retry_after, log, reason });
            }
            JobOutcome::Failed { reason, .. } => {
                let candidate = match &job {
                    Job::Build(build) => Some(build.candidate.clone()),
                    Job::Publish(_) => None,
                };
                let (failures, mut retry_after) =
                    self.note_failure(&key, candidate, &reason, log.clone(), now);
                // Its recipe may have been dropped or changed meanwhile: then there is nothing to retry.
                let recipe = self.roster.get(&key.recipe);
                if let Job::Build(build) = &job
                    && !recipe.is_some_and(|recipe| recipe.builds_the_same_as(&build.recipe))
                {
                    self.failures.remove(&key);
                    // But what the new recipe makes of the tag is tried at once.
                    if self.poll_again(&key.recipe) {
                        retry_after = Duration::ZERO;
                    }
                }
                effects.report(Notice::BuildFailed { key, failures, retry_after, log, reason });
                effects.0.extend(held.map(Effect::Report));
            }
        }
    }

    /// Has the upstream of a recipe polled at once; whether there is one.
    fn poll_again(&mut self, recipe: &str) -> bool {
        let upstream = self.roster.get(recipe).and_then(|recipe| recipe.upstream.as_ref());
        if let Some(upstream) = upstream {
            self.schedule.expedite(&upstream.url);
        }
        upstream.is_some()
    }

    fn note_failure(
        &mut self,
        key: &JobKey,
        candidate: Option<Candidate>,
        reason: &str,
        log: Option<Arc<str>>,
        now: Moment,
    ) -> (u32, Duration) {
        let count = 1 + self.failures.get(key).map_or(0, |failure| failure.count);
        let wait = backoff::wait_after(count);
        let (retry_at, reason) = (now + wait, reason.to_owned());
        let failure = Failure { count, retry_at, waiting: true, reason, log, candidate };
        self.failures.insert(key.clone(), failure);
        (count, wait)
    }

    /// Moves failed builds whose time has come back into the queue.
    pub(super) fn requeue_due_retries(&mut self, now: Moment) {
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

    /// Gives the builder its next job, if it is free and there is one.
    pub(super) fn start_job(&mut self, now: Moment, effects: &mut Effects) {
        if self.in_flight.is_some() || self.stopping.is_some() {
            return;
        }
        let job = self.next_publish(now, effects).or_else(|| self.next_build(effects));
        let Some(job) = job else { return };
        effects.report(match &job {
            Job::Build(build) => {
                self.builds_attempted += 1;
                Notice::BuildStarted { key: build.key(), tag: build.candidate.tag.clone() }
            }
            Job::Publish(outputs) => {
                // Outputs that never failed here were built by an earlier run.
                if !self.failures.contains_key(&outputs.key) {
                    self.builds_attempted += 1;
                }
                Notice::PublishStarted { key: outputs.key.clone() }
            }
        });
        effects.0.push(Effect::StartJob(job.clone()));
        self.in_flight = Some(Flight { job, started: now, log: None });
    }

    /// Outputs that were never tried in this run, or whose retry is due.
    fn next_publish(&mut self, now: Moment, effects: &mut Effects) -> Option<Job> {
        let waits = |farm: &Self, outputs: &PendingOutputs| {
            farm.failures.get(&outputs.key).is_some_and(|failure| failure.waiting)
        };
        while let Some(index) = self.pending.iter().position(|outputs| !waits(self, outputs)) {
            let presence =
                self.archive.presence(&self.pending[index].packages, &self.pending[index].key.version);
            if presence == Presence::Absent {
                return Some(Job::Publish(self.pending[index].clone()));
            }
            let outputs = self.pending.remove(index);
            self.failures.remove(&outputs.key);
            self.dismiss_published(outputs, presence, now, effects);
        }
        None
    }

    /// Dismisses pending outputs of which the index has all packages, or some.
    pub(super) fn dismiss_published(
        &mut self,
        outputs: PendingOutputs,
        presence: Presence,
        now: Moment,
        effects: &mut Effects,
    ) {
        let key = outputs.key.clone();
        if presence == Presence::Partial {
            // What is published stays as it is: to publish the others beside it is for a person to decide.
            effects.report(Notice::PartlyPublished { key });
            return;
        }
        // A publish that was cut short has succeeded all the same, and the remote may not have heard of it.
        self.owe_upload(now);
        effects.report(Notice::AlreadyPublished { key });
        effects.0.push(Effect::DiscardOutputs(outputs));
    }

    /// Whether a version of the upstream of `recipe` waits to be built.
    fn waits_for_upstream(&self, recipe: &Recipe) -> bool {
        self.recipes_beside(recipe).any(|id| self.queue.has(id))
    }

    /// The recipes of the upstream with that URL.
    pub(super) fn recipes_of(&self, url: &UpstreamUrl) -> impl Iterator<Item = &Arc<str>> + use<'_> {
        self.watchers.get(url).into_iter().flatten()
    }

    /// The recipes of the upstream of `recipe`, itself included.
    fn recipes_beside(&self, recipe: &Recipe) -> impl Iterator<Item = &Arc<str>> {
        recipe.upstream.iter().flat_map(|upstream| self.recipes_of(&upstream.url))
    }

    /// The tags of the upstream of `recipe` that are built next: those of its recipes take turns.
    fn next_tags(&self, recipe: &Recipe) -> Vec<String> {
        let mut ids: Vec<_> = self.recipes_beside(recipe).collect();
        // It has just had its turn.
        let next = ids.iter().position(|id| **id == recipe.id).map_or(0, |own| own + 1);
        ids.rotate_left(next);
        let mut lanes: Vec<_> = ids.into_iter().map(|id| self.queue.tags_of(id)).collect();
        let mut tags: Vec<String> = Vec::new();
        while tags.len() < FETCH_AHEAD && !lanes.is_empty() {
            lanes.retain_mut(|lane| {
                lane.next().is_some_and(|tag| {
                    // Recipes may build the same tag.
                    if !tags.contains(tag) {
                        tags.push(tag.clone());
                    }
                    true
                })
            });
        }
        tags.truncate(FETCH_AHEAD);
        tags
    }

    fn pop_queue(&mut self) -> Option<(Arc<str>, Candidate, bool)> {
        let mut queue = std::mem::take(&mut self.queue);
        let next = queue.pop(|recipe, candidate| self.may_build(recipe, candidate));
        self.queue = queue;
        next
    }

    fn next_build(&mut self, effects: &mut Effects) -> Option<Job> {
        while let Some((id, candidate, urgent)) = self.pop_queue() {
            let Some((recipe, upstream)) = self.watched_recipe(&id) else { continue };
            let presence = self.archive.presence(&recipe.packages, &candidate.version);
            if presence == Presence::Absent {
                let more_of_upstream = self.waits_for_upstream(&recipe);
                // What could not be fetched alone is not asked for with others.
                let next_tags = if self.is_upstream_held(&id) { Vec::new() } else { self.next_tags(&recipe) };
                return Some(Job::Build(BuildJob {
                    recipe,
                    upstream,
                    candidate,
                    urgent,
                    next_tags,
                    more_of_upstream,
                }));
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
}
