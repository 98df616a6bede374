//! Plays simulated days of the core: events in, effects out, no clock.

mod changes;
mod failures;
mod fairness;
mod hooks;
mod memory;
mod moved;
mod outputs;
mod overtaken;
mod pauses;
mod states;
mod sweeps;
mod versions;

use std::fmt::Write as _;
use std::path::Path;

use peipkg_format::package::PackageName;

use super::*;
use crate::farm::events::{
    Blame, BuildOutcome, PendingOutputs, PollError, PollFault, PublishOutcome, Tags, UploadOutcome,
};
use crate::farm::progress::Tally;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The lines of a recipe that wants webhooks.
const HOOK: &str = "[watch]\ngithub_webhook = true";

/// A farm under test, and its effects since the test looked last.
pub(super) struct Bench {
    pub(super) farm: Farm,
    pub(super) now: Moment,
    pub(super) effects: Vec<Effect>,
}

impl Bench {
    pub(super) fn new(once: bool, recipes: Vec<Recipe>) -> Self {
        Self::with_options(Options { default_interval: HOUR, ..options(once) }, recipes)
    }

    /// Creates a farm with a remote.
    pub(super) fn uploading(once: bool, recipes: Vec<Recipe>) -> Self {
        Self::with_options(Options { default_interval: HOUR * 48, uploads: true, ..options(once) }, recipes)
    }

