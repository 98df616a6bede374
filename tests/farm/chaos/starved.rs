//! The same under want: each life of the manager has too few files, processes, bytes of memory or
//! bytes of disk. Builds and publishes fail in every place, the manager may refuse to start, and
//! it is killed at random. When there is enough again, everything must be published, once.
//!
//! For a disk that is full, the test runs itself again on a small file system, which only that
//! process and its children see.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::tools::{POLITE, RUDE};
use super::{KINDS, Round, Tally, World};
use crate::exhaustion::OwnUser;
use crate::support::optional::skip;
use crate::support::processes;
use crate::support::random::{Random, number_from_environment};
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, wait_until};

/// The kills of the short form.
const KILLS: u64 = 12;

/// Names the small file system that this process runs on.
const SMALL_DISK: &str = "PEIPKG_CHAOS_DISK";

/// Room for the upstreams, the farm, and a copy of its repository.
const MOUNT: &str = "mount -t tmpfs -o size=64m,mode=1777 tmpfs \"$TMPDIR\" && exec \"$@\"";

/// A resource of which the manager has too little.
#[derive(Debug, Clone, Copy)]
enum Want {
    Files(usize),
    Processes(usize),
    /// Of address space for each process, in MiB.
    Memory(usize),
    /// Of the disk, in bytes.
    Disk(usize),
}

/// The surroundings of all rounds.
struct Surroundings {
    user: Option<OwnUser>,
    disk: Option<PathBuf>,
}

impl Surroundings {
    /// Picks something that can be made scarce here.
    fn want(&self, random: &mut Random) -> Want {
        match random.below(4) {
            0 if self.user.is_some() => Want::Processes(3 + random.below(40)),
            1 if self.disk.is_some() => Want::Disk(random.below(150_000)),
            2 => Want::Memory(20 + random.below(250)),
            _ => Want::Files(8 + random.below(60)),
        }
    }

    /// The beginning of the manager's command line.
    fn prefix(&self, want: Option<Want>) -> String {
        let user = self.user.as_ref().map(OwnUser::become_it).unwrap_or_default();
        let limit = match want {
            Some(Want::Files(count)) => format!("prlimit --nofile={count}"),
            Some(Want::Processes(count)) => format!("prlimit --nproc={count}"),
            Some(Want::Memory(mebibytes)) => format!("prlimit --as={}", mebibytes << 20),
            Some(Want::Disk(_)) | None => String::new(),
        };
        format!("{user} {limit}").trim().to_owned()
    }

    /// The file that fills the disk.
    fn filler(&self) -> Option<PathBuf> {
        self.disk.as_ref().map(|disk| disk.join("filler"))
    }
}

/// Fills a file system up to the last `left` bytes.
fn fill(filler: &Path, left: usize) {
    let mut file = File::create(filler).expect("the filler");
    let zeros = vec![0; 64 * 1024];
    while file.write_all(&zeros).is_ok() {}
    let written = file.metadata().expect("the filler").len();
    OpenOptions::new()
        .write(true)
        .open(filler)
        .and_then(|file| file.set_len(written.saturating_sub(left as u64)))
        .expect("a shorter filler");
}

