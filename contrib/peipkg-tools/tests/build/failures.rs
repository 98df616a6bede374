//! Builds that must fail: each prints a clear line and leaves no file behind.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fixture::{Fixture, Run, names};

/// Stages an empty file at each path.
fn stage(paths: &[&str]) -> String {
    let one = |path: &&str| format!("mkdir -p \"$DESTDIR/$(dirname '{path}')\"; : >\"$DESTDIR/{path}\"\n");
    paths.iter().map(one).collect()
}

/// A good fixture.
fn good() -> Fixture {
    Fixture::simple("\"etc/*\"", &stage(&["etc/a"]))
}

#[test]
fn orphans_and_overlaps_name_every_path() {
    let stanzas = "[[package]]\nname = \"aa\"\narchitecture = \"noarch\"\nfiles = [\"etc/*\"]\n\
        [[package]]\nname = \"bb\"\narchitecture = \"noarch\"\nfiles = [\"etc/b\", \"var/x/\"]\n\
        [[package]]\nname = \"cc\"\narchitecture = \"noarch\"\nfiles = [\"var/*/\"]\n";
    let script = stage(&["etc/a", "etc/b", "opt/c d", "usr/bin/e"])
        + "ln -s e $DESTDIR/usr/bin/f; mkdir -p $DESTDIR/var/x";
    Fixture::new(stanzas, &script).fails(
        1,
        &[
            "overlap: etc/b is claimed by aa and bb",
            "orphan: opt/c d is claimed by no [[package]]",
            "orphan: usr/bin/e is claimed by no [[package]]",
            "orphan: usr/bin/f is claimed by no [[package]]",
            "overlap: var/x is claimed by bb and cc",
        ],
    );
}

#[test]
fn recipe_typo_names_its_line() {
    let fixture = good();
    let text = fs::read_to_string(fixture.path("recipe/peipkg.toml")).unwrap();
    fixture.write(
        "recipe/peipkg.toml",
        &text.replace("[meta]", "[meta]\nhomepag = \"x\"").replace("files", "filse"),
    );
    let place = "{}/recipe/peipkg.toml";
    let key = "unknown key \"homepag\" in [meta]; did you mean \"homepage\"?";
    fixture.fails(
        1,
        &[
            &format!("{place}:2: {key}"),
            &format!("{place}:4: missing key \"files\" in [[package]]"),
            &format!("{place}:7: unknown key \"filse\" in [[package]]; did you mean \"files\"?"),
        ],
    );
}

#[test]
fn script_fails_passes_its_output_on() {
    let fixture = Fixture::simple("\"etc/*\"", "echo progress; echo reason >&2; exit 3");
    let run = fixture.run();
    let place = fixture.path("recipe/build.sh").display().to_string();
    let expected = format!("progress\nreason\npeipkg-build: build script {place} failed: exit status: 3\n");
    assert_eq!((run.status, run.stderr.as_str(), run.stdout.as_str()), (Some(1), expected.as_str(), ""));
    assert_eq!(names(&fixture.path("out")), [""; 0]);
}

#[test]
fn files_missing_are_named() {
    let fixture = good();
    fs::remove_file(fixture.path("recipe/build.sh")).unwrap();
    let missing = "No such file or directory (os error 2)";
    let line = format!("{{}}/recipe/peipkg.toml:2: build_script \"build.sh\" cannot be read: {missing}");
    fixture.fails(1, &[&line]);
    fs::remove_dir(fixture.path("source")).unwrap();
    fixture.write("source", "");
    fixture.write("recipe/build.sh", "");
    fixture.fails(1, &["source tree {}/source: not a directory"]);
    fs::remove_file(fixture.path("recipe/peipkg.toml")).unwrap();
    fixture.fails(1, &[&format!("{{}}/recipe/peipkg.toml: cannot read the recipe: {missing}")]);
}

