//! Runs real children of every kind.

use std::cell::RefCell;
use std::io::Write as _;
use std::rc::Rc;
use std::time::Instant;

use super::*;
use crate::process::running::GRACE;

fn sh(script: &str) -> Program {
    Program::new(Path::new("/bin/sh")).arg("-c").arg(script)
}

/// A sink that adds to a file.
#[derive(Debug, Clone)]
struct Log(Rc<File>);

impl Sink for Log {
    fn begin(&self, program: &str) {
        writeln!(&*self.0, "== {program}").unwrap();
    }

    fn output(&self, bytes: &[u8]) {
        (&*self.0).write_all(bytes).unwrap();
    }
}

#[track_caller]
fn error(program: Program) -> String {
    program.run(&Interrupt::new().unwrap()).unwrap_err().to_string()
}

#[test]
fn captured_output_is_returned_up_to_its_limit() {
    let interrupt = Interrupt::new().unwrap();
    let output = sh("printf abc; echo noise >&2").capture_stdout(3).run(&interrupt).unwrap();
    assert_eq!(output.stdout, b"abc");
    let flood = sh("while :; do echo yyyyyyyyyyyyyyyyyyyyyy; done").capture_stdout(100_000);
    assert_eq!(error(flood), "sh wrote more than 100000 bytes to its standard output");
}

#[test]
fn output_not_captured_reaches_the_log_as_it_comes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = Log(Rc::new(file.reopen().unwrap()));
    let path = file.path().display();
    let interrupt = Interrupt::new().unwrap();
    // The child finds its own line in the log, so the log does not wait for the child's end.
    let script = format!("echo one; until grep -q one '{path}'; do :; done; echo two >&2");
    sh(&script).log_to(&log).deadline(Some(GRACE)).run(&interrupt).unwrap();
    sh("echo three; echo four >&2").log_to(&log).capture_stdout(10).run(&interrupt).unwrap();
    sh("echo five").run(&interrupt).unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(text, "== sh\none\ntwo\n== sh\nfour\n");
}

#[test]
fn memory_of_the_group_above_the_limit_ends_it() {
    let limit = |mib: u64| Some(Limit { bytes: mib << 20, key: Some("[x] limit") });
    // Each process stays below the limit. The last `:` keeps a shell from becoming `sleep`, which would
    // release its memory.
    let group = "text=$(head -c 12000000 /dev/zero | tr '\\0' x); sleep 60; :";
    let group = format!("for number in 1 2 3 4; do ({group}) & done; wait");
    let begun = Instant::now();
    assert_eq!(
        error(sh(&group).memory_limit(limit(45)).grace(Duration::ZERO)),
        "sh needs more memory than [x] limit = 45MiB allows: (no output)"
    );
    sh(&group.replace("60", "1")).memory_limit(limit(400)).run(&Interrupt::new().unwrap()).unwrap();
    let one = "dd bs=99M count=1 if=/dev/zero of=/dev/null || { echo 'dd: out of memory' >&2; exit 1; }";
    sh(one).memory_limit(limit(400)).run(&Interrupt::new().unwrap()).unwrap();
    let failure = error(sh(one).memory_limit(limit(45)));
    assert!(failure.starts_with("sh needs more memory than [x] limit = 45MiB allows: "), "{failure}");
    assert!(begun.elapsed() < GRACE * 4);
}

#[test]
fn disk_use_above_the_limit_ends_it() {
    let home = tempfile::tempdir().unwrap();
    let limit = Limit { bytes: 1 << 20, key: None };
    let disk = |before| Some(DiskLimit { directories: vec![home.path().to_owned()], before, limit });
    let expected = "sh writes more to disk than its fixed limit of 1MiB allows";
    let writing = |script: &str| sh(script).directory(home.path());
    // One large file; many small ones; and what is there already does not count.
    assert_eq!(error(writing("exec head -c 9000000 /dev/zero >large").disk_limit(disk(0))), expected);
    std::fs::remove_file(home.path().join("large")).unwrap();
    let many = "seq 300 | xargs touch";
    assert_eq!(error(writing(many).disk_limit(disk(0))), expected);
    let endless = "number=0; while :; do number=$((number + 1)); : >file$number; done";
    assert_eq!(error(writing(endless).disk_limit(disk(2 << 20)).grace(Duration::ZERO)), expected);
    let before = limits::disk_usage(&[home.path().to_owned()], u64::MAX);
    writing("echo text >more").disk_limit(disk(before)).run(&Interrupt::new().unwrap()).unwrap();
}

#[test]
fn failure_names_status_and_last_line() {
    assert_eq!(error(sh("echo one; echo two >&2; echo >&2; exit 3")), "sh exited with status 3: two");
    assert_eq!(error(sh("kill -9 $$")), "sh was ended by signal 9: (no output)");
    let missing = error(Program::new(Path::new("/nonexistent/tool")).arg("build"));
    assert!(missing.starts_with("cannot start tool build: "), "{missing}");
    let noisy = sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last >&2; exit 1");
    assert_eq!(error(noisy), "sh exited with status 1: last");
}

#[test]
fn failure_with_several_lines_names_its_cause() {
    let script = "echo 'make: no rule' >&2; echo >&2; echo 'peipkg-build: script failed: 2' >&2; exit 1";
    let expected = "sh exited with status 1: peipkg-build: script failed: 2; before that: make: no rule";
    assert_eq!(error(sh(script)), expected);
    // An earlier line of git's is not the cause.
    let script = format!("echo 'fatal: not a git repository' >&2; {script}");
    assert_eq!(error(sh(&script)), expected);
    assert_eq!(error(sh("echo 'peipkg-repo: no' >&2; exit 1")), "sh exited with status 1: peipkg-repo: no");
    let script = "echo Cloning; echo 'fatal: no such host' >&2; echo 'fatal: aborting' >&2; exit 1";
    assert_eq!(error(sh(script)), "sh exited with status 1: fatal: no such host; then: fatal: aborting");
}

