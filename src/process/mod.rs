//! Runs child processes: the only room that starts programs. It must know nothing of build logs or
//! the farm.
//!
//! Every child leads its own process group: a Ctrl-C in the operator's terminal does not reach the
//! child, and the processes that it starts end with it. Its standard input is empty unless the caller
//! has something for it, and its captured output is bounded. A deadline or an [`Interrupt`] ends it
//! early: the group gets SIGTERM, and SIGKILL ten seconds later; a listing has one second, as it has
//! nothing to clean up. The thread that runs a child sleeps in `poll` until output comes, the child
//! exits, the deadline passes or the interrupt is triggered. It ticks only for a child with limits,
//! which is git: a few times a second it looks at what the child uses.

pub(crate) mod environment;
mod explain;
pub(crate) mod inherited;
mod input;
mod interrupt;
mod limits;
mod live;
pub(crate) mod processors;
mod running;
pub(crate) mod running_groups;
mod sink;
pub(crate) mod supervisor;
#[cfg(test)]
mod tests;
pub(crate) mod users_of;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use peipkg_format::problem::excerpt;
use rustix::fs::{FlockOperation, flock};

pub(crate) use self::explain::explain;
use self::explain::last_line;
pub(crate) use self::limits::{DiskLimit, Limit, disk_usage};
pub(crate) use self::sink::Sink;
pub use crate::process::interrupt::Interrupt;
use crate::process::limits::{Exceeded, Watch};
pub(crate) use crate::process::running::GRACE;
use crate::process::running::{End, Running};
use crate::recipe::secrets::Secrets;

/// Environment variables by which an init system addresses the manager. A child that inherited them
/// could report the manager's readiness or accept on its sockets.
const ADDRESSED_TO_THE_MANAGER: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A program and how to run it.
#[must_use = "a program does nothing until it is run"]
pub(crate) struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
    deadline: Option<Duration>,
    grace: Duration,
    stdout_limit: usize,
    held_file: Option<File>,
    input: Option<Vec<u8>>,
    sink: Option<Box<dyn Sink>>,
    secrets: Secrets,
    /// The first argument of its supervisor, if it has one.
    supervisor: Option<&'static str>,
    memory_limit: Option<Limit>,
    disk_limit: Option<DiskLimit>,
}

/// The output of a child that succeeded.
#[derive(Debug)]
pub(crate) struct Output {
    /// The whole standard output if [`Program::capture_stdout`] was called, or else nothing.
    pub stdout: Vec<u8>,
    /// The end of its standard error, and of its standard output if that was not captured.
    pub tail: String,
}

/// Why a child did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The system could not start it.
    #[error("cannot start {program}: {error}")]
    NotStarted {
        /// The program's name.
        program: String,
        /// The system's error.
        error: io::Error,
    },
    /// It exited with a status other than 0, or a signal killed it.
    #[error("{program} {}: {}", describe(*status), explain(tail))]
    Failed {
        /// The program's name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error, and of its standard output if that was not captured.
        tail: String,
    },
    /// It was still running at its deadline.
    #[error("{program} was still running after {}: {}", peipkg_format::duration::format(rounded(*limit)), excerpt(last_line(tail)))]
    TimedOut {
        /// The program's name.
        program: String,
        /// How long it might run.
        limit: Duration,
        /// The end of its output, as for [`Self::Failed`].
        tail: String,
    },
    /// It wrote more to its captured standard output than its limit.
    #[error("{program} wrote more than {limit} bytes to its standard output")]
    TooMuchOutput {
        /// The program's name.
        program: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// It, or a process that it started, wanted more memory than its limit.
    #[error("{program} needs more memory than {limit}: {}", explain(tail))]
    OutOfMemory {
        /// The program's name.
        program: String,
        /// The limit.
        limit: Limit,
        /// The end of its output, as for [`Self::Failed`].
        tail: String,
    },
    /// It wrote more to disk than its limit.
    #[error("{program} writes more to disk than {limit}")]
    TooMuchWritten {
        /// The program's name.
        program: String,
        /// The limit.
        limit: Limit,
    },
    /// The manager ended it, or did not start it, because the manager itself was told to stop.
    #[error("{program} was interrupted")]
    Interrupted {
        /// The program's name.
        program: String,
    },
    /// The system refused to report its output or its end.
    #[error("cannot watch {program}: {error}")]
    Lost {
        /// The program's name.
        program: String,
        /// The system's error.
        error: io::Error,
    },
}

impl ProcessError {
    /// Whether the manager's own shutdown ended the child.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self, Self::Interrupted { .. })
    }

    fn of_limit(exceeded: Exceeded, program: String, tail: String) -> Self {
        match exceeded {
            Exceeded::Memory(limit) => Self::OutOfMemory { program, limit, tail },
            Exceeded::Disk(limit) => Self::TooMuchWritten { program, limit },
        }
    }
}