impl Round<'_> {
    /// Runs one life in want, up to a kill or its end.
    fn run_starved_life(&mut self, around: &Surroundings, random: &mut Random, tally: &mut Tally) {
        let want = around.want(random);
        self.prefix = around.prefix(Some(want));
        if let (Want::Disk(left), Some(filler)) = (want, around.filler()) {
            fill(&filler, left);
        }
        let (mut manager, _) = self.start(self.daemon, false);
        let end = Instant::now() + Duration::from_millis(100 + random.below(1500) as u64);
        while Instant::now() < end && !manager.has_ended() {
            std::thread::yield_now();
        }
        let tree = random.one_in(2);
        let output = manager.kill(tree);
        self.history.extend([format!("\n{want:?}\n"), output.to_string()]);
        if let Some(filler) = around.filler() {
            // It may not be there.
            let _ = fs::remove_file(filler);
        }
        let is_memory = matches!(want, Want::Memory(_));
        assert!(!output.stderr.contains("panicked") || is_memory, "{}", self.history);
        match output.status.code() {
            Some(0 | 1) => {}
            // Memory for the program itself, not for requests or builds: the system or the program ends it.
            Some(_) if is_memory => {}
            Some(code) => panic!("exit code {code}{}", self.history),
            None if tree => tally.tree_killed += 1,
            None => tally.manager_killed += 1,
        }
        tally.publishes_undone += output.events("publish was cut short, repository restored").len();
    }

    /// Lets the manager start with enough of everything, so that it repairs what was cut short, and
    /// checks what it finds.
    fn check_with_enough(&mut self, around: &Surroundings, tally: &mut Tally) {
        self.prefix = around.prefix(None);
        let (mut manager, hold) = self.start(self.daemon, true);
        manager.wait_event("peipkg-manager starting", PATIENCE);
        self.check_invariants();
        tally.restarts_checked += 1;
        let output = Running::kill(manager, true);
        let _ = fs::remove_file(hold);
        self.record_end(&output, &BTreeSet::new(), tally);
    }
}

/// Runs the rounds until `kills` managers were killed.
fn run(around: &Surroundings, kills: u64, seed: u64) {
    let world = World::new(3);
    for upstream in &world.upstreams {
        let home = upstream.path().parent().expect("a directory of its own");
        around.user.iter().for_each(|user| user.give(home));
    }
    let (mut random, mut tally) = (Random::new(seed), Tally::default());
    let share = kills.div_ceil(KINDS.len() as u64);
    for number in 0..KINDS.len() as u64 {
        let (rude, daemon) = KINDS[usize::try_from((seed + number) % 4).expect("a small number")];
        let farm = world.farm(Some(if rude { RUDE } else { POLITE }));
        around.user.iter().for_each(|user| user.give(farm.home()));
        let history = format!("\nround {number} in want: rude={rude} daemon={daemon}, seed {seed}");
        let prefix = around.prefix(None);
        let mut round = Round {
            world: &world,
            farm,
            daemon,
            lives: 0,
            built: BTreeSet::new(),
            history,
            has_sidecars: false,
            prefix,
        };
        for life in 0..share {
            round.run_starved_life(around, &mut random, &mut tally);
            if life % 3 == 2 {
                round.check_with_enough(around, &mut tally);
            }
        }
        // A tool of a killed manager may still be at work.
        let home = format!("HOME={}", round.farm.home().display());
        wait_until("all tools have ended", PATIENCE, || processes::with_environment(&home).is_empty());
        round.prefix = around.prefix(None);
        round.finish(&mut tally);
        tally.rounds += 1;
    }
    println!("{tally:?}");
}

#[test]
fn manager_killed_while_starved_loses_nothing() {
    let kills = number_from_environment("PEIPKG_CHAOS_KILLS", KILLS);
    let seed = number_from_environment("PEIPKG_CHAOS_SEED", 1);
    println!("PEIPKG_CHAOS_SEED={seed} PEIPKG_CHAOS_KILLS={kills}");
    if let Some(disk) = env::var_os(SMALL_DISK) {
        return run(&Surroundings { user: OwnUser::new(), disk: Some(disk.into()) }, kills, seed);
    }
    let disk = TempDir::with_prefix("small-disk-").expect("a temporary directory");
    let mut again = Command::new("unshare");
    again.env("TMPDIR", disk.path()).env(SMALL_DISK, disk.path());
    let may_mount = again.args(["-m", "sh", "-c", MOUNT, "sh"]).arg("true").status();
    if !may_mount.is_ok_and(|status| status.success()) {
        skip("the right to mount a file system");
        return run(&Surroundings { user: OwnUser::new(), disk: None }, kills, seed);
    }
    let test = ["--exact", "chaos::starved::manager_killed_while_starved_loses_nothing", "--nocapture"];
    let mut again = Command::new("unshare");
    again.env("TMPDIR", disk.path()).env(SMALL_DISK, disk.path());
    again.args(["-m", "sh", "-c", MOUNT, "sh"]).arg(env::current_exe().expect("this test")).args(test);
    assert!(again.status().expect("unshare runs").success(), "the output above says what failed");
}
