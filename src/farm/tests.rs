//! The core over simulated days: events in, effects out, no clock.

use std::fmt::Write as _;
use std::path::Path;

use super::event::{Blame, JobOutcome, PollError, PollFault, UploadOutcome};
use super::*;
use crate::identity::PackageName;

const MINUTE: Moment = Moment::from_mins(1);
const HOUR: Moment = Moment::from_hours(1);

/// A farm under test, and what it has asked for since the test looked last.
pub(super) struct Bench {
    pub(super) farm: Farm,
    pub(super) now: Moment,
    effects: Vec<Effect>,
}

impl Bench {
    fn new(once: bool, recipes: Vec<Recipe>) -> Self {
        Self::with_options(
            Options { once, default_interval: HOUR, poll_jobs: 4, uploads: false, order_seed: None },
            recipes,
        )
    }

    pub(super) fn with_options(options: Options, recipes: Vec<Recipe>) -> Self {
        let mut bench = Self { farm: Farm::new(options), now: Moment::ZERO, effects: Vec::new() };
        bench.event(Event::ArchiveRead(Ok(Archive::default())));
        bench.event(Event::RosterLoaded(Ok(recipes)));
        bench
    }

    pub(super) fn event(&mut self, event: Event) {
        self.effects.extend(self.farm.handle(event, self.now));
    }

    /// The upstreams that were to be polled, since the last look at any effect.
    fn polls(&mut self) -> Vec<String> {
        let is_poll = |effect: Effect| match effect {
            Effect::StartPoll(upstream) => Some(upstream.to_string()),
            _ => None,
        };
        self.effects.drain(..).filter_map(is_poll).collect()
    }

    /// The effects since the last look, as a test reads them.
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

    fn fail(&mut self) {
        self.finish(JobOutcome::Failed { reason: "no compiler".into(), blame: Blame::Version });
    }

