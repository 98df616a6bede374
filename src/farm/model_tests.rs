//! Plays the core in random interleavings of all its events, and checks what must hold in each.
//!
//! A case is a seed. A failure prints the seed and the last events; to run one case alone, put its
//! seed into [`SEEDS`].

mod invariants;
mod outcomes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::*;
use crate::farm::tests::{archive, outputs, recipe};

const SEEDS: Range<u64> = 0..400;

/// The random steps of a case, before the calm in which everything succeeds.
const STEPS: usize = 250;

/// The length of the calm: longer than any back-off and any poll interval.
const CALM: Duration = Duration::from_hours(24 * 4);

const UPSTREAMS: [&str; 7] =
    ["u", "w", "https://one/a", "https://one/b", "https://one/c", "https://one/d", "https://one/e"];

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
    polls: Vec<UpstreamUrl>,
    job: Option<Job>,
    /// The earliest retry of each failed version; cleared when the recipes change.
    not_before: HashMap<JobKey, Moment>,
    /// The attempts of the sweep since the recipes changed, and whether each was a build.
    attempts: HashSet<(bool, JobKey)>,
    /// The ends of the holds of untried versions that are not urgent, by upstream URL or recipe.
    fresh_not_before: HashMap<String, Moment>,
    /// Whether the remote lacks a publish that no running upload brings.
    owed: bool,
    uploading: bool,
    /// Whether the recipes changed since the job was started.
    roster_changed: bool,
    /// For each waiting recipe, the recipes built since its last turn.
    built_before: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    calm: bool,
    stopped: bool,
    aborted: bool,
    done: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let options = Options {
            once: next(&mut random).is_multiple_of(3),
            default_interval: Duration::from_mins(30 + next(&mut random) % 300),
            poll_jobs: 1 + below(&mut random, 5),
            uploads: next(&mut random).is_multiple_of(2),
            order_seed: None,
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
            polls: Vec::new(),
            job: None,
            not_before: HashMap::new(),
            attempts: HashSet::new(),
            fresh_not_before: HashMap::new(),
            owed: false,
            uploading: false,
            roster_changed: false,
            built_before: BTreeMap::new(),
            calm: false,
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
        let found: Vec<PendingOutputs> = [("r0", "1-1", "p0"), ("r1", "3-1", "p1"), ("gone", "1-1", "pg")]
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
            let watch = if self.one_in(2) { "[watch]\ngithub_webhook = true\n" } else { "" };
            self.roster.push(recipe(
                &format!("r{number}"),
                upstream,
                &packages,
                &format!("{minimum}{watch}"),
            ));
        }
        // A changed recipe ends the back-off of its versions.
        self.not_before.clear();
        self.fresh_not_before.clear();
        self.attempts.clear();
        self.roster_changed = true;
        self.event(Event::RosterLoaded(Ok(self.roster.clone())));
    }

    fn event(&mut self, event: Event) {
        self.done.push(format!("{:?} {event:?}", self.now));
        let before = self.waiting();
        // A retry that joins the queue may find its version published, which costs its recipe's turn.
        for (key, failure) in &self.farm.failures {
            if failure.is_backed_off && failure.retry_at <= self.now {
                self.built_before.remove(&key.recipe);
            }
        }
        // Urgent versions go ahead of all others.
        let may_be_urgent = matches!(event, Event::PollFinished { .. })
            || self.farm.queue.iter().any(|(_, _, urgent)| urgent);
        let effects = self.farm.handle(event, self.now);
        let started = effects.iter().find_map(|effect| match effect {
            Effect::StartJob(Job::Build(build)) => Some(build.clone()),
            _ => None,
        });
        if let Some(build) = started.as_ref().filter(|_| !may_be_urgent) {
            self.check_hold(build);
        }
        self.check_turns(&before, started.map(|build| build.recipe.id.clone()), may_be_urgent);
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
            Effect::StartJob(job) => self.start(job),
            Effect::StartUpload => {
                self.check(!self.uploading, "two uploads at a time");
                self.check(!self.aborted, "an upload after the abort");
                self.check(self.owed, "an upload that nobody owes");
                self.uploading = true;
                self.owed = false;
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
            Effect::Report(Notice::BuildFailed { .. }) if self.roster_changed => {}
            Effect::Report(
                Notice::BuildFailed { key, retry_after, .. } | Notice::PublishFailed { key, retry_after, .. },
            ) => {
                self.not_before.insert(key, self.now + retry_after);
            }
            Effect::Report(_) | Effect::InterruptPolls | Effect::InterruptJob => {}
        }
    }

    fn start(&mut self, job: Job) {
        self.check(self.job.is_none(), "two jobs at a time");
        self.check(!self.aborted, "a job after the abort");
        self.check(!self.stopped, "a job after the stop");
        match &job {
            Job::Build(build) => {
                let key = build.key();
                self.check(!self.pending.contains(&key), "a version is built that is built already");
                let version = build.candidate.version.as_str();
                let absent = !build.recipe.packages.iter().any(|p| self.is_published(&p.name, version));
                self.check(absent, "a version is built that is published");
                self.check(
                    self.roster.iter().any(|recipe| recipe.id == build.recipe.id),
                    "a dropped recipe is built",
                );
                self.check(
                    self.not_before.get(&key).is_none_or(|at| *at <= self.now),
                    "a retry before its time",
                );
            }
            Job::Publish(outputs) => {
                let key = &outputs.key;
                self.check(self.pending.contains(key), "a publish of what is not there");
            }
        }
        let is_first = self.attempts.insert((matches!(job, Job::Build(_)), job.key()));
        self.check(is_first || !self.options.once, "a second attempt in one sweep");
        self.job = Some(job);
        self.roster_changed = false;
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
            12..26 => self.finish_job(),
            26..28 => self.finish_upload(),
            28..32 => self.sleep(),
            32..35 => {
                let repositories = UPSTREAMS
                    .map(webhook_name)
                    .into_iter()
                    .filter(|_| next(&mut self.random).is_multiple_of(2));
                let repositories = repositories.collect();
                self.event(Event::WebhookReceived { repositories });
            }
            35 => self.event(Event::ReloadRequested),
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
        self.tell_archive();
        let end = self.now + CALM;
        for _ in 0..20_000 {
            if self.farm.outcome(self.now).is_some() || self.now > end {
                return;
            }
            if self.job.is_some() {
                self.finish_job();
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
    UpstreamUrl::from(upstream).repository().to_owned()
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
    for seed in SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            if world.farm.outcome(world.now).is_some() {
                break;
            }
            world.step();
        }
        world.calm_down();
        if world.options.once || world.stopped {
            world.check(world.farm.outcome(world.now).is_some(), "it does not end");
            ended += 1;
        } else {
            world.check_complete();
            complete += 1;
        }
    }
    assert!(ended > 50 && complete > 50, "{ended} ended, {complete} complete: the cases do not say much");
}

#[test]
fn random_farm_without_failures_builds_everything() {
    for seed in SEEDS {
        let mut world = World::new(seed);
        world.calm_down();
        if world.options.once {
            world.check(world.farm.outcome(world.now) == Some(Outcome::Clean), "it does not end");
        }
        world.check_complete();
    }
}
