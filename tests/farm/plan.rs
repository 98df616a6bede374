//! `--plan`: says what a sweep would do, and does nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::running::Output;
use crate::support::terminal::Terminal;
use crate::support::wait::{PATIENCE, wait_until};

/// Every file below `directory` with its inode, length and time of change.
fn files(directory: &Path) -> BTreeSet<(PathBuf, u64, u64, i64, i64)> {
    let mut found = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert((path, metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()));
    }
    found
}

/// Runs a plan, which must change nothing, and returns it.
#[track_caller]
fn plan(farm: &Farm, code: i32) -> (Vec<String>, Output) {
    let before = files(farm.home());
    let output = farm.run(&["--plan"]);
    output.assert_code(code).assert_only_events();
    assert_eq!(files(farm.home()), before, "the plan changed something\n{output}");
    (output.stdout.lines().map(str::to_owned).collect(), output)
}

#[test]
fn plan_says_what_a_sweep_does_with_each_tag() {
    let repo = GitRepo::program(&["0.9", "1.0", "1.1", "1.2"]);
    for tag in ["v_1", "w1.2", "nightly"] {
        repo.tag_light(tag);
    }
    let blob = repo.git(&["rev-parse", "v1.0:README"]);
    repo.git(&["tag", "v3", blob.trim()]);
    let url = repo.file_url();
    let tool = Recipe::program("tool", &url)
        .tag_pattern("^[vw](.*)$")
        .upstream("min_version = \"1.0\"\nexclude = [\"v1.1\"]");
    let farm = Farm::builder()
        .with(&tool)
        .with(&Recipe::program("foreign", &url).tag_pattern("^release-(.*)$"))
        .with(&Recipe::program("paused", &url).tag_pattern("^v(1\\.2)$").upstream("paused = true"))
        .with(&Recipe::manual("by-hand"))
        .build();
    let foreign = "recipe=foreign plan=none reason=\"tag_pattern matches none of 8 tags, such as w1.2\"";
    let skipped = [
        "recipe=tool plan=skip tag=v0.9 reason=\"older than min_version 1.0\"",
        "recipe=tool plan=skip tag=v1.1 reason=\"excluded by the recipe\"",
    ];
    let (lines, _) = plan(&farm, 0);
    assert_eq!(lines[0], "recipe=by-hand plan=none reason=\"no [upstream]\"");
    assert_eq!(lines[1], foreign);
    assert_eq!(lines[2], "recipe=paused plan=skip version=1.2-1 tag=v1.2 reason=\"the recipe is paused\"");
    let builds = ["3-1 tag=v3", "1.2-1 tag=v1.2", "1.0-1 tag=v1.0"];
    assert_eq!(lines[3..6], builds.map(|rest| format!("recipe=tool plan=build version={rest}")));
    assert_eq!(lines[6..8], skipped);
    let invalid = &lines[8];
    assert!(invalid.starts_with("recipe=tool plan=skip tag=v_1 reason=\""), "{invalid}");
    assert_eq!(lines[9], "recipe=tool plan=skip tag=w1.2 reason=\"tag \\\"v1.2\\\" is version 1.2-1 too\"");
    assert_eq!(lines.len(), 10);

    // The sweep does what the plan has said.
    let output = farm.once();
    let mut built: Vec<_> = output.events("build + publish complete");
    built.sort_by(|a, b| b["version"].cmp(&a["version"]));
    let built = built.iter().map(|event| format!("{} {}", event["recipe"], event["version"]));
    assert_eq!(built.collect::<Vec<_>>(), ["tool 1.2-1", "tool 1.0-1"]);
    let (lines, _) = plan(&farm, 0);
    let published = ["1.2-1 tag=v1.2", "1.0-1 tag=v1.0"];
    assert_eq!(lines[3..5], published.map(|rest| format!("recipe=tool plan=published version={rest}")));
    assert!(
        lines.contains(&"recipe=tool plan=skip tag=v3 reason=\"it names a blob, not a commit\"".to_owned())
    );
    assert!(!lines.iter().any(|line| line.contains("plan=build")), "{lines:#?}");

    // A second package makes the published versions partly published; a pause holds the rest.
    farm.add(&tool.clone().with_doc().package("tool"));
    let (lines, _) = plan(&farm, 0);
    let partly =
        "recipe=tool plan=skip version=1.2-1 tag=v1.2 reason=\"only partly published, raise peios_revision\"";
    assert!(lines.contains(&partly.to_owned()), "{lines:#?}");
    farm.add(&tool.upstream("peios_revision = 2"));
    fs::write(farm.path("state/pause"), "").unwrap();
    let (lines, _) = plan(&farm, 0);
    let paused = "recipe=tool plan=skip version=1.2-2 tag=v1.2 reason=\"builds are paused\"";
    assert!(lines.contains(&paused.to_owned()), "{lines:#?}");
}

