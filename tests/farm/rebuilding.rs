//! `--rebuild`: builds a published version again, says whether it is the published one, and changes
//! nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::terminal::Terminal;
use crate::support::wait::PATIENCE;

const PACKAGE: &str = "tool_1.0-1_noarch.peipkg";

/// A file's mode, times and content. A directory has no content.
type State = (u32, i64, i64, i64, Vec<u8>);

/// Every file below `directory`.
fn files(directory: &Path) -> BTreeMap<PathBuf, State> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let state = (metadata.mode(), metadata.ctime(), metadata.ctime_nsec(), metadata.mtime(), content);
        found.insert(path, state);
    }
    found
}

/// Starts a rebuild whose work lies in `work` in the farm's directory.
#[track_caller]
fn start(farm: &Farm, version: &str) -> Running {
    fs::create_dir_all(farm.path("work")).unwrap();
    let mut command = farm.command(&["--rebuild", version, "--config"]);
    Running::spawn(command.arg(farm.config_path()).env("TMPDIR", farm.path("work")))
}

#[track_caller]
fn assert_no_work(farm: &Farm) {
    let left: Vec<_> = fs::read_dir(farm.path("work")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Runs a rebuild, which must change nothing.
#[track_caller]
fn rebuild(farm: &Farm, version: &str, code: i32) -> Output {
    let before = files(&farm.state_dir());
    let output = start(farm, version).wait_exit(PATIENCE);
    output.assert_code(code);
    assert_eq!(files(&farm.state_dir()), before, "the rebuild changed something\n{output}");
    assert_no_work(farm);
    output
}

/// A farm that has published `tool 1.0-1` of `repo`.
#[track_caller]
fn published(repo: &GitRepo, recipe: &Recipe) -> Farm {
    let farm = Farm::builder().with(recipe).build();
    farm.once().assert_success();
    assert_eq!(farm.published()[0], "tool 1.0-1 noarch", "{}", repo.file_url());
    farm
}

/// Adds the lines to the usual build.
fn with_lines(recipe: Recipe, lines: &str) -> Recipe {
    let usual = recipe.script();
    recipe.build_sh(&format!("{usual}\n{lines}\n"))
}

#[track_caller]
fn file_of(farm: &Farm, name: &str) -> PathBuf {
    let found = files(&farm.repo_dir()).into_keys().find(|path| path.file_name().unwrap() == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn published_version_is_the_same_and_the_line_says_of_what() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let tool = Recipe::program("tool", &repo.file_url()).with_doc();
    let farm = published(&repo, &tool);
    let output = rebuild(&farm, "tool@1.0-1", 0);
    let commit = repo.git(&["rev-parse", "v1.0^{commit}"]);
    let line = |name| {
        format!(
            "recipe=tool version=1.0-1 rebuild=same package={name}_1.0-1_noarch.peipkg tag=v1.0 commit={commit}\n"
        )
    };
    assert_eq!(output.stdout, line("tool") + &line("tool-doc"));
    assert_eq!(output.stderr, "");

    // Whatever the recipe says by now of which versions to build.
    let later = "peios_revision = 2\nmin_version = \"5\"\nexclude = [\"v1.0\"]\npaused = true";
    farm.add(&tool.clone().upstream(later));
    let output = rebuild(&farm, "tool@1.0-1", 0);
    assert_eq!(notes(&output), ["the recipe has peios_revision 2 now", "the recipe has changed since"]);
    assert!(output.stdout.ends_with(&(line("tool") + &line("tool-doc"))), "{output}");

    // Other recipes do not matter.
    farm.write_recipe("broken", "[[[", "");
    rebuild(&farm, "tool@1.1-1", 0);
}

#[test]
fn version_that_comes_out_different_is_named_with_member_and_offset() {
    let repo = GitRepo::program(&["1.0"]);
    let tool = with_lines(
        Recipe::program("tool", &repo.file_url()),
        "echo \"abc $SOURCE_DIR\" >>\"$DESTDIR/usr/bin/tool\"",
    );
    let farm = published(&repo, &tool);
    let output = rebuild(&farm, "tool@1.0-1", 1);
    assert!(output.stdout.starts_with("recipe=tool version=1.0-1 rebuild=different package="), "{output}");
    assert!(output.stdout.contains("reason=\"usr/bin/tool: differs at byte "), "{output}");

    // A changed recipe.
    farm.add(&Recipe::program("tool", &repo.file_url()));
    assert!(rebuild(&farm, "tool@1.0-1", 1).stdout.contains("usr/bin/tool: differs at byte "));
    // A moved tag.
    let farm = published(&repo, &Recipe::program("tool", &repo.file_url()));
    repo.commit(&[("README", "another\n")], "2026-03-01T00:00:00Z");
    repo.git(&["tag", "--force", "v1.0"]);
    let output = rebuild(&farm, "tool@1.0-1", 1);
    assert!(output.stdout.contains("usr/share/doc/tool/README: differs at byte 0: "), "{output}");
    assert!(output.stdout.contains("the times of the entries differ"), "{output}");
}

/// The notes of a rebuild.
fn notes(output: &Output) -> Vec<&str> {
    let notes = output.stdout.lines().filter_map(|line| line.split_once(" rebuild=note reason="));
    notes.map(|(_, reason)| reason.trim_matches('"')).collect()
}

#[test]
fn provenance_says_what_has_changed_since() {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url()).tag_pattern("^[vw](.*)$");
    let farm = published(&repo, &tool);
    let first = repo.git(&["rev-parse", "v1.0^{commit}"]);
    // A tag that comes before the recorded one, and a recipe with another comment.
    repo.commit(&[("README", "another\n")], "2026-03-01T00:00:00Z");
    repo.tag_light("v1.0.0");
    repo.tag_light("w1.0");
    farm.write_recipe("tool", &format!("# why\n{}", tool.toml()), &tool.script());
    let output = rebuild(&farm, "tool@1.0-1", 0);
    assert_eq!(notes(&output), ["the recipe has changed since"]);
    farm.add(&tool);
    assert_eq!(notes(&rebuild(&farm, "tool@1.0-1", 0)), [""; 0]);
    repo.git(&["tag", "--force", "v1.0"]);
    let output = rebuild(&farm, "tool@1.0-1", 1);
    let moved = format!("the tag points to another commit now; the packages are of commit {first}");
    assert_eq!(notes(&output), [moved.as_str()]);
    repo.git(&["tag", "--delete", "v1.0"]);
    let gone = "the provenance names the tag v1.0, which is not this version any more";
    assert_eq!(notes(&rebuild(&farm, "tool@1.0-1", 1)), [gone, moved.as_str()]);
    // Another peipkg-build: exactly as good, and says so of itself.
    repo.git(&["tag", "v1.0", &first]);
    let other =
        "#!/bin/sh\n[ \"$1\" != --version ] || { echo 'peipkg-build 9'; exit; }\nexec {real} \"$@\"\n";
    farm.write_program("peipkg-build", other);
    let output = rebuild(&farm, "tool@1.0-1", 0);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(notes(&output), [format!("built by peipkg-build {version}, rebuilt by peipkg-build 9")]);
}

#[test]
fn provenance_that_the_repository_has_not_signed_is_not_believed() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let farm = published(&repo, &Recipe::program("tool", &repo.file_url()));
    let path = |version: &str| farm.repo_dir().join("p/tool").join(version).join("provenance.json");
    let (beside, good) = (path("1.0-1"), fs::read_to_string(path("1.0-1")).unwrap());
    let check = |text: &str, reason: &str| {
        fs::write(&beside, text).unwrap();
        let output = rebuild(&farm, "tool@1.0-1", 0);
        assert_eq!(notes(&output), [format!("ignored: {} {reason}", beside.display())]);
    };
    check(&good.replace("\"sig\":\"", "\"sig\":\"AAAA"), "is not signed by a key of the repository");
    check(&fs::read_to_string(path("1.1-1")).unwrap(), &format!("is not about {PACKAGE}"));
    fs::write(&beside, &good).unwrap();
    assert_eq!(notes(&rebuild(&farm, "tool@1.0-1", 0)), [""; 0]);
    // A revoked key signs nothing, and without repo.json nobody knows the keys.
    let descriptor = farm.repo_dir().join("repo.json");
    let text = fs::read_to_string(&descriptor).unwrap();
    assert!(text.contains("\"active\""), "{text}");
    fs::write(&descriptor, text.replace("\"active\"", "\"revoked\"")).unwrap();
    check(&good, "is not signed by a key of the repository");
    fs::remove_file(&descriptor).unwrap();
    let reason =
        format!("cannot be checked: {}: No such file or directory (os error 2)", descriptor.display());
    check(&good, &reason);
}

#[test]
fn altered_or_missing_package_is_found() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = published(&repo, &Recipe::program("tool", &repo.file_url()));
    let path = file_of(&farm, PACKAGE);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x10;
    fs::write(&path, bad).unwrap();
    let output = rebuild(&farm, "tool@1.0-1", 1);
    assert!(output.stdout.contains("rebuild=different"), "{output}");
    assert!(
        output.stdout.contains("the published file is not the one that the archive index lists; "),
        "{output}"
    );
    fs::write(&path, &good[..good.len() - 5]).unwrap();
    assert!(rebuild(&farm, "tool@1.0-1", 1).stdout.contains("rebuild=different"));
    // The index alone still tells.
    fs::remove_file(&path).unwrap();
    assert!(rebuild(&farm, "tool@1.0-1", 0).stdout.contains("rebuild=same"));
    farm.add(&with_lines(Recipe::program("tool", &repo.file_url()), "echo >\"$DESTDIR/usr/bin/tool\""));
    assert!(rebuild(&farm, "tool@1.0-1", 1).stdout.contains("rebuild=missing"));
    // A package that the recipe has had for a short time.
    fs::write(&path, &good).unwrap();
    farm.add(&Recipe::program("tool", &repo.file_url()).with_doc());
    let output = rebuild(&farm, "tool@1.0-1", 1);
    assert!(output.stdout.contains("rebuild=missing package=tool-doc_1.0-1_noarch.peipkg"), "{output}");
}

