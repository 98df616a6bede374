//! Build logs: they hold all output of an attempt's tools, within limits, and no build fails
//! because of them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustix::process::Signal;

use crate::support::client;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::logfmt::Event;
use crate::support::recipes::Recipe;
use crate::support::running::{Running, os_error};
use crate::support::wait::{PATIENCE, poll, wait_until};

/// The documented limits: logs kept per recipe, the head and the least tail of a log in bytes,
/// removed recipes that keep logs.
const KEPT: usize = 30;
const HEAD: u64 = 1024 * 1024;
const TAIL: u64 = 1024 * 1024;
const GONE: usize = 20;

/// The logs of a recipe, the oldest first.
fn logs_of(farm: &Farm, recipe: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(farm.state_dir().join("logs").join(recipe)).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[track_caller]
fn read(path: impl AsRef<Path>) -> String {
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()));
    String::from_utf8(bytes).expect("a log is text")
}

/// The manager's own lines in a log, without their times. Fails the test if one has no time.
#[track_caller]
fn steps(log: &str) -> Vec<&str> {
    let own = log.lines().filter_map(|line| line.strip_prefix("== "));
    own.map(|line| {
        let (time, step) = line.split_once(' ').expect("a time and a step");
        humantime::parse_rfc3339(time).unwrap_or_else(|error| panic!("{time}: {error}\n{log}"));
        step
    })
    .collect()
}

/// Reads the log that an event names, which must belong to `recipe`.
#[track_caller]
fn named_by(event: &Event, farm: &Farm, recipe: &str) -> String {
    let path = Path::new(event.get("log").unwrap_or_else(|| panic!("{event:?} names no log")));
    assert_eq!(path.parent().unwrap(), farm.state_dir().join("logs").join(recipe));
    read(path)
}

#[test]
fn build_fails_its_log_has_all_of_the_output() {
    let repo = GitRepo::program(&["1.0"]);
    let script = "i=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i + 1)); done\n\
                  printf 'a \\033[31mred\\033[0m word, \\377\\n' >&2\necho 'no such function' >&2; exit 7";
    let farm = Farm::builder().with(&Recipe::program("bad", &repo.file_url()).build_sh(script)).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.event("build failed");
    assert!(failed["error"].contains("no such function"), "{output}");
    let log = named_by(&failed, &farm, "bad");
    assert_eq!(logs_of(&farm, "bad"), [PathBuf::from(&failed["log"])]);
    let lines: Vec<String> = (0..3000).map(|number| format!("line {number}")).collect();
    assert!(log.contains(&(lines.join("\n") + "\n")), "{log}");
    assert!(log.contains("a \\x1b[31mred\\x1b[0m word, \\xff\nno such function\n"), "{log}");
    let steps = steps(&log);
    assert_eq!(steps[0], format!("bad 1.0-1, attempt 1: tag v1.0 of {}", repo.file_url()));
    assert!(steps.contains(&"git fetch") && steps[steps.len() - 2] == "peipkg-build build", "{steps:?}");
    assert_eq!(steps[steps.len() - 1], format!("failed: {}", failed["error"]));
    assert!(log.lines().last().unwrap().starts_with("== "), "{log}");
}

#[test]
fn build_succeeds_has_a_log_too() {
    let repo = GitRepo::program(&["1.0"]);
    let recipe = Recipe::program("tool", &repo.file_url()).before_build("echo compiling");
    let farm = Farm::builder().with(&recipe).build();
    let before = SystemTime::now();
    farm.once().assert_success().assert_only_events();
    let paths = logs_of(&farm, "tool");
    let name = paths[0].file_name().unwrap().to_str().unwrap();
    let time = humantime::format_rfc3339_millis(before).to_string().replace(['-', ':'], "");
    assert!(paths.len() == 1 && *name >= *time && name.ends_with("Z_1.0-1_1.ok.log"), "{paths:?}");
    let log = read(&paths[0]);
    let steps = steps(&log);
    let pending = "built, the packages are pending";
    let last = ["peipkg-build build", "check of the outputs", pending, "peipkg-repo publish", "done"];
    assert!(steps.ends_with(&last), "{log}");
    let build = log.split_once("peipkg-build build\n").unwrap().1;
    assert!(build.starts_with("compiling\n"), "{log}");
}

/// How many bytes `seq 1 last` writes: a line each, and a digit for each power of ten up to it.
fn bytes_of_seq(last: u64) -> u64 {
    let powers = (0..=last.ilog10()).map(|exponent| 10_u64.pow(exponent));
    last + powers.map(|power| last - power + 1).sum::<u64>()
}

