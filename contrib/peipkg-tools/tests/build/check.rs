//! `peipkg-build check`: finds all that is wrong with a recipe before a build, and what it finds is
//! what a build reports.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::fixture::{Fixture, META, Run, binary, names};

const STANZA: &str = "[[package]]\nname = \"xx\"\narchitecture = \"noarch\"\nfiles = [\"etc/*\"]\n";

/// A fixture with the whole recipe `text`; its script must never run.
fn fixture(text: &str) -> Fixture {
    let fixture = Fixture::new("", "echo ran >&2; exit 1");
    fixture.write("recipe/peipkg.toml", text);
    fixture
}

fn check(fixture: &Fixture) -> Run {
    let mut command = binary();
    command.args(["check", "--recipe"]).arg(fixture.path("recipe/peipkg.toml"));
    Run::of(command.env("TMPDIR", fixture.path("tmp")))
}

/// Expects that a check prints exactly these problems of the recipe, `{}` being its path, and that
/// a build reports the same.
#[track_caller]
fn finds(fixture: &Fixture, problems: &[&str]) {
    let recipe = fixture.path("recipe/peipkg.toml").display().to_string();
    let expected: Vec<String> = problems.iter().map(|line| line.replace("{}", &recipe)).collect();
    let run = check(fixture);
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), expected, "{}", run.stderr);
    assert_eq!((run.status, run.stderr.as_str()), (Some(1), ""));
    let build = fixture.run();
    let reported: Vec<&str> =
        build.stderr.lines().map(|line| line.strip_prefix("peipkg-build: ").unwrap_or(line)).collect();
    assert_eq!((build.status, reported), (Some(1), expected.iter().map(String::as_str).collect()));
}

#[test]
fn recipe_good_prints_nothing_and_makes_nothing() {
    let fixture = fixture(&format!("{META}{STANZA}[upstream]\nx = 1\n[provenance]\ny = 2\n"));
    let before = names(&fixture.path(""));
    let run = check(&fixture);
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""));
    assert_eq!(names(&fixture.path("")), before);
    assert_eq!(
        (names(&fixture.path("tmp")), names(&fixture.path("recipe"))),
        (vec![], vec!["build.sh".to_owned(), "peipkg.toml".to_owned()])
    );
    // Relative, and in the working directory.
    let mut command = binary();
    let run = Run::of(command.args(["check", "-recipe=peipkg.toml"]).current_dir(fixture.path("recipe")));
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn problems_of_every_kind_are_found_together() {
    let text = "[meta]\nhomepag = \"x\"\nhomepage = \"x\"\nbuild_script = \"make.sh\"\n\
        [[package]]\nname = \"XX\"\narchitecture = \"i386\"\ndescription = \"two\\nlines\"\n\
        dependencies = [{ name = \"aa\", constraint = \"~> 1\" }, { name = \"bb\", same_build = true }]\n\
        provides = [{ name = \"x\", version = \"?\" }]\nside_effects = [\"reboot\"]\n\
        files = [\"/etc/*\", \"a[\"]\n[[package]]\nname = \"cc\"\n";
    let fixture = fixture(text);
    let run = check(&fixture);
    let recipe = fixture.path("recipe/peipkg.toml").display().to_string();
    let lines: Vec<String> = run
        .stdout
        .lines()
        .map(|line| line.strip_prefix(&recipe).unwrap_or_else(|| panic!("{line}")).to_owned())
        .map(|line| line.split(':').nth(1).unwrap().to_owned())
        .collect();
    let expected = ["2", "3", "4", "6", "7", "8", "9", "9", "10", "10", "11", "12", "12", "13", "13"];
    assert_eq!(lines, expected, "{}", run.stdout);
    finds(&fixture, &run.stdout.lines().collect::<Vec<_>>());
}

#[test]
fn recipe_not_readable_is_named() {
    let good = format!("{META}{STANZA}");
    let broken = fixture("[meta\nx = = 1\n");
    let found = check(&broken).stdout;
    let recipe = broken.path("recipe/peipkg.toml").display().to_string();
    for (line, number) in found.lines().zip(1..) {
        assert!(line.starts_with(&format!("{recipe}:{number}: not valid TOML: ")), "{found}");
    }
    assert_eq!(found.lines().count(), 2, "{found}");
    finds(&broken, &found.lines().collect::<Vec<_>>());
    let lost = fixture(&good);
    let file = lost.path("recipe/peipkg.toml");
    fs::remove_file(&file).unwrap();
    finds(&lost, &["{}: cannot read the recipe: No such file or directory (os error 2)"]);
    mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0).unwrap();
    finds(&lost, &["{}: cannot read the recipe: is a FIFO, expected a regular file"]);
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"x = \"\"\n# \xff\n# \xfe\n").unwrap();
    finds(&lost, &["{}:2: not valid TOML: the byte 0xff is not UTF-8, save the file as UTF-8"]);
}

