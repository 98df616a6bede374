//! The commits from which the published versions were built. Pure.
//!
//! They are one list of bytes for each recipe: a farm may have published 50,000 versions.

use std::collections::HashMap;
use std::sync::Arc;

use peipkg_format::object_id::ObjectId;
use peipkg_format::version::Version;

/// Below how many bytes a recipe's list has no room to spare.
const SMALL: usize = 1024;

/// The commit of each published version, by recipe.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct PublishedCommits {
    /// For each version: the length of its text, the text, the length of the id, and the id.
    by_recipe: HashMap<Arc<str>, Vec<u8>>,
}

impl PublishedCommits {
    /// Makes room for the commits of these versions of a recipe, and no more.
    pub(crate) fn reserve(&mut self, recipe: &Arc<str>, commits: &[(Version, ObjectId)]) {
        let bytes =
            commits.iter().map(|(version, commit)| 2 + version.as_str().len() + commit.as_bytes().len());
        self.by_recipe.entry(recipe.clone()).or_default().reserve_exact(bytes.sum());
    }

    /// Records the commit of a version. The last one counts: to look for an earlier one would take a time
    /// that grows with the square of the versions. Ignores a version of more than 255 bytes, which no
    /// file name has room for.
    pub(crate) fn set(&mut self, recipe: &Arc<str>, version: &str, commit: ObjectId) {
        let Ok(length) = u8::try_from(version.len()) else { return };
        let of_recipe = self.by_recipe.entry(recipe.clone()).or_default();
        let commit = commit.as_bytes();
        if of_recipe.len() < SMALL {
            // Most recipes have few versions, and get one now and then.
            of_recipe.reserve_exact(2 + version.len() + commit.len());
        }
        of_recipe.push(length);
        of_recipe.extend_from_slice(version.as_bytes());
        of_recipe.push(u8::try_from(commit.len()).unwrap_or_default());
        of_recipe.extend_from_slice(commit);
    }

    /// Returns the commits of the versions of `recipe`, for one look at all its tags.
    pub(crate) fn of(&self, recipe: &str) -> HashMap<&str, ObjectId> {
        let of_recipe = self.by_recipe.get(recipe).map_or(&[][..], Vec::as_slice);
        // Most versions have some ten bytes, and most ids twenty.
        let mut commits = HashMap::with_capacity(of_recipe.len() / 30);
        let mut at = 0;
        while let Some((version, commit, next)) = read(of_recipe, at) {
            if let (Ok(version), Some(commit)) = (str::from_utf8(version), ObjectId::from_bytes(commit)) {
                commits.insert(version, commit);
            }
            at = next;
        }
        commits
    }

    /// Adds all of `other`, which count more.
    pub(crate) fn extend(&mut self, other: &Self) {
        for recipe in other.by_recipe.keys() {
            for (version, commit) in other.of(recipe) {
                self.set(recipe, version, commit);
            }
        }
    }

    /// Returns the recipes, in no order.
    pub(crate) fn recipes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_recipe.keys()
    }
}

/// Reads the version at a place, its commit, and the next place.
fn read(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8], usize)> {
    let (length, rest) = bytes.get(at..)?.split_first()?;
    let (version, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first()?;
    let commit = rest.get(..usize::from(*length))?;
    Some((version, commit, at + 2 + version.len() + commit.len()))
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;

    use super::*;

    fn id(number: u8, length: usize) -> ObjectId {
        ObjectId::from_bytes(&vec![number; length]).unwrap()
    }

    #[test]
    fn commit_recorded_is_found_and_replaced() {
        let mut commits = PublishedCommits::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        commits.set(&a, "1.0-1", id(1, 20));
        commits.set(&a, "1.0-2", id(2, 32));
        commits.set(&a, "1.1-1", id(3, 20));
        commits.set(&b, "1.0-1", id(4, 20));
        commits.set(&a, &"9".repeat(256), id(5, 20));
        commits.set(&a, "1.0-2", id(6, 20));
        let expected = [("1.0-1", id(1, 20)), ("1.1-1", id(3, 20)), ("1.0-2", id(6, 20))];
        assert_eq!(commits.of("a"), expected.into());
        assert_eq!(commits.of("b"), [("1.0-1", id(4, 20))].into());
        assert!(commits.of("c").is_empty());
    }

    #[test]
    fn fifty_thousand_versions_take_less_than_four_megabytes() {
        let mut commits = PublishedCommits::default();
        let held = measure(|| {
            for recipe in 0..10_000 {
                let recipe = format!("recipe-{recipe:05}").into();
                (0..5).for_each(|n| commits.set(&recipe, &format!("12.34.{n}-1"), id(n, 20)));
            }
        });
        assert_eq!(commits.of("recipe-09999").len(), 5);
        assert!(held.bytes_current < 4_000_000, "{}", held.bytes_current);
    }
}
