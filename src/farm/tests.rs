//! Plays simulated days of the core: events in, effects out, no clock.

mod changes;
mod failures;
mod outputs;
mod sweeps;
mod versions;

use std::fmt::Write as _;
use std::path::Path;

use peipkg_format::package::PackageName;

use super::*;
use crate::farm::events::{Blame, JobOutcome, PollError, PollFault, UploadOutcome};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// A farm under test, and its effects since the test looked last.
pub(super) struct Bench {
    pub(super) farm: Farm,
    pub(super) now: Moment,
    effects: Vec<Effect>,
}

impl Bench {
    pub(super) fn new(once: bool, recipes: Vec<Recipe>) -> Self {
        Self::with_options(
            Options { once, default_interval: HOUR, poll_jobs: 4, uploads: false, order_seed: None },
            recipes,
        )
    }

    /// Creates a farm with a remote.
    pub(super) fn uploading(once: bool, recipes: Vec<Recipe>) -> Self {
        Self::with_options(
            Options { once, default_interval: HOUR * 48, poll_jobs: 4, uploads: true, order_seed: None },
            recipes,
        )
    }

    fn with_options(options: Options, recipes: Vec<Recipe>) -> Self {
        let mut bench = Self { farm: Farm::new(options), now: Moment::ZERO, effects: Vec::new() };
        bench.event(Event::ArchiveRead(Ok(Archive::default())));
        bench.event(Event::RosterLoaded(Ok(recipes)));
        bench
    }

    pub(super) fn event(&mut self, event: Event) {
        self.effects.extend(self.farm.handle(event, self.now));
    }

    /// Returns the upstreams of the polls started since the last look at any effect.
    fn polls(&mut self) -> Vec<String> {
        let is_poll = |effect: Effect| match effect {
            Effect::StartPoll(upstream) => Some(upstream.to_string()),
            _ => None,
        };
        self.effects.drain(..).filter_map(is_poll).collect()
    }

    /// Returns the effects since the last look, as short texts; leaves out polls.
    pub(super) fn seen(&mut self) -> Vec<String> {
        self.effects.drain(..).filter_map(|effect| describe(&effect)).collect()
    }

    pub(super) fn tags(&mut self, upstream: &str, tags: &[&str]) {
        let tags = Ok(tags.iter().map(|tag| (*tag).to_owned()).collect());
        self.event(Event::PollFinished { upstream: upstream.into(), tags });
    }

    pub(super) fn finish(&mut self, outcome: JobOutcome) {
        self.event(Event::JobFinished(outcome));
    }

    pub(super) fn uploaded(&mut self) {
        self.event(Event::UploadFinished(UploadOutcome::Done));
    }

    pub(super) fn upload_fails(&mut self) {
        self.event(Event::UploadFinished(UploadOutcome::Failed { reason: "no remote".into() }));
    }

    pub(super) fn fail(&mut self) {
        self.finish(JobOutcome::Failed { reason: "no compiler".into(), blame: Blame::Version });
    }

    /// Moves the time to `until`, waking the farm only at its deadlines.
    pub(super) fn sleep_until(&mut self, until: Moment) {
        while let Some(deadline) = self.farm.next_deadline().filter(|deadline| *deadline <= until) {
            assert!(deadline > self.now || self.now == Moment::ZERO, "the farm does not sleep");
            self.now = deadline;
            self.event(Event::DeadlineReached);
        }
        self.now = until;
    }
}

fn describe(effect: &Effect) -> Option<String> {
    let text = match effect {
        Effect::StartJob(Job::Build(job)) => format!("build {}", job.key()),
        Effect::StartJob(Job::Publish(outputs)) => format!("publish {}", outputs.key),
        Effect::StartUpload => "upload".into(),
        Effect::DiscardOutputs(outputs) => format!("discard {}", outputs.key),
        Effect::InterruptPolls => "interrupt polls".into(),
        Effect::InterruptJob => "interrupt job".into(),
        Effect::LoadRoster => "load roster".into(),
        Effect::StartPoll(_) => return None,
        Effect::Report(notice) => match notice {
            Notice::NoTagMatches { recipe, tag_pattern, example } => {
                format!("{recipe}: no {tag_pattern} like {example}")
            }
            Notice::TagSkipped { tag, .. } => format!("skipped {tag:?}"),
            Notice::MoreTagsSkipped { count, .. } => format!("skipped {count} more"),
            Notice::PartlyPublished { key } => format!("partly published {key}"),
            Notice::DedupCheckFailed { recipe, .. } => format!("dedup failed {recipe}"),
            Notice::BuildFailed { key, retry_after, .. } => {
                format!("failed {} {}m", key, retry_after.as_secs() / 60)
            }
            Notice::PublishFailed { key, retry_after, .. } => {
                format!("unpublished {} {}m", key, retry_after.as_secs() / 60)
            }
            Notice::RecipeHeld { recipe, versions, .. } => format!("held {versions} of {recipe}"),
            Notice::UpstreamHeld { upstream, versions, .. } => format!("held {versions} of {upstream}"),
            Notice::OutputsGone { key } => format!("gone {key}"),
            Notice::UploadFailed { retry_after, .. } => {
                format!("not uploaded {}m", retry_after.as_secs() / 60)
            }
            Notice::PollFailed { recipe, .. } => format!("poll failed {recipe}"),
            Notice::ReloadRefused { .. } => "reload refused".into(),
            _ => return None,
        },
    };
    Some(text)
}

/// Returns the moment `elapsed` after the start.
pub(super) fn at(elapsed: Duration) -> Moment {
    Moment::ZERO + elapsed
}

/// Returns a recipe that watches `upstream` and makes `packages`.
pub(super) fn recipe(id: &str, upstream: &str, packages: &[&str], more: &str) -> Recipe {
    let mut text = format!("[upstream]\ngit = {upstream:?}\ntag_pattern = '^v(.*)$'\n{more}\n");
    for package in packages {
        writeln!(text, "[[package]]\nname = {package:?}\narchitecture = 'noarch'\n").unwrap();
    }
    Recipe::parse(id, Path::new(id), &text, 0, &mut Vec::new()).unwrap()
}

fn no_route() -> PollError {
    PollError { reason: "no route".into(), fault: PollFault::Other }
}

pub(super) fn archive(entries: &[(&str, &str)]) -> Archive {
    let mut archive = Archive::default();
    for (name, version) in entries {
        archive.insert(&[package(name)], &version.parse().unwrap());
    }
    archive
}

fn package(name: &str) -> PackageName {
    PackageName { name: name.into(), architecture: "noarch".into() }
}

pub(super) fn outputs(recipe: &str, version: &str, packages: &[&str]) -> PendingOutputs {
    PendingOutputs {
        directory: format!("{recipe}@{version}.0"),
        key: JobKey { recipe: recipe.into(), version: version.parse().unwrap() },
        packages: packages.iter().map(|name| package(name)).collect(),
    }
}
