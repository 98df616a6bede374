//! What keeps the farm from new work: a stop, a pause, and a recipe that waits for a reload. Pure.

use std::time::Duration;

use crate::farm::events::{Effect, Notice};
use crate::farm::moment::Moment;
use crate::farm::{Effects, Farm, Outcome, Stop};

/// How long a stopping farm waits for listings. Interrupted git processes end well within it; a
/// listing that still waits for a silent server can be cut off without loss.
const POLLS_GRACE: Duration = Duration::from_secs(2);

impl Farm {
    /// Holds all builds, or lets them go on. Polls, publishes and uploads are not held.
    pub(super) fn on_pause_found(&mut self, is_paused: bool, now: Moment, effects: &mut Effects) {
        match (self.paused_since, is_paused) {
            (None, true) => {
                self.paused_since = Some(now);
                effects.report(Notice::BuildsPaused);
            }
            (Some(_), false) => {
                self.paused_since = None;
                effects.report(Notice::BuildsResumed);
            }
            _ => {}
        }
    }

    /// Whether nothing of a recipe is built until a reload: its files have changed, or it is paused.
    pub(super) fn is_held(&self, id: &str) -> bool {
        self.changed.contains(id) || self.paused.contains(id)
    }

    pub(super) fn on_stop_requested(&mut self, now: Moment, effects: &mut Effects) {
        if self.stopping.is_none() {
            self.stopping = Some(Stop {
                outcome: Outcome::Clean,
                polls_abandoned: now + POLLS_GRACE,
                has_polls_left: !self.schedule.is_quiet(),
            });
            let building = self.flights.iter().map(|flight| flight.job.key());
            effects.report(Notice::Draining { in_flight: building.collect() });
            effects.0.push(Effect::InterruptPolls);
        }
    }

    pub(super) fn on_abort_requested(&mut self, now: Moment, effects: &mut Effects) {
        self.stopping = Some(Stop {
            outcome: Outcome::Aborted,
            polls_abandoned: now + POLLS_GRACE,
            has_polls_left: !self.schedule.is_quiet(),
        });
        effects.report(Notice::Aborting);
        effects.0.extend([Effect::InterruptPolls, Effect::InterruptJobs]);
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stop| stop.outcome == Outcome::Aborted)
    }
}
