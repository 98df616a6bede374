//! Counts the processors that the manager may use.

use rustix::thread::sched_getaffinity;

/// Returns the number of processors on which the manager's threads may run.
// `std::thread::available_parallelism` also reads the limits of control groups, which takes 9 kB.
pub(crate) fn count() -> usize {
    sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;
    use std::thread::available_parallelism;

    use super::*;

    #[test]
    fn processors_are_those_of_the_affinity() {
        // This knows the affinity too, and control groups can only lower it.
        assert!(count() >= available_parallelism().map_or(1, NonZero::get));
    }
}
