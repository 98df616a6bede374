//! Times of day: the core counts [`Moment`]s, people read clocks. Pure.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::farm::moment::Moment;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(SystemTime);

impl Time {
    /// Returns a time of the system clock.
    pub(crate) fn of(time: SystemTime) -> Self {
        Self(time)
    }

    /// Returns the time in seconds since 1970.
    pub(crate) fn seconds(self) -> u64 {
        self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}

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
