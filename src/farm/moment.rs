//! Points in time. Spans are [`Duration`]s; this file reads no clock. Pure.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point in time on a monotonic clock that starts at zero with its owner: the farm, or the
/// fetcher of sources. Moments of different owners cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The start of the clock.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Later than any moment that a clock reaches.
    pub const NEVER: Self = Self(Duration::MAX);

    /// Returns the moment `elapsed` after the start.
    pub const fn from_duration(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Returns the time since the start.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Returns the moment `span` later, at most [`Moment::NEVER`].
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn moment_arithmetic_beyond_an_end_saturates() {
        let later = Moment::ZERO + SECOND;
        assert_eq!(later.saturating_since(Moment::ZERO), SECOND);
        assert_eq!(Moment::ZERO.saturating_since(later), Duration::ZERO);
        assert_eq!(Moment::NEVER + SECOND, Moment::NEVER);
    }
}
