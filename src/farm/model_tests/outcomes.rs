//! Ends the polls, jobs and uploads that the core started: with success or not, and when.

use std::collections::HashMap;
use std::time::Duration;

use crate::farm::events::{
    Blame, BuildJob, Event, Job, JobKey, JobOutcome, PendingOutputs, PollError, PollFault, UploadOutcome,
};
use crate::farm::model_tests::{World, below, next};
use crate::farm::tests::outputs;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::recipe::{Recipe, TagVersion};

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
        let error = PollError { reason: "no answer".into(), fault };
        self.event(Event::PollFinished { upstream, tags: if failed { Err(error) } else { Ok(tags) } });
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
            upstream.is_none_or(|upstream| {
                tags.iter()
                    .any(|tag| matches!(upstream.version_of(tag), TagVersion::Version(v) if v == key.version))
            })
        });
    }

    pub(super) fn finish_job(&mut self) {
        let Some(job) = self.job.take() else { return };
        let fails = !self.calm && self.one_in(3);
        let outcome = match (&job, fails) {
            _ if self.aborted => JobOutcome::Interrupted,
            (Job::Build(build), true) if self.one_in(2) => {
                let outputs = self.leave_pending(build);
                self.release(build);
                JobOutcome::PublishFailed { reason: "full".into(), outputs }
            }
            (Job::Build(build), true) => self.fail_build(build),
            (Job::Publish(outputs), true) if self.one_in(4) => {
                self.pending.remove(&outputs.key);
                self.not_before.remove(&outputs.key);
                JobOutcome::OutputsGone
            }
            (Job::Publish(outputs), true) => {
                JobOutcome::PublishFailed { reason: "full".into(), outputs: outputs.clone() }
            }
            (Job::Build(build), false) => {
                let key = build.key();
                self.release(build);
                self.publish(&key, &build.recipe.packages);
                JobOutcome::Done
            }
            (Job::Publish(outputs), false) => {
                self.publish(&outputs.key, &outputs.packages);
                JobOutcome::Done
            }
        };
        self.event(Event::JobFinished(outcome));
    }

    /// Fails a build: in its fetch, by its time limit or otherwise, at once or after a while.
    pub(super) fn fail_build(&mut self, build: &BuildJob) -> JobOutcome {
        let blame = match next(&mut self.random) % 4 {
            0 | 1 => Blame::Upstream,
            2 => Blame::Recipe,
            _ => Blame::Version,
        };
        let (url, id) = (build.upstream.url.to_string(), build.recipe.id.clone());
        if blame != Blame::Upstream {
            self.fresh_not_before.remove(&url);
        }
        if blame == Blame::Version {
            self.fresh_not_before.remove(&*id);
        } else if self.one_in(2) {
            let took = Duration::from_secs(10 + next(&mut self.random) % 100);
            self.now += took;
            // A recipe that was dropped meanwhile holds nothing.
            if !self.options.once && self.roster.iter().any(|recipe| recipe.id == build.recipe.id) {
                let held = if blame == Blame::Upstream { url } else { id.to_string() };
                // A retry holds shortly and never ends an earlier hold.
                let is_retry = self.farm.failures.contains_key(&build.key());
                let end = self.now + if is_retry { took / 2 } else { Duration::from_secs(30) };
                let held_until = self.fresh_not_before.entry(held).or_default();
                *held_until = end.max(*held_until);
            }
        }
        JobOutcome::Failed { reason: "no compiler, no source or no end".into(), blame }
    }

    /// Ends the holds of a build's upstream and recipe.
    pub(super) fn release(&mut self, build: &BuildJob) {
        self.fresh_not_before.remove(&build.upstream.url.to_string());
        self.fresh_not_before.remove(&*build.recipe.id);
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

    pub(super) fn leave_pending(&mut self, build: &BuildJob) -> PendingOutputs {
        let names: Vec<&str> = build.recipe.packages.iter().map(|package| package.name.as_str()).collect();
        let pending = outputs(&build.recipe.id, build.candidate.version.as_str(), &names);
        self.pending.insert(pending.key.clone());
        pending
    }

    pub(super) fn publish(&mut self, key: &JobKey, packages: &[peipkg_format::package::PackageName]) {
        for package in packages {
            self.published.insert((package.name.clone(), key.version.to_string()));
        }
        self.pending.remove(key);
        self.not_before.remove(key);
        self.owed = self.options.uploads;
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
