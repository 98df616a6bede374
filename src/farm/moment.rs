//! Points in time. Spans are [`Duration`]s; this file reads no clock. Pure.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point in time, by a monotonic clock that starts at zero with its owner: the farm, or the
/// fetcher of sources. Comparing moments of different owners says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The start of the owner's clock.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// After all others: no clock will show it.
    pub const NEVER: Self = Self(Duration::MAX);

    /// The moment `elapsed` after the start.
    pub const fn from_duration(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the start this is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; nothing if it comes before.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// The moment `span` later; [`Moment::NEVER`] where that cannot be counted.
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
    fn arithmetic_beyond_the_ends_stays_at_them() {
        let later = Moment::ZERO + SECOND;
        assert_eq!(later.saturating_since(Moment::ZERO), SECOND);
        assert_eq!(Moment::ZERO.saturating_since(later), Duration::ZERO);
        assert_eq!(Moment::NEVER + SECOND, Moment::NEVER);
    }
}
