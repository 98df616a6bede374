//! Whether the manager lists an upstream natively or by git, and which settings of the machine
//! decide that.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use peipkg_manager::Git;
use peipkg_manager::Interrupt;
use peipkg_manager::{LISTING_DEADLINE, Lister};

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, git_command, run};
use crate::support::optional::find_program;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::smart_http::{ADVERTISEMENT, Fault, SmartHttp};
use crate::support::wait::PATIENCE;

/// A pattern that matches no tag, so that nothing is built.
const NOTHING: &str = "^nothing-(.*)$";

/// Lists `url` in a sweep of the real manager after `change` to its environment, and checks the
/// logged way, with the reason if it was git.
#[track_caller]
fn check_way(url: &str, change: impl Fn(&Farm, &mut Command), expected: Option<&str>) -> Output {
    let farm = Farm::builder().with(&Recipe::program("way", url).tag_pattern(NOTHING)).build();
    let mut command = farm.command(&["--once", "--log-level", "debug", "--config"]);
    command.arg(farm.config_path());
    change(&farm, &mut command);
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    let event = output.assert_success().event("listing upstream");
    let found = (event["way"].as_str(), event.get("reason").map(String::as_str));
    assert_eq!(found, (if expected.is_some() { "git" } else { "native" }, expected), "{output}");
    output
}

#[test]
fn upstream_of_each_kind_is_listed_as_git_would() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1"]);
    let url = http.serve("a.git", &repo);
    let seen = |output: &Output| assert_eq!(output.event("poll complete")["tags_seen"], "1", "{output}");
    let as_it_is = |_: &Farm, _: &mut Command| {};
    seen(&check_way(&url, as_it_is, None));
    seen(&check_way(&repo.file_url(), as_it_is, Some("it is not an http or https URL")));
    let with_user = url.replace("//", "//user:secret@");
    let output = check_way(&with_user, as_it_is, Some("the URL names a user"));
    seen(&output);
    assert!(!output.stderr.contains("secret"), "{output}");

    let set = |name: &'static str, value: &'static str| {
        move |_: &Farm, command: &mut Command| {
            command.env(name, value);
        }
    };
    let proxy = set("http_proxy", "http://127.0.0.1:9");
    check_way(&url, proxy, Some("the environment sets http_proxy")).event("poll failed");
    seen(&check_way(&url, set("https_proxy", "http://127.0.0.1:9"), None));
    seen(&check_way(&url, set("http_proxy", ""), None));
    seen(&check_way(&url, set("GIT_TRACE", "0"), Some("the environment sets GIT_TRACE")));
}

#[test]
fn git_configuration_is_honoured() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1", "2"]));
    let configured = |text: String| {
        move |farm: &Farm, command: &mut Command| {
            fs::write(farm.path("gitconfig"), &text).unwrap();
            command.env("GIT_CONFIG_GLOBAL", farm.path("gitconfig"));
        }
    };
    let instead = format!("[url \"{}\"]\n\tinsteadOf = http://nowhere.invalid/\n", http.url(""));
    let reason = Some("git's configuration sets url.*.insteadOf");
    let output = check_way("http://nowhere.invalid/a.git", configured(instead.clone()), reason);
    assert_eq!(output.event("poll complete")["tags_seen"], "2", "{output}");
    check_way(&url, configured(instead), None);
    let header = format!("[http \"{}\"]\n\textraHeader = X-Test: yes\n", http.url(""));
    http.clear_log();
    check_way(&url, configured(header), Some("git's configuration sets http.* for this host"));
    assert!(http.requests().iter().all(|request| request.header("x-test") == Some("yes")));
    check_way(
        &url,
        configured("[HTTP] userAgent = me\n".to_owned()),
        Some("git's configuration sets http.useragent"),
    );
    check_way(&url, configured("[user] name = me\n".to_owned()), None);
    let included = |farm: &Farm, command: &mut Command| {
        fs::write(farm.path("more"), "[http]\n\tsslVerify = false\n").unwrap();
        configured(format!("[include]\n\tpath = {}\n", farm.path("more").display()))(farm, command);
    };
    check_way(&url, included, Some("git's configuration sets http.sslverify"));
    let by_variables = |_: &Farm, command: &mut Command| {
        command
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "http.proxy")
            .env("GIT_CONFIG_VALUE_0", "");
    };
    check_way(&url, by_variables, Some("git's configuration sets http.proxy"));
    let netrc = |farm: &Farm, _: &mut Command| {
        fs::write(farm.path(".netrc"), "machine 127.0.0.1 login a password b\n").unwrap();
    };
    check_way(&url, netrc, Some("netrc names the host"));
    let broken = configured("[http\n".to_owned());
    let farm = Farm::builder().with(&Recipe::program("way", &url).tag_pattern(NOTHING)).build();
    let mut command = farm.command(&["--once", "--config"]);
    broken(&farm, command.arg(farm.config_path()));
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    assert!(output.event("poll failed")["error"].contains("config"), "{output}");
}

