//! An undo needs proof: a publish that is whole stands whatever became of its pending packages, and
//! nothing that somebody has published since is set back.

use std::fs;
use std::path::{Path, PathBuf};

use peipkg_tools::digest::{hex, sha256};
use serde_json::Value;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::wait::PATIENCE;

const UNDONE: &str = "publish was cut short, repository restored";
const PACKAGE: &str = "state/repo/p/tool/1.1-1/tool_1.1-1_noarch.peipkg";

/// A farm with `tool 1.0-1` published, whose manager was killed after `damage` in the publish of
/// `tool 1.1-1`. `$new` is the directory of the pending packages, `publish` the real publish.
fn killed_in_a_publish(damage: &str) -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = publish ] && [ -e \"$HOME/die\" ] || exec {{real}} \"$@\"\nrm \"$HOME/die\"\n\
         publish() {{ {{real}} \"$@\"; }}\n{damage}\nkill -9 \"$PPID\"\n"
    );
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", &script).build();
    farm.once().assert_success();
    repo.add_versions(&["1.1"]);
    fs::write(farm.path("die"), "").unwrap();
    assert_eq!(farm.once().status.code(), None);
    assert!(farm.path("state/journal").exists());
    (farm, repo)
}

/// Publishes `other 1.0-1` into the repository of `farm` by hand.
fn publish_by_hand(farm: &Farm, repo: &GitRepo) {
    let other = Farm::builder().with(&Recipe::program("other", &repo.file_url())).build();
    other.once().assert_success();
    let script = format!(
        "peipkg-repo publish --in state/repo --new {}/p/other/1.0-1 --out state/repo --sign-key farm.key \
         --timestamp \"$(date -u +%FT%TZ)\"",
        other.repo_dir().display()
    );
    Running::spawn(&mut farm.shell(&farm.command(&[]), &script)).wait_exit(PATIENCE).assert_success();
}

fn empty_publish(farm: &Farm) {
    fs::remove_dir_all(farm.path("state/publish")).unwrap();
    fs::create_dir(farm.path("state/publish")).unwrap();
}

fn index(farm: &Farm) -> PathBuf {
    farm.path("state/repo/index/archive.json")
}

/// Starts `farm` and checks that it neither builds nor changes the index.
#[track_caller]
fn assert_stands(farm: &Farm, published: &[&str]) {
    let before = fs::read(index(farm)).unwrap();
    let output = farm.once_without_builds(published);
    assert!(output.events(UNDONE).is_empty(), "{output}");
    assert!(fs::read(index(farm)).unwrap() == before, "the index was changed\n{output}");
    assert!(!farm.path("state/journal").exists());
}

#[track_caller]
fn assert_undone_and_published(farm: &Farm, builds: usize) -> Output {
    let output = farm.once();
    output.assert_success().assert_only_events().event(UNDONE);
    assert_eq!(output.events("starting build").len(), builds, "{output}");
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    farm.assert_clean();
    farm.assert_verifies();
    output
}

