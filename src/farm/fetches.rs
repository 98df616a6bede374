//! Upstreams whose tags are listed, but whose sources do not come: how much of the
//! builder's time they may take from all others. Pure.
//!
//! A fetch that hangs keeps the one builder for minutes, and would do so for each
//! version of the upstream. So once one was slow to fail, the upstream's versions
//! that were never tried wait, longer each time. Versions that have failed keep the
//! times of their own retries, and what a webhook has brought waits for nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::event::{BuildJob, JobKey, JobOutcome, Notice};
use super::queue::Candidate;
use super::schedule::Moment;
use super::{Farm, backoff};

/// From what time on a failed fetch counts: one that fails at once keeps nobody waiting.
pub const SLOW: Duration = Duration::from_secs(10);

/// The longest hold: so often a version that was never tried gets its chance.
const LONGEST_HOLD: Duration = Duration::from_hours(3);

/// How much of the builder's time the failing fetches of one upstream may take in a single sweep.
const SWEEP_PATIENCE: Duration = Duration::from_mins(10);

/// The upstreams whose last fetches were slow to fail, by URL.
#[derive(Debug, Default)]
pub(super) struct Fetches(HashMap<Arc<str>, Trouble>);

#[derive(Debug)]
struct Trouble {
    /// Slow failures since the last fetch that succeeded.
    failures: u32,
    /// The builder's time that they have taken.
    spent: Duration,
    /// Until when the versions that were never tried wait, if they do; [`Moment::MAX`] for the rest of a sweep.
    held_until: Option<Moment>,
}

/// How long an upstream is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// For so long.
    For(Duration),
    /// For the rest of a single sweep.
    ThisSweep,
}

impl Fetches {
    /// Notes that a fetch has failed after `took`; the hold that follows, if one does. Only a daemon
    /// (`repeats`) will see the end of a hold.
    pub(super) fn failed(&mut self, url: &str, took: Duration, repeats: bool, now: Moment) -> Option<Hold> {
        if took < SLOW {
            return None;
        }
        let fresh = Trouble { failures: 0, spent: Duration::ZERO, held_until: None };
        let trouble = self.0.entry(Arc::from(url)).or_insert(fresh);
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.spent = trouble.spent.saturating_add(took);
        if repeats {
            // Half of what a version waits: others have had their chance before it is retried, or else
            // the newest would always come first, and one that hangs would be the only one tried.
            let hold = (backoff::wait_after(trouble.failures) / 2).min(LONGEST_HOLD);
            trouble.held_until = Some(now.saturating_add(hold));
            Some(Hold::For(hold))
        } else if trouble.spent >= SWEEP_PATIENCE {
            trouble.held_until = Some(Moment::MAX);
            Some(Hold::ThisSweep)
        } else {
            None
        }
    }

    /// Notes that a fetch has succeeded, or that there is reason to hope that the next one will.
    pub(super) fn release(&mut self, url: &str) {
        self.0.remove(url);
    }

    /// Ends the holds whose time is over.
    pub(super) fn end_holds(&mut self, now: Moment) {
        for trouble in self.0.values_mut() {
            trouble.held_until = trouble.held_until.filter(|until| *until > now);
        }
    }

    /// Whether an upstream is held.
    pub(super) fn holds(&self, url: &str) -> bool {
        self.0.get(url).is_some_and(|trouble| trouble.held_until.is_some())
    }

    /// Forgets the upstreams that `keep` refuses.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|url, _| keep(url));
    }

    /// The upstreams that are held, and until when; those that are held for the rest of a sweep have no end.
    pub(super) fn ends_of_holds(&self) -> impl Iterator<Item = (&Arc<str>, Moment)> {
        let end = |trouble: &Trouble| trouble.held_until.filter(|until| *until < Moment::MAX);
        self.0.iter().filter_map(move |(url, trouble)| Some((url, end(trouble)?)))
    }
}