#[test]
fn plan_without_a_repository_or_state_needs_only_git() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    fs::remove_file(farm.key_path()).unwrap();
    let git = crate::support::optional::find_program("git").unwrap();
    std::os::unix::fs::symlink(git, farm.bin_dir().join("git")).unwrap();
    let mut command = farm.command(&["--plan", "--config"]);
    command.arg(farm.config_path()).env("PATH", farm.bin_dir());
    let output = crate::support::running::Running::spawn(&mut command).wait_exit(PATIENCE);
    output.assert_success();
    assert_eq!(output.stdout, "recipe=tool plan=build version=1.0-1 tag=v1.0\n");
    assert!(!farm.state_dir().exists());
}

#[test]
fn upstream_that_cannot_be_listed_fails_the_plan_and_hides_no_other() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder()
        .with(&Recipe::program("gone", "file:///nowhere/at.git"))
        .with(&Recipe::program("tool", &repo.file_url()))
        .build();
    let (lines, _) = plan(&farm, 1);
    assert!(
        lines[0].starts_with("recipe=gone plan=unknown reason=") && lines[0].contains("nowhere"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "recipe=tool plan=build version=1.0-1 tag=v1.0");
    // A broken recipe keeps a sweep from starting, and so it does the plan.
    farm.write_recipe("broken", "?", "");
    let output = farm.run(&["--plan"]);
    output.assert_code(1);
    assert!(output.stdout.is_empty() && output.stderr.contains("broken/peipkg.toml:1:"), "{output}");
}

#[test]
fn plan_beside_a_daemon_sees_what_is_pending_and_published() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let latch = Latch::new();
    // The publish of the second version hangs.
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = publish ] && [ -e \"$HOME/state/repo/p/tool/1.1-1\" ]; then\n{}fi\nexec {{real}} \"$@\"\n",
        latch.script()
    );
    let recipe = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&recipe).program("peipkg-repo", &script).build();
    let mut daemon = farm.daemon();
    daemon.wait_event("build + publish complete", PATIENCE);
    latch.wait_reached();
    let output = farm.run(&["--plan"]);
    output.assert_success();
    let lines: Vec<&str> = output.stdout.lines().collect();
    let expected = [
        "recipe=tool plan=published version=1.1-1 tag=v1.1",
        "recipe=tool plan=publish version=1.0-1 tag=v1.0",
    ];
    assert_eq!(lines, expected, "{output}");
    latch.open();
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
}

