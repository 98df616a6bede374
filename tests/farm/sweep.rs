//! One sweep's decisions, seen from outside: the new versions, the published ones, the order of
//! builds.

use std::fs;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::logfmt::Event;
use crate::support::recipes::Recipe;
use crate::support::running::Output;

/// `recipe version` of each build, in order.
#[track_caller]
fn builds(output: &Output) -> Vec<String> {
    output.assert_success().assert_only_events();
    let shown = |event: &Event| format!("{} {}", event["recipe"], event["version"]);
    output.events("starting build").iter().map(shown).collect()
}

/// The warnings and errors.
fn warnings(output: &Output) -> Vec<Event> {
    let calm = |event: &Event| event["level"] == "info" || event["level"] == "debug";
    output.all_events().into_iter().filter(|event| !calm(event)).collect()
}

#[test]
fn recipe_of_several_packages_is_published_whole_and_built_once() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    // The packages' names differ from the recipe's: the manager must look up the packages.
    let recipe = Recipe::program("recipe", &repo.file_url()).package("tool").with_doc();
    let farm = Farm::builder().with(&recipe).build();
    assert_eq!(builds(&farm.once()), ["recipe 1.1-1", "recipe 1.0-1"]);
    let all = ["tool 1.0-1 noarch", "tool 1.1-1 noarch", "tool-doc 1.0-1 noarch", "tool-doc 1.1-1 noarch"];
    farm.assert_published(&all);
    let needs = &farm.package("tool-doc", "1.1-1").manifest()["dependencies"];
    assert_eq!(needs[0]["name"], "tool");
    assert_eq!(needs[0]["constraint"], "= 1.1-1");
    let second = farm.once();
    assert!(builds(&second).is_empty(), "{second}");
    let event = second.event("poll complete");
    assert_eq!((event["tags_seen"].as_str(), event["matches_emitted"].as_str()), ("2", "2"));
    assert!(warnings(&second).is_empty(), "{second}");
    // Only the new version is built.
    repo.add_versions(&["1.2"]);
    assert_eq!(builds(&farm.once()), ["recipe 1.2-1"]);
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn recipes_share_an_upstream_each_builds_its_own_tags() {
    let repo = GitRepo::program(&["1.0"]);
    repo.tag_light("data-2026.1");
    repo.tag_light("1_2_rc3");
    repo.tag_light("1_2");
    let url = repo.file_url();
    let named = r"^(?P<major>\d+)_(?P<minor>\d+)(?:_(?P<prerelease>rc\d+))?$";
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &url))
        .with(&Recipe::program("data", &url).tag_pattern(r"^data-(\d+(?:\.\d+)*)$"))
        .with(&Recipe::program("named", &url).tag_pattern(named))
        .build();
    let output = farm.once();
    assert_eq!(builds(&output).len(), 4, "{output}");
    farm.assert_published(&[
        "data 2026.1-1 noarch",
        "named 1.2-1 noarch",
        "named 1.2-rc3-1 noarch",
        "tool 1.0-1 noarch",
    ]);
    assert!(warnings(&output).is_empty(), "{output}");
}

#[test]
fn version_partly_published_is_skipped_until_its_revision_is_raised() {
    let repo = GitRepo::program(&["1.0"]);
    let recipe = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&recipe).build();
    builds(&farm.once());
    let recipe = recipe.with_doc();
    farm.add(&recipe);
    let output = farm.once();
    assert!(builds(&output).is_empty(), "{output}");
    let found = warnings(&output);
    assert_eq!(found.len(), 1, "{output}");
    assert_eq!((found[0]["level"].as_str(), found[0]["recipe"].as_str()), ("warn", "tool"));
    assert_eq!(
        (found[0]["version"].as_str(), found[0]["advice"].as_str()),
        ("1.0-1", "raise peios_revision")
    );
    farm.add(&recipe.upstream("peios_revision = 2"));
    let output = farm.once();
    assert_eq!(builds(&output), ["tool 1.0-2"]);
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.0-2 noarch", "tool-doc 1.0-2 noarch"]);
    assert!(warnings(&output).is_empty(), "{output}");
}

