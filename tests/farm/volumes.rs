//! State directories whose parts are volumes of their own: fresh ones with `lost+found`, and file
//! systems in memory. All are mounted in a mount namespace, so a script must examine them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::broken_disk::{may_mount, sweep_in};
use crate::support::farm::{Farm, published_in, remote_directory};
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::not_permitted;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::tools::Tools;
use crate::support::wait::PATIENCE;

/// Shell functions. `volume PLACE` mounts a fresh volume there, `settled` checks what must hold
/// after a sweep.
const FUNCTIONS: &str = "
volume() { mkdir -p $1 && mount -t tmpfs tmpfs $1 && mkdir -m 700 $1/lost+found || exit 9; }
settled() {
    peipkg-repo verify --mode both --repo state/repo >verify.log 2>&1 || exit 7
    echo packages: $(cd state/repo && find p -name '*.peipkg' | sort)
    echo left: $(ls -A state/sources state/stage state/publish | grep -v -e : -e lost+found)
    echo hidden: $(find state/repo -name '.*' -o -name '*.new')
}
";

const SETTLED: &str =
    "packages: p/tool/1.0-1/tool_1.0-1_noarch.peipkg p/tool/1.1-1/tool_1.1-1_noarch.peipkg\nleft:\nhidden:\n";

fn farm() -> (GitRepo, Farm) {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    (repo, farm)
}

/// Runs `script`, in which `"$@"` is a sweep of `farm`, in a mount namespace.
#[track_caller]
fn in_namespace(farm: &Farm, script: &str) -> Output {
    fs::write(farm.path("script"), format!("{FUNCTIONS}{script}")).unwrap();
    sweep_in(farm, "exec unshare -rm sh script \"$@\"")
}

/// Checks two sweeps with volumes at `places`: neither may warn or fail.
#[track_caller]
fn check(places: &[&str]) {
    let (_repo, farm) = farm();
    let places = places.join(" ");
    let mount = format!("for place in {places}; do volume $place; done\n");
    let output = in_namespace(&farm, &format!("{mount}\"$@\" || exit\nsettled\n\"$@\" || exit\n"));
    output.assert_success().assert_only_events();
    assert_eq!(output.stdout, SETTLED, "{places:?}\n{output}");
    assert_eq!(output.events("build + publish complete").len(), 2, "{places:?}\n{output}");
    for event in output.all_events() {
        assert!(event["level"] == "info" || event["level"] == "debug", "{places:?}\n{output}");
    }
}

#[test]
fn volume_at_any_directory_of_the_state_directory_is_used() {
    if !may_mount() {
        return;
    }
    for place in ["state", "state/repo", "state/stage", "state/publish", "state/sources", "state/logs"] {
        check(&[place]);
    }
    check(&["state/repo", "state/stage", "state/publish", "state/sources", "state/logs", "recipes/extra"]);
}

#[test]
fn repository_linked_to_a_fresh_volume_is_initialised_there() {
    if !may_mount() {
        return;
    }
    let (_repo, farm) = farm();
    let output = in_namespace(
        &farm,
        "volume disk\nmkdir state && ln -s ../disk state/repo\n\"$@\" || exit\nsettled\n[ -L state/repo ] && ls disk/repo.json\n",
    );
    output.assert_success();
    assert_eq!(output.stdout.replace("packages: \n", ""), format!("{SETTLED}disk/repo.json\n"), "{output}");
}

#[test]
fn repository_with_other_files_is_left_alone() {
    if !may_mount() {
        return;
    }
    let (_repo, farm) = farm();
    let output = in_namespace(&farm, "volume state/repo\n: >state/repo/notes\n\"$@\"\n");
    output.assert_code(1).assert_one_line(&["state/repo has no repo.json but is not empty"]);
}

#[test]
fn creation_without_room_is_repeated() {
    if !may_mount() {
        return;
    }
    let (_repo, farm) = farm();
    // The volume is full in the middle of the creation.
    let script = "mkdir -p state/repo && mount -t tmpfs -o nr_inodes=6 tmpfs state/repo || exit 9
\"$@\" && exit 5
[ ! -e state/repo/repo.json ] || exit 6
mount -o remount,nr_inodes=1000 state/repo || exit 9
mkdir -p state/repo/.creating/index && echo half >state/repo/.creating/index/archive.json
\"$@\" || exit
settled
";
    let output = in_namespace(&farm, script);
    output.assert_success();
    assert_eq!(output.stdout, SETTLED, "{output}");
}

#[test]
fn move_to_publish_that_fails_or_is_cut_short_leaves_nothing() {
    if !may_mount() {
        return;
    }
    let (_repo, farm) = farm();
    let script = "mkdir -p state/publish && mount -t tmpfs -o size=4k tmpfs state/publish || exit 9
\"$@\" 2>first.log || exit
grep -c 'msg=\"build failed\".*cannot move the packages to publish: ' first.log
ls -A state/publish
mount -o remount,size=8m state/publish || exit 9
mkdir -p state/publish/.tool@1.0-1.x/packages
\"$@\" || exit
settled
";
    let output = in_namespace(&farm, script);
    output.assert_success();
    assert_eq!(output.stdout, format!("2\n{SETTLED}"), "{output}");
    for event in output.all_events() {
        assert!(event["level"] == "info" || event["level"] == "debug", "{output}");
    }
}

