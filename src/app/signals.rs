//! Signals: SIGHUP asks for a reload, SIGTERM and SIGINT for a stop. The handlers only set a flag and
//! write a byte to a pipe. A thread sleeps at the other end of the pipe and wakes the loop, which
//! then reads the flags.

use std::io::{self, Read, pipe};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level;

/// The requests by signal that the loop has not yet read.
#[derive(Debug)]
pub(super) struct Signals {
    reload: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    wakes: Option<io::PipeReader>,
}

impl Signals {
    /// Installs the handlers. Call it before anything else: a signal that comes earlier kills the
    /// process.
    ///
    /// # Errors
    /// If the system refuses a pipe or a handler.
    pub(super) fn register() -> io::Result<Self> {
        let (wakes, wake) = pipe()?;
        let signals = Self { reload: Arc::default(), stop: Arc::default(), wakes: Some(wakes) };
        let wanted = [(SIGHUP, &signals.reload), (SIGTERM, &signals.stop), (SIGINT, &signals.stop)];
        for (signal, flag) in wanted {
            // Handlers run in the order of their registration, so the flag is set before the wake-up.
            signal_hook::flag::register(signal, flag.clone())?;
            low_level::pipe::register(signal, OwnedFd::from(wake.try_clone()?))?;
        }
        Ok(signals)
    }

    /// Starts the thread that calls `wake` after each signal. `wake` gets whether a stop was
    /// requested, and returns whether the loop still listens: if not, the thread ends.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(super) fn forward(&mut self, wake: impl Fn(bool) -> bool + Send + 'static) -> io::Result<()> {
        let Some(mut wakes) = self.wakes.take() else { return Ok(()) };
        let stop = self.stop.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            let mut bytes = [0; 64];
            // The pipe has no end: the handlers hold its other end until the process exits.
            while wakes.read(&mut bytes).is_ok_and(|length| length > 0) {
                if !wake(stop.load(Ordering::Relaxed)) {
                    break;
                }
            }
        })?;
        Ok(())
    }

    /// Tells whether SIGHUP has come since the last call.
    pub(super) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// Tells whether SIGTERM or SIGINT has come since the last call.
    pub(super) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }
}
