//! What was fetched ahead of its build, and how much to fetch ahead next. Pure:
//! time is an argument.
//!
//! A backlog of small versions costs a fraction of the round trips if many are
//! fetched at once. But what is fetched too early is fetched again, and a first
//! build should not wait for a backlog's bytes. So the reach begins at one version,
//! doubles each time that everything was used while it was fresh, and falls back to
//! one when something grew old or a fetch of several has failed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::farm::events::FETCH_AHEAD;
use crate::farm::moment::Moment;

/// How long a tag that was fetched ahead is taken for what the upstream has: not
/// longer than a tag may wait between a poll and its build anyway.
const FRESH: Duration = Duration::from_mins(1);

/// The tags of one repository that were fetched ahead of their builds.
#[derive(Debug)]
pub(super) struct Ahead {
    tags: HashMap<String, Tag>,
    reach: usize,
}

#[derive(Debug)]
struct Tag {
    fetched: Moment,
    /// The committer time of its commit, where that is known.
    committed: Option<SystemTime>,
}

impl Tag {
    fn is_fresh(&self, now: Moment) -> bool {
        now.saturating_since(self.fetched) < FRESH
    }
}

/// A tag that need not be fetched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    /// The committer time of its commit, if it is known.
    pub(super) committed: Option<SystemTime>,
}

impl Ahead {
    /// Nothing is fetched yet.
    pub(super) fn new() -> Self {
        Self { tags: HashMap::new(), reach: 1 }
    }

    /// Takes `tag` out, if it was fetched a short while ago. A tag can be moved: what was fetched
    /// earlier is to be fetched again.
    pub(super) fn take(&mut self, tag: &str, now: Moment) -> Option<Fetched> {
        let found = self.tags.remove(tag)?;
        if found.is_fresh(now) {
            return Some(Fetched { committed: found.committed });
        }
        self.reach = 1;
        None
    }

    /// Those of the tags `next` that are to be fetched together with the one that is built now.
    pub(super) fn plan(&mut self, next: &[String], now: Moment) -> Vec<String> {
        let before = self.tags.len();
        self.tags.retain(|_, tag| tag.is_fresh(now));
        if self.tags.len() < before {
            self.reach = 1;
        }
        next.iter().filter(|tag| !self.tags.contains_key(*tag)).take(self.reach).cloned().collect()
    }

    /// Takes note of tags that are now there, and of the committer times that are known.
    pub(super) fn note(&mut self, tags: &[String], committed: &HashMap<String, SystemTime>, now: Moment) {
        if self.tags.is_empty() {
            self.reach = (self.reach * 2).min(FETCH_AHEAD);
        }
        let committed = |tag| committed.get(tag).copied();
        self.tags
            .extend(tags.iter().map(|tag| (tag.clone(), Tag { fetched: now, committed: committed(tag) })));
    }

    /// Takes note that several tags could not be fetched in one go.
    pub(super) fn note_failure(&mut self) {
        self.tags.clear();
        self.reach = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| format!("v{number}")).collect()
    }

    #[test]
    fn builds_are_quick_the_reach_grows() {
        let now = Moment::ZERO + Duration::from_secs(1000);
        let mut ahead = Ahead::new();
        let mut next = 1;
        for reach in [1, 2, 4, 8, 16, 32, 64, 64] {
            let waiting = tags(next..next + 100);
            let plan = ahead.plan(&waiting, now);
            assert_eq!(plan, tags(next..next + reach));
            ahead.note(&plan, &HashMap::new(), now);
            for tag in &plan {
                assert_eq!(ahead.take(tag, now), Some(Fetched { committed: None }));
                assert_eq!(ahead.take(tag, now), None, "once");
            }
            next += reach + 1;
        }
    }

    #[test]
    fn fetched_source_grown_old_is_dropped_and_the_reach_falls_back() {
        let now = Moment::ZERO + Duration::from_secs(1000);
        let waiting = tags(0..100);
        let grown = || {
            let mut ahead = Ahead::new();
            for _ in 0..4 {
                ahead.tags.clear();
                ahead.note(&tags(0..8), &HashMap::new(), now);
            }
            assert_eq!(ahead.plan(&waiting, now), tags(8..24), "not again what is there");
            ahead
        };
        let mut ahead = grown();
        assert!(ahead.take("v0", now + FRESH).is_none());
        assert_eq!(ahead.plan(&waiting, now + FRESH), tags(0..1), "after an old tag was asked for");
        let mut ahead = grown();
        assert_eq!(ahead.plan(&waiting, now + FRESH), tags(0..1), "when old tags lie unused");
        let mut ahead = grown();
        ahead.note_failure();
        assert!(ahead.take("v0", now).is_none());
        assert_eq!(ahead.plan(&waiting, now), tags(0..1), "after a failure");
    }

    #[test]
    fn fetched_source_unused_the_reach_does_not_grow() {
        let now = Moment::ZERO + Duration::from_secs(1000);
        let mut ahead = Ahead::new();
        for (number, reach) in [(0, 1), (10, 2), (20, 2), (30, 2)] {
            let plan = ahead.plan(&tags(number..number + 9), now);
            assert_eq!(plan.len(), reach);
            ahead.note(&plan, &HashMap::new(), now);
        }
        for tag in ["v0", "v10", "v11", "v20", "v31"] {
            assert!(ahead.take(tag, now).is_some(), "{tag}");
        }
    }

    #[test]
    fn commit_times_known_come_along() {
        let now = Moment::ZERO + Duration::from_secs(1000);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let mut ahead = Ahead::new();
        ahead.note(&tags(1..3), &HashMap::from([("v1".to_owned(), time)]), now);
        assert_eq!(ahead.take("v1", now), Some(Fetched { committed: Some(time) }));
        assert_eq!(ahead.take("v2", now), Some(Fetched { committed: None }));
        assert!(ahead.plan(&[], now).is_empty());
    }
}
