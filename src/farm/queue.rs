//! Which version is built next: webhook-triggered first, then one recipe after
//! the other, the newest version of each first. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use peipkg_format::version::Version;

/// A version that is to be built, and the tag it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The upstream's tag, without `refs/tags/`.
    pub tag: String,
    /// The package version it stands for.
    pub version: Version,
}

/// The versions waiting to be built, of all recipes.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lanes: BTreeMap<Arc<str>, Lane>,
    /// The recipes that have something waiting, the next one first.
    turns: VecDeque<Arc<str>>,
}

/// One recipe's versions, each list oldest first so that the newest is popped.
#[derive(Debug, Default)]
struct Lane {
    urgent: Vec<Candidate>,
    ordinary: Vec<Candidate>,
}

impl Queue {
    /// Replaces what waits for `recipe` by `candidates`. What a webhook has
    /// brought (`urgent`) and did not wait before goes ahead of all recipes.
    pub(crate) fn replace(&mut self, recipe: &Arc<str>, candidates: Vec<Candidate>, urgent: bool) {
        let before = self.lanes.remove(recipe).unwrap_or_default();
        let texts = |list: &[Candidate]| -> HashSet<String> {
            list.iter().map(|candidate| candidate.version.as_str().to_owned()).collect()
        };
        let was_urgent = texts(&before.urgent);
        let was_ordinary = if urgent { texts(&before.ordinary) } else { HashSet::new() };
        // With nothing to compare with, a whole backlog would be news: then only the newest is.
        let newest = candidates.iter().max_by(|a, b| a.version.sort_cmp(&b.version));
        let newest = newest.map(|candidate| candidate.version.as_str().to_owned());
        let nothing_waited = before.urgent.is_empty() && before.ordinary.is_empty();
        let (ahead, ordinary) = candidates.into_iter().partition(|candidate| {
            let version = candidate.version.as_str();
            let is_news = if nothing_waited {
                newest.as_deref() == Some(version)
            } else {
                !was_ordinary.contains(version)
            };
            was_urgent.contains(version) || (urgent && is_news)
        });
        let mut lane = Lane { urgent: ahead, ordinary };
        lane.sort();
        self.settle(recipe, lane);
    }

    /// Adds one version, unless it waits already.
    pub(crate) fn add(&mut self, recipe: &Arc<str>, candidate: Candidate) {
        let mut lane = self.lanes.remove(recipe).unwrap_or_default();
        if !lane.urgent.contains(&candidate) && !lane.ordinary.contains(&candidate) {
            let place = lane.ordinary.partition_point(|other| order(other, &candidate).is_lt());
            lane.ordinary.insert(place, candidate);
        }
        self.settle(recipe, lane);
    }

