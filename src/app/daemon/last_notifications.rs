//! Waits for the program of `[notify]` when the farm has ended. Meanwhile, the loop answers requests for
//! the state, and heeds signals and the service manager. Must not start anything.

use std::time::Instant;

use crate::app::daemon::Loop;
use crate::app::message::Message;
use crate::app::notifier::FLUSH;
use crate::farm::Outcome;

impl Loop {
    /// Waits until the program of `[notify]` has had all notifications, for [`FLUSH`] at most. A second
    /// stop ends it at once.
    pub(super) fn finish_notifications(&mut self, mut outcome: Outcome) -> Outcome {
        let Some(unsent) = self.audience.close_notifications() else { return outcome };
        let deadline = Instant::now() + FLUSH;
        if outcome != Outcome::Aborted {
            unsent.announce();
        }
        while outcome != Outcome::Aborted && !unsent.is_told() && Instant::now() < deadline {
            self.show_progress();
            let wake = self.audience.next_due().map_or(deadline, |due| due.min(deadline));
            match self.messages.recv_deadline(wake) {
                Ok(Message::Snapshot(request)) => {
                    let snapshot = self.snapshot(request.refused);
                    request.answer(snapshot);
                }
                Ok(Message::Wake) => {
                    for _ in 0..self.signals.take_stops() {
                        if std::mem::replace(&mut self.is_stopping, true) {
                            outcome = Outcome::Aborted;
                        }
                    }
                }
                // The farm has ended.
                Ok(Message::Event(_)) | Err(_) => {}
            }
        }
        unsent.end();
        outcome
    }
}
