//! Kills the manager, alone or with all its descendants, at random instants until a farm's work is
//! done. After each kill and at the end, compares the repository with that of an undisturbed farm:
//! nothing may be lost.
//!
//! A short form runs with the other tests; `make chaos` sets `PEIPKG_CHAOS_KILLS` and
//! `PEIPKG_CHAOS_SEED`. The seed decides everything but the speed of the machine.

mod long;
mod starved;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use peipkg_format::provenance::{Metadata, Statement};
use rustix::process::Signal;

use self::tools::{POLITE, RUDE};
use crate::support::farm::{Farm, published_in};
use crate::support::git_repo::GitRepo;
use crate::support::processes;
use crate::support::random::{Random, number_from_environment};
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::tools::Tools;
use crate::support::wait::{PATIENCE, wait_until};

/// The kinds of rounds: with the rude `peipkg-repo` or the polite one, as a daemon or as a sweep.
const KINDS: [(bool, bool); 4] = [(true, true), (false, false), (true, false), (false, true)];

/// The kills of the short form.
const KILLS: u64 = 12;

/// The upstreams and recipes of every farm here, and the result of an undisturbed farm.
struct World {
    upstreams: [GitRepo; 2],
    recipes: Vec<Recipe>,
    /// The lines of the archive index.
    published: Vec<String>,
    /// The files below `p/`: packages and their sidecars.
    packages: BTreeMap<PathBuf, Vec<u8>>,
    /// Whether the farms start from a repository whose indexes are long.
    is_long: bool,
}

impl World {
    fn new(versions: usize) -> Self {
        Self::of(versions, false)
    }

    fn of(versions: usize, is_long: bool) -> Self {
        let names: Vec<String> = (0..versions).map(|number| format!("1.{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let upstreams = [GitRepo::program(&names), GitRepo::program(&names)];
        let recipes = vec![
            Recipe::program("alone", &upstreams[0].file_url()),
            Recipe::program("pair", &upstreams[1].file_url()).with_doc(),
            Recipe::program("shares", &upstreams[0].file_url()).upstream("min_version = \"1.1\""),
        ];
        let (published, packages_of) = (Vec::new(), BTreeMap::new());
        let mut world = Self { upstreams, recipes, published, packages: packages_of, is_long };
        let farm = world.farm(None);
        let before = if is_long { farm.published().len() } else { 0 };
        farm.once().assert_success().assert_only_events();
        assert_eq!(farm.published().len(), before + versions + 2 * versions + versions - 1);
        world.published = farm.published();
        world.packages = packages(&farm.repo_dir());
        world
    }

    fn farm(&self, peipkg_repo: Option<&str>) -> Farm {
        let mut builder = Farm::builder();
        for recipe in &self.recipes {
            builder = builder.with(recipe);
        }
        if let Some(script) = peipkg_repo {
            builder = builder.program("peipkg-repo", script);
        }
        let farm = builder.build();
        if self.is_long {
            long::make_repository(&farm);
        }
        farm
    }
}

/// The packages of a repository and their sidecars.
fn packages(repo: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![repo.join("p")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(repo).expect("a file of the repository").to_owned();
                let bytes = fs::read(entry.path()).expect("a package");
                found.insert(path, if is_provenance(&entry.path()) { without_times(&bytes) } else { bytes });
            }
        }
    }
    found
}

fn is_provenance(path: &Path) -> bool {
    path.to_string_lossy().ends_with("provenance.json")
}

/// The statement of a provenance, but for the times of its build.
fn without_times(bytes: &[u8]) -> Vec<u8> {
    let statement = Statement::read(bytes, &|_, _| true);
    let mut statement =
        statement.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)));
    statement.predicate.run_details.metadata = Metadata::default();
    serde_json::to_vec(&statement).expect("a statement")
}

/// Counts of kills and their effects.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    manager_killed: u64,
    tree_killed: u64,
    publishes_undone: usize,
    survivors_waited_for: usize,
    restarts_checked: u64,
}

impl Tally {
    fn kills(&self) -> u64 {
        self.manager_killed + self.tree_killed
    }
}

/// A farm from its first start to its last version.
struct Round<'a> {
    world: &'a World,
    farm: Farm,
    daemon: bool,
    lives: u64,
    /// The versions found built after earlier kills: none may be built again.
    built: BTreeSet<String>,
    history: String,
    /// Whether no kill or limit excuses a package without sidecars.
    has_sidecars: bool,
    /// The beginning of each manager's command line, and how it is limited.
    prefix: String,
}

