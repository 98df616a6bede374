//! Orders the waiting versions: urgent ones first, then the recipe that has used the builders least,
//! the newest version of each first. A version is urgent if a webhook brought it. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::sort;
use peipkg_format::version::Version;

use crate::farm::counted::Counted;
use crate::farm::events::tags::ListedTag;
use crate::farm::turns::Turns;

/// How many versions of one recipe may wait. A hostile upstream could otherwise fill the memory;
/// after the newest ones are built, the next poll finds the others.
pub(crate) const MAX_WAITING: usize = 10_000;

/// A version to build, and its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The upstream's tag, without `refs/tags/`.
    pub tag: Box<str>,
    /// The package version that the tag stands for.
    pub version: Version,
    /// What the last listing showed of the tag; `None` if no listing did.
    pub listed: Option<ListedTag>,
}

/// The versions of all recipes that wait to be built.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lanes: BTreeMap<Arc<str>, Box<Counted<Lane>>>,
    /// The recipes with a waiting version, by the time that their builds took.
    turns: Turns<Arc<str>>,
    /// How many versions wait.
    len: usize,
}

/// Which versions of a poll become urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// None: no webhook asked for the poll.
    None,
    /// The newest: without an earlier poll to compare with, a whole backlog would be new.
    Newest,
    /// Those that did not wait before.
    New,
}

/// Why a version waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// A webhook brought it.
    Urgent,
    /// A poll found it.
    Untried,
    /// It failed, and its retry is due.
    Retry,
}

/// One recipe's versions. Each list has the newest last, where it is popped.
#[derive(Debug, Default)]
struct Lane {
    urgent: Vec<Candidate>,
    untried: Vec<Candidate>,
    retries: Vec<Candidate>,
    /// Whether the last version popped was a retry. Retries and untried versions alternate: a
    /// version that always fails must not keep the older ones from their first attempt, and a long
    /// backlog must not keep the newest version from its retry.
    retried_last: bool,
}

impl Queue {
    /// Replaces the waiting versions of `recipe` by `candidates`, of which those that `urgency`
    /// names become urgent. Urgent versions stay so, and retries stay retries. Returns how many
    /// versions there was no room for; the oldest are left out.
    pub(crate) fn replace(
        &mut self,
        recipe: &Arc<str>,
        candidates: Vec<Candidate>,
        urgency: Urgency,
        is_retry: impl Fn(&Candidate) -> bool,
    ) -> usize {
        let before = self.lanes.remove(recipe).unwrap_or_default();
        self.len -= before.len();
        let texts = |list: &[Candidate]| -> HashSet<String> {
            list.iter().map(|candidate| candidate.version.as_str().to_owned()).collect()
        };
        let was_urgent = texts(&before.urgent);
        let mut was_ordinary = HashSet::new();
        if urgency == Urgency::New {
            was_ordinary = texts(&before.untried);
            was_ordinary.extend(texts(&before.retries));
        }
        let newest = candidates.iter().max_by(|a, b| a.version.sort_cmp(&b.version));
        let newest = newest.map(|candidate| candidate.version.as_str().to_owned());
        let mut lane = Box::new(Counted(Lane { retried_last: before.retried_last, ..Lane::default() }));
        for candidate in candidates {
            let version = candidate.version.as_str();
            let becomes_urgent = match urgency {
                Urgency::None => false,
                Urgency::Newest => newest.as_deref() == Some(version),
                Urgency::New => !was_ordinary.contains(version),
            };
            if was_urgent.contains(version) || becomes_urgent {
                lane.urgent.push(candidate);
            } else if is_retry(&candidate) {
                lane.retries.push(candidate);
            } else {
                lane.untried.push(candidate);
            }
        }
        lane.sort();
        let left_out = lane.cut();
        self.put_lane(recipe, lane);
        left_out
    }

    /// Adds a version, unless it waits already.
    pub(crate) fn insert(&mut self, recipe: &Arc<str>, candidate: Candidate) {
        self.add(recipe, candidate, |lane| &mut lane.untried);
    }

    /// Adds a version whose retry is due, unless it waits already.
    pub(crate) fn insert_retry(&mut self, recipe: &Arc<str>, candidate: Candidate) {
        self.add(recipe, candidate, |lane| &mut lane.retries);
    }

    fn add(&mut self, recipe: &Arc<str>, candidate: Candidate, list: fn(&mut Lane) -> &mut Vec<Candidate>) {
        let mut lane = self.lanes.remove(recipe).unwrap_or_default();
        self.len -= lane.len();
        if !lane.all().any(|other| other.version == candidate.version) {
            let list = list(&mut lane);
            let place = list.partition_point(|other| order(other, &candidate).is_lt());
            list.insert(place, candidate);
        }
        self.put_lane(recipe, lane);
    }

    /// Drops the versions of every recipe that `has_work` refuses, and all else about those that
    /// `is_known` refuses.
    pub(crate) fn retain(
        &mut self,
        has_work: impl Fn(&Arc<str>) -> bool,
        is_known: impl Fn(&Arc<str>) -> bool,
    ) {
        self.lanes.retain(|recipe, _| {
            let stays = has_work(recipe);
            if !stays {
                self.turns.leave(recipe);
            }
            stays
        });
        self.turns.retain(is_known);
        self.len = self.lanes.values().map(|lane| lane.len()).sum();
    }

    /// Drops the versions of `recipe`. Returns how many there were.
    pub(crate) fn clear(&mut self, recipe: &Arc<str>) -> usize {
        let lane = self.lanes.remove(recipe).unwrap_or_default();
        self.len -= lane.len();
        self.turns.leave(recipe);
        lane.len()
    }