    /// Lets time pass until `until`, waking the farm only when it asked for it.
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

/// A recipe that watches `upstream` and makes the packages `packages`.
pub(super) fn recipe(id: &str, upstream: &str, packages: &[&str], more: &str) -> Recipe {
    let mut text = format!("[upstream]\ngit = {upstream:?}\ntag_pattern = '^v(.*)$'\n{more}\n");
    for package in packages {
        writeln!(text, "[[package]]\nname = {package:?}\narchitecture = 'noarch'\n").unwrap();
    }
    Recipe::parse(id, Path::new(id), &text).unwrap().0
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

pub(super) fn outputs(recipe: &str, version: &str, packages: &[&str]) -> KeptOutputs {
    KeptOutputs {
        directory: format!("{recipe}@{version}.0"),
        key: JobKey { recipe: recipe.into(), version: version.parse().unwrap() },
        packages: packages.iter().map(|name| package(name)).collect(),
    }
}

#[test]
fn a_sweep_builds_what_is_not_published_and_ends() {
    let mut bench =
        Bench::new(true, vec![recipe("a", "u", &["pa", "pa-doc"], ""), recipe("b", "w", &["pb"], "")]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1.0-1"), ("pa-doc", "1.0-1"), ("pa", "1.1-1")]))));
    assert_eq!(bench.polls(), ["u", "w"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.tags("u", &["v1.0", "v1.1", "v1.2", "other"]);
    assert_eq!(bench.seen(), ["partly published a@1.1-1", "build a@1.2-1"]);
    bench.tags("w", &["v2", "v10"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["build b@10-1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["failed b@10-1 1m", "build b@2-1"], "one failure does not stop the others");
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean), "a sweep does not wait for retries");
}

#[test]
fn recipes_that_share_an_upstream_are_polled_together() {
    let mut bench = Bench::new(
        true,
        vec![
            recipe("a", "u", &["pa"], ""),
            recipe("b", "u", &["pb"], "min_version = '2'"),
            recipe("c", "u", &["pc"], "peios_revision = 3"),
        ],
    );
    assert_eq!(bench.polls(), ["u"]);
    bench.tags("u", &["v1", "v2"]);
    let mut built = bench.seen();
    while bench.farm.outcome(bench.now).is_none() {
        bench.finish(JobOutcome::Done);
        built.extend(bench.seen());
    }
    assert_eq!(built, ["build a@2-1", "build b@2-1", "build c@2-3", "build a@1-1", "build c@1-3"]);
}

#[test]
fn a_package_that_another_recipe_has_published_is_not_built_again() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["same"], ""), recipe("b", "u", &["same"], "")]);
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
    assert!(bench.seen().is_empty());
}

#[test]
fn bad_tags_are_skipped_with_one_warning_each() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    let long = format!("v{}", "1".repeat(300));
    let tags = ["v../../x", "v--help", "vé", &long, "v1", "v1.0_2"];
    bench.tags("u", &tags);
    let expected = [
        r#"skipped "v../../x""#,
        r#"skipped "v--help""#,
        r#"skipped "vé""#,
        &format!("skipped {long:?}"),
        r#"skipped "v1.0_2""#,
        "build a@1-1",
    ];
    assert_eq!(bench.seen(), expected);
    bench.finish(JobOutcome::Done);
    bench.sleep_until(HOUR);
    assert_eq!(bench.polls(), ["u"]);
    bench.tags("u", &tags);
    assert!(bench.seen().is_empty(), "the next poll does not repeat the warnings");
    let many: Vec<String> = (0..1000).map(|n| format!("v_{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    bench.sleep_until(HOUR * 2);
    bench.tags("u", &many);
    let seen = bench.seen();
    assert_eq!((seen.len(), seen.last().unwrap().as_str()), (21, "skipped 980 more"));
}

#[test]
fn a_pattern_that_no_tag_matches_is_warned_about_once() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    let no_match = ["a: no ^v(.*)$ like 2.0"];
    bench.tags("u", &[]);
    assert!(bench.seen().is_empty(), "no tag is no tag that does not match");
    for expected in [&no_match[..], &[]] {
        bench.sleep_until(bench.now + HOUR);
        bench.polls();
        bench.tags("u", &["1.0", "2.0"]);
        assert_eq!(bench.seen(), expected);
    }
    // A tag that is too old or makes no version has matched.
    for (more, tag) in [("min_version = '2'", "v1.0"), ("", "v1.0_2")] {
        let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], more)]);
        bench.tags("u", &["1.0", tag, "zzz"]);
        assert!(!bench.seen().iter().any(|line| line.contains(" no ")), "{tag}");
    }
    // Another pattern is another mistake.
    let mut other = recipe("a", "u", &["pa"], "");
    let upstream = other.upstream.as_mut().unwrap();
    upstream.tag_pattern = crate::tag_pattern::TagPattern::parse("^release-(.*)$").unwrap().0;
    bench.event(Event::RosterLoaded(Ok(vec![other])));
    bench.sleep_until(bench.now + HOUR);
    bench.polls();
    bench.tags("u", &["1.0", "2.0"]);
    assert_eq!(bench.seen(), ["a: no ^release-(.*)$ like 2.0"]);
}

#[test]
fn two_tags_of_one_version_are_built_once() {
    let text = "[upstream]\ngit = 'u'\ntag_pattern = '^v?(\\d+)$'\n[[package]]\nname = 'pa'\narchitecture = 'noarch'";
    let recipe = Recipe::parse("a", Path::new("a"), text).unwrap().0;
    let mut bench = Bench::new(true, vec![recipe]);
    bench.tags("u", &["1", "v1", "2"]);
    assert_eq!(bench.seen(), [r#"skipped "v1""#, "build a@2-1"]);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["build a@1-1"]);
}

#[test]
fn an_unreadable_index_is_warned_about_and_does_not_stop_the_farm() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["pa"], "")]);
    bench.event(Event::ArchiveRead(Err("archive.json: EOF".into())));
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["dedup failed a", "build a@1-1"]);
}