#[test]
fn build_writes_without_end_leaves_head_mark_and_tail() {
    const LAST: u64 = 23_000_000;
    let repo = GitRepo::program(&["1.0"]);
    let recipe = Recipe::program("loud", &repo.file_url()).build_sh(&format!("seq 1 {LAST}; exit 1"));
    let farm = Farm::builder().with(&recipe).build();
    assert!(bytes_of_seq(LAST) > 195_000_000);
    let mut sweep = farm.start(&["--once"]);
    let mut largest = 0;
    let ended = poll(2 * PATIENCE, || {
        let sizes = logs_of(&farm, "loud").into_iter().filter_map(|path| fs::metadata(path).ok());
        largest = sizes.map(|metadata| metadata.len()).max().unwrap_or(0).max(largest);
        sweep.has_ended().then_some(())
    });
    assert!(ended.is_some(), "{sweep}");
    let output = sweep.wait_exit(PATIENCE);
    output.assert_success().assert_only_events();
    let log = named_by(&output.event("build failed"), &farm, "loud");
    // The head and the tail also hold the manager's own lines and the line that marks the cut.
    let limit = HEAD + 2 * TAIL + 1024;
    assert!(log.len() as u64 > HEAD + TAIL && largest > HEAD && largest <= limit, "{} {largest}", log.len());

    let (_, build) = log.split_once(" peipkg-build build\n").unwrap();
    let (head, rest) = build.split_once("== ").unwrap();
    let (left_out, tail) = rest.split_once(" bytes are left out here\n").unwrap();
    let numbers = |text: &str| text.lines().map_while(|line| line.parse().ok()).collect::<Vec<u64>>();
    let (head, tail) = (numbers(head), numbers(tail));
    let (head_last, tail_first) = (head[head.len() - 1], tail[0]);
    assert!(head.iter().copied().eq(1..=head_last), "the head is not the beginning of the output");
    assert!(tail.iter().copied().eq(tail_first..=LAST), "the tail is not the end of the output");
    let expected = bytes_of_seq(tail_first - 1) - bytes_of_seq(head_last);
    assert_eq!(left_out, expected.to_string(), "from {head_last} to {tail_first}");
    assert!(log.lines().last().unwrap().contains(" failed: "), "the manager's last line is missing");
}

#[test]
fn attempts_have_a_log_each() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::failing("bad", &repo.file_url())).build();
    let first = farm.once().event("build failed")["log"].clone();
    let text = read(&first);
    let second = farm.once().event("build failed")["log"].clone();
    assert!(first.ends_with("_1.0-1_1.log") && second.ends_with("_1.0-1_2.log"), "{first} {second}");
    assert_eq!(logs_of(&farm, "bad"), [first.as_str(), second.as_str()].map(PathBuf::from));
    assert!(read(&first) == text, "the first log has changed");
    assert!(steps(&read(&second))[0].starts_with("bad 1.0-1, attempt 2: tag "));
}

#[test]
fn publish_without_a_build_has_its_own_log() {
    let repo = GitRepo::program(&["1.0"]);
    let script = "#!/bin/sh\n[ \"$1\" = publish ] && [ -e \"$HOME/refuse\" ] || exec {real} \"$@\"\n\
                  echo 'about to refuse'; echo 'peipkg-repo: no space left' >&2; exit 1\n";
    let recipe = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&recipe).program("peipkg-repo", script).build();
    fs::write(farm.path("refuse"), "").unwrap();
    for (attempt, what) in ["tag v1.0 of", "publish of pending packages"].iter().enumerate() {
        let failed = farm.once().event("publish failed");
        let log = named_by(&failed, &farm, "tool");
        let steps = steps(&log);
        assert!(steps[0].starts_with(&format!("tool 1.0-1, attempt {}: {what}", attempt + 1)), "{log}");
        assert!(
            log.contains(" peipkg-repo publish\nabout to refuse\npeipkg-repo: no space left\n== "),
            "{log}"
        );
        let last = format!("publish failed, the packages stay pending: {}", failed["error"]);
        assert_eq!(steps[steps.len() - 1], last);
    }
    fs::remove_file(farm.path("refuse")).unwrap();
    farm.once().assert_success().event("build + publish complete");
    let logs = logs_of(&farm, "tool");
    assert_eq!(logs.len(), 3);
    let log = read(&logs[2]);
    assert_eq!(steps(&log)[1..], ["peipkg-repo publish", "done"], "{log}");
}

