//! A copy of this machine, in namespaces: it shows the machine's files, and discards all writes at
//! its end. There a test may work as root: install, add users, boot an init system. `machine.sh`
//! beside this file creates it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::git_repo::isolate;
use super::optional::not_permitted;
use super::processes;
use super::running::{Output, Running};
use super::tools::Tools;
use super::wait::{PATIENCE, poll};

/// A copy of this machine. It shares the network, so that loopback addresses are the test's.
pub struct Machine {
    /// `unshare`, whose end ends every process in the copy.
    holder: Running,
    /// The number, on this machine, of the copy's process 1.
    init: i32,
    base: TempDir,
    group: String,
}

impl Machine {
    /// Creates the copy, runs the shell text `prepare` in it, and then `init` as its process 1.
    /// `None` if this process may not do that: skip the calling test.
    #[track_caller]
    pub fn boot(prepare: &str, init: &[&str]) -> Option<Self> {
        if !Self::permitted() {
            return None;
        }
        let base = TempDir::with_prefix("machine-").expect("a temporary directory");
        let name = base.path().file_name().expect("a name").to_string_lossy().into_owned();
        let group = format!("peipkg-test-{name}");
        let mut command = Self::shell(base.path(), &group);
        command.arg(prepare).args(init);
        let mut holder = Running::spawn(&mut command);
        let found = poll(PATIENCE, || {
            if holder.has_ended() {
                return Some(None);
            }
            let child = processes::descendants(holder.pid())
                .into_iter()
                .find(|child| child.parent == holder.pid())?;
            let prepared = PathBuf::from(format!("/proc/{}/root/run/prepared", child.pid));
            prepared.exists().then_some(Some(child.pid))
        });
        match found.flatten() {
            Some(init) => Some(Self { holder, init, base, group }),
            None => panic!("cannot create the copy of the machine\n{holder}"),
        }
    }

    /// Prepares the shell text `script` to run in the copy, as root, up to the first failure.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--cgroup", "--root", "--wd"]);
        command.args(["--", "sh", "-euc", script]);
        clean(&mut command);
        command
    }

    /// Runs `script`, whether it succeeds or not.
    #[track_caller]
    pub fn try_run(&self, script: &str) -> Output {
        Running::spawn(&mut self.command(script)).wait_exit(PATIENCE)
    }

    /// Runs `script` and returns its standard output. Fails the test unless it succeeds.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        self.try_run(script).assert_success().stdout.clone()
    }

    /// The path by which this process reaches the absolute `path` in the copy.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Whether this process may create a copy: root in a container may lack the right.
    fn permitted() -> bool {
        let base = TempDir::with_prefix("machine-").expect("a temporary directory");
        let name = base.path().file_name().expect("a name").to_string_lossy().into_owned();
        let group = format!("peipkg-test-{name}");
        let output = Running::spawn(Self::shell(base.path(), &group).args(["", "true"])).wait_exit(PATIENCE);
        remove_group(base.path(), &group);
        if !output.status.success() {
            let why = output.stderr.lines().next().unwrap_or_default();
            not_permitted(&format!("root's right to mount, in namespaces of its own ({why})"));
        }
        output.status.success()
    }

    /// `machine.sh` with its first two arguments.
    fn shell(base: &Path, group: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let binaries = Tools::manager().ancestors().nth(2).expect("the target directory");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh"]);
        command.arg(root.join("tests/support/machine.sh")).arg(base).arg(group);
        clean(&mut command);
        command.env("MACHINE_NEEDS", format!("{} {}", root.display(), binaries.display()));
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Killing process 1 kills all others in the copy; their control groups can be removed only
        // afterwards.
        processes::kill_group(self.holder.pid());
        poll(PATIENCE, || (self.holder.has_ended() && !processes::is_alive(self.init)).then_some(()));
        remove_group(self.base.path(), &self.group);
    }
}

/// Gives `command` the environment of a login as root.
fn clean(command: &mut Command) {
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", "/root").env("LC_ALL", "C.UTF-8");
    isolate(command).current_dir("/");
}

/// Removes the empty control group `group` and those below it.
fn remove_group(base: &Path, group: &str) {
    let script = "mount -t cgroup2 cgroup2 \"$1\" && find \"$1/$2\" -depth -type d -exec rmdir {} +";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(base).arg(group);
    clean(&mut command);
    // Best effort: an empty group that stays costs nothing.
    Running::spawn(&mut command).wait_exit(PATIENCE);
}