impl Round<'_> {
    /// Starts the manager. With `hold`, nothing is published until the returned file is removed.
    fn start(&mut self, daemon: bool, hold: bool) -> (Running, PathBuf) {
        self.lives += 1;
        let file = self.farm.path(&format!("hold-{}", self.lives));
        if hold {
            fs::write(&file, "").expect("a file");
        }
        let arguments: &[&str] = if daemon { &[] } else { &["--once"] };
        let mut command = self.farm.command(arguments);
        command.arg("--config").arg(self.farm.config_path()).env("CHAOS_HOLD", &file);
        if !self.prefix.is_empty() {
            command = self.farm.shell(&command, &format!("exec {} \"$@\"", self.prefix));
        }
        (Running::spawn(&mut command), file)
    }

    /// Checks the invariants of a started manager while nothing is being published. Returns whether
    /// all work is done.
    fn check_invariants(&mut self) -> bool {
        let repo = self.farm.repo_dir();
        verify(&repo, "metadata", &self.history);
        let published = published_in(&repo);
        let found = packages(&repo);
        for line in &published {
            assert!(
                self.world.published.contains(line),
                "{line} is no package of these recipes{}",
                self.history
            );
            let [name, version, architecture] = line.split(' ').collect::<Vec<_>>()[..] else {
                unreachable!()
            };
            let file = Path::new("p")
                .join(name)
                .join(version)
                .join(format!("{name}_{version}_{architecture}.peipkg"));
            let same = found.get(&file) == self.world.packages.get(&file);
            assert!(same, "{} is not the package that was built{}", file.display(), self.history);
        }
        let unique: BTreeSet<&String> = published.iter().collect();
        assert_eq!(unique.len(), published.len(), "a version is listed twice: {published:?}{}", self.history);
        for line in &published {
            let mut words = line.split(' ');
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                self.built.insert(format!("{name}@{version}"));
            }
        }
        let kept = fs::read_dir(self.farm.path("state/publish")).expect("publish/").flatten();
        for name in kept.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            self.built.extend(name.rsplit_once('.').map(|(built, _)| built.to_owned()));
        }
        published.len() == self.world.published.len()
    }

    /// Records the end of a life, and checks that it built nothing that was built before.
    fn record_end(&mut self, output: &Output, built: &BTreeSet<String>, tally: &mut Tally) {
        self.history += &output.to_string();
        for event in output.events("starting build") {
            let built_now = format!("{}@{}", event["recipe"], event["version"]);
            assert!(!built.contains(&built_now), "{built_now} was built twice{}", self.history);
        }
        for event in output.all_events() {
            let bad =
                ["build failed", "dedup check failed", "cannot read pending packages, leaving them alone"];
            assert!(!bad.contains(&event["msg"].as_str()), "{event:?}{}", self.history);
        }
        tally.publishes_undone += output.events("publish was cut short, repository restored").len();
        tally.survivors_waited_for += output.events("waiting for a tool of an earlier manager to end").len();
    }

    /// Runs one life, from a start to a kill or to the end of the work. Returns whether the work is
    /// done.
    fn run_one_life(&mut self, random: &mut Random, tally: &mut Tally) -> bool {
        let built = self.built.clone();
        // Sometimes kill it while it still repairs the damage of the last kill.
        let early = random.one_in(6);
        let (mut manager, hold) = self.start(self.daemon, !early);
        let mut done = false;
        if !early {
            manager.wait_event("peipkg-manager starting", PATIENCE);
            done = self.check_invariants();
            tally.restarts_checked += 1;
            fs::remove_file(hold).expect("a file");
        }
        let instant = match random.below(4) {
            _ if early => Duration::from_micros(random.below(80_000) as u64),
            0 | 1 => Duration::from_millis(random.below(700) as u64),
            // Aim at the instants of greatest risk, which random times rarely hit.
            2 => {
                await_change(&mut manager, &self.farm.path("state/journal"));
                Duration::from_micros(random.below(250_000) as u64)
            }
            _ => {
                await_change(&mut manager, &self.farm.path("state/publish"));
                Duration::from_micros(random.below(20_000) as u64)
            }
        };
        let end = Instant::now() + instant;
        while Instant::now() < end && !manager.has_ended() {
            std::thread::yield_now();
        }
        let tree = random.one_in(2);
        let output = manager.kill(tree);
        self.record_end(&output, &built, tally);
        match output.status.code() {
            Some(code) => {
                assert_eq!(code, 0, "{}", self.history);
                done = true;
            }
            None if tree => tally.tree_killed += 1,
            None => tally.manager_killed += 1,
        }
        done
    }

    /// Lets the manager finish undisturbed and checks that every version is there exactly once.
    fn finish(mut self, tally: &mut Tally) {
        let built = self.built.clone();
        let (mut manager, _) = self.start(self.daemon, false);
        if self.daemon {
            let started = Instant::now();
            manager.wait_for(PATIENCE, |events| {
                let ended = events.iter().filter(|event| event["msg"] == "poll complete").count();
                // The queue is empty when all polls are over and every build has ended.
                let count = |msg: &str| events.iter().filter(|event| event["msg"] == msg).count();
                let published = fs::read(self.farm.path("state/repo/index/archive.json")).unwrap_or_default();
                let lines = String::from_utf8_lossy(&published).matches("\"architecture\"").count();
                ended >= 3
                    && count("starting build") + count("publishing pending packages")
                        == count("build + publish complete")
                    && lines >= self.world.published.len()
                    || started.elapsed() > PATIENCE
            });
            manager.signal(Signal::TERM);
        }
        let output = manager.wait_exit(PATIENCE);
        self.record_end(&output, &built, tally);
        assert_eq!(output.status.code(), Some(0), "{}", self.history);
        let farm = &self.farm;
        let home = format!("HOME={}", farm.home().display());
        wait_until("all children of the manager have ended", PATIENCE, || {
            processes::with_environment(&home).is_empty()
        });
        assert_eq!(farm.published(), self.world.published, "{}", self.history);
        let (mut found, mut expected) = (packages(&farm.repo_dir()), self.world.packages.clone());
        if !self.has_sidecars {
            for files in [&mut found, &mut expected] {
                files.retain(|path, _| {
                    path.extension().is_some_and(|it| it == "peipkg") || is_provenance(path)
                });
            }
        }
        assert!(found == expected, "the packages differ from the undisturbed farm's{}", self.history);
        verify(&farm.repo_dir(), "both", &self.history);
        let left: Vec<String> = ["sources", "stage", "publish"]
            .iter()
            .flat_map(|name| names(&farm.state_dir().join(name)))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}{}", self.history);
        let layout =
            ["lock", "logs", "publish", "published-commits", "repo", "sources", "stage", "tool-lock"];
        assert_eq!(names(&farm.state_dir()), layout, "{}", self.history);
        let mut found = names(&farm.repo_dir());
        // The browse site may be missing where its publish had no room for it. A publish that was killed
        // leaves its lock file to the next one.
        found.retain(|name| ![".lock", "assets", "feed.xml", "index.html"].contains(&name.as_str()));
        assert_eq!(found, ["index", "keys", "p", "repo.json", "repo.json.sig"]);
        let index = ["active.json", "active.json.sig", "archive.json", "archive.json.sig"];
        assert_eq!(names(&farm.repo_dir().join("index")), index);
    }
}