#[test]
fn publish_pending_on_a_volume_is_published_by_the_next_start() {
    if !may_mount() {
        return;
    }
    let (_repo, farm) = farm();
    farm.write_program(
        "peipkg-repo",
        "#!/bin/sh\n[ \"$1\" = publish ] && [ ! -e \"$HOME/allowed\" ] && exit 1\nexec {real} \"$@\"\n",
    );
    let script = "volume state/publish\nvolume state/stage\n\"$@\" 2>first.log || exit
echo pending: $(ls state/publish | grep -c tool@)
: >allowed\n\"$@\" || exit\nsettled\n";
    let output = in_namespace(&farm, script);
    output.assert_success().assert_only_events();
    assert_eq!(output.stdout, format!("pending: 2\n{SETTLED}"), "{output}");
    assert!(output.events("starting build").is_empty(), "{output}");
}

#[test]
fn check_says_what_is_mounted_where() {
    if !may_mount() {
        return;
    }
    let (_repo, farm) = farm();
    let mut command = farm.command(&["--check", "--config"]);
    command.arg(farm.config_path());
    // A bind mount is of the same file system, but no rename leads out of it.
    let script = "volume state/stage; volume state/repo; mkdir -p state/logs aside; mount --bind aside state/logs\n\"$@\"\n";
    fs::write(farm.path("script"), format!("{FUNCTIONS}{script}")).unwrap();
    let mut shell = farm.shell(&command, "exec unshare -rm sh script \"$@\"");
    let output = Running::spawn(&mut shell).wait_exit(PATIENCE);
    output.assert_code(0);
    let home = format!("{}/", farm.home().display());
    let found: Vec<String> = output.stdout.lines().map(|line| line.replace(&home, "")).collect();
    let expected = [
        "config.toml: ok, 1 recipe, 1 with an upstream",
        "state/logs: note: on another file system than the state_dir: ",
        "state/repo: warning: on another file system than the state_dir: tmpfs on tmpfs; a power cut loses the packages there",
        "state/stage: note: on another file system than the state_dir: tmpfs on tmpfs",
    ];
    assert_eq!(found.len(), expected.len(), "{output}");
    let mut found = found;
    found.sort();
    for (line, start) in found.iter().zip(expected) {
        assert!(line.starts_with(start), "expected {start:?}, found {line:?}\n{output}");
    }
}

#[test]
fn lost_and_found_that_only_root_may_read_hinders_nobody() {
    let Some((_remote_home, remote)) = remote_directory() else { return };
    if !rustix::process::geteuid().is_root() {
        return not_permitted("root, to make directories that the manager may not read");
    }
    let (repo, farm) = farm();
    let config = fs::read_to_string(farm.config_path()).unwrap();
    let upload = format!("[upload]\nbackend = \"rclone\"\nremote = \"{}\"\n", remote.display());
    fs::write(farm.config_path(), config + &upload).unwrap();
    let volumes: Vec<_> = ["repo", "stage", "publish", "sources", "logs"]
        .map(|name| farm.state_dir().join(name))
        .into_iter()
        .chain([farm.recipes_dir(), remote.clone()])
        .collect();
    for volume in &volumes {
        fs::create_dir_all(volume).unwrap();
    }
    // Another user may not reach the directory of the build.
    let tools = Tools::get();
    run(Command::new("cp").args([&tools.manager, &tools.build, &tools.repo]).arg(farm.bin_dir()));
    let all = [farm.home(), repo.path(), remote.parent().unwrap()];
    run(Command::new("chown").args(["-R", "65534:65534"]).args(all));
    for parent in [repo.path().parent().unwrap(), remote.parent().unwrap()] {
        run(Command::new("chmod").arg("755").arg(parent));
    }
    for volume in &volumes {
        let directory = volume.join("lost+found");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("#1"), "").unwrap();
        fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
    }
    for _ in 0..2 {
        let usual = farm.command(&["--once", "--config"]);
        let mut command = Command::new(farm.bin_dir().join("peipkg-manager"));
        command.args(usual.get_args()).arg(farm.config_path()).current_dir(farm.home());
        command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = Running::spawn(command.uid(65534).gid(65534)).wait_exit(PATIENCE);
        output.assert_success().assert_only_events();
        for event in output.all_events() {
            assert!(event["level"] == "info" || event["level"] == "debug", "{output}");
        }
        farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
        assert_eq!(published_in(&remote).len(), 2, "{output}");
        assert!(volumes.iter().all(|volume| volume.join("lost+found/#1").exists()), "{output}");
    }
}
