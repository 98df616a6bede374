//! A child process under a deadline: its output as it arrives, its events, its end. Dropping it
//! kills it and its children.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt as _;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::logfmt::{self, Event};
use super::processes::{self, Process};
use super::wait;

/// How long to read on after the process has ended: a child that outlives it can hold the pipes
/// open.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// The result of a process that has ended.
pub struct Output {
    /// The command line.
    pub command: String,
    /// Its working directory.
    pub directory: PathBuf,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From its start to its end.
    pub elapsed: Duration,
}

impl Output {
    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert!(self.status.code() == Some(code), "expected exit code {code}\n{self}");
        self
    }

    /// Fails the test unless the exit code is 0.
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        self.assert_code(0)
    }

    /// Fails the test unless standard error is exactly one line, which contains each of `parts`.
    #[track_caller]
    pub fn assert_one_line(&self, parts: &[&str]) -> &Self {
        assert!(self.stderr.lines().count() == 1, "expected one line on standard error\n{self}");
        for part in parts {
            assert!(self.stderr.contains(part), "expected {part:?} on standard error\n{self}");
        }
        self
    }

    /// The events whose message is `message`, in order.
    #[track_caller]
    pub fn events(&self, message: &str) -> Vec<Event> {
        self.all_events().into_iter().filter(|event| event["msg"] == message).collect()
    }

    /// The one event whose message is `message`; fails the test if there are none or several.
    #[track_caller]
    pub fn event(&self, message: &str) -> Event {
        let mut found = self.events(message);
        assert!(found.len() == 1, "expected one {message:?}, found {}\n{self}", found.len());
        found.remove(0)
    }

    /// All events, in order.
    #[track_caller]
    pub fn all_events(&self) -> Vec<Event> {
        logfmt::events(&self.stderr)
    }

    /// Fails the test if standard error has a line that is not a log line.
    #[track_caller]
    pub fn assert_only_events(&self) -> &Self {
        assert!(logfmt::plain_lines(&self.stderr).is_empty(), "expected log lines only\n{self}");
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        report(f, &self.command, &self.directory, &self.status.to_string(), &self.stdout, &self.stderr)
    }
}

/// A process of a test, in a process group of its own, with its standard input closed.
pub struct Running {
    command: String,
    directory: PathBuf,
    child: Child,
    status: Option<ExitStatus>,
    started: Instant,
    stdout: Stream,
    stderr: Stream,
}

