//! The second stop signal: it is counted even right after the first one, and ends the manager and its
//! children even if no other thread answers.

use std::fs::File;
use std::io::{PipeReader, Write as _, pipe};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::processes::{self, status_field};
use crate::support::recipes::Recipe;
use crate::support::wait::{self, PATIENCE, wait_until};

/// Fills a pipe that nobody reads, so that the next writer blocks.
fn fill(mut pipe: &File) {
    let flags = fcntl_getfl(pipe).unwrap();
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).unwrap();
    while pipe.write(b"x").is_ok() {}
    fcntl_setfl(pipe, flags).unwrap();
}

/// A manager whose log nobody reads.
struct Mute {
    child: Child,
    log: File,
    _reader: PipeReader,
}

impl Mute {
    fn start(farm: &Farm) -> Self {
        let (reader, writer) = pipe().unwrap();
        let log = File::from(std::os::fd::OwnedFd::from(writer));
        let mut command = farm.command(&["--config"]);
        command.arg(farm.config_path()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log.try_clone().unwrap()).process_group(0).spawn().unwrap();
        Self { child, log, _reader: reader }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until the handler of SIGTERM is installed.
    fn wait_handlers(&self) {
        wait_until("SIGTERM is handled", PATIENCE, || {
            let caught = u64::from_str_radix(&status_field(self.child.id(), "SigCgt"), 16).unwrap();
            caught & (1 << (Signal::TERM.as_raw() - 1)) != 0
        });
    }

    /// Waits for the end and returns the exit code.
    #[track_caller]
    fn wait_code(&mut self, limit: Duration) -> Option<i32> {
        wait::poll(limit, || self.child.try_wait().unwrap()).expect("the manager ends").code()
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let children = processes::descendants(self.pid().as_raw_nonzero().get());
        let _ = self.child.kill();
        for child in children {
            processes::kill_group(child.group);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn start_blocked_by_its_log_is_ended() {
    // Two recipes with one package: a warning is the first line of the log.
    let twin = Recipe::manual("twin").package("tool");
    let farm = Farm::builder().with(&Recipe::manual("tool")).with(&twin).build();
    let (reader, writer) = pipe().unwrap();
    let log = File::from(std::os::fd::OwnedFd::from(writer));
    fill(&log);
    let mut command = farm.command(&["--config"]);
    command.arg(farm.config_path()).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.stderr(log.try_clone().unwrap()).process_group(0).spawn().unwrap();
    let mut manager = Mute { child, log, _reader: reader };
    manager.wait_handlers();
    manager.signal(Signal::TERM);
    manager.signal(Signal::INT);
    assert_eq!(manager.wait_code(Duration::from_secs(15)), Some(1));
}

#[test]
fn loop_blocked_by_its_log_ends_with_its_build() {
    let (repo, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    let mark = latch.path("terminated");
    let script = format!("trap ': > {}; exit 1' TERM\nsleep 1000 &\n{}", mark.display(), latch.script());
    let farm = Farm::builder().with(&Recipe::program("slow", &repo.file_url()).before_build(&script)).build();
    let mut manager = Mute::start(&farm);
    latch.wait_reached();
    let before = processes::descendants(manager.pid().as_raw_nonzero().get());
    assert!(before.len() >= 2, "{before:?}");
    fill(&manager.log);
    let begin = Instant::now();
    manager.signal(Signal::TERM);
    manager.signal(Signal::INT);
    assert_eq!(manager.wait_code(Duration::from_secs(20)), Some(1));
    assert!(mark.exists(), "the build got no SIGTERM");
    let left: Vec<_> = before.iter().filter(|process| processes::is_alive(process.pid)).collect();
    assert!(left.is_empty(), "still running after {:?}: {left:?}", begin.elapsed());
}

#[test]
fn two_stops_at_once_are_two() {
    let (repo, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    let farm = Farm::builder()
        .with(&Recipe::program("slow", &repo.file_url()).before_build(&latch.script()))
        .build();
    let mut daemon = farm.daemon();
    latch.wait_reached();
    // A process that is stopped gets both at the same moment.
    for signal in [Signal::STOP, Signal::TERM, Signal::INT, Signal::CONT] {
        daemon.signal(signal);
    }
    let output = daemon.wait_exit(Duration::from_secs(20));
    output.assert_code(1).assert_only_events().event("build interrupted");
    output.event("stopping at once");
}