#[test]
fn old_logs_are_removed() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::failing("bad", &repo.file_url())).build();
    let directory = farm.path("state/logs/bad");
    fs::create_dir_all(&directory).unwrap();
    let name = |day: usize| format!("202001{day:02}T000000.000Z_0.{day}-1_1.log");
    let count = KEPT + 1;
    for day in 1..=count {
        fs::write(directory.join(name(day)), "").unwrap();
    }
    fs::write(directory.join("notes"), "").unwrap();
    for number in 0..GONE + 5 {
        let gone = farm.path(&format!("state/logs/gone{number:02}"));
        fs::create_dir(&gone).unwrap();
        fs::write(gone.join(name(1)), "").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
        File::open(gone).unwrap().set_modified(time).unwrap();
    }
    let failed = farm.once().event("build failed");
    let mut expected: Vec<PathBuf> = (3..=count).map(|day| directory.join(name(day))).collect();
    expected.push(PathBuf::from(&failed["log"]));
    assert_eq!(expected.len(), KEPT);
    expected.push(directory.join("notes"));
    assert_eq!(logs_of(&farm, "bad"), expected);
    // Of the removed recipes, the ones built last keep their logs.
    let left: HashSet<PathBuf> = logs_of(&farm, "").into_iter().collect();
    let gone = (5..GONE + 5).map(|number| farm.path(&format!("state/logs/gone{number:02}")));
    assert_eq!(left, gone.chain([directory]).collect());
}

#[test]
fn log_of_a_failure_outlives_those_of_many_successes() {
    // More versions than logs that are kept: the first build fails, all others succeed.
    const VERSIONS: usize = KEPT + 3;
    let repo = GitRepo::program(&["0.1"]);
    repo.tag_many((2..=VERSIONS).map(|number| format!("v0.{number}")));
    let farm = Farm::builder().build();
    let fails = format!(
        "if mkdir '{}' 2>/dev/null; then echo 'not this one' >&2; exit 1; fi",
        farm.path("met").display()
    );
    farm.add(&Recipe::program("tool", &repo.file_url()).before_build(&fails));
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.events("build + publish complete").len(), VERSIONS - 1, "{output}");
    let failed = output.event("build failed");
    assert_eq!(failed["version"], format!("0.{VERSIONS}-1"));
    assert!(named_by(&failed, &farm, "tool").contains("not this one\n"));
    let logs = logs_of(&farm, "tool");
    assert_eq!(logs.len(), KEPT);
    let is_ok = |path: &&PathBuf| path.display().to_string().ends_with(".ok.log");
    assert_eq!(logs.iter().filter(is_ok).count(), KEPT - 1, "{logs:?}");
}

#[test]
fn status_names_the_log_in_progress_and_those_of_failures() {
    let repo = GitRepo::program(&["1.0"]);
    let latch = Latch::new();
    let script = format!("echo begun\n{}echo 'not today' >&2; exit 1", latch.script());
    let recipe = Recipe::program("bad", &repo.file_url()).build_sh(&script);
    let farm = Farm::builder().http().with(&recipe).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let status = || client::status(addr);
    latch.wait_reached();
    let path = status()["in_flight"]["log"].as_str().expect("a log in flight").to_owned();
    wait_until("the output is in the log before the end", PATIENCE, || {
        read(&path).ends_with("build\nbegun\n")
    });
    assert_eq!(status()["failures"], serde_json::Value::Null);
    latch.open();
    let failed = daemon.wait_event("build failed", PATIENCE);
    assert_eq!(failed["log"], path);
    wait_until("the status has the failure", PATIENCE, || status()["failures"]["bad@1.0-1"]["log"] == path);
    assert!(read(&path).contains("begun\nnot today\n"));
}

#[test]
fn log_directory_unusable_the_farm_works() {
    let repo = GitRepo::program(&["1.0"]);
    let (good, bad) = (Recipe::program("good", &repo.file_url()), Recipe::failing("bad", &repo.file_url()));
    let farm = Farm::builder().with(&good).with(&bad).build();
    farm.run(&["--check"]).assert_success();
    assert!(!farm.state_dir().exists());
    fs::create_dir(farm.state_dir()).unwrap();
    fs::write(farm.path("state/logs"), "").unwrap();
    let check = farm.run(&["--check"]);
    check.assert_success();
    assert!(
        check.stdout.contains("state/logs: warning: cannot write build logs: not a directory\n"),
        "{check}"
    );

    let output = farm.once();
    output.assert_success().assert_only_events();
    farm.assert_published(&["good 1.0-1 noarch"]);
    let warned = output.events("cannot write the build log");
    let mut paths: Vec<&str> = warned.iter().map(|event| event["path"].as_str()).collect();
    paths.sort_unstable();
    let expected = ["bad", "good"].map(|id| farm.path(&format!("state/logs/{id}")).display().to_string());
    assert_eq!(paths, expected, "expected one warning per attempt\n{output}");
    let failed = output.event("build failed");
    assert!(
        failed["error"].contains("this build fails on purpose") && !failed.contains_key("log"),
        "{output}"
    );
    farm.assert_clean();
}