fn cut_off(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn publish_whole_without_its_pending_packages_stands() {
    let (farm, _repo) = killed_in_a_publish("publish \"$@\"");
    empty_publish(&farm);
    assert_stands(&farm, &["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn publish_whole_with_altered_pending_packages_stands() {
    let (farm, _repo) = killed_in_a_publish("publish \"$@\"");
    let [kept] = farm.kept().try_into().unwrap();
    cut_off(&farm.path(&format!("state/publish/{kept}/packages/tool_1.1-1_noarch.peipkg")));
    assert_stands(&farm, &["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn publish_of_somebody_else_after_a_whole_one_is_never_set_back() {
    for is_emptied in [false, true] {
        let (farm, repo) = killed_in_a_publish("publish \"$@\"");
        publish_by_hand(&farm, &repo);
        if is_emptied {
            empty_publish(&farm);
        }
        assert_stands(&farm, &["other 1.0-1 noarch", "tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    }
}

#[test]
fn publish_of_somebody_else_after_none_without_pending_packages_is_never_set_back() {
    let (farm, repo) = killed_in_a_publish("");
    publish_by_hand(&farm, &repo);
    empty_publish(&farm);
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.events(UNDONE).is_empty(), "{output}");
    farm.assert_published(&["other 1.0-1 noarch", "tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    farm.assert_verifies();
}

#[test]
fn publish_half_written_is_undone_with_or_without_its_pending_packages() {
    for (damage, is_emptied) in [
        ("publish \"$@\"; rm \"$HOME/".to_owned() + PACKAGE + "\"", false),
        ("publish \"$@\"; rm \"$HOME/".to_owned() + PACKAGE + "\"", true),
        ("publish \"$@\"; echo half >\"$HOME/".to_owned() + PACKAGE + "\"", false),
        ("publish \"$@\"; echo half >\"$HOME/".to_owned() + PACKAGE + "\"", true),
        (
            "head -c 300 state/repo/index/archive.json >half; cp half state/repo/index/archive.json".into(),
            true,
        ),
        ("rm state/repo/index/active.json".into(), true),
    ] {
        let (farm, _repo) = killed_in_a_publish(&format!("cd \"$HOME\"\n{damage}"));
        if is_emptied {
            empty_publish(&farm);
        }
        assert_undone_and_published(&farm, usize::from(is_emptied));
    }
}

#[test]
fn publish_of_somebody_else_and_a_lost_package_stops_for_a_person() {
    let (farm, repo) = killed_in_a_publish("publish \"$@\"");
    publish_by_hand(&farm, &repo);
    let package = fs::read(farm.path(PACKAGE)).unwrap();
    let before = fs::read(index(&farm)).unwrap();
    fs::remove_file(farm.path(PACKAGE)).unwrap();
    for _ in 0..2 {
        let parts =
            ["somebody has published since", "state/journal can undo", "tool_1.1-1_noarch.peipkg is missing"];
        farm.once().assert_code(1).assert_one_line(&parts);
        assert!(fs::read(index(&farm)).unwrap() == before);
    }
    fs::write(farm.path(PACKAGE), package).unwrap();
    assert_stands(&farm, &["other 1.0-1 noarch", "tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn verify_that_comes_to_no_end_proves_nothing() {
    let (farm, _repo) = killed_in_a_publish("publish \"$@\"");
    empty_publish(&farm);
    let before = fs::read(index(&farm)).unwrap();
    for (end, found) in [("kill -9 $$", "signal 9"), ("exit 127", "127"), ("exit 101", "101")] {
        let script = format!("#!/bin/sh\n[ \"$1\" = verify ] && {end}\nexec {{real}} \"$@\"\n");
        farm.write_program("peipkg-repo", &script);
        farm.once().assert_code(1).assert_one_line(&["cannot prepare the repository", found]);
        assert!(fs::read(index(&farm)).unwrap() == before && farm.path("state/journal").exists());
    }
    farm.write_program("peipkg-repo", "#!/bin/sh\nexec {real} \"$@\"\n");
    assert_stands(&farm, &["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

/// Changes a byte within the copy of the archive index that the journal has. `byte` gets the old one.
const ALTER_COPY: &str = "
copy=$HOME/state/journal.archive.json
dd if=\"$copy\" of=\"$HOME/byte\" bs=1 skip=200 count=1 2>&1
tr 'a-z0-9' 'b-za1-90' <\"$HOME/byte\" | dd of=\"$copy\" bs=1 seek=200 conv=notrunc 2>&1
";

#[test]
fn saved_index_with_another_byte_is_never_put_back() {
    let damage = "cd \"$HOME/state/repo/index\" && printf half | dd of=archive.json conv=notrunc 2>&1";
    let (farm, _repo) = killed_in_a_publish(&format!("{ALTER_COPY}publish \"$@\"\n{damage}"));
    let copy = farm.path("state/journal.archive.json");
    let (before, mut saved) = (fs::read(index(&farm)).unwrap(), fs::read(&copy).unwrap());
    let byte = fs::read(farm.path("byte")).unwrap()[0];
    assert_ne!(saved[200], byte);
    for _ in 0..2 {
        let parts = ["cannot prepare the repository", "state/journal is damaged (the copies of the indexes"];
        farm.once().assert_code(1).assert_one_line(&parts);
        assert!(fs::read(index(&farm)).unwrap() == before && farm.path("state/journal").exists());
        assert!(fs::read(&copy).unwrap() == saved && farm.path("state/journal.active.json").exists());
        assert_eq!(fs::read_dir(farm.path("state/stage")).unwrap().count(), 0);
    }
    saved[200] = byte;
    fs::write(&copy, saved).unwrap();
    assert_undone_and_published(&farm, 0);
}

#[test]
fn saved_index_with_another_byte_is_not_needed_by_a_whole_repository() {
    let (farm, _repo) = killed_in_a_publish(&format!("{ALTER_COPY}publish \"$@\""));
    assert_stands(&farm, &["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    assert!(!farm.path("state/journal.archive.json").exists());
}

#[test]
fn index_repaired_by_hand_beside_a_damaged_copy_stands() {
    let damage = "cp \"$HOME/state/repo/index/archive.json\" \"$HOME/good\"; echo half >\"$HOME/state/repo/index/archive.json\"";
    let (farm, _repo) = killed_in_a_publish(&format!("{ALTER_COPY}publish \"$@\"\n{damage}"));
    farm.once().assert_code(1);
    fs::copy(farm.path("good"), index(&farm)).unwrap();
    assert_stands(&farm, &["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn journal_of_an_earlier_version_is_settled() {
    let (farm, _repo) = killed_in_a_publish("publish \"$@\"");
    rewrite_as_earlier_version(&farm);
    assert_stands(&farm, &["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    let (farm, _repo) = killed_in_a_publish("publish \"$@\"");
    rewrite_as_earlier_version(&farm);
    empty_publish(&farm);
    assert_stands(&farm, &["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    let (farm, _repo) = killed_in_a_publish(": >\"$HOME/state/repo/index/archive.json\"");
    rewrite_as_earlier_version(&farm);
    assert_undone_and_published(&farm, 0);
}

/// Writes the journal as the version did that published one build at a time, with the indexes in it.
fn rewrite_as_earlier_version(farm: &Farm) {
    let [kept] = farm.kept().try_into().unwrap();
    let journal = farm.path("state/journal");
    let bytes = fs::read(&journal).unwrap();
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let (mut header, mut inside): (Value, _) =
        (serde_json::from_slice(&bytes[..line]).unwrap(), &bytes[line + 1..bytes.len() - 65]);
    let fields = header.as_object_mut().unwrap();
    assert!(fields.remove("group").is_some() && fields.remove("beside").is_some());
    fields.insert("outputs".into(), kept.into());
    let mut earlier = Vec::new();
    for file in header["files"].as_array().unwrap() {
        let name = file[0].as_str().unwrap();
        let copy = journal.with_file_name(format!("journal.{}", name.trim_start_matches("index/")));
        if copy.exists() {
            earlier.extend(fs::read(&copy).unwrap());
            fs::remove_file(copy).unwrap();
        } else {
            let length = usize::try_from(file[1].as_u64().unwrap()).unwrap();
            earlier.extend(&inside[..length]);
            inside = &inside[length..];
        }
    }
    let text = [header.to_string().as_bytes(), b"\n", &earlier].concat();
    let sum = hex(&sha256(&text)) + "\n";
    fs::write(journal, [&text, sum.as_bytes()].concat()).unwrap();
}
