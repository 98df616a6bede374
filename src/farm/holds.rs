//! Who keeps the one builder busy for nothing, and how long others are spared that:
//! upstreams whose tags are listed but whose sources do not come, and recipes whose
//! builds do not end. Pure.
//!
//! Each such attempt takes minutes, or a day, and there may be one for each version. So
//! after one, the versions of that upstream or recipe that were never tried wait, longer
//! each time. Versions that have failed keep the times of their own retries, which hold the
//! others for a moment only, and what a webhook has brought waits for nobody, until one of
//! that is such an attempt, too.

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
    /// What the outcome of a build tells about its upstream's fetches and its recipe's builds, and what is
    /// to be reported of that.
    pub(super) fn learn_of_build(
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
            // Whoever has changed the recipe meanwhile wants to see whether it helps.
            Blame::Upstream | Blame::Recipe if !is_as_built => return None,
            Blame::Upstream => self.holds.upstreams.learn(url, took, repeats, is_retry, now)?,
            Blame::Recipe => {
                self.holds.upstreams.release(url);
                self.holds.recipes.learn(id, took, repeats, is_retry, now)?
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
            // Else all that the webhooks have brought would follow, and nobody else would have a turn.
            for recipe in &its {
                self.queue.calm(recipe);
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

    /// Whether a recipe's upstream is held.
    pub(super) fn is_upstream_held(&self, recipe: &str) -> bool {
        self.upstream_of(recipe).is_some_and(|url| self.holds.upstreams.holds(url))
    }

    /// Whether a recipe or its upstream is held.
    pub(super) fn is_held(&self, recipe: &Arc<str>) -> bool {
        self.holds.recipes.holds(recipe) || self.is_upstream_held(recipe)
    }

    /// Whether a version that no webhook has brought may be built now.
    pub(super) fn may_build(&self, recipe: &Arc<str>, candidate: &Candidate) -> bool {
        let is_retry = || {
            let key = JobKey { recipe: recipe.clone(), version: candidate.version.clone() };
            !self.options.once && self.failures.contains_key(&key)
        };
        !self.is_held(recipe) || is_retry()
    }

    /// When holds end that keep a version from being built.
    pub(super) fn ends_of_holds(&self) -> impl Iterator<Item = Moment> {
        let any_waits = |url: &UpstreamUrl| self.recipes_of(url).any(|recipe| self.queue.has(recipe));
        let upstreams = self.holds.upstreams.ends().filter(move |(url, _)| any_waits(url));
        let recipes = self.holds.recipes.ends().filter(|(id, _)| self.queue.has(id));
        upstreams.map(|(_, end)| end).chain(recipes.map(|(_, end)| end))
    }
}
