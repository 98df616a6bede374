//! `--check`: finds every problem, names its place, and changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running, os_error};
use crate::support::tools::Tools;
use crate::support::wait::{PATIENCE, wait_until};

/// An upstream that must not be contacted: a check does not talk to upstreams.
pub(crate) const NOWHERE: &str = "file:///nowhere/at/all.git";

/// The end of a recipe, with all that `peipkg-build` needs.
pub(crate) const REST: &str = "[meta]\nbuild_script = \"build.sh\"\n\
    [[package]]\nname = \"tool\"\narchitecture = \"noarch\"\nfiles = [\"usr/**\"]\n";

/// The user and group that own nothing.
pub(crate) const NOBODY: u32 = 65534;

/// Runs `--check` on `farm` and compares its output line by line; `{home}` stands for the farm's
/// directory.
#[track_caller]
pub(crate) fn check(farm: &Farm, code: i32, expected: &[&str]) -> Output {
    let output = farm.run(&["--check"]);
    assert_printed(farm, &output, code, expected);
    output
}

#[track_caller]
pub(crate) fn assert_printed(farm: &Farm, output: &Output, code: i32, expected: &[&str]) {
    let home = farm.home().display().to_string();
    let expected: String = expected.iter().map(|line| line.replace("{home}", &home) + "\n").collect();
    assert_eq!(output.stdout, expected, "{output}");
    assert_eq!(output.stderr, "", "{output}");
    output.assert_code(code);
}

/// Every file below `directory` with its content, time of change and kind.
pub(crate) fn listing(directory: &Path) -> BTreeMap<String, (u64, u64, i64, i64, i64, u32)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).expect("a file that stays");
        if meta.is_dir() {
            pending.extend(
                fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()),
            );
        }
        let facts =
            (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec(), meta.mode());
        found.insert(path.display().to_string(), facts);
    }
    found
}

#[test]
fn check_good_farm_is_summed_up_and_unchanged() {
    let farm = Farm::builder()
        .with(&Recipe::program("jq", NOWHERE).watch("github_webhook = true"))
        .with(&Recipe::program("libz", NOWHERE))
        .with(&Recipe::manual("tool"))
        .http()
        .build();
    fs::create_dir(farm.path("recipes/not-a-recipe")).expect("a directory");
    let before = listing(farm.home());
    check(&farm, 0, &["{home}/config.toml: ok, 3 recipes, 2 with an upstream"]);
    assert_eq!(listing(farm.home()), before);
    assert!(!farm.state_dir().exists());
}

#[test]
fn check_one_recipe_says_one() {
    let farm = Farm::builder().with(&Recipe::manual("tool")).build();
    check(&farm, 0, &["{home}/config.toml: ok, 1 recipe, 0 with an upstream"]);
}

#[test]
fn check_used_farm_passes_and_changes_nothing() {
    let upstream = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("hello", &upstream.file_url())).build();
    farm.once().assert_success();
    let before = listing(farm.home());
    check(&farm, 0, &["{home}/config.toml: ok, 1 recipe, 1 with an upstream"]);
    assert_eq!(listing(farm.home()), before);
}

