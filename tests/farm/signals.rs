//! Signals: the drain, the abort, the terminal, and the end of builds that take too long.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use peipkg_manager::LISTING_DEADLINE;
use rustix::process::Signal;

use crate::support::client;
use crate::support::farm::{Farm, published_in, remote_directory};
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::optional::require;
use crate::support::processes::{self, Process};
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::smart_http::{Fault, SmartHttp};
use crate::support::wait::{PATIENCE, wait_until};

/// How long the manager and its children may live after a second signal: ten seconds to clean up, and
/// what a busy machine takes, but not ten more.
const ABORT_LIMIT: Duration = Duration::from_secs(19);

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

/// A script that creates the file `terminated` on SIGTERM, and has a grandchild without a handler.
fn polite(latch: &Latch) -> String {
    let mark = latch.path("terminated");
    format!("trap ': > {}; exit 1' TERM\nsleep 1000 &\n{}", mark.display(), latch.script())
}

fn farm_with(script: &str, repo: &GitRepo) -> Farm {
    Farm::builder().with(&slow(script, repo)).build()
}

/// A recipe for each version in `repo`, whose build begins with `script`.
fn slow(script: &str, repo: &GitRepo) -> Recipe {
    Recipe::program("slow", &repo.file_url()).before_build(script)
}

fn two_versions() -> GitRepo {
    GitRepo::program(&["1.0", "1.1"])
}

