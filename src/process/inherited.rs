//! The signal state that a parent leaves behind. An ignored or blocked signal survives `exec`, so
//! whoever starts the manager could otherwise decide whether it can be stopped.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::SigSet;
use signal_hook::consts::{FORBIDDEN, SIGPIPE};
use signal_hook::flag;

/// Unblocks all signals, and catches those that the parent ignores, for this process and all its
/// children. Call it before the first thread starts: a thread inherits what is blocked.
///
/// The handlers do nothing, so this process ignores these signals as before, but a child has the
/// default: a handler does not survive `exec`. In particular, the system reports the end of a child
/// only to a process that does not ignore SIGCHLD.
pub(crate) fn reset_signals() {
    let ignored = fs::read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
    for signal in (1..=64).filter(|signal| ignored & 1 << (signal - 1) != 0) {
        // The standard library ignores SIGPIPE in this process and restores it in children. The
        // forbidden signals are those of a fault, which the system delivers although it is ignored.
        if signal != SIGPIPE && !FORBIDDEN.contains(&signal) {
            // An error leaves the signal as the parent wanted it.
            let _ = flag::register(signal, Arc::<AtomicBool>::default());
        }
    }
    // This cannot fail: the set is valid.
    let _ = SigSet::empty().thread_set_mask();
}

/// Reads the set of ignored signals from `/proc/<pid>/status`.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}
