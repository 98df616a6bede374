//! The board: where the loop shows the state of the farm to the routes. It keeps the latest snapshot
//! only, and knows nothing of HTTP.

use std::sync::{Arc, Mutex, PoisonError};

use crate::farm::status::Status;

/// Holds the latest snapshot: the loop publishes it, the routes read it. The lock is held only
/// while a pointer is copied.
#[derive(Debug, Default)]
pub(crate) struct Board {
    latest: Mutex<Arc<Status>>,
}

impl Board {
    /// Replaces the snapshot.
    pub(crate) fn publish(&self, status: Status) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }

    /// The latest snapshot.
    pub(crate) fn latest(&self) -> Arc<Status> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
