//! Orders the waiting versions: urgent ones first, then the recipes in turn, the newest version of
//! each first. A version is urgent if a webhook brought it. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use peipkg_format::version::Version;

/// A version to build, and its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The upstream's tag, without `refs/tags/`.
    pub tag: String,
    /// The package version that the tag stands for.
    pub version: Version,
}

/// The versions of all recipes that wait to be built.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lanes: BTreeMap<Arc<str>, Lane>,
    /// The recipes with a waiting version, the next one first.
    turns: VecDeque<Arc<str>>,
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

/// One recipe's versions. Each list has the newest last, where it is popped.
#[derive(Debug, Default)]
struct Lane {
    urgent: Vec<Candidate>,
    ordinary: Vec<Candidate>,
}

impl Queue {
    /// Replaces the waiting versions of `recipe` by `candidates`, of which those that `urgency`
    /// names become urgent. Urgent versions stay so.
    pub(crate) fn replace(&mut self, recipe: &Arc<str>, candidates: Vec<Candidate>, urgency: Urgency) {
        let before = self.lanes.remove(recipe).unwrap_or_default();
        let texts = |list: &[Candidate]| -> HashSet<String> {
            list.iter().map(|candidate| candidate.version.as_str().to_owned()).collect()
        };
        let was_urgent = texts(&before.urgent);
        let was_ordinary = if urgency == Urgency::New { texts(&before.ordinary) } else { HashSet::new() };
        let newest = candidates.iter().max_by(|a, b| a.version.sort_cmp(&b.version));
        let newest = newest.map(|candidate| candidate.version.as_str().to_owned());
        let (ahead, ordinary) = candidates.into_iter().partition(|candidate| {
            let version = candidate.version.as_str();
            let becomes_urgent = match urgency {
                Urgency::None => false,
                Urgency::Newest => newest.as_deref() == Some(version),
                Urgency::New => !was_ordinary.contains(version),
            };
            was_urgent.contains(version) || becomes_urgent
        });
        let mut lane = Lane { urgent: ahead, ordinary };
        lane.sort();
        self.put_lane(recipe, lane);
    }

    /// Adds one version, unless it waits already.
    pub(crate) fn insert(&mut self, recipe: &Arc<str>, candidate: Candidate) {
        let mut lane = self.lanes.remove(recipe).unwrap_or_default();
        if !lane.urgent.contains(&candidate) && !lane.ordinary.contains(&candidate) {
            let place = lane.ordinary.partition_point(|other| order(other, &candidate).is_lt());
            lane.ordinary.insert(place, candidate);
        }
        self.put_lane(recipe, lane);
    }

    /// Drops the versions of every recipe that `has_work` refuses.
    pub(crate) fn retain(&mut self, has_work: impl Fn(&str) -> bool) {
        self.lanes.retain(|recipe, _| has_work(recipe));
        self.turns.retain(|recipe| has_work(recipe));
    }

    /// Removes and returns the next version to build, and whether it is urgent. Urgent versions are
    /// not asked for with `may_build`.
    pub(crate) fn pop(
        &mut self,
        may_build: impl Fn(&Arc<str>, &Candidate) -> bool,
    ) -> Option<(Arc<str>, Candidate, bool)> {
        let place = self.turns.iter().position(|recipe| !self.lanes[recipe].urgent.is_empty());
        let place = place.or_else(|| {
            let lane_may =
                |recipe: &Arc<str>| self.lanes[recipe].ordinary.iter().rev().any(|c| may_build(recipe, c));
            self.turns.iter().position(lane_may)
        })?;
        let recipe = self.turns.remove(place)?;
        let mut lane = self.lanes.remove(&recipe)?;
        let urgent = lane.urgent.pop();
        let is_urgent = urgent.is_some();
        let candidate = urgent.or_else(|| {
            let place = lane.ordinary.iter().rposition(|candidate| may_build(&recipe, candidate))?;
            Some(lane.ordinary.remove(place))
        })?;
        self.put_lane(&recipe, lane);
        Some((recipe, candidate, is_urgent))
    }

