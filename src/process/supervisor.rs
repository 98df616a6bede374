//! The supervisor: a process that runs one program, adopts what the program leaves running, and
//! reaps it. It must not know what the program is for.
//!
//! It is this program, started again. The manager's own process group reaches only those that stay
//! in it; a daemon that a build starts leaves it with `setsid`. So a supervisor is the subreaper of
//! each build: the system makes it the parent of every process below it that loses its own. What
//! is left when the build has ended is its own, whatever other builds do, and is killed.
//!
//! As process 1 of a container, the manager is supervised too. The supervisor then only passes on
//! signals and reaps: the system kills the container's other processes when process 1 ends.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpgrp, getpid, kill_process,
    set_child_subreaper, setrlimit, umask, wait,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use signal_hook::low_level;

use super::live;

/// The first argument of a build's supervisor. The milliseconds of grace and the command follow.
pub(crate) const ARGUMENT: &str = "--supervise";

/// The same, for a supervisor that changes the surroundings of its build first.
pub(crate) const ARGUMENT_CHANGED: &str = "--supervise-changed";

/// The umask of changed surroundings. A build has 022 otherwise. It lets nobody in who is not let in
/// otherwise.
const CHANGED_UMASK: Mode = Mode::from_raw_mode(0o027);

/// This program, even if its file was replaced or removed since it started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// How long to wait for the end of killed processes. One that hangs in the kernel, such as on a
/// dead network file system, must not keep the build from its end.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How many of the processes that a build left are named, so that a fork bomb cannot fill the log.
const MAX_NAMED: usize = 20;

/// How much later than its grace the supervisor must be killed, so that it can end what the build
/// left before.
pub(super) const MARGIN: Duration = Duration::from_secs(1);

/// How a supervised program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: WaitStatus,
    /// Some of the processes that it left running although it succeeded, a line each.
    pub left: Vec<String>,
}

/// Returns the command that runs `program` below a supervisor, which `argument` is for, and which gives
/// it `grace` after a SIGTERM; `program` itself if the system has no `/proc`. The caller adds the program's arguments.
pub(super) fn command(argument: &str, program: &Path, grace: Duration) -> Command {
    let Some(mut command) = this_program() else { return Command::new(program) };
    command.arg(argument).arg(grace.as_millis().to_string()).arg(program);
    command
}

/// Returns a command that runs this program again, if this is process 1 of a container.
pub(crate) fn below_process_1() -> Option<Command> {
    let mut command = this_program().filter(|_| getpid().is_init())?;
    // A Ctrl-C reaches the terminal's foreground group. The supervisor passes it on; without a
    // group of its own, the manager would get it twice and abort.
    command.process_group(0);
    Some(command)
}

/// Changes what this process passes on to its build, and what a build must not depend on: the umask, and
/// the number of processors, of which it leaves one out. Fewer would make the build take longer.
pub(crate) fn change_surroundings() {
    umask(CHANGED_UMASK);
    // A machine with more processors than the set holds keeps all.
    let Ok(mut processors) = sched_getaffinity(None) else { return };
    let last = (0..CpuSet::MAX_CPU).rev().find(|number| processors.is_set(*number));
    if let (Some(last), 2..) = (last, processors.count()) {
        processors.unset(last);
        let _ = sched_setaffinity(None, &processors);
    }
}

fn this_program() -> Option<Command> {
    fs::exists(THIS_PROGRAM).is_ok_and(|exists| exists).then(|| {
        let mut command = Command::new(THIS_PROGRAM);
        command.arg0(env!("CARGO_PKG_NAME"));
        command
    })
}

/// Runs `command` to its end, passes signals on to it, and reaps every process below it. The rest
/// ends with process 1.
///
/// # Errors
/// If the program cannot be started, or the system refuses a pipe.
pub(crate) fn supervise_manager(command: &mut Command) -> io::Result<Ended> {
    let mut supervised = Supervised::start(command)?;
    loop {
        let signals = supervised.turn(None)?;
        if let Some(status) = supervised.status {
            return Ok(Ended { status, left: Vec::new() });
        }
        for signal in signals.into_iter().filter(|signal| *signal != Signal::CHILD) {
            let _ = kill_process(supervised.child, signal);
        }
    }
}

