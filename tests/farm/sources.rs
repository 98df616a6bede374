//! From an upstream to `$SOURCE_DIR`: the commit and transport of a fetch, and the files that a
//! build sees.
//!
//! The recipes here install a list of their source tree and its files, so the packages show what a
//! build saw.

use std::process::Command;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::{Fault, SmartHttp};
use crate::support::wait::PATIENCE;

/// The committer date of commits whose time does not matter.
pub(crate) const DAY: &str = "2026-02-01T00:00:00Z";

/// A recipe whose package holds `tree`, the paths of the source, `content`, its file of that name,
/// and `epoch`.
pub(crate) fn inspector(id: &str, url: &str) -> Recipe {
    Recipe::program(id, url).build_sh(&format!(
        "doc=\"$DESTDIR/usr/share/doc/{id}\"\nmkdir -p \"$doc\"\ncd \"$SOURCE_DIR\"\n\
         find . | sort >\"$doc/tree\"\ncat content >\"$doc/content\"\necho \"$SOURCE_DATE_EPOCH\" >\"$doc/epoch\"\n"
    ))
}

/// The file `name` that [`inspector`] has installed.
#[track_caller]
pub(crate) fn seen(farm: &Farm, id: &str, version: &str, name: &str) -> String {
    farm.package(id, version).text(&format!("usr/share/doc/{id}/{name}"))
}

/// Runs a sweep that must neither fail, warn nor leave files behind.
#[track_caller]
pub(crate) fn sweep_cleanly(farm: &Farm) {
    let output = farm.once();
    output.assert_success().assert_only_events();
    for event in output.all_events() {
        assert!(event["level"] == "info" || event["level"] == "debug", "{output}");
    }
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn tags_of_both_kinds_are_built_over_file_and_smart_http() {
    let repo = GitRepo::new();
    repo.commit(&[("content", "one")], DAY);
    repo.tag_light("v1");
    repo.commit(&[("content", "two")], DAY);
    repo.tag_annotated("v2", DAY);
    repo.commit(&[("content", "later")], DAY);
    let http = SmartHttp::new();
    let farm = Farm::builder()
        .with(&inspector("local", &repo.file_url()))
        .with(&inspector("remote", &http.serve("lib.git", &repo)))
        .build();
    sweep_cleanly(&farm);
    farm.assert_published(&[
        "local 1-1 noarch",
        "local 2-1 noarch",
        "remote 1-1 noarch",
        "remote 2-1 noarch",
    ]);
    for id in ["local", "remote"] {
        assert_eq!(seen(&farm, id, "1-1", "content"), "one");
        assert_eq!(seen(&farm, id, "2-1", "content"), "two");
        assert_eq!(seen(&farm, id, "2-1", "tree"), ".\n./content\n", "not exactly the tag's files");
    }
    let uploads = http.requests().iter().filter(|request| request.path.ends_with("git-upload-pack")).count();
    assert!(uploads >= 3, "fewer than one listing and two fetches: {uploads}");
}

#[test]
fn branch_with_a_tags_name_does_not_win() {
    let repo = GitRepo::new();
    repo.commit(&[("content", "the tag's")], DAY);
    repo.tag_light("v1");
    repo.commit(&[("content", "the branch's")], DAY);
    repo.branch("v1");
    let farm = Farm::builder().with(&inspector("lib", &repo.file_url())).build();
    sweep_cleanly(&farm);
    assert_eq!(seen(&farm, "lib", "1-1", "content"), "the tag's");
}

#[test]
fn build_time_is_the_committers_in_utc() {
    let repo = GitRepo::new();
    repo.commit(&[("content", "")], "2026-03-04T02:06:07+05:30");
    repo.tag_annotated("v1", "2026-06-07T08:09:10Z");
    let farm = Farm::builder().with(&inspector("lib", &repo.file_url())).build();
    sweep_cleanly(&farm);
    let manifest = farm.package("lib", "1-1").manifest();
    assert_eq!(manifest["build"]["timestamp"], "2026-03-03T20:36:07Z");
    assert_eq!(seen(&farm, "lib", "1-1", "epoch"), "1772570167\n");
    assert_eq!(manifest["build"]["farm_id"], "test-farm");
    assert_eq!(manifest["build"]["source_ref"], format!("git+{}#refs/tags/v1", repo.file_url()));
}

#[test]
fn backlog_versions_have_their_own_files_and_time() {
    let repo = GitRepo::new();
    for number in 1..=9_u8 {
        repo.commit(&[("content", &format!("of {number}"))], &format!("2026-01-0{number}T00:00:00Z"));
        match number % 3 {
            0 => repo.tag_light(&format!("v{number}")),
            1 => repo.tag_annotated(&format!("v{number}"), "2026-06-07T08:09:10Z"),
            _ => {
                // A tag of a tag, as made when a maintainer signs another's tag.
                repo.tag_annotated("inner", "2026-06-07T08:09:10Z");
                repo.git(&["tag", "-a", "-m", "outer", &format!("v{number}"), "refs/tags/inner"]);
                repo.git(&["tag", "-d", "inner"]);
            }
        }
    }
    // The newest tag is not a commit; the others must not fail with it.
    repo.git(&["tag", "v10", "HEAD^{tree}"]);
    let farm = Farm::builder().with(&inspector("lib", &repo.file_url())).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.event("tag skipped")["tag"], "v10", "{output}");
    assert!(output.events("build failed").is_empty(), "{output}");
    for number in 1..=9 {
        let version = format!("{number}-1");
        assert_eq!(seen(&farm, "lib", &version, "content"), format!("of {number}"));
        let timestamp = &farm.package("lib", &version).manifest()["build"]["timestamp"];
        assert_eq!(*timestamp, format!("2026-01-0{number}T00:00:00Z"));
    }
    farm.assert_clean();
}

