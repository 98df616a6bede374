//! Listing natively and by git: the same tags, and each way where it belongs.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peipkg_manager::process::Interrupt;
use peipkg_manager::upstream::git::Git;
use peipkg_manager::upstream::smart_http::{self, Failure};
use peipkg_manager::upstream::{LISTING_DEADLINE, ListError, Lister, ref_name};

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, git_command, run};
use crate::support::optional::find_program;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::smart_http::{ADVERTISEMENT, Fault, RESULT, SmartHttp};
use crate::support::wait::PATIENCE;

/// A git that notes its arguments in `git.log` beside its directory, and does what git does.
const NOTING_GIT: &str = "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/../git.log\"\nexec {real} \"$@\"\n";

/// A pattern that no tag has: nothing is ever new.
const NOTHING: &str = "^nothing-(.*)$";

fn by_git(url: &str) -> Vec<String> {
    let listing = run(git_command(Path::new("/")).args(["ls-remote", "--tags", "--refs", "--", url]));
    let name = |line: &str| line.split_once("\trefs/tags/").expect("a tag").1.to_owned();
    listing.lines().map(name).collect()
}

fn natively(url: &str) -> Result<Vec<String>, Failure> {
    let client = smart_http::SmartHttp::new(1, LISTING_DEADLINE);
    client.list_tags(url, |_| Ok(()), &Interrupt::new().unwrap())
}

#[track_caller]
fn check_same(url: &str, count: usize) {
    let tags = natively(url).unwrap();
    assert_eq!(tags, by_git(url), "{url}");
    assert_eq!(tags.len(), count, "{url}");
}

#[test]
fn both_ways_give_the_same_tags() {
    let http = SmartHttp::new();
    let repo = GitRepo::new();
    check_same(&http.serve("empty.git", &repo), 0);
    repo.commit(&[("a", "1")], "2026-01-01T00:00:00Z");
    let url = http.serve("all.git", &repo);
    check_same(&url, 0);
    for name in ["v1", "--help", "a/b/c", "v1.0-rc1+x", "é", "@", "refs/tags/v1", "heads/main", "v2.lockx"] {
        repo.tag_light(name);
    }
    repo.tag_annotated("annotated", "2026-01-02T00:00:00Z");
    repo.branch("v3");
    check_same(&url, 10);
    repo.git(&["pack-refs", "--all"]);
    repo.tag_light("after");
    check_same(&url, 11);
    check_same(&format!("{url}/"), 11);
    let repo = GitRepo::sha256();
    repo.commit(&[], "2026-01-01T00:00:00Z");
    repo.tag_light("v1");
    repo.tag_annotated("v2", "2026-01-02T00:00:00Z");
    check_same(&http.serve("sha256.git", &repo), 2);
}

#[test]
fn a_hundred_thousand_tags_are_listed() {
    let repo = GitRepo::program(&["1"]);
    repo.tag_many((0..100_000).map(|number| format!("n{number}")));
    check_same(&SmartHttp::new().serve("many.git", &repo), 100_001);
}

#[test]
fn names_that_git_does_not_accept_are_left_out_both_ways() {
    let http = SmartHttp::new();
    let url = http.serve("odd.git", &GitRepo::program(&["1"]));
    let mut body = String::new();
    let names =
        ["tags/v1", "tags/a..b", "tags/x.lock", "tags/v1^{}", "tags/.a", "tags/", "tags/\u{7f}", "tags/b:c"];
    for name in
        names.into_iter().chain(["tags/a/b", "heads/v2", "tags//c", "tags/d.", "tags/e@{0}", "tags/f@"])
    {
        let line = format!("{:040x} refs/{name}\n", 1);
        write!(body, "{:04x}{line}", line.len() + 4).unwrap();
    }
    body.push_str("0000");
    http.fault_second("odd.git", Fault::Answer { content_type: RESULT.to_owned(), body: body.into_bytes() });
    check_same(&url, 3);
}

#[test]
fn ref_names_are_judged_as_git_judges_them() {
    let pieces = [
        "a", ".", "..", "/", "@", "@{", ".lock", "-", "é", " ", "~", "^", ":", "?", "*", "[", "\\", "\t",
        "\u{7f}", "]", "{",
    ];
    let mut names: Vec<String> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    for first in pieces {
        for second in ["", "a", ".", "/", ".lock", "@"] {
            names.push(format!("{first}{second}b"));
            names.push(format!("b{first}{second}"));
        }
    }
    for name in names {
        let output = git_command(Path::new("/"))
            .args(["check-ref-format", &format!("refs/tags/{name}")])
            .output()
            .unwrap();
        assert_eq!(
            ref_name::is_valid(format!("tags/{name}").as_bytes()),
            output.status.success(),
            "{name:?}"
        );
    }
}