#[test]
fn plan_on_a_terminal_is_a_table_that_foreign_text_cannot_forge() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    repo.tag_light("v\u{202e}x");
    let recipe =
        Recipe::program("tool", &repo.file_url()).tag_pattern("^v(.*)$").upstream("min_version = \"1.1\"");
    let farm = Farm::builder()
        .with(&recipe)
        .with(&Recipe::manual("by-hand"))
        .with(&Recipe::program("gone", "file:///nowhere/at.git"))
        .with(&Recipe::program("wrong", &repo.file_url()).tag_pattern("^x(.*)$"))
        .build();
    let terminal = Terminal::new();
    let mut command = farm.command(&["--plan", "--config"]);
    command.arg(farm.config_path()).env("TERM", "dumb");
    let mut child = terminal.run_with_stdout(&mut command);
    let mut code = None;
    wait_until("the plan ends", PATIENCE, || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(1));
    terminal.wait_for("A sweep would");
    let text = terminal.text().replace("\r\n", "\n");
    let url = repo.file_url();
    for part in [
        "by-hand  no [upstream], never built automatically\n".to_owned(),
        "gone  file:///nowhere/at.git\n  cannot list it: ".to_owned(),
        format!("tool  {url}  3 of 3 tags match\n  build      1.1-1  v1.1\n"),
        "\n  skip       -      v1.0        older than min_version 1.1\n".to_owned(),
        "\n  skip       -      v\\u{202e}x  ".to_owned(),
        format!("wrong  {url}\n  tag_pattern matches none of 3 tags, such as v\\u{{202e}}x\n"),
        "\nA sweep would build 1 version of 1 recipe; 0 tags published, 2 tags skipped; 1 recipe not known\n"
            .to_owned(),
    ] {
        assert!(text.contains(&part), "{part}\n{text}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}

#[test]
fn plan_that_cannot_know_what_is_published_says_so_and_fails() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    let index = farm.repo_dir().join("index/archive.json");
    let refused = |path: &Path, expected: &str| {
        let before = files(farm.home());
        let output = farm.run(&["--plan"]);
        output.assert_code(1);
        assert_eq!(files(farm.home()), before, "the plan changed something\n{output}");
        assert!(output.stdout.is_empty(), "{output}");
        let expected = format!("peipkg-manager: {}: {expected}", path.display());
        assert!(output.stderr.contains(&expected), "{expected}\n{output}");
    };
    let whole = fs::read(&index).unwrap();
    fs::write(&index, "{").unwrap();
    refused(&index, "EOF while parsing");
    fs::remove_file(&index).unwrap();
    refused(&index, "No such file");
    fs::create_dir(&index).unwrap();
    refused(&index, "");
    fs::remove_dir(&index).unwrap();
    fs::write(&index, whole).unwrap();
    let descriptor = farm.repo_dir().join("repo.json");
    fs::rename(&descriptor, farm.path("aside")).unwrap();
    refused(&descriptor, "missing, but the index is there");
    fs::rename(farm.path("aside"), &descriptor).unwrap();
    // Something that is no directory is as unreadable to root as a closed one is to others.
    let publish = farm.path("state/publish");
    fs::rename(&publish, farm.path("aside")).unwrap();
    fs::write(&publish, "").unwrap();
    refused(&publish, "Not a directory");
    fs::remove_file(&publish).unwrap();
    fs::rename(farm.path("aside"), &publish).unwrap();
    std::os::unix::fs::symlink("pause", farm.path("state/not-commits.json")).unwrap();
    std::os::unix::fs::symlink("not-commits.json", farm.path("state/pause")).unwrap();
    refused(&farm.path("state/not-commits.json"), "Too many levels of symbolic links");
    fs::remove_file(farm.path("state/not-commits.json")).unwrap();
    fs::remove_file(farm.path("state/pause")).unwrap();
    // A journal that no manager settles.
    fs::write(farm.path("state/journal"), "").unwrap();
    refused(&farm.path("state/journal"), "a publish was cut short, and only a start");
    fs::remove_file(farm.path("state/journal")).unwrap();
    plan(&farm, 0);
}

#[test]
fn plan_of_a_user_who_may_not_read_the_state_fails() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    fs::set_permissions(farm.home(), fs::Permissions::from_mode(0o755)).unwrap();
    for closed in ["state", "state/repo", "state/repo/index", "state/publish"] {
        let closed = farm.path(closed);
        let before = fs::metadata(&closed).unwrap().permissions();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = farm.command(&["--plan", "--config"]);
        command.arg(farm.config_path()).uid(65534).gid(65534);
        let output = crate::support::running::Running::spawn(&mut command).wait_exit(PATIENCE);
        output.assert_code(1);
        assert!(
            output.stdout.is_empty() && output.stderr.contains("run --plan as the manager's user"),
            "{output}"
        );
        fs::set_permissions(&closed, before).unwrap();
    }
}
