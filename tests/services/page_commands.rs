//! Commands of the pages that no service's test runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::require;
use crate::support::pages::{commands, page, section};
use crate::support::recipes::Recipe;
use crate::support::wait::PATIENCE;

#[test]
fn webhook_secret_is_never_readable_by_others() {
    let text = page("docs/webhooks.md");
    let lines = commands(section(&text, "## Set up the farm"));
    let home = TempDir::with_prefix("secret-").unwrap();
    let file = home.path().join("webhook-secret");
    let lines = lines.replace("/etc/peipkg-manager", home.path().to_str().unwrap());
    // This machine may lack the user.
    for line in lines.lines().filter(|line| !line.starts_with("chown ")) {
        run(Command::new("sh").arg("-euc").arg(format!("umask 022\n{line}")));
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "after {line}");
    }
    assert_eq!(fs::read_to_string(file).unwrap().trim_end().len(), 64);
}

#[test]
fn reload_command_signals_the_manager_and_with_a_stale_lock_nothing() {
    if !require("fuser") {
        return;
    }
    let text = page("docs/recipes.md");
    let line = text.split('`').find(|code| code.starts_with("fuser ")).expect("the command");
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("app", &repo.file_url())).build();
    let mut daemon = farm.daemon();
    daemon.wait_event("build + publish complete", PATIENCE);
    let lock = farm.state_dir().join("lock");
    let line = line.replace("/var/lib/peipkg-manager/lock", lock.to_str().unwrap());
    run(Command::new("sh").arg("-euc").arg(&line));
    daemon.wait_events("recipe roster loaded", 2, PATIENCE);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
    // Write another process's number into the lock, as after a reboot.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(&lock, format!("{}\n", other.id())).unwrap();
    let output = Command::new("sh").arg("-euc").arg(&line).output().unwrap();
    assert!(!output.status.success(), "the command succeeded with a stale lock");
    assert!(other.try_wait().unwrap().is_none(), "the command signalled a process that is no manager");
    other.kill().unwrap();
    other.wait().unwrap();
}
