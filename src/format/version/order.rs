//! Puts versions in order, newest first, although the specification's order has cycles. Pure.
//!
//! PSD-009 §2.2.7.2 compares two words by rank and letters, whether pre-release or not, so
//! `1+git` < `1~r`. But §2.2.7.4 has `1~r` < `1` < `1+git`. Only together are they a cycle: an archive
//! that has `1~r` and `1+git` without `1` has one right order. So the versions that are there decide:
//! where one of them has a number or its end at the place of the two words, pre-releases are older.

use std::cmp::Ordering;

use super::{ORDINARY_WORD, Segment, Version, rank, segments, sort_key};
use crate::sort::sort_places;

/// Returns the places of `versions`, newest first; equal versions keep their order. Contradicts
/// [`Version::compare`] only for two versions of a cycle.
pub fn newest_first(versions: &[Version]) -> Vec<usize> {
    let keys: Vec<Vec<Segment<'_>>> =
        versions.iter().map(|version| segments(version.upstream()).collect()).collect();
    let mut order: Vec<usize> = (0..versions.len()).collect();
    sort_places(&mut order, &|a, b| versions[b].revision().cmp(&versions[a].revision()));
    sort_places(&mut order, &|a, b| versions[b].epoch().cmp(&versions[a].epoch()));
    for group in order.chunk_by_mut(|a, b| versions[*a].epoch() == versions[*b].epoch()) {
        sort_from(group, &keys, 0);
    }
    order
}

/// Sorts versions that are equal before the segment `place`.
fn sort_from(order: &mut [usize], keys: &[Vec<Segment<'_>>], place: usize) {
    if order.len() < 2 {
        return;
    }
    let segment = |at: &usize| keys[*at].get(place);
    let splits = order.iter().any(|at| !matches!(segment(at), Some(Segment::Word { .. })));
    let compare = |a: &usize, b: &usize| -> Ordering {
        let key = |at| match segment(at) {
            Some(Segment::Word { text, .. }) if !splits => {
                (0, rank(text), 0, if rank(text) == ORDINARY_WORD { *text } else { "" })
            }
            segment => sort_key(segment),
        };
        key(b).cmp(&key(a))
    };
    sort_places(order, &|a, b| compare(&a, &b));
    for group in order.chunk_by_mut(|a, b| compare(a, b).is_eq()) {
        if segment(&group[0]).is_some() {
            sort_from(group, keys, place + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(texts: &[&str]) -> Vec<String> {
        let versions: Vec<Version> = texts.iter().map(|text| text.parse().unwrap()).collect();
        newest_first(&versions).into_iter().map(|at| versions[at].to_string()).collect()
    }

    #[track_caller]
    fn check(newest_first: &[&str]) {
        let mut texts = newest_first.to_vec();
        for _ in 0..texts.len() {
            texts.rotate_left(1);
            assert_eq!(sorted(&texts), newest_first, "from {texts:?}");
        }
        texts.reverse();
        assert_eq!(sorted(&texts), newest_first, "from {texts:?}");
    }

    #[test]
    fn words_are_in_the_specifications_order_unless_it_is_a_cycle() {
        check(&["1~r-1", "1+git-1"]);
        check(&["1+git-1", "1-1", "1~r-1"]);
        check(&["1+git-1", "1.5-1", "1~r-1"]);
        check(&["1~r2-1", "1+r1-1"]);
        check(&["2+git-1", "2-1", "2~r-1", "1~r-1", "1+git-1"]);
        check(&["1:0.1-1", "1~r-2", "1~r-1", "1+git-3", "1~rc-1"]);
        check(&["1.10-1", "1.9-1", "1.9-rc.1-1"]);
        assert_eq!(sorted(&["1.0~a-1", "1.0~alpha-1"]), ["1.0~a-1", "1.0~alpha-1"]);
        assert_eq!(sorted(&["1.0~alpha-1", "1.0~a-1"]), ["1.0~alpha-1", "1.0~a-1"]);
    }

    #[test]
    fn pairs_are_out_of_the_specifications_order_only_within_a_cycle() {
        let texts = ["1-1", "1~r-1", "1+git-1", "1+r-1", "1rc-1", "1.5-1", "1~r.2-1", "1~git.a-1", "1+z-1"];
        let all: Vec<Version> = texts.iter().map(|text| text.parse().unwrap()).collect();
        for mask in 0_usize..1 << texts.len() {
            let chosen = |place: &usize| mask >> place & 1 == 1;
            let some: Vec<Version> = (0..all.len()).filter(chosen).map(|place| all[place].clone()).collect();
            let order: Vec<&Version> = newest_first(&some).into_iter().map(|place| &some[place]).collect();
            for (place, first) in order.iter().enumerate() {
                for second in order[place + 1..].iter().filter(|second| first.compare(second).is_lt()) {
                    // A third version must close the cycle.
                    let is_between =
                        |third: &&Version| second.compare(third).is_lt() && third.compare(first).is_lt();
                    assert!(order.iter().any(is_between), "{first} before {second} of {some:?}");
                }
            }
        }
    }
}
