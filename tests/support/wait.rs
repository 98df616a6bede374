//! Waits for a condition: checks it again and again until a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// The pause between two checks: short compared with a process start, long enough to leave the
/// processor to others.
const PAUSE: Duration = Duration::from_millis(5);

/// Long enough for any single step of a test on a slow and busy machine; a passing test never waits
/// that long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Calls `probe` until it returns something. `None` once `limit` has passed.
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

/// Waits until `condition` holds. After `limit`, fails the test with `what` in the message.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    assert!(poll(limit, || condition().then_some(())).is_some(), "not within {limit:?}: {what}");
}
