//! Holds back upstreams whose fetches hang and recipes whose builds run into their time limit, so
//! that they do not keep the one builder busy for nothing. Pure.
//!
//! Each such attempt takes minutes, or a day, and each version may be one. After one, the untried
//! versions of that upstream or recipe wait, longer each time. A failed version keeps its own retry
//! time, and its retry holds the others only shortly. An urgent version (a webhook brought it) is
//! not held, until one of them fails in this way, too.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::farm::Farm;
use crate::farm::events::{Blame, BuildJob, JobKey, JobOutcome, Notice};
use crate::farm::moment::Moment;
use crate::farm::queue::Candidate;
use crate::recipe::upstream_url::UpstreamUrl;

impl Farm {
    /// Holds or releases the upstream and the recipe of a finished build. Returns the notice of a
    /// new hold.
    pub(super) fn update_holds(
        &mut self,
        build: &BuildJob,
        outcome: &JobOutcome,
        took: Duration,
        now: Moment,
    ) -> Option<Notice> {
        let (url, id) = (&build.upstream.url, &build.recipe.id);
        let is_as_built = self.roster.get(id).is_some_and(|recipe| recipe.stamp == build.recipe.stamp);
        let blame = match outcome {
            JobOutcome::Interrupted => return None,
            JobOutcome::Failed { blame, .. } => *blame,
            _ => Blame::Version,
        };
        let (repeats, is_retry) = (!self.options.once, self.failures.contains_key(&build.key()));
        let hold = match blame {
            // The operator has changed the recipe meanwhile and wants to see whether it builds now.
            Blame::Upstream | Blame::Recipe if !is_as_built => return None,
            Blame::Upstream => self.holds.upstreams.record(url, took, repeats, is_retry, now)?,
            Blame::Recipe => {
                self.holds.upstreams.release(url);
                self.holds.recipes.record(id, took, repeats, is_retry, now)?
            }
            Blame::Version => {
                self.holds.upstreams.release(url);
                self.holds.recipes.release(id);
                return None;
            }
        };
        let of_upstream = self.watchers.get(url).filter(|_| blame == Blame::Upstream);
        let its = of_upstream.cloned().unwrap_or_else(|| vec![id.clone()]);
        if build.urgent {
            // Otherwise every other urgent version of them would follow before any other recipe.
            for recipe in &its {
                self.queue.clear_urgency(recipe);
            }
        }
        let is_held = |(other, candidate, urgent): &(&Arc<str>, &Candidate, bool)| {
            its.contains(other) && !urgent && !self.may_build(other, candidate)
        };
        let versions = self.queue.iter().filter(is_held).count();
        (versions > 0).then(|| match blame {
            Blame::Recipe => Notice::RecipeHeld { recipe: id.clone(), versions, hold },
            _ => Notice::UpstreamHeld { upstream: url.clone(), versions, hold },
        })
    }

    fn upstream_of(&self, recipe: &str) -> Option<&UpstreamUrl> {
        Some(&self.roster.get(recipe)?.upstream.as_ref()?.url)
    }

    /// Whether the recipe's upstream is held.
    pub(super) fn is_upstream_held(&self, recipe: &str) -> bool {
        self.upstream_of(recipe).is_some_and(|url| self.holds.upstreams.holds(url))
    }

    /// Whether the recipe or its upstream is held.
    pub(super) fn is_held(&self, recipe: &Arc<str>) -> bool {
        self.holds.recipes.holds(recipe) || self.is_upstream_held(recipe)
    }

    /// Whether a version that is not urgent may be built now.
    pub(super) fn may_build(&self, recipe: &Arc<str>, candidate: &Candidate) -> bool {
        let is_retry = || {
            let key = JobKey { recipe: recipe.clone(), version: candidate.version.clone() };
            !self.options.once && self.failures.contains_key(&key)
        };
        !self.is_held(recipe) || is_retry()
    }

    /// Returns the ends of the holds that keep a waiting version from its build.
    pub(super) fn ends_of_holds(&self) -> impl Iterator<Item = Moment> {
        let any_waits =
            |url: &UpstreamUrl| self.recipes_of(url).any(|recipe| self.queue.has_versions_of(recipe));
        let upstreams = self.holds.upstreams.ends().filter(move |(url, _)| any_waits(url));
        let recipes = self.holds.recipes.ends().filter(|(id, _)| self.queue.has_versions_of(id));
        upstreams.map(|(_, end)| end).chain(recipes.map(|(_, end)| end))
    }
}
