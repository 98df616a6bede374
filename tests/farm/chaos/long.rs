//! The same with indexes of more than a megabyte, which take long to write, to copy and to read; also on
//! a file system that shares blocks between files.
//!
//! For that, the test runs itself again on Btrfs, which only that process and its children mount.

use std::env;
use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::{World, kill};
use crate::long_index::fill;
use crate::support::farm::Farm;
use crate::support::optional::not_permitted;
use crate::support::random::number_from_environment;
use crate::support::tools::Tools;

/// The kills of the short form on each file system: one or more for each kind of round.
const KILLS: u64 = 6;

/// Is set in a process whose temporary directory is on Btrfs.
const ON_BTRFS: &str = "PEIPKG_CHAOS_BTRFS";

/// Mounts the new file system `$1` at the temporary directory and runs the other arguments.
const MOUNT: &str = "mount -o loop \"$1\" \"$TMPDIR\" && shift && exec \"$@\"";

/// Creates the repository of `farm`, with long indexes.
pub(super) fn make_repository(farm: &Farm) {
    let repo = farm.repo_dir();
    fs::create_dir_all(farm.state_dir()).expect("the state directory");
    let mut init = Command::new(&Tools::get().repo);
    init.args(["init", "--name", "farm", "--timestamp", "2026-01-01T00:00:00Z", "--sign-key"]);
    let output = init.arg(farm.key_path()).arg("--out").arg(&repo).output().expect("peipkg-repo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fill(&repo, &farm.key_path());
}

#[test]
fn manager_killed_at_any_instant_loses_no_long_index() {
    let kills = number_from_environment("PEIPKG_CHAOS_KILLS", KILLS);
    let seed = number_from_environment("PEIPKG_CHAOS_SEED", 1);
    println!("PEIPKG_CHAOS_SEED={seed} PEIPKG_CHAOS_KILLS={kills}");
    kill(&World::of(if kills > KILLS { 9 } else { 3 }, true), kills, seed);
    if env::var_os(ON_BTRFS).is_some() {
        return;
    }
    let home = TempDir::with_prefix("btrfs-").expect("a temporary directory");
    let (disk, image) = (home.path().join("disk"), home.path().join("image"));
    fs::create_dir(&disk).expect("a mount point");
    let make = Command::new("sh")
        .args(["-c", "truncate -s 1G \"$1\" && mkfs.btrfs -q \"$1\"", "sh"])
        .arg(&image)
        .output();
    let mounted = |program: &str| {
        let mut command = Command::new("unshare");
        command.env("TMPDIR", &disk).env(ON_BTRFS, "1").args(["-m", "sh", "-c", MOUNT, "sh"]);
        command.arg(&image).arg(program);
        command
    };
    let can_mount = make.is_ok_and(|output| output.status.success())
        && mounted("true").output().is_ok_and(|output| output.status.success());
    if !can_mount {
        not_permitted("mkfs.btrfs and loop devices");
        return;
    }
    let this = env::current_exe().expect("this test");
    let mut again = mounted(&this.display().to_string());
    again.args(["--exact", "chaos::long::manager_killed_at_any_instant_loses_no_long_index", "--nocapture"]);
    assert!(again.status().expect("unshare runs").success(), "the output above says what failed");
}
