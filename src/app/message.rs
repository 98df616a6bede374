//! The messages that wake the loop.

use crate::farm::events::Event;
use crate::http::SnapshotRequest;

/// A message to the loop.
#[derive(Debug)]
pub(super) enum Message {
    /// An event for the core.
    Event(Event),
    /// A signal has come: read the flags.
    Wake,
    /// Somebody asks for the state of the farm.
    Snapshot(SnapshotRequest),
}

impl From<Event> for Message {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl From<SnapshotRequest> for Message {
    fn from(request: SnapshotRequest) -> Self {
        Self::Snapshot(request)
    }
}
