//! Numbers and times in words. Pure.

use std::fmt;

use crate::farm::status::Time;

/// A number of things.
pub(super) struct Count(pub(super) usize, pub(super) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

/// How often something failed in a row, if more than once.
pub(super) struct Times(pub(super) u32);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, " {} times", self.0) } else { Ok(()) }
    }
}

/// A time as its distance from now.
pub(super) struct Ago(pub(super) Time, pub(super) Time);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, now) = (self.0.seconds(), self.1.seconds());
        let distance = match time.abs_diff(now) {
            0 => return f.write_str("now"),
            seconds @ ..120 => format!("{seconds} s"),
            seconds @ ..7200 => format!("{} min", seconds / 60),
            seconds @ ..172_800 => format!("{} h", seconds / 3600),
            // Further than any time that the farm plans.
            seconds if time > now && seconds > 3_652 * 86_400 => return f.write_str("never"),
            seconds => format!("{} d", seconds / 86_400),
        };
        if time > now { write!(f, "in {distance}") } else { write!(f, "{distance} ago") }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::of(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn distance_of_a_time_has_one_unit() {
        const NOW: u64 = 1_000_000_000;
        for (distance, expected) in [
            (0, "now"),
            (1, "1 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
            (86_400 * 400, "400 d"),
        ] {
            let (ago, ahead) = if distance == 0 {
                (expected.to_owned(), expected.to_owned())
            } else {
                (format!("{expected} ago"), format!("in {expected}"))
            };
            assert_eq!(Ago(at(NOW - distance), at(NOW)).to_string(), ago);
            assert_eq!(Ago(at(NOW + distance), at(NOW)).to_string(), ahead);
        }
        assert_eq!(Ago(at(253_402_300_799), at(NOW)).to_string(), "never");
        assert_eq!(Ago(at(0), at(NOW * 2)).to_string(), "23148 d ago");
    }
}
