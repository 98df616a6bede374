//! Holds the farm back from new work during a stop or a pause, and while a recipe waits for a reload.
//! Says when the farm has ended. Pure.

use std::time::Duration;

use peipkg_format::archive_index::Presence;

use crate::farm::events::{Effect, Notice};
use crate::farm::moment::Moment;
use crate::farm::queue::Candidate;
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

    /// Returns how the farm ended, once it has.
    pub(crate) fn outcome(&self, now: Moment) -> Option<Outcome> {
        if self.is_working() {
            return None;
        }
        // An aborted farm publishes and uploads no more, even if something is owed.
        let has_published = self.publishing.ready_len() == 0;
        let Some(stop) = &self.stopping else {
            let is_done = has_published && self.upload.is_quiet(now) && self.has_built_all();
            return (self.options.once && is_done).then_some(Outcome::Clean);
        };
        let polls_are_over = !self.schedule.has_running() || stop.polls_abandoned <= now;
        let is_done = has_published && !self.upload.has_untried;
        let has_work_left = stop.has_polls_left || self.has_versions_to_build();
        let outcome = match stop.outcome {
            Outcome::Clean if self.options.once && has_work_left => Outcome::Unfinished,
            outcome => outcome,
        };
        (polls_are_over && (is_done || self.is_aborted())).then_some(outcome)
    }

    /// Whether a version waits whose packages no other recipe has published meanwhile.
    fn has_versions_to_build(&self) -> bool {
        self.queue.iter().any(|(id, Candidate { version, .. }, _)| {
            let recipe = self.roster.get(id);
            recipe.is_some_and(|recipe| self.archive.presence(&recipe.packages, version) == Presence::Absent)
        })
    }

    /// Whether a build, a publish or an upload runs.
    pub(super) fn is_working(&self) -> bool {
        !self.flights.is_empty() || self.publishing.running().is_some() || self.upload.running_since.is_some()
    }

    /// Whether the sweep has no poll, no build that may start, and no publish left.
    pub(super) fn has_built_all(&self) -> bool {
        let has_published_all = self.publishing.running().is_none() && self.publishing.ready_len() == 0;
        let has_built = self.flights.is_empty() && (self.queue.len() == 0 || self.paused_since.is_some());
        has_built && self.schedule.is_quiet() && has_published_all
    }
}
