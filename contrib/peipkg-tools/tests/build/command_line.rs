//! The command line of `peipkg-build`: help, forms of flags, and the errors about them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::fixture::{Fixture, Run, binary, names};

fn run(arguments: &[&str]) -> Run {
    Run::of(binary().args(arguments))
}

/// A fixture whose build script needs the variables `A` and `B`.
fn good() -> Fixture {
    Fixture::simple("\"etc/*\"", "mkdir $DESTDIR/etc; echo \"$A $B\" >$DESTDIR/etc/a")
}

#[test]
fn help_is_printed_for_all_commands_or_one() {
    let all = run(&["help"]);
    assert_eq!((all.status, all.stderr.as_str()), (Some(0), ""));
    for arguments in [&["--help"][..], &["-help"], &["-h"]] {
        let help = run(arguments);
        assert_eq!((help.status, help.stdout.as_str()), (Some(0), all.stdout.as_str()), "{arguments:?}");
    }
    for command in ["build", "check", "pack"] {
        let usage = format!(" peipkg-build {command} ");
        assert!(all.stdout.contains(&usage), "{}", all.stdout);
        for arguments in [&["help", command][..], &[command, "-h"], &[command, "--out", "x", "-help"]] {
            // `check` has no --out.
            if command == "check" && arguments.len() > 2 {
                continue;
            }
            let help = run(arguments);
            assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""), "{arguments:?}");
            assert!(help.stdout.contains(&format!("usage:{usage}")), "{}", help.stdout);
            assert_eq!(help.stdout.matches(" peipkg-build ").count(), 1, "{}", help.stdout);
        }
    }
    assert!(all.stdout.lines().all(|line| line.len() <= 80), "{}", all.stdout);
    for arguments in [["--version"], ["-version"], ["-V"]] {
        let version = run(&arguments);
        assert_eq!((version.status, version.stdout.as_str()), (Some(0), "peipkg-build 0.1.0\n"));
    }
}

