//! The versions that failed, and when each is retried. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::version::Version;

use crate::farm::backoff;
use crate::farm::events::{JobKey, ListedTag};
use crate::farm::moment::Moment;
use crate::farm::queue::Candidate;

/// A version that failed, and its retry.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// Failures in a row of its build, or of its publish.
    pub(super) count: u32,
    /// When the last attempt failed.
    pub(super) failed_at: Moment,
    /// When it is retried.
    pub(super) retry_at: Moment,
    /// Whether the retry lies ahead; afterwards the version waits for its turn.
    pub(super) is_backed_off: bool,
    /// Why the last attempt failed.
    pub(super) reason: String,
    /// The path of the last attempt's log, if it had one.
    pub(super) log: Option<Arc<str>>,
    /// The last lines of that log, if it is a build's.
    pub(super) log_tail: Vec<String>,
    /// The version to build again; `None` if it is built and only its publish failed.
    pub(super) candidate: Option<Candidate>,
}

/// All versions that failed.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_recipe: HashMap<Arc<str>, HashMap<Version, Failure>>,
    /// The retries that lie ahead, the next one first.
    retries: BTreeSet<(Moment, JobKey)>,
}

impl Failures {
    pub(super) fn get(&self, key: &JobKey) -> Option<&Failure> {
        self.by_recipe.get(&key.recipe)?.get(&key.version)
    }

    /// Whether a version waits for the time of its retry.
    pub(super) fn is_backed_off(&self, key: &JobKey) -> bool {
        self.get(key).is_some_and(|failure| failure.is_backed_off)
    }

    /// Records one more failure in a row of `key`, builds and publishes apart. Returns their number
    /// and the wait for the retry.
    pub(super) fn record(
        &mut self,
        key: &JobKey,
        candidate: Option<Candidate>,
        reason: String,
        log: Option<Arc<str>>,
        now: Moment,
    ) -> (u32, Duration) {
        let before = self.remove(key);
        let before = before.filter(|failure| failure.candidate.is_some() == candidate.is_some());
        let count = before.map_or(0, |failure| failure.count).saturating_add(1);
        let wait = backoff::wait_after(count);
        let retry_at = now + wait;
        let failure = Failure {
            count,
            failed_at: now,
            retry_at,
            is_backed_off: true,
            reason,
            log,
            log_tail: Vec::new(),
            candidate,
        };
        self.by_recipe.entry(key.recipe.clone()).or_default().insert(key.version.clone(), failure);
        self.retries.insert((retry_at, key.clone()));
        (count, wait)
    }

    /// Records the last lines of the log of a version's last attempt.
    pub(super) fn set_log_tail(&mut self, key: &JobKey, log_tail: Vec<String>) {
        let of_recipe = self.by_recipe.get_mut(&key.recipe);
        if let Some(failure) = of_recipe.and_then(|failures| failures.get_mut(&key.version)) {
            failure.log_tail = log_tail;
        }
    }

    /// Forgets the failures of a version.
    pub(super) fn remove(&mut self, key: &JobKey) -> Option<Failure> {
        let of_recipe = self.by_recipe.get_mut(&key.recipe)?;
        let failure = of_recipe.remove(&key.version);
        if of_recipe.is_empty() {
            self.by_recipe.remove(&key.recipe);
        }
        if let Some(failure) = &failure {
            self.retries.remove(&(failure.retry_at, key.clone()));
        }
        failure
    }

    /// Records the tag of a version, which its upstream may have renamed, and what it points to. Returns
    /// whether that is another commit than the one that failed.
    pub(super) fn set_tag(&mut self, key: &JobKey, tag: &str, listed: ListedTag) -> bool {
        let of_recipe = self.by_recipe.get_mut(&key.recipe);
        let failure = of_recipe.and_then(|failures| failures.get_mut(&key.version));
        let Some(candidate) = failure.and_then(|failure| failure.candidate.as_mut()) else { return false };
        if *candidate.tag != *tag {
            candidate.tag = tag.into();
        }
        let before = candidate.listed.replace(listed);
        before.is_some_and(|before| before.commit() != listed.commit())
    }

    /// Makes the retry of a version due.
    pub(super) fn retry_at_once(&mut self, key: &JobKey, now: Moment) {
        let of_recipe = self.by_recipe.get_mut(&key.recipe);
        let Some(failure) = of_recipe.and_then(|failures| failures.get_mut(&key.version)) else { return };
        if failure.is_backed_off && self.retries.remove(&(failure.retry_at, key.clone())) {
            failure.retry_at = now;
            self.retries.insert((now, key.clone()));
        }
    }

    /// Ends the wait for a retry. Returns whether there was one.
    pub(super) fn end_wait(&mut self, key: &JobKey) -> bool {
        let of_recipe = self.by_recipe.get_mut(&key.recipe);
        let Some(failure) = of_recipe.and_then(|failures| failures.get_mut(&key.version)) else {
            return false;
        };
        self.retries.remove(&(failure.retry_at, key.clone()));
        std::mem::take(&mut failure.is_backed_off)
    }

    /// Ends the wait of the next version whose retry is due, and returns it.
    pub(super) fn pop_due(&mut self, now: Moment) -> Option<(JobKey, Option<Candidate>)> {
        let (_, key) = self.retries.first().filter(|(at, _)| *at <= now)?.clone();
        self.end_wait(&key);
        let candidate = self.get(&key).and_then(|failure| failure.candidate.clone());
        Some((key, candidate))
    }

    /// Returns the time of the next retry.
    pub(super) fn next_retry(&self) -> Option<Moment> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Returns the failed versions of a recipe.
    pub(super) fn of(&self, recipe: &str) -> impl Iterator<Item = (&Version, &Failure)> {
        self.by_recipe.get(recipe).into_iter().flatten()
    }

    /// Returns all failed versions, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (JobKey, &Failure)> {
        self.by_recipe.iter().flat_map(|(recipe, failures)| {
            let key = |version: &Version| JobKey { recipe: recipe.clone(), version: version.clone() };
            failures.iter().map(move |(version, failure)| (key(version), failure))
        })
    }

    /// Returns how many versions have failed.
    pub(super) fn len(&self) -> usize {
        self.by_recipe.values().map(HashMap::len).sum()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_recipe.is_empty() && self.retries.is_empty()
    }
}
