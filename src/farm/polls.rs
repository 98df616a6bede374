//! Starts polls and reads their answers: which tags are versions, which versions to build, and
//! which warnings the operator gets about the others. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use peipkg_format::archive_index::Presence;
use peipkg_format::version::Version;

use crate::farm::events::{Effect, JobKey, ListedTag, NoCommit, Notice, PollError, PollFault, Tags};
use crate::farm::matched::{fingerprint_of, keep_newest};
use crate::farm::moment::Moment;
use crate::farm::plan::Meaning;
use crate::farm::queue::{Candidate, Urgency};
use crate::farm::schedule::Listing;
use crate::farm::warnings::{PARTLY_PUBLISHED, RAISE_REVISION, Warnings};
use crate::farm::{Effects, Farm};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::recipe::{Recipe, Upstream};

/// For how many versions of a listing to make room before they are read.
const MOST_EXPECTED: usize = 256;

impl Farm {
    pub(super) fn start_polls(&mut self, now: Moment, effects: &mut Effects) {
        if self.stopping.is_some() {
            return;
        }
        loop {
            let due = self.schedule.start_due(now);
            for upstream in due.start {
                for recipe in self.recipes_of(&upstream) {
                    effects
                        .report(Notice::PollStarted { recipe: recipe.clone(), upstream: upstream.clone() });
                }
                effects.0.push(Effect::StartPoll(upstream));
            }
            if due.given_up.is_empty() {
                return;
            }
            for (upstream, reason) in due.given_up {
                let reason = reason.to_owned();
                self.on_poll_finished(
                    &upstream,
                    Err(PollError { reason, fault: PollFault::Other }),
                    now,
                    effects,
                );
            }
            // Each upstream given up leaves room for another one, and no event would start that.
        }
    }

    pub(super) fn on_poll_finished(
        &mut self,
        upstream: &UpstreamUrl,
        tags: Result<Tags, PollError>,
        now: Moment,
        effects: &mut Effects,
    ) {
        let fingerprint = tags.as_ref().map_or(0, fingerprint_of);
        let summary = match &tags {
            Ok(tags) => Ok(Listing { tags: tags.len(), fingerprint }),
            Err(error) => Err(error.clone()),
        };
        let Some(urgent) = self.schedule.on_listing_finished(upstream, summary, now) else { return };
        self.tally.polls += 1;
        self.tally.last_poll = Some(now);
        if self.stopping.is_some() {
            return;
        }
        let recipes: Vec<Arc<str>> = self.recipes_of(upstream).cloned().collect();
        match tags {
            Ok(tags) => {
                for id in recipes {
                    self.match_tags(&id, &tags, fingerprint, urgent, now, effects);
                }
            }
            Err(PollError { reason, .. }) => {
                self.tally.polls_failed += 1;
                let next_poll = self.schedule.state(upstream).and_then(|state| state.next);
                let next_poll =
                    next_poll.filter(|next| *next < Moment::NEVER).map(|next| next.saturating_since(now));
                for recipe in recipes {
                    let (upstream, reason) = (upstream.clone(), reason.clone());
                    effects.report(Notice::PollFailed { recipe, upstream, reason, next_poll });
                }
            }
        }
    }

    pub(super) fn on_no_commits_found(&mut self, found: Vec<NoCommit>) {
        for found in found {
            self.skipped_tags.add(found);
        }
    }

