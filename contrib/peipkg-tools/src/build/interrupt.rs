//! Signals that ask the program to stop. Passes them on to the build script; the command then
//! fails, and its temporary files are removed.
//!
//! If this process leads its process group, as a shell's job does, the group belongs to the build:
//! the signal goes to the whole group, and so to the script's children. In a group with another
//! leader, the signal goes to the script alone; the manager signals the whole group itself. The
//! script stays in the group of this process, so that a KILL of the group ends the script as well.

use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process, kill_process_group};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Remembers and passes on the signals that ask the program to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    state: Arc<Mutex<State>>,
}

/// A signal asked the program to stop.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by signal {0}")]
pub struct Interrupted(i32);

#[derive(Debug, Default)]
struct State {
    signal: Option<i32>,
    child: Option<Pid>,
    /// Whether the group was signalled. This process is in the group and receives its own signal,
    /// which must not make it signal the group again.
    group_signalled: bool,
}

impl Interrupt {
    /// Starts a thread that waits for signals.
    pub fn watch() -> io::Result<Self> {
        // The system reports the end of a child only to a process that does not ignore SIGCHLD, and
        // the parent may have ignored it.
        flag::register(SIGCHLD, Arc::default())?;
        let interrupt = Self::default();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let watched = interrupt.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                watched.forward(signal);
            }
        })?;
        Ok(interrupt)
    }

    /// Fails once a signal has arrived.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.with(|state| state.signal).map_or(Ok(()), |signal| Err(Interrupted(signal)))
    }

    /// Sets the child that receives signals. Must be `None` before the child is reaped: its process
    /// id may then belong to another process.
    pub fn set_child(&self, child: Option<Pid>) {
        let received = self.with(|state| {
            state.child = child;
            state.signal
        });
        if let Some(signal) = received {
            self.forward(signal);
        }
    }

    fn forward(&self, signal: i32) {
        self.with(|state| {
            state.signal = Some(signal);
            let Some(child) = state.child else { return };
            // Fails if the child has ended by itself, which is as good.
            let _ = kill_process(child, Signal::TERM);
            if !state.group_signalled && getpgrp() == getpid() {
                state.group_signalled = true;
                let _ = kill_process_group(getpgrp(), Signal::TERM);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // The fields are independent, so a panic cannot leave them inconsistent.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
