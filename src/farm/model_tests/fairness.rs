//! An independent oracle of the builder's fairness: it counts the time of each recipe in a plain map,
//! and searches all recipes at each decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::farm::events::{BuildJob, Effect};
use crate::farm::model_tests::World;
use crate::farm::queue::Waits;
use crate::recipe::upstream_url::UpstreamUrl;

/// The builder time of each recipe.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    used: BTreeMap<Arc<str>, Duration>,
}

/// The waiting recipes, and whether each has an urgent version.
pub(super) type Waiting = BTreeMap<Arc<str>, bool>;

impl Oracle {
    /// Charges a build that has ended, and the hung fetch of an upstream to its other recipes.
    pub(super) fn on_build_ended(&mut self, recipe: &Arc<str>, took: Duration, others: &BTreeSet<Arc<str>>) {
        for recipe in others.iter().chain([recipe]) {
            *self.used.entry(recipe.clone()).or_default() += took;
        }
    }

    pub(super) fn on_reload(&mut self, is_known: impl Fn(&Arc<str>) -> bool) {
        self.used.retain(|recipe, _| is_known(recipe));
    }

    /// Lets recipes join those that wait or build.
    fn join(&mut self, joining: &BTreeSet<Arc<str>>, waiting: &BTreeSet<Arc<str>>, building: &[Arc<str>]) {
        let least = |recipes: &mut dyn Iterator<Item = &Arc<str>>| {
            recipes.map(|recipe| self.used.get(recipe).copied().unwrap_or_default()).min()
        };
        let least = least(&mut waiting.iter()).or_else(|| least(&mut building.iter()));
        if least.is_none() {
            self.used.clear();
        }
        for recipe in joining {
            let used = self.used.entry(recipe.clone()).or_default();
            *used = (*used).max(least.unwrap_or_default());
        }
    }

    fn used(&self, recipe: &Arc<str>) -> Duration {
        self.used.get(recipe).copied().unwrap_or_default()
    }
}

impl World {
    /// Returns the recipes with waiting versions.
    pub(super) fn waiting(&self) -> Waiting {
        let mut waiting = Waiting::new();
        for (recipe, _, waits) in self.farm.queue.iter() {
            *waiting.entry(recipe.clone()).or_default() |= waits == Waits::Urgent;
        }
        waiting
    }

    /// Checks that each build started is of the recipe that has used the least time, of those that
    /// wait and whose upstream has no build; urgent ones first.
    pub(super) fn check_fairness(&mut self, before: &Waiting, has_aside: bool, effects: &[Effect]) {
        let after = self.waiting();
        let started: Vec<&BuildJob> = effects
            .iter()
            .filter_map(|effect| if let Effect::StartBuild(build) = effect { Some(build) } else { None })
            .collect();
        let building: Vec<Arc<str>> = self.builds.iter().map(|(build, _)| build.recipe.id.clone()).collect();
        let now: BTreeSet<Arc<str>> =
            after.keys().cloned().chain(started.iter().map(|build| build.recipe.id.clone())).collect();
        let stayed: BTreeSet<Arc<str>> = before.keys().filter(|id| now.contains(*id)).cloned().collect();
        let joined: BTreeSet<_> = now.iter().filter(|id| !before.contains_key(*id)).cloned().collect();
        let before_joining: Vec<Duration> = joined.iter().map(|recipe| self.oracle.used(recipe)).collect();
        self.oracle.join(&joined, &stayed, &building);
        if has_aside || !self.farm.aside.is_empty() {
            // A version whose packages another recipe makes had its turn and waits aside. It may have come
            // back and left again in this turn: the oracle does not know the order.
            for recipe in &self.roster {
                self.oracle.used.insert(recipe.id.clone(), self.farm.queue.used(&recipe.id));
            }
            return;
        }
        if !stayed.is_empty() && stayed.len() < before.len() {
            // Others left in the same turn. The oracle does not know whether they did before or after
            // these joined: the time is between the two.
            for (recipe, least) in joined.iter().zip(before_joining) {
                let (used, most) = (self.farm.queue.used(recipe), self.oracle.used(recipe));
                let is_between = (least..=most).contains(&used);
                self.check(is_between, &format!("{recipe} joins with {used:?}: {least:?} to {most:?}"));
                self.oracle.used.insert(recipe.clone(), used);
            }
        }
        if stayed.is_empty() && !building.is_empty() && joined.len() > 1 {
            // The first one counts from the builds in progress, the others from the first: here the
            // oracle does not know their order.
            for recipe in &joined {
                self.oracle.used.insert(recipe.clone(), self.farm.queue.used(recipe));
            }
        }
        let mut busy: Vec<UpstreamUrl> =
            self.builds.iter().map(|(build, _)| build.upstream.url.clone()).collect();
        for (place, build) in started.iter().enumerate() {
            let id = &build.recipe.id;
            self.check(!busy.contains(&build.upstream.url), "two builds of one upstream");
            // Those started later in this turn have waited, too.
            let later = started[place + 1..].iter().map(|build| (&build.recipe.id, build.urgent));
            let others = after.iter().map(|(id, urgent)| (id, *urgent)).chain(later);
            for (other, urgent) in others.filter(|(other, _)| *other != id) {
                let upstream = self.roster.iter().find(|recipe| recipe.id == *other);
                let upstream = upstream.and_then(|recipe| Some(&recipe.upstream.as_ref()?.url));
                if upstream.is_some_and(|url| busy.contains(url)) || urgent != build.urgent {
                    self.check(
                        !urgent || build.urgent || upstream.is_some_and(|url| busy.contains(url)),
                        "an urgent version waits",
                    );
                    continue;
                }
                let is_fair = self.oracle.used(id) <= self.oracle.used(other);
                self.check(is_fair, &format!("{other} has used less than {id}: {:?}", self.oracle));
            }
            busy.push(build.upstream.url.clone());
        }
    }
}
