//! The builder time lost to slow failures, by upstream and by recipe, and how long their untried
//! versions are held for it. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::backoff;
use super::events::Hold;
use super::moment::Moment;
use crate::recipe::upstream_url::UpstreamUrl;

/// The shortest failed attempt that counts. A quicker one costs the other recipes nothing.
pub(crate) const SLOW: Duration = Duration::from_secs(10);

/// The longest hold that follows from the number of failures. Without it an untried version could
/// wait a day for its first attempt.
pub(super) const LONGEST_HOLD: Duration = Duration::from_hours(3);

/// The builder time that the failing attempts of one upstream or recipe may take in a single sweep.
/// More would delay every other recipe of the sweep.
const SWEEP_PATIENCE: Duration = Duration::from_mins(10);

/// The losses and holds of all upstreams and recipes.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Upstreams whose last fetches failed slowly.
    pub(super) upstreams: Ledger<UpstreamUrl>,
    /// Recipes whose last builds ran into their time limit, by id.
    pub(super) recipes: Ledger<Arc<str>>,
}

/// The losses, by the upstream or recipe that caused them.
#[derive(Debug)]
pub(super) struct Ledger<K>(HashMap<K, Loss>);

#[derive(Debug, Default)]
struct Loss {
    /// Failed first attempts in a row.
    failures: u32,
    /// The builder time that they took.
    spent: Duration,
    /// When the hold ends, if there is one; [`Moment::NEVER`] for the rest of a sweep.
    held_until: Option<Moment>,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Ledger<K> {
    /// Records an attempt that failed after `took`. Returns the hold that follows, if one does.
    pub(super) fn record(
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

    /// Records a failed attempt that says something of other versions: in a daemon (`repeats`) the
    /// first attempt at a version, in a single sweep any. A single sweep does not wait for the end
    /// of a hold.
    pub(super) fn failed(&mut self, name: &K, took: Duration, repeats: bool, now: Moment) -> Option<Hold> {
        let loss = self.loss_of(name, took)?;
        loss.failures = loss.failures.saturating_add(1);
        loss.spent = loss.spent.saturating_add(took);
        if repeats {
            // Half of the failed version's own wait: other versions get an attempt before its
            // retry. With a longer hold the newest version, if it hangs, would be the only one
            // tried.
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

    /// Records a daemon's retry that failed after `took`. It does not count as a loss: the retries
    /// of many failed versions would hold the untried ones without an end. It only gives other
    /// recipes the builder for a while.
    pub(super) fn failed_again(&mut self, name: &K, took: Duration, now: Moment) -> Option<Hold> {
        let loss = self.loss_of(name, took)?;
        let (before, hold) = (loss.held_until, took / 2);
        loss.held_until = before.max(Some(now + hold));
        (loss.held_until > before).then_some(Hold::For(hold))
    }

    /// Returns the loss of `name` if an attempt of that length counts.
    fn loss_of(&mut self, name: &K, took: Duration) -> Option<&mut Loss> {
        (took >= SLOW).then(|| self.0.entry(name.clone()).or_default())
    }

    /// Forgets the losses of `name`: an attempt went well.
    pub(super) fn release(&mut self, name: &K) {
        self.0.remove(name);
    }

    /// Ends the holds that are due.
    pub(super) fn end_due(&mut self, now: Moment) {
        for loss in self.0.values_mut() {
            loss.held_until = loss.held_until.filter(|until| *until > now);
        }
    }

    /// Whether `name` is held.
    pub(super) fn holds(&self, name: &K) -> bool {
        self.0.get(name).is_some_and(|loss| loss.held_until.is_some())
    }

    /// Returns the ends of the holds, without those for the rest of a sweep.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&K, Moment)> {
        let end = |loss: &Loss| loss.held_until.filter(|until| *until < Moment::NEVER);
        self.0.iter().filter_map(move |(name, loss)| Some((name, end(loss)?)))
    }
}

impl Holds {
    /// Ends the holds that are due.
    pub(super) fn end_due(&mut self, now: Moment) {
        self.upstreams.end_due(now);
        self.recipes.end_due(now);
    }

    /// Forgets the upstreams and the recipes that the predicates refuse.
    pub(super) fn retain(
        &mut self,
        keep_url: impl Fn(&UpstreamUrl) -> bool,
        keep_id: impl Fn(&Arc<str>) -> bool,
    ) {
        self.upstreams.0.retain(|url, _| keep_url(url));
        self.recipes.0.retain(|id, _| keep_id(id));
    }
}
