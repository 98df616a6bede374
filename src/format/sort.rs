//! Sorts slices by the standard library's algorithm, of which this keeps the program at one copy.
//! `slice::sort` is compiled anew for each type and order, at 6 kB each. So is `collect` into an ordered
//! map or set, which sorts: fold with [`entered`] or [`included`]. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Sorts `list`. Equal elements keep their order, as in all functions here.
pub fn sort<T: Ord>(list: &mut [T]) {
    sort_by(list, T::cmp);
}

/// Sorts `list` by `compare`.
pub fn sort_by<T>(list: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut order: Vec<usize> = (0..list.len()).collect();
    sort_places(&mut order, &|a, b| compare(&list[a], &list[b]));
    for place in 0..list.len() {
        let mut from = order[place];
        // An earlier swap has moved the element at `from`. The entry there says to where.
        while from < place {
            from = order[from];
        }
        order[place] = from;
        list.swap(place, from);
    }
}

/// Sorts places in another slice by `compare`.
pub fn sort_places(order: &mut [usize], compare: &dyn Fn(usize, usize) -> Ordering) {
    order.sort_by(|a, b| compare(*a, *b));
}

/// Returns `map` with one entry more: `pairs.fold(BTreeMap::new(), entered)`.
#[must_use]
pub fn entered<K: Ord, V>(mut map: BTreeMap<K, V>, (key, value): (K, V)) -> BTreeMap<K, V> {
    map.insert(key, value);
    map
}

/// Returns `set` with one element more: `elements.fold(BTreeSet::new(), included)`.
#[must_use]
pub fn included<T: Ord>(mut set: BTreeSet<T>, element: T) -> BTreeSet<T> {
    set.insert(element);
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_equal_elements_keep_their_order() {
        let mut state = 1_u32;
        for length in (0..70).chain([1000]) {
            let mut found: Vec<(u32, usize)> = (0..length)
                .map(|place| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 28, place)
                })
                .collect();
            let mut expected = found.clone();
            expected.sort_by_key(|(key, _)| *key);
            sort_by(&mut found, |a, b| a.0.cmp(&b.0));
            assert_eq!(found, expected);
            let mut reversed: Vec<String> = (0..length).rev().map(|place| format!("{place:04}")).collect();
            sort(&mut reversed);
            assert!(reversed.is_sorted());
        }
    }
}
