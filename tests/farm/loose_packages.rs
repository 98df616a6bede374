//! Packages that the Go manager leaves loose in `publish/`: published, removed or set aside at the
//! start, so that they block neither manager.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::pages::{blocks, page};
use crate::support::recipes::Recipe;
use crate::support::running::Output;
use crate::support::tools::Tools;

const ASIDE: &str = "loose package set aside";
const REMOVED: &str = "loose package is published already, removing it";
const FOUND: &str = "loose packages found, publishing them";

/// Another farm that has published the recipe's versions with the same key.
fn built_elsewhere(recipe: &Recipe) -> Farm {
    let farm = Farm::builder().with(recipe).build();
    farm.once().assert_success();
    farm
}

/// The path of a package in the repository of `farm`, by name and version.
fn package(farm: &Farm, name: &str, version: &str) -> PathBuf {
    farm.repo_dir().join(format!("p/{name}/{version}/{name}_{version}_noarch.peipkg"))
}

/// Copies a file to `publish/` as the Go manager leaves it.
fn leave(farm: &Farm, file: &Path) {
    let publish = farm.path("state/publish");
    fs::create_dir_all(&publish).unwrap();
    fs::copy(file, publish.join(file.file_name().unwrap())).unwrap();
}

/// Publishes `publish/` as the Go manager does, and returns whether that succeeds.
fn go_publishes(farm: &Farm) -> bool {
    let mut command = Command::new(&Tools::get().repo);
    command.arg("publish").arg("--in").arg(farm.repo_dir()).arg("--new").arg(farm.path("state/publish"));
    command.arg("--out").arg(farm.repo_dir()).arg("--sign-key").arg(farm.key_path());
    command.args(["--timestamp", "2100-01-01T00:00:00Z"]).output().unwrap().status.success()
}

/// Checks that exactly these files were set aside, with a warning for each, and nothing is loose.
#[track_caller]
fn assert_aside(farm: &Farm, output: &Output, expected: &[(&str, &str)]) {
    let warned = output.events(ASIDE);
    assert_eq!(warned.len(), expected.len(), "{output}");
    for (name, reason) in expected {
        let to = farm.path("state/publish-set-aside").join(name);
        let event = warned.iter().find(|event| event["to"] == to.display().to_string());
        let event = event.unwrap_or_else(|| panic!("{name}: {output}"));
        assert!(event["reason"].contains(reason) && event["level"] == "warn", "{name}: {output}");
        assert!(fs::symlink_metadata(to).is_ok(), "{name}");
    }
    assert!(farm.kept().iter().all(|name| !name.ends_with(".peipkg")), "{:?}", farm.kept());
}

#[test]
fn package_published_already_is_removed() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = built_elsewhere(&Recipe::program("tool", &repo.file_url()));
    leave(&farm, &package(&farm, "tool", "1.0-1"));
    assert!(!go_publishes(&farm), "the tool must refuse what is published");
    let output = farm.once_without_builds(&["tool 1.0-1 noarch"]);
    assert!(output.event(REMOVED)["path"].ends_with("publish/tool_1.0-1_noarch.peipkg"), "{output}");
    assert!(go_publishes(&farm) && !farm.path("state/publish-set-aside").exists());
}

#[test]
fn packages_of_a_whole_build_are_published_without_a_build() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let tool = Recipe::program("tool", &repo.file_url()).with_doc();
    let elsewhere = built_elsewhere(&tool);
    let farm = Farm::builder().with(&tool).build();
    for name in ["tool", "tool-doc"] {
        for version in ["1.0-1", "1.1-1"] {
            leave(&farm, &package(&elsewhere, name, version));
        }
    }
    let all = ["tool 1.0-1 noarch", "tool 1.1-1 noarch", "tool-doc 1.0-1 noarch", "tool-doc 1.1-1 noarch"];
    // The plan knows of them before the sweep makes them pending.
    let plan = farm.run(&["--plan"]);
    plan.assert_success();
    assert_eq!(plan.stdout.matches("plan=publish").count(), 2, "{plan}");
    assert!(!plan.stdout.contains("plan=build"), "{plan}");
    let output = farm.once_without_builds(&all);
    assert_eq!(output.events(FOUND).len(), 2, "{output}");
    for name in ["tool", "tool-doc"] {
        let [ours, theirs] = [&farm, &elsewhere].map(|farm| fs::read(package(farm, name, "1.1-1")).unwrap());
        assert!(ours == theirs, "{name}");
    }
}

