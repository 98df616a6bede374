//! Tries `docs/trust.md` on farms: a rotated key, a revoked key, a key that changes after a killed
//! publish, and a farm that is restored from its backup.

use std::fs;

use crate::support::farm::{Farm, remote_directory};
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::PATIENCE;

/// The seed of the farm's next key.
const NEW_SEED: [u8; 32] = [9; 32];
/// A publish that fails while the file `fail` is there, and kills the manager while `die` is there.
const REPO_TOOL: &str = "#!/bin/sh\n[ \"$1\" = publish ] || exec {real} \"$@\"\n[ -e \"$HOME/fail\" ] && exit 1\n\
                         [ -e \"$HOME/die\" ] && rm \"$HOME/die\" && kill -9 \"$PPID\" && exit 1\nexec {real} \"$@\"\n";

/// A farm with `tool 1.0-1` published, and its next key in `new.key`.
fn farm() -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", REPO_TOOL).build();
    fs::write(farm.path("new.key"), NEW_SEED).unwrap();
    farm.once().assert_success();
    (farm, repo)
}

/// Runs `peipkg-repo keys` on the farm's repository, and returns its output.
#[track_caller]
fn keys(farm: &Farm, arguments: &str) -> String {
    let script = format!("peipkg-repo keys --repo state/repo {arguments}");
    let output = Running::spawn(&mut farm.shell(&farm.command(&[]), &script)).wait_exit(PATIENCE);
    output.assert_success();
    output.stdout.clone()
}

/// The fingerprint of the farm's only key.
fn only_key(farm: &Farm) -> String {
    let listed = keys(farm, "");
    listed.strip_suffix(" active\n").expect("one key").to_owned()
}

/// Builds a version with the old key, and changes the key before the version is published.
fn change_key_while_a_version_waits(farm: &Farm, repo: &GitRepo) {
    repo.add_versions(&["1.1"]);
    fs::write(farm.path("fail"), "").unwrap();
    farm.once().event("publish failed");
    fs::remove_file(farm.path("fail")).unwrap();
    use_new_key(farm);
}

fn use_new_key(farm: &Farm) {
    fs::copy(farm.path("new.key"), farm.key_path()).unwrap();
}

#[test]
fn rotated_key_publishes_what_the_old_one_has_signed() {
    let (farm, repo) = farm();
    let old = only_key(&farm);
    change_key_while_a_version_waits(&farm, &repo);
    // A key that is not listed loses nothing.
    let checked = || farm.run(&["--check"]).assert_success().stdout.clone();
    let unlisted = format!(
        "{}: warning: {}/repo.json does not list this key, ",
        farm.key_path().display(),
        farm.repo_dir().display()
    );
    assert!(checked().contains(&unlisted), "{}", checked());
    let output = farm.once();
    assert!(
        output.events("configuration warning")[1]["problem"].contains("does not list this key"),
        "{output}"
    );
    let error = &output.event("publish failed")["error"];
    assert!(error.ends_with(" is not an active key of this repository"), "{error}");
    assert_eq!(farm.kept().len(), 1);
    fs::write(farm.path("old.key"), crate::support::farm::SEED).unwrap();
    keys(&farm, "--sign-key old.key --add new.key");
    assert!(!checked().contains("does not list"), "{}", checked());
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    keys(&farm, &format!("--sign-key farm.key --retire {old} --until 2126-01-01T00:00:00Z"));
    repo.add_versions(&["1.2"]);
    farm.once().assert_success();
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch", "tool 1.2-1 noarch"]);
    farm.assert_verifies();
}

#[test]
fn revoked_key_publishes_nothing_and_a_new_revision_replaces_it() {
    let (farm, repo) = farm();
    let old = only_key(&farm);
    change_key_while_a_version_waits(&farm, &repo);
    keys(&farm, &format!("--sign-key farm.key --add farm.key --revoke {old}"));
    farm.assert_verifies();
    let output = farm.once();
    assert!(output.event("publish failed")["error"].contains("does not list as active"), "{output}");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    for kept in farm.kept() {
        fs::remove_dir_all(farm.path(&format!("state/publish/{kept}"))).unwrap();
    }
    let recipe = farm.path("recipes/tool/peipkg.toml");
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, text.replacen("[upstream]", "[upstream]\npeios_revision = 2", 1)).unwrap();
    farm.once().assert_success();
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.0-2 noarch", "tool 1.1-2 noarch"]);
    let summary = farm.assert_verifies();
    let expected = "2 with verified provenance, 1 with provenance by a revoked key";
    assert!(summary.trim_end().ends_with(expected), "{summary}");
}

#[test]
fn key_that_changes_after_a_killed_publish_is_listed_again() {
    let (farm, repo) = farm();
    repo.add_versions(&["1.1"]);
    fs::write(farm.path("die"), "").unwrap();
    assert_eq!(farm.once().status.code(), None);
    assert!(farm.path("state/journal").exists());
    keys(&farm, "--sign-key farm.key --add new.key");
    fs::copy(farm.key_path(), farm.path("old.key")).unwrap();
    use_new_key(&farm);
    // The journal brings the old descriptor back, and the packages wait.
    let output = farm.once();
    output.event("publish was cut short, repository restored");
    assert!(
        output.event("publish failed")["error"].contains("is not an active key of this repository"),
        "{output}"
    );
    keys(&farm, "--sign-key old.key --add new.key");
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn farm_from_its_backup_continues_and_loses_nothing_of_a_remote_that_is_ahead() {
    let Some((_home, remote)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).rclone(&remote).build();
    farm.once().assert_success();
    let shell = |farm: &Farm, script: &str| {
        Running::spawn(&mut farm.shell(&farm.command(&[]), script)).wait_exit(PATIENCE).assert_success();
    };
    shell(&farm, "tar -czf backup.tar.gz config.toml recipes farm.key state/repo");
    let restore = "rm -rf state recipes farm.key config.toml\ntar -xzf backup.tar.gz";
    shell(&farm, restore);
    farm.once_without_builds(&["tool 1.0-1 noarch"]);
    // The remote is ahead of the backup: the repository is fetched from there.
    repo.add_versions(&["1.1"]);
    farm.once().assert_success();
    shell(&farm, restore);
    shell(&farm, &format!("rm -rf state/repo\ncp -R {} state/repo", remote.display()));
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    // Otherwise the remote stays as it is while it has more.
    repo.add_versions(&["1.2"]);
    farm.once().assert_success();
    let before = fs::read(remote.join("index/archive.json")).unwrap();
    shell(&farm, restore);
    repo.git(&["tag", "-d", "v1.1", "v1.2"]);
    fs::write(farm.path("state/upload-owed"), "").unwrap();
    let output = farm.once();
    let error = &output.event("upload failed")["error"];
    assert!(error.contains("the remote has index_version 4, this repository 2"), "{error}");
    assert_eq!(fs::read(remote.join("index/archive.json")).unwrap(), before);
}