#[test]
fn flag_values_are_checked() {
    let not_a_time = |text: &str| {
        format!("--timestamp: {text:?} is not an RFC 3339 time in UTC such as 2026-05-01T12:00:00Z")
    };
    let cases = [
        ("--timestamp", "2026-05-01T12:00:00+00:00", not_a_time("2026-05-01T12:00:00+00:00")),
        ("--timestamp", "yesterday", not_a_time("yesterday")),
        (
            "--timestamp",
            "2026-05-01T12:00:00.5Z",
            "--timestamp: \"2026-05-01T12:00:00.5Z\" has a fraction of a second, expected whole seconds".to_owned(),
        ),
        (
            "--timestamp",
            "2300-01-01T00:00:00Z",
            "--timestamp: \"2300-01-01T00:00:00Z\" is too late for an archive entry, expected a year before 2242".to_owned(),
        ),
        (
            "--version",
            "../../x-1",
            "--version: upstream version \"../../x\" does not start with an ASCII digit or letter".to_owned(),
        ),
        (
            "--version",
            "1.2",
            "--version: \"1.2\" does not end in -<revision>, a positive number without leading zeros"
                .to_owned(),
        ),
        ("--build-env", "1A=x", "--build-env: expected NAME=VALUE".to_owned()),
        ("--build-env", "A", "--build-env: expected NAME=VALUE".to_owned()),
        ("--build-env", "PATH=/x", "--build-env: PATH is set by peipkg-build, expected another name".to_owned()),
        ("--binary-sign-key", "tcb", "--binary-sign-key: expected NAME=PATH".to_owned()),
        ("--binary-sign-key", "a/b=x", "--binary-sign-key: expected NAME=PATH".to_owned()),
        ("--farm", "x", "unknown flag --farm; --help lists the flags".to_owned()),
    ];
    for (flag, value, line) in cases {
        good().with(flag, value).fails(2, &[&line]);
    }
    for flag in ["--recipe", "--source", "--version", "--source-ref", "--farm-id", "--timestamp", "--out"] {
        good().with(flag, "").fails(1, &[&format!("missing required flag {flag}")]);
    }
}

#[test]
fn key_wrong_is_refused_before_the_script_runs() {
    let fixture = Fixture::simple("", "echo ran; exit 1");
    fixture.write("short", "secret");
    let short = fixture.path("short").display().to_string();
    let wrong = "not an Ed25519 private key: found 6 bytes, expected PEM PKCS#8 or a raw seed of 32 bytes";
    let fixture = fixture.with("--sign-key", &short);
    fixture.fails(1, &[&format!("{short}: {wrong}")]);
    let missing = "/nonexistent/key";
    let line = format!("{missing}: cannot read the key: No such file or directory (os error 2)");
    good().with("--sign-key", missing).fails(1, &[&line]);
    good().with("--binary-sign-key", &format!("tcb={missing}")).fails(1, &[&line]);
    let fixture = good();
    let pair = format!("tcb={}", fixture.path("key.raw").display());
    fixture.with("--binary-sign-key", &pair).build();
}

#[test]
fn payload_outside_the_destinations_is_refused() {
    let paths = [
        "usr/local/bin/x",
        "usr/lib/x86_64-linux-peios/x.so",
        "var/lib/x",
        "home/x",
        "usr/bin/y",
        "system/z",
    ];
    Fixture::simple("\"**\"", &stage(&paths)).fails(
        1,
        &[
            "xx: home is outside the permitted destinations (PSD-009 §3.4.1)",
            "xx: home/x is outside the permitted destinations (PSD-009 §3.4.1)",
            "xx: usr/lib/x86_64-linux-peios is under an architecture's directory in a noarch package",
            "xx: usr/lib/x86_64-linux-peios/x.so is under an architecture's directory in a noarch package",
            "xx: usr/local is outside the permitted destinations (PSD-009 §3.4.1)",
            "xx: usr/local/bin is outside the permitted destinations (PSD-009 §3.4.1)",
            "xx: usr/local/bin/x is outside the permitted destinations (PSD-009 §3.4.1)",
            "xx: var/lib/x is under var, where a package may only create directories",
        ],
    );
}

#[test]
fn link_outside_the_destinations_is_refused() {
    let script = "mkdir -p $DESTDIR/etc; cd $DESTDIR/etc
        ln -s /etc/x absolute; ln -s nowhere dangling; ln -s ../../.. escape; ln -s ../tmp/x tmp; ln -s . self";
    Fixture::simple("\"etc/*\"", script).fails(
        1,
        &[
            "xx: etc/absolute: target \"/etc/x\" is absolute; a link's target must be relative",
            "xx: etc/escape: target \"../../..\" leads out of the root",
            "xx: etc/tmp: target \"../tmp/x\" leads outside the permitted destinations (PSD-009 §3.4.8)",
        ],
    );
    // A link into another package dangles in its own; only the destination is checked.
    Fixture::simple("\"etc/*\"", "mkdir $DESTDIR/etc; ln -s ../usr/share/other/x $DESTDIR/etc/x").build();
}

#[test]
fn payload_special_file_or_unclean_name_is_refused() {
    let script = "mkdir -p $DESTDIR/etc $DESTDIR/.peipkg; cd $DESTDIR/etc; mkfifo pipe; : >'a\\b'; : >\"$(printf 'u\\314\\210')\"
        : >\"$(printf 'l\\nine')\"; : >\"$(printf 'bad\\377')\"";
    Fixture::simple("\"**\"", script).fails(
        1,
        &[
            "\".peipkg\" is reserved for the package's own metadata",
            "\"etc/a\\\\b\" has a backslash",
            "\"etc/bad\u{fffd}\" is not UTF-8",
            "\"etc/l\\nine\" has a control character",
            "etc/pipe is a FIFO; a package holds files, directories and symbolic links",
            "\"etc/u\\u{308}\" is not in Unicode normalization form C",
        ],
    );
}

