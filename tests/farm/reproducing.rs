//! `[build] reproduce`: a version is built twice, and published only if both builds are equal.

use std::fs;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::running::Output;
use crate::support::wait::PATIENCE;

use rustix::process::Signal;

pub(super) const REPRODUCE: &str = "[build]\nreproduce = true\n";

/// The file whose content a script takes from its surroundings.
const FILE: &str = "usr/share/doc/tool/made";

/// A recipe whose build runs `script` with `$made` as the file to write.
pub(super) fn making(url: &str, script: &str) -> Recipe {
    let usual = Recipe::program("tool", url).script().replace("set -eu\n", "");
    Recipe::program("tool", url).build_sh(&format!("{usual}\nmade=\"$DESTDIR/{FILE}\"\n{script}\n"))
}

/// The log of the only attempt.
#[track_caller]
pub(super) fn log(farm: &Farm) -> String {
    let mut logs = fs::read_dir(farm.path("state/logs/tool")).unwrap();
    fs::read_to_string(logs.next().unwrap().unwrap().path()).unwrap()
}

/// Runs a sweep of a farm that must not publish, because `$made` differs.
#[track_caller]
pub(super) fn assert_differs(farm: &Farm) -> Output {
    let output = farm.once();
    output.assert_success().assert_only_events();
    let error = &output.event("build failed")["error"];
    let expected =
        format!("not reproducible, tool_1.0-1_noarch.peipkg comes out different: {FILE}: differs at byte ");
    assert!(error.starts_with(&expected), "{error}\n{output}");
    assert!(!error.contains(".peipkg/"), "what only follows hides the cause: {error}");
    assert!(
        log(farm).contains(&format!("tool_1.0-1_noarch.peipkg:\n  {FILE}: differs at byte ")),
        "{}",
        log(farm)
    );
    farm.assert_published(&[]);
    farm.assert_clean();
    output
}

#[test]
fn build_that_depends_on_its_surroundings_is_not_published() {
    let repo = GitRepo::program(&["1.0"]);
    let cases = [
        ("source path", "echo \"$SOURCE_DIR\" >\"$made\""),
        ("stage", "echo \"$DESTDIR\" >\"$made\""),
        ("working directory", "pwd >\"$made\""),
        ("length of the path", "printf %s \"$SOURCE_DIR\" | wc -c >\"$made\""),
        ("umask", "umask >\"$made\""),
        ("mode of a new file", "touch x; stat -c %a x >\"$made\""),
        ("time", "date +%s >\"$made\""),
        ("time of a new file", "touch x; stat -c %Y x >\"$made\""),
        ("random", "od -An -N16 -tx1 /dev/urandom >\"$made\""),
        ("process", "echo $$ >\"$made\""),
    ];
    for (what, script) in cases {
        println!("{what}");
        let farm = Farm::builder().with(&making(&repo.file_url(), script)).config_extra(REPRODUCE).build();
        assert_differs(&farm);
    }
    let processors = std::thread::available_parallelism().unwrap().get();
    if processors > 1 {
        let farm =
            Farm::builder().with(&making(&repo.file_url(), "nproc >\"$made\"")).config_extra(REPRODUCE);
        let output = assert_differs(&farm.build());
        let [first, second] = [processors, processors - 1].map(|count| format!("{count}\n"));
        let digit = |text: &str| format!("{:02x}", text.as_bytes()[0]);
        if processors < 10 {
            let error = output.event("build failed")["error"].clone();
            assert!(error.contains(&format!("byte 0: {}", digit(&first))), "{error}");
            assert!(error.contains(&format!(", {}", digit(&second))), "{error}");
        }
    }
}

