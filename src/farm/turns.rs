//! Fair turns: of all that wait for one resource, the one that has used it least goes first. Pure.
//!
//! Time counts, not the number of turns: a recipe whose builds take an hour must not get as many
//! turns as one whose builds take a minute. Time used while nobody else waited is forgotten, so a
//! recipe does not pay for an idle farm.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// The order of everything that waits for one resource.
#[derive(Debug)]
pub(super) struct Turns<K> {
    /// How long each has used the resource. Forgotten when nobody waits.
    used: HashMap<K, Duration>,
    /// The place of each that waits.
    places: HashMap<K, Place>,
    /// The places of those with urgent work, which go before all others.
    urgent: BTreeSet<(Duration, u64, K)>,
    /// The places of the others.
    ordinary: BTreeSet<(Duration, u64, K)>,
    /// Those that use the resource now, and how often.
    running: HashMap<K, usize>,
    /// The number of the last place.
    last_number: u64,
}

/// A place in the order.
#[derive(Debug, Clone, Copy)]
struct Place {
    is_urgent: bool,
    used: Duration,
    /// At equal times, the one that has waited longest goes first.
    number: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self {
            used: HashMap::new(),
            places: HashMap::new(),
            urgent: BTreeSet::new(),
            ordinary: BTreeSet::new(),
            running: HashMap::new(),
            last_number: 0,
        }
    }
}

impl<K: Ord + Hash + Clone> Turns<K> {
    /// Lets `key` wait. One that waits already keeps its place among those of its urgency. A newcomer
    /// starts at the least used time of those that wait, or at its own if that is more: leaving and
    /// coming back must not cancel a debt.
    pub(super) fn join(&mut self, key: &K, is_urgent: bool) {
        let place = if let Some(place) = self.places.get(key) {
            Place { is_urgent, ..*place }
        } else {
            let least = self.least();
            let used = self.used.get(key).copied().unwrap_or_default().max(least);
            Place { is_urgent, used, number: self.next_number() }
        };
        self.put(key, place);
    }

    /// Removes `key` from those that wait.
    pub(super) fn leave(&mut self, key: &K) {
        if let Some(Place { is_urgent, used, number }) = self.places.remove(key) {
            let order = if is_urgent { &mut self.urgent } else { &mut self.ordinary };
            order.remove(&(used, number, key.clone()));
        }
    }

