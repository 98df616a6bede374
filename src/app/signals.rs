//! Signals: SIGHUP asks for a reload, SIGTERM and SIGINT for a stop. Each handler only writes a byte
//! to a pipe. A thread sleeps at the other ends, counts the bytes and wakes the loop, which then
//! takes the counts. SIGXFSZ is caught only so that it does not end the process.
//!
//! A second stop ends the process even if no other thread answers: the loop may be blocked by a log
//! that nobody reads, and the builder by a dead disk. Then this thread ends the children and exits.

use std::io::{self, Read, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::app::message::Message;
use crate::process::{GRACE, Interrupt, running_groups};

/// How long the other threads have to react to the second stop: a loop at work reacts in
/// milliseconds, and one on a swapping machine should still name the interrupted build.
const REACTION: Duration = Duration::from_secs(2);

/// How long the other threads have to log and clean up when the last child has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often to look for the end of the last child: only then, and for [`GRACE`] at most.
const INTERVAL: Duration = Duration::from_millis(50);

/// The requests by signal that the loop has not yet taken.
#[derive(Debug)]
pub(super) struct Signals {
    requests: Arc<Requests>,
    pipes: Option<Pipes>,
}

#[derive(Debug, Default)]
struct Requests {
    reload: AtomicBool,
    stops: AtomicUsize,
}

/// The reading ends. The handlers hold the other ends until the process exits.
#[derive(Debug)]
struct Pipes {
    reloads: io::PipeReader,
    stops: io::PipeReader,
}

impl Signals {
    /// Installs the handlers. Call it before anything else: a signal that comes earlier kills the
    /// process.
    ///
    /// # Errors
    /// If the system refuses a pipe or a handler.
    pub(super) fn register() -> io::Result<Self> {
        let ((reloads, reload), (stops, stop)) = (pipe()?, pipe()?);
        // One byte for each signal: a flag would merge two that come close together.
        for (signal, end) in [(SIGHUP, &reload), (SIGTERM, &stop), (SIGINT, &stop)] {
            low_level::pipe::register(signal, OwnedFd::from(end.try_clone()?))?;
        }
        // At a limit on the size of files, a write must fail, as on a full disk. Unlike an ignored
        // signal, a handler is not passed on to the children.
        flag::register(Signal::XFSZ.as_raw(), Arc::default())?;
        Ok(Self { requests: Arc::default(), pipes: Some(Pipes { reloads, stops }) })
    }

    /// Starts the thread that sends [`Message::Wake`] after each signal, if a loop waits for it. Once a
    /// stop was requested, it triggers `interrupt` first.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(super) fn forward(
        &mut self,
        messages: Option<Sender<Message>>,
        interrupt: Interrupt,
    ) -> io::Result<()> {
        let Some(mut pipes) = self.pipes.take() else { return Ok(()) };
        let requests = self.requests.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            let mut stops = 0;
            // The thread ends with the process: even after the loop, something may hang.
            while stops < 2 {
                let (reload, new_stops) = pipes.wait();
                stops += new_stops;
                requests.reload.fetch_or(reload, Ordering::Relaxed);
                requests.stops.fetch_add(new_stops, Ordering::Relaxed);
                if stops > 0 {
                    interrupt.trigger();
                }
                // This fails only if the loop has ended.
                if let Some(messages) = &messages {
                    let _ = messages.send(Message::Wake);
                }
            }
            end_process()
        })?;
        Ok(())
    }

    /// Tells whether SIGHUP has come since the last call.
    pub(super) fn take_reload(&self) -> bool {
        self.requests.reload.swap(false, Ordering::Relaxed)
    }

    /// Returns how often SIGTERM or SIGINT has come since the last call.
    pub(super) fn take_stops(&self) -> usize {
        self.requests.stops.swap(0, Ordering::Relaxed)
    }
}

impl Pipes {
    /// Sleeps until a signal comes. Returns whether one was a SIGHUP, and how many were stops.
    fn wait(&mut self) -> (bool, usize) {
        let Self { reloads, stops } = self;
        let mut fds = [reloads.as_fd(), stops.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // An interrupted call reports nothing ready.
        let _ = poll(&mut fds, None);
        let [is_reload, is_stop] = fds.map(|fd| fd.revents().contains(PollFlags::IN));
        // Reading cannot fail: there is a byte, and the other end stays open.
        let read = |pipe: &mut io::PipeReader| pipe.read(&mut [0; 64]).unwrap_or(0);
        (is_reload && read(reloads) > 0, if is_stop { read(stops) } else { 0 })
    }
}

/// Ends the process, and its children with it, unless the other threads do so first.
fn end_process() -> ! {
    thread::sleep(REACTION);
    running_groups::terminate_all();
    let deadline = Instant::now() + GRACE;
    while running_groups::count() > 0 && Instant::now() < deadline {
        thread::sleep(INTERVAL);
    }
    thread::sleep(LAST_WORDS);
    running_groups::kill_all();
    // Log nothing: writing the log may be what hangs.
    process::exit(1)
}
