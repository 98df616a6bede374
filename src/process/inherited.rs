//! The signal state and the open files that a parent leaves behind. Both survive `exec`: whoever
//! starts the manager could otherwise decide whether it can be stopped, and hand files to builds.

use std::fs;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::SigSet;
use nix::unistd::close;
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

/// Closes all files above standard error, in a process that has opened none itself: the supervisor
/// of a build. A build could read them, and its leftovers could hold a lock. The manager keeps them:
/// `setlock` and the like hand it a lock to hold.
pub(crate) fn close_files() {
    // Without `/proc` nothing tells which files are open.
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // The list itself is closed before the loop: its number, which it has too, is then unused.
    let numbers: Vec<RawFd> = numbers.collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        let _ = close(number);
    }
}

/// Reads the set of ignored signals from `/proc/<pid>/status`.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}