    /// Queues the versions among an upstream's tags that one recipe still has to build.
    fn match_tags(
        &mut self,
        id: &Arc<str>,
        tags: &Tags,
        fingerprint: u64,
        urgent: bool,
        now: Moment,
        effects: &mut Effects,
    ) {
        let Some(recipe) = self.roster.get(id) else { return };
        if let Some(reason) = &self.archive_error {
            effects.report(Notice::DedupCheckFailed { recipe: id.clone(), reason: reason.clone() });
        }
        let tags_seen = tags.len();
        if let Some(matches) = self.matched.unchanged(id, fingerprint) {
            let queued = self.queue.len_of(id);
            return effects.report(Notice::PollComplete { recipe: id.clone(), tags_seen, matches, queued });
        }
        let recipe = recipe.clone();
        let Some(upstream) = &recipe.upstream else { return };
        let reader = upstream.tag_reader();
        let mut warnings = Warnings::new(id, self.warned.remove(id).unwrap_or_default());
        // Most listings are short; of a long one, most tags may be foreign.
        let mut versions: HashMap<Version, Found<'_>> = HashMap::with_capacity(tags_seen.min(MOST_EXPECTED));
        let mut matches = 0;
        let mut is_foreign = true;
        let mut absent = reader.possible_exclusions();
        let mut newest = None;
        let mut published = Vec::new();
        for (tag, listed) in tags.listed() {
            let first = |version: &Version| versions.get(version).map(|found| found.tag);
            let meaning = self.meaning_of(&recipe, &reader, (tag, listed.object), first);
            is_foreign &= meaning == Meaning::Foreign;
            let (version, presence) = match meaning {
                Meaning::Foreign | Meaning::TooOld => continue,
                Meaning::Excluded => {
                    absent.remove(tag);
                    continue;
                }
                Meaning::Unusable { reason, is_version } => {
                    matches += usize::from(is_version);
                    warnings.skipped(tag, reason, effects);
                    continue;
                }
                Meaning::Version(version, presence) => (version, presence),
            };
            matches += 1;
            let key = JobKey { recipe: id.clone(), version };
            if presence != Presence::Absent {
                self.end_failure(&key);
            }
            match presence {
                Presence::Partial => warnings.partly_published(&key, effects),
                Presence::Complete => {
                    published.push((key.version.clone(), tag, listed.commit()));
                    keep_newest(&mut newest, &key.version);
                }
                Presence::Absent => {}
            }
            let is_under_way = presence == Presence::Absent && self.is_under_way(&key);
            if is_under_way && self.failures.set_tag(&key, tag, listed) {
                // A failure of another commit says nothing about this one.
                self.failures.retry_at_once(&key, now);
            }
            let is_to_build = presence == Presence::Absent && !is_under_way;
            versions.insert(key.version, Found { tag, listed, is_to_build });
        }
        if let Some(example) = tags.iter().last().filter(|_| is_foreign) {
            warnings.no_match(upstream.tag_pattern.as_str(), example, effects);
        } else if !absent.is_empty() {
            let is_meant =
                |tag: &&str| reader.capture(tag).is_some_and(|version| absent.contains(version.as_str()));
            if let Some(example) = tags.iter().find(is_meant).or_else(|| tags.iter().last()) {
                warnings.absent(&absent, example, effects);
            }
        }
        self.forget_vanished_failures(id, &versions);
        self.compare_commits(id, published, &mut warnings, effects);
        let urgency = match (urgent && recipe.github_webhook, self.matched.is_whole(id)) {
            (false, _) => Urgency::None,
            (true, false) => Urgency::Newest,
            (true, true) => Urgency::New,
        };
        let is_held = self.is_held(id);
        if is_held {
            versions.clear();
        }
        let candidates = versions.into_iter().filter(|(_, found)| found.is_to_build);
        let candidates = candidates.map(|(version, Found { tag, listed, .. })| {
            let listed = Some(listed);
            Candidate { tag: tag.into(), version, listed }
        });
        let failures = &self.failures;
        let is_retry = |candidate: &Candidate| {
            failures.get(&JobKey { recipe: id.clone(), version: candidate.version.clone() }).is_some()
        };
        let left_out = self.queue.replace(id, candidates.collect(), urgency, is_retry);
        let queued = self.queue.len_of(id);
        effects.report(Notice::PollComplete { recipe: id.clone(), tags_seen, matches, queued });
        warnings.left_out(left_out, effects);
        let warned = warnings.finish(effects);
        if !warned.is_empty() {
            self.warned.insert(id.clone(), warned);
        }
        // Versions that were left out must be found again.
        self.matched.record(id, fingerprint, matches, left_out, newest);
        if is_held {
            self.matched.lose(id);
        }
    }

    /// Ends the failure of a version that somebody else has published: there is nothing to build, and
    /// pending outputs need not wait any longer to be dropped.
    fn end_failure(&mut self, key: &JobKey) {
        let is_publish = self.failures.get(key).is_some_and(|failure| failure.candidate.is_none());
        if !is_publish {
            self.failures.remove(key);
        } else if self.failures.end_wait(key) {
            self.publishing.retry(key);
        }
    }

    /// Forgets the failures of versions whose tags are gone: there is nothing to retry.
    fn forget_vanished_failures(&mut self, id: &Arc<str>, versions: &HashMap<Version, Found<'_>>) {
        if self.options.once {
            // A tag that comes back must not get a second attempt.
            return;
        }
        let is_vanished = |version: &Version| !versions.contains_key(version);
        let failed = self
            .failures
            .of(id)
            .filter(|(version, failure)| failure.candidate.is_some() && is_vanished(version));
        let vanished: Vec<Version> = failed.map(|(version, _)| version.clone()).collect();
        for version in vanished {
            self.failures.remove(&JobKey { recipe: id.clone(), version });
        }
    }

    /// Warns of a version of which the index has some packages only, unless that was said before.
    pub(super) fn warn_partly_published(&mut self, key: JobKey, effects: &mut Effects) {
        let warned = self.warned.entry(key.recipe.clone()).or_default();
        let subject = (PARTLY_PUBLISHED, key.version.as_str().into());
        if warned.insert(subject, RAISE_REVISION.into()).is_none() {
            effects.report(Notice::PartlyPublished { key });
        }
    }

    /// Whether a version is being built, is pending, or waits for the time of its retry.
    fn is_under_way(&self, key: &JobKey) -> bool {
        self.flights.iter().any(|flight| flight.job.key() == *key)
            || self.publishing.is_pending(key)
            || self.failures.is_backed_off(key)
            || self.aside.contains_key(key)
    }

    /// Whether the failure of a version is not over: the version is still to be built or published, or
    /// no poll has found out since its recipe was changed.
    pub(crate) fn is_failing(&self, key: &JobKey) -> bool {
        self.failures.get(key).is_some()
            || self.is_under_way(key)
            || self.queue.has(&key.recipe, &key.version)
            || self.watched_recipe(&key.recipe).is_some() && self.matched.of(&key.recipe).is_none()
    }

    /// Returns a recipe and its upstream, if it is loaded and has one.
    pub(super) fn watched_recipe(&self, id: &Arc<str>) -> Option<(Arc<Recipe>, Upstream)> {
        let recipe = self.roster.get(id)?.clone();
        let upstream = recipe.upstream.clone()?;
        Some((recipe, upstream))
    }
}

/// A version among an upstream's tags.
struct Found<'a> {
    tag: &'a str,
    listed: ListedTag,
    is_to_build: bool,
}