#[test]
fn a_failed_build_is_retried_at_its_own_time() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.seen();
    let mut failed_at = vec![];
    for _ in 0..7 {
        failed_at.push(bench.now.as_secs() / 60);
        bench.fail();
        let due = bench.farm.failures.values().next().unwrap().retry_at;
        while bench.now < due {
            // Polls go on meanwhile and must not bring the retry forward.
            let next = bench.farm.next_deadline().unwrap();
            bench.sleep_until(next);
            for upstream in bench.polls() {
                bench.tags(&upstream, &["v1"]);
            }
        }
        assert!(bench.farm.in_flight.is_some(), "not retried at its time");
    }
    assert_eq!(failed_at, [0, 1, 6, 21, 81, 441, 1881]);
    bench.finish(JobOutcome::Done);
    assert!(bench.farm.failures.is_empty());
}

#[test]
fn a_failed_publish_keeps_its_outputs_and_delays_nobody() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1"]);
    bench.tags("w", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
    let kept = outputs("a", "1-1", &["pa"]);
    bench.finish(JobOutcome::PublishFailed { reason: "refused".into(), outputs: kept.clone() });
    assert_eq!(bench.seen(), ["unpublished a@1-1 1m", "build b@1-1"]);
    bench.finish(JobOutcome::Done);
    bench.sleep_until(MINUTE);
    assert_eq!(bench.seen(), ["publish a@1-1"], "without another build");
    bench.finish(JobOutcome::PublishFailed { reason: "refused".into(), outputs: kept });
    assert_eq!(bench.seen(), ["unpublished a@1-1 5m"]);
    bench.sleep_until(MINUTE * 6);
    assert_eq!(bench.seen(), ["publish a@1-1"]);
    bench.finish(JobOutcome::Done);
    assert!(bench.farm.failures.is_empty() && bench.farm.kept.is_empty());
}

#[test]
fn a_failure_has_the_log_of_its_own_attempt() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.event(Event::LogBegun("early".into()));
    bench.tags("u", &["v2", "v1"]);
    let calendar = crate::status::Calendar { started: std::time::UNIX_EPOCH };
    let logs = |bench: &mut Bench| {
        let reported = bench.effects.drain(..).filter_map(|effect| match effect {
            Effect::Report(Notice::BuildFailed { log, .. } | Notice::PublishFailed { log, .. }) => Some(log),
            _ => None,
        });
        let reported: Vec<_> = reported.collect();
        let status = bench.farm.status(&"farm".into(), calendar);
        let failures = status.failures.unwrap_or_default();
        (status.in_flight.and_then(|flight| flight.log), reported, failures["a@2-1"].log.clone())
    };
    bench.event(Event::LogBegun("first".into()));
    bench.fail();
    assert_eq!(logs(&mut bench), (None, vec![Some("first".into())], Some("first".into())));
    bench.event(Event::LogBegun("of v1".into()));
    assert_eq!(logs(&mut bench), (Some("of v1".into()), vec![], Some("first".into())));
    bench.finish(JobOutcome::Done);
    bench.sleep_until(MINUTE);
    bench.event(Event::LogBegun("second".into()));
    let kept = outputs("a", "2-1", &["pa"]);
    bench.finish(JobOutcome::PublishFailed { reason: "refused".into(), outputs: kept.clone() });
    assert_eq!(logs(&mut bench), (None, vec![Some("second".into())], Some("second".into())));
    bench.sleep_until(MINUTE * 6);
    // An attempt without a log does not point to the one before.
    bench.finish(JobOutcome::PublishFailed { reason: "refused".into(), outputs: kept });
    assert_eq!(logs(&mut bench), (None, vec![None], None));
}