#[test]
fn command_lines_wrong_are_refused_in_one_line() {
    for (arguments, expected) in [
        (&[][..], "no command given, expected build, check, binary-sign or pack"),
        (&["bild"], "unknown command \"bild\", expected build, check, binary-sign or pack"),
        (&["help", "bild"], "unknown command \"bild\", expected build, check, binary-sign or pack"),
        (&["bu\nild"], "unknown command \"bu\\nild\", expected build, check, binary-sign or pack"),
        (&["-x"], "unknown flag -x; --help lists the flags"),
        (&["-recipe", "x"], "unknown flag --recipe; --help lists the flags"),
        (&["build", "x"], "unexpected argument \"x\", expected a flag"),
        (&["build", "--out"], "--out needs a value: --out DIR"),
        (&["pack", "--recipe", "x"], "unknown flag --recipe; --help lists the flags"),
        (&["check", "--recipe", "a", "b"], "unexpected argument \"b\", expected a flag"),
    ] {
        let wrong = run(arguments);
        assert_eq!((wrong.status, wrong.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert_eq!(wrong.stderr, format!("peipkg-build: {expected}\n"), "{arguments:?}");
    }
    let raw = Run::of(binary().args([OsStr::from_bytes(b"build"), OsStr::from_bytes(b"-\xff")]));
    assert_eq!(raw.status, Some(2), "{}", raw.stderr);
}

#[test]
fn flags_missing_are_all_named() {
    for (command, status, flags) in [
        (
            "build",
            1,
            &["--recipe", "--source", "--version", "--source-ref", "--farm-id", "--timestamp", "--out"][..],
        ),
        ("check", 2, &["--recipe"]),
        ("pack", 1, &["--manifest", "--staged", "--out"]),
    ] {
        let missing = run(&[command]);
        let expected: Vec<String> =
            flags.iter().map(|flag| format!("peipkg-build: missing required flag {flag}")).collect();
        assert_eq!((missing.status, missing.stdout.as_str()), (Some(status), ""), "{command}");
        assert_eq!(missing.stderr.lines().collect::<Vec<_>>(), expected);
    }
}

/// Scripts written for the deployed tools use all these forms.
#[test]
fn flags_in_every_form_build_the_same() {
    let fixture = good().with("--build-env", "A=1");
    let usual = fixture.flags();
    let pairs: Vec<(&str, &str)> = usual.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let forms: [fn(&str, &str) -> Vec<String>; 4] = [
        |flag, value| vec![flag.to_owned(), value.to_owned()],
        |flag, value| vec![flag[1..].to_owned(), value.to_owned()],
        |flag, value| vec![format!("{flag}={value}")],
        |flag, value| vec![format!("{}={value}", &flag[1..])],
    ];
    let mut built = Vec::new();
    for form in forms {
        let flags: Vec<String> = pairs.iter().flat_map(|(flag, value)| form(flag, value)).collect();
        // The last one of a repeated flag counts; those of a list all do.
        let mut command = binary();
        command.args(["build", "--version", "9-9", "-sign-key=/nonexistent", "-timestamp", "never"]);
        let run = Run::of(command.args(flags).args(["--build-env=B=2"]).env("TMPDIR", fixture.path("tmp")));
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
        built.push(fixture.tar("xx_1.2-3_noarch.peipkg"));
        fs::remove_dir_all(fixture.path("out")).unwrap();
    }
    assert!(built[0].windows(4).any(|part| part == b"1 2\n"), "the variables did not reach the script");
    assert!(built.iter().all(|archive| *archive == built[0]));
    let twice = fixture.with("--build-env", "A=1");
    let mut command = twice.command();
    let run = Run::of(command.args(["--build-env", "A=2"]));
    assert_eq!(run.stderr, "peipkg-build: --build-env: A is given twice\n");
}

#[test]
fn texts_recorded_in_packages_have_one_line() {
    for (flag, value, shown) in [
        ("--farm-id", "a\u{1b}[31mb", "a\\u{1b}[31mb"),
        ("--farm-id", "a\nb", "a\\nb"),
        ("--source-ref", "git+x\r", "git+x\\r"),
    ] {
        let problem = "has a control character, expected one line of text";
        good().with(flag, value).fails(2, &[&format!("{flag}: \"{shown}\" {problem}")]);
    }
    for time in ["2024-07-15T10:30:00.Z", "2024-07-15T23:59:60Z"] {
        let expected =
            format!("--timestamp: {time:?} is not an RFC 3339 time in UTC such as 2026-05-01T12:00:00Z");
        good().with("--timestamp", time).fails(2, &[&expected]);
    }
}

#[test]
fn temporary_directory_is_not_named_is_tmp() {
    let fixture = Fixture::simple("\"etc/*\"", "mkdir -p \"$DESTDIR/etc\"; pwd > \"$DESTDIR/etc/place\"");
    let mut command = fixture.command();
    let run = Run::of(command.env("TMPDIR", "").current_dir(fixture.path("source")));
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    let tar = fixture.tar("xx_1.2-3_noarch.peipkg");
    let place = Path::new("/tmp").canonicalize().unwrap().join("peipkg-build-recipe@1.2-3");
    let place = place.display().to_string();
    assert!(tar.windows(place.len()).any(|part| part == place.as_bytes()));
}

#[test]
fn packages_are_printed_without_parent_directories() {
    let fixture = good().with("--build-env", "A=1").with("--out", "../source/./../o");
    let mut command = fixture.command();
    let run = Run::of(command.args(["--build-env", "B=2"]).current_dir(fixture.path("source")));
    let root = fixture.path("").canonicalize().unwrap();
    assert_eq!(run.stdout, format!("{}/o/xx_1.2-3_noarch.peipkg\n", root.display()), "{}", run.stderr);
    // After a link, `..` is the parent of the directory that it leads to.
    fs::create_dir_all(fixture.path("deep/er")).unwrap();
    symlink("deep/er", fixture.path("link")).unwrap();
    let fixture = fixture.with("--out", "link/../o");
    let mut command = fixture.command();
    let run = Run::of(command.args(["--build-env", "B=2"]).current_dir(fixture.path("")));
    assert_eq!(names(&fixture.path("deep/o")), ["xx_1.2-3_noarch.peipkg"]);
    assert!(Path::new(run.stdout.trim_end()).is_file(), "{}", run.stdout);
}

#[test]
fn packages_are_printed_with_absolute_paths() {
    let fixture = good().with("--build-env", "A=1").with("--out", "out/deep");
    let mut command = fixture.command();
    let run = Run::of(command.args(["--build-env", "B=2"]).current_dir(fixture.path("")));
    let root = fixture.path("").canonicalize().unwrap();
    let path = root.join("out/deep/xx_1.2-3_noarch.peipkg");
    assert_eq!((run.stdout, run.stderr), (format!("{}\n", path.display()), String::new()));
    assert!(path.is_file());

    let manifest = r#"{"schema_version":1,"name":"xx","version":"1-1","architecture":"noarch","description":"",
        "license":"","homepage":"","dependencies":[],"optional_dependencies":[],"conflicts":[],"provides":[],
        "replaces":[],"side_effects":[],"size_installed":0,"sd_overrides":[],
        "build":{"timestamp":"2026-05-01T12:00:00Z","farm_id":"f","source_ref":"s"}}"#;
    fixture.write("manifest.json", manifest);
    fs::create_dir(fixture.path("staged")).unwrap();
    let mut command = binary();
    command.args(["pack", "-manifest", "manifest.json", "--staged=staged", "-out=made/xx.peipkg"]);
    let run = Run::of(command.current_dir(fixture.path("")));
    assert_eq!((run.stdout, run.stderr), (format!("{}/made/xx.peipkg\n", root.display()), String::new()));
    assert_eq!(names(&fixture.path("made")), ["xx.peipkg"]);
}
