//! Processes by number: their descendants, whether one is alive, and signals to groups.

use std::fmt::Display;
use std::fs;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};

/// The fields of `/proc/<pid>/stat` that tests need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// One letter. `Z`: the process has ended and its parent has not yet waited for it.
    pub state: char,
    /// The program's name, at most 15 characters.
    pub name: String,
}

/// A field of `/proc/<process>/status`, such as `VmRSS`, without its unit.
#[track_caller]
pub fn status_field(process: impl Display, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let field = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a field");
    field.split_whitespace().next().expect("a value").to_owned()
}

/// A field of `/proc/<process>/status` as a number; memory is in KiB.
#[track_caller]
pub fn status_number(process: impl Display, name: &str) -> u64 {
    status_field(process, name).parse().expect("a number")
}

/// All descendants of `ancestor`; none without `/proc`. Misses a process whose parent has died.
pub fn descendants(ancestor: i32) -> Vec<Process> {
    let all = all_processes();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// The members of process group `group` that have not ended.
pub fn group_members(group: i32) -> Vec<Process> {
    all_processes().into_iter().filter(|process| process.group == group && process.state != 'Z').collect()
}

/// Whether process `pid` exists and has not ended.
pub fn is_alive(pid: i32) -> bool {
    let exists = Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
    exists && read_process(pid).is_none_or(|process| process.state != 'Z')
}

/// Kills process group `group` if it still exists.
pub fn kill_group(group: i32) {
    // Never signal group 1 or below: those numbers reach every process.
    if let Some(group) = Pid::from_raw(group).filter(|_| group > 1) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// All live processes with `entry` (`NAME=value`) in their environment. Finds descendants even
/// after they have left their group and lost their parent.
pub fn with_environment(entry: &str) -> Vec<Process> {
    let has_it = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
    };
    all_processes().into_iter().filter(|process| process.state != 'Z' && has_it(process)).collect()
}

fn all_processes() -> Vec<Process> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers.filter_map(|entry| read_process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn read_process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain parentheses and spaces.
    let (head, tail) = stat.rsplit_once(") ")?;
    let mut fields = tail.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, group, state, name: head.split_once('(')?.1.to_owned() })
}

/// The number of sockets that the process has open.
pub fn sockets(pid: i32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").flatten();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).unwrap_or_default();
    entries.map(target).filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}