/// Lists `url` in a sweep of the real manager, with `change` made to its environment, and checks the way that it says it
/// went, with the reason if it was git's.
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
fn each_upstream_goes_the_way_that_git_would() {
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
fn gits_configuration_is_honoured() {
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
fn a_file_that_only_git_config_reads_hides_nothing() {
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
fn a_checkout_around_the_state_directory_is_none_of_gits() {
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
fn a_remote_that_is_called_like_the_upstream_is_gits() {
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
fn a_home_that_is_none_has_no_netrc() {
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
fn that_git_lists_everything_is_said_once() {
    const SAID: &str = "git lists every upstream";
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let there = http.serve("b.git", &GitRepo::program(&["1"]));
    let farm =
        Farm::builder().with(&Recipe::program("one", &url)).with(&Recipe::program("two", &there)).build();
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path()).env("GIT_HTTP_USER_AGENT", "me");
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    assert_eq!(output.event(SAID)["reason"], "the environment sets GIT_HTTP_USER_AGENT", "{output}");
    assert!(farm.once().events(SAID).is_empty());
}

#[test]
fn settings_that_could_not_be_read_are_read_again() {
    const SAID: &str = "git's settings cannot be read, it lists every upstream";
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
    assert!(output.event(SAID)["reason"].contains("status 7"), "{output}");
    let ways: Vec<_> = output.events("listing upstream").iter().map(|event| event["way"].clone()).collect();
    assert_eq!(ways, ["git", "native"], "{output}");
}

#[test]
fn a_reload_reads_gits_settings_again() {
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
fn all_of_a_listing_has_one_deadline() {
    let home = tempfile::tempdir().unwrap();
    let git = home.path().join("bin/git");
    // It reads its settings for a long time, since the file of its own prefix has some.
    fs::create_dir(home.path().join("bin")).unwrap();
    fs::create_dir(home.path().join("etc")).unwrap();
    fs::write(home.path().join("etc/gitconfig"), "[credential]\n").unwrap();
    let slow = "#!/bin/sh\ncase \"$*\" in *--list*) : >\"$0.asked\"; exec sleep 6; esac\nexit 9\n";
    fs::write(&git, slow).unwrap();
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    http.fault("a.git", Fault::Silent);
    let limit = Duration::from_secs(8);
    let lister = Lister::new(Arc::new(Git::new(git.clone(), home.path().to_owned())), 1, limit);
    let begun = Instant::now();
    let error = lister.list_tags(&url, &Interrupt::new().unwrap()).unwrap_err().to_string();
    let took = begun.elapsed();
    assert!(git.with_extension("asked").exists(), "{error}");
    assert!(error.starts_with("no complete answer within "), "{error}");
    assert!(took >= limit && took < limit + Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_busy_host_is_left_alone_by_git_too() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"])).replace("//", "//user@");
    let git = Git::new(find_program("git").expect("git is on the PATH"), std::env::temp_dir());
    let lister = Lister::new(Arc::new(git), 1, LISTING_DEADLINE);
    // One broken repository says nothing about its host.
    for (code, expected) in [(429, true), (503, false), (404, false), (500, false)] {
        http.fault("a.git", Fault::Status { code, retry_after: None });
        let error = lister.list_tags(&url, &Interrupt::new().unwrap()).unwrap_err();
        assert_eq!(matches!(&error, ListError::Git(error) if error.is_busy()), expected, "{error}");
    }
}

#[test]
fn a_password_is_asked_for_by_git() {
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
fn a_server_of_an_older_version_is_gits_from_then_on() {
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
        assert_eq!(lister.list_tags(&url, &Interrupt::new().unwrap()).unwrap(), ["v1"]);
        http.requests().len()
    };
    assert_eq!(list(), 2, "once natively, once by git");
    assert_eq!(list(), 1, "by git only");
    check_way(&url, |_, _| {}, Some("the server does not speak protocol version 2"));
}

#[test]
fn a_sweep_with_nothing_new_starts_no_git_and_few_connections() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1", "2"]);
    let mut farm = Farm::builder().program("git", NOTING_GIT).config_extra("");
    for number in 0..50 {
        let url = http.serve(&format!("r{number}.git"), &repo);
        farm = farm.with(&Recipe::program(&format!("r{number:02}"), &url).tag_pattern(NOTHING));
    }
    let farm = farm.build();
    let output = farm.run(&["--once", "--log-level", "debug"]);
    assert_eq!(output.assert_success().events("poll complete").len(), 50, "{output}");
    assert!(output.events("listing upstream").iter().all(|event| event["way"] == "native"), "{output}");
    assert!(!farm.path("git.log").exists(), "{}", fs::read_to_string(farm.path("git.log")).unwrap());
    assert_eq!(http.requests().len(), 100);
    assert!(http.connections() <= 8, "{} connections", http.connections());
    // The stand-in does note: a file URL is git's.
    farm.add(&Recipe::program("r00", &repo.file_url()).tag_pattern(NOTHING));
    farm.once().assert_success();
    assert!(fs::read_to_string(farm.path("git.log")).unwrap().contains("ls-remote"));
}
