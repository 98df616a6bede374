//! Holds what a snapshot shows of each recipe, in one list: the farm often makes and frees snapshots. A map
//! would take twice the memory, in small parts that lie among what stays. Pure.

use std::sync::Arc;

use peipkg_format::sort;
use serde::{Serialize, Serializer};

/// One value for each of some recipes. JSON shows it as a map by their ids.
#[derive(Debug, Clone, PartialEq)]
pub struct ByRecipe<T>(Vec<(Arc<str>, T)>);

impl<T> ByRecipe<T> {
    /// Returns the value of a recipe.
    pub fn get(&self, recipe: &str) -> Option<&T> {
        let place = self.0.binary_search_by(|(id, _)| (**id).cmp(recipe)).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// Returns the values, in the order of the recipes.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<T> Default for ByRecipe<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(Arc<str>, T)> for ByRecipe<T> {
    /// Takes the values, each recipe's once, in any order.
    fn from_iter<I: IntoIterator<Item = (Arc<str>, T)>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        sort::sort_by(&mut values, |(one, _), (other, _)| one.cmp(other));
        Self(values)
    }
}

impl<T: Serialize> Serialize for ByRecipe<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(recipe, value)| (recipe, value)))
    }
}
