//! Farms with `[build] jobs` above 1 on a real Slurm cluster with as many job slots.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::slurm::{ABORT_LIMIT, manager};
use crate::support::client;
use crate::support::farm::{Farm, FarmBuilder};
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::logfmt::Event;
use crate::support::processes;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::slurm::Slurm;
use crate::support::wait::{PATIENCE, wait_until};

/// The job slots of the cluster, and the builders of most farms.
const SLOTS: usize = 8;

/// A farm of recipes `r0`, `r1` … with an upstream each.
struct Wide {
    farm: Farm,
    ids: Vec<String>,
    // The recipes' URLs name their directories.
    _upstreams: Vec<GitRepo>,
}

/// Makes a farm of `recipes` recipes with the tags `tags`, whose builds run `script` first, and
/// `jobs` builders.
fn wide(recipes: usize, tags: &[&str], script: impl Fn(&str) -> String, jobs: usize, build: &str) -> Wide {
    let ids: Vec<String> = (0..recipes).map(|number| format!("r{number}")).collect();
    let upstreams: Vec<GitRepo> = ids.iter().map(|_| GitRepo::program(tags)).collect();
    let with = |builder: FarmBuilder, (id, upstream): (&String, &GitRepo)| {
        builder.with(&Recipe::program(id, &upstream.file_url()).before_build(&script(id)))
    };
    let builder = Farm::builder().http().config_extra(&format!("[build]\njobs = {jobs}\n{build}"));
    let farm = ids.iter().zip(&upstreams).fold(builder, with).build();
    Wide { farm, ids, _upstreams: upstreams }
}

/// Returns a build that leaves its process number and waits at `latch`.
fn at_latch(latch: &Latch) -> impl Fn(&str) -> String {
    move |id| format!("echo $$ > {}\n{}", latch.path(id).display(), latch.script())
}

/// Returns the process numbers of the builds at `latch`, once there is one of each recipe.
fn wait_all_reached(latch: &Latch, ids: &[String]) -> Vec<i32> {
    let number = |id: &String| fs::read_to_string(latch.path(id)).ok()?.trim().parse().ok();
    wait_until("a build of each recipe runs", PATIENCE, || ids.iter().all(|id| number(id).is_some()));
    ids.iter().filter_map(number).collect()
}

/// Returns the time from the first `starting build` of `events` to the last version's publish.
fn wall_clock(events: &[Event]) -> Duration {
    let time = |event: &Event| humantime::parse_rfc3339(&event["time"]).expect("a time");
    let times = |msg: &str| -> Vec<SystemTime> {
        events.iter().filter(|event| event["msg"] == msg).map(time).collect()
    };
    let first = times("starting build").into_iter().min().expect("a build");
    let last = times("build + publish complete").into_iter().max().expect("a published version");
    last.duration_since(first).expect("the publish comes after the build")
}

fn status(daemon: &mut Running) -> Value {
    client::status(daemon.http_addr())
}

/// Returns the sorted recipes of the list `field` of `/status`.
fn recipes_of(status: &Value, field: &str) -> Vec<String> {
    let list = status[field].as_array().expect("a list");
    let mut ids: Vec<String> =
        list.iter().map(|entry| entry["recipe"].as_str().expect("a string").to_owned()).collect();
    ids.sort();
    ids
}

/// Runs a sweep that publishes `versions` versions of two seconds each, side by side with `jobs`
/// builders. Returns the time from the first `starting build` to the last publish.
fn two_second_sweep(slurm: &Slurm, recipes: usize, tags: &[&str], jobs: usize) -> Duration {
    // A directory for each recipe shows that no upstream has two builds at a time.
    let running = tempfile::tempdir().expect("a temporary directory");
    let script = |id: &str| {
        let own = running.path().join(id).display().to_string();
        format!("mkdir {own}\nsleep 2\nrmdir {own}\n")
    };
    let Wide { farm, .. } = &wide(recipes, tags, script, jobs, "");
    let output = Running::spawn(&mut manager(farm, slurm, &["--once"])).wait_exit(PATIENCE);
    output.assert_success();
    assert_eq!(output.events("build + publish complete").len(), recipes * tags.len(), "{output}");
    farm.assert_verifies();
    farm.assert_clean();
    wall_clock(&output.all_events())
}

/// Returns how long the cluster takes for 32 jobs of two seconds, eight at a time, without a farm.
fn bare_jobs(slurm: &Slurm) -> Duration {
    let begun = Instant::now();
    let script = "seq 32 | xargs -P 8 -I N srun --quiet --ntasks=1 --input=none --mpi=none sleep 2";
    Running::spawn(slurm.command("sh").args(["-c", script])).wait_exit(PATIENCE).assert_success();
    begun.elapsed()
}

#[test]
fn eight_job_slots_take_an_eighth_of_the_time() {
    let Some(slurm) = Slurm::with_slots(SLOTS) else { return };
    // 64 seconds of work. On a busy machine Slurm alone takes longer than ten seconds: then the farm
    // may take a third more than the same jobs without it. Repeated, because the machine's other work
    // comes and goes.
    let mut times = Vec::new();
    let is_in_time = (0..3).any(|_| {
        let took = two_second_sweep(&slurm, SLOTS, &["1.0", "2.0", "3.0", "4.0"], SLOTS);
        let bare = (took > Duration::from_secs(10)).then(|| bare_jobs(&slurm));
        times.push((took, bare));
        bare.is_none_or(|bare| took <= bare * 4 / 3)
    });
    assert!(is_in_time, "the farm, and the same jobs without it: {times:?}");
    // One builder takes the sum of its builds. Four of the 32 show it.
    let took = two_second_sweep(&slurm, 4, &["1.0"], 1);
    assert!(took >= Duration::from_secs(8), "{took:?}");
}

