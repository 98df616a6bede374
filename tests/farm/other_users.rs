//! Other users of the machine: they hold no lock of the farm, write nothing in it, and lead no write
//! elsewhere by a link.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::farm::{Farm, remote_directory};
use crate::support::git_repo::{GitRepo, run};
use crate::support::latch::Latch;
use crate::support::optional::{not_permitted, require};
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::PATIENCE;

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Tries to lock the file as another user. Returns whether that user got the lock.
fn may_lock(path: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "flock", "--nonblock"]);
    command.arg(path).arg("true").stderr(Stdio::null()).status().unwrap().success()
}

/// The files and directories below `directory` that everybody may write to.
fn world_writable(directory: &Path) -> String {
    run(Command::new("find").arg(directory).args(["-perm", "-o+w", "!", "-type", "l"]))
}

#[test]
fn locks_cannot_be_held_by_another_user() {
    if !require("setpriv") || !require("flock") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return not_permitted("root, to become another user");
    }
    let Some((_home, remote)) = remote_directory() else { return };
    let (repo, latch) = (GitRepo::program(&["1.0", "1.1"]), Latch::new());
    let slow = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&slow).rclone(&remote).build();
    set_mode(farm.home(), 0o755);
    // Files of an earlier manager under umask 000.
    fs::create_dir(farm.state_dir()).unwrap();
    for name in ["lock", "tool-lock", "upload-lock"] {
        fs::write(farm.state_dir().join(name), "").unwrap();
        set_mode(&farm.state_dir().join(name), 0o666);
        assert!(may_lock(&farm.state_dir().join(name)), "{name}");
    }
    let mut daemon = farm.daemon();
    latch.wait_reached();
    assert!(!may_lock(&farm.path("state/lock")));
    latch.open();
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    daemon.wait_event("upload complete", PATIENCE);
    for name in ["lock", "tool-lock", "upload-lock"] {
        assert!(!may_lock(&farm.state_dir().join(name)), "{name}");
        assert_eq!(mode_of(&farm.state_dir().join(name)), 0o600, "{name}");
    }
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
}

#[test]
fn publish_does_not_wait_for_a_lock_on_the_repositorys_directory() {
    if !require("flock") {
        return;
    }
    // Everybody may open this directory, because a web server does.
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    repo.add_versions(&["1.1"]);
    let mut holder = Command::new("flock");
    let mark = farm.path("held");
    holder.arg(farm.repo_dir()).args(["sh", "-c", ": >\"$0\"; exec sleep 1000"]).arg(&mark);
    let holder = Running::spawn(&mut holder);
    crate::support::wait::wait_until("the lock is held", PATIENCE, || mark.exists());
    farm.once().assert_success();
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    drop(holder);
}

#[test]
fn umask_of_any_kind_lets_nobody_else_write() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    for umask in ["000", "002", "007", "020", "777"] {
        let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
        let mut command = farm.command(&["--once", "--config"]);
        command.arg(farm.config_path());
        let mut shell = farm.shell(&command, &format!("umask {umask}; exec \"$@\""));
        Running::spawn(&mut shell).wait_exit(PATIENCE).assert_success();
        farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
        assert_eq!(world_writable(&farm.state_dir()), "", "{umask}");
        assert_eq!(mode_of(&farm.path("state/lock")), 0o600);
        assert_eq!(mode_of(&farm.repo_dir()), 0o755, "{umask}");
    }
}

#[test]
fn directories_writable_by_all_are_mended() {
    let farm = Farm::builder().with(&Recipe::manual("tool")).build();
    farm.once().assert_success();
    let directories =
        ["state", "state/repo", "state/repo/index", "state/repo/keys", "state/publish", "state/logs"];
    for name in directories {
        set_mode(&farm.path(name), 0o777);
    }
    farm.once().assert_success();
    assert_eq!(world_writable(&farm.state_dir()), "");
    assert_eq!(mode_of(&farm.repo_dir()), 0o775);
    // A directory for all users, such as /tmp, is left alone.
    set_mode(&farm.state_dir(), 0o1777);
    farm.once().assert_success();
    assert_eq!(mode_of(&farm.state_dir()), 0o1777);
}

#[test]
fn link_as_a_control_file_changes_no_other_file() {
    let repo = GitRepo::program(&["1.0"]);
    let victim = "precious";
    for (name, reason) in [("lock", Some("state/lock: ")), ("tool-lock", Some("state/tool-lock: "))] {
        let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
        fs::create_dir(farm.state_dir()).unwrap();
        fs::write(farm.path("victim"), victim).unwrap();
        symlink(farm.path("victim"), farm.state_dir().join(name)).unwrap();
        let output = farm.once();
        output.assert_code(1).assert_one_line(&[reason.unwrap_or_default(), "is not a regular file"]);
        assert_eq!(fs::read_to_string(farm.path("victim")).unwrap(), victim);
    }
    let farm = Farm::builder().with(&Recipe::manual("tool")).build();
    fs::create_dir(farm.state_dir()).unwrap();
    let key = fs::read(farm.key_path()).unwrap();
    fs::hard_link(farm.key_path(), farm.path("state/lock")).unwrap();
    farm.once().assert_code(1).assert_one_line(&["state/lock: is another file's hard link"]);
    assert_eq!(fs::read(farm.key_path()).unwrap(), key);
    // Markers of an upload: a link that leads nowhere creates no file elsewhere.
    let Some((_home, remote)) = remote_directory() else { return };
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).rclone(&remote).build();
    fs::create_dir(farm.state_dir()).unwrap();
    for name in ["upload-owed", "upload-begun"] {
        symlink(farm.path("elsewhere"), farm.state_dir().join(name)).unwrap();
    }
    farm.once().assert_success().event("upload complete");
    assert!(!farm.path("elsewhere").exists());
}

#[test]
fn lock_of_a_stranger_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return not_permitted("root, to give a file away");
    }
    let farm = Farm::builder().with(&Recipe::manual("tool")).build();
    fs::create_dir(farm.state_dir()).unwrap();
    let lock = farm.path("state/lock");
    fs::write(&lock, "").unwrap();
    std::os::unix::fs::chown(&lock, Some(65534), None).unwrap();
    farm.once()
        .assert_code(1)
        .assert_one_line(&["state/lock: belongs to user 65534, who could hold the lock"]);
    // Root may work in a user's state directory.
    std::os::unix::fs::chown(farm.state_dir(), Some(65534), None).unwrap();
    farm.once().assert_success();
}
