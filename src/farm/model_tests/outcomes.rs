//! Ends the polls, jobs and uploads that the core started: with success or not, and when.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::farm::events::{
    Blame, BuildOutcome, Event, PendingOutputs, PollError, PollFault, PublishJob, PublishOutcome,
    UploadOutcome,
};
use crate::farm::model_tests::{World, below, next};
use crate::farm::tests::outputs;
use crate::recipe::tag_reader::TagVersion;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::recipe::{Recipe, Upstream};

impl World {
    /// Returns the tags of an upstream during the calm.
    pub(super) fn all_tags() -> Vec<String> {
        ["v1", "v2", "v3", "v3.1", "v0.9", "other", "v..", "v--x"].map(str::to_owned).to_vec()
    }

    pub(super) fn finish_poll(&mut self) {
        if self.polls.is_empty() {
            return;
        }
        let upstream = self.polls.remove(below(&mut self.random, self.polls.len()));
        let mut tags = Self::all_tags();
        let failed = !self.calm && self.one_in(4);
        if !self.calm {
            tags.retain(|_| !next(&mut self.random).is_multiple_of(4));
        }
        if !failed {
            self.forget_vanished(&upstream, &tags);
        }
        let pause = Duration::from_secs(next(&mut self.random) % 4000);
        let fault = match next(&mut self.random) % 4 {
            0 => PollFault::NoAnswer,
            1 => PollFault::Other,
            2 => PollFault::Busy { pause, redirected_to: None },
            _ => PollFault::Busy { pause, redirected_to: Some("https://example.org/r1".into()) },
        };
        self.is_troubled |= failed && fault != PollFault::Other;
        let error = PollError { reason: "no answer".into(), fault };
        self.event(Event::PollFinished {
            upstream,
            tags: if failed { Err(error) } else { Ok(tags.iter().collect()) },
        });
    }

    /// Forgets the back-offs of vanished tags: one that comes back counts as new.
    pub(super) fn forget_vanished(&mut self, upstream: &UpstreamUrl, tags: &[String]) {
        let watching: HashMap<&str, &Recipe> = self
            .roster
            .iter()
            .filter(|recipe| recipe.upstream.as_ref().is_some_and(|found| found.url == *upstream))
            .map(|recipe| (&*recipe.id, recipe))
            .collect();
        self.not_before.retain(|key, _| {
            let upstream = watching.get(&*key.recipe).and_then(|recipe| recipe.upstream.as_ref());
            upstream.map(Upstream::tag_reader).is_none_or(|upstream| {
                tags.iter()
                    .any(|tag| matches!(upstream.version_of(tag), TagVersion::Version(v) if v == key.version))
            })
        });
    }

    /// Ends one of the builds in progress, some time after it was started.
    pub(super) fn finish_build(&mut self) {
        if self.builds.is_empty() {
            return;
        }
        let (build, started) = self.builds.remove(below(&mut self.random, self.builds.len()));
        self.now += Duration::from_secs([0, 5, 60, 600, 3600][below(&mut self.random, 5)]);
        let took = self.now.saturating_since(started);
        let fails = !self.calm && self.one_in(3);
        let outcome = match fails {
            _ if self.aborted => BuildOutcome::Interrupted,
            true => {
                let blame = [Blame::Upstream, Blame::Upstream, Blame::Recipe, Blame::Version]
                    [below(&mut self.random, 4)];
                BuildOutcome::Failed { reason: "no compiler, no source or no end".into(), blame }
            }
            false => {
                self.changed_during.remove(&build.key());
                let names: Vec<&str> = build.recipe.packages.iter().map(|p| p.name.as_str()).collect();
                let pending = outputs(&build.recipe.id, build.candidate.version.as_str(), &names);
                self.pending.insert(pending.key.clone());
                BuildOutcome::Built { outputs: pending, log: None }
            }
        };
        let mut others = BTreeSet::new();
        if matches!(outcome, BuildOutcome::Failed { blame: Blame::Upstream, .. })
            && took >= Duration::from_secs(10)
        {
            let waiting = self.waiting();
            others.extend(
                self.watched()
                    .iter()
                    .filter(|(recipe, url)| **url == build.upstream.url && waiting.contains_key(&recipe.id))
                    .map(|(recipe, _)| recipe.id.clone())
                    .filter(|id| *id != build.recipe.id),
            );
        }
        self.oracle.on_build_ended(&build.recipe.id, took, &others);
        self.event(Event::BuildFinished { key: build.key(), outcome });
    }

    pub(super) fn finish_publish(&mut self) {
        let Some(group) = self.publish.take() else { return };
        let fails = !self.calm && self.one_in(3);
        let outcome = match fails {
            _ if self.aborted => PublishOutcome::Interrupted,
            true if self.one_in(4) => {
                let gone: Vec<_> = group
                    .iter()
                    .take(1 + below(&mut self.random, group.len()))
                    .map(|job| &job.outputs)
                    .collect();
                for outputs in &gone {
                    self.pending.remove(&outputs.key);
                    self.not_before.remove(&outputs.key);
                    self.refused.remove(&outputs.key);
                    // An attempt to publish outputs that were removed is not counted.
                    self.attempts.remove(&(true, outputs.key.clone()));
                }
                PublishOutcome::Gone(gone.iter().map(|outputs| outputs.directory.clone()).collect())
            }
            true => {
                if let [job] = &group[..] {
                    self.refused.insert(job.outputs.key.clone());
                }
                PublishOutcome::Failed { reason: "full".into() }
            }
            false => {
                for PublishJob { outputs: PendingOutputs { key, packages, .. }, .. } in &group {
                    for package in packages {
                        self.published.insert((package.name.clone(), key.version.to_string()));
                    }
                    self.pending.remove(key);
                    self.not_before.remove(key);
                    self.refused.remove(key);
                }
                self.owed = self.options.uploads;
                self.is_untried = self.options.uploads;
                PublishOutcome::Done
            }
        };
        self.event(Event::PublishFinished(outcome));
    }

    pub(super) fn finish_upload(&mut self) {
        if !std::mem::take(&mut self.uploading) {
            return;
        }
        let fails = !self.calm && self.one_in(3);
        self.owed |= fails && !self.aborted;
        self.event(Event::UploadFinished(match (self.aborted, fails) {
            (true, _) => UploadOutcome::Interrupted,
            (false, true) => UploadOutcome::Failed { reason: "offline".into() },
            (false, false) => UploadOutcome::Done,
        }));
    }

    /// Lets the farm sleep until its deadline, or for a part of that time.
    pub(super) fn sleep(&mut self) {
        let Some(deadline) = self.farm.next_deadline() else { return };
        if !self.calm && self.one_in(4) {
            self.now += deadline.saturating_since(self.now) / 2;
            return;
        }
        self.now = deadline.max(self.now);
        self.event(Event::DeadlineReached);
    }
}
