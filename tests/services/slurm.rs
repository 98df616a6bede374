//! `contrib/slurm`: farms whose `peipkg-build` is the wrapper; a real Slurm cluster of one node
//! runs the jobs.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::latch::Latch;
use crate::support::optional::require;
use crate::support::package::Package;
use crate::support::processes;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::slurm::Slurm;
use crate::support::tools::Tools;
use crate::support::wait::{PATIENCE, wait_until};

/// How long a manager lives after a second signal: ten seconds for its children, and what a busy machine
/// takes, but not ten more.
pub(crate) const ABORT_LIMIT: Duration = Duration::from_secs(19);

fn wrapper() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/slurm/peipkg-build")
}

/// Prepares the manager of `farm` with `arguments` and the wrapper at the front of its `PATH`.
pub(crate) fn manager(farm: &Farm, slurm: &Slurm, arguments: &[&str]) -> Command {
    let mut command = farm.command(arguments);
    let place = farm.bin_dir().join("peipkg-build");
    if !place.exists() {
        std::os::unix::fs::symlink(wrapper(), place).unwrap();
    }
    slurm.environment(&mut command);
    command.arg("--config").arg(farm.config_path()).env("PEIPKG_SLURM_BUILD", &Tools::get().build);
    command
}

#[track_caller]
fn once(farm: &Farm, slurm: &Slurm) -> Output {
    Running::spawn(&mut manager(farm, slurm, &["--once"])).wait_exit(PATIENCE)
}

/// Runs the wrapper by hand.
#[track_caller]
fn by_hand(arguments: &[&str], variables: &[(&str, OsString)]) -> Output {
    let mut command = Command::new(wrapper());
    command.args(arguments).env("PEIPKG_SLURM_BUILD", &Tools::get().build);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    Running::spawn(&mut command).wait_exit(PATIENCE)
}

/// The error of the one failed build in `output`, without the parts that differ between farms.
#[track_caller]
fn reason(farm: &Farm, output: &Output) -> String {
    let event = output.assert_success().event("build failed");
    event["error"].replace(&farm.home().display().to_string(), "")
}

/// Standard error without srun's lines about a job that waits, for example for the end of the
/// previous one.
fn without_queue(output: &Output) -> String {
    output.stderr.split_inclusive('\n').filter(|line| !line.starts_with("srun: job ")).collect()
}

#[test]
fn build_as_a_job_has_the_same_outcome() {
    let Some(slurm) = Slurm::start() else { return };
    let upstream = GitRepo::program(&["1.0"]);
    let (good, bad) =
        (Recipe::program("good", &upstream.file_url()), Recipe::failing("bad", &upstream.file_url()));
    let [plain, farm] = [0, 1].map(|_| Farm::builder().with(&good).with(&bad).build());
    let expected = plain.once();
    let output = once(&farm, &slurm);

    farm.assert_published(&["good 1.0-1 noarch"]);
    farm.assert_verifies();
    farm.assert_clean();
    let bytes =
        |farm: &Farm| Package::read(&farm.repo_dir().join("p/good/1.0-1/good_1.0-1_noarch.peipkg")).bytes;
    assert!(bytes(&farm) == bytes(&plain), "the job's package differs from the local one");
    // The error is the same as without a cluster: no line of srun hides its cause.
    assert_eq!(reason(&farm, &output), reason(&plain, &expected));
    slurm.wait_ended("good@1.0-1", "COMPLETED");
    slurm.wait_ended("bad@1.0-1", "FAILED");
}

#[test]
fn settings_and_streams_reach_the_job() {
    let Some(slurm) = Slurm::start() else { return };
    let upstream = GitRepo::program(&["1.0"]);
    let place = Latch::new();
    let script = format!("pwd > {}\necho a word on the way\n", place.path("pwd").display());
    let farm =
        Farm::builder().with(&Recipe::program("hello", &upstream.file_url()).before_build(&script)).build();
    let local = place.path("local");
    fs::create_dir(&local).unwrap();

    let mut nowhere = manager(&farm, &slurm, &["--once"]);
    nowhere.env("PEIPKG_SLURM_OPTIONS", "--partition=nowhere --time=10");
    let output = Running::spawn(&mut nowhere).wait_exit(PATIENCE);
    let why = reason(&farm, &output);
    assert!(why.starts_with("peipkg-build build exited with status 1: srun: "), "{why}");

    let recipe = farm.recipes_dir().join("hello/peipkg.toml").display().to_string();
    let (source, out) = (upstream.path().display().to_string(), farm.path("out").display().to_string());
    let mut build =
        vec!["build", "--recipe", &recipe, "--source", &source, "--version", "1.0-1", "--source-ref"];
    build.extend(["x", "--farm-id", "x", "--timestamp", "2026-01-01T00:00:00Z", "--out", &out]);
    let conf = slurm
        .command("srun")
        .get_envs()
        .find_map(|(name, value)| (name == "SLURM_CONF").then(|| value.expect("a file").to_owned()));
    let mut variables = vec![("SLURM_CONF", conf.expect("SLURM_CONF"))];
    variables.push(("PEIPKG_SLURM_OPTIONS", "--partition=build --time=10".into()));
    variables.push(("PEIPKG_SLURM_TMPDIR", local.clone().into()));
    let output = by_hand(&build, &variables);
    // Standard output is the list of packages, standard error the script's output.
    assert_eq!(output.assert_success().stdout, format!("{out}/hello_1.0-1_noarch.peipkg\n"));
    assert_eq!(without_queue(&output), "a word on the way\n");
    let pwd = fs::read_to_string(place.path("pwd")).unwrap();
    assert!(pwd.starts_with(&local.display().to_string()), "{pwd}");

    build.push("--nonsense");
    let output = by_hand(&build, &variables);
    let said = without_queue(output.assert_code(2));
    assert!(said.starts_with("peipkg-build: ") && said.contains("--nonsense"), "{output}");
    assert_eq!(said.lines().count(), 1, "{output}");
}

