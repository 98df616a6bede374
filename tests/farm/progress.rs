//! The live line of a sweep on a terminal: a real one, whose other end the test holds.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::exhaustion::{ENOUGH, OwnUser};
use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::wait::{PATIENCE, wait_until};

/// A terminal, and all text written to it.
struct Terminal {
    other_end: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new() -> Self {
        let other_end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&other_end).unwrap();
        unlockpt(&other_end).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&other_end, size).unwrap();
        Self { other_end, written: Arc::default() }
    }

    /// Runs `command` with the terminal as its standard error.
    fn run(&self, command: &mut Command) -> Child {
        let name = ptsname(&self.other_end, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())).to_owned();
        let terminal = File::options().read(true).write(true).open(path).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal).spawn().unwrap();
        // `command` holds the terminal open; drop it.
        command.stderr(Stdio::null());
        let (mut reader, written) = (File::from(self.other_end.try_clone().unwrap()), self.written.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails once no process has the terminal open.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                written.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        child
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_until(text, PATIENCE, || self.text().contains(text));
    }
}

fn exit_code(mut child: Child) -> Option<i32> {
    let mut status = None;
    wait_until("the manager ends", PATIENCE, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

/// The screen after `text`: each line as last drawn.
fn screen(text: &str) -> Vec<String> {
    let shown = |line: &str| {
        let last = line.rsplit(['\r', '\u{2}']).find(|part| !part.is_empty()).unwrap_or_default();
        last.rsplit("\u{1b}[2K").next().unwrap_or_default().to_owned()
    };
    text.split("\r\n").map(shown).collect()
}

#[test]
fn sweep_on_a_terminal_has_a_live_line_below_its_log() {
    let (repo, latch) = (GitRepo::program(&["1.0", "1.1"]), Latch::new());
    let recipe = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).build();
    let terminal = Terminal::new();
    let child =
        terminal.run(farm.command(&["--once"]).arg("--config").arg(farm.config_path()).env("TERM", "xterm"));
    terminal.wait_for("polled 1 of 1, 1 queued, building tool 1.1-1 for ");
    terminal.wait_for("building tool 1.1-1 for 2s");
    latch.open();
    assert_eq!(exit_code(child), Some(0));
    terminal.wait_for("peipkg-manager stopped");
    let text = terminal.text();
    assert!(!text.contains('░') && !text.contains("0/0"), "the library's own progress bar: {text}");
    let screen = screen(&text);
    let (last, log) = screen.split_last().unwrap();
    assert_eq!(last, "", "the live line was not removed: {screen:?}");
    assert!(log.iter().all(|line| line.starts_with("time=")), "{screen:#?}");
    assert!(log.iter().any(|line| line.contains("msg=\"build + publish complete\"")), "{screen:#?}");
}

#[test]
fn daemon_or_dumb_terminal_has_no_live_line() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let terminal = Terminal::new();
    let dumb =
        terminal.run(farm.command(&["--once"]).arg("--config").arg(farm.config_path()).env("TERM", "dumb"));
    assert_eq!(exit_code(dumb), Some(0));
    let daemon = terminal.run(farm.command(&["--config"]).arg(farm.config_path()).env("TERM", "xterm"));
    terminal.wait_for("mode=daemon");
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(exit_code(daemon), Some(0));
    let text = terminal.text();
    assert!(!text.contains('\u{1b}') && !text.contains("polled"), "{text:?}");
}

#[test]
fn sweep_without_threads_for_its_live_line_ends_as_usual() {
    let latch = Latch::new();
    let script = format!(
        "#!/bin/sh\nif echo \" $* \" | grep -q ' ls-remote '; then\n{}fi\nexec {{real}} \"$@\"\n",
        latch.script()
    );
    let farm = Farm::builder().program("git", &script).build();
    let repo = GitRepo::in_dir(farm.home(), "upstream");
    repo.add_versions(&["1.0"]);
    farm.add(&Recipe::program("tool", &repo.file_url()));
    let Some(user) = OwnUser::of(&farm) else { return };
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(latch.path("")));
    let terminal = Terminal::new();
    let child = terminal.run(user.command(&farm, &["--once"], ENOUGH).env("TERM", "xterm"));
    latch.wait_reached();
    // From now on, nothing can start: no ticker for the build, and no git for its source.
    user.limit(Pid::from_child(&child).as_raw_pid(), "1");
    latch.open();
    assert_eq!(exit_code(child), Some(0), "{}", terminal.text());
    terminal.wait_for("peipkg-manager stopped");
    let text = terminal.text();
    assert!(text.contains("starting build") && text.contains("cannot start git"), "{text}");
}
