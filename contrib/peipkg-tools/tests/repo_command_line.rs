//! The command line of `peipkg-repo`: help, forms of flags, and the errors about them.

mod repo_support;

use repo_support::{Farm, TIME, check};

const REBUILD: [&str; 4] = ["--sign-key=key", "--in=repo", "--out=repo", "--timestamp=2026-05-01T12:00:00Z"];

#[test]
fn help_is_printed_for_all_commands_or_one() {
    let farm = Farm::new();
    let text = |arguments: &[&str]| {
        let output = farm.run(arguments);
        check(&output, 0, "");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = text(&["help"]);
    for arguments in [["--help"], ["-help"], ["-h"]] {
        assert_eq!(text(&arguments), all, "{arguments:?}");
    }
    for command in ["init", "publish", "verify"] {
        let usage = format!(" peipkg-repo {command} ");
        assert!(all.contains(&usage), "{all}");
        let one = text(&["help", command]);
        assert!(one.contains(&format!("usage:{usage}")), "{one}");
        assert_eq!(one.matches(" peipkg-repo ").count(), 1, "{one}");
        assert_eq!(text(&[command, "-help"]), one);
    }
    assert!(all.lines().all(|line| line.len() <= 80), "{all}");
    assert_eq!(text(&["-version"]), "peipkg-repo 0.1.0\n");
}

#[test]
fn command_lines_wrong_are_refused() {
    let farm = Farm::new();
    let publish =
        ["publish", "--in=repo", "--out=repo", "--sign-key=key", "--timestamp=2026-05-01T12:00:00Z"];
    let publish = |more: &[&'static str]| [&publish[..], more].concat();
    let cases: [(&[&str], i32, &str); 20] = [
        (&[], 2, "no command given, expected init, publish, verify, keys or compare"),
        (&["prune"], 2, "unknown command \"prune\", expected init, publish, verify, keys or compare"),
        (&["--quiet"], 2, "unknown flag --quiet"),
        (&["verify", "--repo"], 2, "--repo needs a value: --repo DIR"),
        (&["verify", "--repo", "REPO", "extra"], 2, "unexpected argument \"extra\""),
        (&["verify", "--repo", "REPO", "--mode", "all"], 2, "metadata, hashes or both"),
        (&["verify", "--rebuild"], 2, "unknown flag --rebuild"),
        (&["verify"], 1, "missing required flag --repo"),
        (&["init", "--name", "n"], 1, "missing required flag --sign-key"),
        (&["init", "--name", "n"], 1, "missing required flag --out"),
        (&["init", "--name", "", "--sign-key", "KEY", "--timestamp", TIME, "--out", "x"], 2, "--name"),
        (&publish(&[]), 1, "missing required flag --new, or --rebuild"),
        (&publish(&["--rebuild=false"]), 1, "missing required flag --new, or --rebuild"),
        (&publish(&["--rebuild"]), 1, "missing required flag --all-packages-dir"),
        (&publish(&["--rebuild=1"]), 1, "missing required flag --all-packages-dir"),
        (&publish(&["--rebuild=F"]), 1, "missing required flag --new, or --rebuild"),
        (&publish(&["--rebuild=on"]), 2, "--rebuild: expected true or false, found \"on\""),
        (&publish(&["--rebuild", "true"]), 2, "unexpected argument \"true\""),
        (&publish(&["--rebuild", "--all-packages-dir", "x", "--new", "x"]), 2, "exclude each other"),
        (&publish(&["--new", "x", "--all-packages-dir", "x"]), 2, "for --rebuild only"),
    ];
    for (arguments, status, expected) in cases {
        check(&farm.run(arguments), status, expected);
    }
}

#[test]
fn init_text_of_several_lines_is_refused() {
    let farm = Farm::new();
    for (name, description, flag) in
        [("a\nb", "x", "--name"), ("x", "a\u{1b}[31m\nb", "--description"), ("x", "\u{9b}", "--description")]
    {
        let output = farm.run(&[
            "init",
            "--name",
            name,
            "--description",
            description,
            "--sign-key",
            "KEY",
            "--timestamp",
            TIME,
            "--out",
            "other",
        ]);
        check(&output, 1, "has a control character, expected one line of text");
        check(&output, 1, &format!("other: {flag} \""));
        assert!(!farm.path("other").exists());
    }
}

#[test]
fn flags_with_one_dash_or_an_equals_sign_are_taken() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    let publish =
        ["publish", "-in", "REPO", "-new=new", "--out=repo", "-sign-key", "KEY", "--timestamp", TIME];
    check(&farm.run(&publish), 0, "");
    assert_eq!(farm.listed("archive"), ["aa 1-1 noarch"]);
    check(&farm.run(&["verify", "-repo=repo", "-mode", "metadata"]), 0, "");
    // An equals sign in the value, and an empty value.
    let init = ["init", "-name=a=b", "--description=", "-sign-key=key", "-timestamp", TIME, "-out=other"];
    check(&farm.run(&init), 0, "");
}

#[test]
fn last_one_of_a_repeated_flag_counts() {
    let farm = Farm::new();
    farm.add("aa", "1-1", "noarch");
    let mut publish =
        vec!["publish", "--new", "nowhere", "--in", "nowhere", "--rebuild", "--timestamp", "never"];
    publish.extend(REBUILD);
    publish.extend(["--new", "NEW", "--rebuild=false"]);
    check(&farm.run(&publish), 0, "");
    let mut rebuild = vec!["publish", "-rebuild=false", "-all-packages-dir=nowhere"];
    rebuild.extend(REBUILD);
    rebuild.extend(["-rebuild=true", "-all-packages-dir", "repo/p"]);
    check(&farm.run(&rebuild), 0, "");
    assert_eq!(farm.listed("archive"), ["aa 1-1 noarch"]);
    check(&farm.run(&["verify", "--mode", "all", "--repo", "nowhere", "--mode=both", "-repo=repo"]), 0, "");
}
