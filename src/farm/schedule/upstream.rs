//! One upstream in the schedule, and when its next poll is due. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::farm::backoff;
use crate::farm::events::PollError;
use crate::farm::moment::Moment;
use crate::farm::schedule::hosts::Waiter;
use crate::farm::schedule::phase::Phase;
use crate::recipe::upstream_url::UpstreamUrl;

/// The waits before the listings that follow a webhook's, until one shows other tags than before it:
/// forges announce a tag before it is visible. With the first one, a webhook costs four listings.
pub(super) const HOOK_REPEATS: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_mins(2)];

/// The answer of a successful listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listing {
    /// How many tags there are.
    pub tags: usize,
    /// A number that changes with the tags.
    pub fingerprint: u64,
}

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) interval: Duration,
    pub(super) phase: Phase,
    /// When the next poll is due; [`Moment::NEVER`] if there is none. In `due` while idle.
    pub(super) due: Moment,
    /// Its place among the waiters, while it waits.
    pub(super) waiter: Option<Waiter>,
    /// Not listed before this moment: then the pause of its host, or of the host that it redirects
    /// to, ends.
    pub(super) not_before: Moment,
    /// Whether no recipe watches it any more. Only its running listing keeps it here.
    pub(super) is_dropped: bool,
    /// Whether the poll that waits or runs, or the next one, is for a webhook.
    pub(super) urgent: bool,
    /// How many more listings the last webhook may cause.
    pub(super) hook_listings: usize,
    /// When the last listing for a webhook ended.
    pub(super) hook_listed: Option<Moment>,
    /// Failed listings in a row.
    pub(super) failures: u32,
    /// The fingerprint of the last successful listing.
    pub(super) fingerprint: Option<u64>,
    /// When the last successful listing ended; before the first one, when the upstream was first watched.
    pub(super) tags_known: Moment,
    /// When the last listing ended, and the number of tags or the error.
    pub(super) last: Option<(Moment, Result<usize, Arc<str>>)>,
}

impl Upstream {
    /// Creates an upstream, watched since `now`, that waits for its first poll.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            interval: Duration::ZERO,
            phase: Phase::Idle,
            due: Moment::NEVER,
            waiter: None,
            not_before: Moment::ZERO,
            is_dropped: false,
            urgent: false,
            hook_listings: 0,
            hook_listed: None,
            failures: 0,
            fingerprint: None,
            tags_known: now,
            last: None,
        }
    }

    /// Records the end of a listing, and decides when the next poll is due.
    pub(super) fn on_listed(
        &mut self,
        url: &UpstreamUrl,
        result: Result<Listing, PollError>,
        repeats: bool,
        now: Moment,
    ) {
        let regular = next_slot(url, self.interval, now);
        let mut has_news = false;
        self.due = regular;
        if let Ok(listing) = &result {
            self.failures = 0;
            self.tags_known = now;
            has_news = self.fingerprint.replace(listing.fingerprint) != Some(listing.fingerprint);
        } else {
            self.failures += 1;
            self.due = regular.min(now + backoff::wait_after(self.failures)).max(self.not_before);
        }
        // A listing that a webhook has overtaken says nothing of the webhook's tag.
        let is_overtaken = self.phase == Phase::AgainUrgent;
        if has_news && !is_overtaken {
            self.hook_listings = 0;
        } else if self.urgent {
            self.hook_listings = self.hook_listings.saturating_sub(1);
        }
        // A failed listing keeps its urgency: the webhook's tag is still to be seen.
        self.urgent &= repeats && (result.is_err() || self.hook_listings > 0);
        if self.urgent && self.hook_listings > 0 {
            let wait = HOOK_REPEATS[HOOK_REPEATS.len() - self.hook_listings.min(HOOK_REPEATS.len())];
            self.due = self.due.min(now + wait).max(self.not_before);
        }
        if !repeats {
            self.due = Moment::NEVER;
        }
        self.last = Some((now, result.map(|listing| listing.tags).map_err(|error| Arc::from(error.reason))));
    }
}

/// Returns the first regular poll after `now`. Each upstream has its own slots, an interval apart
/// and shifted by a hash of its URL, so that the polls of a farm spread out and stay where they
/// are.
pub(super) fn next_slot(url: &UpstreamUrl, interval: Duration, now: Moment) -> Moment {
    let interval = interval.max(Duration::from_millis(1)).as_millis();
    let offset = u128::from(hash_of(url)) % interval;
    let now = now.since_start().as_millis();
    let past_slots = (now + interval - offset) / interval;
    let next = offset + past_slots * interval;
    Moment::from_duration(Duration::from_millis(u64::try_from(next).unwrap_or(u64::MAX)))
}

/// Returns the same hash for equal values in every run.
pub(in crate::farm) fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
