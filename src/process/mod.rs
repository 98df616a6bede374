//! Running a child process: the one place where the manager starts programs.
//!
//! Every child leads a process group of its own, so that a Ctrl-C in the
//! operator's terminal does not reach it and so that whatever it has started
//! ends with it. Its standard input is closed, its output is read to a bound,
//! it has a deadline, and an [`Interrupt`] ends it early: SIGTERM to the group
//! first, SIGKILL after ten seconds. Nothing ticks: the thread that runs a child
//! sleeps in `poll` until there is output, the child has ended, the deadline
//! has come or the interrupt was triggered.

mod interrupt;
mod running;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

pub use self::interrupt::Interrupt;
use self::running::{End, GRACE, Running};

/// Environment variables by which an init system talks to the manager itself;
/// a child that took them for its own would report the manager's readiness or
/// accept its sockets.
const ADDRESSED_TO_THE_MANAGER: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The most of one line of output that an error shows, in bytes: it is kept in memory for each version that fails.
pub(crate) const MAX_LINE: usize = 1000;

/// A program and how it is to be run.
#[derive(Debug)]
#[must_use = "a program does nothing until it is run"]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, Option<OsString>)>,
    directory: Option<PathBuf>,
    deadline: Option<Duration>,
    grace: Duration,
    stdout_limit: usize,
    held_file: Option<File>,
    sink: Option<Box<dyn Sink>>,
}

/// Receives the output of children as it comes.
pub trait Sink: fmt::Debug {
    /// Begins the output of `program`, such as `git fetch`.
    fn begin(&self, program: &str);

    /// Adds the next bytes that the program wrote to standard output or standard error.
    fn output(&self, bytes: &[u8]);
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
    #[error("{program} {}: {}", describe(*status), explain(tail))]
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

impl Program {
    /// The program at `path`, without arguments, without deadline.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            deadline: None,
            grace: GRACE,
            stdout_limit: 0,
            held_file: None,
            sink: None,
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

    /// Gives its group `grace` instead of ten seconds between SIGTERM and SIGKILL.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Captures its standard output, which may be up to `limit` bytes long.
    pub fn capture_stdout(mut self, limit: usize) -> Self {
        self.stdout_limit = limit;
        self
    }

    /// Gives it an empty file as standard input, in place of nothing. The child
    /// and its descendants then share the file's lock, even when they outlive
    /// the manager. Once the child has ended, the lock is released, whoever of
    /// its descendants still has the file.
    pub fn hold(mut self, file: File) -> Self {
        self.held_file = Some(file);
        self
    }

    /// Gives its name and its output to `log` as they come. Captured output is not given to it.
    pub fn log_to(mut self, log: &(impl Sink + Clone + 'static)) -> Self {
        self.sink = Some(Box::new(log.clone()));
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
        if let Some(sink) = &self.sink {
            sink.begin(&name);
        }
        let held = match self.held_file.as_ref().map(File::try_clone).transpose() {
            Ok(held) => held,
            Err(error) => return Err(ProcessError::NotStarted { program: name, error }),
        };
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
        let mut running = match Running::watch(child, self.sink.take()) {
            Ok(running) => running,
            Err(error) => return Err(ProcessError::Lost { program: name, error }),
        };
        let end = running.wait(self.deadline, self.grace, self.stdout_limit, interrupt);
        let status = running.finish();
        // Who has left the group to live on must not keep others from what is over. An interrupted child ends together with
        // the manager, and leaves what it has begun to the next.
        if let (Some(held), false) = (held, matches!(end, Ok(End::Interrupted))) {
            let _ = flock(held, FlockOperation::Unlock);
        }
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

/// How a process ended, in words.
fn describe(status: ExitStatus) -> impl fmt::Display {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// What an output says about a failure: its last line. What a tool says of itself
/// (`peipkg-build: …`) is mostly that something else has failed: then the line
/// before that is the cause. And git names its cause first.
pub(crate) fn explain(tail: &str) -> String {
    let last = last_line(tail);
    let mut lines = tail.lines().map(str::trim).filter(|line| !line.is_empty());
    let own = last.split_once(": ").map(|(tool, _)| tool).filter(|tool| tool.starts_with("peipkg-"));
    // A build script may well ask git for what is not there, such as a history, and go on without it.
    let is_git = |line: &&str| own.is_none() && (line.starts_with("fatal: ") || line.starts_with("error: "));
    if let Some(first) = lines.clone().find(is_git).map(cut).filter(|first| *first != last) {
        return format!("{first}; then: {last}");
    }
    let cause = own.and_then(|tool| lines.rfind(|line| !line.starts_with(tool)));
    cause.map_or_else(|| last.to_owned(), |cause| format!("{last}; before that: {}", cut(cause)))
}

/// The last line of an output that says something, or its beginning.
fn last_line(tail: &str) -> &str {
    cut(tail.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("(no output)"))
}

/// At most [`MAX_LINE`] bytes of a line.
fn cut(line: &str) -> &str {
    &line[..line.floor_char_boundary(MAX_LINE)]
}
