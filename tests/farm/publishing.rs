//! From a build's outputs to the repository, with tools that fail.

use std::fs;

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::wait::PATIENCE;

/// A `peipkg-repo` that refuses packages called `bad` while the file `refuse` is in the farm's
/// directory.
const REFUSES_BAD: &str = "#!/bin/sh
previous=
for argument; do
    if [ \"$previous\" = --new ] && [ -e \"$HOME/refuse\" ] && ls \"$argument\" | grep -q '^bad_'; then
        echo 'peipkg-repo: no space left' >&2
        exit 1
    fi
    previous=$argument
done
exec {real} \"$@\"
";

/// A `peipkg-build` that runs the real one and then `spoil`, with `$out` and `$recipe` set to its
/// arguments' values.
fn spoiling(spoil: &str) -> String {
    format!(
        "#!/bin/sh\nprevious= out= recipe=\nfor argument; do\n\
         case $previous in --out) out=$argument ;; --recipe) recipe=$argument ;; esac\nprevious=$argument\ndone\n\
         {{real}} \"$@\" || exit\ncase $recipe in\n{spoil}\nesac\n"
    )
}

#[test]
fn publish_fails_keeps_the_outputs_and_blocks_nothing() {
    let repo = GitRepo::program(&["1.0"]);
    let url = repo.file_url();
    let farm = Farm::builder()
        .with(&Recipe::program("bad", &url))
        .with(&Recipe::program("good", &url))
        .program("peipkg-repo", REFUSES_BAD)
        .build();
    fs::write(farm.path("refuse"), "").unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.event("publish failed");
    assert_eq!((failed["level"].as_str(), failed["recipe"].as_str()), ("error", "bad"));
    assert!(failed["error"].contains("peipkg-repo: no space left"), "{output}");
    assert_eq!(failed.get("next_retry_after"), None, "a sweep promises no retry");
    // A tool that refuses changes nothing, so nothing is restored.
    for event in ["build failed", "publish was cut short, repository restored"] {
        assert!(output.events(event).is_empty(), "{output}");
    }
    farm.assert_published(&["good 1.0-1 noarch"]);
    assert!(matches!(farm.kept().as_slice(), [name] if name.starts_with("bad@1.0-1")), "{:?}", farm.kept());

    // Refused again: the next sweep retries it, and neither loses nor rebuilds it.
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.events("starting build").is_empty(), "{output}");
    assert_eq!(output.event("publish failed")["recipe"], "bad");
    assert_eq!(farm.kept().len(), 1);

    fs::remove_file(farm.path("refuse")).unwrap();
    let output = farm.once_without_builds(&["bad 1.0-1 noarch", "good 1.0-1 noarch"]);
    assert_eq!(output.event("build + publish complete")["recipe"], "bad");
}

