//! Chooses what the builders do next, and records how each build ended. Pure.

use std::sync::Arc;
use std::time::Duration;

use peipkg_format::archive_index::Presence;

use crate::farm::events::{
    Blame, BuildJob, BuildOutcome, Effect, FETCH_AHEAD, JobKey, Notice, PendingOutputs,
};
use crate::farm::flight::Flight;
use crate::farm::moment::Moment;
use crate::farm::queue::Candidate;
use crate::farm::{Effects, Farm};
use crate::recipe::Recipe;
use crate::recipe::upstream_url::UpstreamUrl;

/// The shortest attempt that counts as hung when its fetch fails. A quicker failure costs the other
/// recipes nothing.
const HUNG: Duration = Duration::from_secs(10);

/// The builder time that hung fetches of one upstream, or timed-out builds of one recipe, may take in
/// a single sweep. A sweep polls only once, so until its end it sees no release of any recipe.
const SWEEP_PATIENCE: Duration = Duration::from_mins(10);

impl Farm {
    pub(super) fn on_build_finished(
        &mut self,
        key: JobKey,
        outcome: BuildOutcome,
        now: Moment,
        effects: &mut Effects,
    ) {
        let Some(place) = self.flights.iter().position(|flight| flight.job.key() == key) else { return };
        let Flight { job, started, log, log_tail } = self.flights.remove(place);
        let took = now.saturating_since(started);
        self.queue.on_build_ended(&key.recipe, took);
        let is_built = matches!(outcome, BuildOutcome::Built { .. });
        if !is_built {
            self.publishing.unclaim(&job.recipe.packages, &key.version);
        }
        match outcome {
            BuildOutcome::Built { outputs, log } => self.on_built(outputs, log, started),
            BuildOutcome::Interrupted => effects.report(Notice::BuildInterrupted { key }),
            BuildOutcome::NoCommit(found) => {
                self.failures.remove(&key);
                self.warn_skipped(&key.recipe, &found, effects);
                // Another tag may stand for the same version.
                self.matched.forget(&key.recipe);
                self.on_no_commits_found(vec![found]);
            }
            BuildOutcome::RecipeChanged => self.on_recipe_changed(key, &job.recipe, effects),
            BuildOutcome::Failed { reason, blame } => {
                // A poll may have learnt another tag of the version meanwhile.
                let before = self.failures.get(&key).and_then(|failure| failure.candidate.clone());
                let candidate = before.unwrap_or_else(|| job.candidate.clone());
                let commit_of = |candidate: &Candidate| candidate.listed.map(|listed| listed.commit());
                let has_moved = commit_of(&candidate) != commit_of(&job.candidate);
                let (failures, mut retry_after) =
                    self.failures.record(&key, Some(candidate), reason.clone(), log.clone(), now);
                self.failures.set_log_tail(&key, log_tail);
                // Its tag may have vanished during the build: the next poll must find out.
                self.matched.forget(&key.recipe);
                let recipe = self.roster.get(&key.recipe);
                if !recipe.is_some_and(|recipe| recipe.builds_the_same_as(&job.recipe)) {
                    // A recipe that was dropped or changed meanwhile has nothing to retry.
                    self.failures.remove(&key);
                    // The changed recipe builds its own version of the tag at once.
                    if self.request_poll(&key.recipe) {
                        retry_after = Duration::ZERO;
                    }
                } else if !self.options.once
                    && (has_moved || recipe.is_some_and(|recipe| recipe.stamp != job.recipe.stamp))
                {
                    // The operator changed the recipe during the build, or the upstream moved the tag.
                    self.failures.retry_at_once(&key, now);
                    retry_after = Duration::ZERO;
                }
                self.tally.builds_failed += 1;
                let retry_after = self.promised(retry_after);
                effects.report(Notice::BuildFailed { key, failures, retry_after, log, reason });
                self.on_failed_slowly(&job, blame, took, effects);
            }
        }
        if !is_built {
            self.requeue_aside();
        }
    }

    /// Hands the outputs of a build to the publisher.
    fn on_built(&mut self, outputs: PendingOutputs, log: Option<Arc<str>>, started: Moment) {
        // Failures of earlier builds say nothing about the publish.
        self.failures.remove(&outputs.key);
        self.tally.built += 1;
        self.publishing.add_built(outputs, log, started);
    }

    /// Leaves a recipe alone until the next reload: its files on disk are not what the farm has
    /// decided to build. If a reload has overtaken the build, the recipe is built as it is now.
    fn on_recipe_changed(&mut self, key: JobKey, built: &Recipe, effects: &mut Effects) {
        let recipe = &built.id;
        let Some(current) = self.roster.get(recipe) else { return };
        if current.stamp != built.stamp {
            self.request_poll(recipe);
        } else if self.changed.insert(recipe.clone()) {
            self.queue.clear(recipe);
            self.matched.lose(recipe);
            effects.report(Notice::RecipeChanged { key });
        }
    }

    /// Lets the versions wait again whose packages another recipe was about to make.
    pub(super) fn requeue_aside(&mut self) {
        for (key, candidate) in std::mem::take(&mut self.aside) {
            // The reload for which a held recipe waits finds its versions again.
            if !self.is_held(&key.recipe) {
                self.queue.insert(&key.recipe, candidate);
            }
        }
    }