    /// Removes and returns the next version to build, of a recipe that `may_build` admits, and
    /// whether it is urgent.
    pub(crate) fn pop(
        &mut self,
        may_build: impl Fn(&Arc<str>) -> bool,
    ) -> Option<(Arc<str>, Candidate, bool)> {
        let recipe = self.turns.iter().find(|recipe| may_build(recipe))?.clone();
        let mut lane = self.lanes.remove(&recipe)?;
        self.len -= lane.len();
        let next = lane.pop();
        self.put_lane(&recipe, lane);
        let (candidate, waits) = next?;
        Some((recipe, candidate, waits == Waits::Urgent))
    }

    /// Records that a build of `recipe` has started.
    pub(crate) fn on_build_started(&mut self, recipe: &Arc<str>) {
        self.turns.begin_use(recipe);
    }

    /// Records that a build of `recipe` has ended after `took`.
    pub(crate) fn on_build_ended(&mut self, recipe: &Arc<str>, took: Duration) {
        self.turns.end_use(recipe, took);
    }

    /// Charges a failed fetch of another recipe of its upstream to `recipe`, if it has versions
    /// waiting.
    pub(crate) fn charge(&mut self, recipe: &Arc<str>, took: Duration) {
        if self.has_versions_of(recipe) {
            self.turns.charge(recipe, took);
        }
    }

    /// Makes the urgent versions of `recipe` wait for its turn.
    pub(crate) fn clear_urgency(&mut self, recipe: &Arc<str>) {
        if let Some(mut lane) = self.lanes.remove(recipe) {
            self.len -= lane.len();
            let mut urgent = std::mem::take(&mut lane.urgent);
            lane.untried.append(&mut urgent);
            lane.sort();
            self.put_lane(recipe, lane);
        }
    }

    /// Whether a version of `recipe` waits.
    pub(crate) fn has_versions_of(&self, recipe: &str) -> bool {
        self.lanes.contains_key(recipe)
    }

    /// Whether this version waits.
    pub(crate) fn has(&self, recipe: &str, version: &Version) -> bool {
        let lane = self.lanes.get(recipe);
        lane.is_some_and(|lane| lane.all().any(|candidate| candidate.version == *version))
    }

    /// Returns how many versions of `recipe` wait.
    pub(crate) fn len_of(&self, recipe: &str) -> usize {
        self.lanes.get(recipe).map_or(0, |lane| lane.len())
    }

    /// Returns the tags of the waiting versions of `recipe`, the next one first.
    pub(crate) fn tags_of(&self, recipe: &str) -> impl Iterator<Item = &str> {
        self.lanes.get(recipe).into_iter().flat_map(|lane| lane.all().map(|candidate| &*candidate.tag))
    }

    /// Returns how many versions wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns all waiting versions, recipe by recipe, and why each waits.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Candidate, Waits)> {
        self.lanes.iter().flat_map(|(recipe, lane)| {
            let lists = [
                (&lane.urgent, Waits::Urgent),
                (&lane.untried, Waits::Untried),
                (&lane.retries, Waits::Retry),
            ];
            lists.into_iter().flat_map(move |(list, waits)| {
                list.iter().rev().map(move |candidate| (recipe, candidate, waits))
            })
        })
    }

    #[cfg(test)]
    pub(crate) fn used(&self, recipe: &Arc<str>) -> Duration {
        self.turns.used(recipe)
    }

    #[cfg(test)]
    pub(crate) fn is_forgotten(&self) -> bool {
        self.lanes.is_empty() && self.len == 0 && self.turns.is_forgotten()
    }

    /// Puts a lane (back) in and keeps `turns` in step: exactly the recipes with a waiting version
    /// have a place.
    fn put_lane(&mut self, recipe: &Arc<str>, lane: Box<Counted<Lane>>) {
        if lane.len() == 0 {
            self.turns.leave(recipe);
            return;
        }
        self.len += lane.len();
        self.turns.join(recipe, !lane.urgent.is_empty());
        self.lanes.insert(recipe.clone(), lane);
    }
}

impl Lane {
    fn len(&self) -> usize {
        self.urgent.len() + self.untried.len() + self.retries.len()
    }

    /// Returns all versions, the next one of each list first.
    fn all(&self) -> impl Iterator<Item = &Candidate> {
        [&self.urgent, &self.untried, &self.retries].into_iter().flat_map(|list| list.iter().rev())
    }

    fn pop(&mut self) -> Option<(Candidate, Waits)> {
        if let Some(candidate) = self.urgent.pop() {
            return Some((candidate, Waits::Urgent));
        }
        let retries_first = !self.retried_last && !self.retries.is_empty() || self.untried.is_empty();
        self.retried_last = retries_first;
        if retries_first {
            Some((self.retries.pop()?, Waits::Retry))
        } else {
            Some((self.untried.pop()?, Waits::Untried))
        }
    }

    fn sort(&mut self) {
        for list in [&mut self.urgent, &mut self.untried, &mut self.retries] {
            sort::sort_by(list, order);
        }
    }

    /// Drops the oldest versions beyond [`MAX_WAITING`], untried ones first. Returns their number.
    fn cut(&mut self) -> usize {
        let too_many = self.len().saturating_sub(MAX_WAITING);
        let mut left = too_many;
        for list in [&mut self.untried, &mut self.retries, &mut self.urgent] {
            let count = left.min(list.len());
            list.drain(..count);
            list.shrink_to_fit();
            left -= count;
        }
        too_many
    }
}

/// Compares for "oldest first". Equal versions follow the order of their text, so that a run can be
/// repeated.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    a.version.sort_cmp(&b.version).then_with(|| b.version.as_str().cmp(a.version.as_str()))
}

#[cfg(test)]
mod tests;
