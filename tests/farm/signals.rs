//! Signals: the drain, the abort, the terminal, and the end of builds that take too long.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::client;
use crate::support::farm::{Farm, published_in};
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::optional::require;
use crate::support::processes::{self, Process};
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::wait::{PATIENCE, wait_until};

/// How long the manager and everything it started may live after a second signal: ten seconds to clean up, and a moment.
const ABORT_LIMIT: Duration = Duration::from_secs(11);

/// A script that ignores SIGTERM, as does the grandchild it starts; neither ever ends by itself.
fn stubborn(latch: &Latch) -> String {
    let grandchild = latch.path("grandchild");
    format!(
        "trap '' TERM INT\n(trap '' TERM INT; : > {}; while :; do sleep 0.05; done) &\n\
         while [ ! -e {} ]; do sleep 0.02; done\n{}",
        grandchild.display(),
        grandchild.display(),
        latch.script()
    )
}

/// A script that leaves the mark `terminated` when it is told to end, and has a grandchild that has no such manners.
fn polite(latch: &Latch) -> String {
    let mark = latch.path("terminated");
    format!("trap ': > {}; exit 1' TERM\nsleep 1000 &\n{}", mark.display(), latch.script())
}

fn farm_with(script: &str, repo: &GitRepo) -> Farm {
    Farm::builder().with(&Recipe::program("slow", &repo.file_url()).before_build(script)).build()
}