#[test]
fn check_lists_every_problem_of_configuration_recipes_and_keys() {
    let farm = Farm::builder()
        .config_text(
            "[manager]\nid = \"\"\nrecipes_dir = \"{home}/recipes\"\nstate_dir = \"{home}/a-file/state\"\n\
             [repo]\nname = \"r\"\n\
             [signing]\nkey_file = \"{home}/rsa.pem\"\n\
             [poll]\ndefault_interval = \"1s\"\njobbs = 3\n\
             [[signing_key]]\nname = \"tcb\"\nprivate = \"{home}/tcb.key\"\n\
             [[grant]]\nrecipe = \"gone\"\nsign = [\"tcb\"]\n",
        )
        .recipe("one", &format!("[watch]\ngithub_webhok = true\npoll_interval = \"x\"\n{REST}"), "")
        .recipe("two", &format!("\n[upstreem]\ngit = 1\n[watch]\npoll_interval = 5\n{REST}"), "")
        .recipe("three", "[meta\n", "")
        .with(&Recipe::program("well", NOWHERE))
        .build();
    fs::write(farm.path("a-file"), "").expect("a file");
    fs::write(farm.path("rsa.pem"), "-----BEGIN RSA PRIVATE KEY-----\nAA==\n").expect("a key");
    fs::set_permissions(farm.path("rsa.pem"), Permissions::from_mode(0o600)).expect("a mode");
    let output = farm.run(&["--check"]);
    let home = format!("{}/", farm.home().display());
    let found: Vec<String> = output.stdout.lines().map(|line| line.replace(&home, "")).collect();
    let expected = [
        "config.toml:2: [manager] id must not be empty",
        "config.toml:10: [poll] default_interval",
        "config.toml:11: unknown key \"jobbs\" in [poll]; did you mean \"jobs\"?",
        "config.toml:16: warning: [[grant]] recipe \"gone\" does not exist",
        &format!("a-file/state: cannot write to the state_dir: {}", os_error(Errno::NOTDIR)),
        "recipes/one/peipkg.toml:2: unknown key \"github_webhok\" in [watch]; did you mean \"github_webhook\"?",
        "recipes/one/peipkg.toml:3: [watch] poll_interval",
        "recipes/three/peipkg.toml:1: not valid TOML",
        "recipes/two/peipkg.toml:2: warning: section [upstreem] is not read, did you mean [upstream]?",
        "recipes/two/peipkg.toml:5: [watch] poll_interval: expected a string, found integer",
        "rsa.pem: not an Ed25519 private key: found a PEM block \"RSA PRIVATE KEY\"",
        &format!("tcb.key: cannot read the key: {}", os_error(Errno::NOENT)),
    ];
    assert_eq!(found.len(), expected.len(), "{output}");
    for (line, start) in found.iter().zip(expected) {
        assert!(line.starts_with(start), "expected {start:?}, found {line:?}\n{output}");
    }
    assert_eq!(output.stderr, "");
    output.assert_code(2);
}

#[test]
fn check_config_missing_or_no_toml_is_one_line() {
    let farm = Farm::builder().config_text("[manager]\nid = \n").build();
    let output = farm.run(&["--check"]);
    let start = format!("{}:2: not valid TOML: ", farm.config_path().display());
    assert!(output.stdout.starts_with(&start) && output.stdout.lines().count() == 1, "{output}");
    output.assert_code(2);
    fs::write(farm.config_path(), b"\nid = \"\xff\"").expect("a file");
    check(
        &farm,
        2,
        &["{home}/config.toml:2: not valid TOML: the byte 0xff is not UTF-8, save the file as UTF-8"],
    );
    fs::remove_file(farm.config_path()).expect("a file");
    let reason = format!("cannot read the configuration: {}", os_error(Errno::NOENT));
    let advice = "--config names another, docs/config.sample.toml is one to start from";
    check(&farm, 1, &[&format!("{{home}}/config.toml: {reason}; {advice}")]);
}

#[test]
fn check_of_the_sample_names_the_keys_to_change() {
    let sample = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.sample.toml"));
    let sample = sample.expect("the sample").replace("/etc/peipkg-manager", "{home}");
    let sample = sample.replace("/var/lib/peipkg-manager", "{home}/state");
    let farm = Farm::builder().config_text(&sample).with(&Recipe::manual("tool")).build();
    let lines = [
        "{home}/config.toml:7: warning: [manager] id is the sample's \"farm-1\", choose your own; every package records it permanently",
        "{home}/config.toml:15: warning: [repo] name is the sample's \"example\", choose your own; the repository keeps it permanently",
        &format!(
            "{{home}}/farm.pem: cannot read the key: {}; \
         \"openssl genpkey -algorithm ed25519 -out FILE\" makes one",
            os_error(Errno::NOENT)
        ),
    ];
    check(&farm, 1, &lines);
    fs::rename(farm.key_path(), farm.path("farm.pem")).expect("the key");
    let ok = "{home}/config.toml: ok, 1 recipe, 0 with an upstream";
    check(&farm, 0, &[lines[0], lines[1], ok]);
    // The manager starts nevertheless, and does not warn again once it has begun with these names.
    farm.once().assert_success();
    check(&farm, 0, &[ok]);
}

