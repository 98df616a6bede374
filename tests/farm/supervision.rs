//! Supervision: what a build leaves running, the manager as process 1 of a container, and the signal
//! state that its parent hands down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::optional::not_permitted;
use crate::support::processes;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, poll, wait_until};

/// A script that leaves a daemon: in a session of its own, without the build's environment and
/// output, its parent gone, and deaf to SIGTERM. The daemon writes its number to `file`, and ends
/// after some minutes.
fn daemon(file: &Path) -> String {
    let file = file.display();
    format!(
        "setsid env -i sh -c 'trap \"\" TERM HUP INT; echo $$ >{file}.new; mv {file}.new {file}
         for n in 1 2 3; do /bin/sleep 60; done' </dev/null >/dev/null 2>&1 &
         while [ ! -e {file} ]; do sleep 0.02; done\n"
    )
}

#[track_caller]
fn number_in(file: &Path) -> i32 {
    fs::read_to_string(file).expect("a process number").trim().parse().expect("a process number")
}

#[track_caller]
fn wait_gone(file: &Path) {
    let pid = number_in(file);
    wait_until("the daemon is gone", PATIENCE, || !processes::is_alive(pid));
}

#[track_caller]
fn build_log(farm: &Farm, recipe: &str) -> String {
    let directory = farm.path("state/logs").join(recipe);
    let logs: Vec<PathBuf> = fs::read_dir(directory).expect("logs").flatten().map(|log| log.path()).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    fs::read_to_string(&logs[0]).expect("a log")
}

#[test]
fn build_leaves_a_daemon_it_ends_with_the_build_and_is_named_in_the_log() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let (file, other) = (latch.path("daemon"), latch.path("other"));
    let farm =
        Farm::builder().with(&Recipe::program("app", &repo.file_url()).before_build(&daemon(&file))).build();
    // At the same time, a build of another farm has a daemon too, and keeps it.
    let script = daemon(&other) + &latch.script();
    let slow = Farm::builder().with(&Recipe::program("app", &repo.file_url()).before_build(&script)).build();
    let mut running = slow.start(&["--once"]);
    latch.wait_reached();
    farm.once().assert_success().assert_only_events();
    wait_gone(&file);
    farm.assert_published(&["app 1-1 noarch"]);
    let log = build_log(&farm, "app");
    let expected = format!("the build left sh running, killed process {}\n", number_in(&file));
    assert!(log.contains(&expected), "{log}");
    assert!(processes::is_alive(number_in(&other)) && !running.has_ended(), "{running}");
    latch.open();
    running.wait_exit(PATIENCE).assert_success();
    wait_gone(&other);
}

#[test]
fn build_fails_its_daemon_ends_and_the_cause_is_told() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let file = latch.path("daemon");
    let script = daemon(&file) + "echo 'no such header' >&2\nexit 3\n";
    let farm = Farm::builder().with(&Recipe::program("app", &repo.file_url()).build_sh(&script)).build();
    let output = farm.once();
    let error = &output.event("build failed")["error"];
    assert!(error.ends_with("before that: no such header"), "{error}");
    // The error names the script that the operator can read, not the copy that the build used.
    let own = farm.recipes_dir().join("app/build.sh");
    assert!(error.contains(&format!("build script {} failed", own.display())), "{error}");
    wait_gone(&file);
    farm.assert_clean();
}

#[test]
fn build_takes_too_long_its_daemon_ends_too() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let file = latch.path("daemon");
    let recipe = Recipe::program("app", &repo.file_url()).before_build(&(daemon(&file) + &latch.script()));
    let farm = Farm::builder().with(&recipe).config_extra("[build]\ntimeout = \"10s\"").build();
    let output = farm.once();
    assert!(output.event("build failed")["error"].contains("was still running after 10s"), "{output}");
    wait_gone(&file);
    farm.assert_clean();
}

