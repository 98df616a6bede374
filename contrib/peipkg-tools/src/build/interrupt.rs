//! Being asked to stop: the build script is told, what was begun is cleaned up,
//! and the command fails.
//!
//! A script's own children are told where that is safe: if this process leads
//! its process group, as under the manager and as a shell's job, the group is the
//! build's. The script stays in that group, so that a KILL of the group ends all
//! of it. In somebody else's group, only the script itself is told.

use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Watches for signals that ask the program to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    state: Arc<Mutex<State>>,
}

/// The program was asked to stop.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by signal {0}")]
pub struct Interrupted(i32);

#[derive(Debug, Default)]
struct State {
    signal: Option<i32>,
    child: Option<Pid>,
    /// Whether the group has been told; what it is told comes back here, too.
    told: bool,
}

impl Interrupt {
    /// Starts to watch, in a thread of its own.
    pub fn watch() -> io::Result<Self> {
        let interrupt = Self::default();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let watched = interrupt.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                watched.note(signal);
            }
        })?;
        Ok(interrupt)
    }

    /// Fails once a signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.with(|state| state.signal).map_or(Ok(()), |signal| Err(Interrupted(signal)))
    }

    /// Names the child that is to be told; `None` before it is reaped, so that
    /// nobody else who is given its number is told instead.
    pub fn set_child(&self, child: Option<Pid>) {
        let asked = self.with(|state| {
            state.child = child;
            state.signal
        });
        if let Some(signal) = asked {
            self.note(signal);
        }
    }

    fn note(&self, signal: i32) {
        self.with(|state| {
            state.signal = Some(signal);
            let Some(child) = state.child else { return };
            // It may have ended by itself, which is as good.
            let _ = kill_process(child, Signal::TERM);
            if !state.told && getpgrp() == getpid() {
                state.told = true;
                let _ = kill_process_group(getpgrp(), Signal::TERM);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // The state is two independent values; a panic cannot leave it inconsistent.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
