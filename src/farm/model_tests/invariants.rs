//! The invariants of all random cases.

use crate::farm::events::{BuildJob, Event, JobKey, PublishJob};
use crate::farm::model_tests::World;
use crate::recipe::tag_reader::TagVersion;

impl World {
    pub(super) fn start_build(&mut self, build: BuildJob) {
        let key = build.key();
        self.check(self.builds.len() < self.options.build_jobs, "more builds than builders");
        self.check(!self.stopped, "a build after the stop");
        self.check(!self.paused && !build.recipe.is_paused(), "a build in spite of a pause");
        self.check(!self.pending.contains(&key), "a version is built that is built already");
        let version = build.candidate.version.as_str();
        let absent = !build.recipe.packages.iter().any(|p| self.is_published(&p.name, version));
        self.check(absent, "a version is built that is published");
        let is_known = self.roster.iter().any(|recipe| recipe.id == build.recipe.id);
        self.check(is_known, "a dropped recipe is built");
        self.check(self.not_before.get(&key).is_none_or(|at| *at <= self.now), "a retry before its time");
        let is_first = self.attempts.insert((true, key));
        self.check(is_first || !self.options.once, "a second attempt in one sweep");
        self.builds.push((build, self.now));
    }

    pub(super) fn start_publish(&mut self, group: Vec<PublishJob>) {
        self.check(self.publish.is_none(), "two publishes at a time");
        self.check(!self.aborted, "a publish after the abort");
        for job in &group {
            let key = &job.outputs.key;
            self.check(self.pending.contains(key), "a publish of what is not there");
            let is_bad = self.refused.contains(key);
            self.check(!is_bad || group.len() == 1, "a version that was refused is not alone");
            self.check(!is_bad || !self.stopped, "a drain repeats a failure");
            self.check(!is_bad || !self.options.once, "a sweep repeats a failure");
            let is_due = self.not_before.get(key).is_none_or(|at| *at <= self.now);
            self.check(is_due, "a publish is repeated before its time");
        }
        self.publish = Some(group);
    }

    /// Sends a webhook of some upstreams. While a worker is free and no host made trouble, each is
    /// listed at once.
    pub(super) fn hook(&mut self) {
        let mut repositories = super::UPSTREAMS.map(super::webhook_name).to_vec();
        repositories.retain(|_| super::next(&mut self.random).is_multiple_of(2));
        let wanted: Vec<_> = self
            .watched()
            .iter()
            .filter(|(recipe, url)| recipe.github_webhook && repositories.contains(&url.repository()))
            .map(|(_, url)| (*url).clone())
            .collect();
        self.event(Event::WebhookReceived { repositories });
        if self.is_troubled || self.stopped || self.polls.len() == self.options.poll_jobs {
            return;
        }
        for url in wanted {
            let of_host =
                self.polls.iter().filter(|other| other.host().is_some() && other.host() == url.host());
            let within_a_second = self.now + std::time::Duration::from_secs(1);
            let is_soon = self.farm.next_deadline().is_some_and(|deadline| deadline <= within_a_second);
            let is_listed = self.polls.contains(&url) || of_host.count() == 4 || is_soon;
            self.check(is_listed, &format!("{url} is not listed for its webhook"));
        }
    }

    /// Checks what must hold after each step.
    pub(super) fn check_rest(&self) {
        let works = !self.builds.is_empty() || self.publish.is_some() || self.uploading;
        if self.farm.outcome(self.now).is_some() {
            return self.check(!works, "the farm is over while somebody works");
        }
        let has_free_builder = self.builds.len() < self.options.build_jobs && !self.stopped && !self.paused;
        let mut waiting = self.farm.queue.iter();
        let may_build = waiting.any(|(recipe, ..)| {
            let url = self.roster.iter().find(|other| other.id == *recipe).and_then(|r| r.upstream.as_ref());
            !self
                .builds
                .iter()
                .any(|(build, _)| Some(&build.upstream.url) == url.map(|upstream| &upstream.url))
        });
        self.check(!(has_free_builder && may_build), "a builder has nothing to do");
        let rests = self.farm.publishing.rests_until().is_some();
        self.check(!rests || !self.builds.is_empty(), "the publisher rests, and no build runs");
        let may_publish = self.publish.is_none() && !self.aborted && !rests;
        self.check(!may_publish || self.farm.publishing.ready_len() == 0, "the publisher has nothing to do");
        self.check(self.farm.queue.len() == self.farm.queue.iter().count(), "the queue counts wrongly");
        let deadline = self.farm.next_deadline();
        self.check(deadline.is_none_or(|deadline| deadline > self.now), "the farm does not sleep");
        let waits = deadline.is_some() || !self.polls.is_empty() || works;
        self.check(waits || self.watched().is_empty(), "the farm waits for nothing");
    }

    /// Checks what must hold after the calm: every version is built, published and uploaded.
    pub(super) fn check_complete(&self) {
        for (recipe, _) in self.watched() {
            let upstream = recipe.upstream.as_ref().expect("a watched recipe").tag_reader();
            for tag in Self::all_tags() {
                let TagVersion::Version(version) = upstream.version_of(&tag) else { continue };
                let any = recipe.packages.iter().any(|p| self.is_published(&p.name, version.as_str()));
                self.check(any, &format!("{}@{version} was never built", recipe.id));
            }
        }
        self.check(
            self.pending.iter().all(|key| self.is_partly_published(key)),
            "built, and never published",
        );
        self.check(!self.owed, "an upload is still owed");
    }

    /// Checks what must hold at the end of a sweep or a drain: nothing that was finished is
    /// unpublished without an attempt, and an upload was tried after the last publish.
    pub(super) fn check_end(&self) {
        self.check(self.farm.outcome(self.now).is_some(), "it does not end");
        if self.aborted {
            return;
        }
        let mut pending = self.pending.iter();
        let is_tried = pending.all(|key| self.refused.contains(key) || self.is_partly_published(key));
        self.check(is_tried, "built, and no publish tried");
        self.check(!self.is_untried, "published, and no upload tried");
    }

    /// Checks that nothing is left of recipes that are gone.
    pub(super) fn check_forgotten(&mut self) {
        self.roster.clear();
        self.tell_roster();
        while !self.polls.is_empty() {
            self.finish_poll();
        }
        let farm = &self.farm;
        let is_empty = farm.failures.is_empty()
            && farm.queue.is_forgotten()
            && farm.matched.is_empty()
            && farm.watchers.is_empty()
            && farm.hooks.knows_no_upstream()
            && farm.warned.values().all(|warned| warned.keys().all(|(_, subject)| subject.ends_with("-1")))
            && farm.build_warnings.is_empty()
            && farm.successes.is_empty()
            && farm.changed.is_empty();
        self.check(is_empty, "something is left of a recipe that is gone");
    }

    /// Whether a pending version is partly published: only a person can resolve that.
    fn is_partly_published(&self, key: &JobKey) -> bool {
        ["p0", "p1", "p2", "p3"].iter().any(|package| self.is_published(package, key.version.as_str()))
    }
}
