//! How the routes ask the loop for the state of the farm. The loop makes a snapshot only when
//! somebody asks: it costs time for each recipe.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::farm::status::{RefusedWebhooks, Status};

/// How long a request waits for the loop. While the loop reads many recipes or a long index, the
/// routes show the last snapshot, and webhooks are not kept waiting behind `/status`.
const PATIENCE: Duration = Duration::from_millis(100);

/// A request for a snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotRequest {
    reply: Sender<Arc<Status>>,
    /// The webhooks that the routes have refused, which the snapshot shows.
    pub(crate) refused: RefusedWebhooks,
}

impl SnapshotRequest {
    /// Sends a request by `send`, and returns the answer, if it comes soon.
    pub(super) fn ask(refused: RefusedWebhooks, send: impl FnOnce(Self)) -> Option<Arc<Status>> {
        let (reply, answer) = bounded(1);
        send(Self { reply, refused });
        answer.recv_timeout(PATIENCE).ok()
    }

    /// Answers the request.
    pub(crate) fn answer(self, status: Arc<Status>) {
        // This fails if the routes no longer wait.
        let _ = self.reply.send(status);
    }
}
