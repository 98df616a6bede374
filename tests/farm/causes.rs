//! Errors that name their cause in the words of the program that found it.

use std::process::Command;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::{not_permitted, require};
use crate::support::recipes::Recipe;

/// Runs a sweep with one version whose build script is `script`; returns the cause of its failure.
#[track_caller]
fn cause(script: &str) -> String {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url()).build_sh(script)).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let error = output.event("build failed")["error"].clone();
    let (_, cause) = error.split_once("; before that: ").unwrap_or_else(|| panic!("no cause\n{output}"));
    cause.to_owned()
}

#[test]
fn build_failed_names_the_error_and_not_make() {
    if !require("make") {
        return;
    }
    // As a compiler in a recursive make with several jobs.
    let makefile = "all: ; @$(MAKE) -w -f sub bad other\\n";
    let sub =
        "bad: ; @echo \"main.c:3:5: error: expected ';'\"; echo '  3 | int x'; exit 1\\nother: ; @sleep 0\\n";
    let script = format!(
        "printf \"%b\" '{makefile}' >Makefile\nprintf '%b' '{}' >sub\nmake -w -k\n",
        sub.replace('\'', "'\\''")
    );
    assert_eq!(cause(&script), "main.c:3:5: error: expected ';'");
    // Only make knows.
    let cause = cause("printf 'all: missing.c\\n' >Makefile\nmake -w\n");
    assert!(cause.starts_with("make: *** No rule to make target 'missing.c'"), "{cause}");
}

#[test]
fn build_failed_line_is_cut_to_200_characters() {
    let cause = cause("printf 'error: %0500d\\n' 1 >&2\nexit 1\n");
    assert_eq!(cause, format!("error: {}…{}1", "0".repeat(93), "0".repeat(98)));
}

#[test]
fn build_failed_missing_program_is_named() {
    let cause = cause("no-such-compiler -o x x.c\n");
    assert!(cause.ends_with("no-such-compiler: not found"), "{cause}");
}

#[test]
fn upstream_of_another_owner_keeps_gits_remedy() {
    if !rustix::process::geteuid().is_root() {
        return not_permitted("root's right to give files away");
    }
    let repo = GitRepo::program(&["1.0"]);
    run(Command::new("chown").args(["-R", "65534"]).arg(repo.path()));
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let error = &output.event("poll failed")["error"];
    let remedy = format!("git config --global --add safe.directory {}/.git", repo.path().display());
    assert!(error.contains("dubious ownership") && error.ends_with(&remedy), "{output}");
}