#[test]
fn signal_state_of_the_parent_is_reset_for_manager_and_builds() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let state = latch.path("state");
    let script =
        format!("grep -E '^Sig(Blk|Ign)' /proc/self/status >{}\n{}", state.display(), latch.script());
    let farm = Farm::builder().with(&Recipe::program("app", &repo.file_url()).before_build(&script)).build();
    let mut manager = farm.command(&["--config"]);
    manager.arg(farm.config_path());
    // A fault of the process is delivered although it is ignored.
    let line = r#"exec env --ignore-signal --default-signal=ILL,FPE,SEGV --block-signal "$@""#;
    let mut running = Running::spawn(&mut farm.shell(&manager, line));
    latch.wait_reached();
    running.signal(Signal::TERM);
    running.wait_event("stopping after the build in progress", PATIENCE);
    latch.open();
    running.wait_exit(PATIENCE).assert_success().assert_only_events();
    farm.assert_published(&["app 1-1 noarch"]);
    let state = fs::read_to_string(state).expect("the state of signals");
    let sets = state.split_whitespace().filter_map(|word| u64::from_str_radix(word, 16).ok());
    // The C library keeps signals 32 and 33 to itself.
    let sets: Vec<u64> = sets.map(|set| set & !(0b11 << 31)).collect();
    assert_eq!(sets, [0, 0], "{state}");
}

/// Starts the manager of `farm` as process 1, by `unshare`. `None` if this process may not do that:
/// skip the calling test.
#[track_caller]
fn process_1(farm: &Farm, arguments: &[&str]) -> Option<Running> {
    let namespaces = ["-r", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let permitted = Command::new("unshare").args(namespaces).arg("true").output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        not_permitted("process and user namespaces");
        return None;
    }
    let manager = farm.command(arguments);
    let mut command = Command::new("unshare");
    command.args(namespaces).arg(manager.get_program()).args(manager.get_args());
    command.arg("--config").arg(farm.config_path()).current_dir(farm.home());
    for (name, value) in manager.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Some(Running::spawn(&mut command))
}

#[track_caller]
fn signal_process_1(running: &Running, signal: Signal) {
    let is_child = |process: &processes::Process| process.parent == running.pid();
    let process_1 = running.descendants().into_iter().find(is_child).expect("process 1");
    kill_process(Pid::from_raw(process_1.pid).expect("a process number"), signal).expect("process 1 lives");
}

#[test]
fn process_1_reaps_what_its_children_leave() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    // Both leave processes that outlive them and end soon.
    let script = latch.script() + "(setsid sleep 0.1 &)\n";
    let git = "#!/bin/sh\n(setsid sleep 0.1 >/dev/null 2>&1 &)\nexec {real} \"$@\"\n";
    let recipe = Recipe::program("app", &repo.file_url()).before_build(&script);
    let farm = Farm::builder().with(&recipe).program("git", git).build();
    let Some(mut running) = process_1(&farm, &[]) else { return };
    latch.wait_reached();
    signal_process_1(&running, Signal::HUP);
    running.wait_events("recipe roster loaded", 2, PATIENCE);
    latch.open();
    running.wait_event("build + publish complete", PATIENCE);
    let zombies = || running.descendants().into_iter().filter(|process| process.state == 'Z').count();
    let sleeps = || running.descendants().into_iter().any(|process| process.name == "sleep");
    wait_until("the processes have ended", PATIENCE, || !sleeps() || zombies() > 0);
    assert!(poll(PATIENCE, || (zombies() == 0).then_some(())).is_some(), "{:?}", running.descendants());
    signal_process_1(&running, Signal::TERM);
    let output = running.wait_exit(PATIENCE);
    output.assert_success().assert_only_events().event("stopping, no build in progress");
    farm.assert_published(&["app 1-1 noarch"]);
}

#[test]
fn process_1_passes_on_exit_code_and_second_signal() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let recipe = Recipe::program("app", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).build();
    let Some(mut running) = process_1(&farm, &[]) else { return };
    latch.wait_reached();
    signal_process_1(&running, Signal::TERM);
    running.wait_event("stopping after the build in progress", PATIENCE);
    signal_process_1(&running, Signal::TERM);
    let output = running.wait_exit(PATIENCE);
    output.assert_code(1).event("build interrupted");
    let output = process_1(&farm, &["--no-such-flag"]).expect("it was permitted").wait_exit(PATIENCE);
    output.assert_code(2).assert_one_line(&["--no-such-flag"]);
}
