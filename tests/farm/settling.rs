//! An interrupted publish: the next start undoes it or finds it whole, even without its journal.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::io::Errno;

use crate::broken_disk::half_written;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running, os_error};
use crate::support::wait::PATIENCE;

/// A `peipkg-repo` that runs `damage` instead of the next publish once [`die`] asks for it.
fn dying(damage: &str) -> String {
    format!(
        "#!/bin/sh\n[ \"$1\" = publish ] && [ -e \"$HOME/die\" ] || exec {{real}} \"$@\"\n\
         rm \"$HOME/die\"\n{damage}"
    )
}

/// A farm with one published version and this `peipkg-repo`.
fn mortal(script: &str) -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", script).build();
    farm.once().assert_success();
    (farm, repo)
}

/// Kills the manager in the publish of the next version.
#[track_caller]
fn die(farm: &Farm, repo: &GitRepo) {
    repo.add_versions(&["1.1"]);
    fs::write(farm.path("die"), "").unwrap();
    assert_eq!(farm.once().status.code(), None);
}

#[test]
fn publish_dies_over_the_descriptor_is_undone_by_the_next_start() {
    let repo = GitRepo::program(&["1.0"]);
    // The script's parent is the manager.
    let script = "#!/bin/sh\n[ \"$1\" = publish ] && [ ! -e \"$HOME/died\" ] || exec {real} \"$@\"\n: >\"$HOME/died\"\n\
                  cd \"$HOME/state/repo\" && rm repo.json && : >index/archive.json && kill -9 \"$PPID\"\n";
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .program("peipkg-repo", script)
        .build();
    let output = farm.once();
    assert_eq!(output.status.code(), None, "{output}");
    farm.once_without_builds(&["tool 1.0-1 noarch"]).event("publish was cut short, repository restored");
}

#[test]
fn publish_dies_with_files_aside_is_undone() {
    // Where the system cannot exchange directories, the companion tool moves its new index files
    // one by one, and its next publish would go on after the first, where this one ends.
    let script = dying(
        "cd \"$HOME/state/repo\" && cp -r index ../old && {real} \"$@\" && cp -r index .index.next && \
                  cp ../old/* index && rm -r ../old && mv .index.next/archive.json index && kill -9 \"$PPID\"\n",
    );
    let (farm, repo) = mortal(&script);
    die(&farm, &repo);
    assert!(farm.path("state/repo/.index.next").is_dir());
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"])
        .event("publish was cut short, repository restored");
}

#[test]
fn publish_dies_between_the_two_indexes_is_undone() {
    // The tool replaces one index with its signature, then the other, and its verify does not
    // compare the two.
    let script = "#!/bin/sh\n[ \"$1\" = verify ] && exec {real} verify --repo \"$HOME/state/repo\" --mode hashes\n\
                  [ \"$1\" = publish ] && [ -e \"$HOME/die\" ] || exec {real} \"$@\"\nrm \"$HOME/die\"\n\
                  mkdir \"$HOME/old\" && cp \"$HOME\"/state/repo/index/active.json* \"$HOME/old\" && \
                  {real} \"$@\" && cp \"$HOME\"/old/* \"$HOME/state/repo/index\" && kill -9 \"$PPID\"\n";
    let (farm, repo) = mortal(script);
    die(&farm, &repo);
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"])
        .event("publish was cut short, repository restored");
}

#[test]
fn publish_dies_between_two_index_directories_is_undone() {
    let script =
        dying("mv \"$HOME/state/repo/index\" \"$HOME/state/repo/.index.old\" && kill -9 \"$PPID\"\n");
    let (farm, repo) = mortal(&script);
    die(&farm, &repo);
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"])
        .event("publish was cut short, repository restored");
    assert!(!farm.path("state/repo/.index.old").exists());
}

