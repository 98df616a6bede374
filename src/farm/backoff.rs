//! How long a failed build, publish, listing or upload waits for its retry. Pure.

use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The waits after the first, second, … failure in a row; the last one repeats. The first ones are
/// short because many faults pass by themselves; the last is a day because the recipe then needs a
/// person.
const WAITS: [Duration; 6] = [
    MINUTE,
    MINUTE.saturating_mul(5),
    MINUTE.saturating_mul(15),
    HOUR,
    HOUR.saturating_mul(6),
    HOUR.saturating_mul(24),
];

/// Returns the wait after `failures` failures in a row (at least one).
pub(crate) fn wait_after(failures: u32) -> Duration {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    WAITS[index.min(WAITS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_day_and_stay_there() {
        let minutes: Vec<u64> = (1..=8).map(|failures| wait_after(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 5, 15, 60, 360, 1440, 1440, 1440]);
        assert_eq!(wait_after(u32::MAX), HOUR * 24);
    }
}
