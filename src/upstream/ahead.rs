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

use crate::farm::event::FETCH_AHEAD;
use crate::farm::schedule::Moment;

/// How long a tag that was fetched ahead is taken for what the upstream has: not
/// longer than a tag may wait between a poll and its build anyway.
const FRESH: Duration = Duration::from_mins(1);

/// The tags of one repository that were fetched ahead of their builds.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Each with the committer time of its commit, where that is known.
    tags: HashMap<String, Option<SystemTime>>,
    fetched: Option<Moment>,
    reach: usize,
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
        Self { tags: HashMap::new(), fetched: None, reach: 1 }
    }

    /// Takes `tag` out, if it was fetched a short while ago. A tag can be moved: what was fetched
    /// earlier is to be fetched again.
    pub(super) fn take(&mut self, tag: &str, now: Moment) -> Option<Fetched> {
        let committed = self.tags.remove(tag)?;
        if self.is_fresh(now) {
            return Some(Fetched { committed });
        }
        self.tags.clear();
        self.reach = 1;
        None
    }

    /// Those of the tags `next` that are to be fetched together with the one that is built now.
    pub(super) fn plan<'t>(&mut self, next: &'t [String], now: Moment) -> &'t [String] {
        if !self.tags.is_empty() && !self.is_fresh(now) {
            self.reach = 1;
        }
        &next[..next.len().min(self.reach)]
    }

    /// Takes note of tags that are now there, and of the committer times that are known.
    pub(super) fn note(&mut self, tags: &[String], committed: &HashMap<String, SystemTime>, now: Moment) {
        self.tags = tags.iter().map(|tag| (tag.clone(), committed.get(tag).copied())).collect();
        self.fetched = Some(now);
        self.reach = (self.reach * 2).min(FETCH_AHEAD);
    }

    /// Takes note that several tags could not be fetched in one go.
    pub(super) fn note_failure(&mut self) {
        self.tags.clear();
        self.reach = 1;
    }

    fn is_fresh(&self, now: Moment) -> bool {
        self.fetched.is_some_and(|fetched| now.saturating_sub(fetched) < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| format!("v{number}")).collect()
    }

    #[test]
    fn the_reach_grows_while_builds_are_quick() {
        let now = Duration::from_secs(1000);
        let mut ahead = Ahead::new();
        let mut next = 1;
        for reach in [1, 2, 4, 8, 16, 32, 64, 64] {
            let waiting = tags(next..next + 100);
            let plan = ahead.plan(&waiting, now).to_vec();
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
    fn what_has_grown_old_is_not_taken_and_the_reach_falls_back() {
        let now = Duration::from_secs(1000);
        let waiting = tags(0..100);
        let grown = || {
            let mut ahead = Ahead::new();
            for _ in 0..4 {
                ahead.note(&tags(0..8), &HashMap::new(), now);
            }
            assert_eq!(ahead.plan(&waiting, now).len(), 16);
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
    fn known_commit_times_come_along() {
        let now = Duration::from_secs(1000);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let mut ahead = Ahead::new();
        ahead.note(&tags(1..3), &HashMap::from([("v1".to_owned(), time)]), now);
        assert_eq!(ahead.take("v1", now), Some(Fetched { committed: Some(time) }));
        assert_eq!(ahead.take("v2", now), Some(Fetched { committed: None }));
        assert_eq!(ahead.plan(&[], now), &[] as &[String]);
    }
}