#[test]
fn versions_below_the_minimum_are_not_built() {
    let repo = GitRepo::program(&["0.9", "1.0", "1.10", "1.9"]);
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()).upstream("min_version = \"1.9\""))
        .build();
    let output = farm.once();
    assert_eq!(builds(&output), ["tool 1.10-1", "tool 1.9-1"]);
    assert_eq!(output.event("poll complete")["matches_emitted"], "2");
    assert!(warnings(&output).is_empty(), "{output}");
}

#[test]
fn recipe_without_upstream_is_listed_and_never_built() {
    let farm = Farm::builder().with(&Recipe::manual("by-hand")).build();
    fs::create_dir(farm.recipes_dir().join("not-a-recipe")).unwrap();
    let output = farm.once();
    assert!(builds(&output).is_empty(), "{output}");
    assert_eq!(output.event("recipe roster loaded")["count"], "1");
    assert!(output.events("polling upstream").is_empty(), "{output}");
    assert!(farm.repo_dir().join("repo.json").is_file(), "the repository was not initialised");
    farm.assert_verifies();
}

#[test]
fn queue_of_several_recipes_takes_turns_newest_first() {
    let repo = GitRepo::program(&["1.0", "1.9", "1.10", "2.0"]);
    let url = repo.file_url();
    // One upstream for all three, so that one listing makes all versions known before the first
    // build.
    let farm = Farm::builder()
        .with(&Recipe::program("aa", &url))
        .with(&Recipe::program("bb", &url).upstream("min_version = \"2.0\""))
        .with(&Recipe::program("cc", &url).upstream("min_version = \"1.9\""))
        .build();
    let built = builds(&farm.once());
    assert_eq!(built[..3], ["aa 2.0-1", "bb 2.0-1", "cc 2.0-1"]);
    // From then on, it depends on how long the builds took which recipe is next.
    let of = |recipe| built.iter().filter(|build| build.starts_with(recipe)).collect::<Vec<_>>();
    assert_eq!(of("aa"), ["aa 2.0-1", "aa 1.10-1", "aa 1.9-1", "aa 1.0-1"]);
    assert_eq!(of("cc"), ["cc 2.0-1", "cc 1.10-1", "cc 1.9-1"]);
}

#[test]
fn build_fails_others_go_on_and_the_next_sweep_retries_it() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let broken = Recipe::failing("broken", &repo.file_url());
    let farm = Farm::builder().with(&broken).with(&Recipe::program("tool", &repo.file_url())).build();
    let output = farm.once();
    let mut built = builds(&output);
    assert_eq!(built[..2], ["broken 1.1-1", "tool 1.1-1"]);
    built.sort();
    assert_eq!(built, ["broken 1.0-1", "broken 1.1-1", "tool 1.0-1", "tool 1.1-1"]);
    let failed = output.events("build failed");
    assert_eq!(failed.len(), 2, "{output}");
    for event in failed {
        assert_eq!((event["level"].as_str(), event["recipe"].as_str()), ("error", "broken"));
        // A sweep promises no retry.
        assert_eq!((event["failures"].as_str(), event.get("next_retry_after")), ("1", None));
        assert!(event["error"].contains("peipkg-build") && event["error"].contains("build.sh"), "{output}");
    }
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    farm.assert_clean();
    farm.add(&Recipe::program("broken", &repo.file_url()));
    assert_eq!(builds(&farm.once()), ["broken 1.1-1", "broken 1.0-1"]);
    farm.assert_verifies();
}

#[test]
fn tag_pattern_matches_no_tag_warns_with_an_example() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let recipe = Recipe::program("tool", &repo.file_url()).tag_pattern(r"^release-(\d+\.\d+)$");
    let farm = Farm::builder().with(&recipe).with(&Recipe::program("well", &repo.file_url())).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let found = warnings(&output);
    assert_eq!(found.len(), 1, "{output}");
    let fields = ["level", "msg", "recipe", "tag_pattern", "example"].map(|field| found[0][field].as_str());
    let expected = ["warn", "no tag matches tag_pattern", "tool", r"^release-(\d+\.\d+)$", "v1.1"];
    assert_eq!(fields, expected, "{output}");
    farm.assert_published(&["well 1.0-1 noarch", "well 1.1-1 noarch"]);
}

