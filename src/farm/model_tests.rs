//! Plays the core in random interleavings of all its events, and checks what must hold in each.
//!
//! A case is a seed. A failure prints the seed and the last events. To run one case alone:
//! `PEIPKG_CHAOS_SEED=<seed> PEIPKG_TEST_SEEDS=1 cargo test --lib model_tests`.

mod fairness;
mod invariants;
mod outcomes;
mod steps;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::*;
use crate::farm::events::{BuildJob, PublishJob};
use crate::farm::model_tests::fairness::Oracle;
use crate::farm::tests::{archive, loaded, options, outputs, recipe};

/// The random steps of a case, before the calm in which everything succeeds.
const STEPS: usize = 250;

/// The length of the calm: longer than any back-off and any poll interval.
const CALM: Duration = Duration::from_hours(24 * 4);

const UPSTREAMS: [&str; 7] =
    ["u", "w", "https://one/a", "https://one/b", "https://one/c", "https://one/d", "https://one/e"];

/// Returns the seeds of a run: a hundred from 0 on, unless the variables ask for others. Cargo
/// compiles the tests anew when they change, because the core's files read no environment.
fn seeds() -> Range<u64> {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    let first = number(option_env!("PEIPKG_CHAOS_SEED")).unwrap_or(0);
    first..first + number(option_env!("PEIPKG_TEST_SEEDS")).unwrap_or(100)
}

