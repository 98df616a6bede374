//! Remembers which tags each recipe was matched with, so that tags which did not change cost nothing.
//! Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use peipkg_format::version::Version;

use crate::farm::events::{JobKey, Tags};

/// The last match of each recipe with its upstream's tags. Unless the tags, the archive index or the
/// recipe change, another match would find nothing new, and cost time for each tag: each version among
/// them waits, is under way, has failed, or was published. Whatever else drops one calls
/// [`Matched::forget`].
#[derive(Debug, Default)]
pub(super) struct Matched(HashMap<Arc<str>, Match>);

#[derive(Debug)]
struct Match {
    /// The fingerprint of the tags; `None` makes the next poll match again.
    fingerprint: Option<u64>,
    /// How many tags were versions.
    matches: u32,
    /// Whether each version among them waits, is under way, has failed, or was published. Otherwise a
    /// version that the queue lacks need not be new.
    is_whole: bool,
    /// The newest version among them that is published.
    newest: Option<Version>,
}

impl Matched {
    /// Returns how many tags are versions, if the tags are those of the last match.
    pub(super) fn unchanged(&self, recipe: &str, fingerprint: u64) -> Option<usize> {
        let last = self.0.get(recipe)?;
        (last.fingerprint == Some(fingerprint)).then_some(last.matches as usize)
    }

    /// Whether a version that the queue lacks is new to the recipe.
    pub(super) fn is_whole(&self, recipe: &str) -> bool {
        self.0.get(recipe).is_some_and(|last| last.is_whole)
    }

    /// Returns how many tags were versions at the last match, and the newest published one.
    pub(super) fn of(&self, recipe: &str) -> Option<(u32, Option<&Version>)> {
        self.0.get(recipe).map(|last| (last.matches, last.newest.as_ref()))
    }

    /// Records that a version was published.
    pub(super) fn publish(&mut self, key: &JobKey) {
        if let Some(last) = self.0.get_mut(&key.recipe) {
            keep_newest(&mut last.newest, &key.version);
        }
    }

    /// Records a match that has queued all versions, unless it `left_out` some. `newest` is the newest
    /// version that is published.
    pub(super) fn record(
        &mut self,
        recipe: &Arc<str>,
        fingerprint: u64,
        matches: usize,
        left_out: usize,
        newest: Option<Version>,
    ) {
        let is_whole = left_out == 0;
        let fingerprint = is_whole.then_some(fingerprint);
        let matches = u32::try_from(matches).unwrap_or(u32::MAX);
        self.0.insert(recipe.clone(), Match { fingerprint, matches, is_whole, newest });
    }

    /// Records that versions of a recipe have left the queue unbuilt.
    pub(super) fn lose(&mut self, recipe: &str) {
        if let Some(last) = self.0.get_mut(recipe) {
            last.fingerprint = None;
            last.is_whole = false;
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the next poll of a recipe match again.
    pub(super) fn forget(&mut self, recipe: &str) {
        if let Some(last) = self.0.get_mut(recipe) {
            last.fingerprint = None;
        }
    }

    /// Makes the next poll of every recipe match again.
    pub(super) fn forget_all(&mut self) {
        for last in self.0.values_mut() {
            last.fingerprint = None;
        }
    }

    /// Keeps the recipes that `is_same` admits; the next poll matches them again.
    pub(super) fn on_reload(&mut self, is_same: impl Fn(&Arc<str>) -> bool) {
        self.0.retain(|recipe, _| is_same(recipe));
        self.forget_all();
    }
}

/// Puts `version` in the place of `newest` if it is newer.
pub(super) fn keep_newest(newest: &mut Option<Version>, version: &Version) {
    if newest.as_ref().is_none_or(|newest| newest.sort_cmp(version).is_lt()) {
        *newest = Some(version.clone());
    }
}

/// Returns a number that changes with the names, the ids or the order of the tags.
pub(super) fn fingerprint_of(tags: &Tags) -> u64 {
    let mut hasher = DefaultHasher::new();
    tags.as_parts().hash(&mut hasher);
    hasher.finish()
}
