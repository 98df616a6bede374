//! The process groups of the children that run now, so that the process can end them even if the
//! threads that run them hang. Whoever starts a child adds its group and takes it out again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// Each group, from the start of its child until before the child is reaped.
static GROUPS: Mutex<Vec<Group>> = Mutex::new(Vec::new());

struct Group {
    id: Pid,
    /// Whether it has got SIGTERM. A second one could interrupt its cleaning up.
    is_terminated: bool,
}

/// Adds the group of a child.
pub(super) fn add(id: Pid) {
    groups().push(Group { id, is_terminated: false });
}

/// Takes out a group. Call it before reaping the child: afterwards the system may give the group's
/// number to other processes.
pub(super) fn take_out(id: Pid) {
    groups().retain(|group| group.id != id);
}

/// Sends SIGTERM to a group, unless it has got one.
pub(super) fn terminate(id: Pid) {
    groups().iter_mut().filter(|group| group.id == id).for_each(Group::terminate);
}

/// Sends SIGTERM to every group that has not got one.
pub(crate) fn terminate_all() {
    groups().iter_mut().for_each(Group::terminate);
}

/// Sends SIGKILL to every group.
pub(crate) fn kill_all() {
    for group in groups().iter() {
        let _ = kill_process_group(group.id, Signal::KILL);
    }
}

/// Returns how many children run.
pub(crate) fn count() -> usize {
    groups().len()
}

impl Group {
    fn terminate(&mut self) {
        if !self.is_terminated {
            let _ = kill_process_group(self.id, Signal::TERM);
            self.is_terminated = true;
        }
    }
}

fn groups() -> MutexGuard<'static, Vec<Group>> {
    // A panic elsewhere leaves the list whole.
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}
