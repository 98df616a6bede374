//! Makes snapshots of the farm's state for `/status` and the live line. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use peipkg_format::sort;

use super::progress::Progress;
use crate::farm::Farm;
use crate::farm::events::{JobKey, PublishJob};
use crate::farm::flight::Flight;
use crate::farm::moment::Moment;
use crate::farm::queue::Waits;
use crate::farm::status::{
    self, Calendar, Failure, InFlight, Poll, Queued, Status, UnmatchedWebhook, Webhooks,
};

/// How many waiting versions a snapshot lists. An upstream may have any number of tags.
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
                let log_tail = failure.log_tail.clone();
                (
                    key.to_string(),
                    Failure { failures: failure.count, next_retry, stage, last_error, log, log_tail },
                )
            })
            .fold(BTreeMap::new(), sort::entered);
        let builds = self.builds(calendar);
        let publishes = self.publishes(calendar);
        let upload = &self.upload;
        Status {
            farm_id: farm_id.clone(),
            recipes: self.roster.keys().cloned().collect(),
            builds_attempted: self.builds_attempted,
            builds_succeeded: self.builds_succeeded,
            in_flight: builds.first().or(publishes.first()).cloned(),
            failures: (!failures.is_empty()).then_some(failures),
            version: env!("CARGO_PKG_VERSION"),
            started_at: calendar.at(Moment::ZERO),
            queue: self.queued(),
            queue_length: self.publishing.ready_len() + self.queue.len(),
            builds,
            publishes,
            polls: self.polls(calendar),
            webhooks: self.webhooks(calendar),
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
        let building = || {
            let flight = self.flights.first()?;
            let others = match self.flights.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let JobKey { recipe, version } = flight.job.key();
            Some((format!("building {recipe} {version}{others}"), flight.started))
        };
        let publishing = || {
            let running = self.publishing.running()?;
            let JobKey { recipe, version } = &running.versions.first()?.outputs.key;
            Some((format!("publishing {recipe} {version}"), running.started))
        };
        let uploading = || self.upload.running_since.map(|started| ("uploading".to_owned(), started));
        let queued = self.queue.len() + self.publishing.waiting();
        Progress { polled, upstreams, queued, work: building().or_else(publishing).or_else(uploading) }
    }

    /// Returns the builds in progress, the oldest first.
    fn builds(&self, calendar: Calendar) -> Vec<InFlight> {
        let build = |flight: &Flight| {
            let JobKey { recipe, version } = flight.job.key();
            let (started_at, log) = (calendar.at(flight.started), flight.log.clone());
            InFlight { recipe, version: version.to_string(), started_at, log }
        };
        self.flights.iter().map(build).collect()
    }

    /// Returns the versions of the publish in progress.
    fn publishes(&self, calendar: Calendar) -> Vec<InFlight> {
        let Some(running) = self.publishing.running() else { return Vec::new() };
        let publish = |job: &PublishJob| {
            let JobKey { recipe, version } = job.outputs.key.clone();
            let (started_at, log) = (calendar.at(running.started), job.log.clone());
            InFlight { recipe, version: version.to_string(), started_at, log }
        };
        running.versions.iter().take(LISTED).map(publish).collect()
    }

    /// Returns the first waiting versions, at most [`LISTED`].
    fn queued(&self) -> Vec<Queued> {
        let publishes = self.publishing.ready().map(|outputs| Queued {
            recipe: outputs.key.recipe.clone(),
            version: outputs.key.version.to_string(),
            reason: "publish",
        });
        let builds = self.queue.iter().map(|(recipe, candidate, waits)| {
            let reason = match waits {
                Waits::Urgent => "webhook",
                Waits::Untried => "poll",
                Waits::Retry => "retry",
            };
            Queued { recipe: recipe.clone(), version: candidate.version.to_string(), reason }
        });
        publishes.chain(builds).take(LISTED).collect()
    }

    fn webhooks(&self, calendar: Calendar) -> Webhooks {
        let hooks = &self.hooks;
        Webhooks {
            last_received: hooks.last_received.map(|at| calendar.at(at)),
            last_matched: hooks.last_matched.map(|at| calendar.at(at)),
            unmatched: hooks.unmatched,
            last_unmatched: hooks.last_unmatched.as_ref().map(|hook| UnmatchedWebhook {
                received: calendar.at(hook.received),
                repositories: hook.repositories.clone(),
                reason: hook.reason,
                nearest: hook.nearest.clone(),
            }),
        }
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
