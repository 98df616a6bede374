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

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::farm::events::{Blame, BuildJob, JobKey, JobOutcome, Notice};
use crate::farm::moment::Moment;
use crate::farm::queue::Candidate;
use crate::farm::{Farm, backoff};
use crate::recipe::upstream_url::UpstreamUrl;

/// From what time on an attempt counts: one that fails at once keeps nobody waiting.
pub(crate) const SLOW: Duration = Duration::from_secs(10);

/// The longest hold that follows from how often attempts have failed: so often a version that was
/// never tried gets its chance.
const LONGEST_HOLD: Duration = Duration::from_hours(3);

/// How much of the builder's time the failing attempts of one upstream or recipe may take in a single sweep.
const SWEEP_PATIENCE: Duration = Duration::from_mins(10);

/// Who is held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// The upstreams whose last fetches were slow to fail, by URL.
    upstreams: Ledger<UpstreamUrl>,
    /// The recipes whose last builds did not end in time, by id.
    recipes: Ledger<Arc<str>>,
}

/// What was lost, by the name of who is to blame.
#[derive(Debug)]
struct Ledger<K>(HashMap<K, Loss>);

#[derive(Debug, Default)]
struct Loss {
    /// First attempts in a row.
    failures: u32,
    /// The builder's time that they have taken.
    spent: Duration,
    /// Until when the versions that were never tried wait, if they do; [`Moment::NEVER`] for the rest of a sweep.
    held_until: Option<Moment>,
}

/// How long somebody is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// For so long.
    For(Duration),
    /// For the rest of a single sweep.
    ThisSweep,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Ledger<K> {
    /// Notes an attempt that has failed after `took`; the hold that follows, if one does.
    fn learn(
        &mut self,
        name: &K,
        took: Duration,
        repeats: bool,
        is_retry: bool,
        now: Moment,
    ) -> Option<Hold> {
        if is_retry && repeats {
            self.failed_again(name, took, now)
        } else {
            self.failed(name, took, repeats, now)
        }
    }

    /// Notes an attempt that counts for other versions. Only a daemon (`repeats`) will see the end of a hold. There it is the first attempt at a version.
    fn failed(&mut self, name: &K, took: Duration, repeats: bool, now: Moment) -> Option<Hold> {
        let loss = self.loss_of(name, took)?;
        loss.failures = loss.failures.saturating_add(1);
        loss.spent = loss.spent.saturating_add(took);
        if repeats {
            // Half of what a version waits: others have had their chance before it is retried, or else
            // the newest would always come first, and one that hangs would be the only one tried.
            let hold = (backoff::wait_after(loss.failures) / 2).min(LONGEST_HOLD).max(took / 2);
            loss.held_until = Some(now + hold);
            Some(Hold::For(hold))
        } else if loss.spent >= SWEEP_PATIENCE {
            loss.held_until = Some(Moment::NEVER);
            Some(Hold::ThisSweep)
        } else {
            None
        }
    }

    /// Notes a daemon's retry that has failed after `took`. It tells nothing of other versions: those that have failed
    /// may be many, and then what was never tried would be held for ever. But the builder is to be free for a while.
    fn failed_again(&mut self, name: &K, took: Duration, now: Moment) -> Option<Hold> {
        let loss = self.loss_of(name, took)?;
        let (before, hold) = (loss.held_until, took / 2);
        loss.held_until = before.max(Some(now + hold));
        (loss.held_until > before).then_some(Hold::For(hold))
    }

    /// What is known of `name`, if an attempt that has taken so long counts.
    fn loss_of(&mut self, name: &K, took: Duration) -> Option<&mut Loss> {
        (took >= SLOW).then(|| self.0.entry(name.clone()).or_default())
    }

    /// Notes an attempt that went well, or that there is reason to hope that the next one will.
    fn release(&mut self, name: &K) {
        self.0.remove(name);
    }

    /// Ends the holds whose time is over.
    fn end_holds(&mut self, now: Moment) {
        for loss in self.0.values_mut() {
            loss.held_until = loss.held_until.filter(|until| *until > now);
        }
    }

    fn holds(&self, name: &K) -> bool {
        self.0.get(name).is_some_and(|loss| loss.held_until.is_some())
    }

    /// Who is held, and until when; those that are held for the rest of a sweep have no end.
    fn ends(&self) -> impl Iterator<Item = (&K, Moment)> {
        let end = |loss: &Loss| loss.held_until.filter(|until| *until < Moment::NEVER);
        self.0.iter().filter_map(move |(name, loss)| Some((name, end(loss)?)))
    }
}

impl Holds {
    /// Ends the holds whose time is over.
    pub(super) fn end_holds(&mut self, now: Moment) {
        self.upstreams.end_holds(now);
        self.recipes.end_holds(now);
    }

    /// Forgets the upstreams and the recipes that are not to be kept.
    pub(super) fn retain(
        &mut self,
        keep_url: impl Fn(&UpstreamUrl) -> bool,
        keep_id: impl Fn(&Arc<str>) -> bool,
    ) {
        self.upstreams.0.retain(|url, _| keep_url(url));
        self.recipes.0.retain(|id, _| keep_id(id));
    }
}

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