/// Counts the fetches by git from `http`, without the manager's own listings.
fn fetches_by_git(http: &SmartHttp) -> usize {
    let is_own = |agent: &str| agent.contains("peipkg-manager");
    let requests = http.requests();
    let begun = requests.iter().filter(|request| request.method == "GET");
    begun.filter(|request| !request.header("user-agent").is_some_and(is_own)).count()
}

#[test]
fn backlog_shared_by_recipes_is_fetched_in_a_few_steps() {
    let repo = GitRepo::new();
    let http = SmartHttp::new();
    for number in 1..=12 {
        repo.commit(&[("content", &format!("of {number}"))], DAY);
        repo.tag_light(&format!("a{number}"));
        repo.tag_light(&format!("b{number}"));
    }
    let url = http.serve("lib.git", &repo);
    let a = inspector("one", &url).tag_pattern(r"^a(\d+)$");
    let farm = Farm::builder().with(&a).build();
    sweep_cleanly(&farm);
    // Three fetches bring two, three and five versions beside the one to build, and a fourth the
    // rest.
    assert_eq!((farm.published().len(), fetches_by_git(&http)), (12, 4));
    http.clear_log();
    let b = inspector("two", &url).tag_pattern(r"^b(\d+)$");
    let farm = Farm::builder().with(&a).with(&b).build();
    sweep_cleanly(&farm);
    assert_eq!(farm.published().len(), 24);
    // Five, if the recipes take turns strictly. But turns go by time, so a version may come before its
    // prefetch. Each recipe alone takes four.
    let fetches = fetches_by_git(&http);
    assert!((5..8).contains(&fetches), "{fetches}");
    assert_eq!(seen(&farm, "two", "7-1", "content"), "of 7");
}

#[test]
fn git_in_another_language_is_understood() {
    let repo = GitRepo::sha256();
    repo.commit(&[("content", "long names")], DAY);
    repo.tag_light("v1");
    // A machine may lack git's translations, so this git prints nothing unless its language is C.
    let polyglot =
        "#!/bin/sh\n[ \"$LC_ALL$LANGUAGE\" = C ] || exec {real} \"$@\" 2>/dev/null\nexec {real} \"$@\"\n";
    let farm = Farm::builder().with(&inspector("lib", &repo.file_url())).program("git", polyglot).build();
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path()).env("LC_ALL", "de_DE.UTF-8").env("LANGUAGE", "de");
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_success();
    assert_eq!(seen(&farm, "lib", "1-1", "content"), "long names");
}

#[test]
fn state_directory_whose_files_seem_to_be_anothers_is_fetched_into() {
    let repo = GitRepo::new();
    repo.commit(&[("content", "mapped")], DAY);
    repo.tag_light("v1");
    let http = SmartHttp::new();
    let url = http.serve("lib.git", &repo);
    let farm = Farm::builder().with(&inspector("lib", &url)).build();
    let mut command = farm.command(&["--once", "--config"]);
    // git's own tests use this in place of a file system that maps users.
    command.arg(farm.config_path()).env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1");
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_success();
    assert_eq!(seen(&farm, "lib", "1-1", "content"), "mapped");
}