#[test]
fn another_key_makes_the_same_content() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = published(&repo, &Recipe::program("tool", &repo.file_url()));
    fs::write(farm.key_path(), [7; 32]).unwrap();
    let output = rebuild(&farm, "tool@1.0-1", 0);
    assert!(output.stdout.contains("rebuild=same"), "{output}");
    assert!(
        output.stdout.contains("reason=\"the same but for the signature: the first is by key "),
        "{output}"
    );
    farm.write_program("peipkg-repo", "#!/bin/sh\n[ \"$1\" != compare ] || exit 2\nexec {real} \"$@\"\n");
    let output = rebuild(&farm, "tool@1.0-1", 1);
    assert!(output.stdout.contains("the files differ at byte "), "{output}");
    fs::remove_file(farm.key_path()).unwrap();
    rebuild(&farm, "tool@1.0-1", 1).assert_one_line(&["farm.key", "cannot read the key"]);
}

#[test]
fn rebuild_that_is_impossible_says_why_in_one_line() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = published(&repo, &Recipe::program("tool", &repo.file_url()));
    farm.add(&Recipe::manual("by-hand"));
    for (version, parts) in [
        ("none@1.0-1", &["cannot rebuild none@1.0-1", "no such recipe"][..]),
        ("by-hand@1.0-1", &["has no [upstream]"]),
        (
            "tool@2.0-1",
            &["cannot rebuild tool@2.0-1: it is not published", "archive.json", "tool_2.0-1_noarch.peipkg"],
        ),
        ("tool@1.0-2", &["it is not published"]),
    ] {
        let output = rebuild(&farm, version, 1);
        output.assert_one_line(parts);
        assert_eq!(output.stdout, "");
    }
    for (version, part) in [
        ("tool", "it has no @"),
        ("tool@1.0", "no version"),
        ("@1.0-1", "the recipe's id"),
        ("../tool@1.0-1", "the recipe's id"),
        ("tool@", "no version"),
    ] {
        rebuild(&farm, version, 2).assert_one_line(&["--rebuild needs RECIPE@VERSION", part]);
    }
    repo.git(&["tag", "--delete", "v1.0"]);
    rebuild(&farm, "tool@1.0-1", 1).assert_one_line(&["none of the 0 tags of file://", "is this version"]);
    let gone = repo.path().with_extension("gone");
    fs::rename(repo.path(), &gone).unwrap();
    rebuild(&farm, "tool@1.0-1", 1).assert_one_line(&["cannot list file://"]);
    fs::rename(gone, repo.path()).unwrap();
    fs::remove_dir_all(farm.repo_dir()).unwrap();
    rebuild(&farm, "tool@1.0-1", 1).assert_one_line(&["archive.json"]);
}