impl Running {
    /// Starts `command`.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let directory = command.get_current_dir().unwrap_or(".".as_ref()).to_owned();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")));
        let stdout = Stream::read(child.stdout.take().expect("a pipe was asked for"));
        let stderr = Stream::read(child.stderr.take().expect("a pipe was asked for"));
        let started = Instant::now();
        Self { command: words.join(" "), directory, child, status: None, started, stdout, stderr }
    }

    /// The process's number, which is also its group's.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process number")
    }

    /// All events so far.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        logfmt::events(&self.stderr.text())
    }

    /// The events since the last call with `seen`, which starts at 0. Parses each line of a long
    /// log only once.
    #[track_caller]
    pub fn events_since(&self, seen: &mut usize) -> Vec<Event> {
        let text = self.stderr.text_from(*seen);
        let finished = text.rfind('\n').map_or("", |end| &text[..=end]);
        *seen += finished.len();
        logfmt::events(finished)
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// All descendants.
    pub fn descendants(&self) -> Vec<Process> {
        processes::descendants(self.pid())
    }

    /// Waits until `condition` holds for the events so far. Fails the test when `limit` passes or
    /// the process ends first.
    #[track_caller]
    pub fn wait_for(&mut self, limit: Duration, mut condition: impl FnMut(&[Event]) -> bool) {
        // Check for the end before reading events: the last lines may arrive after the process has
        // ended.
        let met = wait::poll(limit, || {
            let ended = self.poll_status().is_some() && self.stderr.is_finished();
            if condition(&self.events()) { Some(true) } else { ended.then_some(false) }
        });
        match met {
            Some(true) => {}
            Some(false) => panic!("the process ended before the condition was met\n{self}"),
            None => panic!("the condition was not met within {limit:?}\n{self}"),
        }
    }

    /// Waits for the first event whose message is `message`.
    #[track_caller]
    pub fn wait_event(&mut self, message: &str, limit: Duration) -> Event {
        self.wait_events(message, 1, limit).remove(0)
    }

    /// Waits for `count` events whose message is `message`, and returns all of them.
    #[track_caller]
    pub fn wait_events(&mut self, message: &str, count: usize, limit: Duration) -> Vec<Event> {
        let mut found = Vec::new();
        self.wait_for(limit, |events| {
            found = events.iter().filter(|event| event["msg"] == message).cloned().collect();
            found.len() >= count
        });
        found
    }

    /// Waits for the event `webhook server listening` and returns its `addr`.
    #[track_caller]
    pub fn http_addr(&mut self) -> SocketAddr {
        let event = self.wait_event("webhook server listening", wait::PATIENCE);
        let addr = event.get("addr").unwrap_or_else(|| panic!("the event has no addr\n{self}"));
        addr.parse().unwrap_or_else(|error| panic!("{addr:?}: {error}\n{self}"))
    }

    /// Sends `signal` to the process alone. Fails the test if it has already ended.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.poll_status().is_none(), "the process ended before {signal:?}\n{self}");
        let pid = Pid::from_raw(self.pid()).expect("a process number is not 0");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?}: {error}\n{self}"));
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.poll_status().is_some()
    }

    /// Kills the process with SIGKILL, and with `tree` all its descendants, which otherwise live
    /// on. Returns the result; a process that ended before the kill has its own exit code.
    #[track_caller]
    pub fn kill(mut self, tree: bool) -> Output {
        if let (None, Some(pid)) = (self.poll_status(), Pid::from_raw(self.pid())) {
            if tree {
                // Stop it first, so that it starts no more children during the search. Each child
                // leads its own group.
                let _ = kill_process(pid, Signal::STOP);
                for child in self.descendants().iter().filter(|child| child.group == child.pid) {
                    processes::kill_group(child.group);
                }
            }
            let _ = kill_process(pid, Signal::KILL);
        }
        self.wait_exit(wait::PATIENCE)
    }

    /// Waits for the end. Fails the test after `limit`.
    #[track_caller]
    pub fn wait_exit(mut self, limit: Duration) -> Output {
        let Some(status) = wait::poll(limit, || self.poll_status()) else {
            panic!("did not end within {limit:?}\n{self}");
        };
        let elapsed = self.started.elapsed();
        wait::poll(OUTPUT_GRACE, || (self.stdout.is_finished() && self.stderr.is_finished()).then_some(()));
        let (command, directory) = (self.command.clone(), self.directory.clone());
        Output { command, directory, status, stdout: self.stdout.text(), stderr: self.stderr.text(), elapsed }
    }

    fn poll_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the process can be waited for");
        }
        self.status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // List the children before the kill: they have groups of their own and would outlive their
        // parent. Do not signal a process that has been waited for: the system may have reused its
        // number.
        if self.status.is_none() {
            let children = self.descendants();
            processes::kill_group(self.pid());
            let own = rustix::process::getpgrp().as_raw_nonzero().get();
            for child in children.iter().filter(|child| child.group != own && processes::is_alive(child.pid))
            {
                processes::kill_group(child.group);
            }
            let _ = self.child.wait();
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map_or_else(|| "still running".to_owned(), |status| status.to_string());
        report(f, &self.command, &self.directory, &status, &self.stdout(), &self.stderr())
    }
}

/// The text of a pipe, which a thread reads until the pipe closes.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn read(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                shared.lock().expect("readers do not panic").extend_from_slice(&buffer[..length]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        self.text_from(0)
    }

    /// The text after the first `start` bytes.
    fn text_from(&self, start: usize) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("readers do not panic")[start..]).into_owned()
    }

    fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }
}

fn report(
    f: &mut fmt::Formatter<'_>,
    command: &str,
    directory: &std::path::Path,
    status: &str,
    stdout: &str,
    stderr: &str,
) -> fmt::Result {
    let directory = directory.display();
    write!(f, "\n==========\ncommand:   {command}\ndirectory: {directory}\nstatus:    {status}\n")?;
    write!(f, "---------- stdout\n{stdout}\n---------- stderr\n{stderr}\n==========")
}

/// The system's text for an error, as the manager passes it on.
pub fn os_error(errno: Errno) -> String {
    io::Error::from(errno).to_string()
}