/// Runs `command` to its end, and then kills every process below it. After a SIGTERM, members of the
/// process group may clean up until `grace` is over; then everything is killed.
///
/// The sender signals the whole group: the program gets its SIGTERM even if it has lost its
/// supervisor.
///
/// # Errors
/// If the program cannot be started or ended, or the system refuses a pipe.
pub(crate) fn supervise_build(command: &mut Command, grace: Duration) -> io::Result<Ended> {
    let mut supervised = Supervised::start(command)?;
    let (mut kill_at, mut killed) = (None, BTreeMap::new());
    // A SIGTERM that came before the program was there has not reached it with the group's.
    if supervised.turn(Some(Instant::now()))?.contains(&Signal::TERM) && supervised.status.is_none() {
        let _ = kill_process(supervised.child, Signal::TERM);
        kill_at = Some(Instant::now() + grace);
    }
    let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| Instant::now() >= deadline);
    while !is_over(kill_at) {
        let has_ended = supervised.status.is_some();
        if has_ended && (kill_at.is_none() || !kill_children(Spared::Group, &mut killed)) {
            break;
        }
        if supervised.turn(kill_at)?.contains(&Signal::TERM) {
            kill_at.get_or_insert(Instant::now() + grace);
        }
    }
    let give_up_at = Some(Instant::now() + KILL_WAIT);
    while !supervised.is_alone
        && !is_over(give_up_at)
        && (kill_children(Spared::None, &mut killed) || supervised.status.is_none())
    {
        supervised.turn(give_up_at)?;
    }
    let status = supervised.status.ok_or_else(|| io::Error::other("it cannot be killed"))?;
    // After a failure, its cause must stay the last line of the output.
    let is_success = status.exit_status() == Some(0);
    let left = if is_success { killed.into_values().collect() } else { Vec::new() };
    Ok(Ended { status, left })
}

/// A program and the processes below it.
struct Supervised {
    arrivals: [Arrivals; 4],
    child: Pid,
    /// How the program ended.
    status: Option<WaitStatus>,
    /// Whether no child is left.
    is_alone: bool,
}

impl Supervised {
    fn start(command: &mut Command) -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        let arrivals = [
            Arrivals::of(Signal::CHILD)?,
            Arrivals::of(Signal::TERM)?,
            Arrivals::of(Signal::INT)?,
            Arrivals::of(Signal::HUP)?,
        ];
        let child = Pid::from_child(&command.spawn()?);
        Ok(Self { arrivals, child, status: None, is_alone: false })
    }

    /// Sleeps until a signal comes, or until `deadline`. Reaps the children that have ended, and
    /// returns the signals.
    fn turn(&mut self, deadline: Option<Instant>) -> io::Result<Vec<Signal>> {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = self.arrivals.each_ref().map(|arrivals| PollFd::new(&arrivals.pipe, PollFlags::IN));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let signals = self.arrivals.iter().flat_map(Arrivals::take).collect();
        self.is_alone = loop {
            match wait(WaitOptions::NOHANG) {
                // A later process may get the program's number.
                Ok(Some((pid, status))) if pid == self.child => {
                    self.status.get_or_insert(status);
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        Ok(signals)
    }
}

impl Ended {
    /// Returns the program's exit code. If a signal ended the program, ends this process by the same
    /// signal.
    pub(crate) fn exit_code(&self) -> u8 {
        let code = self.status.exit_status().and_then(|code| u8::try_from(code).ok());
        code.unwrap_or_else(|| {
            let signal = self.status.terminating_signal().unwrap_or_default();
            // The program may have left a core file; a second one would tell nothing.
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            let _ = setrlimit(Resource::Core, none);
            if !getpid().is_init() {
                let _ = low_level::emulate_default_handler(signal);
            }
            u8::try_from(128 + signal).unwrap_or(u8::MAX)
        })
    }
}

/// The arrivals of one signal: a pipe with a byte for each.
struct Arrivals {
    signal: Signal,
    pipe: OwnedFd,
}

impl Arrivals {
    fn of(signal: Signal) -> io::Result<Self> {
        let (pipe, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        low_level::pipe::register(signal.as_raw(), write)?;
        Ok(Self { signal, pipe })
    }

    /// Returns the signal as often as it came since the last call.
    fn take(&self) -> impl Iterator<Item = Signal> {
        let mut bytes = [0; 64];
        std::iter::repeat_n(self.signal, rustix::io::read(&self.pipe, &mut bytes).unwrap_or(0))
    }
}

/// The children that [`kill_children`] does not kill.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spared {
    None,
    /// Those in this process's group.
    Group,
}

/// Kills the children, and describes those in `killed`. Returns whether a child is left that will
/// end.
fn kill_children(spared: Spared, killed: &mut BTreeMap<i32, String>) -> bool {
    let mut will_end = false;
    let own = getpid().as_raw_nonzero().get();
    for child in live::all().filter(|process| process.parent == own) {
        if spared == Spared::Group && child.group == getpgrp() {
            will_end = true;
            continue;
        }
        // No other process can have the number: nobody else reaps the child.
        let result = kill_process(child.pid, Signal::KILL);
        will_end |= result.is_ok();
        if killed.len() >= MAX_NAMED {
            continue;
        }
        let number = child.pid.as_raw_nonzero().get();
        killed.entry(number).or_insert_with(|| match result {
            Ok(()) => format!("the build left {} running, killed process {number}", child.name),
            Err(error) => {
                format!("the build left {} running, cannot kill process {number}: {error}", child.name)
            }
        });
    }
    will_end
}
