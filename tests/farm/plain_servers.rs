//! Servers and proxies that lack what saves most of a fetch: leaving out the history, several tags
//! at once, continuing a repository. They are upstreams too, and each economy is tried once.

use crate::sources::{DAY, inspector, seen, sweep_cleanly};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::smart_http::{Fault, SmartHttp};

/// An upstream with the tags `v1` to `v4` and some history before each.
fn four_versions() -> GitRepo {
    let repo = GitRepo::new();
    for number in 1..=4 {
        repo.commit(&[("content", "between")], DAY);
        repo.commit(&[("content", &format!("of {number}"))], DAY);
        repo.tag_annotated(&format!("v{number}"), DAY);
    }
    repo.git(&["update-server-info"]);
    repo
}

/// Builds the four versions from a server with `fault`, and returns how many fetches git began.
#[track_caller]
fn fetches_of_four(fault: Fault) -> usize {
    let http = SmartHttp::new();
    let url = http.serve("lib.git", &four_versions());
    http.fault("", fault);
    let farm = Farm::builder().with(&inspector("lib", &url)).build();
    sweep_cleanly(&farm);
    for number in 1..=4 {
        assert_eq!(seen(&farm, "lib", &format!("{number}-1"), "content"), format!("of {number}"));
    }
    let requests = http.requests();
    let begun = requests.iter().filter(|request| request.path.ends_with("/info/refs"));
    let is_own = |agent: &str| agent.contains("peipkg-manager");
    begun.filter(|request| !request.header("user-agent").is_some_and(is_own)).count()
}

#[test]
fn server_without_shallow_is_fetched_plainly_and_remembered() {
    let (from, to) = ("shallow", "shxllow");
    // One refused fetch, and one for each version.
    assert_eq!(fetches_of_four(Fault::Rewrite { from, to }), 5);
    // Here git lists the tags too, because the server does not speak the second version.
    assert_eq!(fetches_of_four(Fault::Old { from, to }), 6);
}

#[test]
fn server_of_plain_files_is_fetched_plainly_and_remembered() {
    assert_eq!(fetches_of_four(Fault::PlainFiles), 6);
}

#[test]
fn older_or_plain_server_with_long_ids_is_an_upstream_too() {
    let repo = GitRepo::sha256();
    repo.commit(&[("content", "long names")], DAY);
    repo.tag_annotated("v1", DAY);
    repo.git(&["update-server-info"]);
    let (from, to) = ("shallow", "shallow");
    for fault in [Fault::Old { from, to }, Fault::PlainFiles] {
        let http = SmartHttp::new();
        let url = http.serve("lib.git", &repo);
        http.fault("", fault);
        let farm = Farm::builder().with(&inspector("lib", &url)).build();
        sweep_cleanly(&farm);
        assert_eq!(seen(&farm, "lib", "1-1", "content"), "long names");
    }
}

/// A git whose fetches fail if `condition`, a shell test, holds; `$tags` is the number of tags, and
/// `$cached` is not empty for a repository that has objects.
fn git_that_fails_if(condition: &str) -> String {
    format!(
        "#!/bin/sh\ntags=0 fetch='' cached='' place=''\nfor argument; do\n  case $argument in\n    \
         fetch) fetch=yes ;;\n    +refs/tags/*) tags=$((tags + 1)) ;;\n  esac\n  \
         [ \"$place\" != -C ] || cached=$(find \"$argument/objects\" -type f 2>/dev/null)\n  place=$argument\ndone\n\
         if [ -n \"$fetch\" ]; then\n  echo \"$tags\" >>\"$HOME/fetches\"\n  \
         if {condition}; then echo 'fatal: the remote end hung up unexpectedly' >&2; exit 128; fi\nfi\n\
         exec {{real}} \"$@\"\n"
    )
}

/// Builds the four versions with such a git, and returns the number of tags in each of its fetches.
#[track_caller]
fn fetches_with(condition: &str) -> String {
    let repo = four_versions();
    let farm = Farm::builder()
        .with(&inspector("lib", &repo.file_url()))
        .program("git", &git_that_fails_if(condition));
    let farm = farm.build();
    sweep_cleanly(&farm);
    for number in 1..=4 {
        assert_eq!(seen(&farm, "lib", &format!("{number}-1"), "content"), format!("of {number}"));
    }
    std::fs::read_to_string(farm.path("fetches")).unwrap().replace('\n', " ")
}

#[test]
fn server_that_refuses_several_tags_is_asked_for_one() {
    assert_eq!(fetches_with("[ $tags -gt 1 ]"), "2 1 1 1 1 ");
}

#[test]
fn server_that_refuses_to_continue_is_fetched_from_nothing() {
    // The first fetch brings two versions, the next one is refused.
    assert_eq!(fetches_with("[ -n \"$cached\" ]"), "2 2 1 1 ");
}

#[test]
fn server_that_refuses_all_economies_with_unknown_words_is_fetched_plainly() {
    let depth = "case \" $* \" in *--depth*) true ;; *) false ;; esac";
    assert_eq!(fetches_with(depth), "2 1 1 1 1 1 ");
}
