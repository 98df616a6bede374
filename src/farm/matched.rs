//! Remembers which tags each recipe was matched with, so that tags which did not change cost nothing.
//! Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::farm::events::Tags;

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
    matches: usize,
    /// Whether each version among them waits, is under way, has failed, or was published. Otherwise a
    /// version that the queue lacks need not be new.
    is_whole: bool,
}

impl Matched {
    /// Returns how many tags are versions, if the tags are those of the last match.
    pub(super) fn unchanged(&self, recipe: &str, fingerprint: u64) -> Option<usize> {
        let last = self.0.get(recipe)?;
        (last.fingerprint == Some(fingerprint)).then_some(last.matches)
    }

    /// Whether a version that the queue lacks is new to the recipe.
    pub(super) fn is_whole(&self, recipe: &str) -> bool {
        self.0.get(recipe).is_some_and(|last| last.is_whole)
    }

    /// Records a match that has queued all versions, unless it `left_out` some.
    pub(super) fn record(&mut self, recipe: &Arc<str>, fingerprint: u64, matches: usize, left_out: usize) {
        let is_whole = left_out == 0;
        let fingerprint = is_whole.then_some(fingerprint);
        self.0.insert(recipe.clone(), Match { fingerprint, matches, is_whole });
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

/// Returns a number that changes with the names or the order of the tags.
pub(super) fn fingerprint_of(tags: &Tags) -> u64 {
    let mut hasher = DefaultHasher::new();
    tags.as_text().hash(&mut hasher);
    hasher.finish()
}
