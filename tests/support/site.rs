//! A farm for an init system to run: files of another user, the programs in one directory, a build
//! that waits at a latch. It kills every process that a test leaves.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use super::executable;
use super::farm::Farm;
use super::git_repo::GitRepo;
use super::latch::Latch;
use super::logfmt::{self, Event};
use super::processes;
use super::recipes::Recipe;
use super::tools::Tools;
use super::wait::{PATIENCE, wait_until};

/// The user that root runs services as: every machine has it, and it owns no files.
const USER: &str = "nobody";

/// The number of [`USER`] and of its group.
const USER_ID: u32 = 65534;

/// The environment variable that marks the processes of a site.
const MARK: &str = "PEIPKG_TEST_SITE";

/// A farm for a service. Dropping it kills the processes with its mark in their environment.
pub struct Site {
    /// The farm. Its one recipe, `slow`, has one version, whose build waits at the latch.
    pub farm: Farm,
    /// The latch at which the build waits.
    pub latch: Latch,
    upstream: GitRepo,
}

impl Site {
    /// Creates a farm that belongs to the service's user: [`USER`] if the test runs as root, else
    /// the test's own.
    pub fn new() -> Self {
        let (upstream, latch) = (GitRepo::program(&["1.0"]), Latch::new());
        let slow = Recipe::program("slow", &upstream.file_url()).before_build(&latch.script());
        let farm = Farm::builder().with(&slow).build();
        let tools = Tools::get();
        for program in [&tools.manager, &tools.build, &tools.repo] {
            place(program, &farm.bin_dir().join(program.file_name().expect("a file name")));
        }
        if is_root() {
            for directory in [farm.home(), upstream.path(), &latch.path("")] {
                give_away(directory);
            }
            let above = upstream.path().parent().expect("a parent");
            fs::set_permissions(above, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        Self { farm, latch, upstream }
    }

    /// The user of the service; empty for the test's own.
    pub fn user() -> &'static str {
        if is_root() { USER } else { "" }
    }

    /// The number of that user.
    pub fn user_id() -> u32 {
        if is_root() { USER_ID } else { rustix::process::getuid().as_raw() }
    }

    /// The manager's program.
    pub fn daemon(&self) -> PathBuf {
        self.farm.bin_dir().join("peipkg-manager")
    }

    /// The settings common to all services, as shell lines.
    pub fn settings(&self) -> String {
        let mut text = String::new();
        text += &format!("DAEMON={}\n", self.daemon().display());
        text += &format!("CONFIG={}\n", self.farm.config_path().display());
        text += &format!("RUN_AS={}\n", Self::user());
        text += "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1\n";
        text + &format!("export {}\n", self.mark())
    }

    /// Copies a file of `contrib` to `to`, executable, and replaces the value of the assignment
    /// `NAME=` by `value` for each pair.
    #[track_caller]
    pub fn install(from: &str, to: &Path, assignments: &[(&str, &Path)]) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(from);
        let mut text = fs::read_to_string(&source).unwrap_or_else(|error| panic!("{from}: {error}"));
        for (name, value) in assignments {
            let start = format!("{name}=");
            let found: Vec<&str> = text.lines().filter(|line| line.starts_with(&start)).collect();
            assert!(found.len() == 1, "{from} assigns {name} {} times", found.len());
            text = text.replace(found[0], &format!("{start}{}", value.display()));
        }
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        executable::write(to, text.as_bytes());
    }

    /// Adds a recipe that takes no version of the upstream.
    pub fn add_recipe(&self, id: &str) {
        self.farm.add(&Recipe::program(id, &self.upstream.file_url()).tag_pattern("^never-(1)$"));
    }

    /// Adds a recipe that cannot be built, and returns how the check says so.
    pub fn add_unbuildable(&self) -> String {
        self.farm.add(&Recipe::manual("unbuildable"));
        fs::remove_file(self.farm.recipes_dir().join("unbuildable/build.sh")).expect("a build script");
        "its builds will fail: build_script \"build.sh\"".to_owned()
    }