#[test]
fn manager_signalled_once_finishes_all_builds_in_progress() {
    let Some(slurm) = Slurm::with_slots(SLOTS) else { return };
    let latch = Latch::new();
    let Wide { farm, ids, .. } = &wide(SLOTS, &["1.0", "2.0"], at_latch(&latch), SLOTS, "");
    let mut daemon = Running::spawn(&mut manager(farm, &slurm, &[]));
    wait_all_reached(&latch, ids);
    let shown = status(&mut daemon);
    assert_eq!(recipes_of(&shown, "builds"), *ids);
    assert_eq!(shown["in_flight"], shown["builds"][0], "the oldest");
    assert_eq!((&shown["builds_attempted"], &shown["queue_length"]), (&8.into(), &8.into()));
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    assert_eq!(recipes_of(&status(&mut daemon), "builds"), *ids);
    latch.open();
    let output = daemon.wait_exit(PATIENCE);
    output.assert_success();
    assert_eq!(output.events("starting build").len(), SLOTS, "{output}");
    assert_eq!(output.events("build + publish complete").len(), SLOTS, "{output}");
    let published: Vec<String> = ids.iter().map(|id| format!("{id} 2.0-1 noarch")).collect();
    farm.assert_published(&published.iter().map(String::as_str).collect::<Vec<_>>());
    farm.assert_verifies();
    farm.assert_clean();
    assert_eq!(slurm.jobs(), "");
}

#[test]
fn manager_signalled_twice_cancels_all_jobs() {
    let Some(slurm) = Slurm::with_slots(SLOTS) else { return };
    let latch = Latch::new();
    let Wide { farm, ids, .. } = &wide(SLOTS, &["1.0", "2.0"], at_latch(&latch), SLOTS, "");
    let mut daemon = Running::spawn(&mut manager(farm, &slurm, &[]));
    let builds = wait_all_reached(&latch, ids);
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(ABORT_LIMIT);
    output.assert_code(1);
    assert_eq!(output.events("build interrupted").len(), SLOTS, "{output}");
    for id in ids {
        slurm.wait_ended(&format!("{id}@2.0-1"), "FAILED");
    }
    wait_until("no build is left on the node", PATIENCE, || {
        !builds.iter().any(|pid| processes::is_alive(*pid))
    });
    farm.assert_clean();
    assert_eq!(farm.published(), [""; 0]);
}

#[test]
fn manager_killed_leaves_jobs_whose_versions_the_next_one_builds_once() {
    let Some(slurm) = Slurm::with_slots(SLOTS) else { return };
    let latch = Latch::new();
    let Wide { farm, ids, .. } = &wide(SLOTS, &["1.0"], at_latch(&latch), SLOTS, "");
    let daemon = Running::spawn(&mut manager(farm, &slurm, &[]));
    wait_all_reached(&latch, ids);
    daemon.kill(false);
    // The surviving jobs occupy all slots, so the builds of the next manager wait.
    let mut next = Running::spawn(&mut manager(farm, &slurm, &[]));
    wait_until("each build waits for its slot", PATIENCE, || {
        slurm.jobs().matches("PENDING").count() == SLOTS
    });
    assert_eq!(recipes_of(&status(&mut next), "builds"), *ids);
    latch.open();
    next.wait_events("build + publish complete", SLOTS, PATIENCE);
    next.signal(Signal::TERM);
    let output = next.wait_exit(PATIENCE);
    output.assert_success();
    assert_eq!(output.events("build + publish complete").len(), SLOTS, "{output}");
    let published: Vec<String> = ids.iter().map(|id| format!("{id} 1.0-1 noarch")).collect();
    farm.assert_published(&published.iter().map(String::as_str).collect::<Vec<_>>());
    farm.assert_verifies();
    // A job that survived its manager creates its output directory anew; the next start removes it.
    farm.once().assert_success();
    farm.assert_clean();
}

#[test]
fn build_that_runs_into_its_time_out_leaves_the_others() {
    let Some(slurm) = Slurm::with_slots(SLOTS) else { return };
    let script = |id: &str| if id == "r0" { "sleep 1000\n" } else { "sleep 2\n" }.to_owned();
    // Each of the others' builds is far from the limit, and all nine of a recipe take longer than it.
    let tags = ["1.0", "2.0", "3.0", "4.0", "5.0", "6.0", "7.0", "8.0", "9.0"];
    let Wide { farm, ids, .. } = &wide(3, &tags, script, 3, "timeout = \"15s\"\n");
    let mut daemon = Running::spawn(&mut manager(farm, &slurm, &[]));
    let failed = daemon.wait_event("build failed", PATIENCE);
    assert_eq!((&*failed["recipe"], &*failed["version"]), ("r0", "9.0-1"));
    assert!(failed["error"].contains("15s"), "{failed:?}");
    // Its job is gone while the others' run on.
    slurm.wait_ended("r0@9.0-1", "FAILED");
    daemon.wait_events("build + publish complete", 2 * tags.len(), PATIENCE);
    let events = daemon.events();
    let place = |msg: &str, recipe: &str| {
        let is_it = |event: &Event| event["msg"] == msg && event["recipe"] == recipe;
        events.iter().rposition(is_it).expect("an event")
    };
    let time_out = events.iter().position(|event| *event == failed).expect("an event");
    assert!(ids[1..].iter().all(|id| place("build + publish complete", id) > time_out), "{daemon}");
    for id in &ids[1..] {
        assert!(!events.iter().any(|event| event["msg"] == "build failed" && event["recipe"] == **id));
    }
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(ABORT_LIMIT);
    farm.assert_verifies();
}