    /// Drops the versions of every recipe that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.lanes.retain(|recipe, _| keep(recipe));
        self.turns.retain(|recipe| keep(recipe));
    }

    /// Takes the version to build next, of those that `may` be built now, with whether a webhook has brought it: such a
    /// one always may.
    pub(crate) fn pop(
        &mut self,
        may: impl Fn(&Arc<str>, &Candidate) -> bool,
    ) -> Option<(Arc<str>, Candidate, bool)> {
        let place = self.turns.iter().position(|recipe| !self.lanes[recipe].urgent.is_empty());
        let place = place.or_else(|| {
            let lane_may =
                |recipe: &Arc<str>| self.lanes[recipe].ordinary.iter().rev().any(|c| may(recipe, c));
            self.turns.iter().position(lane_may)
        })?;
        let recipe = self.turns.remove(place)?;
        let mut lane = self.lanes.remove(&recipe)?;
        let urgent = lane.urgent.pop();
        let is_urgent = urgent.is_some();
        let candidate = urgent.or_else(|| {
            let place = lane.ordinary.iter().rposition(|candidate| may(&recipe, candidate))?;
            Some(lane.ordinary.remove(place))
        })?;
        self.settle(&recipe, lane);
        Some((recipe, candidate, is_urgent))
    }

    /// Has what a webhook has brought for `recipe` wait for its turn like all else.
    pub(crate) fn calm(&mut self, recipe: &str) {
        if let Some(lane) = self.lanes.get_mut(recipe) {
            lane.ordinary.append(&mut lane.urgent);
            lane.sort();
        }
    }

    /// Whether a version of `recipe` waits.
    pub(crate) fn has(&self, recipe: &str) -> bool {
        self.lanes.contains_key(recipe)
    }

    /// The tags of `recipe` that wait, the next one first.
    pub(crate) fn tags_of(&self, recipe: &str) -> impl Iterator<Item = &String> {
        let lane = self.lanes.get(recipe);
        let lists = lane.into_iter().flat_map(|lane| [&lane.urgent, &lane.ordinary]);
        lists.flat_map(|list| list.iter().rev().map(|candidate| &candidate.tag))
    }

    /// How many versions wait.
    pub(crate) fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.urgent.len() + lane.ordinary.len()).sum()
    }

    /// Everything that waits, recipe by recipe, with whether a webhook brought it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Candidate, bool)> {
        self.lanes.iter().flat_map(|(recipe, lane)| {
            let urgent = lane.urgent.iter().rev().map(move |candidate| (recipe, candidate, true));
            urgent.chain(lane.ordinary.iter().rev().map(move |candidate| (recipe, candidate, false)))
        })
    }

    /// Puts a lane (back) in and keeps `turns` in step: a recipe that has something
    /// waiting has exactly one turn, and a new turn comes after all others.
    fn settle(&mut self, recipe: &Arc<str>, lane: Lane) {
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

/// The oldest first. Versions that compare equal are built in the order of their text, so that a run can be repeated.
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
    fn recipes_take_turns_and_the_newest_version_goes_first() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1.9", "1.10", "1.0-rc1", "1.0"]), false);
        queue.replace(&"b".into(), candidates(&["2"]), false);
        queue.replace(&"c".into(), candidates(&["3", "4"]), false);
        assert_eq!(drain(&mut queue), ["a v1.10", "b v2", "c v4", "a v1.9", "c v3", "a v1.0", "a v1.0-rc1"]);
        assert!(queue.len() == 0);
    }

    #[test]
    fn only_what_a_webhook_has_brought_goes_ahead() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "2"]), false);
        queue.replace(&"b".into(), candidates(&["1", "2"]), false);
        queue.replace(&"b".into(), candidates(&["1", "2", "0.9"]), true);
        // A later poll does not take the urgency away.
        queue.replace(&"b".into(), candidates(&["1", "2", "0.9"]), false);
        assert_eq!(drain(&mut queue), ["b v0.9", "a v2", "b v2", "a v1", "b v1"]);
    }

    #[test]
    fn a_webhook_before_the_first_poll_does_not_bring_the_backlog_ahead() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "2"]), false);
        queue.replace(&"b".into(), candidates(&["1", "2", "3"]), true);
        assert_eq!(drain(&mut queue), ["b v3", "a v2", "b v2", "a v1", "b v1"]);
    }

    #[test]
    fn what_is_urgent_no_more_has_its_turn_like_all_else() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "3"]), false);
        queue.replace(&"b".into(), candidates(&["1"]), false);
        queue.replace(&"b".into(), candidates(&["1", "2", "3"]), true);
        let has_urgent = |queue: &Queue| queue.iter().any(|(.., urgent)| urgent);
        assert!(has_urgent(&queue));
        queue.calm("b");
        queue.calm("none");
        assert!(!has_urgent(&queue));
        queue.replace(&"b".into(), candidates(&["1", "2", "3"]), true);
        assert_eq!(drain(&mut queue), ["a v3", "b v3", "a v1", "b v2", "b v1"]);
    }

    #[test]
    fn versions_whose_order_goes_in_circles_are_built_all_the_same() {
        // By the specification 1~r < 1 < 1+git < 1~r; a sort that notices does not end well.
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
            queue.replace(&"a".into(), candidates(&shuffled), false);
            let built = drain(&mut queue);
            assert_eq!((built.len(), built[0].as_str()), (texts.len(), "a v1+rest.39"));
        }
    }

    #[test]
    fn what_a_poll_no_longer_finds_leaves_the_queue() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "2"]), false);
        queue.replace(&"a".into(), candidates(&["2"]), false);
        queue.add(&"a".into(), candidate("3"));
        queue.add(&"a".into(), candidate("3"));
        assert_eq!(drain(&mut queue), ["a v3", "a v2"]);
        queue.replace(&"a".into(), candidates(&["1"]), false);
        queue.replace(&"a".into(), candidates(&[]), false);
        assert!(queue.pop(|_, _| true).is_none());
    }

    #[test]
    fn what_may_not_be_built_yet_keeps_its_turn() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1", "2"]), false);
        queue.replace(&"b".into(), candidates(&["1", "2", "3"]), false);
        queue.replace(&"c".into(), candidates(&["1"]), false);
        let may = |recipe: &Arc<str>, found: &Candidate| &**recipe != "a" && found.tag != "v3";
        let mut next = || queue.pop(may).map(|(recipe, found, _)| format!("{recipe} {}", found.tag));
        assert_eq!(
            [next(), next(), next(), next()].map(Option::unwrap_or_default),
            ["b v2", "c v1", "b v1", ""]
        );
        queue.replace(&"a".into(), candidates(&["1", "2", "4"]), true);
        assert_eq!(queue.pop(may).expect("the webhook's").1.tag, "v4");
        assert_eq!(drain(&mut queue), ["b v3", "a v2", "a v1"]);
    }

    #[test]
    fn a_dropped_recipe_takes_its_versions_along() {
        let mut queue = Queue::default();
        queue.replace(&"a".into(), candidates(&["1"]), false);
        queue.replace(&"b".into(), candidates(&["1"]), false);
        queue.retain(|recipe| recipe != "a");
        assert_eq!(queue.iter().count(), 1);
        assert_eq!(drain(&mut queue), ["b v1"]);
    }
}