    /// Breaks the configuration, and returns the error that the manager reports for it.
    pub fn break_config(&self) -> String {
        let text = fs::read_to_string(self.farm.config_path()).expect("the configuration");
        let broken = text.replace("default_interval = \"1000h\"", "default_interval = 3");
        assert_ne!(text, broken);
        fs::write(self.farm.config_path(), broken).expect("the configuration");
        let line = text.lines().position(|line| line.starts_with("default_interval")).expect("a line") + 1;
        let config = self.farm.config_path();
        format!("{}:{line}: [poll] default_interval: expected a string, found integer", config.display())
    }

    /// Undoes [`Site::break_config`].
    pub fn mend_config(&self) {
        let text = fs::read_to_string(self.farm.config_path()).expect("the configuration");
        let whole = text.replace("default_interval = 3", "default_interval = \"1000h\"");
        fs::write(self.farm.config_path(), whole).expect("the configuration");
    }

    /// Waits for `count` events `message` in the log at `log`, and returns all of them.
    #[track_caller]
    pub fn wait_events(log: &Path, message: &str, count: usize) -> Vec<Event> {
        let mut found = Vec::new();
        let deadline = format!("{count} of {message:?} in {}", log.display());
        wait_until(&deadline, PATIENCE, || {
            let text = fs::read_to_string(log).unwrap_or_default();
            found = logfmt::events(&text).into_iter().filter(|event| event["msg"] == message).collect();
            found.len() >= count
        });
        found
    }

    /// Fails the test unless the log at `log` ends with one build, finished and published while the
    /// manager was stopping.
    #[track_caller]
    pub fn assert_drained(&self, log: &Path) {
        let events = logfmt::events(&fs::read_to_string(log).expect("the log"));
        let messages: Vec<&str> = events.iter().map(|event| event["msg"].as_str()).collect();
        let last = &messages[messages.len().saturating_sub(3)..];
        let expected =
            ["stopping after the build in progress", "build + publish complete", "peipkg-manager stopped"];
        assert_eq!(last, expected, "{messages:?}");
        self.farm.assert_published(&["slow 1.0-1 noarch"]);
        self.farm.assert_verifies();
        self.farm.assert_clean();
    }

    /// The running manager of this site, if there is exactly one.
    pub fn manager(&self) -> Option<i32> {
        let found = processes::with_environment(&self.mark());
        let mut managers = found.iter().filter(|process| process.name == "peipkg-manager");
        let pid = managers.next()?.pid;
        managers.next().is_none().then_some(pid)
    }

    /// Fails the test unless process `pid` runs as the service's user, with the user's home and with
    /// the programs' directory in front of its `PATH`.
    #[track_caller]
    pub fn assert_users(&self, pid: i32) {
        let owner = fs::metadata(format!("/proc/{pid}")).expect("the process").uid();
        assert_eq!(owner, Self::user_id());
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("the environment");
        let environment = String::from_utf8(environment).expect("text");
        let value = |name: &str| {
            environment.split('\0').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
        };
        let bin = format!("{}:", self.farm.bin_dir().display());
        assert!(value("PATH").is_some_and(|path| path.starts_with(&bin)), "{environment:?}");
        if is_root() {
            assert_eq!((value("USER"), value("HOME")), (Some(USER), Some("/nonexistent")));
        }
    }

    fn mark(&self) -> String {
        format!("{MARK}={}", self.farm.home().display())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Build scripts lack the mark: open the latch, so that they end by themselves.
        self.latch.open();
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        for process in processes::with_environment(&self.mark()) {
            let children = processes::descendants(process.pid);
            let groups = children.iter().chain([&process]).map(|process| process.group);
            groups.filter(|group| *group != own).for_each(processes::kill_group);
        }
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Copies or links `program` to `to`, for users who cannot enter the directory where it was built.
fn place(program: &Path, to: &Path) {
    if fs::hard_link(program, to).is_err() {
        executable::copy(program, to);
    }
}

/// Gives `path` and everything below it to the service's user.
fn give_away(path: &Path) {
    let meta = fs::symlink_metadata(path).expect("a file");
    // Do not give away a hard link: the owner would change at the other path too.
    if meta.is_dir() || meta.nlink() == 1 {
        lchown(path, Some(USER_ID), Some(USER_ID)).expect("an owner");
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            give_away(&entry.expect("an entry").path());
        }
    }
}
