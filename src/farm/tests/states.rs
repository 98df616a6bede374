//! States that last: `/status` has each as long as it is true.

use super::*;
use crate::farm::status::{Calendar, Status, Totals};

fn status(bench: &Bench) -> Status {
    bench.farm.status(&"farm".into(), Calendar { started: std::time::SystemTime::UNIX_EPOCH })
}

/// Returns the warnings as `event|recipe|subject`.
fn warnings(bench: &Bench) -> Vec<String> {
    let status = status(bench);
    assert_eq!(status.warnings.len(), status.warnings_length);
    let short = |w: &crate::farm::status::Warning| {
        format!("{}|{}|{}", w.event, w.recipe.as_deref().unwrap_or("-"), w.subject)
    };
    status.warnings.iter().map(short).collect()
}

#[test]
fn poll_shows_matches_newest_published_version_and_last_success() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], ""), recipe("b", "u", &["pb"], "")]);
    let of = |bench: &Bench, id: &str| {
        let poll = status(bench).polls.get(id).unwrap().clone();
        let success =
            poll.last_success.as_ref().map(|done| (done.finished_at.to_string(), done.took_seconds));
        (poll.tags_matched, poll.newest_published.clone().map(String::from), success)
    };
    assert_eq!(of(&bench, "a"), (None, None, None));
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1"), ("pa", "1.10-1"), ("pa", "1.9-1")]))));
    bench.tags("u", &["v1", "v1.9", "v1.10", "v1.11", "nightly"]);
    assert_eq!(of(&bench, "a"), (Some(4), Some("1.10-1".into()), None));
    assert_eq!(of(&bench, "b"), (Some(4), None, None));
    bench.now = at(Duration::from_millis(2500));
    bench.done();
    let success = Some(("1970-01-01T00:00:02Z".into(), 2.5));
    assert_eq!(of(&bench, "a"), (Some(4), Some("1.11-1".into()), success.clone()));
    // An older version does not take its place, nor does the same listing again.
    bench.now = at(Duration::from_millis(3500));
    bench.tags("u", &["v1", "v1.9", "v1.10", "v1.11", "nightly"]);
    assert_eq!(of(&bench, "a").1, Some("1.11-1".into()));
    // A failed listing says nothing of the tags.
    bench.event(Event::PollFinished { upstream: "u".into(), tags: Err(no_route()) });
    assert_eq!(of(&bench, "a"), (Some(4), Some("1.11-1".into()), success));
    bench.event(loaded(vec![recipe("a", "w", &["pa"], "")]));
    assert_eq!(of(&bench, "a").0, None, "these were the tags of another upstream");
}

#[test]
fn warnings_about_tags_last_until_a_poll_without_their_cause() {
    let more = "exclude = ['v9']";
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa", "pb"], more)]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    bench.tags("u", &["1", "2"]);
    let no_match = "no tag matches tag_pattern|a|^v(.*)$";
    for _ in 0..2 {
        assert_eq!(warnings(&bench), [no_match]);
        bench.event(Event::PollFinished { upstream: "u".into(), tags: Err(no_route()) });
    }
    assert_eq!(status(&bench).warnings[0].detail, "a tag is 2");
    assert_eq!(status(&bench).polls.get("a").unwrap().tags_matched, Some(0));
    bench.tags("u", &["v1", "v2", "v 3"]);
    let lasting = [
        "exclude names no tag of the upstream|a|v9",
        "version is only partly published, skipping it|a|1-1",
        "tag skipped|a|v 3",
    ];
    assert_eq!(warnings(&bench), lasting);
    bench.tags("u", &["v1", "v2", "v 3"]);
    assert_eq!(warnings(&bench), lasting, "the same tags again");
    bench.tags("u", &["v2", "v9"]);
    assert_eq!(warnings(&bench), [""; 0]);
}