#[test]
fn outputs_other_than_promised_fail_the_build() {
    let repo = GitRepo::program(&["1.0"]);
    let spoil = "*/none/*) rm \"$out\"/* ;;
*/more/*) : >\"$out/extra_1.0-1_noarch.peipkg\" ;;
*/other/*) mv \"$out/other_1.0-1_noarch.peipkg\" \"$out/other_1.1-1_noarch.peipkg\" ;;
*/name/*) mv \"$out/name_1.0-1_noarch.peipkg\" \"$out/eman_1.0-1_noarch.peipkg\" ;;
*/arch/*) mv \"$out/arch_1.0-1_noarch.peipkg\" \"$out/arch_1.0-1_x86_64.peipkg\" ;;
*/link/*) mv \"$out\"/link_* \"$out/../real\" && ln -s ../real \"$out/link_1.0-1_noarch.peipkg\" ;;
*/folder/*) mkdir \"$out/folder\" ;;";
    let mut builder = Farm::builder().program("peipkg-build", &spoiling(spoil));
    for id in ["none", "more", "other", "name", "arch", "link", "folder", "good"] {
        builder = builder.with(&Recipe::program(id, &repo.file_url()));
    }
    let farm = builder.build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let mut failed: Vec<String> = output.events("build failed").iter().map(|e| e["recipe"].clone()).collect();
    failed.sort();
    assert_eq!(failed, ["arch", "folder", "link", "more", "name", "none", "other"], "{output}");
    for event in output.events("build failed") {
        let expected = format!("expected {{\"{}_1.0-1_noarch.peipkg\"}}", event["recipe"]);
        assert!(event["error"].contains(&expected), "{output}");
    }
    farm.assert_published(&["good 1.0-1 noarch"]);
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn output_is_no_package_is_never_published() {
    let repo = GitRepo::program(&["1.0"]);
    let spoil = "*/tool/*) echo garbage >\"$out/tool_1.0-1_noarch.peipkg\" ;;";
    let farm = Farm::builder()
        .program("peipkg-build", &spoiling(spoil))
        .with(&Recipe::program("tool", &repo.file_url()))
        .build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.event("publish failed")["recipe"], "tool");
    assert!(farm.published().is_empty());
    farm.assert_verifies();
}

#[test]
fn build_takes_too_long_is_ended() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder()
        .with(&Recipe::program("slow", &repo.file_url()).build_sh("sleep 600"))
        .with(&Recipe::program("tool", &repo.file_url()))
        .config_extra("[build]\ntimeout = \"10s\"")
        .build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.event("build failed");
    assert_eq!(failed["recipe"], "slow");
    assert!(failed["error"].contains("was still running after "), "{output}");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.assert_clean();
}

#[test]
fn versions_built_during_a_publish_are_published_by_one_run() {
    let repo = GitRepo::program(&["1.0", "1.1", "1.2", "1.3"]);
    // The first publish waits, for a minute at most, until the other three versions are built.
    let script = "#!/bin/sh\n[ \"$1\" = publish ] || exec {real} \"$@\"\nnew=\n\
        for argument; do [ \"$previous\" = --new ] && new=$argument; previous=$argument; done\n\
        ls \"$new\" | wc -l >>\"$HOME/runs\"\n\
        for turn in $(seq 600); do\n\
            [ \"$(wc -l <\"$HOME/runs\")\" -gt 1 ] || [ \"$(ls \"$HOME/state/publish\" | wc -l)\" -gt 3 ] && break\n\
            sleep 0.1\ndone\nexec {real} \"$@\"\n";
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", script).build();
    farm.once().assert_success().assert_only_events();
    assert_eq!(fs::read_to_string(farm.path("runs")).unwrap(), "1\n3\n");
    assert_eq!(farm.published().len(), 4);
    farm.assert_clean();
    farm.assert_verifies();
}

/// A `peipkg-repo` that refuses `zbad`, and keeps the publish of `first` until three versions are
/// pending; then it runs `meanwhile`.
fn group_of_two(meanwhile: &str) -> String {
    format!(
        "#!/bin/sh
previous=
for argument; do
    if [ \"$previous\" = --new ]; then
        case $(ls \"$argument\") in
        *first_*)
            while [ $(ls -d \"$HOME\"/state/publish/*@* | wc -l) -lt 3 ]; do sleep 0.1; done
            sleep 1
            {meanwhile} ;;
        *zbad_*) echo 'peipkg-repo: no space left' >&2; exit 1 ;;
        esac
    fi
    previous=$argument
done
exec {{real}} \"$@\"
"
    )
}

fn farm_of_three(program: &str) -> (GitRepo, Farm) {
    let repo = GitRepo::program(&["1.0"]);
    let mut builder = Farm::builder().program("peipkg-repo", program);
    for id in ["first", "good", "zbad"] {
        builder = builder.with(&Recipe::program(id, &repo.file_url()));
    }
    let farm = builder.build();
    (repo, farm)
}

#[test]
fn refused_group_completes_each_good_member() {
    let (_repo, farm) = farm_of_three(&group_of_two(":"));
    let output = farm.once();
    farm.assert_published(&["first 1.0-1 noarch", "good 1.0-1 noarch"]);
    let mut complete: Vec<String> =
        output.events("build + publish complete").iter().map(|event| event["recipe"].clone()).collect();
    complete.sort();
    assert_eq!(complete, ["first", "good"], "{output}");
    assert!(output.events("publish failed").iter().all(|event| event["recipe"] == "zbad"), "{output}");
}

#[test]
fn member_whose_outputs_are_gone_leaves_the_others_of_its_group() {
    let (_repo, farm) = farm_of_three(&group_of_two("rm -rf \"$HOME\"/state/publish/zbad@*"));
    let output = farm.once();
    let builds = output.events("starting build");
    let of_good = builds.iter().filter(|event| event["recipe"] == "good").count();
    assert_eq!(of_good, 1, "{output}");
}

/// A `peipkg-repo` that lets another publish in first while the file `arm` is in the farm's directory.
const COMES_SECOND: &str = "#!/bin/sh
if [ \"$1\" = publish ] && rm \"$HOME/arm\" 2>/dev/null; then
    {real} publish --in \"$HOME/state/repo\" --new \"$HOME/theirs\" --out \"$HOME/state/repo\" \\
        --sign-key \"$HOME/farm.key\" --timestamp \"$(date -u +%FT%TZ)\" >&2 || exit
fi
exec {real} \"$@\"
";

#[test]
fn publish_of_somebody_else_right_before_the_own_one_is_read() {
    let (repo, late) = (GitRepo::program(&["1.0"]), GitRepo::program(&["0.1"]));
    let theirs = Farm::builder().with(&Recipe::program("late", &repo.file_url())).build();
    theirs.once().assert_success();
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .with(&Recipe::program("late", &late.file_url()))
        .program("peipkg-repo", COMES_SECOND)
        .build();
    std::os::unix::fs::symlink(theirs.repo_dir().join("p/late/1.0-1"), farm.path("theirs")).unwrap();
    let mut daemon = farm.daemon();
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    daemon.wait_events("poll complete", 2, PATIENCE);
    fs::write(farm.path("arm"), "").unwrap();
    repo.add_versions(&["1.1"]);
    daemon.signal(Signal::HUP);
    daemon.wait_events("build + publish complete", 3, PATIENCE);
    daemon.wait_events("poll complete", 4, PATIENCE);
    // It is published already.
    late.add_versions(&["1.0"]);
    daemon.signal(Signal::HUP);
    daemon.wait_events("poll complete", 6, PATIENCE);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_success().assert_only_events();
    assert_eq!(output.events("starting build").len(), 3, "{output}");
    farm.assert_published(&[
        "late 0.1-1 noarch",
        "late 1.0-1 noarch",
        "tool 1.0-1 noarch",
        "tool 1.1-1 noarch",
    ]);
    farm.assert_verifies();
}
