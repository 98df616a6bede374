//! The invariants of all random cases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::farm::events::{BuildJob, JobKey};
use crate::farm::model_tests::World;
use crate::farm::queue::Candidate;
use crate::recipe::TagVersion;

impl World {
    /// Returns the versions of each recipe that wait in the queue.
    pub(super) fn waiting(&self) -> BTreeMap<Arc<str>, BTreeSet<String>> {
        let mut waiting: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (recipe, candidate, _) in self.farm.queue.iter() {
            waiting.entry(recipe.clone()).or_default().insert(candidate.version.to_string());
        }
        waiting
    }

    /// Checks that no recipe is built twice while another one waits for its turn.
    pub(super) fn check_turns(
        &mut self,
        before: &BTreeMap<Arc<str>, BTreeSet<String>>,
        started: Option<Arc<str>>,
        may_be_urgent: bool,
    ) {
        let waiting = self.waiting();
        // A recipe that lacks one of its versions has had a turn.
        let still_waits = |recipe: &Arc<str>| {
            let waited = before.get(recipe);
            waiting.get(recipe).is_some_and(|left| waited.is_none_or(|waited| waited.is_subset(left)))
        };
        self.built_before.retain(|recipe, _| still_waits(recipe));
        let Some(built) = started else { return };
        self.built_before.remove(&built);
        if may_be_urgent {
            return;
        }
        // A held recipe has no turn.
        self.built_before.retain(|recipe, _| !self.farm.is_held(recipe));
        let has_turn = |recipe: &&Arc<str>| still_waits(recipe) && !self.farm.is_held(recipe);
        for recipe in waiting.keys().filter(has_turn).filter(|recipe| **recipe != built) {
            let is_first = self.built_before.entry(recipe.clone()).or_default().insert(built.clone());
            self.check(is_first, &format!("{built} is built twice while {recipe} waits"));
        }
    }

    /// Checks that no untried version is built while its upstream or its recipe is held.
    pub(super) fn check_hold(&self, build: &BuildJob) {
        let may = |name: &str| self.fresh_not_before.get(name).is_none_or(|at| *at <= self.now);
        let may = may(&build.upstream.url.to_string()) && may(&build.recipe.id)
            || self.farm.failures.contains_key(&build.key());
        self.check(may, "a version that is held");
    }

    /// Checks what must hold after each step.
    pub(super) fn check_rest(&self) {
        if self.farm.outcome(self.now).is_some() {
            return self
                .check(self.job.is_none() && !self.uploading, "the farm is over while somebody works");
        }
        let may_be_built = |(recipe, candidate, _): (&Arc<str>, &Candidate, bool)| {
            let key = JobKey { recipe: recipe.clone(), version: candidate.version.clone() };
            !self.farm.is_held(recipe) || self.farm.failures.contains_key(&key)
        };
        let is_idle = self.job.is_none() && !self.stopped && !self.options.once;
        self.check(!is_idle || !self.farm.queue.iter().any(may_be_built), "the builder has nothing to do");
        let deadline = self.farm.next_deadline();
        self.check(deadline.is_none_or(|deadline| deadline > self.now), "the farm does not sleep");
        let works = self.job.is_some() || self.uploading;
        let waits = deadline.is_some() || !self.polls.is_empty() || works;
        self.check(waits || self.watched().is_empty(), "the farm waits for nothing");
    }

    /// Checks what must hold after the calm: every version is built, published and uploaded.
    pub(super) fn check_complete(&self) {
        for (recipe, _) in self.watched() {
            let upstream = recipe.upstream.as_ref().expect("a watched recipe");
            for tag in Self::all_tags() {
                let TagVersion::Version(version) = upstream.version_of(&tag) else { continue };
                let any = recipe.packages.iter().any(|p| self.is_published(&p.name, version.as_str()));
                self.check(any, &format!("{}@{version} was never built", recipe.id));
            }
        }
        self.check(
            self.pending.is_empty() || self.pending_are_partly_published(),
            "built, and never published",
        );
        self.check(!self.owed, "an upload is still owed");
    }

    /// Whether all pending outputs are partly published: only a person can resolve these.
    fn pending_are_partly_published(&self) -> bool {
        self.pending
            .iter()
            .all(|key| ["p0", "p1", "p2", "p3"].iter().any(|p| self.is_published(p, key.version.as_str())))
    }
}