#[test]
fn packages_that_cannot_be_published_are_set_aside() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let url = repo.file_url();
    let elsewhere = built_elsewhere(&Recipe::program("tool", &url).with_doc());
    let stranger = built_elsewhere(&Recipe::program("stranger", &url));
    let farm =
        Farm::builder().with(&Recipe::program("tool", &url).with_doc().upstream("exclude = [\"v1.1\"]"));
    let farm = farm.build();
    farm.once().assert_success();
    // One of two packages, one of no recipe, one with other bytes than the published one.
    leave(&farm, &package(&elsewhere, "tool", "1.1-1"));
    leave(&farm, &package(&stranger, "stranger", "1.0-1"));
    leave(&farm, &package(&farm, "tool-doc", "1.0-1"));
    let publish = farm.path("state/publish");
    let at = |name: &str| publish.join(name);
    fs::write(at("tool-doc_1.0-1_noarch.peipkg"), "another build").unwrap();
    fs::write(at("tool_1.0-1.peipkg"), "").unwrap();
    fs::create_dir(at("x_1-1_noarch.peipkg")).unwrap();
    let victim = farm.path("victim");
    fs::copy(package(&farm, "tool", "1.0-1"), &victim).unwrap();
    symlink(&victim, at("tool_1.0-1_noarch.peipkg")).unwrap();
    // A file that is not named like a package blocks no publish.
    fs::write(at("notes.txt"), "").unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let aside = [
        ("tool_1.1-1_noarch.peipkg", "no recipe builds exactly"),
        ("stranger_1.0-1_noarch.peipkg", "no recipe builds exactly"),
        ("tool-doc_1.0-1_noarch.peipkg", "it is published with other bytes"),
        ("tool_1.0-1.peipkg", "its name is not"),
        ("x_1-1_noarch.peipkg", "it is not a regular file"),
        ("tool_1.0-1_noarch.peipkg", "it is not a regular file"),
    ];
    assert_aside(&farm, &output, &aside);
    assert!(victim.exists() && output.events("starting build").is_empty(), "{output}");
    let stray = output.event("cannot read pending packages, leaving them alone");
    assert_eq!(stray["path"], at("notes.txt").display().to_string());
    assert_eq!(stray["error"], "it is no package and no directory of a build; move it away");
    farm.assert_published(&["tool 1.0-1 noarch", "tool-doc 1.0-1 noarch"]);
    assert!(go_publishes(&farm));

    // A second one of the same name finds the first in its place.
    leave(&farm, &package(&elsewhere, "tool", "1.1-1"));
    let output = farm.once();
    assert!(output.event(ASIDE)["to"].contains("/tool_1.1-1_noarch.peipkg."), "{output}");
    assert_eq!(fs::read_dir(farm.path("state/publish-set-aside")).unwrap().count(), aside.len() + 1);
}

#[test]
fn package_refused_by_the_tool_is_set_aside_and_built_again() {
    let repo = GitRepo::program(&["1.0"]);
    let url = repo.file_url();
    let elsewhere = built_elsewhere(&Recipe::program("good", &url));
    let farm =
        Farm::builder().with(&Recipe::program("good", &url)).with(&Recipe::program("tool", &url)).build();
    leave(&farm, &package(&elsewhere, "good", "1.0-1"));
    fs::write(farm.path("state/publish/tool_1.0-1_noarch.peipkg"), "half a package").unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let refusal = "peipkg-repo publish exited with status 1";
    assert_aside(&farm, &output, &[("tool_1.0-1_noarch.peipkg", refusal)]);
    assert_built_again(&farm, &output, "tool");
    farm.assert_published(&["good 1.0-1 noarch", "tool 1.0-1 noarch"]);
    let aside = fs::read_to_string(farm.path("state/publish-set-aside/tool_1.0-1_noarch.peipkg")).unwrap();
    assert_eq!(aside, "half a package");
    let logs = fs::read_dir(farm.path("state/logs/tool")).unwrap().map(|log| log.unwrap().path());
    let logs: Vec<String> = logs.map(|log| fs::read_to_string(log).unwrap()).collect();
    let told = logs.iter().find(|log| log.contains(refusal) && log.contains("the packages are set aside"));
    assert!(told.is_some_and(|log| !log.contains("stay pending")), "{logs:?}");
}