/// Fails the test if any of `before` is still there.
#[track_caller]
fn assert_all_gone(before: &[Process]) {
    assert!(before.len() >= 2, "the build was not running: {before:?}");
    let left: Vec<_> = before.iter().filter(|process| processes::is_alive(process.pid)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Starts a build, sends `signal` in the middle of it, lets the build go on, and waits for the end.
#[track_caller]
fn drain(signal: Signal, remote: Option<&Path>) -> (Farm, Output) {
    let (repo, latch) = (GitRepo::program(&["1.0", "1.1"]), Latch::new());
    let mut builder =
        Farm::builder().with(&Recipe::program("slow", &repo.file_url()).before_build(&latch.script()));
    if let Some(remote) = remote {
        builder = builder.rclone(remote);
    }
    let farm = builder.build();
    let mut daemon = farm.daemon();
    latch.wait_reached();
    daemon.signal(signal);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    let before = daemon.descendants();
    latch.open();
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0).assert_only_events();
    assert_all_gone(&before);
    // Of the two versions in the queue, the one in progress is finished and the other is not begun.
    assert_eq!(output.event("starting build")["version"], "1.1-1");
    assert_eq!(output.event("build + publish complete")["version"], "1.1-1");
    assert_eq!(output.all_events().last().expect("events")["msg"], "peipkg-manager stopped");
    farm.assert_published(&["slow 1.1-1 noarch"]);
    farm.assert_verifies();
    farm.assert_clean();
    (farm, output)
}

#[test]
fn sigterm_in_mid_build_lets_the_build_be_published_and_exits_0() {
    drain(Signal::TERM, None);
}

#[test]
fn sigint_in_mid_build_lets_the_build_be_published_and_exits_0() {
    drain(Signal::INT, None);
}

#[test]
fn what_is_built_while_draining_is_uploaded_as_well() {
    if !require("rclone") {
        return;
    }
    let remote = TempDir::with_prefix("remote-").expect("a temporary directory");
    let (_farm, output) = drain(Signal::TERM, Some(remote.path()));
    output.event("upload complete");
    assert_eq!(published_in(remote.path()), ["slow 1.1-1 noarch"]);
}

#[test]
fn an_idle_daemon_stops_at_once() {
    let repo = GitRepo::program(&["1"]);
    for signal in [Signal::TERM, Signal::INT] {
        let farm = Farm::builder().with(&Recipe::program("app", &repo.file_url())).build();
        let mut daemon = farm.daemon();
        daemon.wait_event("build + publish complete", PATIENCE);
        daemon.signal(signal);
        let output = daemon.wait_exit(PATIENCE);
        output.assert_code(0).assert_only_events();
        assert_eq!(output.event("stopping, no build in progress").get("recipe"), None);
    }
}

/// Stops a build that would never end with two signals, and gives what is left of the farm and how long it took.
#[track_caller]
fn abort(script: &str, latch: &Latch, signal: Signal) -> (Farm, Duration) {
    let repo = GitRepo::program(&["1"]);
    let farm = farm_with(script, &repo);
    let mut daemon = farm.daemon();
    latch.wait_reached();
    daemon.signal(signal);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    let before = daemon.descendants();
    let begin = Instant::now();
    daemon.signal(signal);
    let output = daemon.wait_exit(PATIENCE);
    let took = begin.elapsed();
    assert_all_gone(&before);
    output.assert_code(1).assert_only_events();
    assert_eq!(output.event("build interrupted")["recipe"], "slow");
    for message in ["build failed", "build + publish complete"] {
        assert!(
            output.events(message).is_empty(),
            "an interrupted build has neither failed nor succeeded\n{output}"
        );
    }
    farm.assert_published(&[]);
    (farm, took)
}

#[test]
fn a_second_sigterm_ends_the_builds_whole_group() {
    let latch = Latch::new();
    let (_, took) = abort(&polite(&latch), &latch, Signal::TERM);
    assert!(latch.path("terminated").exists(), "the script was not asked to end");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_second_sigint_ends_the_builds_whole_group() {
    let latch = Latch::new();
    let (farm, took) = abort(&polite(&latch), &latch, Signal::INT);
    assert!(took < Duration::from_secs(5), "{took:?}");
    farm.assert_clean();
}

/// The one test that waits out the whole ten seconds. The tests of `src/process` hold the rest with a shorter grace.
#[test]
fn a_build_that_ignores_sigterm_is_killed_with_its_grandchildren() {
    let latch = Latch::new();
    let (_, took) = abort(&stubborn(&latch), &latch, Signal::TERM);
    assert!(took >= Duration::from_secs(9) && took <= ABORT_LIMIT, "{took:?}");
}

#[test]
fn an_interrupted_build_is_built_at_the_next_start() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let farm = farm_with(&latch.script(), &repo);
    let mut daemon = farm.daemon();
    latch.wait_reached();
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(1);
    latch.open();
    farm.once().assert_success();
    farm.assert_published(&["slow 1-1 noarch"]);
    farm.assert_verifies();
    farm.assert_clean();
}

#[test]
fn a_signal_while_polls_hang_does_not_wait_for_them() {
    use crate::support::smart_http::{Fault, SmartHttp};
    let http = SmartHttp::new();
    http.fault("", Fault::Silent);
    let farm = Farm::builder().with(&Recipe::program("app", &http.url("a.git"))).build();
    let mut daemon = farm.daemon();
    wait_until("the upstream is asked", PATIENCE, || !http.requests().is_empty());
    let before = daemon.descendants();
    daemon.signal(Signal::TERM);
    let begin = Instant::now();
    daemon.wait_exit(PATIENCE).assert_code(0).assert_only_events();
    assert!(begin.elapsed() < ABORT_LIMIT, "{:?}", begin.elapsed());
    assert!(before.iter().all(|process| !processes::is_alive(process.pid)), "{before:?}");
}

/// Runs a command in a terminal of its own, presses Ctrl-C as soon as a file is there, and passes the terminal's output on
/// to standard error and the exit code to the caller.
const IN_A_TERMINAL: &str = r"
import os, pty, select, sys
mark, argv = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(argv[0], argv)
pressed = False
while True:
    ready, _, _ = select.select([terminal], [], [], 0.02)
    if ready:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        os.write(2, data.replace(b'\r\n', b'\n').replace(b'^C', b''))
    if not pressed and os.path.exists(mark):
        os.write(terminal, b'\x03')
        pressed = True
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn ctrl_c_in_a_terminal_does_not_reach_the_build() {
    if !require("python3") {
        return;
    }
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let mark = latch.path("terminated");
    let script = format!("trap ': > {}; exit 1' INT TERM HUP\n{}", mark.display(), latch.script());
    let farm = farm_with(&script, &repo);
    let manager = farm.command(&[]);
    let mut command = Command::new("python3");
    command.args(["-c", IN_A_TERMINAL]).arg(latch.path("reached"));
    command.arg(manager.get_program()).arg("--config").arg(farm.config_path());
    for (name, value) in manager.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut terminal = Running::spawn(command.current_dir(farm.home()));
    terminal.wait_event("stopping after the build in progress", PATIENCE);
    let before = terminal.descendants();
    latch.open();
    let output = terminal.wait_exit(PATIENCE);
    output.assert_code(0);
    output.event("build + publish complete");
    assert!(!mark.exists(), "the terminal's interrupt has reached the build\n{output}");
    assert_all_gone(&before);
    farm.assert_published(&["slow 1-1 noarch"]);
}

#[test]
fn sigpipe_and_a_closed_standard_error_do_not_matter() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let recipe = Recipe::program("slow", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).http().build();
    // The reader of the log goes when it has seen one line; whatever the manager writes after that meets a broken pipe.
    let code: PathBuf = farm.path("code");
    let mut command = farm.command(&[]);
    let manager = command.get_program().to_owned();
    let envs: Vec<_> = command.get_envs().map(|(n, v)| (n.to_owned(), v.map(ToOwned::to_owned))).collect();
    command = Command::new("sh");
    let line = r#"{ "$0" --config "$1"; echo $? > "$2"; } 2>&1 | grep --line-buffered -m 1 -F "webhook server listening" >&2; wait"#;
    command.args(["-c", line]).arg(manager).arg(farm.config_path()).arg(&code).current_dir(farm.home());
    for (name, value) in envs {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut shell = Running::spawn(&mut command);
    let addr = shell.http_addr();
    latch.wait_reached();
    wait_until("the reader is gone", PATIENCE, || shell.descendants().iter().all(|p| p.name != "grep"));
    let is_manager = |process: &Process| process.name == "peipkg-manager";
    let pid = shell.descendants().into_iter().find(is_manager).expect("the manager runs").pid;
    let send = |signal| {
        let pid = rustix::process::Pid::from_raw(pid).expect("a process number");
        rustix::process::kill_process(pid, signal).expect("the manager lives");
    };
    send(Signal::PIPE);
    latch.open();
    wait_until("the build is published", PATIENCE, || client::status(addr)["builds_succeeded"] == 1);
    send(Signal::TERM);
    shell.wait_exit(PATIENCE);
    assert_eq!(std::fs::read_to_string(code).expect("the exit code").trim(), "0");
    farm.assert_published(&["slow 1-1 noarch"]);
}

/// Runs a build that exceeds its two seconds, and gives the time from its start to its failure.
#[track_caller]
fn time_out(script: &str, latch: &Latch) -> Duration {
    let repo = GitRepo::program(&["1"]);
    let recipe = Recipe::program("slow", &repo.file_url()).before_build(script);
    let farm = Farm::builder().with(&recipe).http().config_extra("[build]\ntimeout = \"2s\"").build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    let (begin, before) = (Instant::now(), daemon.descendants());
    let failed = daemon.wait_event("build failed", PATIENCE);
    let took = begin.elapsed();
    assert_all_gone(&before);
    assert_eq!((failed["recipe"].as_str(), failed["failures"].as_str()), ("slow", "1"));
    assert_eq!(failed["next_retry_after"], "1m0s");
    assert!(failed["error"].contains("was still running after 2s"), "{failed:?}");
    let failure = &client::status(addr)["failures"]["slow@1-1"];
    assert_eq!((&failure["failures"], &failure["stage"]), (&1.into(), &"build".into()));
    assert_eq!(failure["last_error"], failed["error"].as_str());
    farm.assert_clean();
    took
}

#[test]
fn a_build_that_takes_too_long_is_ended_with_its_group_and_has_failed() {
    let latch = Latch::new();
    let took = time_out(&polite(&latch), &latch);
    assert!(latch.path("terminated").exists(), "the script was not asked to end");
    assert!(took < Duration::from_secs(8), "{took:?}");
}