    /// Makes the urgent versions of `recipe` wait for its turn.
    pub(crate) fn clear_urgency(&mut self, recipe: &str) {
        if let Some(lane) = self.lanes.get_mut(recipe) {
            lane.ordinary.append(&mut lane.urgent);
            lane.sort();
        }
    }

    /// Whether a version of `recipe` waits.
    pub(crate) fn has_versions_of(&self, recipe: &str) -> bool {
        self.lanes.contains_key(recipe)
    }

    /// Returns the tags of the waiting versions of `recipe`, the next one first.
    pub(crate) fn tags_of(&self, recipe: &str) -> impl Iterator<Item = &String> {
        let lane = self.lanes.get(recipe);
        let lists = lane.into_iter().flat_map(|lane| [&lane.urgent, &lane.ordinary]);
        lists.flat_map(|list| list.iter().rev().map(|candidate| &candidate.tag))
    }

    /// Returns how many versions wait.
    pub(crate) fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.urgent.len() + lane.ordinary.len()).sum()
    }

    /// Returns all waiting versions, recipe by recipe, and whether each is urgent.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Candidate, bool)> {
        self.lanes.iter().flat_map(|(recipe, lane)| {
            let urgent = lane.urgent.iter().rev().map(move |candidate| (recipe, candidate, true));
            urgent.chain(lane.ordinary.iter().rev().map(move |candidate| (recipe, candidate, false)))
        })
    }

    /// Puts a lane (back) in and keeps `turns` in step: a recipe with a waiting version has exactly
    /// one turn, and a new turn comes last.
    fn put_lane(&mut self, recipe: &Arc<str>, lane: Lane) {
        if lane.urgent.is_empty() && lane.ordinary.is_empty() {
            self.turns.retain(|other| other != recipe);
            return;
        }
        self.lanes.insert(recipe.clone(), lane);
        if !self.turns.contains(recipe) {
            self.turns.push_back(recipe.clone());
        }
    }
}

impl Lane {
    fn sort(&mut self) {
        for list in [&mut self.urgent, &mut self.ordinary] {
            list.sort_by(order);
        }
    }
}