    /// Shares the cost of a hung fetch among the recipes of the upstream, so that a dead upstream with
    /// many recipes counts once. Ends the urgency of versions that are likely to hang too, and in a
    /// single sweep leaves them out once they have cost too much.
    fn on_failed_slowly(&mut self, build: &BuildJob, blame: Blame, took: Duration, effects: &mut Effects) {
        let (url, id) = (&build.upstream.url, &build.recipe.id);
        let alike: Vec<Arc<str>> = match blame {
            _ if took < HUNG => return,
            Blame::Version => return,
            Blame::Recipe => vec![id.clone()],
            Blame::Upstream => self.recipes_of(url).cloned().collect(),
        };
        for recipe in &alike {
            if blame == Blame::Upstream && recipe != id {
                self.queue.charge(recipe, took);
            }
            if build.urgent {
                self.queue.clear_urgency(recipe);
            }
        }
        if !self.options.once {
            return;
        }
        let lost = if blame == Blame::Upstream {
            self.lost.upstreams.entry(url.clone()).or_default()
        } else {
            self.lost.recipes.entry(id.clone()).or_default()
        };
        *lost = lost.saturating_add(took);
        if *lost < SWEEP_PATIENCE {
            return;
        }
        let versions = alike.iter().map(|recipe| self.queue.clear(recipe)).sum();
        if versions > 0 {
            effects.report(match blame {
                Blame::Upstream => Notice::UpstreamLeftOut { upstream: url.clone(), versions },
                _ => Notice::RecipeLeftOut { recipe: id.clone(), versions },
            });
        }
    }

    /// Makes the next poll of the recipe's upstream due, and matches all of its tags. Returns whether
    /// the recipe has an upstream.
    pub(super) fn request_poll(&mut self, recipe: &Arc<str>) -> bool {
        self.matched.forget(recipe);
        let upstream = self.roster.get(recipe).and_then(|recipe| recipe.upstream.as_ref());
        if let Some(upstream) = upstream {
            self.schedule.make_due(&upstream.url);
        }
        upstream.is_some()
    }

    /// Returns the wait for a retry, unless the farm ends before: a sweep tries once.
    pub(super) fn promised(&self, retry_after: Duration) -> Option<Duration> {
        (!self.options.once).then_some(retry_after)
    }

    /// Makes the versions whose retry is due wait for their turn. A single sweep retries nothing:
    /// slow failures would keep it from its end.
    pub(super) fn requeue_due_retries(&mut self, now: Moment) {
        if self.options.once {
            return;
        }
        while let Some((key, candidate)) = self.failures.pop_due(now) {
            match candidate {
                // The reload for which a held recipe waits finds its versions again.
                Some(_) if self.is_held(&key.recipe) => self.matched.forget(&key.recipe),
                Some(candidate) => self.queue.insert_retry(&key.recipe, candidate),
                None => self.publishing.retry(&key),
            }
        }
    }

    /// Gives each free builder its next version, if there is one.
    pub(super) fn start_builds(&mut self, now: Moment, effects: &mut Effects) {
        let may_start = self.stopping.is_none() && self.paused_since.is_none();
        while may_start && self.flights.len() < self.options.build_jobs {
            let Some(job) = self.next_build(effects) else { return };
            self.builds_attempted += 1;
            self.queue.on_build_started(&job.recipe.id);
            self.end_build_warnings(&job.recipe.id, &job.candidate.version);
            self.publishing.claim(&job.recipe.packages, &job.candidate.version);
            effects.report(Notice::BuildStarted { key: job.key(), tag: job.candidate.tag.to_string() });
            effects.0.push(Effect::StartBuild(job.clone()));
            self.flights.push(Flight { job, started: now, log: None, log_tail: Vec::new() });
        }
    }

    fn next_build(&mut self, effects: &mut Effects) -> Option<BuildJob> {
        loop {
            // One build of an upstream at a time: two builders would fetch the same repository twice.
            let (flights, roster) = (&self.flights, &self.roster);
            let is_free = |id: &Arc<str>| {
                let url = roster.get(id).and_then(|recipe| Some(&recipe.upstream.as_ref()?.url));
                !flights.iter().any(|flight| Some(&flight.job.upstream.url) == url)
            };
            let (id, candidate, urgent) = self.queue.pop(is_free)?;
            let Some((recipe, upstream)) = self.watched_recipe(&id) else { continue };
            match self.archive.presence(&recipe.packages, &candidate.version) {
                Presence::Absent if self.publishing.is_claimed(&recipe.packages, &candidate.version) => {
                    // Another recipe makes the same packages. Its end decides.
                    self.aside.insert(JobKey { recipe: id, version: candidate.version.clone() }, candidate);
                }
                Presence::Absent => {
                    let next_tags = self.next_tags(&recipe);
                    return Some(BuildJob { recipe, upstream, candidate, urgent, next_tags });
                }
                presence => {
                    // Another recipe published the same packages meanwhile.
                    let key = JobKey { recipe: id, version: candidate.version };
                    self.failures.remove(&key);
                    if presence == Presence::Partial {
                        self.warn_partly_published(key, effects);
                    } else {
                        self.matched.publish(&key);
                    }
                }
            }
        }
    }

    /// Returns the recipes of the upstream `url`.
    pub(super) fn recipes_of(&self, url: &UpstreamUrl) -> impl Iterator<Item = &Arc<str>> + use<'_> {
        let watchers = &**self.watchers;
        let first = watchers.partition_point(|(other, _)| other < url);
        let end = first + watchers[first..].iter().take_while(|(other, _)| other == url).count();
        watchers[first..end].iter().map(|(_, id)| id)
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
                    if !tags.iter().any(|other| other == tag) {
                        tags.push(tag.to_owned());
                    }
                    true
                })
            });
        }
        tags.truncate(FETCH_AHEAD);
        tags
    }
}
