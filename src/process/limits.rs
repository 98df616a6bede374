//! The limits of a child's memory and disk space. Starts no child.
//!
//! The system limits each process: a shell sets the limits and then becomes the child. Setting them
//! on the started child would come too late for what it has already started, and setting them
//! between fork and exec needs `unsafe` code. The manager looks at what the child's whole group
//! uses, now and then.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use peipkg_format::size;
use rustix::process::{Pid, Resource, Signal, getrlimit};

use super::live;

/// The shell that sets the limits. Build scripts need one too.
const SHELL: &str = "/bin/sh";

/// The least time between two looks at what a child uses. A disk may take some hundred MiB in this
/// time.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How much longer than a look the pause after it is: looking at a large tree must not keep a core
/// busy.
const PAUSE: u32 = 4;

/// The bytes that each file, link and directory counts at least: one block. So the limit also bounds
/// their number.
const BLOCK: u64 = 4096;

/// A limit in bytes, and the setting that raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The bytes allowed.
    pub bytes: u64,
    /// The configuration key, such as `[git] memory_limit`; `None` if the limit is fixed.
    pub key: Option<&'static str>,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = size::format(self.bytes);
        match self.key {
            Some(key) => write!(f, "{key} = {bytes} allows"),
            None => write!(f, "its fixed limit of {bytes} allows"),
        }
    }
}

/// How much a child and its descendants may write below some directories.
#[derive(Debug, Clone)]
pub(crate) struct DiskLimit {
    /// The directories that count. They need not exist.
    pub directories: Vec<PathBuf>,
    /// The bytes that were there before.
    pub before: u64,
    /// The bytes that may be added.
    pub limit: Limit,
}

/// A limit that a running child has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    Memory(Limit),
    Disk(Limit),
}

/// Looks now and then at what a child's group has allocated and written.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    group: Pid,
    memory: Option<Limit>,
    disk: Option<&'a DiskLimit>,
    next_look: Instant,
}

impl<'a> Watch<'a> {
    pub(super) fn new(group: Pid, memory: Option<Limit>, disk: Option<&'a DiskLimit>) -> Self {
        Self { group, memory, disk, next_look: Instant::now() + LOOK_INTERVAL }
    }

    /// Returns the time of the next look; `None` if nothing is limited.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.memory.is_some() || self.disk.is_some()).then_some(self.next_look)
    }

    /// Looks, if it is time to.
    pub(super) fn look_if_due(&mut self) -> Option<Exceeded> {
        let begun = Instant::now();
        if self.next_look().is_none_or(|next| begun < next) {
            return None;
        }
        let memory = self.memory.filter(|limit| memory_of_group(self.group) > limit.bytes);
        let exceeded = memory.map(Exceeded::Memory).or_else(|| self.look_at_disk());
        self.next_look = Instant::now() + (begun.elapsed() * PAUSE).max(LOOK_INTERVAL);
        exceeded
    }

    /// Looks at what the child has written, as a last time when it has exited.
    pub(super) fn look_at_disk(&self) -> Option<Exceeded> {
        let disk = self.disk?;
        let allowed = disk.before.saturating_add(disk.limit.bytes);
        (disk_usage(&disk.directories, allowed) > allowed).then_some(Exceeded::Disk(disk.limit))
    }
}

/// Sums up the memory that the processes of `group` have allocated and use, in bytes. Files that
/// they map do not count.
fn memory_of_group(group: Pid) -> u64 {
    let mut sum = 0;
    for process in live::all().filter(|process| process.group == group) {
        let status = format!("/proc/{}/status", process.pid.as_raw_nonzero());
        let status = fs::read_to_string(status).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        sum += kib.unwrap_or_default() * 1024;
    }
    sum
}

