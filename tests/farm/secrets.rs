//! Secrets of upstreams and remotes: who could read them while the farm works, and afterwards.
//!
//! Every user of a machine can read all command lines. A thread reads those of the farm while it
//! works, and git itself writes each of its commands to a file.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::farm::{Farm, published_in, remote_directory};
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::smart_http::{Fault, SmartHttp};
use crate::support::wait::PATIENCE;

const DAY: &str = "2026-02-01T00:00:00Z";

/// Runs `work` and returns its result, and every command line of the machine meanwhile that has one
/// of `secrets`.
fn watch_command_lines<T>(secrets: &[&str], work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let done = AtomicBool::new(false);
    let has_secret = |line: &String| secrets.iter().any(|secret| line.contains(secret));
    let read = |entry: fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    };
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut found = Vec::new();
            while !done.load(Ordering::Relaxed) {
                found.extend(fs::read_dir("/proc").unwrap().flatten().map(read).filter(has_secret));
            }
            found
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap())
    })
}

/// Runs a sweep in which none of `secrets` may be in a command line, the log or a file.
#[track_caller]
fn sweep_in_secret(farm: &Farm, secrets: &[&str]) -> Output {
    let trace = farm.path("trace");
    let mut command = farm.command(&["--once", "--log-level", "debug", "--config"]);
    command
        .arg(farm.config_path())
        .env("GIT_TRACE", &trace)
        .env("GIT_CONFIG_GLOBAL", farm.path(".gitconfig"));
    let (output, seen) = watch_command_lines(secrets, || Running::spawn(&mut command).wait_exit(PATIENCE));
    assert!(seen.is_empty(), "{seen:#?}");
    let trace = fs::read_to_string(trace).unwrap_or_default();
    for secret in secrets {
        assert!(!trace.contains(secret), "{secret} in git's commands\n{trace}");
        assert!(!output.stderr.contains(secret), "{secret} in the log\n{output}");
    }
    // Another test may be watching for command lines with these secrets.
    let patterns = farm.path("secrets");
    fs::write(&patterns, secrets.join("\n")).unwrap();
    let found = Command::new("grep").arg("-rlFf").arg(&patterns).arg(farm.state_dir()).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "", "a secret in the state directory");
    output
}

/// A repository with a submodule by a relative URL, served as `name`.
fn with_submodule(http: &SmartHttp, parent: &std::path::Path, name: &str) -> String {
    let commit = http.serve_new(parent, "lib.git", &[("lib.c", "")]);
    let repo = GitRepo::in_dir(parent, name);
    repo.add_submodule("lib", "../lib.git", &commit);
    repo.commit(&[("program.sh", "private"), ("README", "x")], DAY);
    repo.tag_light("v1.0");
    http.serve(name, &repo)
}

#[track_caller]
fn check_credentials(user_info: &str, user: &str, password: &str, secrets: &[&str]) {
    let (parent, http) = (tempfile::tempdir().unwrap(), SmartHttp::new());
    let url = with_submodule(&http, parent.path(), "app.git");
    http.require_auth(user, password);
    let secret_url = url.replace("//", &format!("//{user_info}@"));
    let farm = Farm::builder()
        .with(&Recipe::program("app", &secret_url).upstream("submodules = true"))
        .with(&Recipe::program("lost", &secret_url.replace("app.git", "lost.git")))
        .build();
    let output = sweep_in_secret(&farm, secrets);
    output.assert_success().event("poll failed");
    farm.assert_published(&["app 1.0-1 noarch"]);
    let manifest = farm.package("app", "1.0-1").manifest();
    assert_eq!(manifest["build"]["source_ref"], format!("git+{url}#refs/tags/v1.0"));
}

#[test]
fn credentials_in_a_url_reach_the_server_and_no_command_line() {
    check_credentials("bobby-q7:huntress-q7", "bobby-q7", "huntress-q7", &["huntress-q7", "bobby-q7"]);
    let encoded = ["s3cr%40t%2f%27", "s3cr@t/'", "czNjckB0Lyc"];
    check_credentials("bob:s3cr%40t%2f%27%22%20%24x", "bob", "s3cr@t/'\" $x", &encoded);
    check_credentials("ghp%5FToken1234", "ghp_Token1234", "", &["ghp%5FToken1234", "ghp_Token1234"]);
}

