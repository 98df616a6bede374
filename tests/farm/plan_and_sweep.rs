//! What `--plan` says is what the next sweep does, whatever the state of the farm.

use std::collections::BTreeSet;
use std::fs;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::random::{Random, number_from_environment};
use crate::support::recipes::Recipe;
use crate::support::running::Output;

/// A `peipkg-repo` that refuses to publish while a file is there.
const REFUSING: &str = "#!/bin/sh\nif [ \"$1\" = publish ] && [ -e \"$HOME/refuse\" ]; then\n\
                        echo 'not today' >&2; exit 1\nfi\nexec {real} \"$@\"\n";

/// The value of `key` in a line of the plan.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let key = format!(" {key}=");
    line.split_once(&key).map_or("", |(_, rest)| rest.split(' ').next().unwrap())
}

/// A version as both sides name it. The two twins make the same packages, and chance decides which of
/// them builds a version.
fn named(recipe: &str, version: &str) -> String {
    format!("{} {version}", recipe.trim_start_matches("recipe=").trim_end_matches(['1', '2']))
}

/// The versions of the lines with this plan.
fn planned(plan: &Output, word: &str) -> BTreeSet<String> {
    let lines = plan.stdout.lines().filter(|line| value(line, "plan") == word);
    lines.map(|line| named(line.split(' ').next().unwrap(), value(line, "version"))).collect()
}

/// The versions of the events with this message.
fn done(sweep: &Output, message: &str) -> BTreeSet<String> {
    sweep.events(message).iter().map(|event| named(&event["recipe"], &event["version"])).collect()
}

fn chance(random: &mut Random, n: usize, line: &str) -> String {
    if random.one_in(n) { line.to_owned() } else { String::new() }
}

/// Changes the farm: a recipe, an upstream, or a file of the operator's.
fn change(farm: &Farm, repos: &[GitRepo], random: &mut Random) {
    for (id, package) in [("plain", "plain"), ("twin1", "twin"), ("twin2", "twin"), ("gone", "gone")] {
        if random.one_in(4) && farm.recipes_dir().join(id).exists() {
            farm.remove_recipe(id);
        }
        if random.one_in(2) {
            continue;
        }
        let url = repos[random.below(repos.len())].file_url();
        let pattern = ["^v(.*)$", "^[vw](.*)$", r"^v(\d+\.\d+)$", "^release-(.*)$"][random.below(4)];
        let recipe = Recipe::program(id, &url)
            .package(package)
            .tag_pattern(pattern)
            .upstream(&chance(random, 3, "min_version = \"1.1\""))
            .upstream(&chance(random, 3, "exclude = [\"v1.0\", \"v2.0\"]"))
            .upstream(&chance(random, 5, "paused = true"))
            .upstream(&chance(random, 4, "peios_revision = 2"));
        farm.add(&if random.one_in(3) { recipe.with_doc() } else { recipe });
    }
    for (path, n) in [("state/pause", 5), ("refuse", 2)] {
        let _ = fs::remove_file(farm.path(path));
        if random.one_in(n) && farm.state_dir().exists() {
            fs::write(farm.path(path), "").unwrap();
        }
    }
    let tag = format!("v{}.{}", 1 + random.below(3), random.below(4));
    let repo = &repos[random.below(repos.len())];
    if repo.git(&["tag", "--list", &tag]).is_empty() {
        repo.tag_light(&tag);
    }
}

#[test]
fn sweep_does_what_the_plan_has_said() {
    let seed = number_from_environment("PLAN_SEED", 1);
    let farms = number_from_environment("PLAN_FARMS", 3);
    let mut met = BTreeSet::new();
    for seed in seed..seed + farms {
        let mut random = Random::new(seed);
        let repos = [["1.0", "1.1"], ["1.1", "2.0"]].map(|versions| {
            let repo = GitRepo::program(&versions);
            for tag in ["w1.1", "v_1", "nightly", "v1.0-rc1"] {
                repo.tag_light(tag);
            }
            let blob = repo.git(&["rev-parse", "HEAD:README"]);
            repo.git(&["tag", "v9", blob.trim()]);
            repo
        });
        let jobs = 1 + random.below(3);
        let farm = Farm::builder()
            .with(&Recipe::program("plain", &repos[0].file_url()))
            .config_extra(&format!("[build]\njobs = {jobs}"))
            .program("peipkg-repo", REFUSING)
            .build();
        for round in 0..6 {
            change(&farm, &repos, &mut random);
            let plan = farm.run(&["--plan"]);
            plan.assert_success().assert_only_events();
            let sweep = farm.once();
            let place = format!("PLAN_SEED={seed}, round {round}\n{}\n{sweep}", plan.stdout);
            sweep.assert_success().assert_only_events();
            let (builds, publishes) = (planned(&plan, "build"), planned(&plan, "publish"));
            assert_eq!(builds, done(&sweep, "starting build"), "{place}");
            assert_eq!(publishes, done(&sweep, "publishing pending packages"), "{place}");
            let skipped = planned(&plan, "skip");
            // A twin's version may be skipped because the other one builds it.
            let own = |set: &BTreeSet<String>| -> BTreeSet<String> {
                set.iter().filter(|name| !name.starts_with("twin")).cloned().collect()
            };
            assert!(own(&skipped).is_disjoint(&own(&builds)), "{place}");
            met.extend(plan.stdout.lines().map(|line| (value(line, "plan").to_owned(), reason(line))));
        }
    }
    // The farms have met each kind of state.
    if farms >= 3 {
        for kind in ["build", "publish", "published", "skip", "none"] {
            assert!(met.iter().any(|(plan, _)| plan == kind), "{kind}: {met:#?}");
        }
        for part in ["makes package", "partly published", "paused"] {
            assert!(met.iter().any(|(_, reason)| reason.contains(part)), "{part}: {met:#?}");
        }
    }
}

fn reason(line: &str) -> String {
    line.split_once(" reason=").map_or("", |(_, reason)| reason).to_owned()
}

#[test]
fn packages_left_by_a_recipe_that_is_gone_are_in_the_plan() {
    let repo = GitRepo::program(&["1.0"]);
    let twin = |id: &str| Recipe::program(id, &repo.file_url()).package("twin");
    let farm = Farm::builder().with(&twin("twin1")).program("peipkg-repo", REFUSING).build();
    fs::write(farm.path("refuse"), "").unwrap();
    farm.once().event("publish failed");
    farm.remove_recipe("twin1");
    farm.add(&twin("twin2"));
    let plan = farm.run(&["--plan"]);
    let expected = "recipe=twin1 plan=publish version=1.0-1\n\
                    recipe=twin2 plan=skip version=1.0-1 tag=v1.0 reason=\"another recipe has built its packages\"\n";
    assert_eq!(plan.assert_success().stdout, expected);
    fs::remove_file(farm.path("refuse")).unwrap();
    farm.once_without_builds(&["twin 1.0-1 noarch"]);
}