/// Compares for "oldest first". Equal versions follow the order of their text, so that a run can be
/// repeated.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    a.version.sort_cmp(&b.version).then_with(|| b.version.as_str().cmp(a.version.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(version: &str) -> Candidate {
        Candidate { tag: format!("v{version}"), version: format!("{version}-1").parse().unwrap() }
    }

    fn candidates(versions: &[&str]) -> Vec<Candidate> {
        versions.iter().map(|version| candidate(version)).collect()
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(|_, _| true))
            .map(|(recipe, found, _)| format!("{recipe} {}", found.tag))
            .collect()
    }

    #[test]
    fn pop_of_several_recipes_takes_turns_newest_version_first() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1.9", "1.10", "1.0-rc1", "1.0"]), Urgency::None);
        queue.replace(&"b".into(), candidates(&["2"]), Urgency::None);
        queue.replace(&"c".into(), candidates(&["3", "4"]), Urgency::None);
        assert_eq!(drain(&mut queue), ["a v1.10", "b v2", "c v4", "a v1.9", "c v3", "a v1.0", "a v1.0-rc1"]);
        assert!(queue.len() == 0);
    }

    #[test]
    fn replace_after_webhook_makes_only_new_versions_urgent() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "2"]), Urgency::None);
        queue.replace(&"b".into(), candidates(&["1", "2"]), Urgency::None);
        queue.replace(&"b".into(), candidates(&["1", "2", "0.9"]), Urgency::New);
        // A later poll does not take the urgency away.
        queue.replace(&"b".into(), candidates(&["1", "2", "0.9"]), Urgency::None);
        assert_eq!(drain(&mut queue), ["b v0.9", "a v2", "b v2", "a v1", "b v1"]);
    }

    #[test]
    fn replace_after_webhook_of_whole_backlog_makes_only_newest_urgent() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "2"]), Urgency::None);
        queue.replace(&"b".into(), candidates(&["1", "2", "3"]), Urgency::Newest);
        assert_eq!(drain(&mut queue), ["b v3", "a v2", "b v2", "a v1", "b v1"]);
    }

    #[test]
    fn clear_urgency_of_recipe_returns_it_to_its_turn() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "3"]), Urgency::None);
        queue.replace(&"b".into(), candidates(&["1"]), Urgency::None);
        queue.replace(&"b".into(), candidates(&["1", "2", "3"]), Urgency::New);
        let has_urgent = |queue: &Queue| queue.iter().any(|(.., urgent)| urgent);
        assert!(has_urgent(&queue));
        queue.clear_urgency("b");
        queue.clear_urgency("none");
        assert!(!has_urgent(&queue));
        queue.replace(&"b".into(), candidates(&["1", "2", "3"]), Urgency::New);
        assert_eq!(drain(&mut queue), ["a v3", "b v3", "a v1", "b v2", "b v1"]);
    }

    #[test]
    fn pop_of_versions_ordered_in_circles_returns_each_once() {
        // By the specification 1~r < 1 < 1+git < 1~r, and a library sort may panic on such an
        // order.
        let texts: Vec<String> = (0..40)
            .flat_map(|n| ["1~r", "1", "1+git", "1~s", "1+rest"].map(|text| format!("{text}.{n}")))
            .collect();
        let mut shuffled: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut random = 1_usize;
        for _ in 0..100 {
            for end in (1..shuffled.len()).rev() {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                shuffled.swap(end, (random >> 33) % (end + 1));
            }
            let mut queue = Queue::default();
            queue.replace(&"a".into(), candidates(&shuffled), Urgency::None);
            let built = drain(&mut queue);
            assert_eq!((built.len(), built[0].as_str()), (texts.len(), "a v1+rest.39"));
        }
    }

    #[test]
    fn replace_without_a_version_drops_it() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "2"]), Urgency::None);
        queue.replace(&"a".into(), candidates(&["2"]), Urgency::None);
        queue.insert(&"a".into(), candidate("3"));
        queue.insert(&"a".into(), candidate("3"));
        assert_eq!(drain(&mut queue), ["a v3", "a v2"]);
        queue.replace(&"a".into(), candidates(&["1"]), Urgency::None);
        queue.replace(&"a".into(), candidates(&[]), Urgency::None);
        assert!(queue.pop(|_, _| true).is_none());
    }

    #[test]
    fn pop_with_versions_held_leaves_their_turn() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "2"]), Urgency::None);
        queue.replace(&"b".into(), candidates(&["1", "2", "3"]), Urgency::None);
        queue.replace(&"c".into(), candidates(&["1"]), Urgency::None);
        let may = |recipe: &Arc<str>, found: &Candidate| &**recipe != "a" && found.tag != "v3";
        let mut next = || queue.pop(may).map(|(recipe, found, _)| format!("{recipe} {}", found.tag));
        assert_eq!(
            [next(), next(), next(), next()].map(Option::unwrap_or_default),
            ["b v2", "c v1", "b v1", ""]
        );
        queue.replace(&"a".into(), candidates(&["1", "2", "4"]), Urgency::New);
        assert_eq!(queue.pop(may).expect("the webhook's").1.tag, "v4");
        assert_eq!(drain(&mut queue), ["b v3", "a v2", "a v1"]);
    }

    #[test]
    fn retain_without_a_recipe_drops_its_versions() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1"]), Urgency::None);
        queue.replace(&"b".into(), candidates(&["1"]), Urgency::None);
        queue.retain(|recipe| recipe != "a");
        assert_eq!(queue.iter().count(), 1);
        assert_eq!(drain(&mut queue), ["b v1"]);
    }
}