#[test]
fn log_cannot_grow_the_build_succeeds() {
    let repo = GitRepo::program(&["1.0"]);
    let recipe = Recipe::program("tool", &repo.file_url()).before_build("seq 1 50000");
    let farm = Farm::builder().with(&recipe).build();
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path());
    let mut shell = farm.shell(&command, "ulimit -f 64; exec \"$@\"");
    let output = Running::spawn(&mut shell).wait_exit(PATIENCE);
    output.assert_success().assert_only_events();
    farm.assert_published(&["tool 1.0-1 noarch"]);
    let warned = output.event("cannot write the build log");
    assert!(warned["error"].contains(&os_error(Errno::FBIG)), "{output}");
    assert_eq!(logs_of(&farm, "tool"), [PathBuf::from(&warned["path"])]);
    assert!(read(&warned["path"]).contains("\n1\n2\n3\n"));
}

#[test]
fn log_gone_before_the_publish_is_no_fault() {
    let repo = GitRepo::program(&["1.0", "2.0", "3.0"]);
    // Version 3.0 waits at the latch alone, the others for a publish together.
    let latch = Latch::new();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = publish ] || exec {{real}} \"$@\"\n{}\
         ls \"$9\" | grep -q tool_2.0 && echo refused for a test && exit 1\nexec {{real}} \"$@\"\n",
        latch.script()
    );
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .program("peipkg-repo", &script)
        .build();
    let sweep = farm.start(&["--once"]);
    wait_until("all is built", PATIENCE, || latch.is_reached() && farm.kept().len() == 3);
    // While a publish takes long, the logs of more builds than a recipe keeps do the same.
    fs::remove_dir_all(farm.path("state/logs/tool")).unwrap();
    latch.open();
    let output = sweep.wait_exit(PATIENCE);
    output.assert_success().assert_only_events();
    assert!(output.events("cannot write the build log").is_empty(), "{output}");
    output.event("publish of several versions failed, publishing each alone");
    let log = named_by(&output.event("publish failed"), &farm, "tool");
    assert!(log.contains("refused for a test\n"), "{log}");
    farm.assert_published(&["tool 1.0-1 noarch", "tool 3.0-1 noarch"]);
}

#[test]
fn manager_killed_its_log_stays_as_it_was() {
    let repo = GitRepo::program(&["1.0"]);
    let latch = Latch::new();
    let script = format!("echo begun\n{}", latch.script());
    let recipe = Recipe::program("tool", &repo.file_url()).before_build(&script);
    let farm = Farm::builder().with(&recipe).build();
    let sweep = farm.start(&["--once"]);
    latch.wait_reached();
    let first = logs_of(&farm, "tool").remove(0);
    wait_until("the output is in the log", PATIENCE, || read(&first).ends_with("begun\n"));
    let text = read(&first);
    sweep.kill(true);
    latch.open();
    farm.once().assert_success().event("build + publish complete");
    let logs = logs_of(&farm, "tool");
    assert!(logs.len() == 2 && logs[0] == first, "{logs:?}");
    assert!(logs[1].display().to_string().ends_with("_1.0-1_2.ok.log"), "{logs:?}");
    assert_eq!(read(&first), text);
}

#[test]
fn build_interrupted_says_so_in_its_log() {
    let repo = GitRepo::program(&["1.0"]);
    let latch = Latch::new();
    let recipe = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).build();
    let mut daemon = farm.daemon();
    latch.wait_reached();
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(1);
    let log = read(&logs_of(&farm, "tool")[0]);
    assert_eq!(steps(&log).last(), Some(&"interrupted"), "{log}");
}

#[test]
fn password_in_a_url_does_not_reach_the_log() {
    let repo = GitRepo::program(&["1.0"]);
    let url = "https://me:s3cret@example.org/tool.git";
    let script = format!("echo 'cloned {url} with s3cret'; printf s3c; sleep 0; echo ret");
    let farm = Farm::builder().with(&Recipe::program("tool", url).before_build(&script)).build();
    let config = format!("[url \"{}\"]\ninsteadOf = https://example.org/tool.git\n", repo.file_url());
    fs::write(farm.path("gitconfig"), config).unwrap();
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path()).env("GIT_CONFIG_GLOBAL", farm.path("gitconfig"));
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    output.assert_success().event("build + publish complete");
    let log = read(&logs_of(&farm, "tool")[0]);
    assert!(steps(&log)[0].ends_with("tag v1.0 of https://example.org/tool.git"), "{log}");
    assert!(log.contains("cloned https://example.org/tool.git with ***\n***\n"), "{log}");
    assert!(!log.contains("s3cret") && !log.contains("me:"), "{log}");
}