#[test]
fn line_in_an_error_is_cut_after_its_secrets_are_hidden() {
    let secrets = || Secrets::of_url(Some("me:sesame-sesame"), "");
    for place in [0, 90, 95, 100, 110, 115, 190, 500] {
        let script = format!("printf '%{place}ssesame-sesame%500s' . the-cause >&2; exit 1");
        let text = error(sh(&script).hide(secrets()));
        assert!(!text.contains("sesam") && !text.contains("esame"), "{place}: {text}");
        assert!(text.ends_with("the-cause") && text.chars().count() < 250, "{place}: {text}");
    }
}

#[test]
fn deadline_passed_ends_the_whole_group() {
    let limit = Some(Duration::from_secs(4));
    let started = Instant::now();
    let text = error(sh("sleep 100 & echo waiting; wait").deadline(limit));
    assert_eq!(text, "sh was still running after 4s: waiting");
    let text = error(sh("trap 'echo clean; exit 0' TERM; sleep 100 & wait").deadline(limit));
    assert_eq!(text, "sh was still running after 4s: clean");
    assert!(started.elapsed() < GRACE * 2, "the grandchild got no SIGTERM and kept the pipe open");
}

/// A sink that triggers an interrupt when it sees the second process of [`STUBBORN`].
#[derive(Debug, Clone)]
struct Trigger(Interrupt, Rc<RefCell<String>>);

impl Sink for Trigger {
    fn begin(&self, _: &str) {}

    fn output(&self, bytes: &[u8]) {
        let mut text = self.1.borrow_mut();
        text.push_str(str::from_utf8(bytes).unwrap());
        if text.lines().count() == 2 {
            self.0.trigger();
        }
    }
}

/// Two shells and their children, all of which ignore SIGTERM. Each shell writes its number.
const STUBBORN: &str =
    "trap '' TERM; sh -c 'echo $$; while :; do sleep 0.1; done' & echo $$; while :; do sleep 0.1; done";

/// Runs [`STUBBORN`] to its end by `deadline` or by an interrupt, and expects that its whole group
/// is killed.
#[track_caller]
fn check_stubborn(deadline: Option<Duration>, expected: &str) {
    let grace = Duration::from_millis(300);
    let interrupt = Interrupt::new().unwrap();
    // With a deadline, the sink triggers a switch that no child watches.
    let triggered = if deadline.is_some() { Interrupt::new().unwrap() } else { interrupt.clone() };
    let sink = Trigger(triggered, Rc::default());
    let started = Instant::now();
    let program = sh(STUBBORN).log_to(&sink).deadline(deadline).grace(grace);
    let text = program.run(&interrupt).unwrap_err().to_string();
    let took = started.elapsed();
    assert!(text.starts_with(expected), "{text}");
    let deadline = deadline.unwrap_or_default();
    assert!(took >= deadline + grace && took < deadline + GRACE, "{took:?}");
    let pids: Vec<i32> = sink.1.borrow().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    pids.into_iter().for_each(wait_gone);
}

#[test]
fn group_ignores_sigterm_is_killed_after_the_grace() {
    check_stubborn(None, "sh was interrupted");
    check_stubborn(Some(Duration::from_secs(4)), "sh was still running after 4s: ");
}

#[track_caller]
fn wait_gone(pid: i32) {
    let deadline = Instant::now() + GRACE;
    loop {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The process is gone, or a zombie that init has not yet reaped.
        if state.is_empty() || state.contains(") Z ") {
            break;
        }
        assert!(Instant::now() < deadline, "still running: {state}");
        std::thread::yield_now();
    }
}

#[test]
fn descendants_of_a_child_end_with_it() {
    let interrupt = Interrupt::new().unwrap();
    let started = Instant::now();
    let output = sh("sleep 100 & echo $!").capture_stdout(100).run(&interrupt).unwrap();
    assert!(started.elapsed() < GRACE);
    wait_gone(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap());
}

#[test]
fn interrupt_ends_running_and_later_children() {
    let interrupt = Interrupt::new().unwrap();
    let other = interrupt.clone();
    let thread = std::thread::spawn(move || sh("sleep 100").run(&other).unwrap_err().to_string());
    interrupt.trigger();
    assert_eq!(thread.join().unwrap(), "sh was interrupted");
    assert!(interrupt.is_triggered());
    assert_eq!(sh("exit 0").run(&interrupt).unwrap_err().to_string(), "sh was interrupted");
}

#[test]
fn environment_has_inherited_and_added_variables() {
    let interrupt = Interrupt::new().unwrap();
    let script = "printf '%s %s' \"$ADDED\" \"${PATH:+inherited}\"; cat";
    let output = sh(script).env("ADDED", "yes").capture_stdout(100).run(&interrupt).unwrap();
    assert_eq!(output.stdout, b"yes inherited");
}

#[test]
fn duration_in_an_error_is_rounded() {
    for (nanos, expected) in [
        (0, "0s"),
        (50_400_000, "50ms"),
        (999_999_999, "1s"),
        (1_549_000_000, "1.5s"),
        (59_989_146_701, "1m0s"),
        (119_999_000_000, "2m0s"),
        (3_543_400_000_000, "59m3s"),
    ] {
        let (program, tail) = ("sh".into(), "last".into());
        let error = ProcessError::TimedOut { program, limit: Duration::from_nanos(nanos), tail };
        assert_eq!(error.to_string(), format!("sh was still running after {expected}: last"));
    }
}
