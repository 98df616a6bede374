//! Running a child process: the one place where the manager starts programs.
//!
//! Every child leads a process group of its own, so that a Ctrl-C in the
//! operator's terminal does not reach it and so that whatever it has started
//! ends with it. Its standard input is closed, its output is read to a bound,
//! it has a deadline, and an [`Interrupt`] ends it early: SIGTERM to the group
//! first, SIGKILL after [`GRACE`]. Nothing ticks: the thread that runs a child
//! sleeps in `poll` until there is output, the child has ended, the deadline
//! has come or the interrupt was triggered.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// What a child's group has between SIGTERM and SIGKILL to clean up after itself.
pub const GRACE: Duration = Duration::from_secs(10);

/// How much of a child's last output is kept to explain its failure, in bytes.
const TAIL: usize = 16 * 1024;

/// Environment variables by which an init system talks to the manager itself;
/// a child that took them for its own would report the manager's readiness or
/// accept its sockets.
const ADDRESSED_TO_THE_MANAGER: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A program and how it is to be run.
#[derive(Debug)]
#[must_use = "a program does nothing until it is run"]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, Option<OsString>)>,
    directory: Option<PathBuf>,
    deadline: Option<Duration>,
    stdout_limit: usize,
    held_file: Option<File>,
}

/// What a child that succeeded has written.
#[derive(Debug)]
pub struct Output {
    /// Its standard output, whole if [`Program::capture_stdout`] was called.
    pub stdout: Vec<u8>,
}

/// Why a child did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start {program}: {error}")]
    NotStarted {
        /// The program's name.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// It ended with another status than 0.
    #[error("{program} {}: {}", describe(*status), last_line(tail))]
    Failed {
        /// The program's name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error (and, if not captured, output).
        tail: String,
    },
    /// It ran longer than it may.
    #[error("{program} was still running after {}: {}", crate::duration::format(*limit), last_line(tail))]
    TimedOut {
        /// The program's name.
        program: String,
        /// How long it was allowed to run.
        limit: Duration,
        /// The end of what it had written.
        tail: String,
    },
    /// It wrote more than it may.
    #[error("{program} wrote more than {limit} bytes to its standard output")]
    TooMuchOutput {
        /// The program's name.
        program: String,
        /// How much it was allowed to write.
        limit: usize,
    },
    /// The manager ended it, because the manager itself was told to end.
    #[error("{program} was interrupted")]
    Interrupted {
        /// The program's name.
        program: String,
    },
    /// The system refused to let it be watched.
    #[error("cannot watch {program}: {error}")]
    Lost {
        /// The program's name.
        program: String,
        /// What the system said.
        error: io::Error,
    },
}

/// A switch that ends every child run with it, now and later. Clones share it.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<InterruptPipe>);