#[test]
fn user_in_a_url_without_password_gets_it_from_the_helper() {
    let repo = GitRepo::program(&["1.0"]);
    let http = SmartHttp::new();
    let url = http.serve("tool.git", &repo);
    http.require_auth("jane-q7", "helpful-q7");
    let farm = Farm::builder().with(&Recipe::program("tool", &url.replace("//", "//jane-q7@"))).build();
    let helper = "!f() { test $1 = get && grep -q ^username=jane-q7 && echo password=helpful-q7; }; f";
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path()).envs([
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "credential.helper"),
        ("GIT_CONFIG_VALUE_0", helper),
    ]);
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_success().event("build + publish complete");
    farm.assert_published(&["tool 1.0-1 noarch"]);
}

#[test]
fn redirect_to_another_host_gets_no_credentials() {
    let (here, there) = (SmartHttp::new(), SmartHttp::new());
    let repo = GitRepo::program(&["1.0"]);
    let target = there.serve("tool.git", &repo);
    there.require_auth("kim-q7", "elsewhere-q7");
    let to = format!("{target}/info/refs?service=git-upload-pack");
    here.fault("tool.git", Fault::Redirect { to });
    let url = here.url("tool.git").replace("//", "//kim-q7:elsewhere-q7@");
    let farm = Farm::builder().with(&Recipe::program("tool", &url)).build();
    farm.once().assert_success().event("poll failed");
    let asked = there.requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn redirect_to_a_url_with_credentials_is_shown_without_them() {
    let (here, there) = (SmartHttp::new(), SmartHttp::new());
    there.require_auth("lee-q7", "unknown-q7");
    for (name, user_info) in [("one.git", "ghp-Their1-q7"), ("two.git", "lee:ghp-Their2-q7")] {
        let to =
            there.url(name).replace("//", &format!("//{user_info}@")) + "/info/refs?service=git-upload-pack";
        here.fault(name, Fault::Redirect { to });
    }
    let farm = Farm::builder()
        .with(&Recipe::program("one", &here.url("one.git")))
        .with(&Recipe::program("two", &here.url("two.git")))
        .build();
    let output = sweep_in_secret(&farm, &["ghp-Their1-q7", "ghp-Their2-q7"]);
    assert_eq!(output.events("poll failed").len(), 2, "{output}");
}

#[test]
fn query_for_a_server_without_protocol_version_2_is_in_no_command_line() {
    let repo = GitRepo::program(&["1.0"]);
    let http = SmartHttp::new();
    let url = format!("{}?private_token=older-q7", http.serve("tool.git", &repo));
    let farm = Farm::builder().with(&Recipe::program("tool", &url)).build();
    fs::write(farm.path(".gitconfig"), "[protocol]\nversion = 0\n").unwrap();
    let output = sweep_in_secret(&farm, &["older-q7"]);
    assert!(output.event("build failed")["error"].contains("protocol version 2"), "{output}");
}

#[test]
fn query_of_a_url_reaches_the_server_and_no_command_line() {
    let (parent, http) = (tempfile::tempdir().unwrap(), SmartHttp::new());
    let url = with_submodule(&http, parent.path(), "app.git");
    let farm = Farm::builder()
        .with(
            &Recipe::program("app", &format!("{url}?private_token=glpat-S3cret#part"))
                .upstream("submodules = true"),
        )
        .build();
    let output = sweep_in_secret(&farm, &["glpat-S3cret", "private_token"]);
    output.assert_success().assert_only_events();
    assert_eq!(output.event("polling upstream")["upstream"], url);
    farm.assert_published(&["app 1.0-1 noarch"]);
    let manifest = farm.package("app", "1.0-1").manifest();
    assert_eq!(manifest["build"]["source_ref"], format!("git+{url}#refs/tags/v1.0"));
    let asked = http.requests();
    let with_token = |query: &str| query.starts_with("private_token=glpat-S3cret/");
    assert!(asked.iter().filter(|request| with_token(&request.query)).count() >= 4);
}

#[test]
fn server_refuses_credentials_and_repeats_them_nothing_is_shown() {
    let http = SmartHttp::new();
    http.require_auth("nobody", "nothing");
    let urls =
        ["//ghp%5FToken1234@", "//bob:ghp%5FToken1234@"].map(|user| http.url("x.git").replace("//", user));
    let said = "token ghp_Token1234 (ghp%5FToken1234, Z2hwX1Rva2VuMTIzNDo) is unknown";
    let repeats = Fault::Answer {
        content_type: "application/x-git-upload-pack-advertisement".into(),
        body: format!("{:04x}ERR {said}", said.len() + 8).into_bytes(),
    };
    http.fault("loud.git", repeats);
    let farm = Farm::builder()
        .with(&Recipe::program("token", &urls[0]))
        .with(&Recipe::program("both", &urls[1]))
        .with(&Recipe::program("loud", &urls[0].replace("x.git", "loud.git")))
        .build();
    let output = sweep_in_secret(&farm, &["ghp_Token", "ghp%5FToken", "Z2hwX1Rva2Vu"]);
    let failed = output.events("poll failed");
    assert_eq!(failed.len(), 3, "{output}");
    assert!(failed.iter().any(|event| event["error"].contains("is unknown")), "{output}");
}

#[test]
fn secrets_of_other_transports_are_in_no_command_line() {
    let farm = Farm::builder()
        .program("ssh", "#!/bin/sh\necho \"ssh $*\" >>\"$HOME/asked\"\nexit 1\n")
        .with(&Recipe::program("ssh", "ssh://me:pw-s3cret@h.invalid/x"))
        .with(&Recipe::program("short", "me:pw-s3cret@h.invalid:x"))
        .with(&Recipe::program("mistaken", "me:pw-s3cret@h.invalid/x"))
        .with(&Recipe::program("ftp", "ftp://me:pw-s3cret@127.0.0.1:1/x"))
        .with(&Recipe::program("other", "nothing://me:pw-s3cret@h.invalid/x?pw-s3cret"))
        .build();
    let output = sweep_in_secret(&farm, &["pw-s3cret"]);
    assert_eq!(output.events("poll failed").len(), 5, "{output}");
    let asked = fs::read_to_string(farm.path("asked")).unwrap();
    assert_eq!(asked.lines().filter(|line| line.contains(" me@h.invalid ")).count(), 2, "{asked}");
}

#[test]
fn tags_of_60_kilobytes_are_cut_in_the_log() {
    let http = SmartHttp::new();
    let long = "x".repeat(60_000);
    let line = |n| format!("{} refs/tags/v{n}{long}\n", "1".repeat(40));
    let packets: Vec<String> =
        (0..30).map(line).map(|line| format!("{:04x}{line}", line.len() + 4)).collect();
    let typed = |kind: &str, body: String| Fault::Answer {
        content_type: format!("application/x-git-upload-pack-{kind}"),
        body: body.into_bytes(),
    };
    let hello = "000eversion 2\n0013ls-refs=unborn\n0000";
    http.fault_times("x.git", typed("advertisement", hello.into()), 1);
    http.fault_second("x.git", typed("result", packets.concat() + "0000"));
    let recipe = Recipe::program("long", &http.url("x.git")).tag_pattern(r"^v(\d+x+)$");
    let farm = Farm::builder().with(&recipe).build();
    let output = farm.once();
    output.assert_success();
    assert_eq!(output.event("poll complete")["tags_seen"], "30", "{output}");
    assert!(!output.events("tag skipped").is_empty(), "{output}");
    assert!(output.stderr.lines().all(|line| line.len() < 800), "{output}");
}

#[test]
fn remote_with_a_password_is_used_and_in_no_command_line() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    // The backend takes no password, so rclone ignores it.
    let remote = format!(":alias,remote='{}',pass=sesame-q7:copy", copy.parent().unwrap().display());
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .config_extra(&format!("[upload]\nbackend = \"rclone\"\nremote = \"{remote}\"\n"))
        .build();
    let output = sweep_in_secret(&farm, &["sesame-q7"]);
    output.assert_success().assert_only_events().event("upload complete");
    assert_eq!(published_in(&copy), ["tool 1.0-1 noarch"]);
}
