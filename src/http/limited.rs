//! Counts events that any client can cause, so that the log has at most one line a second for them.
//! It must not log itself: each caller has its own line.

use std::time::{Duration, Instant};

/// The least time between two lines. A line for each event could fill the log.
const PAUSE: Duration = Duration::from_secs(1);

/// Events of one kind since the last line.
#[derive(Debug)]
pub(super) struct Limited<T> {
    logged: Option<Instant>,
    latest: Option<T>,
    others: u64,
}

impl<T> Default for Limited<T> {
    fn default() -> Self {
        Self { logged: None, latest: None, others: 0 }
    }
}

impl<T> Limited<T> {
    /// Counts `event`.
    pub(super) fn record(&mut self, event: T) {
        if self.latest.replace(event).is_some() {
            self.others += 1;
        }
    }

    /// Returns the latest event to log, and how many others are left out; nothing while the last
    /// line is younger than a second.
    pub(super) fn due(&mut self, now: Instant) -> Option<(T, u64)> {
        if self.logged.is_some_and(|logged| now.saturating_duration_since(logged) < PAUSE) {
            return None;
        }
        let latest = self.latest.take()?;
        self.logged = Some(now);
        Some((latest, std::mem::take(&mut self.others)))
    }

    /// Whether an event waits for its line.
    pub(super) fn is_waiting(&self) -> bool {
        self.latest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_within_a_second_share_a_line() {
        let (mut limited, begin) = (Limited::default(), Instant::now());
        limited.record(1);
        assert_eq!(limited.due(begin), Some((1, 0)));
        for event in 2..=5 {
            limited.record(event);
            assert_eq!(limited.due(begin + PAUSE / 2), None);
        }
        assert!(limited.is_waiting());
        assert_eq!(limited.due(begin + PAUSE), Some((5, 3)));
        assert_eq!(limited.due(begin + 3 * PAUSE), None, "nothing has happened since");
    }
}
