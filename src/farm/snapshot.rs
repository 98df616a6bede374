//! Makes snapshots of the farm's state for `/status` and the live line. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::progress::Progress;
use crate::farm::Farm;
use crate::farm::events::{Job, JobKey, PendingOutputs};
use crate::farm::moment::Moment;
use crate::farm::status::{self, Calendar, Failure, InFlight, Poll, Queued, Status};

/// How many waiting versions a snapshot lists. The loop makes one after each turn, and an upstream
/// may have any number of tags.
const LISTED: usize = 1000;

impl Farm {
    /// Returns a snapshot for `/status`.
    pub(crate) fn status(&self, farm_id: &Arc<str>, calendar: Calendar) -> Status {
        let failures: BTreeMap<String, Failure> = self
            .failures
            .iter()
            .map(|(key, failure)| {
                let stage = if failure.candidate.is_some() { "build" } else { "publish" };
                let next_retry = calendar.at(failure.retry_at);
                let last_error = failure.reason.clone();
                let log = failure.log.clone();
                (key.to_string(), Failure { failures: failure.count, next_retry, stage, last_error, log })
            })
            .collect();
        let in_flight = self.in_flight.as_ref().map(|flight| {
            let key = flight.job.key();
            let started_at = calendar.at(flight.started);
            let log = flight.log.clone();
            InFlight { recipe: key.recipe, version: key.version.to_string(), started_at, log }
        });
        let upload = &self.upload;
        Status {
            farm_id: farm_id.clone(),
            recipes: self.roster.keys().cloned().collect(),
            builds_attempted: self.builds_attempted,
            builds_succeeded: self.builds_succeeded,
            in_flight,
            failures: (!failures.is_empty()).then_some(failures),
            version: env!("CARGO_PKG_VERSION"),
            started_at: calendar.at(Moment::ZERO),
            queue: self.queued(),
            queue_length: self.published_first().count() + self.queue.len(),
            polls: self.polls(calendar),
            upload: (upload.is_owed || upload.running_since.is_some()).then(|| status::Upload {
                failures: upload.failures,
                started_at: upload.running_since.map(|started| calendar.at(started)),
                next_try: upload.next().map(|due| calendar.at(due)),
                last_error: upload.last_error.clone(),
            }),
        }
    }

    /// Returns the progress of the sweep.
    pub(crate) fn progress(&self) -> Progress {
        let (polled, upstreams) = self.schedule.listed();
        let building = self.in_flight.as_ref().map(|flight| {
            let JobKey { recipe, version } = flight.job.key();
            let verb = if matches!(flight.job, Job::Publish(_)) { "publishing" } else { "building" };
            (format!("{verb} {recipe} {version}"), flight.started)
        });
        let uploading = || self.upload.running_since.map(|started| ("uploading".to_owned(), started));
        let pending =
            self.pending.iter().filter(|outputs| self.key_in_flight().as_ref() != Some(&outputs.key));
        let queued = self.queue.len() + pending.count();
        Progress { polled, upstreams, queued, work: building.or_else(uploading) }
    }

    /// Returns the pending outputs that are published before the next build.
    fn published_first(&self) -> impl Iterator<Item = &PendingOutputs> {
        let in_flight = self.key_in_flight();
        self.pending.iter().filter(move |outputs| {
            !self.is_backed_off(&outputs.key) && in_flight.as_ref() != Some(&outputs.key)
        })
    }

    /// Returns the first waiting versions, at most [`LISTED`].
    fn queued(&self) -> Vec<Queued> {
        let publishes = self.published_first().map(|outputs| Queued {
            recipe: outputs.key.recipe.clone(),
            version: outputs.key.version.to_string(),
            reason: "publish",
        });
        let builds = self.queue.iter().map(|(recipe, candidate, urgent)| {
            let key = JobKey { recipe: recipe.clone(), version: candidate.version.clone() };
            let reason = match (urgent, self.failures.contains_key(&key)) {
                (true, _) => "webhook",
                (false, _) if !self.may_build(recipe, candidate) => "held",
                (false, true) => "retry",
                (false, false) => "poll",
            };
            Queued { recipe: recipe.clone(), version: candidate.version.to_string(), reason }
        });
        publishes.chain(builds).take(LISTED).collect()
    }

    fn polls(&self, calendar: Calendar) -> BTreeMap<Arc<str>, Poll> {
        let mut polls = BTreeMap::new();
        for (upstream, recipes) in &self.watchers {
            let Some(state) = self.schedule.state(upstream) else { continue };
            let (last_poll, result) =
                state.last.map_or((None, None), |(at, result)| (Some(at), Some(result)));
            let poll = Poll {
                last_poll: last_poll.map(|at| calendar.at(at)),
                tags_seen: result.as_ref().and_then(|result| result.as_ref().ok().copied()),
                error: result.and_then(Result::err),
                next_poll: state.next.map(|at| calendar.at(at)),
            };
            polls.extend(recipes.iter().map(|recipe| (recipe.clone(), poll.clone())));
        }
        polls
    }
}