#[test]
fn outputs_that_somebody_has_taken_away_are_built_anew() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    let kept = outputs("a", "1-1", &["pa"]);
    bench.finish(JobOutcome::PublishFailed { reason: "garbage".into(), outputs: kept });
    bench.seen();
    bench.sleep_until(MINUTE);
    assert_eq!(bench.seen(), ["publish a@1-1"]);
    bench.finish(JobOutcome::OutputsGone);
    assert!(bench.farm.failures.is_empty() && bench.farm.kept.is_empty());
    let effects = std::mem::take(&mut bench.effects);
    let is_poll = |effect: &Effect| matches!(effect, Effect::StartPoll(upstream) if &**upstream == "u");
    assert!(effects.iter().any(is_poll), "it is polled long before its time: {effects:?}");
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.finish(JobOutcome::Done);

    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::OutputsFound(vec![outputs("dropped", "1-1", &["pd"])]));
    bench.finish(JobOutcome::OutputsGone);
    assert_eq!(bench.seen(), ["publish dropped@1-1", "gone dropped@1-1"]);
    assert_eq!(bench.farm.next_deadline(), None);
}

#[test]
fn what_an_earlier_run_has_built_is_published_first() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["pa"], "")]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1"), ("pa", "2-1")]))));
    let found = [("a", "1-1", "pa"), ("gone", "2-1", "pa"), ("a", "3-1", "pa")];
    bench.event(Event::OutputsFound(found.iter().map(|(id, v, p)| outputs(id, v, &[p])).collect()));
    assert_eq!(bench.seen(), ["discard a@1-1", "discard gone@2-1", "publish a@3-1"]);
    bench.tags("u", &["v1", "v2", "v3"]);
    bench.finish(JobOutcome::Done);
    assert!(bench.seen().is_empty());
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
}

#[test]
fn kept_outputs_that_are_partly_published_are_left_to_a_person() {
    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    let both = |version| outputs("a", version, &["pa", "pb"]);
    bench.event(Event::OutputsFound(vec![both("1-1"), both("2-1")]));
    assert_eq!(bench.seen(), ["partly published a@1-1", "publish a@2-1"]);
    bench.finish(JobOutcome::PublishFailed { reason: "full".into(), outputs: both("2-1") });
    // Somebody else has published one of them meanwhile.
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1"), ("pa", "2-1")]))));
    bench.sleep_until(HOUR);
    assert_eq!(bench.seen(), ["unpublished a@2-1 1m", "partly published a@2-1"]);
    assert!(bench.farm.failures.is_empty() && bench.farm.next_deadline().is_none());
}

#[test]
fn a_reload_replaces_the_roster_or_leaves_it() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.tags("w", &["v1"]);
    assert_eq!(bench.polls(), ["u", "w"]);
    bench.event(Event::ReloadRequested);
    assert_eq!(bench.seen(), ["load roster"]);
    bench.event(Event::RosterLoaded(Err(vec![])));
    assert_eq!(bench.seen(), ["reload refused"]);
    bench.event(Event::RosterLoaded(Ok(vec![recipe("b", "w", &["pb"], ""), recipe("c", "x", &["pc"], "")])));
    assert_eq!(bench.polls(), ["w", "x"]);
    bench.finish(JobOutcome::Done);
    assert_eq!(
        bench.seen(),
        ["build b@1-1"],
        "a dropped recipe leaves the queue, its build in progress ends"
    );
    bench.tags("x", &["v5"]);
    bench.fail();
    assert_eq!(bench.seen(), ["failed b@1-1 1m", "build c@5-1"]);
    bench.event(Event::RosterLoaded(Ok(vec![recipe("c", "x", &["pc"], "")])));
    assert!(bench.farm.failures.is_empty());
    bench.event(Event::RosterLoaded(Ok(vec![])));
    bench.fail();
    assert_eq!(bench.seen(), ["failed c@5-1 1m"]);
    assert!(bench.farm.failures.is_empty(), "nothing is retried for a dropped recipe");
    assert_eq!(bench.farm.next_deadline(), None);
}

