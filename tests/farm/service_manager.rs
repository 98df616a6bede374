//! The service manager's side of `sd_notify(3)`, played by a socket of the test's own.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, wait_until};

/// A socket as systemd has it.
struct Socket {
    socket: UnixDatagram,
    name: OsString,
}

impl Socket {
    fn at_path(farm: &Farm) -> Self {
        let path = farm.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, name: path.into() }
    }

    /// A socket without a file.
    fn abstract_of(farm: &Farm) -> Self {
        let name = format!("peipkg-test{}", farm.home().display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, name: format!("@{name}").into() }
    }

    /// The next message, unless none comes in time.
    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The messages up to the one that begins with `last`.
    #[track_caller]
    fn until(&self, last: &str) -> Vec<String> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().unwrap_or_else(|| panic!("no {last} after {messages:?}"));
            let is_last = message.starts_with(last);
            messages.push(message);
            if is_last {
                return messages;
            }
        }
    }

    /// The manager of `farm`, told of the socket.
    fn manager(&self, farm: &Farm, arguments: &[&str]) -> Command {
        let mut command = farm.command(arguments);
        command.arg("--config").arg(farm.config_path()).env("NOTIFY_SOCKET", &self.name);
        command
    }
}

/// Leaves no room in the socket [at the path](Socket::at_path) of `farm`.
fn fill_socket(farm: &Farm) {
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"STATUS=full", farm.path("notify")).is_ok() {}
}

/// The time by which systemd knows reloads.
fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap()
}

#[test]
fn service_manager_hears_of_start_work_reload_and_stop() {
    for is_abstract in [false, true] {
        let (repo, latch) = (GitRepo::program(&["1.0"]), Latch::new());
        let recipe = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
        let farm = Farm::builder().with(&recipe).build();
        let socket = if is_abstract { Socket::abstract_of(&farm) } else { Socket::at_path(&farm) };
        let mut daemon = Running::spawn(&mut socket.manager(&farm, &[]));
        assert_eq!(socket.until("READY=1"), ["READY=1"], "nothing comes before the start is over");
        daemon.wait_event("recipe roster loaded", PATIENCE);
        assert_eq!(socket.until("STATUS=building").last().unwrap(), "STATUS=building tool 1.0-1");
        // A broken recipe is refused, but the reload is over.
        farm.write_recipe("broken", "?", "");
        let before = monotonic_micros();
        daemon.signal(Signal::HUP);
        let messages = socket.until("READY=1");
        let begun: Vec<&str> =
            messages.iter().map(String::as_str).filter(|m| !m.starts_with("STATUS=")).collect();
        let [reloading, "READY=1"] = begun[..] else { panic!("{messages:?}") };
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse::<u64>().unwrap();
        // systemd takes an older time for one of an earlier reload.
        assert!((before..=monotonic_micros()).contains(&time), "{time} is not after {before}");
        daemon.signal(Signal::TERM);
        socket.until("STOPPING=1");
        latch.open();
        daemon.wait_exit(PATIENCE).assert_success().event("build + publish complete");
        // Its children never had the socket: only the manager has spoken.
        socket.socket.set_nonblocking(true).unwrap();
        let rest: Vec<String> = std::iter::from_fn(|| socket.next()).collect();
        assert!(rest.iter().all(|m| m.starts_with("STATUS=")), "{rest:?}");
    }
}

#[test]
fn watchdog_gets_signs_of_life_during_a_long_build_but_not_of_a_hung_loop() {
    let (repo, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    let recipe = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).build();
    let socket = Socket::at_path(&farm);
    // A log that nobody reads hangs the loop once the pipe is full.
    let (unread, log) = std::io::pipe().unwrap();
    fcntl_setpipe_size(&log, 4096).unwrap();
    let mut command = socket.manager(&farm, &[]);
    command.env("WATCHDOG_USEC", "100000").stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().unwrap();
    drop(command);
    latch.wait_reached();
    for _ in 0..5 {
        socket.until("WATCHDOG=1");
    }
    let pid = Pid::from_child(&child);
    socket.socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // A reload that ends is followed by signs of life, the one that fills the pipe by none. Wait for two
    // silences: on a busy machine, one may be a late sign of life.
    wait_until("the loop hangs", PATIENCE, || {
        kill_process(pid, Signal::HUP).unwrap();
        let begun = Instant::now();
        loop {
            match socket.next() {
                Some(message) if message == "READY=1" => break false,
                Some(_) => assert!(begun.elapsed() < PATIENCE, "a hung loop gives signs of life"),
                None => break socket.next().is_none(),
            }
        }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    latch.open();
    drop(unread);
}

#[test]
fn watchdog_gets_signs_of_life_while_the_end_waits_for_a_notification() {
    let (repo, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    let tell = format!("#!/bin/sh\n{}", latch.script());
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .program("tell", &tell)
        .config_extra("[notify]\ncommand = [\"tell\"]")
        .build();
    let socket = Socket::at_path(&farm);
    let mut daemon = Running::spawn(socket.manager(&farm, &[]).env("WATCHDOG_USEC", "100000"));
    latch.wait_reached();
    daemon.signal(Signal::TERM);
    socket.until("STOPPING=1");
    // The loop needs no such time.
    for _ in 0..20 {
        socket.until("WATCHDOG=1");
    }
    latch.open();
    daemon.wait_exit(PATIENCE).assert_success();
}

#[test]
fn watchdog_of_another_process_and_a_socket_that_is_gone_ask_for_nothing() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let socket = Socket::at_path(&farm);
    let mut command = socket.manager(&farm, &["--once"]);
    command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_success().assert_only_events();
    let messages = socket.until("STOPPING=1");
    assert!(!messages.contains(&"WATCHDOG=1".to_owned()), "{messages:?}");
    for name in ["/nowhere/notify", "@nobody-listens", "vsock:2:1", "", "@"] {
        let mut command = socket.manager(&farm, &["--once"]);
        command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "x");
        Running::spawn(&mut command).wait_exit(PATIENCE).assert_success().assert_only_events();
    }
}

#[test]
fn service_manager_that_reads_nothing_delays_no_build() {
    let repo = GitRepo::program(&["1.0"]);
    let mut farm = Farm::builder();
    for id in ["aa", "bb", "cc", "dd", "ee", "ff"] {
        farm = farm.with(&Recipe::program(id, &repo.file_url()));
    }
    let farm = farm.build();
    let socket = Socket::at_path(&farm);
    fill_socket(&farm);
    // A sign of life is due whenever the loop wakes. A second for each would take a minute and more.
    let sweep = Running::spawn(socket.manager(&farm, &["--once"]).env("WATCHDOG_USEC", "20000"));
    sweep.wait_exit(Duration::from_secs(40)).assert_success();
    assert_eq!(farm.published().len(), 6);
}

#[test]
fn status_that_found_no_room_is_sent_again_while_nothing_happens() {
    let (repo, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    let recipe = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).build();
    let socket = Socket::at_path(&farm);
    fill_socket(&farm);
    let mut manager = Running::spawn(&mut socket.manager(&farm, &[]));
    latch.wait_reached();
    socket.until("STATUS=building tool 1.0-1");
    latch.open();
    manager.signal(Signal::TERM);
    manager.wait_exit(PATIENCE).assert_success();
}