#[test]
fn tag_built_in_two_farms_gives_the_same_bytes() {
    let repo = GitRepo::program(&["1.0"]);
    let packages = [1, 2].map(|_| {
        let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
        sweep_cleanly(&farm);
        farm.package("tool", "1.0-1").bytes
    });
    assert!(packages[0] == packages[1]);
}

#[test]
fn dumb_http_server_is_an_upstream_too() {
    let repo = GitRepo::new();
    repo.commit(&[("content", "old")], DAY);
    repo.commit(&[("content", "plain")], DAY);
    repo.tag_annotated("v1", DAY);
    repo.commit(&[("content", "newer")], DAY);
    repo.git(&["update-server-info"]);
    let http = SmartHttp::new();
    let url = http.serve("lib.git", &repo);
    http.fault("", Fault::PlainFiles);
    let farm = Farm::builder().with(&inspector("lib", &url)).build();
    sweep_cleanly(&farm);
    assert_eq!(seen(&farm, "lib", "1-1", "content"), "plain");
}

#[test]
fn upstream_without_tags_is_no_error() {
    let repo = GitRepo::new();
    let farm = Farm::builder().with(&inspector("empty", &repo.file_url())).build();
    let output = farm.once();
    let event = output.assert_success().assert_only_events().event("poll complete");
    assert_eq!((event["tags_seen"].as_str(), event["matches_emitted"].as_str()), ("0", "0"));
    assert!(output.events("poll failed").is_empty(), "{output}");
}

#[test]
fn upstream_missing_warns_once_and_delays_only_itself() {
    let repo = GitRepo::program(&["1.0"]);
    let http = SmartHttp::new();
    let farm = Farm::builder()
        .with(&Recipe::program("gone", "file:///nowhere/at/all.git"))
        .with(&Recipe::program("missing", &http.url("missing.git")))
        .with(&Recipe::program("unreachable", "http://127.0.0.1:1/x.git"))
        .with(&Recipe::program("tool", &repo.file_url()))
        .build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let mut failed = Vec::new();
    for event in output.events("poll failed") {
        assert_eq!(event["level"], "warn", "{output}");
        // Without any HTTP answer, the manager does not ask git as well.
        let is_refused = event["recipe"] == "unreachable";
        let reason =
            if is_refused { "the connection failed: " } else { "git ls-remote exited with status 128: " };
        assert!(event["error"].starts_with(reason), "{output}");
        failed.push((event["recipe"].clone(), event["upstream"].clone()));
    }
    failed.sort();
    let expected = [
        ("gone", "file:///nowhere/at/all.git".to_owned()),
        ("missing", http.url("missing.git")),
        ("unreachable", "http://127.0.0.1:1/x.git".to_owned()),
    ];
    assert_eq!(failed, expected.map(|(recipe, url)| (recipe.to_owned(), url)));
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.assert_clean();
}

#[test]
fn password_in_a_url_is_used_and_never_shown() {
    const PASSWORD: &str = "hunter2-hunter2";
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    let commit = http.serve_new(siblings.path(), "lib.git", &[("lib.c", "")]);
    let repo = GitRepo::in_dir(siblings.path(), "app.git");
    repo.add_submodule("lib", "../lib.git", &commit);
    repo.commit(&[("content", "private")], DAY);
    repo.tag_light("v1");
    // The second version has a missing submodule, so that git prints an error with the URL.
    repo.add_submodule("lost", "../lost.git", &commit);
    repo.commit(&[], DAY);
    repo.tag_light("v2");
    let url = http.serve("app.git", &repo);
    http.require_auth("user", PASSWORD);
    let with_password = |url: &str| url.replace("//", &format!("//user:{PASSWORD}@"));
    let farm = Farm::builder()
        .with(&inspector("app", &with_password(&url)).upstream("submodules = true"))
        .with(&inspector("lost", &with_password(&http.url("lost.git"))))
        .with(&inspector("wrong", &url.replace("//", &format!("//user:{PASSWORD}-not@"))))
        .build();
    let output = farm.run(&["--once", "--log-level", "debug"]);
    output.assert_success().assert_only_events();
    farm.assert_published(&["app 1-1 noarch"]);
    assert_eq!(output.events("poll failed").len(), 2, "{output}");
    assert_eq!(output.event("build failed")["version"], "2-1");
    assert!(!output.stderr.contains(PASSWORD), "{output}");
    assert!(output.stderr.contains(&url), "the URL without its password is missing\n{output}");
    let manifest = farm.package("app", "1-1").manifest();
    assert_eq!(manifest["build"]["source_ref"], format!("git+{url}#refs/tags/v1"));
    let found = Command::new("grep").args(["-rl", PASSWORD]).arg(farm.state_dir()).output();
    assert_eq!(
        String::from_utf8_lossy(&found.unwrap().stdout),
        "",
        "a file of the state directory contains the password"
    );
}