#[test]
fn git_config_only_file_hides_nothing() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let hidden = |farm: &Farm, command: &mut Command| {
        fs::write(farm.path("gitconfig"), "[http]\n\textraHeader = X-Test: yes\n").unwrap();
        command.env("GIT_CONFIG_GLOBAL", farm.path("gitconfig")).env("GIT_CONFIG", "/dev/null");
    };
    check_way(&url, hidden, Some("git's configuration sets http.extraheader"));
    assert!(http.requests().iter().all(|request| request.header("x-test") == Some("yes")));
}

#[test]
fn checkout_around_the_state_directory_does_not_matter() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let in_checkout = |farm: &Farm, _: &mut Command| {
        run(git_command(farm.home()).args(["init", "--quiet"]));
        run(git_command(farm.home()).args(["config", "http.extraHeader", "X-Checkout: yes"]));
        run(git_command(farm.home()).args(["config", "url.http://127.0.0.1:9/.insteadOf", "http://"]));
    };
    check_way(&url, in_checkout, None);
    let output = check_way(&url.replace("//", "//user@"), in_checkout, Some("the URL names a user"));
    assert_eq!(output.event("poll complete")["tags_seen"], "1", "{output}");
    assert!(http.requests().iter().all(|request| request.header("x-checkout").is_none()));
}

#[test]
fn remote_called_like_the_upstream_is_left_to_git() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let there = http.serve("b.git", &GitRepo::program(&["1", "2"]));
    let remote = |farm: &Farm, command: &mut Command| {
        let text = format!("[remote \"{url}\"]\n\turl = {there}\n");
        fs::write(farm.path("gitconfig"), text).unwrap();
        command.env("GIT_CONFIG_GLOBAL", farm.path("gitconfig"));
    };
    let output = check_way(&url, remote, Some("git's configuration sets remote.* for this URL"));
    assert_eq!(output.event("poll complete")["tags_seen"], "2", "{output}");
    check_way(&there, remote, None);
}

#[test]
fn home_missing_has_no_netrc() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let no_home = |_: &Farm, command: &mut Command| {
        command.env("HOME", "/dev/null");
    };
    check_way(&url, no_home, None);
    let no_file = |farm: &Farm, _: &mut Command| fs::create_dir(farm.path(".netrc")).unwrap();
    check_way(&url, no_file, None);
}

#[test]
fn settings_leave_all_listings_to_git_says_so_once() {
    const MESSAGE: &str = "git lists every upstream";
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let there = http.serve("b.git", &GitRepo::program(&["1"]));
    let farm =
        Farm::builder().with(&Recipe::program("one", &url)).with(&Recipe::program("two", &there)).build();
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path()).env("GIT_HTTP_USER_AGENT", "me");
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    assert_eq!(output.event(MESSAGE)["reason"], "the environment sets GIT_HTTP_USER_AGENT", "{output}");
    assert!(farm.once().events(MESSAGE).is_empty());
}