    pub(super) fn with_options(options: Options, recipes: Vec<Recipe>) -> Self {
        let mut bench = Self { farm: Farm::new(options), now: Moment::ZERO, effects: Vec::new() };
        bench.event(Event::ArchiveRead(Ok(Archive::default())));
        bench.event(loaded(recipes));
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

    /// Returns the effects since the last look, as short texts; leaves out polls, and publishes of
    /// versions that were just built.
    pub(super) fn seen(&mut self) -> Vec<String> {
        self.effects.drain(..).filter_map(|effect| describe(&effect)).collect()
    }

    pub(super) fn tags(&mut self, upstream: &str, tags: &[&str]) {
        let tags = Ok(tags.iter().collect());
        self.event(Event::PollFinished { upstream: upstream.into(), tags });
    }

    /// Ends the oldest build.
    pub(super) fn finish(&mut self, outcome: BuildOutcome) {
        let key = self.farm.flights.first().expect("a build in progress").job.key();
        self.event(Event::BuildFinished { key, outcome });
    }

    /// Ends the oldest build well.
    pub(super) fn built(&mut self) {
        let job = &self.farm.flights.first().expect("a build in progress").job;
        let names: Vec<&str> = job.recipe.packages.iter().map(|package| package.name.as_str()).collect();
        let outputs = outputs(&job.recipe.id, job.candidate.version.as_str(), &names);
        let log = self.farm.flights[0].log.clone();
        self.finish(BuildOutcome::Built { outputs, log });
    }

    /// Ends the publish in progress well.
    pub(super) fn published(&mut self) {
        self.event(Event::PublishFinished(PublishOutcome::Done));
    }

    /// Ends the publish in progress with a refusal; without one, that of the oldest build.
    pub(super) fn publish_fails(&mut self) {
        if self.publishing().is_empty() {
            self.built();
        }
        self.event(Event::PublishFinished(PublishOutcome::Failed { reason: "refused".into() }));
    }

    /// Ends the oldest build and its publish well.
    pub(super) fn done(&mut self) {
        self.built();
        self.published();
    }

    /// Ends the publish in progress: somebody has removed these directories.
    pub(super) fn gone(&mut self, directories: &[&str]) {
        let directories = directories.iter().map(|directory| (*directory).to_owned()).collect();
        self.event(Event::PublishFinished(PublishOutcome::Gone(directories)));
    }

    /// Returns the versions of the publish in progress.
    pub(super) fn publishing(&self) -> Vec<String> {
        let versions = self.farm.publishing.running().into_iter().flat_map(|running| &running.versions);
        versions.map(|job| job.outputs.key.to_string()).collect()
    }

    pub(super) fn uploaded(&mut self) {
        self.event(Event::UploadFinished(UploadOutcome::Done));
    }

    pub(super) fn upload_fails(&mut self) {
        self.event(Event::UploadFinished(UploadOutcome::Failed { reason: "no remote".into() }));
    }

    pub(super) fn fail(&mut self) {
        self.finish(BuildOutcome::Failed { reason: "no compiler".into(), blame: Blame::Version });
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

/// Returns the options of a farm with one builder and four pollers.
pub(super) fn options(once: bool) -> Options {
    Options { once, default_interval: HOUR, poll_jobs: 4, build_jobs: 1, uploads: false, order_seed: None }
}

fn describe(effect: &Effect) -> Option<String> {
    let text = match effect {
        Effect::StartBuild(job) => format!("build {}", job.key()),
        Effect::StartPublish(group) if group.iter().all(|job| job.is_new) => return None,
        Effect::StartPublish(group) => {
            let keys: Vec<String> = group.iter().map(|job| job.outputs.key.to_string()).collect();
            format!("publish {}", keys.join(" "))
        }
        Effect::StartUpload => "upload".into(),
        Effect::DiscardOutputs(outputs) => format!("discard {}", outputs.key),
        Effect::InterruptPolls => "interrupt polls".into(),
        Effect::InterruptJobs => "interrupt jobs".into(),
        Effect::LoadRoster => "load roster".into(),
        Effect::StartPoll(_) | Effect::RememberCommits(..) => return None,
        Effect::Report(notice) => match notice {
            Notice::NoTagMatches { recipe, tag_pattern, example } => {
                format!("{recipe}: no {tag_pattern} like {example}")
            }
            Notice::ExcludeNamesNoTag { exclude, example, .. } => format!("no tag {exclude} like {example}"),
            Notice::WebhookUnmatched { names, reason, nearest, not_logged } => {
                let path = names.first().and_then(|name| name.split_once('/')).map_or("", |(_, path)| path);
                let nearest = nearest.as_ref().map(|(recipe, _)| format!(", nearest {recipe}"));
                let others = if *not_logged > 0 { format!(", {not_logged} more") } else { String::new() };
                format!("unmatched {path}: {reason}{}{others}", nearest.unwrap_or_default())
            }
            Notice::TagSkipped { tag, .. } => format!("skipped {tag:?}"),
            Notice::MoreTagsSkipped { count, .. } => format!("skipped {count} more"),
            Notice::PartlyPublished { key } => format!("partly published {key}"),
            Notice::DedupCheckFailed { recipe, .. } => format!("dedup failed {recipe}"),
            Notice::DedupCheckSucceeded => "dedup succeeded".into(),
            Notice::BuildFailed { key, retry_after, .. } => {
                format!("failed {} {}", key, minutes(*retry_after))
            }
            Notice::PublishFailed { key, retry_after, .. } => {
                format!("unpublished {} {}", key, minutes(*retry_after))
            }
            Notice::RecipeChanged { key } => format!("changed {}", key.recipe),
            Notice::RecipeLeftOut { recipe, versions } => format!("left {versions} of {recipe}"),
            Notice::UpstreamLeftOut { upstream, versions } => format!("left {versions} of {upstream}"),
            Notice::VersionsLeftOut { recipe, versions } => format!("{versions} too many of {recipe}"),
            Notice::GroupRefused { versions, .. } => format!("refused {versions} together"),
            Notice::OutputsGone { key } => format!("gone {key}"),
            Notice::UploadFailed { retry_after, .. } => {
                format!("not uploaded {}", minutes(*retry_after))
            }
            Notice::PollFailed { recipe, .. } => format!("poll failed {recipe}"),
            Notice::ReloadRefused { .. } => "reload refused".into(),
            Notice::BuildsPaused => "paused".into(),
            Notice::BuildsResumed => "resumed".into(),
            Notice::RecipePaused { recipe } => format!("paused {recipe}"),
            _ => return None,
        },
    };
    Some(text)
}

/// Returns the moment `elapsed` after the start.
pub(super) fn at(elapsed: Duration) -> Moment {
    Moment::ZERO + elapsed
}

/// Returns the event of a roster that was read.
pub(super) fn loaded(recipes: Vec<Recipe>) -> Event {
    Event::RosterLoaded(Ok(recipes.into_iter().map(Arc::new).collect()))
}

/// Returns a recipe that watches `upstream` and makes `packages`.
pub(super) fn recipe(id: &str, upstream: &str, packages: &[&str], more: &str) -> Recipe {
    let mut text = format!("[upstream]\ngit = {upstream:?}\ntag_pattern = '^v(.*)$'\n{more}\n");
    for package in packages {
        writeln!(text, "[[package]]\nname = {package:?}\narchitecture = 'noarch'\n").unwrap();
    }
    Recipe::parse(id, Path::new(id), &text, 0, &mut Vec::new()).unwrap()
}

fn hook(bench: &mut Bench, names: &[&str]) {
    let repositories = names.iter().map(|name| (*name).to_owned()).collect();
    bench.event(Event::WebhookReceived { repositories });
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
        built_from: None,
    }
}

/// The wait for a retry, such as `5m`; a sweep promises none.
fn minutes(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(|| "once".to_owned(), |wait| format!("{}m", wait.as_secs() / 60))
}

/// A tag of upstream `u` that names a tree, where [`Bench::tags`] lists it.
fn names_a_tree(tag: &str) -> events::NoCommit {
    let (object, reason) = ("0".repeat(40), "a tree".into());
    events::NoCommit { upstream: "u".into(), tag: tag.into(), object, reason, signers: None }
}