#[test]
fn manager_signalled_twice_cancels_the_job() {
    let Some(slurm) = Slurm::start() else { return };
    let (upstream, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    let script = format!("echo $$ > {}\n{}", latch.path("pid").display(), latch.script());
    let farm =
        Farm::builder().with(&Recipe::program("slow", &upstream.file_url()).before_build(&script)).build();

    let mut daemon = Running::spawn(&mut manager(&farm, &slurm, &[]));
    latch.wait_reached();
    let build: i32 = fs::read_to_string(latch.path("pid")).unwrap().trim().parse().unwrap();
    assert!(processes::is_alive(build));
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    assert_eq!(slurm.jobs(), "slow@1.0-1 RUNNING", "the first signal ended the job");
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(ABORT_LIMIT);
    output.assert_code(1).event("build interrupted");
    slurm.wait_ended("slow@1.0-1", "FAILED");
    wait_until("the build on the node is gone", PATIENCE, || !processes::is_alive(build));
    farm.assert_clean();

    // A job that waits for a free node counts like a running one.
    let mut other = Running::spawn(slurm.command("srun").args(["--exclusive", "sleep", "1000"]));
    wait_until("the node is taken", PATIENCE, || slurm.jobs() == "sleep RUNNING");
    let mut daemon = Running::spawn(&mut manager(&farm, &slurm, &[]));
    wait_until("the build waits", PATIENCE, || slurm.jobs().contains("slow@1.0-1 PENDING"));
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(ABORT_LIMIT).assert_code(1).event("build interrupted");
    wait_until("only the other job is left", PATIENCE, || slurm.jobs() == "sleep RUNNING");
    other.signal(Signal::TERM);
}

#[test]
fn wrapper_signalled_alone_cancels_the_job() {
    let Some(slurm) = Slurm::start() else { return };
    let (upstream, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    let recipe = Recipe::program("slow", &upstream.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).build();
    let mut command = Command::new(wrapper());
    // The tool is killed, and leaves its files.
    slurm.environment(command.env("PEIPKG_SLURM_BUILD", &Tools::get().build).env("TMPDIR", farm.home()));
    command.arg("build").arg("--recipe").arg(farm.recipes_dir().join("slow/peipkg.toml"));
    command.arg("--source").arg(upstream.path()).args(["--version", "1.0-1", "--source-ref", "x"]);
    command.args(["--farm-id", "x", "--timestamp", "2026-01-01T00:00:00Z", "--out"]).arg(farm.path("out"));
    let mut wrapper = Running::spawn(&mut command);
    latch.wait_reached();
    wrapper.signal(Signal::TERM);
    let output = wrapper.wait_exit(PATIENCE);
    assert!(!output.status.success(), "{output}");
    assert!(output.stderr.contains("CANCELLED"), "{output}");
    slurm.wait_ended("slow@1.0-1", "FAILED");
}

#[test]
fn wrapper_called_for_no_build_needs_no_cluster() {
    let tools = Tools::get();
    let without = tools.path_without(&["srun"]);
    let path = || [("PATH", without.path().into())];
    for arguments in [&["--version"][..], &["--help"], &["build", "--help"], &["pack", "--nonsense"], &[]] {
        let output = by_hand(arguments, &path());
        let real = Running::spawn(Command::new(&tools.build).args(arguments)).wait_exit(PATIENCE);
        let all = |output: &Output| (output.status, output.stdout.clone(), output.stderr.clone());
        assert_eq!(all(&output), all(&real));
    }
    let output = by_hand(&["build", "--recipe", "r/peipkg.toml"], &path());
    output.assert_code(127);
    assert!(output.stderr.contains("srun"), "{output}");
    let missing = by_hand(&["--version"], &[("PEIPKG_SLURM_BUILD", "/nowhere/peipkg-build".into())]);
    missing.assert_code(1).assert_one_line(&["peipkg-build: /nowhere/peipkg-build is no program"]);
    let itself = by_hand(&["--version"], &[("PEIPKG_SLURM_BUILD", wrapper().into())]);
    itself.assert_code(1).assert_one_line(&["PEIPKG_SLURM_BUILD is this script"]);
}

#[test]
fn wrapper_is_plain_shell() {
    if require("shellcheck") {
        run(Command::new("shellcheck").args(["--shell", "sh"]).arg(wrapper()));
    }
}