/// Sums up what `directories` take on disk, and stops at the first sum above `enough`. Skips what
/// vanishes meanwhile or cannot be read. Follows no links.
pub(crate) fn disk_usage(directories: &[PathBuf], enough: u64) -> u64 {
    let mut sum = 0_u64;
    let mut left = directories.to_vec();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            // A file just written may have no blocks yet, and a small one takes a whole block.
            sum = sum.saturating_add(metadata.len().max(metadata.blocks() * 512).max(BLOCK));
            if sum > enough {
                return sum;
            }
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    sum
}

/// Prepares `program`, so that each process that it becomes or starts may allocate `memory` and
/// write files of the size `file`.
pub(super) fn command(program: &Path, memory: Option<Limit>, file: Option<Limit>) -> Command {
    if memory.is_none() && file.is_none() {
        return Command::new(program);
    }
    // A file that is too large ends its writer with a signal, which would leave a core dump.
    let mut script = String::from("ulimit -c 0");
    // POSIX counts files in units of 512 bytes, and shells count memory in KiB.
    for (limit, resource, option, unit) in
        [(memory, Resource::Data, "d", 1024), (file, Resource::Fsize, "f", 512)]
    {
        if let Some(limit) = limit {
            // A process without privileges cannot raise the limit that the manager itself has.
            let bytes = getrlimit(resource).current.map_or(limit.bytes, |own| own.min(limit.bytes));
            script.extend([" && ulimit -", option, " ", &(bytes / unit).to_string()]);
        }
    }
    script += " && exec \"$@\"";
    let mut command = Command::new(SHELL);
    command.args(["-c", &script, "sh"]).arg(program);
    command
}

/// Returns which of its limits ended a child that failed, or a process that it started.
pub(super) fn exceeded(
    status: ExitStatus,
    tail: &str,
    memory: Option<Limit>,
    file: Option<Limit>,
) -> Option<Exceeded> {
    let file = file.filter(|_| wrote_too_long_a_file(status, tail));
    let memory = memory.filter(|_| lacked_memory(tail));
    file.map(Exceeded::Disk).or(memory.map(Exceeded::Memory))
}

/// Returns whether the last output says that a process was refused memory. What a server says does
/// not count.
fn lacked_memory(tail: &str) -> bool {
    let complains =
        |line: &str| ["ut of memory", "annot allocate memory"].iter().any(|text| line.contains(text));
    tail.lines().any(|line| !line.trim_start().starts_with("remote:") && complains(line))
}

/// Returns whether the system ended a process because of a file's size.
fn wrote_too_long_a_file(status: ExitStatus, tail: &str) -> bool {
    let signal = Signal::XFSZ.as_raw();
    status.signal() == Some(signal)
        || tail.lines().any(|line| line.ends_with(&format!("died of signal {signal}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_usage_counts_a_block_for_each_entry_and_follows_no_link() {
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/empty"), "").unwrap();
        fs::write(home.path().join("outside"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("../outside", tree.join("link")).unwrap();
        std::os::unix::fs::symlink("..", tree.join("up")).unwrap();
        let usage = |enough| disk_usage(&[tree.clone(), home.path().join("none")], enough);
        let small = usage(u64::MAX);
        assert!((4 * BLOCK..100_000).contains(&small), "{small}");
        fs::write(tree.join("sub/large"), vec![1; 1_000_000]).unwrap();
        let large = usage(u64::MAX);
        assert!((1_000_000 + small..1_100_000 + small).contains(&large), "{large}");
        assert!(usage(BLOCK) > BLOCK);
    }

    #[test]
    fn complaint_of_the_server_is_no_lack_of_memory_here() {
        assert!(lacked_memory("fatal: Out of memory, malloc failed (tried to allocate 9 bytes)\nfatal: x"));
        assert!(lacked_memory("git-remote-https: error: libx.so.6: Cannot allocate memory"));
        assert!(!lacked_memory("remote: fatal: Out of memory, malloc failed\nfatal: early EOF"));
        assert!(!lacked_memory("fatal: early EOF"));
    }
}