#[test]
fn build_that_fails_shows_the_end_of_its_log() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = published(&repo, &Recipe::program("tool", &repo.file_url()));
    farm.add(&Recipe::failing("tool", &repo.file_url()));
    let output = rebuild(&farm, "tool@1.0-1", 1);
    assert!(output.stderr.contains("cannot rebuild tool@1.0-1: peipkg-build "), "{output}");
    assert!(output.stderr.contains("this build fails on purpose"), "{output}");
}

#[test]
fn rebuild_runs_beside_a_daemon_and_a_signal_leaves_nothing() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = published(&repo, &Recipe::program("tool", &repo.file_url()));
    let mut daemon = farm.daemon();
    daemon.wait_event("poll complete", PATIENCE);
    rebuild(&farm, "tool@1.0-1", 0);
    for signal in [Signal::TERM, Signal::INT] {
        let latch = Latch::new();
        farm.add(&Recipe::program("tool", &repo.file_url()).before_build(&latch.script()));
        let before = files(&farm.state_dir());
        let mut running = start(&farm, "tool@1.0-1");
        latch.wait_reached();
        running.signal(signal);
        let output = running.wait_exit(PATIENCE);
        output.assert_code(1).assert_one_line(&["cannot rebuild tool@1.0-1", "interrupted"]);
        assert_eq!(files(&farm.state_dir()), before);
        assert_no_work(&farm);
    }
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
    farm.assert_verifies();
}

