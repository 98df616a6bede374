//! `[build] reproduce` where `faketime` is: the second build has another clock, and leaves nothing of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::reproducing::{REPRODUCE, assert_differs, log, making};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::optional::{find_program, require};
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, wait_until};

use rustix::process::Signal;

/// Lets `farm` find the machine's `faketime`.
fn with_faketime(farm: &Farm) {
    std::os::unix::fs::symlink(find_program("faketime").unwrap(), farm.bin_dir().join("faketime")).unwrap();
}

#[test]
fn clock_is_another_where_faketime_is_there() {
    if !require("faketime") {
        return;
    }
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder()
        .with(&making(&repo.file_url(), "date +%Y >\"$made\""))
        .config_extra(REPRODUCE)
        .build();
    with_faketime(&farm);
    assert_differs(&farm);
    assert!(log(&farm).contains(", time zone, clock\n"), "{}", log(&farm));
    let fails = "[ \"$(date +%Y)\" = \"$(env -u LD_PRELOAD date +%Y)\" ]";
    farm.add(&making(&repo.file_url(), &format!("set -e\n{fails}")));
    let error = farm.once().event("build failed")["error"].clone();
    let expected = "the second build, with another clock, failed, the first did not: peipkg-build build ";
    assert!(error.starts_with(expected), "{error}");
}

/// The files in `/dev/shm` whose names a script wrote to `seen`.
fn files_of_faketime(seen: &Path) -> Vec<PathBuf> {
    let names = fs::read_to_string(seen).expect("the second build had another clock");
    let [semaphore, memory] = names.trim().split(' ').collect::<Vec<_>>()[..] else { panic!("{names}") };
    [format!("sem.{}", semaphore.trim_start_matches('/')), memory.trim_start_matches('/').to_owned()]
        .map(|name| Path::new("/dev/shm").join(name))
        .into_iter()
        .filter(|path| path.exists())
        .collect()
}

#[test]
fn another_clock_leaves_no_files_however_the_build_ends() {
    if !require("faketime") {
        return;
    }
    let repo = GitRepo::program(&["1.0"]);
    let ends = [
        ("exit without exit handlers", "", "1h"),
        ("kill", "case $SOURCE_DIR in */second/*) kill -9 $$;; esac", "1h"),
        ("deadline", "case $SOURCE_DIR in */second/*) exec sleep 1000;; esac", "20s"),
    ];
    for (what, end, limit) in ends {
        println!("{what}");
        let farm = Farm::builder().config_extra(&format!("{REPRODUCE}timeout = \"{limit}\"\n")).build();
        let seen = farm.path("seen");
        let see = format!("[ ! \"${{FAKETIME_SHARED-}}\" ] || echo \"$FAKETIME_SHARED\" >{}", seen.display());
        farm.add(&Recipe::program("tool", &repo.file_url()).before_build(&format!("{see}\n{end}")));
        with_faketime(&farm);
        let output = farm.once();
        assert_eq!(files_of_faketime(&seen), Vec::<PathBuf>::new(), "{output}");
    }
}

#[test]
fn builds_at_once_keep_their_clocks_when_another_ends() {
    if !require("faketime") {
        return;
    }
    let latch = Latch::new();
    let [before, after] = ["before", "after"].map(|name| latch.path(name));
    let script = format!(
        "case $SOURCE_DIR in */second/*) echo \"$FAKETIME_SHARED\" >{}\n{}sh -c 'echo $FAKETIME_SHARED' >{};; esac",
        before.display(),
        latch.script(),
        after.display()
    );
    let [slow, quick] = [(); 2].map(|()| GitRepo::program(&["1.0"]));
    let farm = Farm::builder()
        .with(&Recipe::program("slow", &slow.file_url()).before_build(&script))
        .with(&Recipe::program("quick", &quick.file_url()))
        .config_extra(&format!("{REPRODUCE}jobs = 2\n"))
        .build();
    with_faketime(&farm);
    let mut daemon = farm.daemon();
    latch.wait_reached();
    wait_until("the quick one has ended", PATIENCE, || !farm.published().is_empty());
    latch.open();
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
    let [before, after] = [before, after].map(|path| fs::read_to_string(path).unwrap());
    assert_eq!(before, after, "a process made files of its own");
}

#[test]
fn directories_in_the_place_of_faketimes_files_get_no_files_and_fail_no_build() {
    if !require("faketime") {
        return;
    }
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().config_extra(REPRODUCE).build();
    let seen = farm.path("seen");
    let script = "case $SOURCE_DIR in */second/*) echo \"${FAKETIME_SHARED-none}\"";
    let script = format!("{script} >{};; esac", seen.display());
    farm.add(&Recipe::program("tool", &repo.file_url()).before_build(&script));
    with_faketime(&farm);
    farm.once().assert_success();
    let memory = fs::read_to_string(&seen).unwrap().trim().rsplit_once('/').unwrap().1.to_owned();
    let place = Path::new("/dev/shm").join(memory);
    fs::create_dir(&place).unwrap();
    repo.add_versions(&["1.1"]);
    let output = farm.once();
    let is_removed = fs::remove_dir(&place).is_ok() || fs::remove_dir_all(&place).is_err();
    output.assert_success().assert_only_events();
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    assert!(is_removed, "a file was left in the directory");
    assert_eq!(fs::read_to_string(&seen).unwrap(), "none\n");
}

#[test]
fn library_that_the_manager_loads_is_not_loaded_into_the_second_build() {
    if !require("faketime") {
        return;
    }
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().config_extra(REPRODUCE).build();
    let seen = farm.path("seen");
    let see = format!("case $SOURCE_DIR in */second/*) echo \"$LD_PRELOAD\" >{};; esac", seen.display());
    farm.add(&Recipe::program("tool", &repo.file_url()).before_build(&see));
    with_faketime(&farm);
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path()).env("LD_PRELOAD", "libdl.so.2");
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_success();
    let seen = fs::read_to_string(&seen).unwrap();
    assert!(seen.contains("faketime") && !seen.contains("libdl"), "{seen}");
}

#[test]
fn faketime_that_does_not_work_is_named_in_the_log_and_delays_no_build() {
    let repo = GitRepo::program(&["1.0"]);
    let cases = [
        (
            "echo 'sem_open: File exists' >&2; echo 'see the manual' >&2; exit 1",
            "faketime exited with status 1: see the manual",
        ),
        ("shift 2; exec \"$@\"", "faketime exited with status 1: its time is 0 seconds later"),
        ("echo hello", "faketime answered hello"),
        ("exec yes", "faketime wrote more than 4096 bytes to its standard output"),
        ("exec sleep 1000", "faketime was still running after 10s"),
    ];
    for (script, expected) in cases {
        println!("{script}");
        let farm =
            Farm::builder().with(&Recipe::program("tool", &repo.file_url())).config_extra(REPRODUCE).build();
        farm.write_program("faketime", &format!("#!/bin/sh\n{script}\n"));
        farm.once().assert_success().assert_only_events();
        farm.assert_published(&["tool 1.0-1 noarch"]);
        let log = log(&farm);
        assert!(log.contains(&format!(", time zone; without another clock: {expected}")), "{log}");
        // The end of what it said need not be the cause.
        assert_eq!(log.contains("Z faketime\nsem_open: "), script.contains("sem_open"), "{log}");
    }
}