#[test]
fn build_script_not_readable_is_named_with_its_line() {
    let fixture = fixture(&format!("{META}{STANZA}"));
    let script = fixture.path("recipe/build.sh");
    let line = |reason: &str| format!("{{}}:2: build_script \"build.sh\" cannot be read: {reason}");
    fs::remove_file(&script).unwrap();
    finds(&fixture, &[&line("No such file or directory (os error 2)")]);
    fs::create_dir(&script).unwrap();
    finds(&fixture, &[&line("Is a directory (os error 21)")]);
    fs::remove_dir(&script).unwrap();
    mknodat(CWD, &script, FileType::Fifo, Mode::RWXU, 0).unwrap();
    finds(&fixture, &[&line("is a FIFO, expected a regular file")]);
    fs::remove_file(&script).unwrap();
    symlink("/dev/zero", &script).unwrap();
    finds(&fixture, &[&line("is a device, expected a regular file")]);
    fs::remove_file(&script).unwrap();
    symlink("../elsewhere.sh", &script).unwrap();
    finds(&fixture, &[&line("No such file or directory (os error 2)")]);
    fixture.write("elsewhere.sh", "");
    assert_eq!(check(&fixture).status, Some(0));
    // Beside a problem of another kind.
    fs::remove_file(&script).unwrap();
    fixture.write("recipe/peipkg.toml", &format!("{META}{STANZA}filse = 1\n"));
    let typo = "{}:7: unknown key \"filse\" in [[package]]; did you mean \"files\"?";
    finds(&fixture, &[&line("No such file or directory (os error 2)"), typo]);
}

#[test]
fn build_script_of_another_user_is_named() {
    const NOBODY: u32 = 65534;
    let fixture = fixture(&format!("{META}{STANZA}"));
    let mode =
        |name: &str, mode| fs::set_permissions(fixture.path(name), Permissions::from_mode(mode)).unwrap();
    mode("recipe/build.sh", 0);
    mode("", 0o755);
    // Root may read everything, so as root run a copy as another user. Let another process copy: a
    // child that another test starts meanwhile would inherit the open copy, and the system refuses
    // to run a file that is open for writing.
    let copy = fixture.path("peipkg-build");
    assert!(Command::new("cp").arg(binary().get_program()).arg(&copy).status().unwrap().success());
    let mut command = Command::new(copy);
    command.args(["check", "--recipe"]).arg(fixture.path("recipe/peipkg.toml"));
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let run = Run::of(&mut command);
    let expected = "build_script \"build.sh\" cannot be read: Permission denied (os error 13)\n";
    assert!(run.status == Some(1) && run.stdout.ends_with(expected), "{}{}", run.stdout, run.stderr);
}

#[test]
fn manifest_over_the_formats_limits_is_refused_before_the_script_runs() {
    let entries: Vec<String> = (0..1001).map(|number| format!("{{ name = \"r{number}\" }}")).collect();
    let stanza = format!("{STANZA}replaces = [{}]\n", entries.join(", "));
    finds(&fixture(&format!("{META}{stanza}")), &["{}:3: xx: replaces has more than 1000 entries"]);
}

#[test]
fn file_to_sign_twice_is_refused_before_the_script_runs() {
    let sign = |path: &str| format!("[[sign]]\npath = {path:?}\nkey = \"tcb\"\n");
    for path in ["usr/bin/a", "usr/./bin//a"] {
        let text = format!("{META}{STANZA}{}{}", sign("usr/bin/a"), sign(path));
        let line = format!(
            "{{}}:11: [[sign]] path {path:?} is the file of the [[sign]] in line 7, expected each file once"
        );
        finds(&fixture(&text), &[&line]);
    }
}

#[test]
fn names_cannot_break_a_line() {
    let fixture = fixture(&format!("{META}{STANZA}\"a\\nb\" = 1\n"));
    finds(
        &fixture,
        &[
            "{}:7: unknown key \"a\\nb\" in [[package]]; known here: name, architecture, description, dependencies, optional_dependencies, conflicts, provides, replaces, side_effects, files",
        ],
    );
    fs::create_dir(fixture.path("re\ncipe")).unwrap();
    let mut command = binary();
    let run = Run::of(command.args(["check", "--recipe"]).arg(fixture.path("re\ncipe/peipkg.toml")));
    assert_eq!((run.status, run.stdout.lines().count()), (Some(1), 1), "{}", run.stdout);
}
