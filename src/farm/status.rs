//! The document of `/status`: an immutable snapshot of the farm, which holds no secret. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::farm::moment::Moment;

/// The document. Users depend on the names and order of the first six fields; further ones may be
/// added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `[manager] id`.
    pub farm_id: Arc<str>,
    /// The ids of all recipes, in order.
    pub recipes: Vec<Arc<str>>,
    /// Builds started since the manager was.
    pub builds_attempted: u64,
    /// Versions published since the manager was started.
    pub builds_succeeded: u64,
    /// The oldest build in progress, else a version whose publish is in progress.
    pub in_flight: Option<InFlight>,
    /// The failed versions that wait for a retry, by `<recipe>@<version>`; null if there are none.
    pub failures: Option<BTreeMap<String, Failure>>,
    /// The manager's version.
    pub version: &'static str,
    /// When the manager was started.
    pub started_at: Time,
    /// The versions that wait for a builder or the publisher, recipe by recipe; only the first of a
    /// long queue.
    pub queue: Vec<Queued>,
    /// How many versions wait for a builder or the publisher, in all.
    pub queue_length: usize,
    /// All builds in progress, the oldest first.
    pub builds: Vec<InFlight>,
    /// The versions of the publish in progress.
    pub publishes: Vec<InFlight>,
    /// The polls of each recipe with an upstream.
    pub polls: BTreeMap<Arc<str>, Poll>,
    /// The signed webhooks since the manager was started.
    pub webhooks: Webhooks,
    /// The upload that is owed to the remote, if one is.
    pub upload: Option<Upload>,
}

/// A build or a publish in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InFlight {
    /// The recipe's id.
    pub recipe: Arc<str>,
    /// The package version.
    pub version: String,
    /// When it was started.
    pub started_at: Time,
    /// The name of the log file with its output.
    pub log: Option<Arc<str>>,
}

/// A version that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// How often it failed in a row.
    pub failures: u32,
    /// When it is retried.
    pub next_retry: Time,
    /// `build` or `publish`.
    pub stage: &'static str,
    /// Why it failed the last time, in one line.
    pub last_error: String,
    /// The name of the log file with the output of that attempt.
    pub log: Option<Arc<str>>,
    /// The last lines of that log, if a build failed.
    pub log_tail: Vec<String>,
}

/// A version that waits for a builder or the publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// The recipe's id.
    pub recipe: Arc<str>,
    /// The package version.
    pub version: String,
    /// Why it waits: `webhook`, `poll`, `retry` or `publish`.
    pub reason: &'static str,
}

/// The polls of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Poll {
    /// When the last listing of its upstream ended.
    pub last_poll: Option<Time>,
    /// How many tags there were.
    pub tags_seen: Option<usize>,
    /// Why the last listing failed.
    pub error: Option<Arc<str>>,
    /// When it is listed next; null while a listing waits or runs.
    pub next_poll: Option<Time>,
}

/// The signed webhooks since the manager was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Webhooks {
    /// When the last one came, a ping included.
    pub last_received: Option<Time>,
    /// When the last one came whose repository a recipe watches.
    pub last_matched: Option<Time>,
    /// How many named a repository that no recipe watches.
    pub unmatched: u64,
    /// The last one of these.
    pub last_unmatched: Option<UnmatchedWebhook>,
}

/// A signed webhook that named a repository which no recipe watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnmatchedWebhook {
    /// When it came.
    pub received: Time,
    /// The names of the repository, as host and path.
    pub repositories: Vec<String>,
    /// Why no recipe was meant.
    pub reason: &'static str,
    /// The recipe with the most similar upstream.
    pub nearest: Option<Arc<str>>,
}

/// An upload that is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upload {
    /// How often it failed in a row.
    pub failures: u32,
    /// When the upload in progress was started; null if there is none.
    pub started_at: Option<Time>,
    /// When it is tried next; null while an upload is in progress.
    pub next_try: Option<Time>,
    /// Why it failed the last time, in one line.
    pub last_error: Option<String>,
}

impl Status {
    /// Returns the document as JSON, with a final newline.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and maps with string keys always serialize.
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

/// Converts the farm's moments to times of day.
#[derive(Debug, Clone, Copy)]
pub struct Calendar {
    /// When the farm was started, by the system clock.
    pub started: SystemTime,
}

impl Calendar {
    /// How far the system clock may be from where it was expected before it counts as set: a machine
    /// without a battery starts in 1970, and learns the time later.
    const STEP: Duration = Duration::from_secs(1);

    /// Returns the calendar that follows from the system clock `now`, `elapsed` after the start.
    #[must_use]
    pub fn corrected(self, now: SystemTime, elapsed: Duration) -> Self {
        let expected = self.started.checked_add(elapsed).unwrap_or(now);
        let step = now.duration_since(expected).unwrap_or_else(|error| error.duration());
        match now.checked_sub(elapsed) {
            // Small differences would let the times on the page flicker.
            Some(started) if step > Self::STEP => Self { started },
            _ => self,
        }
    }

    /// Returns the time of day at `moment`, at most the end of the year 9999.
    pub fn at(&self, moment: Moment) -> Time {
        /// The end of the year 9999: RFC 3339 has no later time.
        const END: Duration = Duration::from_secs(253_402_300_799);
        let end = SystemTime::UNIX_EPOCH + END;
        Time(self.started.checked_add(moment.since_start()).unwrap_or(end).min(end))
    }
}

/// A time, shown as RFC 3339 in UTC, to the second. The thread that renders the document formats it,
/// not the loop that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(SystemTime);

impl Default for Time {
    fn default() -> Self {
        Self(SystemTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(self.0).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_without_work_has_fixed_fields_first_and_null() {
        let status = Status { farm_id: "farm".into(), recipes: vec!["a".into()], ..Status::default() };
        let json = String::from_utf8(status.to_json()).unwrap();
        assert!(
            json.starts_with(
                r#"{"farm_id":"farm","recipes":["a"],"builds_attempted":0,"builds_succeeded":0,"in_flight":null,"failures":null,"#
            ),
            "{json}"
        );
        assert!(json.ends_with("}\n"));
    }

    #[test]
    fn calendar_follows_a_clock_that_is_set_but_does_not_flicker() {
        let second = Duration::from_secs(1);
        let early = Calendar { started: SystemTime::UNIX_EPOCH + second * 5 };
        let set = SystemTime::UNIX_EPOCH + second * 2_000_000_000;
        assert_eq!(early.corrected(set, second * 60).at(Moment::from_duration(second * 60)), Time(set));
        for off in [Duration::ZERO, second / 2] {
            let now = early.started + second * 60;
            for now in [now + off, now - off] {
                assert_eq!(early.corrected(now, second * 60).started, early.started);
            }
        }
        // A clock before the epoch of the process changes nothing.
        let start = Calendar { started: SystemTime::UNIX_EPOCH };
        assert_eq!(start.corrected(SystemTime::UNIX_EPOCH, second).at(Moment::ZERO).to_string().len(), 20);
    }

    #[test]
    fn calendar_of_moment_shows_utc() {
        let calendar = Calendar { started: SystemTime::UNIX_EPOCH };
        assert_eq!(
            calendar.at(Moment::from_duration(Duration::from_millis(61_999))).to_string(),
            "1970-01-01T00:01:01Z"
        );
        assert_eq!(calendar.at(Moment::NEVER).to_string(), "9999-12-31T23:59:59Z");
    }
}