#[test]
fn draining_finishes_the_build_and_its_upload() {
    let options =
        Options { once: false, default_interval: HOUR, poll_jobs: 1, uploads: true, order_seed: None };
    let mut bench =
        Bench::with_options(options, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build a@2-1"]);
    bench.event(Event::StopRequested);
    assert_eq!(bench.seen(), ["interrupt polls"]);
    bench.event(Event::PollFinished { upstream: "w".into(), tags: Err(no_route()) });
    assert!(bench.seen().is_empty(), "a poll that the shutdown has ended is no failure");
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["upload"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.upload_fails();
    assert_eq!(bench.seen(), ["not uploaded 1m"]);
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
}

#[test]
fn a_second_signal_ends_the_build_uncounted() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.event(Event::StopRequested);
    bench.seen();
    bench.event(Event::AbortRequested);
    assert_eq!(bench.seen(), ["interrupt polls", "interrupt job"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.finish(JobOutcome::Interrupted);
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Aborted));
    assert!(bench.farm.failures.is_empty());
    assert_eq!((bench.farm.builds_attempted, bench.farm.builds_succeeded), (1, 0));
}

#[test]
fn a_failed_poll_is_a_warning_for_each_recipe_and_changes_nothing() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "u", &["pb"], "")]);
    bench.tags("u", &["v1"]);
    bench.seen();
    bench.sleep_until(HOUR);
    bench.event(Event::PollFinished { upstream: "u".into(), tags: Err(no_route()) });
    assert_eq!(bench.seen(), ["poll failed a", "poll failed b"]);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["build b@1-1"], "what waits in the queue stays there");
}

#[test]
fn a_publish_that_succeeded_in_spite_of_its_error_is_not_repeated() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    let kept = outputs("a", "1-1", &["pa"]);
    bench.finish(JobOutcome::PublishFailed { reason: "killed".into(), outputs: kept });
    bench.seen();
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    bench.sleep_until(MINUTE);
    assert_eq!(bench.seen(), ["discard a@1-1"]);
    assert!(bench.farm.in_flight.is_none() && bench.farm.failures.is_empty());
}

#[test]
fn a_webhook_polls_every_recipe_that_asked_for_it_and_builds_its_news_first() {
    let hook = |id: &str, upstream: &str, package: &str| {
        let mut recipe = recipe(id, upstream, &[package], "");
        recipe.github_webhook = true;
        recipe
    };
    let mut bench = Bench::new(
        false,
        vec![
            hook("a", "https://git.example/x.git", "pa"),
            hook("b", "ssh://git@git.example/x", "pb"),
            recipe("c", "https://git.example/x", &["pc"], ""),
            recipe("d", "https://git.example/d", &["pd"], ""),
        ],
    );
    for upstream in bench.polls() {
        bench.tags(&upstream, &["v1", "v2"]);
    }
    assert_eq!(bench.seen(), ["build d@2-1"]);
    for _ in 0..3 {
        bench.event(Event::WebhookReceived { repositories: vec!["git.example/x".into()] });
    }
    assert_eq!(
        bench.polls(),
        ["https://git.example/x.git", "ssh://git@git.example/x"],
        "repeated hooks coalesce"
    );
    bench.event(Event::WebhookReceived { repositories: vec!["git.example/unknown".into()] });
    assert!(bench.polls().is_empty());
    bench.tags("ssh://git@git.example/x", &["v0.5", "v1", "v2"]);
    bench.finish(JobOutcome::Done);
    assert_eq!(bench.seen(), ["build b@0.5-1"], "ahead of everything that waited");
}