/// The world around the core: performs its effects and ends what it started.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct World {
    random: u64,
    seed: u64,
    options: Options,
    farm: Farm,
    now: Moment,
    roster: Vec<Recipe>,
    /// The published `(package, version)`s; the core reads each change at once.
    published: BTreeSet<(String, String)>,
    /// Built, and not yet published.
    pending: HashSet<JobKey>,
    /// The pending versions whose publish alone has failed.
    refused: HashSet<JobKey>,
    polls: Vec<UpstreamUrl>,
    builds: Vec<(BuildJob, Moment)>,
    publish: Option<Vec<PublishJob>>,
    oracle: Oracle,
    /// The earliest retry of each failed version; cleared when the recipes change.
    not_before: HashMap<JobKey, Moment>,
    /// The attempts of the sweep since the recipes changed, and whether each was a build.
    attempts: HashSet<(bool, JobKey)>,
    /// Whether the remote lacks a publish that no running upload brings.
    owed: bool,
    /// Whether something was published since the last upload was started.
    is_untried: bool,
    uploading: bool,
    /// The recipes that have changed since the oldest build in progress was started.
    changed_during: HashSet<JobKey>,
    /// Whether a host was silent or asked for a pause.
    is_troubled: bool,
    calm: bool,
    paused: bool,
    stopped: bool,
    aborted: bool,
    done: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let options = Options {
            default_interval: Duration::from_mins(30 + next(&mut random) % 300),
            poll_jobs: 1 + below(&mut random, 5),
            build_jobs: [1, 1, 2, 4][below(&mut random, 4)],
            uploads: next(&mut random).is_multiple_of(2),
            ..options(next(&mut random).is_multiple_of(3))
        };
        let farm = Farm::new(options.clone());
        let mut world = Self {
            random,
            seed,
            options,
            farm,
            now: Moment::ZERO,
            roster: Vec::new(),
            published: BTreeSet::new(),
            pending: HashSet::new(),
            refused: HashSet::new(),
            polls: Vec::new(),
            builds: Vec::new(),
            publish: None,
            oracle: Oracle::default(),
            not_before: HashMap::new(),
            attempts: HashSet::new(),
            owed: false,
            is_untried: false,
            uploading: false,
            changed_during: HashSet::new(),
            is_troubled: false,
            calm: false,
            paused: false,
            stopped: false,
            aborted: false,
            done: Vec::new(),
        };
        world.begin();
        world
    }

    /// Sends the events of a manager's start.
    fn begin(&mut self) {
        for version in ["1-1", "2-1"] {
            if self.one_in(3) {
                self.published.insert(("p0".into(), version.into()));
            }
        }
        self.tell_archive();
        let found: Vec<_> = [("r0", "1-1", "p0"), ("r1", "3-1", "p1"), ("gone", "1-1", "pg")]
            .iter()
            .filter(|_| next(&mut self.random).is_multiple_of(2))
            .map(|(recipe, version, package)| outputs(recipe, version, &[package]))
            .collect();
        self.pending.extend(found.iter().map(|outputs| outputs.key.clone()));
        self.event(Event::OutputsFound(found));
        if self.options.uploads && self.one_in(2) {
            self.owed = true;
            self.event(Event::UploadOwed);
        }
        self.load_roster();
    }

    fn one_in(&mut self, n: u64) -> bool {
        next(&mut self.random).is_multiple_of(n)
    }

    fn tell_archive(&mut self) {
        let entries: Vec<(&str, &str)> =
            self.published.iter().map(|(p, v)| (p.as_str(), v.as_str())).collect();
        let archive = archive(&entries);
        self.event(Event::ArchiveRead(Ok(archive)));
    }

    /// Loads another roster, or a broken one.
    fn load_roster(&mut self) {
        if !self.roster.is_empty() && !self.calm && self.one_in(5) {
            return self.event(Event::RosterLoaded(Err(Vec::new())));
        }
        self.roster.clear();
        for number in 0..8 {
            if self.one_in(3) {
                continue;
            }
            let upstream = UPSTREAMS[below(&mut self.random, UPSTREAMS.len())];
            // Recipes 0 and 4 make the same package, the latter a second one as well.
            let packages = [format!("p{}", number % 4), format!("p{number}-doc")];
            let packages: Vec<&str> = packages.iter().map(String::as_str).take(1 + number / 4).collect();
            let minimum = if self.one_in(4) { "min_version = '2'\n" } else { "" };
            let paused = if !self.calm && self.one_in(6) { "paused = true\n" } else { "" };
            let watch = if self.one_in(2) { "[watch]\ngithub_webhook = true\n" } else { "" };
            self.roster.push(recipe(
                &format!("r{number}"),
                upstream,
                &packages,
                &format!("{minimum}{paused}{watch}"),
            ));
        }
        self.tell_roster();
    }

    /// Ends the pauses of all recipes.
    fn end_pauses(&mut self) {
        if self.roster.iter().any(Recipe::is_paused) {
            for upstream in self.roster.iter_mut().filter_map(|recipe| recipe.upstream.as_mut()) {
                upstream.paused = false;
            }
            self.tell_roster();
        }
    }

    fn tell_roster(&mut self) {
        // A changed recipe ends the back-off of its versions.
        self.not_before.clear();
        self.attempts.clear();
        self.changed_during = self.builds.iter().map(|(build, _)| build.key()).collect();
        let watched = self.watched().into_iter().map(|(recipe, _)| recipe.id.clone());
        let building = self.builds.iter().map(|(build, _)| build.recipe.id.clone());
        let known: HashSet<Arc<str>> = watched.chain(building).collect();
        self.oracle.on_reload(|recipe| known.contains(recipe));
        self.event(loaded(self.roster.clone()));
    }

    fn event(&mut self, event: Event) {
        self.done.push(format!("{:?} {event:?}", self.now));
        let before = self.waiting();
        let has_aside = !self.farm.aside.is_empty();
        let effects = self.farm.handle(event, self.now);
        self.check_fairness(&before, has_aside, &effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    #[track_caller]
    fn check(&self, holds: bool, what: &str) {
        if !holds {
            let last: Vec<&str> = self.done.iter().rev().take(40).rev().map(String::as_str).collect();
            panic!("seed {}: {what}\n{:#?}\n{}", self.seed, self.farm, last.join("\n"));
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::StartPoll(url) => {
                self.check(!self.stopped, "a poll after the stop");
                self.check(!self.polls.contains(&url), "the same upstream twice at a time");
                self.check(self.polls.len() < self.options.poll_jobs, "more polls than workers");
                self.check(self.watched().iter().any(|(_, watched)| **watched == url), "a poll nobody wants");
                self.polls.push(url);
            }
            Effect::StartBuild(build) => self.start_build(build),
            Effect::StartPublish(group) => self.start_publish(group),
            Effect::StartUpload => {
                self.check(!self.uploading, "two uploads at a time");
                self.check(!self.aborted, "an upload after the abort");
                self.check(self.owed, "an upload that nobody owes");
                self.uploading = true;
                self.owed = false;
                self.is_untried = false;
            }
            Effect::DiscardOutputs(outputs) => {
                let all =
                    outputs.packages.iter().all(|p| self.is_published(&p.name, outputs.key.version.as_str()));
                self.check(all, "outputs were thrown away that are not published");
                self.pending.remove(&outputs.key);
            }
            Effect::LoadRoster => self.load_roster(),
            Effect::Report(Notice::AlreadyPublished { .. }) => self.owed = self.options.uploads,
            // A failed build of a recipe that changed meanwhile has no retry.
            Effect::Report(Notice::BuildFailed { key, .. }) if self.changed_during.remove(&key) => {}
            Effect::Report(
                Notice::BuildFailed { key, retry_after, .. } | Notice::PublishFailed { key, retry_after, .. },
            ) => {
                self.not_before.insert(key, self.now + retry_after.unwrap_or_default());
            }
            Effect::Report(_) | Effect::InterruptPolls | Effect::InterruptJobs => {}
        }
    }

    fn is_published(&self, package: &str, version: &str) -> bool {
        self.published.contains(&(package.to_owned(), version.to_owned()))
    }

    /// Returns the recipes with their upstreams.
    fn watched(&self) -> Vec<(&Recipe, &UpstreamUrl)> {
        self.roster.iter().filter_map(|recipe| Some((recipe, &recipe.upstream.as_ref()?.url))).collect()
    }

    fn step(&mut self) {
        match next(&mut self.random) % 40 {
            0..12 => self.finish_poll(),
            12..20 => self.finish_build(),
            20..26 => self.finish_publish(),
            26..28 => self.finish_upload(),
            28..32 => self.sleep(),
            32..35 => self.hook(),
            35 => {
                self.paused = self.one_in(3);
                self.event(Event::PauseFound(self.paused));
                self.event(Event::ReloadRequested);
            }
            36 => self.event(Event::ArchiveRead(Err("unreadable".into()))),
            37 => self.tell_archive(),
            38 if self.one_in(4) => {
                // Somebody else publishes.
                self.published.insert((format!("p{}", next(&mut self.random) % 4), "2-1".into()));
                self.tell_archive();
            }
            39 if self.one_in(20) => {
                let abort = self.stopped;
                self.stopped = true;
                self.aborted |= abort;
                self.event(if abort { Event::AbortRequested } else { Event::StopRequested });
            }
            _ => {}
        }
        self.check_rest();
    }

    /// Lets everything succeed from now on, until the farm is over or all back-offs have passed.
    fn calm_down(&mut self) {
        self.calm = true;
        self.paused = false;
        self.event(Event::PauseFound(false));
        self.end_pauses();
        self.tell_archive();
        let end = self.now + CALM;
        for _ in 0..20_000 {
            if self.farm.outcome(self.now).is_some() || self.now > end {
                return;
            }
            if self.publish.is_some() {
                self.finish_publish();
            } else if !self.builds.is_empty() {
                self.finish_build();
            } else if self.uploading {
                self.finish_upload();
            } else if !self.polls.is_empty() {
                self.finish_poll();
            } else if self.farm.next_deadline().is_some() {
                self.sleep();
            } else {
                return;
            }
            self.check_rest();
        }
        self.check(false, "the farm finds no end");
    }
}

fn webhook_name(upstream: &str) -> String {
    UpstreamUrl::from(upstream).repository()
}

/// xorshift64.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 16
}

fn below(state: &mut u64, end: usize) -> usize {
    usize::try_from(next(state) % 1_000_000).expect("a small number") % end
}

#[test]
fn random_events_in_random_order_keep_all_invariants() {
    let (mut ended, mut complete) = (0, 0);
    for seed in seeds() {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            if world.farm.outcome(world.now).is_some() {
                break;
            }
            world.step();
        }
        world.calm_down();
        if world.options.once || world.stopped {
            world.check_end();
            ended += 1;
        } else {
            world.check_complete();
            world.check_forgotten();
            complete += 1;
        }
    }
    let is_varied = ended > 20 && complete > 20 || seeds().end - seeds().start < 100;
    assert!(is_varied, "{ended} ended, {complete} complete: the cases do not say much");
}

#[test]
fn random_farm_without_failures_builds_everything() {
    for seed in seeds() {
        let mut world = World::new(seed);
        world.calm_down();
        if world.options.once {
            world.check(world.farm.outcome(world.now) == Some(Outcome::Clean), "it does not end");
        }
        world.check_complete();
    }
}