/// A byte in the pipe means triggered; as nobody reads it, everybody sees it.
#[derive(Debug)]
struct InterruptPipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Interrupt {
    /// A switch that is off.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags)?;
        Ok(Self(Arc::new(InterruptPipe { read, write })))
    }

    /// Switches it on, for good.
    pub fn trigger(&self) {
        // The pipe can only be full when it was triggered thousands of times already.
        let _ = rustix::io::write(&self.0.write, b"!");
    }

    /// Whether it is on.
    pub fn is_triggered(&self) -> bool {
        let mut fds = [PollFd::new(&self.0.read, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl Program {
    /// The program at `path`, without arguments, without deadline.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            deadline: None,
            stdout_limit: 0,
            held_file: None,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable in the child's environment, which is otherwise the manager's.
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, Some(value.into())));
        self
    }

    /// Removes a variable from the child's environment.
    pub fn without_env(mut self, name: &'static str) -> Self {
        self.env.push((name, None));
        self
    }

    /// Runs it in `directory`.
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Ends it after `deadline`.
    pub fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Captures its standard output, which may be up to `limit` bytes long.
    pub fn capture_stdout(mut self, limit: usize) -> Self {
        self.stdout_limit = limit;
        self
    }

    /// Gives it an empty file as standard input, in place of nothing. The child
    /// and its descendants then share the file's lock, even when they outlive
    /// the manager.
    pub fn hold(mut self, file: File) -> Self {
        self.held_file = Some(file);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it does not end with status 0.
    pub fn run(mut self, interrupt: &Interrupt) -> Result<Output, ProcessError> {
        let name = self.name();
        if interrupt.is_triggered() {
            return Err(ProcessError::Interrupted { program: name });
        }
        let stdin = self.held_file.take().map_or_else(Stdio::null, Stdio::from);
        let mut command = Command::new(&self.path);
        command.args(&self.args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        for variable in ADDRESSED_TO_THE_MANAGER {
            command.env_remove(variable);
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let child =
            command.spawn().map_err(|error| ProcessError::NotStarted { program: name.clone(), error })?;
        let mut running = match Running::watch(child) {
            Ok(running) => running,
            Err(error) => return Err(ProcessError::Lost { program: name, error }),
        };
        let end = running.wait(self.deadline, self.stdout_limit, interrupt);
        let status = running.finish();
        let (program, tail) = (name, running.tail.text());
        match (end, status) {
            (Err(error), _) | (Ok(End::Exited), Err(error)) => Err(ProcessError::Lost { program, error }),
            (Ok(End::Exited), Ok(status)) if status.success() => Ok(Output { stdout: running.stdout_bytes }),
            (Ok(End::Exited), Ok(status)) => Err(ProcessError::Failed { program, status, tail }),
            (Ok(End::TimedOut), _) => {
                Err(ProcessError::TimedOut { program, limit: self.deadline.unwrap_or_default(), tail })
            }
            (Ok(End::TooMuchOutput), _) => {
                Err(ProcessError::TooMuchOutput { program, limit: self.stdout_limit })
            }
            (Ok(End::Interrupted), _) => Err(ProcessError::Interrupted { program }),
        }
    }

    /// The program's name with its sub-command, such as `git fetch`.
    fn name(&self) -> String {
        let mut name = self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned();
        // The first plain word is the sub-command; options and their values, which
        // may be long or secret, do not help to recognise it.
        let is_word =
            |arg: &&str| arg.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !arg.starts_with('-');
        if let Some(sub_command) = self.args.iter().filter_map(|arg| arg.to_str()).find(is_word) {
            name.push(' ');
            name.push_str(sub_command);
        }
        name
    }
}

/// What ended the wait for a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Exited,
    TimedOut,
    TooMuchOutput,
    Interrupted,
}

/// A started child and what is read from it.
struct Running {
    child: Child,
    group: Pid,
    pidfd: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    stdout_bytes: Vec<u8>,
    tail: Tail,
    exited: bool,
}

impl Running {
    fn watch(mut child: Child) -> io::Result<Self> {
        let group = Pid::from_child(&child);
        let pidfd = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = kill_process_group(group, Signal::KILL);
                child.wait()?;
                return Err(error.into());
            }
        };
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        for pipe in [&stdout, &stderr].into_iter().flatten() {
            let flags = rustix::fs::fcntl_getfl(pipe)?;
            rustix::fs::fcntl_setfl(pipe, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        let (stdout_bytes, tail) = (Vec::new(), Tail::default());
        Ok(Self { child, group, pidfd, stdout, stderr, stdout_bytes, tail, exited: false })
    }

    /// Waits until the child has exited or has to be ended, and in that case tells its group to end.
    fn wait(
        &mut self,
        limit: Option<Duration>,
        stdout_limit: usize,
        interrupt: &Interrupt,
    ) -> io::Result<End> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let end = loop {
            let interrupted = self.step(deadline, Some(interrupt.0.read.as_fd()), stdout_limit)?;
            if self.exited {
                return Ok(End::Exited);
            }
            if interrupted {
                break End::Interrupted;
            }
            if stdout_limit > 0 && self.stdout_bytes.len() > stdout_limit {
                break End::TooMuchOutput;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break End::TimedOut;
            }
        };
        let _ = kill_process_group(self.group, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        // As long as somebody holds the pipes, somebody of the group is still cleaning up.
        while !(self.exited && self.stdout.is_none() && self.stderr.is_none()) && Instant::now() < deadline {
            self.step(Some(deadline), None, usize::MAX)?;
        }
        Ok(end)
    }

    /// Sleeps until something happens, takes note of it, and says whether it was the interrupt.
    fn step(
        &mut self,
        deadline: Option<Instant>,
        interrupt: Option<BorrowedFd<'_>>,
        stdout_limit: usize,
    ) -> io::Result<bool> {
        let mut fds = Vec::with_capacity(4);
        let watched = [
            (!self.exited).then(|| self.pidfd.as_fd()),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
            interrupt,
        ];
        for fd in watched.iter().flatten() {
            fds.push(PollFd::from_borrowed_fd(*fd, PollFlags::IN));
        }
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let is_ready = watched.map(|fd| fd.is_some() && ready.next().unwrap_or(false));
        if is_ready[1] || is_ready[0] {
            let keep = (stdout_limit > 0).then_some((&mut self.stdout_bytes, stdout_limit));
            drain(&mut self.stdout, keep, &mut self.tail)?;
        }
        if is_ready[2] || is_ready[0] {
            drain(&mut self.stderr, None, &mut self.tail)?;
        }
        self.exited |= is_ready[0];
        Ok(is_ready[3])
    }

    /// Ends what is left of the group and reaps the child. The group is killed
    /// before its leader is reaped: until then nobody else can have its number.
    fn finish(&mut self) -> io::Result<ExitStatus> {
        let _ = kill_process_group(self.group, Signal::KILL);
        self.child.wait()
    }
}

/// Reads what a pipe holds now; closes it at its end.
fn drain(
    pipe: &mut Option<OwnedFd>,
    mut keep: Option<(&mut Vec<u8>, usize)>,
    tail: &mut Tail,
) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    // A child that writes without pause must not keep this thread from seeing the deadline.
    for _ in 0..64 {
        let Some(fd) = pipe else { break };
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => match &mut keep {
                Some((bytes, limit)) if bytes.len() <= *limit => bytes.extend_from_slice(&buffer[..length]),
                Some(_) => {}
                None => tail.push(&buffer[..length]),
            },
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The last [`TAIL`] bytes of an output.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * TAIL {
            self.0.drain(..self.0.len() - TAIL);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0[self.0.len().saturating_sub(TAIL)..]).into_owned()
    }
}

/// How a process ended, in words.
fn describe(status: ExitStatus) -> impl fmt::Display {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last line of an output that says something.
fn last_line(tail: &str) -> &str {
    tail.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("(no output)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Program {
        Program::new(Path::new("/bin/sh")).arg("-c").arg(script)
    }

    #[track_caller]
    fn error(program: Program) -> String {
        program.run(&Interrupt::new().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn output_is_captured_to_its_limit() {
        let interrupt = Interrupt::new().unwrap();
        let output = sh("printf abc; echo noise >&2").capture_stdout(3).run(&interrupt).unwrap();
        assert_eq!(output.stdout, b"abc");
        let flood = sh("while :; do echo yyyyyyyyyyyyyyyyyyyyyy; done").capture_stdout(100_000);
        assert_eq!(error(flood), "sh wrote more than 100000 bytes to its standard output");
    }

    #[test]
    fn a_failure_tells_status_and_last_line() {
        assert_eq!(error(sh("echo one; echo two >&2; echo >&2; exit 3")), "sh exited with status 3: two");
        assert_eq!(error(sh("kill -9 $$")), "sh was ended by signal 9: (no output)");
        let missing = error(Program::new(Path::new("/nonexistent/tool")).arg("build"));
        assert!(missing.starts_with("cannot start tool build: "), "{missing}");
        let noisy =
            sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last >&2; exit 1");
        assert_eq!(error(noisy), "sh exited with status 1: last");
    }

    #[test]
    fn the_deadline_ends_the_whole_group() {
        let limit = Duration::from_millis(50);
        let started = Instant::now();
        let text = error(sh("sleep 100 & echo waiting; wait").deadline(Some(limit)));
        assert_eq!(text, "sh was still running after 50ms: waiting");
        assert!(started.elapsed() < GRACE, "the child of the child kept its pipe, so it was not ended");
    }

    #[test]
    fn what_a_child_leaves_running_ends_with_it() {
        let interrupt = Interrupt::new().unwrap();
        let started = Instant::now();
        let output = sh("sleep 100 & echo $!").capture_stdout(100).run(&interrupt).unwrap();
        assert!(started.elapsed() < GRACE);
        let pid: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let deadline = Instant::now() + GRACE;
        loop {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Gone, or a zombie that init has not yet reaped.
            if state.is_empty() || state.contains(") Z ") {
                break;
            }
            assert!(Instant::now() < deadline, "still there: {state}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_interrupt_ends_running_and_later_children() {
        let interrupt = Interrupt::new().unwrap();
        let other = interrupt.clone();
        let thread = std::thread::spawn(move || sh("sleep 100").run(&other).unwrap_err().to_string());
        interrupt.trigger();
        assert_eq!(thread.join().unwrap(), "sh was interrupted");
        assert!(interrupt.is_triggered());
        assert_eq!(sh("exit 0").run(&interrupt).unwrap_err().to_string(), "sh was interrupted");
    }

    #[test]
    fn the_environment_is_the_managers_and_what_is_added() {
        let interrupt = Interrupt::new().unwrap();
        let script = "printf '%s %s' \"$ADDED\" \"${PATH:+inherited}\"; cat";
        let output = sh(script).env("ADDED", "yes").capture_stdout(100).run(&interrupt).unwrap();
        assert_eq!(output.stdout, b"yes inherited");
    }
}