#[test]
fn warnings_about_many_tags_name_some_and_count_the_rest() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    let tags: Vec<String> = (0..500).map(|number| format!("v {number}")).collect();
    bench.tags("u", &tags.iter().map(String::as_str).collect::<Vec<_>>());
    let found = warnings(&bench);
    assert_eq!((found.len(), found[0].as_str()), (21, "more tags skipped|a|480"));
    bench.event(loaded(vec![]));
    assert_eq!(warnings(&bench), [""; 0], "the recipe is gone");
}

#[test]
fn warning_about_a_tag_that_names_no_commit_lasts() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.tags("u", &["v1"]);
    bench.finish(BuildOutcome::NoCommit(names_a_tree("v1")));
    assert_eq!(warnings(&bench), ["tag skipped|a|v1"]);
    bench.tags("u", &["v1"]);
    assert_eq!(warnings(&bench), ["tag skipped|a|v1"]);
}

#[test]
fn warning_of_a_build_lasts_until_its_version_is_built_again_or_its_recipe_changes() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    let warned = |recipe: &str, version: &str| Event::BuildWarned {
        recipe: recipe.into(),
        warning: events::Warning { event: "odd", subject: version.into(), detail: "x".into() },
    };
    bench.tags("u", &["v3", "v2"]);
    bench.event(warned("a", "3-1"));
    bench.event(warned("a", "3-1"));
    bench.event(warned("gone", "3-1"));
    assert_eq!(warnings(&bench), ["odd|a|3-1"]);
    bench.done();
    bench.event(warned("a", "2-1"));
    assert_eq!(warnings(&bench), ["odd|a|3-1", "odd|a|2-1"], "an older version says nothing of a newer one");
    bench.fail();
    bench.tags("u", &["v3", "v2", "v4"]);
    bench.done();
    assert_eq!(warnings(&bench), ["odd|a|3-1", "odd|a|2-1"], "nor does a newer one of an older one");
    bench.sleep_until(at(HOUR));
    assert_eq!(warnings(&bench), ["odd|a|3-1"], "2-1 is built again, and may be well");
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "")]));
    assert_eq!(warnings(&bench), ["odd|a|3-1"], "the recipe is the same");
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "exclude = ['v9']")]));
    assert_eq!(warnings(&bench), [""; 0], "somebody has changed the recipe");
}

#[test]
fn warnings_of_many_builds_are_those_of_the_newest_versions_and_a_count() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    for version in (1..=60).chain(80..=100).rev().chain(61..80) {
        let warning = events::Warning { event: "odd", subject: format!("{version}-1"), detail: "x".into() };
        bench.event(Event::BuildWarned { recipe: "a".into(), warning });
    }
    let status = status(&bench);
    let mut kept: Vec<&str> = status.warnings.iter().map(|warning| warning.subject.as_str()).collect();
    kept.sort_unstable();
    let mut newest: Vec<String> = (81..=100).map(|version| format!("{version}-1")).collect();
    newest.sort_unstable();
    assert_eq!(kept, newest);
    assert_eq!((status.warnings_length, status.warnings_by_event["odd"]), (100, 100));
    bench.event(loaded(vec![]));
    assert_eq!(warnings(&bench), [""; 0]);
}

#[test]
fn grave_warnings_come_before_those_about_single_tags_and_all_are_counted() {
    let many = 200;
    let recipes = (0..many).map(|number| {
        let (id, url) = (format!("r{number:03}"), format!("u{number:03}"));
        recipe(&id, &url, &[&format!("p{number:03}")], "")
    });
    let mut bench = Bench::new(false, recipes.collect());
    let bad: Vec<String> = (0..30).map(|number| format!("v {number}")).collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    for number in 0..many - 1 {
        bench.tags(&format!("u{number:03}"), &bad);
    }
    bench.tags("u199", &["x"]);
    bench.event(Event::ArchiveRead(Err("damaged".into())));
    let mut status = status(&bench);
    let recipe_warning = |number: usize| crate::farm::status::Warning {
        event: "recipe warning",
        recipe: None,
        subject: format!("{number}"),
        detail: String::new(),
    };
    status.add_warnings((0..100).map(recipe_warning).collect(), [("recipe warning", 10_000)].into());
    let first: Vec<&str> = status.warnings.iter().map(|warning| warning.event).take(3).collect();
    assert_eq!(first, ["dedup check failed", "no tag matches tag_pattern", "recipe warning"]);
    assert_eq!(status.warnings.len(), 1000);
    let skipped = 199 * 20;
    assert_eq!(status.warnings_by_event["tag skipped"], skipped);
    assert_eq!(status.warnings_length, 10_000 + skipped + 199 + 2);
}

