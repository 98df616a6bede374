//! Waiting for a condition: looked at again and again, never longer than its deadline.

use std::thread;
use std::time::{Duration, Instant};

/// The pause between two looks: short beside any process start, long enough to leave the processor to others.
const PAUSE: Duration = Duration::from_millis(5);

/// Long enough for any single step of a test on a slow and busy machine; a passing test never waits that long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// What `probe` gives as soon as it gives something; `None` when `limit` has passed.
pub fn poll<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until `condition` holds, and fails the test after `limit`, saying `what` was waited for.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    assert!(poll(limit, || condition().then_some(())).is_some(), "not within {limit:?}: {what}");
}
