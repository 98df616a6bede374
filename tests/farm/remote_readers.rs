//! Reads the remote during uploads while rclone and the manager are killed at random: no index
//! there may name a package that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use rustix::process::Signal;

use crate::support::client::hex;
use crate::support::farm::{Farm, published_in};
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::processes;
use crate::support::random::{Random, number_from_environment};
use crate::support::recipes::Recipe;
use crate::support::wait::{PATIENCE, poll, wait_until};

/// A deadline longer than all kills together.
const HOUR: Duration = Duration::from_hours(1);

/// Reads each index of the remote, as a client does first, and its packages. Returns how many
/// packages the archive index names. Skips packages in `known`, which were whole before: a
/// published package never changes.
#[track_caller]
fn look(remote: &Path, known: &mut BTreeSet<(String, String)>) -> Option<usize> {
    let [_, archive] = ["active", "archive"].map(|kind| {
        let text = fs::read(remote.join(format!("index/{kind}.json"))).ok()?;
        // A remote of files may show a file that is still being written (rclone before 1.63); it
        // names nothing yet.
        let index: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let packages = index["packages"].as_array().expect("a list of packages");
        for package in packages {
            let [name, version, architecture] =
                ["name", "version", "architecture"].map(|key| package[key].as_str().expect("a string"));
            let hash = package["hash"]["value"].as_str().expect("a hash").to_owned();
            let file = format!("p/{name}/{version}/{name}_{version}_{architecture}.peipkg");
            if known.contains(&(file.clone(), hash.clone())) {
                let size = fs::metadata(remote.join(&file)).map(|found| found.len()).ok();
                assert_eq!(size, package["size_compressed"].as_u64(), "{kind}: {file} was there");
                continue;
            }
            let found = fs::read(remote.join(&file));
            let found = found.unwrap_or_else(|error| panic!("the {kind} index names {file}: {error}"));
            assert_eq!(Some(found.len() as u64), package["size_compressed"].as_u64(), "{kind}: {file}");
            assert_eq!(hex(digest(&SHA256, &found).as_ref()), hash, "{kind}: {file}");
            known.insert((file, hash));
        }
        Some(packages.len())
    });
    archive
}

/// Reads until `stop` is set, and counts all reads and those that found packages.
fn read_on(remote: &Path, stop: &AtomicBool, looks: &AtomicUsize, finds: &AtomicUsize) {
    let mut known = BTreeSet::new();
    let ended = poll(HOUR, || {
        finds.fetch_add(usize::from(look(remote, &mut known).is_some()), Ordering::Relaxed);
        looks.fetch_add(1, Ordering::Relaxed);
        stop.load(Ordering::Relaxed).then_some(())
    });
    assert!(ended.is_some(), "the reader ran into its deadline");
}

/// Ends the reading, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut pending) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below the root").display().to_string();
                files.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    files
}

#[test]
fn remote_index_read_during_kills_names_only_packages_that_are_there() {
    if !require("rclone") {
        return;
    }
    let kills = number_from_environment("PEIPKG_CHAOS_KILLS", 12) / 2;
    let seed = number_from_environment("PEIPKG_CHAOS_SEED", 1);
    println!("PEIPKG_CHAOS_SEED={seed}");
    let mut random = Random::new(seed);
    let home = tempfile::tempdir().unwrap();
    let remote = home.path().join("remote");
    let versions: Vec<String> = (0..4).map(|number| format!("1.{number}")).collect();
    let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
    let (stop, looks, finds) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (mut rclone_killed, mut manager_killed) = (0, 0_u64);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_on(&remote, &stop, &looks, &finds));
        let stop_reading = Stop(&stop);
        while rclone_killed + manager_killed < kills || rclone_killed == 0 || manager_killed == 0 {
            let repo = GitRepo::program(&versions);
            let farm = Farm::builder()
                .with(&Recipe::program(&format!("tool{rclone_killed}x{manager_killed}"), &repo.file_url()))
                .rclone(&remote)
                .build();
            // Begin with an empty remote and a new farm.
            for index in ["archive", "active"] {
                let _ = fs::remove_file(remote.join(format!("index/{index}.json")));
            }
            // A reader of the old indexes still opens their packages, which the new farm is going to
            // remove.
            let begun = looks.load(Ordering::Relaxed);
            wait_until("the reader has finished with the old indexes", PATIENCE, || {
                looks.load(Ordering::Relaxed) > begun || reader.is_finished()
            });
            let mark = format!("HOME={}", farm.home().display());
            for _ in 0..8 {
                let mut manager = farm.start(&["--once"]);
                let end = Instant::now() + Duration::from_millis(random.below(900) as u64);
                while Instant::now() < end && !manager.has_ended() {
                    thread::yield_now();
                }
                if random.one_in(3) {
                    manager_killed += u64::from(!manager.kill(random.one_in(2)).status.success());
                    continue;
                }
                let uploading = poll(PATIENCE, || {
                    let found = processes::with_environment(&mark);
                    let rclone = found.into_iter().find(|process| process.name == "rclone");
                    if rclone.is_some() { Some(rclone) } else { manager.has_ended().then_some(None) }
                });
                if let Some(Some(rclone)) = uploading {
                    processes::kill_group(rclone.pid);
                    rclone_killed += 1;
                }
                manager.wait_exit(PATIENCE).assert_success();
                if farm.published().len() == versions.len() {
                    break;
                }
            }
            let mut daemon = farm.daemon();
            daemon.wait_event("peipkg-manager starting", PATIENCE);
            wait_until("the remote is the whole repository", PATIENCE, || {
                farm.published().len() == versions.len()
                    && !farm.path("state/upload-owed").exists()
                    && files(&remote) == files(&farm.repo_dir())
            });
            daemon.signal(Signal::TERM);
            daemon.wait_exit(PATIENCE).assert_success();
            assert_eq!(published_in(&remote).len(), versions.len());
        }
        drop(stop_reading);
        if let Err(panic) = reader.join() {
            std::panic::resume_unwind(panic);
        }
    });
    let (looks, finds) = (looks.into_inner(), finds.into_inner());
    println!(
        "{rclone_killed} rclones and {manager_killed} managers killed, {finds} of {looks} looks found an index"
    );
    // The reader must have seen packages.
    assert!(rclone_killed > 0 && manager_killed > 0 && finds > 0);
}
