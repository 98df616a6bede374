//! What surrounds the manager: its environment, its standard streams, its signals. It takes from them what it says it does,
//! and passes on to its children what is theirs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::processes;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::{PATIENCE, wait_until};

/// A stand-in that notes its environment and whether its standard input is at its end, and then is the real program.
const WITNESS: &str = "#!/bin/sh
name=${0##*/}
env >\"$HOME/env-$name\"
cat >\"$HOME/stdin-$name\"
exec {real} \"$@\"
";

const TOOLS: [&str; 3] = ["git", "peipkg-build", "peipkg-repo"];

/// A farm with one recipe that is built once, and witnesses for all tools.
fn witnessed(repo: &GitRepo) -> Farm {
    let mut builder = Farm::builder().with(&Recipe::program("tool", &repo.file_url()));
    for name in TOOLS {
        builder = builder.program(name, WITNESS);
    }
    builder.build()
}

#[test]
fn the_managers_environment_is_not_its_configuration() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = witnessed(&repo);
    let config = farm.config_path();
    let mut command = farm.command(&["--once", "--config", config.to_str().unwrap()]);
    let to_the_manager = [
        ("NOTIFY_SOCKET", "/run/notify"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_FDNAMES", "http"),
        ("LISTEN_PID", "1"),
        ("WATCHDOG_USEC", "1000"),
        ("WATCHDOG_PID", "1"),
    ];
    let to_anybody = [
        ("RUST_LOG", "peipkg_manager=off"),
        ("RUST_LOG_STYLE", "always"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
        ("TMPDIR", farm.home().to_str().unwrap()),
    ];
    command.envs(to_the_manager).envs(to_anybody);
    // git would obey these; they are those of a checkout that the manager may be started in.
    command.envs([
        ("GIT_DIR", "/nowhere"),
        ("GIT_WORK_TREE", "/nowhere"),
        ("GIT_INDEX_FILE", "/nowhere/index"),
    ]);
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    output.assert_success().assert_only_events().event("build + publish complete");
    assert!(output.all_events().iter().all(|event| event["level"] == "info"), "{output}");
    assert!(!output.stderr.contains('\u{1b}'), "{output}");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    for name in TOOLS {
        let seen = fs::read_to_string(farm.path(&format!("env-{name}"))).unwrap();
        let has = |variable: &str| seen.lines().any(|line| line.starts_with(&format!("{variable}=")));
        for (variable, _) in to_the_manager {
            assert!(!has(variable), "{name} has {variable}");
        }
        for (variable, _) in to_anybody {
            assert!(has(variable), "{name} lacks {variable}");
        }
    }
}

/// What of `path` and below it not everybody may read or, in the case of directories, enter.
fn unreadable_in(path: &Path) -> Vec<PathBuf> {
    let metadata = fs::symlink_metadata(path).unwrap();
    let wanted = if metadata.is_dir() { 0o555 } else { 0o444 };
    let mut found = Vec::new();
    if metadata.permissions().mode() & wanted != wanted {
        found.push(path.to_owned());
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            found.extend(unreadable_in(&entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn whatever_the_umask_the_repository_is_for_everybody_and_the_rest_is_not() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    for umask in ["077", "022"] {
        let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
        let mut command = farm.command(&["--once", "--config"]);
        command.arg(farm.config_path());
        let mut shell = farm.shell(&command, &format!("umask {umask}; exec \"$@\""));
        let output = Running::spawn(&mut shell).wait_exit(PATIENCE);
        output.assert_success().assert_only_events();
        farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
        assert_eq!(unreadable_in(&farm.repo_dir()), Vec::<PathBuf>::new(), "{umask}");
        for name in ["sources", "stage", "publish", "logs"] {
            let mode = fs::metadata(farm.state_dir().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name} with {umask}");
        }
    }
}

#[test]
fn no_child_waits_for_input() {
    let repo = GitRepo::program(&["1.0"]);
    // With its standard input closed altogether, or open and silent for ever.
    for script in ["exec \"$@\" <&-", "mkfifo pipe && exec 3<>pipe && exec \"$@\" <&3"] {
        let farm = witnessed(&repo);
        let config = farm.config_path();
        let manager = farm.command(&["--once", "--config", config.to_str().unwrap()]);
        let mut command = farm.shell(&manager, script);
        let output = Running::spawn(&mut command).wait_exit(PATIENCE);
        output.assert_success().event("build + publish complete");
        for name in TOOLS {
            assert_eq!(fs::read_to_string(farm.path(&format!("stdin-{name}"))).unwrap(), "");
        }
    }
}

#[test]
fn git_asks_nobody_for_a_password() {
    let http = SmartHttp::new();
    let url = http.serve("private.git", &GitRepo::program(&["1.0"]));
    http.require_auth("user", "password");
    let farm = Farm::builder()
        .with(&Recipe::program("private", &url))
        .program("ask", "#!/bin/sh\necho \"$*\" >>\"$HOME/asked\"\necho password\n")
        .build();
    let config = farm.config_path();
    let mut command = farm.command(&["--once", "--config", config.to_str().unwrap()]);
    let ask = farm.bin_dir().join("ask");
    command.env_remove("GIT_TERMINAL_PROMPT").env("GIT_ASKPASS", &ask).env("SSH_ASKPASS", &ask);
    let output = Running::spawn(&mut command).wait_exit(Duration::from_secs(20));
    output.assert_success().assert_only_events();
    let failed = output.event("poll failed");
    assert!(failed["error"].contains("could not read Username"), "{output}");
    assert!(!farm.path("asked").exists(), "somebody was asked");
}

#[test]
fn a_signal_during_a_sweep_lets_the_build_be_published_and_starts_no_other() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    for signal in [Signal::TERM, Signal::INT] {
        let farm = Farm::builder().build();
        farm.add(&Recipe::program("tool", &repo.file_url()).before_build(&farm.gate()));
        let mut running = farm.start(&["--once"]);
        farm.wait_at_gate();
        running.signal(signal);
        running.wait_event("stopping after the build in progress", PATIENCE);
        farm.open_gate();
        let output = running.wait_exit(PATIENCE);
        output.assert_success().assert_only_events().event("peipkg-manager stopped");
        assert_eq!(output.event("starting build")["version"], "1.1-1");
        farm.assert_published(&["tool 1.1-1 noarch"]);
        farm.assert_clean();
        farm.assert_verifies();
    }
}

#[test]
fn a_signal_to_the_terminals_group_does_not_reach_the_build() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().build();
    farm.add(&Recipe::program("tool", &repo.file_url()).before_build(&farm.gate()));
    let mut running = farm.start(&["--once"]);
    farm.wait_at_gate();
    // As the terminal does it at a Ctrl-C: to everybody in the foreground group.
    let group = rustix::process::Pid::from_raw(running.pid()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    running.wait_event("stopping after the build in progress", PATIENCE);
    farm.open_gate();
    running.wait_exit(PATIENCE).assert_success().event("build + publish complete");
    farm.assert_published(&["tool 1.0-1 noarch"]);
}

/// The processes that a build script has noted in the file `pids`, one a line; as many as `count`.
#[track_caller]
fn noted_pids(farm: &Farm, count: usize) -> Vec<i32> {
    let file = farm.path("pids");
    let read = || -> Vec<i32> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).collect()
    };
    wait_until("the build has started its processes", PATIENCE, || read().len() == count);
    read()
}

/// Starts a sweep over two versions whose build is `script`, sends two signals, and holds the end to its promises.
#[track_caller]
fn abort(script: &str, processes: usize, limit: Duration) {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let farm = Farm::builder().build();
    let script = format!("cd '{}'\n{script}", farm.home().display());
    farm.add(&Recipe::program("tool", &repo.file_url()).build_sh(&script));
    let mut running = farm.start(&["--once"]);
    let pids = noted_pids(&farm, processes);
    running.signal(Signal::TERM);
    running.wait_event("stopping after the build in progress", PATIENCE);
    running.signal(Signal::TERM);
    let output = running.wait_exit(limit);
    output.assert_code(1).assert_only_events().event("peipkg-manager stopped");
    assert_eq!(output.event("build interrupted")["version"], "1.1-1");
    for text in ["build failed", "publish failed", "build + publish complete"] {
        assert!(output.events(text).is_empty(), "{output}");
    }
    assert_eq!(output.events("starting build").len(), 1, "{output}");
    wait_until("the whole group has ended", PATIENCE, || !pids.iter().any(|pid| processes::is_alive(*pid)));
    assert!(farm.published().is_empty());
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn a_second_signal_ends_the_build_and_everything_it_has_started() {
    abort("sh -c 'echo $$ >>pids; sleep 600' & echo $$ >>pids\nwait", 2, Duration::from_secs(8));
}

#[test]
fn a_listing_in_progress_does_not_delay_the_end() {
    let http = SmartHttp::new();
    let url = http.serve("silent.git", &GitRepo::program(&["1.0"]));
    http.fault("", crate::support::smart_http::Fault::Silent);
    let farm = Farm::builder().with(&Recipe::program("silent", &url)).build();
    let mut running = farm.start(&["--once"]);
    wait_until("the upstream is asked", PATIENCE, || !http.requests().is_empty());
    running.signal(Signal::TERM);
    let output = running.wait_exit(Duration::from_secs(8));
    output.assert_success().assert_only_events().event("peipkg-manager stopped");
    assert!(output.events("poll failed").is_empty(), "{output}");
}
