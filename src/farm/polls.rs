//! Starts polls and reads their answers: which tags are versions, which versions to build, and
//! which warnings the operator gets about the others. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use peipkg_format::archive_index::Presence;
use peipkg_format::problem::excerpt;
use peipkg_format::version::Version;

use crate::farm::events::{Effect, JobKey, NoCommit, Notice, PollError, PollFault, Tags};
use crate::farm::matched::fingerprint_of;
use crate::farm::moment::Moment;
use crate::farm::queue::{Candidate, Urgency};
use crate::farm::schedule::Listing;
use crate::farm::{Effects, Farm};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::recipe::{Recipe, TagVersion, Upstream};

/// How many unusable tags of one recipe the log names, each once. The rest is only counted: a
/// hostile upstream cannot fill the log.
const NAMED_BAD_TAGS: usize = 20;

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
        if self.stopping.is_some() {
            return;
        }
        let recipes: Vec<Arc<str>> = self.recipes_of(upstream).cloned().collect();
        match tags {
            Ok(tags) => {
                for id in recipes {
                    self.match_tags(&id, &tags, fingerprint, urgent, effects);
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
        self.not_commits.extend(found.into_iter().map(|found| ((found.upstream, found.tag), found.reason)));
    }

    /// Queues the versions among an upstream's tags that one recipe still has to build.
    fn match_tags(
        &mut self,
        id: &Arc<str>,
        tags: &Tags,
        fingerprint: u64,
        urgent: bool,
        effects: &mut Effects,
    ) {
        let Some((recipe, upstream)) = self.watched_recipe(id) else { return };
        if let Some(reason) = &self.archive_error {
            effects.report(Notice::DedupCheckFailed { recipe: id.clone(), reason: reason.clone() });
        }
        let tags_seen = tags.len();
        if let Some(matches) = self.matched.unchanged(id, fingerprint) {
            let queued = self.queue.len_of(id);
            return effects.report(Notice::PollComplete { recipe: id.clone(), tags_seen, matches, queued });
        }
        let mut warnings = Warnings::new(id, self.warned.remove(id).unwrap_or_default());
        let mut versions: HashMap<Version, Found<'_>> = HashMap::new();
        let mut matches = 0;
        let mut is_foreign = true;
        let mut absent = upstream.possible_exclusions();
        for tag in tags.iter() {
            let meaning = upstream.version_of(tag);
            is_foreign &= meaning == TagVersion::NoMatch;
            if meaning == TagVersion::Excluded {
                absent.remove(tag);
            }
            let version = match meaning {
                TagVersion::NoMatch | TagVersion::TooOld | TagVersion::Excluded => continue,
                TagVersion::Invalid { reason, .. } => {
                    warnings.skipped(tag, reason.to_string(), effects);
                    continue;
                }
                TagVersion::Version(version) => version,
            };
            matches += 1;
            if !self.not_commits.is_empty()
                && let Some(reason) = self.not_commits.get(&(upstream.url.to_string(), tag.to_owned()))
            {
                warnings.skipped(tag, reason.clone(), effects);
                continue;
            }
            if let Some(Found { tag: first, .. }) = versions.get(&version) {
                warnings.skipped(tag, format!("tag {first:?} is version {version} too"), effects);
                continue;
            }
            let key = JobKey { recipe: id.clone(), version };
            let presence = self.archive.presence(&recipe.packages, &key.version);
            if presence != Presence::Absent {
                self.end_failure(&key);
            }
            if presence == Presence::Partial && warnings.is_new(key.version.as_str()) {
                effects.report(Notice::PartlyPublished { key: key.clone() });
            }
            let is_under_way = presence == Presence::Absent && self.is_under_way(&key);
            if is_under_way {
                self.failures.set_tag(&key, tag);
            }
            let is_to_build = presence == Presence::Absent && !is_under_way;
            versions.insert(key.version, Found { tag, is_to_build });
        }
        if let Some(example) = tags.iter().last().filter(|_| is_foreign) {
            warnings.no_match(upstream.tag_pattern.as_str(), example, effects);
        } else if !absent.is_empty() {
            let is_meant = |tag: &&str| {
                upstream.tag_pattern.capture(tag).is_some_and(|version| absent.contains(version.as_str()))
            };
            if let Some(example) = tags.iter().find(is_meant).or_else(|| tags.iter().last()) {
                warnings.absent(&absent, example, effects);
            }
        }
        self.forget_vanished_failures(id, &versions);
        self.warned.insert(id.clone(), warnings.finish(effects));
        let urgency = match (urgent && recipe.github_webhook, self.matched.is_whole(id)) {
            (false, _) => Urgency::None,
            (true, false) => Urgency::Newest,
            (true, true) => Urgency::New,
        };
        if self.changed.contains(id) {
            versions.clear();
        }
        let candidates = versions.into_iter().filter(|(_, found)| found.is_to_build);
        let candidates =
            candidates.map(|(version, Found { tag, .. })| Candidate { tag: tag.into(), version });
        let failures = &self.failures;
        let is_retry = |candidate: &Candidate| {
            failures.get(&JobKey { recipe: id.clone(), version: candidate.version.clone() }).is_some()
        };
        let left_out = self.queue.replace(id, candidates.collect(), urgency, is_retry);
        let queued = self.queue.len_of(id);
        effects.report(Notice::PollComplete { recipe: id.clone(), tags_seen, matches, queued });
        if left_out > 0 {
            effects.report(Notice::VersionsLeftOut { recipe: id.clone(), versions: left_out });
        }
        // Versions that were left out must be found again.
        self.matched.record(id, fingerprint, matches, left_out);
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
        if warned.insert(key.version.to_string()) {
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
    is_to_build: bool,
}

/// The warnings of one recipe. Each is given once as long as its cause lasts.
struct Warnings<'a> {
    recipe: &'a Arc<str>,
    before: HashSet<String>,
    current: HashSet<String>,
    unnamed: usize,
}

impl<'a> Warnings<'a> {
    fn new(recipe: &'a Arc<str>, before: HashSet<String>) -> Self {
        Self { recipe, before, current: HashSet::new(), unnamed: 0 }
    }

    /// Records a warning about `subject`. Returns whether the last poll did not give it.
    fn is_new(&mut self, subject: &str) -> bool {
        self.current.insert(subject.to_owned());
        !self.before.contains(subject)
    }

    /// Warns that no tag matches; again for each new pattern, which may be wrong in another way.
    fn no_match(&mut self, tag_pattern: &str, example: &str, effects: &mut Effects) {
        // The space keeps this subject apart from all tags.
        if self.is_new(&format!("no match for {tag_pattern}")) {
            let (tag_pattern, example) = (tag_pattern.to_owned(), example.to_owned());
            effects.report(Notice::NoTagMatches { recipe: self.recipe.clone(), tag_pattern, example });
        }
    }

    /// Warns of excluded tags that the upstream does not have; again for each other set of them.
    fn absent(&mut self, excluded: &BTreeSet<&str>, example: &str, effects: &mut Effects) {
        let excluded: Vec<&str> = excluded.iter().copied().collect();
        let excluded = excluded.join(" ");
        // The space keeps this subject apart from all tags.
        if self.is_new(&format!("exclude {excluded}")) {
            let (exclude, example) = (excerpt(&excluded).into_owned(), example.to_owned());
            effects.report(Notice::ExcludeNamesNoTag { recipe: self.recipe.clone(), exclude, example });
        }
    }

    fn skipped(&mut self, tag: &str, reason: String, effects: &mut Effects) {
        if self.current.len() >= NAMED_BAD_TAGS {
            self.unnamed += 1;
        } else if self.is_new(tag) {
            let (recipe, tag) = (self.recipe.clone(), tag.to_owned());
            effects.report(Notice::TagSkipped { recipe, tag, reason });
        }
    }

    /// Warns of the unnamed tags. Returns all subjects, for the next poll.
    fn finish(mut self, effects: &mut Effects) -> HashSet<String> {
        let count = self.unnamed;
        // The space keeps this subject apart from all tags.
        if count > 0 && self.is_new(&format!("{count} more")) {
            effects.report(Notice::MoreTagsSkipped { recipe: self.recipe.clone(), count });
        }
        self.current
    }
}
