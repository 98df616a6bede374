//! A long archive index: how often a publish reads it, and how the journal keeps it.
//!
//! Counts bytes, not time: the system counts what each thread reads.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::broken_disk::sweep_in;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::optional::not_permitted;
use crate::support::recipes::Recipe;
use crate::support::wait::PATIENCE;

/// How many packages each of two recipes has, and how many dependencies each package: together the index
/// has more than a megabyte, but no recipe.
const PACKAGES: usize = 60;
const DEPENDENCIES: usize = 400;

/// Adds two recipes whose one version makes the archive index long.
fn add_many(farm: &Farm, repo: &GitRepo) {
    for id in ["many", "more"] {
        add_one_of_many(farm, repo, id);
    }
}

fn add_one_of_many(farm: &Farm, repo: &GitRepo, id: &str) {
    let dependencies: Vec<String> =
        (0..DEPENDENCIES).map(|number| format!("{{ name = \"dependency-{number:04}\" }}")).collect();
    let stanza = |number| {
        format!(
            "[[package]]\nname = \"{id}-{number}\"\narchitecture = \"noarch\"\ndescription = \"One of many\"\n\
             dependencies = [{}]\nfiles = [\"usr/share/{id}-{number}\"]\n",
            dependencies.join(", ")
        )
    };
    let toml = format!(
        "[meta]\nlicense = \"MIT\"\nbuild_script = \"build.sh\"\n{}[upstream]\ngit = \"{}\"\ntag_pattern = '^v([0-9.]+)$'\n",
        (0..PACKAGES).map(stanza).collect::<Vec<_>>().concat(),
        repo.file_url()
    );
    let script = format!(
        "mkdir -p \"$DESTDIR/usr/share\"\nfor number in $(seq 0 {}); do : >\"$DESTDIR/usr/share/{id}-$number\"; done\n",
        PACKAGES - 1
    );
    farm.write_recipe(id, &toml, &script);
}

/// The bytes that the threads of process `pid` have read, without those of its ended children. `None`
/// if the system does not count them.
fn bytes_read(pid: i32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let of_thread = |thread: &Path| {
        let counts = fs::read_to_string(thread.join("io")).ok()?;
        counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok())
    };
    threads.map(|thread| of_thread(&thread.path())).sum()
}

#[test]
fn publish_reads_each_index_at_most_once() {
    let (many, small) = (GitRepo::program(&["1.0"]), GitRepo::program(&["1.0"]));
    let farm = Farm::builder().with(&Recipe::program("medium", &small.file_url())).build();
    add_many(&farm, &many);
    let mut daemon = farm.daemon();
    daemon.wait_events("build + publish complete", 3, PATIENCE);
    let Some(before) = bytes_read(daemon.pid()) else {
        not_permitted("/proc/<pid>/task/<tid>/io");
        return;
    };
    let indexes = ["index/archive.json", "index/active.json"].map(|name| farm.repo_dir().join(name));
    let length: u64 = indexes.iter().map(|index| fs::metadata(index).unwrap().len()).sum();
    assert!(length > 2 * 1024 * 1024, "{length}");
    // The reload must not read the long recipes again.
    farm.remove_recipe("many");
    farm.remove_recipe("more");
    small.add_versions(&["1.1"]);
    daemon.signal(Signal::HUP);
    daemon.wait_events("build + publish complete", 4, PATIENCE);
    let read = bytes_read(daemon.pid()).unwrap() - before;
    assert!(read * 10 < length * 11, "the manager read {read} bytes, both indexes have {length}");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
    farm.assert_verifies();
}

/// A `peipkg-repo` that first writes half an index in place and kills its manager, and afterwards
/// publishes. It records the journal's files, and how many names the index has.
const WRITES_IN_PLACE: &str = "#!/bin/sh
[ \"$1\" = publish ] && [ -e \"$HOME/die\" ] || exec {real} \"$@\"
rm \"$HOME/die\"
cd \"$HOME/state\" || exit
echo index: $(stat -c '%h' repo/index/archive.json) >\"$HOME/seen\"
cmp repo/index/archive.json journal.archive.json >>\"$HOME/seen\" && echo cloned >>\"$HOME/seen\"
[ $(wc -c <journal) -lt 1000000 ] && echo short >>\"$HOME/seen\"
printf 'half a new index' | dd of=repo/index/archive.json conv=notrunc 2>&1
kill -9 \"$PPID\"
";

#[test]
fn journal_of_a_long_index_is_a_clone_where_files_can_share_blocks() {
    let (many, small) = (GitRepo::program(&["1.0"]), GitRepo::program(&["1.0"]));
    let farm = Farm::builder().program("peipkg-repo", WRITES_IN_PLACE).build();
    add_many(&farm, &many);
    let (state, image) = (farm.state_dir(), farm.path("image"));
    fs::create_dir(&state).unwrap();
    let make = format!("truncate -s 256M '{0}' && mkfs.btrfs -q '{0}'", image.display());
    let mount = format!("mount -o loop '{}' '{}'", image.display(), state.display());
    let probe = format!("{make} && exec unshare -m sh -c \"{mount}\"");
    let can_mount = Command::new("sh").args(["-c", &probe]).output();
    if !can_mount.is_ok_and(|output| output.status.success()) {
        not_permitted("mkfs.btrfs and loop devices");
        return;
    }
    let in_btrfs = |script: &str| {
        let script = format!("{mount} || exit 9\n{script}");
        fs::write(farm.path("script"), script).unwrap();
        sweep_in(&farm, "exec unshare -m sh script \"$@\"")
    };
    in_btrfs("\"$@\"").assert_success();
    farm.add(&Recipe::program("tool", &small.file_url()));
    fs::write(farm.path("die"), "").unwrap();
    let script =
        "\"$@\" 2>first.log; cat seen\n\"$@\" || exit\nls state\npeipkg-repo verify --repo state/repo >&2";
    let output = in_btrfs(script);
    let names = "lock\nlogs\npublish\nrepo\nsources\nstage\ntool-lock\n";
    assert_eq!(output.stdout, format!("index: 1\ncloned\nshort\n{names}"), "{output}");
    output.event("publish was cut short, repository restored");
    assert_eq!(output.event("build + publish complete")["recipe"], "tool", "{output}");
    assert!(output.events("starting build").is_empty(), "{output}");
}
