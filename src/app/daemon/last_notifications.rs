//! The time between the end of the farm and the end of the program of `[notify]`: the loop goes on for
//! those who ask for the state, for signals and for the service manager. Must not start anything.

use std::time::Instant;

use crate::app::daemon::Loop;
use crate::app::message::Message;
use crate::app::notifier::FLUSH;
use crate::farm::Outcome;

impl Loop {
    /// Waits until the program of `[notify]` is told of what is left, for [`FLUSH`] at most. A stop
    /// beyond the first one ends it at once.
    pub(super) fn tell_the_rest(&mut self, mut outcome: Outcome) -> Outcome {
        let Some(rest) = self.audience.close_notifications() else { return outcome };
        let deadline = Instant::now() + FLUSH;
        if outcome != Outcome::Aborted {
            rest.announce();
        }
        while outcome != Outcome::Aborted && !rest.is_told() && Instant::now() < deadline {
            self.show_progress();
            let wake = self.audience.next_beat().map_or(deadline, |beat| beat.min(deadline));
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
        rest.end();
        outcome
    }
}