#[test]
fn version_that_another_recipe_has_published_is_the_newest_of_both() {
    let recipes = vec![recipe("a", "u", &["pa"], ""), recipe("b", "u", &["pa"], "")];
    let mut bench = Bench::new(false, recipes);
    bench.tags("u", &["v1", "v2"]);
    bench.done();
    bench.done();
    for id in ["a", "b"] {
        assert_eq!(status(&bench).polls.get(id).unwrap().newest_published.as_deref(), Some("2-1"), "{id}");
    }
}

#[test]
fn totals_count_what_has_happened_and_outlive_the_recipe() {
    let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
    let oldest_listing = status(&bench).totals.oldest_listing;
    assert_eq!(status(&bench).totals, Totals { oldest_listing, ..Totals::default() });
    bench.event(Event::PollFinished { upstream: "u".into(), tags: Err(no_route()) });
    bench.sleep_until(at(HOUR));
    bench.tags("u", &["v1", "v2"]);
    bench.fail();
    bench.done();
    bench.upload_fails();
    bench.event(loaded(vec![]));
    let time = Calendar { started: std::time::SystemTime::UNIX_EPOCH }.at(at(HOUR));
    let expected = Totals {
        polls: 2,
        polls_failed: 1,
        last_poll: Some(time),
        oldest_listing: None,
        builds_failed: 1,
        publishes_failed: 0,
        last_success: Some(time),
        uploads: 0,
        uploads_failed: 1,
    };
    assert_eq!(status(&bench).totals, expected);
}

#[test]
fn oldest_listing_is_that_of_the_upstream_that_is_stuck_or_fails() {
    let mut bench = Bench::new(false, vec![]);
    let oldest = |bench: &Bench| status(bench).totals.oldest_listing.map(|time| time.to_string());
    assert_eq!(oldest(&bench), None);
    bench.now = at(Duration::from_mins(1));
    let both = || vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")];
    bench.event(loaded(both()));
    assert_eq!(oldest(&bench).as_deref(), Some("1970-01-01T00:01:00Z"), "since when they are watched");
    bench.now = at(Duration::from_mins(2));
    bench.tags("u", &["v1"]);
    assert_eq!(oldest(&bench).as_deref(), Some("1970-01-01T00:01:00Z"), "the other one has no end");
    bench.now = at(Duration::from_mins(3));
    bench.event(Event::PollFinished { upstream: "w".into(), tags: Err(no_route()) });
    assert_eq!(oldest(&bench).as_deref(), Some("1970-01-01T00:01:00Z"), "the other one fails");
    bench.event(loaded(both()));
    bench.tags("w", &["v1"]);
    assert_eq!(oldest(&bench).as_deref(), Some("1970-01-01T00:02:00Z"));
    bench.event(loaded(both().drain(1..).collect()));
    assert_eq!(oldest(&bench).as_deref(), Some("1970-01-01T00:03:00Z"), "nobody watches it any more");
}

#[test]
fn archive_that_cannot_be_read_is_a_warning_until_it_can() {
    let mut bench = Bench::new(false, vec![]);
    bench.event(Event::ArchiveRead(Err("damaged".into())));
    assert_eq!(warnings(&bench), ["dedup check failed|-|"]);
    for _ in 0..2 {
        bench.event(Event::ArchiveRead(Ok(Archive::default())));
        assert_eq!(warnings(&bench), [""; 0]);
    }
    assert_eq!(bench.seen(), ["dedup succeeded"]);
}

