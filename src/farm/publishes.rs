//! Starts publishes, and records how each ended. Pure.

use peipkg_format::archive_index::Presence;

use crate::farm::events::{Effect, JobKey, Notice, PendingOutputs, PublishJob, PublishOutcome, Warning};
use crate::farm::moment::Moment;
use crate::farm::publishing::Running;
use crate::farm::{Effects, Farm};

impl Farm {
    pub(super) fn on_outputs_found(
        &mut self,
        found: Vec<PendingOutputs>,
        now: Moment,
        effects: &mut Effects,
    ) {
        for outputs in found {
            match self.archive.presence(&outputs.packages, &outputs.key.version) {
                Presence::Absent => {
                    self.builds_attempted += 1;
                    self.publishing.add_found(outputs);
                }
                presence => self.drop_published(outputs, presence, now, effects),
            }
        }
    }

    /// Starts the next publish. A drain publishes what it has built, and does not repeat failures.
    pub(super) fn start_publish(&mut self, now: Moment, effects: &mut Effects) {
        if self.is_aborted() || self.publishing.rests(now, !self.flights.is_empty()) {
            return;
        }
        let (failures, is_draining) = (&self.failures, self.stopping.is_some());
        let may_try_alone = |key: &JobKey| !is_draining || failures.get(key).is_none();
        let mut published = Vec::new();
        let group = self.publishing.start(&self.archive, now, may_try_alone, |outputs, presence| {
            published.push((outputs, presence));
        });
        if !published.is_empty() {
            for (outputs, presence) in published {
                self.failures.remove(&outputs.key);
                self.drop_published(outputs, presence, now, effects);
            }
            self.requeue_aside();
            self.start_builds(now, effects);
        }
        let Some(group) = group else { return };
        for job in group.iter().filter(|job| !job.is_new) {
            effects.report(Notice::PublishStarted { key: job.outputs.key.clone() });
        }
        effects.0.push(Effect::StartPublish(group));
    }

    pub(super) fn on_publish_finished(
        &mut self,
        outcome: PublishOutcome,
        now: Moment,
        effects: &mut Effects,
    ) {
        let Some(running) = self.publishing.end(now) else { return };
        match outcome {
            PublishOutcome::Done => self.on_published(running, now, effects),
            PublishOutcome::Failed { reason } => self.on_publish_failed(running, reason, now, effects),
            PublishOutcome::Gone(directories) => self.on_outputs_gone(running, &directories, effects),
            PublishOutcome::Interrupted => {
                for PublishJob { outputs: PendingOutputs { key, directory, .. }, .. } in running.versions {
                    self.publishing.put_back(directory);
                    effects.report(Notice::BuildInterrupted { key });
                }
            }
        }
    }

    fn on_published(&mut self, running: Running, now: Moment, effects: &mut Effects) {
        self.publishing.rest_after(&running, now);
        for PublishJob { outputs, .. } in running.versions {
            self.remember_commit(&outputs);
            let PendingOutputs { key, directory, packages, .. } = outputs;
            let build_started = self.publishing.finish(&directory);
            self.failures.remove(&key);
            self.archive.insert(&packages, &key.version);
            self.builds_succeeded += 1;
            self.tally.last_success = Some(now);
            self.matched.publish(&key);
            let took = now.saturating_since(build_started.unwrap_or(running.started));
            if self.roster.contains_key(&key.recipe) {
                self.successes.insert(key.recipe.clone(), (now, took));
            }
            effects.report(Notice::BuildComplete { key, took });
        }
        self.requeue_aside();
        self.owe_upload(now);
    }

    /// Warns of a version without files whose recipe wants some: its build script most likely ignores
    /// `DESTDIR`. A recipe may also make packages of metadata alone.
    pub(super) fn on_no_files_published(&mut self, key: JobKey, effects: &mut Effects) {
        if !self.roster.get(&key.recipe).is_some_and(|recipe| recipe.claims_files) {
            return;
        }
        let event = "published packages have no files";
        let detail = "build.sh has most likely not installed below DESTDIR".to_owned();
        let warning = Warning { event, subject: key.version.to_string(), detail };
        self.add_build_warning(&key.recipe, warning);
        effects.report(Notice::NoFilesPublished { key });
    }

    /// Tries each version of a refused group alone at once, and a version that was alone later.
    fn on_publish_failed(&mut self, running: Running, reason: String, now: Moment, effects: &mut Effects) {
        if let [PublishJob { outputs: PendingOutputs { key, directory, .. }, log, .. }] =
            &running.versions[..]
        {
            self.publishing.fail(directory);
            let (key, log) = (key.clone(), log.clone());
            let (failures, retry_after) = self.failures.record(&key, None, reason.clone(), log.clone(), now);
            self.tally.publishes_failed += 1;
            let retry_after = self.promised(retry_after);
            effects.report(Notice::PublishFailed { key, failures, retry_after, log, reason });
            return;
        }
        effects.report(Notice::GroupRefused { versions: running.versions.len(), reason });
        for job in running.versions {
            self.publishing.suspect(job.outputs.directory);
        }
    }

    /// Polls again for the versions whose outputs are gone, to have them built again. The other versions
    /// of their publish wait for the next one.
    fn on_outputs_gone(&mut self, running: Running, directories: &[String], effects: &mut Effects) {
        for PublishJob { outputs: PendingOutputs { key, directory, .. }, .. } in running.versions {
            if directories.contains(&directory) {
                self.publishing.finish(&directory);
                self.failures.remove(&key);
                self.request_poll(&key.recipe);
                effects.report(Notice::OutputsGone { key });
            } else {
                self.publishing.put_back(directory);
            }
        }
        self.requeue_aside();
    }

    /// Drops pending outputs whose packages the index has, all or some.
    fn drop_published(
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
            self.warn_partly_published(key, effects);
            return;
        }
        self.remember_commit(&outputs);
        // A publish that was cut short succeeded nevertheless: the remote may lack its packages.
        self.owe_upload(now);
        effects.report(Notice::AlreadyPublished { key });
        effects.0.push(Effect::DiscardOutputs(outputs));
    }
}
