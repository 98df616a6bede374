//! Counts what the core looks at for each kind of event, in a small farm and in a large one.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::farm::counted::count;
use crate::farm::events::{Blame, BuildOutcome, PollError, PollFault, PublishOutcome, UploadOutcome};

/// How much an event concerns: its effects, and the versions of the publishes that it ends and starts.
type Extent = (usize, usize, usize);

/// A farm with `size` upstreams on a few hosts, most of them published, some with versions that wait
/// or have failed; and the steps of each kind of event so far.
struct Large {
    farm: Farm,
    now: Moment,
    size: usize,
    /// The upstreams that are being listed.
    polls: Vec<UpstreamUrl>,
    steps: BTreeMap<(&'static str, Extent), usize>,
}

impl Large {
    fn new(size: usize) -> Self {
        let options = Options { build_jobs: 2, uploads: true, ..options(false) };
        let hook = "[watch]\ngithub_webhook = true\n";
        let recipes: Vec<Recipe> = (0..size)
            .map(|n| {
                recipe(&format!("r{n}"), &format!("https://h{}/u{n}", n % 50), &[&format!("p{n}")], hook)
            })
            .collect();
        let mut large = Self {
            farm: Farm::new(options),
            now: Moment::ZERO,
            size,
            polls: Vec::new(),
            steps: BTreeMap::new(),
        };
        let published: Vec<String> = (0..size).map(|n| format!("p{n}")).collect();
        let published: Vec<(&str, &str)> = published.iter().map(|name| (name.as_str(), "1-1")).collect();
        large.event("archive", Event::ArchiveRead(Ok(archive(&published))));
        large.event("roster", loaded(recipes));
        // The first round: every twentieth upstream has versions that wait, each fortieth cannot be
        // listed.
        while let Some(url) = large.polls.pop() {
            let number: usize = url.repository().rsplit('u').next().unwrap().parse().unwrap();
            let tags = match number % 40 {
                0 => Err(PollError { reason: "no route".into(), fault: PollFault::Other }),
                1 | 21 => Ok(["v1", "v2", "v3"].into_iter().collect()),
                _ => Ok(["v1"].into_iter().collect()),
            };
            // Otherwise all retries and polls would be due in one instant.
            large.now += Duration::from_millis(1);
            large.event("first poll", Event::PollFinished { upstream: url, tags });
        }
        large.steps.clear();
        large
    }

    fn event(&mut self, name: &'static str, event: Event) -> Vec<Effect> {
        let versions = self.farm.publishing.running().map_or(0, |running| running.versions.len());
        count::take();
        let effects = self.farm.handle(event, self.now);
        self.farm.next_deadline();
        self.farm.outcome(self.now);
        self.farm.progress();
        // An event may concern several upstreams or versions: compare it with those that concern as many.
        let started = effects.iter().map(|effect| match effect {
            Effect::StartPublish(group) => group.len(),
            _ => 0,
        });
        let extent = (effects.len(), started.sum::<usize>(), versions);
        let steps = self.steps.entry((name, extent)).or_default();
        *steps = (*steps).max(count::take());
        for effect in &effects {
            if let Effect::StartPoll(url) = effect {
                self.polls.push(url.clone());
            }
        }
        effects
    }

    /// Plays each kind of event in the middle of the farm's life.
    fn play(&mut self) {
        let url = |n: usize| UpstreamUrl::from(&*format!("https://h{}/u{n}", n % 50));
        for round in 0..20 {
            self.now = self.farm.next_deadline().unwrap().max(self.now);
            self.event("deadline", Event::DeadlineReached);
            let polls = std::mem::take(&mut self.polls);
            for (number, upstream) in polls.into_iter().enumerate() {
                let (name, tags) = match (round + number) % 3 {
                    0 => ("poll with news", Ok(["v1", "v9"].into_iter().collect())),
                    1 => ("poll without news", Ok(["v1"].into_iter().collect())),
                    _ => {
                        let fault = PollFault::NoAnswer;
                        ("poll that fails", Err(PollError { reason: "no answer".into(), fault }))
                    }
                };
                self.event(name, Event::PollFinished { upstream, tags });
            }
            let hooked = url((round * 7 + 3) % self.size);
            let repositories = vec![hooked.repository()];
            self.event("webhook", Event::WebhookReceived { repositories });
            self.event("webhook for nobody", Event::WebhookReceived { repositories: vec!["h/x".into()] });
            for _ in 0..2 {
                let Some(job) = self.farm.flights.first().map(|flight| flight.job.clone()) else { break };
                let (key, names) = (job.key(), [&*job.recipe.packages[0].name]);
                self.event("log", Event::LogBegun { key: key.clone(), log: "x".into() });
                if round % 4 == 0 {
                    let blame = Blame::Upstream;
                    let outcome = BuildOutcome::Failed { reason: "x".into(), blame };
                    self.event("build that fails", Event::BuildFinished { key, outcome });
                } else {
                    let outputs = outputs(&key.recipe, key.version.as_str(), &names);
                    let outcome = BuildOutcome::Built { outputs, log: None };
                    self.event("build", Event::BuildFinished { key, outcome });
                }
            }
            if self.farm.publishing.running().is_some() {
                let failed = PublishOutcome::Failed { reason: "x".into() };
                let (name, outcome) = if round % 5 == 0 {
                    ("publish that fails", failed)
                } else {
                    ("publish", PublishOutcome::Done)
                };
                self.event(name, Event::PublishFinished(outcome));
            }
            self.event("upload", Event::UploadFinished(UploadOutcome::Done));
        }
    }
}

#[test]
fn event_in_a_large_farm_looks_at_no_more_than_in_a_small_one() {
    let [small, large] = [100, 10_000].map(|size| {
        let mut farm = Large::new(size);
        farm.play();
        farm.steps
    });
    let names: BTreeSet<_> =
        small.keys().filter(|key| large.contains_key(*key)).map(|(name, _)| name).collect();
    assert!(names.len() > 10, "{names:?}");
    for (key, steps) in &large {
        if let Some(small) = small.get(key) {
            // A few more, such as for a retry that is due at the same time; not one for each upstream.
            assert!(steps * 10 <= small * 12 + 50, "{key:?}: {steps} steps, {small} in a small farm");
        }
    }
}