#[test]
fn tags_with_shell_and_terminal_characters_are_only_names() {
    let repo = GitRepo::new();
    repo.commit(&[("content", "safe")], DAY);
    let tags = [
        "v1;touch${IFS}pwned",
        "v2$(touch${IFS}pwned)",
        "v3`touch${IFS}pwned`",
        "v4|touch&touch>pwned",
        "v5'\"",
        "v6--upload-pack=touch",
        "v7%s%n",
        "v8=x",
        "v9",
        "--upload-pack=touch${IFS}pwned;v10",
        "-v11",
    ];
    repo.tag_many(tags);
    // A reversed reading direction, and the one-character form of a terminal's escape sequences.
    repo.tag_many(["v20\u{202e}x", "v21\u{9b}31m"]);
    let recipe = inspector("lib", &repo.file_url()).tag_pattern(r"v(\d+)");
    let farm = Farm::builder().with(&recipe).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let mut built: Vec<String> = output.events("starting build").iter().map(|e| e["tag"].clone()).collect();
    built.sort();
    let mut expected: Vec<&str> = tags.to_vec();
    expected.extend(["v20\u{202e}x", "v21\u{9b}31m"]);
    expected.sort_unstable();
    assert_eq!(built, expected);
    let raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!output.stderr.contains(raw), "{:?}", output.stderr);
    for number in 1..=11 {
        assert_eq!(seen(&farm, "lib", &format!("{number}-1"), "content"), "safe");
    }
    let found = run(Command::new("find").arg(farm.home()).args(["-name", "pwned"]));
    assert_eq!(found, "");
    farm.assert_clean();
}

#[test]
fn builders_share_the_cached_repositories() {
    let upstreams = [(); 3].map(|()| GitRepo::program(&["1", "2", "3", "4", "5"]));
    let farm = upstreams.iter().enumerate().fold(Farm::builder(), |builder, (number, upstream)| {
        // Builds of unequal length send the upstreams from builder to builder.
        let recipe = Recipe::program(&format!("r{number}"), &upstream.file_url());
        builder.with(&recipe.before_build(&format!("sleep 0.{}\n", number + 1)))
    });
    let farm = farm.config_extra("[build]\njobs = 2\n").build();
    let output = farm.once();
    assert_eq!(output.assert_success().events("build + publish complete").len(), 15, "{output}");
    let mut fetches = [0; 3];
    for (number, count) in fetches.iter_mut().enumerate() {
        for log in std::fs::read_dir(farm.path(&format!("state/logs/r{number}"))).unwrap() {
            let text = std::fs::read_to_string(log.unwrap().path()).unwrap();
            *count += text.matches("Z git fetch\n").count();
        }
    }
    // The newest version and the next one, then the other three: as with a single builder.
    assert_eq!(fetches, [2; 3]);
    farm.assert_clean();
}

#[test]
fn long_backlog_does_not_fill_one_cached_repository() {
    let repo = GitRepo::new();
    repo.commit(&[("content", "x")], DAY);
    repo.tag_many((1..=150).map(|number| format!("v{number}")));
    let git = "#!/bin/sh\ncase \" $* \" in *' init '*) echo >>\"$HOME/inits\" ;; esac\nexec {real} \"$@\"\n";
    let farm = Farm::builder().program("git", git).with(&inspector("lib", &repo.file_url())).build();
    sweep_cleanly(&farm);
    assert_eq!(farm.published().len(), 150);
    // Which build begins the second repository depends on the time: after an expired tag, fewer tags
    // are prefetched.
    let inits = std::fs::read_to_string(farm.path("inits")).unwrap();
    assert_eq!(
        inits.lines().count(),
        2,
        "a second repository when the first has served a hundred builds and all that it prefetched"
    );
    farm.assert_clean();
}