#[test]
fn check_warnings_alone_pass() {
    let farm = Farm::builder()
        .recipe("one", &format!("\n\n[[upstreams]]\n{REST}"), "")
        .config_extra("[[grant]]\nrecipe = \"gone\"")
        .build();
    check(
        &farm,
        0,
        &[
            "{home}/config.toml:17: warning: [[grant]] recipe \"gone\" does not exist",
            "{home}/recipes/one/peipkg.toml:3: warning: section [upstreams] is not read, did you mean [upstream]?",
            "{home}/config.toml: ok, 1 recipe, 0 with an upstream",
        ],
    );
    farm.remove_recipe("one");
    let output = farm.run(&["--check"]);
    let warning = format!("{}: warning: there is no recipe here", farm.recipes_dir().display());
    assert!(output.stdout.contains(&warning), "{output}");
    output.assert_success();
}

#[test]
fn check_keys_readable_by_all_warn() {
    let keys = "[[signing_key]]\nname = \"tcb\"\nprivate = \"{home}/tcb.key\"\n";
    let farm = Farm::builder().with(&Recipe::manual("tool")).http().config_extra(keys).build();
    let mode = |name: &str, mode| {
        fs::set_permissions(farm.path(name), Permissions::from_mode(mode)).expect("a mode");
    };
    fs::copy(farm.key_path(), farm.path("tcb.key")).expect("a key");
    let ok = "{home}/config.toml: ok, 1 recipe, 0 with an upstream";
    mode("farm.key", 0o640);
    check(&farm, 0, &[ok]);
    mode("farm.key", 0o644);
    mode("tcb.key", 0o604);
    mode("webhook-secret", 0o664);
    let line = |name: &str, mode: &str, what: &str| {
        let remedy = "chmod 600, or 640 if its group must read it";
        format!("{{home}}/{name}: warning: mode {mode} lets everybody read {what}; {remedy}")
    };
    let lines = [
        line("farm.key", "0644", "the signing key"),
        line("tcb.key", "0604", "the private key of a [[signing_key]]"),
        line("webhook-secret", "0664", "the webhook secret"),
    ];
    check(&farm, 0, &[&lines[0], &lines[1], &lines[2], ok]);
    // A start prints the same warnings and goes on.
    let output = farm.once();
    output.assert_success().assert_only_events();
    let home = farm.home().display().to_string();
    let expected = lines.map(|line| line.replace("{home}", &home).replace("warning: ", ""));
    let said: Vec<String> =
        output.events("configuration warning").iter().map(|event| event["problem"].clone()).collect();
    assert_eq!(said, expected, "{output}");
}

#[test]
fn check_names_every_missing_tool() {
    let farm = Farm::builder().with(&Recipe::manual("tool")).rclone(Path::new("/backup")).build();
    let path = Tools::get().path_without(&["git", "rclone"]);
    let mut command = farm.command(&["--check", "--config"]);
    let output = Running::spawn(command.arg(farm.config_path()).env("PATH", path.path())).wait_exit(PATIENCE);
    let searched = path.path().display();
    let git = format!("git is not on PATH ({searched}); it is needed to list and fetch upstreams");
    let rclone = format!("rclone is not on PATH ({searched}); it is needed to upload to [upload] remote");
    let expected = [git, rclone].map(|message| format!("{{home}}/config.toml: {message}"));
    assert_printed(&farm, &output, 1, &expected.each_ref().map(String::as_str));
}