#[test]
fn packages_of_a_build_appear_together_or_not_at_all() {
    let stanzas = "[[package]]\nname = \"aa\"\narchitecture = \"noarch\"\nfiles = [\"etc/a\"]\n\
        [[package]]\nname = \"bb\"\narchitecture = \"noarch\"\nfiles = [\"etc/b\"]\n";
    // A sparse file costs no space. The rest of the archive takes 9 KiB.
    let script = "mkdir $DESTDIR/etc; : >$DESTDIR/etc/a; truncate -s 4294967296 $DESTDIR/etc/b";
    let fixture = Fixture::new(stanzas, script);
    let run = fixture.run();
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    let expected =
        "the package would decompress to 4294976512 bytes, at most 4294967296 (4 GiB) are allowed\n";
    assert!(run.stderr.ends_with(expected), "{}", run.stderr);
    assert_eq!(names(&fixture.path("out")), [""; 0]);
}

#[test]
fn signal_ends_the_script_and_removes_everything() {
    let fixture = Fixture::simple("\"etc/*\"", "echo ready; exec sleep 60");
    let mut child = fixture.command().stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running");
        }
        sleep(Duration::from_millis(5));
    };
    line.clear();
    std::io::Read::read_to_string(&mut stderr, &mut line).unwrap();
    assert_eq!((status.code(), line.as_str()), (Some(1), "peipkg-build: interrupted by signal 15\n"));
    assert_eq!(names(&fixture.path("tmp")), [""; 0]);
}

/// A signal also ends the script's children if peipkg-build leads its process group.
#[test]
fn signal_reaches_the_whole_group() {
    let fixture = Fixture::simple("\"etc/*\"", "sleep 60 & echo $!; wait");
    let mut child = fixture.command().process_group(0).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    let sleeper = format!("/proc/{}/stat", line.trim());
    // An ended process may still be listed, as a zombie.
    let runs = || fs::read_to_string(&sleeper).is_ok_and(|text| !text.contains(") Z "));
    assert!(runs());
    let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let deadline = Instant::now() + Duration::from_secs(10);
    while runs() {
        assert!(Instant::now() < deadline, "still running");
        sleep(Duration::from_millis(5));
    }
    assert_eq!(names(&fixture.path("tmp")), [""; 0]);
}

/// A parent that ignores SIGCHLD must not keep peipkg-build from the script's exit status.
#[test]
fn sigchld_ignored_by_the_parent_does_not_matter() {
    for (script, status) in [("mkdir -p $DESTDIR/etc; : >$DESTDIR/etc/a", 0), ("exit 3", 1)] {
        let fixture = Fixture::simple("\"etc/*\"", script);
        let build = fixture.command();
        let mut command = Command::new("env");
        command.arg("--ignore-signal=CHLD").arg(build.get_program()).args(build.get_args());
        command.envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let run = Run::of(&mut command);
        assert_eq!(run.status, Some(status), "{}", run.stderr);
    }
}

#[test]
fn claim_of_a_file_that_is_not_staged_is_refused() {
    let recipe = |target: &str| {
        Fixture::new(
            &format!(
                "[[package]]\nname = \"xx\"\narchitecture = \"noarch\"\nfiles = [\"etc/*\"]\n\
                 dependencies = [{{ name = \"log\", root = \"r\", claims = {{ sink = {{ path = \"/run/x\" }} }} }}]\n\
                 provides = [{{ name = \"role\", claims = {{ text = {{ target = \"{target}\" }} }} }}]\n"
            ),
            "mkdir \"$DESTDIR/etc\"; echo x > \"$DESTDIR/etc/x\"",
        )
    };
    let none = "provides: the target of a claim, \"/etc/none\", is not in the payload";
    recipe("/etc/none").fails(1, &[&format!("xx: {none}")]);
    let good = recipe("/etc/x");
    good.build();
    let tar = good.tar("xx_1.2-3_noarch.peipkg");
    for expected in [
        r#""dependencies":[{"name":"log","root":"r","claims":{"sink":{"path":"/run/x"}}}]"#,
        r#""provides":[{"name":"role","claims":{"text":{"target":"/etc/x"}}}]"#,
    ] {
        assert!(tar.windows(expected.len()).any(|part| part == expected.as_bytes()), "{expected}");
    }
}