#[test]
fn rebuild_is_not_the_farms_when_only_the_repository_is_there() {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url()).upstream("export_version = true");
    let tool = with_lines(tool, "echo \"$PEIPKG_VERSION $PEIPKG_COMMIT\" >>\"$DESTDIR/usr/bin/tool\"");
    let farm = published(&repo, &tool);
    for name in ["sources", "stage", "publish", "logs", "lock", "tool-lock"] {
        let path = farm.state_dir().join(name);
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    rebuild(&farm, "tool@1.0-1", 0);
    let work = farm.path("no-work");
    let mut command = farm.command(&["--rebuild=tool@1.0-1", "--config"]);
    let output = Running::spawn(command.arg(farm.config_path()).env("TMPDIR", &work)).wait_exit(PATIENCE);
    output.assert_code(1).assert_one_line(&["cannot rebuild tool@1.0-1", "no-work"]);
    let before = files(farm.home());
    for (work, key) in [(farm.repo_dir(), "state_dir"), (farm.path("recipes/tool"), "recipes_dir")] {
        let mut command = farm.command(&["--rebuild=tool@1.0-1", "--config"]);
        let output = Running::spawn(command.arg(farm.config_path()).env("TMPDIR", &work)).wait_exit(PATIENCE);
        let reason = format!("is in {key}, in which a rebuild changes nothing; set TMPDIR");
        output.assert_code(1).assert_one_line(&[&work.display().to_string(), &reason]);
    }
    assert_eq!(files(farm.home()), before);
}

#[test]
fn terminal_gets_lines_for_people() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = published(&repo, &Recipe::program("tool", &repo.file_url()));
    let rebuild = || {
        let mut command = farm.command(&["--rebuild", "tool@1.0-1", "--config"]);
        command.arg(farm.config_path()).env("NO_COLOR", "1").env("TMPDIR", farm.home());
        Terminal::new().output_of(&mut command).stdout.replace('\r', "")
    };
    let shown = rebuild();
    assert!(shown.contains("tool 1.0-1  tag v1.0, commit "), "{shown}");
    assert!(shown.contains("  same       tool_1.0-1_noarch.peipkg\n"), "{shown}");
    let other = "mkdir -p \"$DESTDIR/usr/bin\"; echo other >\"$DESTDIR/usr/bin/tool\"\n";
    farm.add(&Recipe::program("tool", &repo.file_url()).build_sh(other));
    let shown = rebuild();
    let line = "  different  tool_1.0-1_noarch.peipkg, the first is published, the second rebuilt\n";
    assert!(shown.contains(line), "{shown}");
}