impl Program {
    /// Describes the program at `path`, without arguments or deadline.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            deadline: None,
            grace: GRACE,
            stdout_limit: 0,
            held_file: None,
            input: None,
            sink: None,
            secrets: Secrets::default(),
            supervisor: None,
            memory_limit: None,
            disk_limit: None,
        }
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable in the child's environment. The child inherits the manager's other
    /// variables.
    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), Some(value.into())));
        self
    }

    /// Removes a variable from the child's environment.
    pub(crate) fn without_env(mut self, name: &'static str) -> Self {
        self.env.push((name.into(), None));
        self
    }

    /// Runs it in `directory`.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Ends it when it has run for `deadline`.
    pub(crate) fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the time between SIGTERM and SIGKILL, instead of ten seconds.
    pub(crate) fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs it below a supervisor, so that everything it leaves running ends with it, even a daemon
    /// that has left the process group.
    pub(crate) fn supervised(self) -> Self {
        Self { supervisor: Some(supervisor::ARGUMENT), ..self }
    }

    /// As [`Self::supervised`], with another umask and one processor less.
    pub(crate) fn supervised_elsewhere(self) -> Self {
        Self { supervisor: Some(supervisor::ARGUMENT_CHANGED), ..self }
    }

    /// Captures its standard output, of at most `limit` bytes. More output ends the child.
    pub(crate) fn capture_stdout(mut self, limit: usize) -> Self {
        self.stdout_limit = limit;
        self
    }

    /// Gives it an empty, locked file as its standard input. The child and its descendants share
    /// the file's lock, even if they outlive the manager. When the child has ended, [`Self::run`]
    /// releases the lock.
    pub(crate) fn hold(mut self, file: File) -> Self {
        self.held_file = Some(file);
        self
    }

    /// Gives it `bytes` as its standard input.
    pub(crate) fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = Some(bytes);
        self
    }

    /// Limits what each of its processes may allocate, and what its process group allocates
    /// together. Files that they map do not count.
    pub(crate) fn memory_limit(mut self, limit: Option<Limit>) -> Self {
        self.memory_limit = limit;
        self
    }

    /// Ends it when it has written more than `limit` allows.
    pub(crate) fn disk_limit(mut self, limit: Option<DiskLimit>) -> Self {
        self.disk_limit = limit;
        self
    }

    /// Passes its name and its output to `log` as they come. Captured output stays out of the log.
    pub(crate) fn log_to(mut self, log: &(impl Sink + Clone + 'static)) -> Self {
        self.sink = Some(Box::new(log.clone()));
        self
    }

    /// Leaves `secrets` out of the output in errors. The sink has its own.
    pub(crate) fn hide(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// Runs it until it has ended.
    ///
    /// # Errors
    /// If it does not exit with status 0.
    pub(crate) fn run(mut self, interrupt: &Interrupt) -> Result<Output, ProcessError> {
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
        let input = match self.input.as_deref().map(input::in_memory).transpose() {
            Ok(input) => input,
            Err(error) => return Err(ProcessError::NotStarted { program: name, error }),
        };
        let stdin = self.held_file.take().or(input).map_or_else(Stdio::null, Stdio::from);
        let (memory, file) = (self.memory_limit, self.disk_limit.as_ref().map(|disk| disk.limit));
        let (mut command, grace) = match self.supervisor {
            Some(argument) => {
                (supervisor::command(argument, &self.path, self.grace), self.grace + supervisor::MARGIN)
            }
            None => (limits::command(&self.path, memory, file), self.grace),
        };
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
        let watch = Watch::new(running.group, memory, self.disk_limit.as_ref());
        let end = running.wait(self.deadline, grace, self.stdout_limit, interrupt, watch);
        let status = running.finish();
        // Release the lock even if an escaped descendant still holds the file: it must not block
        // the next tool. After an interrupt the lock stays with such a descendant, so that the next
        // manager waits for it.
        if let (Some(held), false) = (held, matches!(end, Ok(End::Interrupted))) {
            let _ = flock(held, FlockOperation::Unlock);
        }
        let (program, tail) = (name, self.secrets.redact(&running.tail.text()));
        let stdout = running.stdout_bytes;
        match (end, status) {
            (Err(error), _) | (Ok(End::Exited), Err(error)) => Err(ProcessError::Lost { program, error }),
            (Ok(End::Exited), Ok(status)) if status.success() => Ok(Output { stdout, tail }),
            (Ok(End::Exited), Ok(status)) => Err(match limits::exceeded(status, &tail, memory, file) {
                Some(exceeded) => ProcessError::of_limit(exceeded, program, tail),
                None => ProcessError::Failed { program, status, tail },
            }),
            (Ok(End::TimedOut), _) => {
                Err(ProcessError::TimedOut { program, limit: self.deadline.unwrap_or_default(), tail })
            }
            (Ok(End::TooMuchOutput), _) => {
                Err(ProcessError::TooMuchOutput { program, limit: self.stdout_limit })
            }
            (Ok(End::Exceeded(exceeded)), _) => Err(ProcessError::of_limit(exceeded, program, tail)),
            (Ok(End::Interrupted), _) => Err(ProcessError::Interrupted { program }),
        }
    }

    /// Returns the program's name with its sub-command, such as `git fetch`.
    fn name(&self) -> String {
        let mut name = self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned();
        // The first plain word is the sub-command. Options and their values may be long or secret.
        let is_word =
            |arg: &&str| arg.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !arg.starts_with('-');
        if let Some(sub_command) = self.args.iter().filter_map(|arg| arg.to_str()).find(is_word) {
            name.push(' ');
            name.push_str(sub_command);
        }
        name
    }
}

/// Rounds a duration for an error text: one minute less a few milliseconds is `1m0s`, not
/// `59.989146701s`.
fn rounded(duration: Duration) -> Duration {
    let unit = match duration.as_secs() {
        0 => 1_000_000,
        1..60 => 100_000_000,
        _ => 1_000_000_000,
    };
    let nanos = (duration.as_nanos() + unit / 2) / unit * unit;
    u64::try_from(nanos).map_or(duration, Duration::from_nanos)
}

/// Describes how a process ended.
fn describe(status: ExitStatus) -> impl fmt::Display {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