#[test]
fn check_webhook_secret_missing_or_empty_is_a_problem() {
    let hooked = Recipe::program("jq", NOWHERE).watch("github_webhook = true");
    let farm = Farm::builder().with(&hooked).http().build();
    let secret = farm.path("webhook-secret");
    fs::write(&secret, " \n").expect("a secret");
    check(&farm, 1, &["{home}/webhook-secret: cannot use the webhook secret: the file is empty"]);
    fs::remove_file(&secret).expect("a secret");
    let reason = format!("cannot use the webhook secret: {}", os_error(Errno::NOENT));
    check(&farm, 1, &[&format!("{{home}}/webhook-secret: {reason}")]);

    let farm = Farm::builder().with(&hooked).config_extra("[http]\naddr = \"127.0.0.1:0\"").build();
    let reason = "missing key \"webhook_secret_file\" in [http], recipe \"jq\" has github_webhook = true";
    check(&farm, 1, &[&format!("{{home}}/config.toml: {reason}")]);
}

#[test]
fn check_address_must_resolve_but_may_be_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let farm = Farm::builder().with(&Recipe::manual("tool")).http_on(&format!("127.0.0.1:{port}")).build();
    farm.run(&["--check"]).assert_success();
    // A label of more than 63 characters is refused without asking a name server (RFC 1035 §2.3.4).
    let host = "x".repeat(64);
    let farm = Farm::builder().with(&Recipe::manual("tool")).http_on(&format!("{host}:80")).build();
    let output = farm.run(&["--check"]);
    let start = format!("{}:17: [http] addr: cannot resolve \"{host}:80\": ", farm.config_path().display());
    assert!(output.stdout.starts_with(&start) && output.stdout.lines().count() == 1, "{output}");
    output.assert_code(1);
}

#[test]
fn check_runs_beside_a_manager_at_work() {
    let upstream = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().build();
    let (mark, gate) = (farm.path("building"), farm.path("gate"));
    // Create the mark in one step, unlike `touch`, so that nothing changes after the test has seen
    // it.
    let wait = format!(": >'{}'\nwhile [ ! -e '{}' ]; do sleep 0.02; done", mark.display(), gate.display());
    farm.add(&Recipe::program("hello", &upstream.file_url()).before_build(&wait));
    let sweep = farm.start(&["--once"]);
    wait_until("the build has begun", PATIENCE, || mark.exists());
    let before = listing(farm.home());
    check(&farm, 0, &["{home}/config.toml: ok, 1 recipe, 1 with an upstream"]);
    assert_eq!(listing(farm.home()), before);
    fs::write(&gate, "").expect("a gate");
    sweep.wait_exit(PATIENCE).assert_success();
    farm.assert_published(&["hello 1.0-1 noarch"]);
}

#[test]
fn check_state_directory_blocked_is_a_problem() {
    let farm = Farm::builder().with(&Recipe::manual("tool")).build();
    symlink("nowhere", farm.state_dir()).expect("a link");
    let reason = format!("cannot write to the state_dir: {}", os_error(Errno::NOENT));
    let line = format!("{{home}}/state: {reason}; the manager must be able to write there");
    check(&farm, 1, &[&line]);
}

#[test]
fn check_state_directory_not_writable_is_a_problem() {
    let farm = Farm::builder().with(&Recipe::manual("tool")).build();
    // Root may write everywhere, so as root run the check as another user, from open directories.
    let manager = farm.path("manager");
    // Let another process copy: a child that another test starts meanwhile would inherit the open
    // copy, and the system refuses to run a file that is open for writing.
    run(Command::new("cp").arg(Tools::manager()).arg(&manager));
    for name in ["peipkg-build", "peipkg-repo"] {
        farm.write_program(name, "#!/bin/sh\necho 'peipkg-build check --recipe FILE'\n");
    }
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    if rustix::process::geteuid().is_root() {
        chown(farm.key_path(), Some(NOBODY), None).expect("an owner");
    }
    mode(farm.home(), 0o555);
    let usual = farm.command(&["--check", "--config"]);
    let mut command = Command::new(manager);
    command.args(usual.get_args()).arg(farm.config_path()).current_dir(farm.home());
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    mode(farm.home(), 0o755);
    let reason = format!("cannot create the state_dir in {{home}}: {}", os_error(Errno::ACCESS));
    let line = format!("{{home}}/state: {reason}; the manager must be able to write there");
    assert_printed(&farm, &output, 1, &[&line]);
}