#[test]
fn reproducible_packages_are_published_and_count_as_one_build() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let tree = "find \"$SOURCE_DIR\" -printf '%P %m %T@ %l\\n' | LC_ALL=C sort >\"$DESTDIR/usr/share/doc/tool/tree\"\n\
                cat \"$SOURCE_DIR/link\" >/dev/null\n\
                echo changed >\"$SOURCE_DIR/README\"; chmod 700 \"$SOURCE_DIR/README\"; touch \"$SOURCE_DIR/new\"";
    repo.symlink("link", "README");
    repo.write_executable("deep/run.sh", b"#!/bin/sh\n");
    repo.commit(&[], "2026-01-02T00:00:00Z");
    repo.tag_light("v1.2");
    let usual = Recipe::program("tool", &repo.file_url()).script();
    let tool = Recipe::program("tool", &repo.file_url())
        .tag_pattern("^v(1\\.2)$")
        .with_doc()
        .build_sh(&format!("{usual}\n{tree}\n"));
    let farm = Farm::builder().with(&tool).config_extra(REPRODUCE).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    farm.assert_published(&["tool 1.2-1 noarch", "tool-doc 1.2-1 noarch"]);
    farm.assert_clean();
    farm.assert_verifies();
    assert_eq!(output.events("starting build").len(), 1, "{output}");
    let stopped = output.event("peipkg-manager stopped");
    assert_eq!((stopped["built"].as_str(), stopped["failed"].as_str()), ("1", "0"), "{output}");
    let log = log(&farm);
    for heading in [
        "Z first of two builds\n",
        "Z second build, in other surroundings: ",
        "Z comparison of both builds\n",
    ] {
        assert_eq!(log.matches(heading).count(), 1, "{heading}\n{log}");
    }
    assert_eq!(log.matches("peipkg-build build\n").count(), 2, "{log}");
}

#[test]
fn recipe_overrides_the_farm() {
    let repo = GitRepo::program(&["1.0"]);
    let odd = making(&repo.file_url(), "pwd >\"$made\"; date +%N >>\"$made\"");
    let farm =
        Farm::builder().with(&odd.clone().upstream("reproduce = false")).config_extra(REPRODUCE).build();
    farm.once().assert_success();
    farm.assert_published(&["tool 1.0-1 noarch"]);
    assert!(!log(&farm).contains("second build"), "{}", log(&farm));
    assert_differs(&Farm::builder().with(&odd.clone().upstream("reproduce = true")).build());
    let farm = Farm::builder().with(&odd.upstream("reproduce = \"yes\"")).build();
    farm.run(&["--once"]).assert_code(1).assert_one_line(&["reproduce"]);
    let farm = Farm::builder().config_extra("[build]\nreproduce = 1\n").build();
    farm.run(&["--once"]).assert_code(2).assert_one_line(&["reproduce"]);
}

#[test]
fn differences_in_several_packages_and_members_are_named() {
    let repo = GitRepo::program(&["1.0"]);
    let usual = Recipe::program("tool", &repo.file_url()).script();
    let script = "cd \"$DESTDIR\"; for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo \"$n $SOURCE_DIR\" >usr/bin/p$n; done\n\
                  case $SOURCE_DIR in */second/*) echo >usr/bin/zz; ln -s p1 usr/bin/l;; *) ln -s p2 usr/bin/l;; esac\n\
                  echo \"$SOURCE_DIR\" >>usr/share/doc/tool/README";
    let tool = Recipe::program("tool", &repo.file_url()).with_doc().build_sh(&format!("{usual}\n{script}\n"));
    let farm = Farm::builder().with(&tool).config_extra(REPRODUCE).build();
    let output = farm.once();
    let error = &output.event("build failed")["error"];
    assert!(
        error.contains(
            " tool_1.0-1_noarch.peipkg comes out different: usr/bin/l: leads to \"p2\" in the first, to \"p1\" in the second; "
        ),
        "{error}"
    );
    assert!(error.contains("; usr/bin/p1: differs at byte "), "{error}");
    let log = log(&farm);
    assert!(log.contains("\n  and 6 more\n"), "{log}");
    assert!(
        log.contains("tool-doc_1.0-1_noarch.peipkg:\n  usr/share/doc/tool/README: differs at byte "),
        "{log}"
    );
    farm.assert_published(&[]);
}