impl Farm {
    /// What the outcome of a build tells about its upstream's fetches, and what is to be reported of it.
    pub(super) fn learn_of_fetch(
        &mut self,
        build: &BuildJob,
        outcome: &JobOutcome,
        took: Moment,
        now: Moment,
    ) -> Option<Notice> {
        match outcome {
            JobOutcome::Interrupted => None,
            JobOutcome::Failed { in_fetch: true, .. } => {
                let hold = self.fetches.failed(build.url(), took, !self.options.once, now)?;
                let is_held = |(id, candidate, urgent): &(&Arc<str>, &Candidate, bool)| {
                    !urgent && self.upstream_of(id) == Some(build.url()) && !self.may_build(id, candidate)
                };
                let versions = self.queue.iter().filter(is_held).count();
                let upstream = build.url().to_owned();
                (versions > 0).then_some(Notice::UpstreamHeld { upstream, versions, hold })
            }
            _ => {
                self.fetches.release(build.url());
                None
            }
        }
    }

    fn upstream_of(&self, recipe: &str) -> Option<&str> {
        Some(self.roster.get(recipe)?.upstream.as_ref()?.git.as_str())
    }

    /// Whether the upstream of a recipe is held.
    pub(super) fn is_held(&self, recipe: &str) -> bool {
        self.upstream_of(recipe).is_some_and(|url| self.fetches.holds(url))
    }

    /// Whether its upstream lets a version that no webhook has brought be built now.
    pub(super) fn may_build(&self, recipe: &Arc<str>, candidate: &Candidate) -> bool {
        let is_retry = || {
            let key = JobKey { recipe: recipe.clone(), version: candidate.version.clone() };
            !self.options.once && self.failures.contains_key(&key)
        };
        !self.is_held(recipe) || is_retry()
    }