#[test]
fn the_status_tells_what_waits_and_what_failed() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.event(Event::PollFinished { upstream: "w".into(), tags: Err(no_route()) });
    bench.fail();
    let calendar = crate::status::Calendar { started: std::time::SystemTime::UNIX_EPOCH };
    let status = bench.farm.status(&"farm".into(), calendar);
    let in_flight = status.in_flight.unwrap();
    assert_eq!((&*in_flight.recipe, in_flight.version.as_str()), ("a", "1-1"));
    let failure = &status.failures.unwrap()["a@2-1"];
    assert_eq!(
        (failure.failures, failure.next_retry.to_string().as_str(), failure.stage),
        (1, "1970-01-01T00:01:00Z", "build")
    );
    assert_eq!(failure.last_error, "no compiler");
    assert!(status.queue.is_empty() && status.queue_length == 0);
    assert_eq!(status.polls["a"].tags_seen, Some(2));
    assert_eq!(status.polls["b"].error.as_deref(), Some("no route"));
    assert_eq!((status.builds_attempted, status.builds_succeeded), (2, 0));
    let tags: Vec<String> = (1..=5000).map(|number| format!("v{number}")).collect();
    bench.tags("u", &tags.iter().map(String::as_str).collect::<Vec<_>>());
    let status = bench.farm.status(&"farm".into(), calendar);
    assert_eq!(
        (status.queue.len(), status.queue_length),
        (1000, 4998),
        "all but a failed one and one in flight"
    );
}

#[test]
fn a_changed_recipe_is_tried_again_at_once() {
    let stamped = |stamp| vec![Recipe { stamp, ..recipe("a", "u", &["pa"], "") }];
    let mut bench = Bench::new(false, stamped(1));
    bench.tags("u", &["v1"]);
    bench.fail();
    bench.event(Event::RosterLoaded(Ok(stamped(1))));
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 1m"], "the same recipe waits");
    bench.event(Event::RosterLoaded(Ok(stamped(2))));
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["failed a@1-1 5m"]);
}

#[test]
fn what_a_changed_recipe_no_longer_builds_is_neither_built_nor_retried() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    bench.tags("u", &["v1", "v2"]);
    bench.fail();
    assert_eq!(bench.seen(), ["build a@2-1", "failed a@2-1 1m", "build a@1-1"]);
    bench.event(Event::RosterLoaded(Ok(vec![recipe("a", "u", &["pa"], "peios_revision = 2")])));
    assert!(bench.farm.failures.is_empty() && bench.farm.queue.is_empty());
    bench.finish(JobOutcome::Done);
    bench.tags("u", &["v1", "v2"]);
    assert_eq!(bench.seen(), ["build a@2-2"]);
}

#[test]
fn a_failed_version_whose_tag_is_gone_is_not_retried() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.fail();
    bench.event(Event::RosterLoaded(Ok(vec![recipe("a", "u", &["pa"], "")])));
    bench.tags("u", &["v2"]);
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 1m", "build a@2-1"]);
    assert!(bench.farm.failures.is_empty());
}

#[test]
fn a_build_that_fails_after_its_recipe_has_changed_is_built_by_the_new_recipe_at_once() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.event(Event::RosterLoaded(Ok(vec![recipe("a", "u", &["pa"], "peios_revision = 2")])));
    bench.tags("u", &["v1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 0m", "build a@1-2"]);
    assert!(bench.farm.failures.is_empty());
    // A poll has seen the version while it was built, and passed it over.
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.event(Event::RosterLoaded(Ok(vec![recipe("a", "u", &["pa"], "submodules = true")])));
    bench.tags("u", &["v1"]);
    bench.fail();
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1", "failed a@1-1 0m", "build a@1-1"]);
}

#[test]
fn what_is_found_published_is_uploaded() {
    let options =
        Options { once: false, default_interval: HOUR, poll_jobs: 4, uploads: true, order_seed: None };
    let mut bench = Bench::with_options(options, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.finish(JobOutcome::PublishFailed {
        reason: "no verify".into(),
        outputs: outputs("a", "1-1", &["pa"]),
    });
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    let uploads = |bench: &Bench| bench.effects.iter().filter(|e| matches!(e, Effect::StartUpload)).count();
    assert_eq!(uploads(&bench), 0);
    bench.sleep_until(MINUTE);
    assert_eq!(uploads(&bench), 1);
    assert!(bench.farm.kept.is_empty());
}
