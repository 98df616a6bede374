//! The polls of all recipes, in one list: a snapshot of a large farm is made, held and freed often. A
//! map would take twice the memory, in small parts that lie among what stays. Pure.

use std::sync::Arc;

use peipkg_format::sort;
use serde::{Serialize, Serializer};

use crate::farm::status::Poll;

/// The polls of each recipe with an upstream. A map by their ids, as JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Polls(Vec<(Arc<str>, Poll)>);

impl Polls {
    /// Takes the polls of each recipe once, in any order.
    pub(in crate::farm) fn new(mut polls: Vec<(Arc<str>, Poll)>) -> Self {
        sort::sort_by(&mut polls, |(one, _), (other, _)| one.cmp(other));
        Self(polls)
    }

    /// Returns the polls of a recipe.
    pub fn get(&self, recipe: &str) -> Option<&Poll> {
        let place = self.0.binary_search_by(|(id, _)| (**id).cmp(recipe)).ok()?;
        self.0.get(place).map(|(_, poll)| poll)
    }

    /// Returns the polls, in the order of the recipes.
    pub fn values(&self) -> impl Iterator<Item = &Poll> {
        self.0.iter().map(|(_, poll)| poll)
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Poll> {
        self.0.iter_mut().map(|(_, poll)| poll)
    }
}

impl FromIterator<(Arc<str>, Poll)> for Polls {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Poll)>>(polls: I) -> Self {
        Self::new(polls.into_iter().collect())
    }
}

impl Serialize for Polls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(recipe, poll)| (recipe, poll)))
    }
}
