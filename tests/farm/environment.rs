//! The manager's environment, standard input and umask: the manager takes from them only the
//! documented parts, and passes the rest on to its children. Signals are in `signals.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::PATIENCE;

/// A stand-in that records its environment and its standard input, and then becomes the real
/// program.
const WITNESS: &str = "#!/bin/sh
name=${0##*/}
env >\"$HOME/env-$name\"
cat >\"$HOME/stdin-$name\"
exec {real} \"$@\"
";

const TOOLS: [&str; 3] = ["git", "peipkg-build", "peipkg-repo"];

/// A farm with one recipe, and witnesses for all tools.
fn witnessed(repo: &GitRepo) -> Farm {
    let mut builder = Farm::builder().with(&Recipe::program("tool", &repo.file_url()));
    for name in TOOLS {
        builder = builder.program(name, WITNESS);
    }
    builder.build()
}

#[test]
fn environment_does_not_configure_the_manager_and_reaches_the_tools() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = witnessed(&repo);
    let config = farm.config_path();
    let mut command = farm.command(&["--once", "--config", config.to_str().unwrap()]);
    let to_the_manager = [
        ("NOTIFY_SOCKET", "/run/notify"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_FDNAMES", "http"),
        ("LISTEN_PID", "1"),
        ("WATCHDOG_USEC", "1000"),
        ("WATCHDOG_PID", "1"),
    ];
    let to_the_tools = [
        ("RUST_LOG", "peipkg_manager=off"),
        ("RUST_LOG_STYLE", "always"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
        ("TMPDIR", farm.home().to_str().unwrap()),
    ];
    command.envs(to_the_manager).envs(to_the_tools);
    // git sets these for a hook of a checkout from which somebody may start the manager, and would
    // obey them.
    command.envs([
        ("GIT_DIR", "/nowhere"),
        ("GIT_WORK_TREE", "/nowhere"),
        ("GIT_INDEX_FILE", "/nowhere/index"),
    ]);
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    output.assert_success().assert_only_events().event("build + publish complete");
    assert!(output.all_events().iter().all(|event| event["level"] == "info"), "{output}");
    assert!(!output.stderr.contains('\u{1b}'), "{output}");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    for name in TOOLS {
        let seen = fs::read_to_string(farm.path(&format!("env-{name}"))).unwrap();
        let has = |variable: &str| seen.lines().any(|line| line.starts_with(&format!("{variable}=")));
        for (variable, _) in to_the_manager {
            assert!(!has(variable), "{name} has {variable}");
        }
        for (variable, _) in to_the_tools {
            assert!(has(variable), "{name} lacks {variable}");
        }
    }
}

/// The files at or below `path` that others may not read, and the directories that they may not
/// enter.
fn unreadable_in(path: &Path) -> Vec<PathBuf> {
    let metadata = fs::symlink_metadata(path).unwrap();
    let wanted = if metadata.is_dir() { 0o555 } else { 0o444 };
    let mut found = Vec::new();
    if metadata.permissions().mode() & wanted != wanted {
        found.push(path.to_owned());
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            found.extend(unreadable_in(&entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn umask_of_any_kind_only_the_repository_is_readable_by_all() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    for umask in ["077", "022"] {
        let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
        let mut command = farm.command(&["--once", "--config"]);
        command.arg(farm.config_path());
        let mut shell = farm.shell(&command, &format!("umask {umask}; exec \"$@\""));
        let output = Running::spawn(&mut shell).wait_exit(PATIENCE);
        output.assert_success().assert_only_events();
        farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
        assert_eq!(unreadable_in(&farm.repo_dir()), Vec::<PathBuf>::new(), "{umask}");
        for name in ["sources", "stage", "publish", "logs"] {
            let mode = fs::metadata(farm.state_dir().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name} with {umask}");
        }
    }
}

#[test]
fn children_never_wait_for_input() {
    let repo = GitRepo::program(&["1.0"]);
    // Once with standard input closed, once with it open and silent.
    for script in ["exec \"$@\" <&-", "mkfifo pipe && exec 3<>pipe && exec \"$@\" <&3"] {
        let farm = witnessed(&repo);
        let config = farm.config_path();
        let manager = farm.command(&["--once", "--config", config.to_str().unwrap()]);
        let mut command = farm.shell(&manager, script);
        let output = Running::spawn(&mut command).wait_exit(PATIENCE);
        output.assert_success().event("build + publish complete");
        for name in TOOLS {
            assert_eq!(fs::read_to_string(farm.path(&format!("stdin-{name}"))).unwrap(), "");
        }
    }
}

#[test]
fn git_needs_a_password_fails_without_a_prompt() {
    let http = SmartHttp::new();
    let url = http.serve("private.git", &GitRepo::program(&["1.0"]));
    http.require_auth("user", "password");
    let farm = Farm::builder()
        .with(&Recipe::program("private", &url))
        .program("ask", "#!/bin/sh\necho \"$*\" >>\"$HOME/asked\"\necho password\n")
        .build();
    let config = farm.config_path();
    let mut command = farm.command(&["--once", "--config", config.to_str().unwrap()]);
    let ask = farm.bin_dir().join("ask");
    command.env_remove("GIT_TERMINAL_PROMPT").env("GIT_ASKPASS", &ask).env("SSH_ASKPASS", &ask);
    let output = Running::spawn(&mut command).wait_exit(Duration::from_secs(20));
    output.assert_success().assert_only_events();
    let failed = output.event("poll failed");
    assert!(failed["error"].starts_with("git ls-remote exited with status 128: "), "{output}");
    assert!(!farm.path("asked").exists(), "git ran its prompt program");
}

#[test]
fn file_open_at_the_start_reaches_no_build() {
    const LISTS_FILES: &str = "#!/bin/sh
readlink /proc/$$/fd/* >>\"$HOME/open-${0##*/}\"
exec {real} \"$@\"
";
    let repo = GitRepo::program(&["1.0"]);
    let recipe = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&recipe).program("peipkg-build", LISTS_FILES).build();
    let inherited = farm.home().join("inherited");
    fs::write(&inherited, "secret").unwrap();
    let manager = farm.command(&["--once", "--config"]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<\"$0\" 9>>\"$0\"; exec \"$@\""]).arg(&inherited);
    command.arg(manager.get_program()).args(manager.get_args()).arg(farm.config_path());
    command.envs(manager.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_success().assert_only_events();
    farm.assert_published(&["tool 1.0-1 noarch"]);
    let open = fs::read_to_string(farm.home().join("open-peipkg-build")).unwrap();
    assert!(!open.is_empty() && !open.contains("/inherited"), "{open}");
}