#[test]
fn second_build_that_fails_or_hangs_is_named() {
    let repo = GitRepo::program(&["1.0"]);
    // Where faketime is there.
    let clock = ", with another clock,";
    let fail =
        making(&repo.file_url(), "case $SOURCE_DIR in */second/*) echo 'no such luck' >&2; exit 3;; esac");
    let farm = Farm::builder().with(&fail).config_extra(REPRODUCE).build();
    let error = farm.once().event("build failed")["error"].replace(clock, "");
    assert!(error.starts_with("the second build failed, the first did not: peipkg-build "), "{error}");
    assert!(error.contains("no such luck") || log(&farm).contains("no such luck"), "{error}");
    let hang = making(&repo.file_url(), "case $SOURCE_DIR in */second/*) exec sleep 1000;; esac");
    let farm =
        Farm::builder().with(&hang).config_extra("[build]\nreproduce = true\ntimeout = \"20s\"\n").build();
    let error = farm.once().event("build failed")["error"].replace(clock, "");
    assert!(error.contains("second build failed") && error.contains("still running after 20s"), "{error}");
    farm.assert_clean();
}

#[test]
fn tool_without_compare_compares_the_files() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder()
        .with(&making(&repo.file_url(), "pwd >\"$made\""))
        .config_extra(REPRODUCE)
        .program("peipkg-repo", "#!/bin/sh\n[ \"$1\" != compare ] || { echo \"unknown command $1\" >&2; exit 2; }\nexec {real} \"$@\"\n")
        .build();
    let error = farm.once().event("build failed")["error"].clone();
    assert!(
        error.contains("tool_1.0-1_noarch.peipkg comes out different: the files differ at byte "),
        "{error}"
    );
    assert!(error.contains("this peipkg-repo compares no members"), "{error}");
    farm.assert_published(&[]);
}

#[test]
fn surroundings_reach_the_tool_and_the_path_of_the_first_build_stays() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .config_extra(REPRODUCE)
        .program(
            "peipkg-build",
            "#!/bin/sh\n[ \"$1\" != build ] || printf '%s\\n' \"$HOME|$LC_ALL|$TZ|$TMPDIR|$(umask)|$3|$5\" >>{home}/seen\nexec {real} \"$@\"\n",
        )
        .build();
    let script = fs::read_to_string(farm.bin_dir().join("peipkg-build")).unwrap();
    farm.write_program("peipkg-build", &script.replace("{home}", &farm.home().display().to_string()));
    farm.once().assert_success();
    let seen = fs::read_to_string(farm.path("seen")).unwrap();
    let lines: Vec<Vec<&str>> = seen.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(lines.len(), 2, "{seen}");
    for (first, second) in lines[0].iter().zip(&lines[1]) {
        assert_ne!(first, second, "{seen}");
    }
    assert_eq!(lines[0].len(), 7, "{seen}");
    let state = farm.state_dir().display().to_string();
    assert_eq!(lines[0][6], format!("{state}/sources/tool@1.0-1"));
    // Wrappers tell recipes apart by the end of this path.
    assert!(lines.iter().all(|line| line[5].ends_with("/recipes/tool/peipkg.toml")), "{seen}");
}

#[test]
fn stop_during_the_first_build_finishes_both() {
    let repo = GitRepo::program(&["1.0"]);
    let latch = Latch::new();
    let slow = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&slow).config_extra(REPRODUCE).build();
    let mut daemon = farm.daemon();
    latch.wait_reached();
    daemon.signal(Signal::TERM);
    latch.open();
    daemon.wait_exit(PATIENCE).assert_success();
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.assert_clean();
}

#[test]
fn kill_during_the_second_build_leaves_nothing_behind() {
    let repo = GitRepo::program(&["1.0"]);
    let latch = Latch::new();
    let script = format!("case $SOURCE_DIR in */second/*) {} ;; esac", latch.script().trim_end());
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()).before_build(&script))
        .config_extra(REPRODUCE);
    let farm = farm.build();
    let daemon = farm.daemon();
    latch.wait_reached();
    daemon.kill(true);
    latch.open();
    farm.once().assert_success();
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.assert_clean();
}