#[test]
fn settings_unreadable_are_read_again() {
    const MESSAGE: &str = "cannot read git's settings, git lists every upstream";
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let there = http.serve("b.git", &GitRepo::program(&["1"]));
    let failing = "#!/bin/sh\ncase \"$*\" in *--list*)\n\tif mkdir \"$HOME/failed\" 2>/dev/null; then exit 7; fi\nesac\nexec {real} \"$@\"\n";
    let farm = Farm::builder().program("git", failing);
    let farm = farm.with(&Recipe::program("one", &url)).with(&Recipe::program("two", &there));
    let farm = farm.build();
    let text = fs::read_to_string(farm.config_path()).unwrap();
    fs::write(farm.config_path(), text.replace("[poll]\n", "[poll]\njobs = 1\n")).unwrap();
    fs::write(farm.path("gitconfig"), "[credential]\n\thelper =\n").unwrap();
    let mut command = farm.command(&["--once", "--log-level", "debug", "--config"]);
    command.arg(farm.config_path()).env("GIT_CONFIG_GLOBAL", farm.path("gitconfig"));
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    assert!(output.event(MESSAGE)["reason"].contains("status 7"), "{output}");
    let ways: Vec<_> = output.events("listing upstream").iter().map(|event| event["way"].clone()).collect();
    assert_eq!(ways, ["git", "native"], "{output}");
}

#[test]
fn reload_reads_gits_settings_again() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let there = http.serve("b.git", &GitRepo::program(&["1"]));
    let farm = Farm::builder().with(&Recipe::program("one", &url).tag_pattern(NOTHING)).build();
    let mut command = farm.command(&["--log-level", "debug", "--config"]);
    command.arg(farm.config_path()).env("GIT_CONFIG_GLOBAL", farm.path("gitconfig"));
    let mut daemon = Running::spawn(&mut command);
    assert_eq!(daemon.wait_event("listing upstream", PATIENCE)["way"], "native");
    fs::write(farm.path("gitconfig"), "[http]\n\tuserAgent = me\n").unwrap();
    farm.add(&Recipe::program("two", &there).tag_pattern(NOTHING));
    daemon.signal(Signal::HUP);
    let event = daemon.wait_event("git lists every upstream", PATIENCE);
    assert_eq!(event["reason"], "git's configuration sets http.useragent");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
}

#[test]
fn server_wants_a_password_is_left_to_git() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    http.require_auth("user", "pass");
    let with_helper = |farm: &Farm, command: &mut Command| {
        let helper = "[credential]\n\thelper = \"!f() { echo username=user; echo password=pass; }; f\"\n";
        fs::write(farm.path("gitconfig"), helper).unwrap();
        command.env("GIT_CONFIG_GLOBAL", farm.path("gitconfig"));
    };
    let output = check_way(&url, with_helper, Some("the answer has status 401"));
    assert_eq!(output.event("poll complete")["tags_seen"], "1", "{output}");
    check_way(&url, |_, _| {}, Some("the answer has status 401")).event("poll failed");
}

#[test]
fn server_of_an_older_protocol_is_left_to_git_from_then_on() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1"]);
    let url = http.serve("old.git", &repo);
    let line = format!("{} refs/tags/v1\0agent=old\n", repo.head());
    let body = format!("001e# service=git-upload-pack\n0000{:04x}{line}0000", line.len() + 4);
    http.fault("old.git", Fault::Answer { content_type: ADVERTISEMENT.to_owned(), body: body.into_bytes() });
    let git = Git::new(find_program("git").expect("git is on the PATH"), std::env::temp_dir());
    let lister = Lister::new(Arc::new(git), 1, LISTING_DEADLINE);
    let list = || {
        http.clear_log();
        let tags = lister.list_tags(&url.parse().unwrap(), &Interrupt::new().unwrap()).unwrap();
        assert_eq!(tags.iter().collect::<Vec<_>>(), ["v1"]);
        http.requests().len()
    };
    assert_eq!(list(), 2, "expected one native request and one by git");
    assert_eq!(list(), 1, "expected one request, by git");
    check_way(&url, |_, _| {}, Some("the server does not speak protocol version 2"));
}
