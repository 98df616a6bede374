//! `[upload] remote`: a remote that would be in the wrong place ends the start, and a check asks
//! rclone for the others.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::farm::{Farm, remote_directory};
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::wait::PATIENCE;

/// A farm with one version to build that uploads to `remote`.
fn uploading(remote: &str) -> (GitRepo, Farm) {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .config_extra(&format!("[upload]\nbackend = \"rclone\"\nremote = \"{remote}\""))
        .build();
    (repo, farm)
}

/// Checks that neither a sweep nor a check takes the remote, and that nothing is built or written.
#[track_caller]
fn assert_refused(farm: &Farm, parts: &[&str]) {
    let home = farm.home().display().to_string();
    let parts: Vec<String> = parts.iter().map(|part| part.replace("{home}", &home)).collect();
    let mut expected: Vec<&str> = parts.iter().map(String::as_str).collect();
    let place = format!("{home}/config.toml:18: [upload] remote must be ");
    expected.push(&place);
    farm.once().assert_code(2).assert_one_line(&expected);
    let check = farm.run(&["--check"]);
    check.assert_code(2);
    for part in expected {
        assert!(check.stdout.contains(part), "{part}\n{check}");
    }
    assert!(!farm.path("state/repo/repo.json").exists());
}

#[test]
fn remote_without_a_place_ends_the_start_with_2() {
    if !require("rclone") {
        return;
    }
    for (remote, advice) in [
        ("r2/packages", "found \"r2/packages\"; did you mean \"r2:packages\"?"),
        ("r2/some/dir", "found \"r2/some/dir\"; did you mean \"r2:some/dir\"?"),
        ("packages", "found \"packages\""),
        ("./packages", "found \"./packages\""),
        ("../r2:packages", "found \"../r2:packages\""),
        ("~/packages", "found \"~/packages\""),
        ("r2/packages:x", "found \"r2/packages:x\""),
        (":local:packages", "found \":local:packages\""),
    ] {
        let (_repo, farm) = uploading(remote);
        assert_refused(&farm, &[advice, "\"name:path\", \":backend:path\" or an absolute path"]);
        assert!(!farm.path(remote).exists() && !farm.path("r2").exists());
    }
}

#[test]
fn remote_that_is_the_state_directory_ends_the_start_with_2() {
    if !require("rclone") {
        return;
    }
    for remote in [
        "{home}/state",
        "{home}/state/",
        "{home}/state/repo",
        "{home}/state/repo/p",
        "{home}/state/elsewhere",
        "{home}/other/../state/repo",
        "{home}",
        "/",
        ":local:{home}/state/repo",
        "{home}/to-state/repo",
        "{home}/to-home",
        "{home}/chain/x",
    ] {
        let (_repo, farm) = uploading(remote);
        // The links lead to nothing before the first start.
        symlink(farm.state_dir(), farm.path("to-state")).unwrap();
        symlink(".", farm.path("to-home")).unwrap();
        symlink("to-state/repo", farm.path("chain")).unwrap();
        assert_refused(&farm, &["outside the state_dir", "would overwrite {home}/state"]);
    }
}

#[test]
fn remote_that_is_the_target_of_a_linked_repository_ends_the_start_with_2() {
    if !require("rclone") {
        return;
    }
    for remote in ["{home}/www", "{home}/www/repo", "{home}/www/repo/deeper"] {
        let (_repo, farm) = uploading(remote);
        fs::create_dir_all(farm.path("www/repo")).unwrap();
        fs::create_dir(farm.state_dir()).unwrap();
        symlink("../www/repo", farm.repo_dir()).unwrap();
        assert_refused(&farm, &["would overwrite {home}/state/repo"]);
    }
}

#[test]
fn remote_beside_the_state_directory_is_taken() {
    let Some((_home, copy)) = remote_directory() else { return };
    for remote in
        [format!("{}", copy.display()), format!(":local:{}", copy.display()), "{home}/state2".into()]
    {
        let (_repo, farm) = uploading(&remote);
        let output = farm.once();
        output.assert_success().assert_only_events().event("upload complete");
        fs::remove_dir_all(&copy).ok();
    }
}

/// Runs a check with an rclone configuration of these lines.
#[track_caller]
fn check_with(farm: &Farm, config: &str) -> Output {
    let file = farm.path("rclone.conf");
    fs::write(&file, config).unwrap();
    let mut command: Command = farm.command(&["--check", "--config"]);
    Running::spawn(command.arg(farm.config_path()).env("RCLONE_CONFIG", file)).wait_exit(PATIENCE)
}

#[test]
fn check_asks_rclone_for_the_remote() {
    if !require("rclone") {
        return;
    }
    let known = "[r2]\ntype = alias\nremote = /srv\n[disk]\ntype = local\n[other one]\ntype = memory\n";
    let summary = "ok, 1 recipe, 1 with an upstream";
    for (remote, config, warning) in [
        ("r2:packages", known, ""),
        ("other one:", known, ""),
        ("r2,remote=/x:packages", known, ""),
        (":memory:", known, ""),
        ("/srv/mirror", known, ""),
        ("disk:/srv/mirror", known, ""),
        ("r3:packages", known, "rclone knows no remote \"r3\", its configuration has disk, other one, r2;"),
        ("r2:packages", "", "rclone knows no remote \"r2\", its configuration has none;"),
        ("R2:packages", known, "rclone knows no remote \"R2\", "),
        (
            "disk:packages",
            known,
            "\"disk\" is a directory of this machine, so its path must be absolute, found \"packages\"",
        ),
        ("disk:{home}/state/repo", known, "[upload] remote must be outside the state_dir"),
        (
            "r2:packages",
            "[r2\nnonsense",
            "cannot ask rclone for its remotes: rclone listremotes exited with status 1: ",
        ),
    ] {
        let (_repo, farm) = uploading(remote);
        let output = check_with(&farm, config);
        output.assert_code(0);
        assert!(output.stdout.contains(summary), "{output}");
        let warnings: Vec<&str> =
            output.stdout.lines().filter(|line| line.contains(":18: warning: ")).collect();
        assert_eq!(warnings.len(), usize::from(!warning.is_empty()), "{output}");
        assert!(warnings.iter().all(|line| line.contains(warning)), "{output}");
        assert!(!farm.state_dir().exists() && !Path::new("/srv/mirror").exists());
    }
}

#[test]
fn check_rclone_fails_warns() {
    let (_repo, farm) = uploading("r2:packages");
    farm.write_program("rclone", "#!/bin/sh\necho 'cannot decrypt' >&2\nexit 1\n");
    let output = farm.run(&["--check"]);
    output.assert_code(0);
    assert!(
        output.stdout.contains(
            "cannot ask rclone for its remotes: rclone listremotes exited with status 1: cannot decrypt"
        ),
        "{output}"
    );
}
