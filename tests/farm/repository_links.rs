//! `state/repo` as a link or a disk of its own, and a creation of the repository that is cut short.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::broken_disk::{may_mount, sweep_in};
use crate::support::farm::{Farm, published_in};
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::Running;

const PUBLISHED: [&str; 1] = ["tool 1.0-1 noarch"];

/// A farm that has not run, and its upstream.
fn fresh(script: Option<&str>) -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    let mut builder = Farm::builder().with(&Recipe::program("tool", &repo.file_url()));
    if let Some(script) = script {
        builder = builder.program("peipkg-repo", script);
    }
    let farm = builder.build();
    fs::create_dir_all(farm.state_dir()).unwrap();
    (farm, repo)
}

/// Checks that two sweeps with `repo` as a link to `target` publish into it, and leave the link.
#[track_caller]
fn check_link(farm: &Farm, repo: &GitRepo, target: &Path) {
    symlink(target, farm.repo_dir()).unwrap();
    farm.run(&["--check"]).assert_success();
    farm.once().assert_success().assert_only_events();
    farm.assert_published(&PUBLISHED);
    repo.add_versions(&["1.1"]);
    farm.once().assert_success().assert_only_events();
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    assert!(fs::symlink_metadata(farm.repo_dir()).unwrap().is_symlink());
    let names: Vec<_> =
        fs::read_dir(farm.repo_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".creat")), "{names:?}");
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn repository_behind_a_link_is_created_and_published_to() {
    let (farm, repo) = fresh(None);
    fs::create_dir(farm.path("elsewhere")).unwrap();
    check_link(&farm, &repo, &farm.path("elsewhere"));

    let (farm, repo) = fresh(None);
    check_link(&farm, &repo, Path::new("../elsewhere"));
    assert_eq!(published_in(&farm.path("elsewhere")).len(), 2);

    let (farm, repo) = fresh(None);
    symlink("elsewhere", farm.path("second")).unwrap();
    check_link(&farm, &repo, &farm.path("second"));

    // Another file system, with the directory of a new disk.
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        let disk = tempfile::tempdir_in(shm).unwrap();
        fs::create_dir(disk.path().join("lost+found")).unwrap();
        let (farm, repo) = fresh(None);
        check_link(&farm, &repo, disk.path());
        let (farm, repo) = fresh(None);
        check_link(&farm, &repo, &disk.path().join("new"));
    }
}

#[test]
fn repository_behind_a_link_is_uploaded() {
    if !require("rclone") {
        return;
    }
    let repo = GitRepo::program(&["1.0"]);
    let remote = tempfile::tempdir().unwrap();
    let copy = remote.path().join("copy");
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).rclone(&copy).build();
    fs::create_dir_all(farm.state_dir()).unwrap();
    symlink("../elsewhere", farm.repo_dir()).unwrap();
    farm.once().assert_success().assert_only_events();
    assert_eq!(published_in(&copy), PUBLISHED);
}

#[test]
fn link_to_a_lost_directory_does_not_begin_a_second_repository() {
    let (farm, _repo) = fresh(None);
    symlink("../disk/repo", farm.repo_dir()).unwrap();
    fs::create_dir(farm.path("disk")).unwrap();
    farm.once().assert_success().assert_only_events();
    fs::rename(farm.path("disk"), farm.path("unmounted")).unwrap();
    fs::create_dir(farm.path("disk")).unwrap();
    for _ in 0..2 {
        farm.once()
            .assert_code(1)
            .assert_one_line(&["state/repo leads to", "disk/repo, which is gone; mount"]);
    }
    assert_eq!(fs::read_dir(farm.path("disk")).unwrap().count(), 0);
    fs::remove_dir(farm.path("disk")).unwrap();
    fs::rename(farm.path("unmounted"), farm.path("disk")).unwrap();
    farm.once_without_builds(&PUBLISHED);
    // An operator who creates the directory begins anew.
    fs::remove_dir_all(farm.path("disk/repo")).unwrap();
    fs::create_dir(farm.path("disk/repo")).unwrap();
    farm.once().assert_success().assert_only_events();
    farm.assert_published(&PUBLISHED);
}

#[test]
fn repository_on_a_disk_of_its_own_is_created() {
    if !may_mount() {
        return;
    }
    let (farm, _repo) = fresh(None);
    fs::create_dir(farm.repo_dir()).unwrap();
    let script = format!(
        "unshare -rm sh -c 'mount -t tmpfs tmpfs \"$0\" && mkdir \"$0/lost+found\" && \"$@\" && cp -r \"$0\" \"$0/../copy\"' {} \"$@\"",
        farm.repo_dir().display()
    );
    sweep_in(&farm, &script).assert_success().assert_only_events();
    assert_eq!(published_in(&farm.path("state/copy")), PUBLISHED);
}

#[test]
fn creation_cut_short_is_finished_by_the_next_start() {
    // The manager dies in init, before or after the tool's work.
    let dies = |work: &str| {
        format!(
            "#!/bin/sh\n[ \"$1\" = init ] && [ ! -e \"$HOME/died\" ] || exec {{real}} \"$@\"\n\
             : >\"$HOME/died\"\n{work}\nkill -9 \"$PPID\"\n"
        )
    };
    for work in [
        "mkdir \"$HOME/state/repo/.creating\" && echo half >\"$HOME/state/repo/.creating/repo.json\"",
        "{real} \"$@\"",
    ] {
        let (farm, _repo) = fresh(Some(&dies(work)));
        assert_eq!(farm.once().status.code(), None);
        assert!(farm.path("state/repo/.creating").exists() && !farm.path("state/repo/repo.json").exists());
        finishes(&farm);
    }
    // The manager dies between two of the renames.
    let names = ["keys", "assets", "index.html", "feed.xml", "index", "repo.json.sig", "repo.json"];
    for count in 0..=names.len() {
        let (farm, _repo) = fresh(None);
        let script = "peipkg-repo init --name test-repo --sign-key farm.key --timestamp 2026-01-01T00:00:00Z \
                      --out state/repo/.created";
        Running::spawn(&mut farm.shell(&farm.command(&[]), script))
            .wait_exit(crate::support::wait::PATIENCE)
            .assert_success();
        for name in &names[..count] {
            fs::rename(farm.path("state/repo/.created").join(name), farm.repo_dir().join(name)).unwrap();
        }
        finishes(&farm);
    }
}

#[test]
fn repository_without_descriptor_is_not_replaced_whatever_a_creation_left() {
    let (farm, _repo) = fresh(None);
    farm.once().assert_success();
    let (descriptor, away) = (farm.path("state/repo/repo.json"), farm.path("repo.json"));
    fs::rename(&descriptor, &away).unwrap();
    for left in ["none", ".creating", ".created"] {
        fs::create_dir_all(farm.repo_dir().join(left)).unwrap();
        farm.once().assert_code(1).assert_one_line(&["state/repo has no repo.json but is not empty"]);
        let _ = fs::remove_dir(farm.repo_dir().join("none"));
    }
    fs::rename(&away, &descriptor).unwrap();
    farm.once_without_builds(&PUBLISHED);
    farm.assert_verifies();
}

#[track_caller]
fn finishes(farm: &Farm) {
    farm.once().assert_success().assert_only_events();
    farm.assert_published(&PUBLISHED);
    farm.assert_clean();
    farm.assert_verifies();
    let left = fs::read_dir(farm.repo_dir()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".creat")), "{left:?}");
}
