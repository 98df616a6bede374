//! The time that slow failures cost the builder, by upstream and by recipe, and how long the
//! versions that were never tried wait because of it. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::backoff;
use super::events::Hold;
use super::moment::Moment;
use crate::recipe::upstream_url::UpstreamUrl;

/// From what time on an attempt counts: one that fails at once keeps nobody waiting.
pub(crate) const SLOW: Duration = Duration::from_secs(10);

/// The longest hold that follows from how often attempts have failed: so often a version that was
/// never tried gets its chance.
pub(super) const LONGEST_HOLD: Duration = Duration::from_hours(3);

/// How much of the builder's time the failing attempts of one upstream or recipe may take in a single sweep.
const SWEEP_PATIENCE: Duration = Duration::from_mins(10);

/// Who is held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// The upstreams whose last fetches were slow to fail, by URL.
    pub(super) upstreams: Ledger<UpstreamUrl>,
    /// The recipes whose last builds did not end in time, by id.
    pub(super) recipes: Ledger<Arc<str>>,
}

/// What was lost, by the name of who is to blame.
#[derive(Debug)]
pub(super) struct Ledger<K>(HashMap<K, Loss>);

#[derive(Debug, Default)]
struct Loss {
    /// First attempts in a row.
    failures: u32,
    /// The builder's time that they have taken.
    spent: Duration,
    /// Until when the versions that were never tried wait, if they do; [`Moment::NEVER`] for the rest of a sweep.
    held_until: Option<Moment>,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Ledger<K> {
    /// Notes an attempt that has failed after `took`; the hold that follows, if one does.
    pub(super) fn learn(
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
    pub(super) fn failed(&mut self, name: &K, took: Duration, repeats: bool, now: Moment) -> Option<Hold> {
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
    pub(super) fn failed_again(&mut self, name: &K, took: Duration, now: Moment) -> Option<Hold> {
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
    pub(super) fn release(&mut self, name: &K) {
        self.0.remove(name);
    }

    /// Ends the holds whose time is over.
    pub(super) fn end_holds(&mut self, now: Moment) {
        for loss in self.0.values_mut() {
            loss.held_until = loss.held_until.filter(|until| *until > now);
        }
    }

    pub(super) fn holds(&self, name: &K) -> bool {
        self.0.get(name).is_some_and(|loss| loss.held_until.is_some())
    }

    /// Who is held, and until when; those that are held for the rest of a sweep have no end.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&K, Moment)> {
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