    /// When holds end that keep a version from being built.
    pub(super) fn ends_of_holds(&self) -> impl Iterator<Item = Moment> {
        let waits = |url: &str| {
            let mut recipes = self.watchers.get(url).into_iter().flatten();
            recipes.any(|recipe| self.queue.has(recipe))
        };
        self.fetches.ends_of_holds().filter(move |(url, _)| waits(url)).map(|(_, end)| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::Options;
    use crate::farm::event::Event;
    use crate::farm::tests::{Bench, recipe};

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn holds_grow_with_slow_failures_and_end_with_a_success() {
        let mut fetches = Fetches::default();
        let mut now = Moment::ZERO;
        assert_eq!(fetches.failed("u", Duration::from_secs(9), true, now), None, "it kept nobody waiting");
        let mut holds = Vec::new();
        for _ in 0..7 {
            let Some(Hold::For(hold)) = fetches.failed("u", MINUTE, true, now) else { panic!("no hold") };
            holds.push(hold.as_secs());
            fetches.end_holds(now + hold / 2);
            assert_eq!(fetches.ends_of_holds().map(|(_, end)| end).collect::<Vec<_>>(), [now + hold]);
            assert!(fetches.holds("u"));
            now += hold;
            fetches.end_holds(now);
            assert!(!fetches.holds("u") && fetches.ends_of_holds().count() == 0);
        }
        assert_eq!(holds, [30, 150, 450, 1800, 10_800, 10_800, 10_800]);
        fetches.failed("u", MINUTE, true, now);
        assert!(fetches.holds("u") && !fetches.holds("w"));
        fetches.release("u");
        assert!(!fetches.holds("u"));
        assert_eq!(fetches.failed("u", MINUTE, true, now), Some(Hold::For(MINUTE / 2)), "all is forgiven");
    }

    #[test]
    fn a_single_sweep_tries_others_until_too_much_time_is_gone() {
        let (mut fetches, now) = (Fetches::default(), Moment::ZERO);
        for _ in 0..9 {
            assert_eq!(fetches.failed("u", MINUTE, false, now), None);
            assert!(!fetches.holds("u"));
        }
        assert_eq!(fetches.failed("u", MINUTE, false, now), Some(Hold::ThisSweep));
        fetches.end_holds(Moment::from_hours(100));
        assert!(fetches.holds("u") && fetches.ends_of_holds().count() == 0, "nothing is waited for");
        fetches.retain(|url| url != "u");
        assert!(!fetches.holds("u"));
    }

    /// A farm with two versions of `b` and three of `a` to build, in which a fetch for `a` has just failed after a minute.
    fn with_hanging_fetch(once: bool) -> Bench {
        let hooked = "[watch]\ngithub_webhook = true\n";
        let recipes = vec![recipe("a", "https://h/u", &["pa"], hooked), recipe("b", "w", &["pb"], "")];
        let options = Options {
            once,
            default_interval: Duration::from_hours(10),
            poll_jobs: 4,
            uploads: false,
            order_seed: None,
        };
        let mut bench = Bench::with_options(options, recipes);
        bench.tags("https://h/u", &["v1", "v2", "v3"]);
        bench.tags("w", &["v1", "v2"]);
        assert_eq!(bench.seen(), ["build a@3-1"]);
        hang(&mut bench, MINUTE);
        bench
    }

    fn hang(bench: &mut Bench, took: Duration) {
        bench.now += took;
        bench.finish(JobOutcome::Failed { reason: "no answer".into(), in_fetch: true });
    }

    #[test]
    fn an_upstream_whose_sources_hang_leaves_the_builder_to_the_others() {
        let mut bench = with_hanging_fetch(false);
        assert_eq!(bench.seen(), ["failed a@3-1 1m", "held 2 of https://h/u", "build b@2-1"]);
        bench.finish(JobOutcome::Done);
        bench.finish(JobOutcome::Done);
        assert_eq!(bench.seen(), ["build b@1-1"], "nothing else may be built");
        // Another version has its chance before the one that failed, which is retried at its own time.
        bench.sleep_until(bench.now + MINUTE / 2);
        assert_eq!(bench.seen(), ["build a@2-1"]);
        hang(&mut bench, MINUTE);
        assert_eq!(bench.seen(), ["failed a@2-1 1m", "held 1 of https://h/u", "build a@3-1"]);
        bench.finish(JobOutcome::Failed { reason: "no compiler".into(), in_fetch: false });
        assert_eq!(bench.seen(), ["failed a@3-1 5m", "build a@1-1"], "the sources come again");
    }

    #[test]
    fn what_a_webhook_brings_is_not_held() {
        let mut bench = with_hanging_fetch(false);
        bench.finish(JobOutcome::Done);
        bench.finish(JobOutcome::Done);
        bench.seen();
        bench.event(Event::WebhookReceived { repositories: vec!["h/u".into()] });
        bench.tags("https://h/u", &["v1", "v2", "v3", "v4"]);
        assert_eq!(bench.seen(), ["build a@4-1"]);
    }

    #[test]
    fn a_changed_recipe_ends_the_hold_of_its_upstream() {
        let mut bench = with_hanging_fetch(false);
        bench.finish(JobOutcome::Done);
        bench.finish(JobOutcome::Done);
        bench.seen();
        let recipes = |stamp| {
            let changed = crate::recipe::Recipe { stamp, ..recipe("a", "https://h/u", &["pa"], "") };
            Event::RosterLoaded(Ok(vec![changed, recipe("b", "w", &["pb"], "")]))
        };
        bench.event(recipes(0));
        assert!(bench.seen().is_empty(), "nothing has changed");
        bench.event(recipes(1));
        assert_eq!(bench.seen(), ["build a@3-1"]);
    }

    #[test]
    fn a_sweep_ends_without_the_versions_that_are_held() {
        let mut bench = with_hanging_fetch(true);
        assert_eq!(bench.seen(), ["failed a@3-1 1m", "build a@2-1"], "one failure is no reason to give up");
        hang(&mut bench, MINUTE * 9);
        // Nor is the one that failed first tried again, though it is due.
        assert_eq!(bench.seen(), ["failed a@2-1 1m", "held 1 of https://h/u", "build b@2-1"]);
        bench.finish(JobOutcome::Done);
        assert_eq!(bench.seen(), ["build b@1-1"]);
        assert_eq!(bench.farm.outcome(bench.now), None);
        bench.finish(JobOutcome::Done);
        assert!(bench.seen().is_empty() && bench.farm.outcome(bench.now).is_some());
    }
}
