//! Counts, in tests, how often the core looks at the records that grow with the roster, so that a
//! test can tell whether an event looks at all of them. Otherwise it is only the record. Pure.

use std::ops::{Deref, DerefMut};

/// A record whose uses are counted in tests.
#[derive(Debug, Default)]
pub(super) struct Counted<T>(pub(super) T);

impl<T> Deref for Counted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        #[cfg(test)]
        count::add();
        &self.0
    }
}

impl<T> DerefMut for Counted<T> {
    fn deref_mut(&mut self) -> &mut T {
        #[cfg(test)]
        count::add();
        &mut self.0
    }
}

#[cfg(test)]
pub(super) mod count {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn add() {
        STEPS.set(STEPS.get() + 1);
    }

    /// Returns the uses on this thread since the last call.
    pub(in crate::farm) fn take() -> usize {
        STEPS.replace(0)
    }
}
