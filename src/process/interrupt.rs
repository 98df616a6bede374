//! The switch that ends children early. It kills nothing itself: the thread that runs a child
//! watches it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Ends every child that runs with it, now and later. Clones share one switch.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<InterruptPipe>);

/// A byte in the pipe means triggered. No thread reads the byte, so every thread sees it.
#[derive(Debug)]
struct InterruptPipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Interrupt {
    /// Creates a switch that is off.
    ///
    /// # Errors
    /// If the manager has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags)?;
        Ok(Self(Arc::new(InterruptPipe { read, write })))
    }

    /// Switches it on. Nothing switches it off.
    pub fn trigger(&self) {
        // A full pipe holds thousands of earlier triggers, so this one may be lost.
        let _ = rustix::io::write(&self.0.write, b"!");
    }

    /// Returns a file descriptor that becomes readable once the switch is on.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.read.as_fd()
    }

    /// Tells whether the switch is on.
    pub fn is_triggered(&self) -> bool {
        let mut fds = [PollFd::new(&self.0.read, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}