    /// Returns those that wait, the next one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &K> {
        self.urgent.iter().chain(&self.ordinary).map(|(_, _, key)| key)
    }

    /// Records that `key` uses the resource from now on.
    pub(super) fn begin_use(&mut self, key: &K) {
        self.used.entry(key.clone()).or_default();
        *self.running.entry(key.clone()).or_default() += 1;
    }

    /// Records that `key` has used the resource for `took`. It goes behind all that have used it as
    /// long.
    pub(super) fn end_use(&mut self, key: &K, took: Duration) {
        if let Some(count) = self.running.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(key);
            }
        }
        self.charge(key, took);
    }

    /// Charges `took` to `key`: it used the resource, or caused others to use it in vain.
    pub(super) fn charge(&mut self, key: &K, took: Duration) {
        let used = self.used.entry(key.clone()).or_default();
        *used = used.saturating_add(took);
        let used = *used;
        if let Some(place) = self.places.get(key).copied() {
            let number = self.next_number();
            self.put(key, Place { used, number, ..place });
        }
    }

    /// Forgets the times of those that `is_known` refuses. None of them may be waiting.
    pub(super) fn retain(&mut self, is_known: impl Fn(&K) -> bool) {
        self.used.retain(|key, _| is_known(key) || self.running.contains_key(key));
    }

    #[cfg(test)]
    pub(super) fn used(&self, key: &K) -> Duration {
        self.used.get(key).copied().unwrap_or_default()
    }

    /// Whether no key has a time, a place or a use.
    #[cfg(test)]
    pub(super) fn is_forgotten(&self) -> bool {
        self.used.is_empty() && self.places.is_empty() && self.running.is_empty()
    }

    /// Returns the least used time of those that wait, else of those that use the resource. If nobody
    /// waits or uses it, forgets all times and returns zero.
    fn least(&mut self) -> Duration {
        let first = [&self.urgent, &self.ordinary].map(|order| order.first().map(|(used, ..)| *used));
        let of_running = || self.running.keys().filter_map(|key| self.used.get(key)).min().copied();
        first.into_iter().flatten().min().or_else(of_running).unwrap_or_else(|| {
            self.used.clear();
            Duration::ZERO
        })
    }

    fn put(&mut self, key: &K, place: Place) {
        self.leave(key);
        self.used.insert(key.clone(), place.used);
        self.places.insert(key.clone(), place);
        let order = if place.is_urgent { &mut self.urgent } else { &mut self.ordinary };
        order.insert((place.used, place.number, key.clone()));
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// Plays turns, each as long as its key costs; returns the keys in order.
    fn play(turns: &mut Turns<char>, costs: &[(char, u32)], count: usize) -> String {
        let mut order = String::new();
        for _ in 0..count {
            let key = *turns.iter().next().expect("somebody waits");
            let minutes = costs.iter().find(|(other, _)| *other == key).map_or(1, |(_, cost)| *cost);
            turns.begin_use(&key);
            turns.end_use(&key, MINUTE * minutes);
            order.push(key);
        }
        order
    }

    fn waiting(keys: &str) -> Turns<char> {
        let mut turns = Turns::default();
        keys.chars().for_each(|key| turns.join(&key, false));
        turns
    }

    #[test]
    fn turns_of_equal_length_go_round() {
        assert_eq!(play(&mut waiting("abc"), &[], 7), "abcabca");
    }

    #[test]
    fn turns_of_unequal_length_share_the_time() {
        assert_eq!(play(&mut waiting("ab"), &[('a', 3)], 9), "abbbabbba");
    }

    #[test]
    fn newcomer_starts_with_the_least_of_those_that_wait() {
        let mut turns = waiting("ab");
        assert_eq!(play(&mut turns, &[('a', 10), ('b', 4)], 4), "abbb");
        turns.join(&'c', false);
        // `a` has used 10 minutes, `b` 12, and `c` counts from 10.
        assert_eq!(play(&mut turns, &[], 6), "acacba");
    }

    #[test]
    fn one_that_comes_back_still_owes_its_time_while_others_wait() {
        let mut turns = waiting("ab");
        assert_eq!(play(&mut turns, &[('a', 5)], 1), "a");
        turns.leave(&'a');
        turns.join(&'a', false);
        assert_eq!(play(&mut turns, &[], 6), "bbbbba");
    }

    #[test]
    fn time_used_while_nobody_waits_is_forgotten() {
        let mut turns = waiting("a");
        assert_eq!(play(&mut turns, &[('a', 100)], 1), "a");
        turns.leave(&'a');
        turns.join(&'b', false);
        turns.join(&'a', false);
        assert_eq!(play(&mut turns, &[], 4), "baba");
    }

    #[test]
    fn newcomer_during_the_only_use_does_not_wait_for_the_user_again() {
        let mut turns = waiting("a");
        turns.begin_use(&'a');
        turns.join(&'b', false);
        turns.end_use(&'a', MINUTE * 60);
        assert_eq!(play(&mut turns, &[], 60).replace('b', ""), "");
        assert_eq!(play(&mut turns, &[], 2), "ab");
    }

    #[test]
    fn urgent_key_goes_first_and_pays_for_it() {
        let mut turns = waiting("ab");
        turns.join(&'b', true);
        assert_eq!(play(&mut turns, &[('b', 2)], 1), "b");
        turns.join(&'b', false);
        assert_eq!(play(&mut turns, &[], 4), "aaba");
    }

    #[test]
    fn charge_without_use_moves_one_that_waits_back() {
        let mut turns = waiting("ab");
        turns.charge(&'a', MINUTE * 2);
        assert_eq!(play(&mut turns, &[], 3), "bba");
    }

    #[test]
    fn retain_forgets_the_time_of_a_key() {
        let mut turns = waiting("ab");
        turns.charge(&'a', MINUTE * 9);
        turns.leave(&'a');
        turns.retain(|key| *key == 'b');
        turns.join(&'a', false);
        assert_eq!(play(&mut turns, &[], 4), "baba");
    }
}
