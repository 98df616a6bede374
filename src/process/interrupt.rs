//! The switch that ends children early.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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

    /// What becomes readable when it is switched on.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.read.as_fd()
    }

    /// Whether it is on.
    pub fn is_triggered(&self) -> bool {
        let mut fds = [PollFd::new(&self.0.read, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}
