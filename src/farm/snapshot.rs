//! Makes snapshots of the farm's state for `/status` and the live line. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::problem::excerpt;
use peipkg_format::sort;

use super::progress::{Counts, Progress, Tally};
use crate::farm::Farm;
use crate::farm::events::{JobKey, PublishJob, Warning};
use crate::farm::flight::Flight;
use crate::farm::moment::Moment;
use crate::farm::queue::Waits;
use crate::farm::status::{
    self, ByRecipe, Calendar, Done, Failure, Held, InFlight, LISTED, Poll, Queued, RefusedReload, Status,
    Totals, UnmatchedWebhook, Webhooks,
};
use crate::farm::warnings::{DEDUP_CHECK_FAILED, is_light};

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
                let (failures, failed_at) = (failure.count, failure.failed_at.since_start());
                let failure = Failure { failures, next_retry, stage, last_error, log, log_tail, failed_at };
                (key.to_string(), failure)
            })
            .fold(BTreeMap::new(), sort::entered);
        let builds = self.builds(calendar);
        let publishes = self.publishes(calendar);
        let upload = &self.upload;
        let ((warnings, warnings_by_event), held) = (self.warnings(), self.held());
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
            unlisted: self.unlisted(),
            polls: self.polls(calendar),
            webhooks: self.webhooks(calendar),
            upload: (upload.is_owed || upload.running_since.is_some()).then(|| status::Upload {
                failures: upload.failures,
                started_at: upload.running_since.map(|started| calendar.at(started)),
                next_try: upload.next().map(|due| calendar.at(due)),
                last_error: upload.last_error.clone(),
            }),
            upload_state: self.upload_state(),
            last_upload: upload.last_done.map(|(at, took)| done(at, took, calendar)),
            draining: self.stopping.is_some(),
            paused_since: self.paused_since.map(|since| calendar.at(since)),
            held_length: held.len(),
            held_recipes: self
                .changed
                .iter()
                .chain(&self.paused)
                .cloned()
                .fold(BTreeSet::new(), sort::included),
            held: held.into_iter().take(LISTED).collect(),
            reload_refused: self.refused.as_ref().map(|refused| RefusedReload {
                at: calendar.at(refused.at),
                problems: refused.problems.iter().take(LISTED).map(ToString::to_string).collect(),
                problems_length: refused.problems.len(),
            }),
            warnings_length: warnings_by_event.values().sum(),
            warnings,
            warnings_by_event,
            // The loop knows these.
            notifications: None,
            totals: self.totals(calendar),
        }
    }

    /// Returns the tally of a sweep; none of a daemon, whose counts are on `/status`.
    pub(crate) fn tally(&self) -> Option<Tally> {
        let Counts { polls_failed, built, builds_failed, publishes_failed, .. } = self.tally;
        let failed = builds_failed + publishes_failed;
        let (polled, _) = self.schedule.listed();
        let published = self.builds_succeeded;
        self.options.once.then_some(Tally { polled, polls_failed, built, published, failed })
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
        let work = building().or_else(publishing).or_else(uploading);
        Progress {
            polled,
            upstreams,
            queued,
            failed: self.failures.len(),
            is_paused: self.paused_since.is_some(),
            is_reload_refused: self.refused.is_some(),
            work,
            paused_host: self.schedule.paused_host(),
        }
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

    fn upload_state(&self) -> &'static str {
        let upload = &self.upload;
        match (upload.running_since, upload.is_owed, upload.failures) {
            _ if !self.options.uploads => "not configured",
            (Some(_), ..) => "running",
            (None, true, 0) => "waiting",
            (None, true, _) => "failed",
            (None, false, _) => "up to date",
        }
    }

    /// Returns what waits for a person or for another build, without having failed.
    fn held(&self) -> Vec<Held> {
        let of_recipe =
            |id: &Arc<str>, reason, until| Held { recipe: id.clone(), version: None, reason, until };
        let changed =
            self.changed.iter().map(|id| of_recipe(id, "the recipe's files have changed", "a reload"));
        let paused = self.paused.iter().filter(|id| !self.changed.contains(*id));
        let paused = paused.map(|id| of_recipe(id, "the recipe is paused", "a reload without paused = true"));
        let aside = self.aside.keys().map(|JobKey { recipe, version }| Held {
            recipe: recipe.clone(),
            version: Some(version.to_string()),
            reason: "another recipe makes the same packages",
            until: "the end of its build or publish",
        });
        let mut held: Vec<Held> = changed.chain(paused).chain(aside).collect();
        sort::sort_by(&mut held, |a, b| (&a.recipe, &a.version).cmp(&(&b.recipe, &b.version)));
        held
    }

    /// Returns the first warnings whose causes last, the gravest first and then by recipe, and how many
    /// of each event there are.
    fn warnings(&self) -> (Vec<status::Warning>, BTreeMap<&'static str, usize>) {
        let mut listed = Vec::new();
        let mut count: BTreeMap<&'static str, usize> = BTreeMap::new();
        if let Some(error) = &self.archive_error {
            count.insert(DEDUP_CHECK_FAILED, 1);
            let warning = Warning {
                event: DEDUP_CHECK_FAILED,
                subject: String::new(),
                detail: excerpt(error).into_owned(),
            };
            listed.push(warning.of(None));
        }
        let recipes =
            self.warned.keys().chain(self.build_warnings.keys()).fold(BTreeSet::new(), sort::included);
        for are_light in [false, true] {
            for id in &recipes {
                let warned = self.warned.get(*id).into_iter().flatten();
                let warned = warned.map(|((event, subject), detail)| (*event, &**subject, &**detail));
                let of_builds = self.build_warnings.get(*id);
                let kept = of_builds.into_iter().flat_map(|warnings| &warnings.kept);
                let kept = kept.map(|one| (one.event, one.subject.as_str(), one.detail.as_str()));
                for (event, subject, detail) in warned.chain(kept) {
                    if is_light(event) != are_light {
                        continue;
                    }
                    *count.entry(event).or_default() += 1;
                    // To copy all would cost megabytes.
                    if listed.len() < LISTED {
                        let (subject, detail) = (excerpt(subject).into_owned(), detail.to_owned());
                        listed.push(Warning { event, subject, detail }.of(Some((*id).clone())));
                    }
                }
            }
        }
        for (event, dropped) in self.build_warnings.values().flat_map(|warnings| &warnings.dropped) {
            *count.entry(event).or_default() += dropped;
        }
        (listed, count)
    }

    /// Returns what was counted since the start.
    fn totals(&self, calendar: Calendar) -> Totals {
        let tally = &self.tally;
        Totals {
            polls: tally.polls as u64,
            polls_failed: tally.polls_failed as u64,
            last_poll: tally.last_poll.map(|at| calendar.at(at)),
            oldest_listing: self.schedule.oldest_listing().map(|at| calendar.at(at)),
            builds_failed: tally.builds_failed as u64,
            publishes_failed: tally.publishes_failed as u64,
            last_success: tally.last_success.map(|at| calendar.at(at)),
            uploads: tally.uploads as u64,
            uploads_failed: tally.uploads_failed as u64,
        }
    }

    fn webhooks(&self, calendar: Calendar) -> Webhooks {
        let hooks = &self.hooks;
        Webhooks {
            last_received: hooks.last_received.map(|at| calendar.at(at)),
            last_matched: hooks.last_matched.map(|at| calendar.at(at)),
            received: hooks.received,
            matched: hooks.matched,
            unmatched: hooks.unmatched,
            unusable: hooks.unusable,
            last_unmatched: hooks.last_unmatched.as_ref().map(|hook| UnmatchedWebhook {
                received: calendar.at(hook.received),
                repositories: hook.repositories.clone(),
                reason: hook.reason,
                nearest: hook.nearest.clone(),
            }),
            // The HTTP server counts these.
            ..Webhooks::default()
        }
    }

    /// Returns the recipes whose upstreams could not be listed, each with the URL.
    fn unlisted(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let mut unlisted = Vec::new();
        for watchers in self.upstreams() {
            let state = self.schedule.state(&watchers[0].0);
            if state.and_then(|state| state.last).is_none_or(|(_, result)| result.is_ok()) {
                continue;
            }
            let url: Arc<str> = watchers[0].0.to_string().into();
            unlisted.extend(watchers.iter().map(|(_, recipe)| (recipe.clone(), url.clone())));
        }
        unlisted
    }

    fn polls(&self, calendar: Calendar) -> ByRecipe<Poll> {
        let mut polls = Vec::with_capacity(self.watchers.len());
        for watchers in self.upstreams() {
            let Some(state) = self.schedule.state(&watchers[0].0) else { continue };
            let (last_poll, result) =
                state.last.map_or((None, None), |(at, result)| (Some(at), Some(result)));
            let poll = Poll {
                last_poll: last_poll.map(|at| calendar.at(at)),
                tags_seen: result.as_ref().and_then(|result| result.as_ref().ok().copied()),
                error: result.and_then(Result::err),
                next_poll: state.next.map(|at| calendar.at(at)),
                tags_matched: None,
                newest_published: None,
                last_success: None,
            };
            for (_, recipe) in watchers {
                let (tags_matched, newest) = self.matched.of(recipe).unzip();
                let success = self.successes.get(recipe);
                let poll = Poll {
                    tags_matched,
                    newest_published: newest.flatten().map(|version| version.as_str().into()),
                    last_success: success.map(|(at, took)| Box::new(done(*at, *took, calendar))),
                    ..poll.clone()
                };
                polls.push((recipe.clone(), poll));
            }
        }
        polls.into_iter().collect()
    }
}

fn done(at: Moment, took: Duration, calendar: Calendar) -> Done {
    // Milliseconds, as in the log.
    let took_seconds = Duration::from_millis(took.as_millis().try_into().unwrap_or(u64::MAX)).as_secs_f64();
    Done { finished_at: calendar.at(at), took_seconds }
}