#[test]
fn publish_died_and_the_repository_is_gone_is_forgotten() {
    let script = dying(": >\"$HOME/state/repo/index/archive.json\"; kill -9 \"$PPID\"\n");
    let (farm, repo) = mortal(&script);
    die(&farm, &repo);
    fs::remove_dir_all(farm.repo_dir()).unwrap();
    farm.once().assert_success().assert_only_events();
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn repository_missing_keeps_the_journal_until_it_is_back() {
    let script = dying(": >\"$HOME/state/repo/index/archive.json\"; kill -9 \"$PPID\"\n");
    let (farm, repo) = mortal(&script);
    // The repository is on its own disk, behind a link.
    let (disk, elsewhere) = (farm.path("disk"), farm.path("elsewhere"));
    fs::create_dir_all(farm.state_dir()).unwrap();
    fs::create_dir(&disk).unwrap();
    fs::rename(farm.repo_dir(), disk.join("repo")).unwrap();
    symlink(disk.join("repo"), farm.repo_dir()).unwrap();
    die(&farm, &repo);
    fs::rename(&disk, &elsewhere).unwrap();
    farm.once().assert_code(1).assert_one_line(&[&format!("state/repo: {}", os_error(Errno::NOENT))]);
    // The mount point exists, but the disk is not mounted.
    fs::create_dir_all(disk.join("repo")).unwrap();
    let parts =
        ["state/repo is empty", "a publish in it was cut short", "or remove ", "state/journal if it is lost"];
    farm.once().assert_code(1).assert_one_line(&parts);
    fs::remove_dir_all(&disk).unwrap();
    fs::rename(&elsewhere, &disk).unwrap();
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"])
        .event("publish was cut short, repository restored");
}

#[test]
fn publish_of_somebody_else_since_is_not_undone() {
    let script = dying("kill -9 \"$PPID\"\n");
    let (farm, repo) = mortal(&script);
    let other = Farm::builder().with(&Recipe::program("other", &repo.file_url())).build();
    other.once().assert_success();
    die(&farm, &repo);
    let publish = format!(
        "peipkg-repo publish --in state/repo --new {}/p/other/1.0-1 --out state/repo --sign-key farm.key \
            --timestamp \"$(date -u +%FT%TZ)\"",
        other.repo_dir().display()
    );
    Running::spawn(&mut farm.shell(&farm.command(&[]), &publish)).wait_exit(PATIENCE).assert_success();
    farm.once_without_builds(&["other 1.0-1 noarch", "tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn publish_not_undone_is_not_built_upon() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    // A directory is in the way of the old index until the second undo, which checks the saved index.
    let script = "#!/bin/sh\ncd \"$HOME\" || exit\nin_the_way=state/repo/index/archive.json.new\n\
                  if [ \"$1\" = verify ] && [ -e undone ]; then rm -rf $in_the_way\n\
                  elif [ \"$1\" = verify ] && [ -e failed ]; then : >undone\n\
                  elif [ \"$1\" = publish ] && [ ! -e failed ]; then\n\
                  : >failed; : >state/repo/index/archive.json; mkdir $in_the_way; exit 1\nfi\nexec {real} \"$@\"\n";
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .program("peipkg-repo", script)
        .build();
    let output = farm.once();
    output.assert_success().assert_only_events().event("publish was cut short, repository restored");
    assert!(output.event("publish failed")["error"].contains(&os_error(Errno::ISDIR)), "{output}");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

/// A farm whose manager has died in its second publish, after `damage` to the repository, and whose
/// journal is all zeros, as on a disk that has lost the data.
fn with_a_damaged_journal(damage: &str) -> (Farm, GitRepo) {
    let begin = "publish() { {real} \"$@\"; }\ncd \"$HOME/state/repo\"";
    let (farm, repo) = mortal(&dying(&format!("{begin}\n{damage}\nkill -9 \"$PPID\"\n")));
    die(&farm, &repo);
    let length = fs::metadata(farm.path("state/journal")).unwrap().len();
    fs::write(farm.path("state/journal"), vec![0; usize::try_from(length).unwrap()]).unwrap();
    (farm, repo)
}

/// Starts `farm` and checks that it publishes the pending packages without a build.
#[track_caller]
fn assert_goes_on(farm: &Farm) -> Output {
    let output = farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    assert_eq!(half_written(farm), "");
    output
}

#[test]
fn journal_damaged_repository_whole_goes_on() {
    let package = "p/tool/1.1-1/tool_1.1-1_noarch.peipkg";
    for (damage, event) in [
        (":", "publishing pending packages"),
        ("publish \"$@\"", "pending packages are already published, removing them"),
        // A partial package that no index names is harmless.
        (
            &format!("mkdir -p \"${{0%/*}}\" \"$(dirname {package})\" && echo half >{package}"),
            "publishing pending packages",
        ),
    ] {
        let (farm, _repo) = with_a_damaged_journal(damage);
        let output = assert_goes_on(&farm);
        let damaged = output.event("journal is damaged, but the repository is whole");
        assert_eq!(
            (damaged["level"].as_str(), damaged["reason"].as_str()),
            ("warn", "its checksum does not match")
        );
        output.event(event);
    }
}

#[test]
fn journal_damaged_file_of_a_person_in_publish_goes_on() {
    let (farm, _repo) = with_a_damaged_journal(":");
    // It has never been pending packages, so nothing of it can have been published.
    fs::write(farm.path("state/publish/notes.txt"), "").unwrap();
    let output = farm.once();
    output.assert_success().event("journal is damaged, but the repository is whole");
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn journal_and_repository_damaged_stops_for_a_person() {
    let package = "p/tool/1.1-1/tool_1.1-1_noarch.peipkg";
    for (damage, found) in [
        ("echo '{' >index/archive.json", "index/archive.json"),
        ("publish \"$@\" && cp index/archive.json.sig index/active.json.sig", "index/active.json"),
        ("rm repo.json", "repo.json"),
        (
            &format!("publish \"$@\" && echo half >{package}"),
            "tool_1.1-1_noarch.peipkg is not the file that was built",
        ),
        (
            &format!("publish \"$@\" && rm {package}"),
            "tool_1.1-1_noarch.peipkg is not the file that was built",
        ),
    ] {
        let (farm, _repo) = with_a_damaged_journal(damage);
        let index = fs::read(farm.path("state/repo/index/archive.json")).unwrap();
        for _ in 0..2 {
            let journal = farm.path("state/journal");
            let parts = [
                journal.to_str().unwrap(),
                "its checksum does not match",
                "the repository is not whole",
                found,
            ];
            farm.once().assert_code(1).assert_one_line(&parts);
            assert!(fs::read(farm.path("state/repo/index/archive.json")).unwrap() == index, "{damage}");
        }
        // The commands of the recovery page.
        let mend = "cd state && now=$(date -u +%FT%TZ)\n\
                    mkdir -p repo/p/tool/1.1-1 && cp publish/*/packages/* repo/p/tool/1.1-1\n\
                    if [ ! -e repo/repo.json ]; then\n\
                        peipkg-repo init --name test-repo --sign-key ../farm.key --timestamp \"$now\" --out fresh\n\
                        mv fresh/repo.json* repo\nfi\n\
                    peipkg-repo publish --rebuild --in repo --all-packages-dir repo/p --out repo \
                        --sign-key ../farm.key --timestamp \"$now\"";
        Running::spawn(&mut farm.shell(&farm.command(&[]), mend)).wait_exit(PATIENCE).assert_success();
        assert_goes_on(&farm).event("journal is damaged, but the repository is whole");
    }
}

#[test]
fn journal_unfinished_is_removed() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    fs::write(farm.path("state/journal.new"), "half").unwrap();
    farm.once().assert_success().assert_only_events();
    assert_eq!(half_written(&farm), "");
}