#[test]
fn messages_for_alerts_are_exact() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.stdout, "", "{output}");
    let texts: Vec<String> = output.all_events().iter().map(|event| event["msg"].clone()).collect();
    let expected = [
        "repository created",
        "peipkg-manager starting",
        "recipe roster loaded",
        "polling upstream",
        "poll complete",
        "starting build",
        "build + publish complete",
        "peipkg-manager stopped",
    ];
    assert_eq!(texts, expected);
    let started = output.event("peipkg-manager starting");
    assert_eq!((started["farm_id"].as_str(), started["mode"].as_str()), ("test-farm", "once"));
    assert_eq!(output.event("recipe roster loaded")["count"], "1");
    assert_eq!(output.event("polling upstream")["upstream"], repo.file_url());
    let polled = output.event("poll complete");
    assert_eq!((polled["recipe"].as_str(), polled["matches_emitted"].as_str()), ("tool", "1"));
    let built = output.event("starting build");
    assert_eq!((built["recipe"].as_str(), built["tag"].as_str()), ("tool", "v1.0"));
    assert_eq!(output.event("build + publish complete")["version"], "1.0-1");
    let stopped = output.stderr.lines().last().unwrap();
    let tally = "msg=\"peipkg-manager stopped\" polled=1 polls_failed=0 built=1 published=1 failed=0";
    assert!(stopped.ends_with(tally), "{stopped}");
    let line = output.stderr.lines().find(|line| line.contains("poll complete")).unwrap();
    let wanted = "level=info msg=\"poll complete\" recipe=tool tags_seen=1 matches_emitted=1";
    assert!(line.contains(wanted), "{line}");
    // A higher log level prints less and changes nothing else.
    let quiet = farm.run(&["--once", "--log-level", "warn"]);
    assert_eq!(quiet.assert_success().stderr, "");
}

#[test]
fn archive_index_unreadable_warns_and_the_sweep_goes_on() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    builds(&farm.once());
    let index = farm.repo_dir().join("index/archive.json");
    let whole = fs::read(&index).unwrap();
    fs::write(&index, &whole[..whole.len() / 2]).unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let warning = output.event("dedup check failed");
    assert_eq!((warning["level"].as_str(), warning["recipe"].as_str()), ("warn", "tool"));
    assert!(warning["error"].contains("index/archive.json: "), "{output}");
    assert_eq!(output.events("starting build").len(), 1, "the sweep stopped\n{output}");
    // peipkg-repo does not publish into a repository that it cannot read; the outputs stay pending.
    assert_eq!(output.event("publish failed")["version"], "1.0-1");
    fs::write(&index, &whole).unwrap();
    let output = farm.once();
    assert!(builds(&output).is_empty(), "{output}");
    assert!(warnings(&output).is_empty(), "{output}");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.assert_clean();
}

#[test]
fn tags_without_a_valid_version_are_skipped_with_one_warning_each() {
    // A stand-in lists the tags, because git refuses some of these names, and the manager must not
    // rely on that: it leaves them out itself.
    let long = format!("v{}", "9".repeat(300));
    let names = ["v--help", &long, "v1.\u{e9}"];
    let refused = ["v../../x", "v2.0\u{1b}[31m", "v1.0 level=error"];
    let object = "1".repeat(40);
    let line = |name: &str| format!("{object}\trefs/tags/{name}\n");
    let listing = [names.map(line), refused.map(line)].concat().concat();
    let script =
        "#!/bin/sh\ncase \"$*\" in *ls-remote*) cat \"$HOME/listing\" ;; *) exec {real} \"$@\" ;; esac\n";
    let recipe = Recipe::program("lib", "https://example.invalid/lib.git").tag_pattern("^v(.+)$");
    let farm = Farm::builder().with(&recipe).program("git", script).build();
    fs::write(farm.path("listing"), listing).unwrap();
    let output = farm.once();
    assert!(builds(&output).is_empty(), "{output}");
    let skipped: Vec<String> =
        output.events("tag skipped").iter().map(|event| event["tag"].clone()).collect();
    let cut = format!("v{}…{}", "9".repeat(99), "9".repeat(99));
    let shown = names.map(|name| if name == long { cut.as_str() } else { name });
    assert_eq!(skipped, shown, "{output}");
    let found = warnings(&output);
    assert!(found.len() == names.len() && found.iter().all(|event| event["level"] == "warn"), "{output}");
    assert!(!output.stderr.contains('\u{1b}'), "{output}");
    assert_eq!(output.event("poll complete")["matches_emitted"], "0");
    farm.assert_clean();
}