#[test]
fn refused_reload_is_shown_until_one_succeeds() {
    let mut bench = Bench::new(false, vec![]);
    let problems: Vec<_> = (0..2000).map(|n| Problem::of_file(format!("f{n}"), "wrong")).collect();
    bench.now = at(MINUTE);
    bench.event(Event::RosterLoaded(Err(problems)));
    let refused = status(&bench).reload_refused.unwrap();
    assert_eq!((refused.at.to_string().as_str(), refused.problems_length), ("1970-01-01T00:01:00Z", 2000));
    assert_eq!((refused.problems.len(), refused.problems[0].as_str()), (1000, "f0: wrong"));
    bench.event(loaded(vec![]));
    assert_eq!(status(&bench).reload_refused, None);
}

#[test]
fn held_recipes_and_versions_say_why_and_until_when() {
    let recipes = || {
        let shared = recipe("c", "x", &["pa"], "");
        vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "paused = true"), shared]
    };
    let mut bench = Bench::with_options(Options { build_jobs: 2, ..options(false) }, recipes());
    let held = |bench: &Bench| -> Vec<String> {
        let status = status(bench);
        let text = |held: &crate::farm::status::Held| {
            format!("{}|{}|{}", held.recipe, held.version.as_deref().unwrap_or("-"), held.until)
        };
        assert_eq!(status.held.len(), status.held_length);
        status.held.iter().map(text).collect()
    };
    let paused = "b|-|a reload without paused = true";
    assert_eq!(held(&bench), [paused]);
    bench.tags("u", &["v1"]);
    bench.tags("x", &["v1"]);
    assert_eq!(held(&bench), [paused, "c|1-1|the end of its build or publish"]);
    bench.finish(BuildOutcome::RecipeChanged);
    assert_eq!(held(&bench), ["a|-|a reload", paused]);
    bench.event(loaded(recipes()));
    assert_eq!(held(&bench), [paused]);
}

#[test]
fn upload_state_tells_none_from_all_and_from_a_failure() {
    assert_eq!(status(&Bench::new(false, vec![])).upload_state, "not configured");
    let mut bench = Bench::uploading(false, vec![recipe("a", "u", &["pa"], "")]);
    assert_eq!(status(&bench).upload_state, "up to date");
    bench.tags("u", &["v1"]);
    bench.done();
    assert_eq!(status(&bench).upload_state, "running");
    bench.upload_fails();
    assert_eq!((status(&bench).upload_state, status(&bench).last_upload), ("failed", None));
    bench.sleep_until(at(MINUTE));
    bench.now = at(MINUTE * 2);
    bench.uploaded();
    let last = status(&bench).last_upload.unwrap();
    assert_eq!((last.finished_at.to_string().as_str(), last.took_seconds), ("1970-01-01T00:02:00Z", 60.0));
    assert_eq!(status(&bench).upload_state, "up to date");
}

#[test]
fn drain_and_pause_are_shown() {
    let mut bench = Bench::new(false, vec![]);
    assert_eq!((status(&bench).draining, status(&bench).paused_since), (false, None));
    bench.now = at(MINUTE);
    bench.event(Event::PauseFound(true));
    bench.now = at(MINUTE * 2);
    bench.event(Event::PauseFound(true));
    assert_eq!(status(&bench).paused_since.unwrap().to_string(), "1970-01-01T00:01:00Z", "since when");
    bench.event(Event::StopRequested);
    assert!(status(&bench).draining);
}

#[test]
fn webhooks_received_are_matched_unmatched_or_unusable() {
    let mut bench = Bench::new(false, vec![recipe("a", "https://h/u", &["pa"], HOOK)]);
    hook(&mut bench, &["h/u"]);
    hook(&mut bench, &["h/other"]);
    bench.event(Event::PingReceived { repositories: vec!["h/u".into()] });
    hook(&mut bench, &[]);
    let hooks = status(&bench).webhooks;
    assert_eq!((hooks.received, hooks.matched, hooks.unmatched, hooks.unusable), (4, 2, 1, 1));
}