/// Checks that the run has built version 1.0 of the recipe, once, in the place of what was set aside.
#[track_caller]
fn assert_built_again(farm: &Farm, output: &Output, recipe: &str) {
    assert!(output.events("publish failed").is_empty(), "{output}");
    assert_eq!(output.event("pending packages are gone, building the version again")["recipe"], recipe);
    assert_eq!(output.event("starting build")["recipe"], recipe);
    farm.assert_clean();
}

/// A farm with a pending build of `two` and `two-doc`, taken in by a manager that then died.
fn taken_in() -> (GitRepo, Farm) {
    let repo = GitRepo::program(&["1.0"]);
    let two = Recipe::program("two", &repo.file_url()).with_doc();
    let elsewhere = built_elsewhere(&two);
    let killed = "#!/bin/sh\n[ \"$1\" != publish ] || { kill -9 \"$PPID\"; exit 1; }\nexec {real} \"$@\"\n";
    let farm = Farm::builder().with(&two).program("peipkg-repo", killed).build();
    for name in ["two", "two-doc"] {
        leave(&farm, &package(&elsewhere, name, "1.0-1"));
    }
    assert_eq!(farm.once().status.code(), None);
    assert!(matches!(&farm.kept()[..], [name] if name.starts_with("two@1.0-1.")), "{:?}", farm.kept());
    (repo, farm)
}

#[test]
fn part_of_a_build_does_not_block_its_version() {
    let refuse = "#!/bin/sh\n[ \"$1\" != publish ] || [ ! -e {new} ] || exit 1\nexec {real} \"$@\"\n";
    for (lost, tool) in [
        (&["two"][..], "#!/bin/sh\nexec {real} \"$@\"\n"),
        (&["two"], refuse),
        (&["two", "two-doc"], "#!/bin/sh\nexec {real} \"$@\"\n"),
    ] {
        let (_repo, farm) = taken_in();
        let packages = farm.path("state/publish").join(&farm.kept()[0]).join("packages");
        for name in lost {
            fs::remove_file(packages.join(format!("{name}_1.0-1_noarch.peipkg"))).unwrap();
        }
        farm.write_program("peipkg-repo", &tool.replace("{new}", &packages.display().to_string()));
        let output = farm.once();
        output.assert_success().assert_only_events();
        let aside =
            if lost.len() == 1 { &[("two-doc_1.0-1_noarch.peipkg", "peipkg-repo publish")][..] } else { &[] };
        assert_aside(&farm, &output, aside);
        assert_built_again(&farm, &output, "two");
        farm.assert_published(&["two 1.0-1 noarch", "two-doc 1.0-1 noarch"]);
    }
}

#[test]
fn packages_stay_whole_until_all_are_set_aside() {
    let (_repo, farm) = taken_in();
    let packages = farm.path("state/publish").join(&farm.kept()[0]).join("packages");
    let refuse = format!(
        "#!/bin/sh\n[ \"$1\" != publish ] || [ ! -e {} ] || exit 1\nexec {{real}} \"$@\"\n",
        packages.display()
    );
    farm.write_program("peipkg-repo", &refuse);
    // Neither a link to it nor a copy of it can be made.
    let second = packages.join("two-doc_1.0-1_noarch.peipkg");
    let bytes = fs::read(&second).unwrap();
    fs::remove_file(&second).unwrap();
    fs::create_dir(&second).unwrap();
    let output = farm.once();
    assert!(output.event("cannot clear loose packages")["error"].contains("two-doc"), "{output}");
    assert!(packages.join("two_1.0-1_noarch.peipkg").is_file());
    fs::remove_dir(&second).unwrap();
    fs::write(&second, bytes).unwrap();
    farm.write_program("peipkg-repo", "#!/bin/sh\nexec {real} \"$@\"\n");
    farm.once_without_builds(&["two 1.0-1 noarch", "two-doc 1.0-1 noarch"]);
}