fn verify(repo: &Path, mode: &str, history: &str) {
    let mut command = Command::new(&Tools::get().repo);
    let output = command.args(["verify", "--mode", mode, "--repo"]).arg(repo).output().expect("peipkg-repo");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the repository does not verify: {text}{history}");
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits until a file appears or the entries of a directory change, but not for long: there may be
/// nothing to come.
fn await_change(manager: &mut Running, path: &Path) {
    let before = names(path);
    let end = Instant::now() + Duration::from_secs(1);
    let came = || if path.is_dir() { names(path) != before } else { path.exists() };
    while Instant::now() < end && !came() && !manager.has_ended() {
        std::thread::yield_now();
    }
}

#[test]
fn manager_killed_at_any_instant_loses_nothing() {
    let kills = number_from_environment("PEIPKG_CHAOS_KILLS", KILLS);
    let seed = number_from_environment("PEIPKG_CHAOS_SEED", 1);
    println!("PEIPKG_CHAOS_SEED={seed} PEIPKG_CHAOS_KILLS={kills}");
    kill(&World::new(if kills > KILLS { 9 } else { 3 }), kills, seed);
}

/// Runs rounds in `world` until `kills` managers were killed.
fn kill(world: &World, kills: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    // Take the kinds in turn, so that every seed covers each of them.
    let share = kills.div_ceil(KINDS.len() as u64);
    while tally.kills() < kills || tally.rounds < KINDS.len() as u64 {
        let (rude, daemon) = KINDS[usize::try_from((seed + tally.rounds) % 4).expect("a small number")];
        let farm = world.farm(Some(if rude { RUDE } else { POLITE }));
        let history = format!("\nround {}: rude={rude} daemon={daemon}, seed {seed}", tally.rounds);
        let mut round = Round {
            world,
            farm,
            daemon,
            lives: 0,
            built: BTreeSet::new(),
            history,
            has_sidecars: !rude,
            prefix: String::new(),
        };
        let end = tally.kills() + share;
        while tally.kills() < end && !round.run_one_life(&mut random, &mut tally) {}
        round.finish(&mut tally);
        tally.rounds += 1;
    }
    println!("{tally:?}");
    assert!(tally.manager_killed > 0 && tally.tree_killed > 0, "one way to kill was never tried");
}
