//! Decides which tags a fetch prefetches for the next builds, and which prefetched tags are still
//! fresh. Pure: time is an argument.
//!
//! Fetching the small versions of a backlog together costs a fraction of the round trips. But a tag
//! prefetched too early must be fetched again, and the first build should not wait for the bytes of
//! a whole backlog. So the prefetch window begins at one tag, doubles each time that builds have
//! used all prefetched tags while fresh, and falls back to one when a tag expires.

use std::collections::HashMap;
use std::time::Duration;

use crate::farm::events::FETCH_AHEAD;
use crate::farm::moment::Moment;
use crate::upstream::source::commit_times::Commit;

/// How long a prefetched tag counts as what the upstream has: a tag may also wait that long between
/// a poll and its build.
const FRESH: Duration = Duration::from_mins(1);

/// The prefetched tags of one repository, and the prefetch window.
#[derive(Debug)]
pub(super) struct Prefetched {
    tags: HashMap<String, PrefetchedTag>,
    /// How many tags to prefetch next.
    window: usize,
}

#[derive(Debug)]
struct PrefetchedTag {
    at: Moment,
    commit: Option<Commit>,
}

impl PrefetchedTag {
    fn is_fresh(&self, now: Moment) -> bool {
        now.saturating_since(self.at) < FRESH
    }
}

/// A tag whose files are in the repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FetchedTag {
    /// Its commit, if the fetch has found it out.
    pub(super) commit: Option<Commit>,
}

impl Prefetched {
    pub(super) fn new() -> Self {
        Self { tags: HashMap::new(), window: 1 }
    }

    /// Whether no tag is prefetched.
    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Removes `tag`, and returns it if it is fresh. An upstream can move a tag, so an expired one
    /// must be fetched again.
    pub(super) fn take(&mut self, tag: &str, now: Moment) -> Option<FetchedTag> {
        let prefetched = self.tags.remove(tag)?;
        if prefetched.is_fresh(now) {
            return Some(FetchedTag { commit: prefetched.commit });
        }
        self.window = 1;
        None
    }

    /// Returns the tags out of `next` to prefetch together with the tag that is built now.
    pub(super) fn plan(&mut self, next: &[String], now: Moment) -> Vec<String> {
        let before = self.tags.len();
        self.tags.retain(|_, tag| tag.is_fresh(now));
        if self.tags.len() < before {
            self.window = 1;
        }
        next.iter().filter(|tag| !self.tags.contains_key(*tag)).take(self.window).cloned().collect()
    }

    /// Records a prefetch of `tags` that began at `at`.
    pub(super) fn record(&mut self, tags: &[String], commits: &HashMap<String, Commit>, at: Moment) {
        if self.tags.is_empty() {
            self.window = (self.window * 2).min(FETCH_AHEAD);
        }
        let prefetched = |tag| PrefetchedTag { at, commit: commits.get(tag).cloned() };
        self.tags.extend(tags.iter().map(|tag| (tag.clone(), prefetched(tag))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| format!("v{number}")).collect()
    }

    #[test]
    fn window_all_tags_used_fresh_doubles() {
        let now = Moment::ZERO + Duration::from_secs(1000);
        let mut prefetched = Prefetched::new();
        let mut next = 1;
        for window in [1, 2, 4, 8, 16, 32, 64, 64] {
            let waiting = tags(next..next + 100);
            let plan = prefetched.plan(&waiting, now);
            assert_eq!(plan, tags(next..next + window));
            prefetched.record(&plan, &HashMap::new(), now);
            for tag in &plan {
                assert_eq!(prefetched.take(tag, now), Some(FetchedTag { commit: None }));
                assert_eq!(prefetched.take(tag, now), None, "once");
            }
            next += window + 1;
        }
    }

    #[test]
    fn window_tag_expired_falls_back_to_one() {
        let now = Moment::ZERO + Duration::from_secs(1000);
        let waiting = tags(0..100);
        let grown = || {
            let mut prefetched = Prefetched::new();
            for _ in 0..4 {
                prefetched.tags.clear();
                prefetched.record(&tags(0..8), &HashMap::new(), now);
            }
            assert_eq!(prefetched.plan(&waiting, now), tags(8..24), "without those already there");
            prefetched
        };
        let mut prefetched = grown();
        assert!(prefetched.take("v0", now + FRESH).is_none());
        assert_eq!(prefetched.plan(&waiting, now + FRESH), tags(0..1), "after an expired tag was taken");
        let mut prefetched = grown();
        assert_eq!(prefetched.plan(&waiting, now + FRESH), tags(0..1), "after unused tags have expired");
    }

    #[test]
    fn window_tags_unused_does_not_grow() {
        let now = Moment::ZERO + Duration::from_secs(1000);
        let mut prefetched = Prefetched::new();
        for (number, window) in [(0, 1), (10, 2), (20, 2), (30, 2)] {
            let plan = prefetched.plan(&tags(number..number + 9), now);
            assert_eq!(plan.len(), window);
            prefetched.record(&plan, &HashMap::new(), now);
        }
        for tag in ["v0", "v10", "v11", "v20", "v31"] {
            assert!(prefetched.take(tag, now).is_some(), "{tag}");
        }
    }

    #[test]
    fn prefetched_tag_has_its_commit_if_known() {
        let now = Moment::ZERO + Duration::from_secs(1000);
        let (id, time) = ("c1".to_owned(), std::time::SystemTime::UNIX_EPOCH);
        let commit = Commit { id, time, tag_object: None };
        let mut prefetched = Prefetched::new();
        prefetched.record(&tags(1..3), &HashMap::from([("v1".to_owned(), commit.clone())]), now);
        assert_eq!(prefetched.take("v1", now), Some(FetchedTag { commit: Some(commit) }));
        assert_eq!(prefetched.take("v2", now), Some(FetchedTag { commit: None }));
        assert!(prefetched.plan(&[], now).is_empty());
    }
}