/// The longest name, version and architecture that our tools allow.
#[test]
fn package_of_the_longest_name_is_built_and_taken_in() {
    let (name, architecture) = ("n".repeat(64), "aarch64");
    let upstream = format!("1.{}", "0".repeat(124));
    let repo = GitRepo::program(&[&upstream]);
    let recipe = Recipe::program("long", &repo.file_url()).package(&name);
    let toml = recipe.toml().replace("noarch", architecture);
    let elsewhere = Farm::builder().recipe("long", &toml, &recipe.script()).build();
    let output = elsewhere.once();
    output.assert_success().assert_only_events();
    assert!(output.events("publish failed").is_empty(), "{output}");
    let published = format!("{name} {upstream}-1 {architecture}");
    elsewhere.assert_published(&[&published]);
    let farm = Farm::builder().recipe("long", &toml, &recipe.script()).build();
    let file_name = format!("{}.peipkg", published.replace(' ', "_"));
    assert_eq!(file_name.len(), 208);
    leave(&farm, &elsewhere.repo_dir().join(format!("p/{name}/{upstream}-1/{file_name}")));
    farm.once_without_builds(&[&published]);
}

#[test]
fn package_refused_after_its_own_build_stays_pending() {
    let repo = GitRepo::program(&["1.0"]);
    let refuse = "#!/bin/sh\n[ \"$1\" != publish ] || exit 1\nexec {real} \"$@\"\n";
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", refuse).build();
    let output = farm.once();
    assert!(!output.events("publish failed").is_empty() && output.events(ASIDE).is_empty(), "{output}");
    assert_eq!(farm.kept().len(), 1);
}

#[test]
fn package_taken_in_twice_is_published_once() {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let elsewhere = built_elsewhere(&tool);
    // A tool that comes to no verdict, so that the packages stay pending over a restart.
    let killed = "#!/bin/sh\n[ \"$1\" != publish ] || kill -9 \"$PPID\"\nexec {real} \"$@\"\n";
    let farm = Farm::builder().with(&tool).program("peipkg-repo", killed).build();
    leave(&farm, &package(&elsewhere, "tool", "1.0-1"));
    assert_eq!(farm.once().status.code(), None);
    assert!(matches!(&farm.kept()[..], [name] if name.starts_with("tool@1.0-1.")), "{:?}", farm.kept());
    // As a crash leaves it between the copy and the removal.
    leave(&farm, &package(&elsewhere, "tool", "1.0-1"));
    farm.write_program("peipkg-repo", "#!/bin/sh\nexec {real} \"$@\"\n");
    farm.once_without_builds(&["tool 1.0-1 noarch"]);
    assert!(!farm.path("state/publish-set-aside").exists());
}

#[test]
fn package_stays_where_the_index_cannot_be_read() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = built_elsewhere(&Recipe::program("tool", &repo.file_url()));
    leave(&farm, &package(&farm, "tool", "1.0-1"));
    let index = farm.repo_dir().join("index/archive.json");
    let bytes = fs::read(&index).unwrap();
    fs::write(&index, &bytes[..100]).unwrap();
    let output = farm.once();
    assert!(output.event("cannot clear loose packages")["error"].contains("archive.json"), "{output}");
    assert!(farm.kept().contains(&"tool_1.0-1_noarch.peipkg".to_owned()));
    fs::write(&index, &bytes).unwrap();
    farm.once().assert_success().event(REMOVED);
}

#[test]
fn pending_packages_of_a_failed_publish_go_back_by_the_pages_commands() {
    let repo = GitRepo::program(&["1.0"]);
    let refuse = "#!/bin/sh\n[ \"$1\" != publish ] || exit 1\nexec {real} \"$@\"\n";
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", refuse).build();
    farm.once().assert_success();
    assert!(matches!(&farm.kept()[..], [name] if name.starts_with("tool@1.0-1.")), "{:?}", farm.kept());
    let commands = blocks(&page("docs/moving-from-go.md"), "sh");
    let commands = commands.split_once("cd /var/lib/peipkg-manager/publish\n").expect("the commands").1;
    let commands = commands.lines().take(2).collect::<Vec<_>>().join("\n");
    let mut shell = Command::new("sh");
    run(shell.args(["-ec", &commands]).current_dir(farm.path("state/publish")));
    assert_eq!(farm.kept(), ["tool_1.0-1_noarch.peipkg"]);
    assert!(go_publishes(&farm));
    farm.assert_published(&["tool 1.0-1 noarch"]);
}