/// Fails the test if any of `before` is still there.
#[track_caller]
fn assert_all_gone(before: &[Process]) {
    assert!(before.len() >= 2, "the build was not running: {before:?}");
    let left: Vec<_> = before.iter().filter(|process| processes::is_alive(process.pid)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

/// Waits for the build in `running` to reach the latch, sends the first signal, and returns the
/// processes of the build.
#[track_caller]
fn signal_in_mid_build(running: &mut Running, latch: &Latch, signal: Signal) -> Vec<Process> {
    latch.wait_reached();
    running.signal(signal);
    running.wait_event("stopping after the build in progress", PATIENCE);
    running.descendants()
}

/// Sends `signal` in the middle of the first of two builds, lets the build go on, and checks that
/// the manager publishes it, starts no other and exits with `code`.
#[track_caller]
fn drain(arguments: &[&str], signal: Signal, remote: Option<&Path>, code: i32) -> Output {
    let (repo, latch) = (two_versions(), Latch::new());
    let mut builder = Farm::builder().with(&slow(&latch.script(), &repo));
    if let Some(remote) = remote {
        builder = builder.rclone(remote);
    }
    let farm = builder.build();
    let mut running = farm.start(arguments);
    let before = signal_in_mid_build(&mut running, &latch, signal);
    latch.open();
    let output = running.wait_exit(PATIENCE);
    output.assert_code(code).assert_only_events();
    assert_all_gone(&before);
    assert_eq!(output.event("starting build")["version"], "1.1-1");
    assert_eq!(output.event("build + publish complete")["version"], "1.1-1");
    assert_eq!(output.all_events().last().expect("events")["msg"], "peipkg-manager stopped");
    farm.assert_published(&["slow 1.1-1 noarch"]);
    farm.assert_verifies();
    farm.assert_clean();
    output
}

#[test]
fn daemon_sigterm_in_mid_build_publishes_it_and_exits_0() {
    drain(&[], Signal::TERM, None, 0);
}

#[test]
fn daemon_sigint_in_mid_build_publishes_it_and_exits_0() {
    drain(&[], Signal::INT, None, 0);
}

#[test]
fn sweep_sigterm_in_mid_build_with_work_left_exits_1() {
    drain(&["--once"], Signal::TERM, None, 1);
}

#[test]
fn sweep_sigint_in_mid_build_with_work_left_exits_1() {
    drain(&["--once"], Signal::INT, None, 1);
}

#[test]
fn build_finished_while_draining_is_uploaded() {
    let Some((_home, remote)) = remote_directory() else { return };
    let output = drain(&[], Signal::TERM, Some(&remote), 0);
    output.event("upload complete");
    assert_eq!(published_in(&remote), ["slow 1.1-1 noarch"]);
}

#[test]
fn idle_daemon_signal_stops_at_once() {
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

/// Stops the first of two builds, which would never end, with two signals. Returns the time from
/// the second signal to the manager's end, and the upstream and the farm, to go on with.
#[track_caller]
fn abort(arguments: &[&str], script: &str, latch: &Latch, signal: Signal) -> (Duration, GitRepo, Farm) {
    let repo = two_versions();
    let farm = farm_with(script, &repo);
    let mut running = farm.start(arguments);
    let before = signal_in_mid_build(&mut running, latch, signal);
    let begin = Instant::now();
    running.signal(signal);
    let output = running.wait_exit(PATIENCE);
    let took = begin.elapsed();
    assert_all_gone(&before);
    output.assert_code(1).assert_only_events().event("peipkg-manager stopped");
    assert_eq!(output.event("starting build")["version"], "1.1-1");
    let interrupted = output.event("build interrupted");
    assert_eq!((interrupted["recipe"].as_str(), interrupted["version"].as_str()), ("slow", "1.1-1"));
    for message in ["build failed", "publish failed", "build + publish complete"] {
        assert!(
            output.events(message).is_empty(),
            "an interrupted build has neither failed nor succeeded\n{output}"
        );
    }
    farm.assert_published(&[]);
    farm.assert_clean();
    farm.assert_verifies();
    (took, repo, farm)
}

#[test]
fn daemon_second_sigterm_ends_the_builds_whole_group() {
    let latch = Latch::new();
    let (took, ..) = abort(&[], &polite(&latch), &latch, Signal::TERM);
    assert!(latch.path("terminated").exists(), "the script received no SIGTERM");
    assert!(took < Duration::from_secs(9), "{took:?}");
}

#[test]
fn sweep_second_sigint_ends_the_builds_whole_group() {
    let latch = Latch::new();
    let (took, ..) = abort(&["--once"], &polite(&latch), &latch, Signal::INT);
    assert!(latch.path("terminated").exists(), "the script received no SIGTERM");
    assert!(took < Duration::from_secs(9), "{took:?}");
}

/// The one test that waits out the whole ten seconds. The tests of `src/process` hold the rest with a shorter grace.
#[test]
fn build_ignores_sigterm_is_killed_with_its_grandchildren() {
    let latch = Latch::new();
    let (took, ..) = abort(&[], &stubborn(&latch), &latch, Signal::TERM);
    assert!(took >= Duration::from_secs(9) && took <= ABORT_LIMIT, "{took:?}");
}

#[test]
fn interrupted_build_is_built_at_the_next_start() {
    let latch = Latch::new();
    let (_, _repo, farm) = abort(&[], &latch.script(), &latch, Signal::TERM);
    latch.open();
    farm.once().assert_success();
    farm.assert_published(&["slow 1.0-1 noarch", "slow 1.1-1 noarch"]);
    farm.assert_verifies();
    farm.assert_clean();
}

#[test]
fn signal_while_a_listing_hangs_does_not_wait_for_it() {
    for (arguments, code) in [(&[][..], 0), (&["--once"], 1)] {
        let http = SmartHttp::new();
        http.fault("", Fault::Silent);
        let farm = Farm::builder().with(&Recipe::program("app", &http.url("a.git"))).build();
        let mut running = farm.start(arguments);
        wait_until("the upstream is asked", PATIENCE, || !http.requests().is_empty());
        let before = running.descendants();
        running.signal(Signal::TERM);
        let begin = Instant::now();
        let output = running.wait_exit(PATIENCE);
        output.assert_code(code).assert_only_events().event("peipkg-manager stopped");
        // A sweep's first request has a quarter of the deadline.
        assert!(begin.elapsed() < LISTING_DEADLINE / 5, "{:?}", begin.elapsed());
        assert!(output.events("poll failed").is_empty(), "{output}");
        assert!(before.iter().all(|process| !processes::is_alive(process.pid)), "{before:?}");
    }
}

/// Runs a command in its own terminal, presses Ctrl-C once a file exists, and passes on the
/// terminal's output, to standard error, and the exit code.
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
    let mut manager = farm.command(&["--config"]);
    manager.arg(farm.config_path()).env("IN_A_TERMINAL", IN_A_TERMINAL).env("MARK", latch.path("reached"));
    let line = r#"exec python3 -c "$IN_A_TERMINAL" "$MARK" "$@""#;
    let terminal = Running::spawn(&mut farm.shell(&manager, line));
    // On a terminal the log has lines for people.
    wait_until("the manager drains", PATIENCE, || {
        terminal.stderr().contains("stopping after the build in progress")
    });
    let before = terminal.descendants();
    latch.open();
    let output = terminal.wait_exit(PATIENCE);
    output.assert_code(0);
    assert!(output.stderr.contains("build + publish complete"), "{output}");
    assert!(!mark.exists(), "the terminal's interrupt has reached the build\n{output}");
    assert_all_gone(&before);
    farm.assert_published(&["slow 1-1 noarch"]);
}

#[test]
fn stderr_closed_and_sigpipe_do_not_matter() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let farm = Farm::builder().with(&slow(&latch.script(), &repo)).http().build();
    // The reader of the log ends after one line, so the manager's next lines meet a broken pipe.
    let mut manager = farm.command(&["--config"]);
    manager.arg(farm.config_path());
    let line = r#"{ "$@"; echo $? >code; } 2>&1 | grep --line-buffered -m 1 -F "webhook server listening" >&2; wait"#;
    let mut shell = Running::spawn(&mut farm.shell(&manager, line));
    let addr = shell.http_addr();
    latch.wait_reached();
    wait_until("the reader of the log has ended", PATIENCE, || {
        shell.descendants().iter().all(|p| p.name != "grep")
    });
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
    assert_eq!(fs::read_to_string(farm.path("code")).expect("the exit code").trim(), "0");
    farm.assert_published(&["slow 1-1 noarch"]);
}

/// Runs a build that exceeds its limit of ten seconds, and returns the time from its start to its
/// failure.
#[track_caller]
fn time_out(script: &str, latch: &Latch) -> Duration {
    let repo = GitRepo::program(&["1"]);
    let farm =
        Farm::builder().with(&slow(script, &repo)).http().config_extra("[build]\ntimeout = \"10s\"").build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    let (begin, before) = (Instant::now(), daemon.descendants());
    let failed = daemon.wait_event("build failed", PATIENCE);
    let took = begin.elapsed();
    assert_all_gone(&before);
    assert_eq!((failed["recipe"].as_str(), failed["failures"].as_str()), ("slow", "1"));
    assert_eq!(failed["next_retry_after"], "1m0s");
    assert!(failed["error"].contains("was still running after 10s"), "{failed:?}");
    let failure = &client::status(addr)["failures"]["slow@1-1"];
    assert_eq!((&failure["failures"], &failure["stage"]), (&1.into(), &"build".into()));
    assert_eq!(failure["last_error"], failed["error"].as_str());
    farm.assert_clean();
    took
}

#[test]
fn build_takes_too_long_is_ended_with_its_group_and_has_failed() {
    let latch = Latch::new();
    let took = time_out(&polite(&latch), &latch);
    assert!(latch.path("terminated").exists(), "the script received no SIGTERM");
    // The limit, without the ten seconds for a script that ignores SIGTERM.
    assert!(took < Duration::from_secs(18), "{took:?}");
}
