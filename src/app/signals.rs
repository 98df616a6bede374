//! Signals as flags and a wake-up: SIGHUP asks for a reload, SIGTERM and SIGINT
//! for the end. The handlers only set a flag and write a byte; a thread that
//! sleeps on the other end of that pipe tells the loop to look at the flags.

use std::io::{self, Read, pipe};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// What signals have asked for since the loop looked last.
#[derive(Debug)]
pub(super) struct Signals {
    reload: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    wakes: Option<io::PipeReader>,
}

impl Signals {
    /// Installs the handlers. To be called before any thread is started, so that
    /// no signal is ever met by the default action.
    ///
    /// # Errors
    /// When the system refuses a pipe or a handler.
    pub(super) fn register() -> io::Result<Self> {
        let (wakes, wake) = pipe()?;
        let signals = Self { reload: Arc::default(), stop: Arc::default(), wakes: Some(wakes) };
        let wanted = [(SIGHUP, &signals.reload), (SIGTERM, &signals.stop), (SIGINT, &signals.stop)];
        for (signal, asked) in wanted {
            // Handlers run in the order of their registration: the flag is set before the wake-up.
            flag::register(signal, asked.clone())?;
            low_level::pipe::register(signal, OwnedFd::from(wake.try_clone()?))?;
        }
        Ok(signals)
    }

    /// Starts the thread that calls `wake` after each signal, with whether the end
    /// was asked for, until `wake` says that nobody listens.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(super) fn forward(&mut self, wake: impl Fn(bool) -> bool + Send + 'static) -> io::Result<()> {
        let Some(mut wakes) = self.wakes.take() else { return Ok(()) };
        let stop = self.stop.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            let mut bytes = [0; 64];
            // The pipe cannot end: the handlers hold its other end for as long as the process lives.
            while wakes.read(&mut bytes).is_ok_and(|length| length > 0) {
                if !wake(stop.load(Ordering::Relaxed)) {
                    break;
                }
            }
        })?;
        Ok(())
    }

    /// Whether SIGHUP has come since the last call.
    pub(super) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGTERM or SIGINT has come since the last call.
    pub(super) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }
}
