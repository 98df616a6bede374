//! A started child: reads its output, waits for its end and kills its process group. Must not start
//! children.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::interrupt::Interrupt;
use super::limits::{Exceeded, Watch};
use super::running_groups;
use super::sink::Sink;

/// How long a child's group may clean up between SIGTERM and SIGKILL. A build may have to cancel a
/// job elsewhere.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// How much of a child's last output is kept to explain a failure, in bytes.
const TAIL: usize = 16 * 1024;

/// Why the wait for a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exited,
    TimedOut,
    TooMuchOutput,
    Exceeded(Exceeded),
    Interrupted,
}

/// A started child and its output so far.
pub(super) struct Running {
    child: Child,
    pub(super) group: Pid,
    pidfd: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    pub(super) stdout_bytes: Vec<u8>,
    pub(super) tail: Tail,
    sink: Option<Box<dyn Sink>>,
    exited: bool,
}

impl Running {
    /// Watches `child`. If the system refuses, kills its group.
    pub(super) fn watch(mut child: Child, sink: Option<Box<dyn Sink>>) -> io::Result<Self> {
        let group = Pid::from_child(&child);
        running_groups::add(group);
        let pidfd = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = kill_process_group(group, Signal::KILL);
                running_groups::take_out(group);
                child.wait()?;
                return Err(error.into());
            }
        };
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        for pipe in [&stdout, &stderr].into_iter().flatten() {
            // These calls cannot fail: the pipe is open.
            let flags = rustix::fs::fcntl_getfl(pipe).unwrap_or(rustix::fs::OFlags::RDONLY);
            let _ = rustix::fs::fcntl_setfl(pipe, flags | rustix::fs::OFlags::NONBLOCK);
        }
        let (stdout_bytes, tail) = (Vec::new(), Tail::default());
        Ok(Self { child, group, pidfd, stdout, stderr, stdout_bytes, tail, sink, exited: false })
    }

    /// Waits until the child exits. On a deadline, a full output, an exceeded limit or an interrupt,
    /// sends its group SIGTERM and waits up to `grace` for the group to exit.
    pub(super) fn wait(
        &mut self,
        limit: Option<Duration>,
        grace: Duration,
        stdout_limit: usize,
        interrupt: &Interrupt,
        mut watch: Watch<'_>,
    ) -> io::Result<End> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let end = loop {
            let next = [deadline, watch.next_look()].into_iter().flatten().min();
            let interrupted = self.step(next, Some(interrupt.as_fd()), stdout_limit)?;
            if self.exited {
                return Ok(watch.look_at_disk().map_or(End::Exited, End::Exceeded));
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
            if let Some(exceeded) = watch.look_if_due() {
                break End::Exceeded(exceeded);
            }
        };
        running_groups::terminate(self.group);
        let deadline = Instant::now() + grace;
        // While a process holds the pipes, a member of the group is still cleaning up.
        while !(self.exited && self.stdout.is_none() && self.stderr.is_none()) && Instant::now() < deadline {
            self.step(Some(deadline), None, stdout_limit)?;
        }
        Ok(end)
    }

    /// Sleeps until output, the child's exit, the interrupt or `deadline`. Reads the output and
    /// returns whether the interrupt was triggered.
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
            drain(&mut self.stdout, keep, &mut self.tail, self.sink.as_deref())?;
        }
        if is_ready[2] || is_ready[0] {
            drain(&mut self.stderr, None, &mut self.tail, self.sink.as_deref())?;
        }
        self.exited |= is_ready[0];
        Ok(is_ready[3])
    }

    /// Kills the rest of the group and reaps the child. The kill comes before the reaping:
    /// afterwards the system may give the group's number to other processes.
    pub(super) fn finish(&mut self) -> io::Result<ExitStatus> {
        let _ = kill_process_group(self.group, Signal::KILL);
        running_groups::take_out(self.group);
        self.child.wait()
    }
}

/// Reads the bytes that are in `pipe` now, into `keep` or else into `tail` and `sink`. Closes the
/// pipe at its end.
fn drain(
    pipe: &mut Option<OwnedFd>,
    mut keep: Option<(&mut Vec<u8>, usize)>,
    tail: &mut Tail,
    sink: Option<&dyn Sink>,
) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    // Read a bounded number of times: a child that writes without pause must not hide the deadline.
    for _ in 0..64 {
        let Some(fd) = pipe else { break };
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => match &mut keep {
                Some((bytes, limit)) if bytes.len() <= *limit => bytes.extend_from_slice(&buffer[..length]),
                Some(_) => {}
                None => {
                    tail.push(&buffer[..length]);
                    if let Some(sink) = sink {
                        sink.output(&buffer[..length]);
                    }
                }
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
pub(super) struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * TAIL {
            self.0.drain(..self.0.len() - TAIL);
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0[self.0.len().saturating_sub(TAIL)..]).into_owned()
    }
}
