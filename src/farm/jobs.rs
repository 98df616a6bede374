//! Chooses the builder's next job and records how each job ended. Pure.

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
            Job::Build(build) => self.update_holds(build, &outcome, took, now),
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
                // Somebody removed them to have the version built again.
                self.request_poll(&key.recipe);
                effects.report(Notice::OutputsGone { key });
            }
            JobOutcome::PublishFailed { reason, outputs } => {
                self.pending.retain(|pending| pending.key != key);
                self.pending.push(outputs);
                let (failures, retry_after) = self.record_failure(&key, None, &reason, log.clone(), now);
                effects.report(Notice::PublishFailed { key, failures, retry_after, log, reason });
            }
            JobOutcome::Failed { reason, .. } => {
                let candidate = match &job {
                    Job::Build(build) => Some(build.candidate.clone()),
                    Job::Publish(_) => None,
                };
                let (failures, mut retry_after) =
                    self.record_failure(&key, candidate, &reason, log.clone(), now);
                // A recipe that was dropped or changed meanwhile has nothing to retry.
                let recipe = self.roster.get(&key.recipe);
                if let Job::Build(build) = &job
                    && !recipe.is_some_and(|recipe| recipe.builds_the_same_as(&build.recipe))
                {
                    self.failures.remove(&key);
                    // The changed recipe builds its own version of the tag at once.
                    if self.request_poll(&key.recipe) {
                        retry_after = Duration::ZERO;
                    }
                }
                effects.report(Notice::BuildFailed { key, failures, retry_after, log, reason });
                effects.0.extend(held.map(Effect::Report));
            }
        }
    }

    /// Makes the next poll of the recipe's upstream due. Returns whether the recipe has one.
    fn request_poll(&mut self, recipe: &str) -> bool {
        let upstream = self.roster.get(recipe).and_then(|recipe| recipe.upstream.as_ref());
        if let Some(upstream) = upstream {
            self.schedule.make_due(&upstream.url);
        }
        upstream.is_some()
    }

    /// Records one more failure in a row of `key`, builds and publishes apart. Returns their number
    /// and the wait for the retry.
    fn record_failure(
        &mut self,
        key: &JobKey,
        candidate: Option<Candidate>,
        reason: &str,
        log: Option<Arc<str>>,
        now: Moment,
    ) -> (u32, Duration) {
        let before = self.failures.get(key);
        let before = before.filter(|failure| failure.candidate.is_some() == candidate.is_some());
        let count = 1 + before.map_or(0, |failure| failure.count);
        let wait = backoff::wait_after(count);
        let (retry_at, reason) = (now + wait, reason.to_owned());
        let failure = Failure { count, retry_at, is_backed_off: true, reason, log, candidate };
        self.failures.insert(key.clone(), failure);
        (count, wait)
    }

    /// Puts failed builds whose retry is due back into the queue. A single sweep retries nothing:
    /// slow failures would keep it from its end.
    pub(super) fn requeue_due_retries(&mut self, now: Moment) {
        if self.options.once {
            return;
        }
        for (key, failure) in &mut self.failures {
            if !failure.is_backed_off || failure.retry_at > now {
                continue;
            }
            failure.is_backed_off = false;
            if let Some(candidate) = &failure.candidate {
                self.queue.insert(&key.recipe, candidate.clone());
            }
        }
    }

    /// Gives the free builder its next job, if there is one.
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
                // Outputs without a failure in this run are an earlier run's: its attempts are not
                // counted.
                if !self.failures.contains_key(&outputs.key) {
                    self.builds_attempted += 1;
                }
                Notice::PublishStarted { key: outputs.key.clone() }
            }
        });
        effects.0.push(Effect::StartJob(job.clone()));
        self.in_flight = Some(Flight { job, started: now, log: None });
    }

    /// Returns the publish of pending outputs that are untried in this run, or whose retry is due.
    fn next_publish(&mut self, now: Moment, effects: &mut Effects) -> Option<Job> {
        while let Some(index) = self.pending.iter().position(|outputs| !self.is_backed_off(&outputs.key)) {
            let presence =
                self.archive.presence(&self.pending[index].packages, &self.pending[index].key.version);
            if presence == Presence::Absent {
                return Some(Job::Publish(self.pending[index].clone()));
            }
            let outputs = self.pending.remove(index);
            self.failures.remove(&outputs.key);
            self.drop_published(outputs, presence, now, effects);
        }
        None
    }

    /// Drops pending outputs whose packages the index has, all or some.
    pub(super) fn drop_published(
        &mut self,
        outputs: PendingOutputs,
        presence: Presence,
        now: Moment,
        effects: &mut Effects,
    ) {
        let key = outputs.key.clone();
        if presence == Presence::Partial {
            // Published packages are immutable. A person decides whether to publish the rest beside
            // them.
            effects.report(Notice::PartlyPublished { key });
            return;
        }
        // A publish that was cut short succeeded nevertheless: the remote may lack its packages.
        self.owe_upload(now);
        effects.report(Notice::AlreadyPublished { key });
        effects.0.push(Effect::DiscardOutputs(outputs));
    }

    /// Whether a version of the recipe's upstream waits to be built.
    fn waits_for_upstream(&self, recipe: &Recipe) -> bool {
        self.recipes_beside(recipe).any(|id| self.queue.has_versions_of(id))
    }

    /// Returns the recipes of the upstream `url`.
    pub(super) fn recipes_of(&self, url: &UpstreamUrl) -> impl Iterator<Item = &Arc<str>> + use<'_> {
        self.watchers.get(url).into_iter().flatten()
    }

    /// Returns the recipes of the recipe's upstream, itself included.
    fn recipes_beside(&self, recipe: &Recipe) -> impl Iterator<Item = &Arc<str>> {
        recipe.upstream.iter().flat_map(|upstream| self.recipes_of(&upstream.url))
    }

    /// Returns the next tags to build of the recipe's upstream; its recipes take turns.
    fn next_tags(&self, recipe: &Recipe) -> Vec<String> {
        let mut ids: Vec<_> = self.recipes_beside(recipe).collect();
        // `recipe` has just had its turn.
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
                // While the fetches of this upstream fail, fetch one source at a time.
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
            // Another recipe published the same packages meanwhile.
            let key = JobKey { recipe: id, version: candidate.version };
            self.failures.remove(&key);
            if presence == Presence::Partial {
                effects.report(Notice::PartlyPublished { key });
            }
        }
        None
    }
}
