//! A disk that fills up at each step from a tag to an upload: the step fails with its reason, the
//! manager removes everything half-written, and the next start goes on from there.
//!
//! State directory and remote are on a small file system in a mount namespace, so a script must
//! examine them.

use std::fs;

use crate::broken_disk::{may_mount, sweep_in};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::logfmt::{self, Event};
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::Output;

/// Two sweeps on a file system of 8 MiB, which has room again for the second. The first one's log
/// goes into a file.
const TWO_SWEEPS: &str = "
mkdir state && mount -t tmpfs -o size=8m tmpfs state || exit 9
# The remote shares the disk of the state directory, but is not in it.
mkdir remote state/remote && mount --bind state/remote remote || exit 9
\"$@\" 2>first.log
echo \"status $?\"
[ ! -e fill-before ] && [ ! -e fill-after ] || exit 8
echo half written: $(find state -name '*.new' -o -name '*.tmp')
echo left: $(ls state/sources state/stage | grep -v :)
echo kept: $(ls state/publish)
rm state/filler
\"$@\" || exit
peipkg-repo verify --repo state/repo >&2 || exit
echo packages: $(cd state/repo && find p -name '*.peipkg' | sort)
echo left: $(ls state/sources state/stage state/publish | grep -v :) $(cd state && ls | grep -e journal -e upload-owed -e begun)
[ ! -e remote/repo.json ] || diff -r state/repo remote
";

/// A stand-in for a tool. It fills the disk if its command line matches the pattern in
/// `fill-before`, before the tool works, or in `fill-after`, afterwards.
const FILLS: &str = "#!/bin/sh
is_asked_to() {
    pattern=$(cat \"$HOME/fill-$1\" 2>&1) || return
    case \"${0##*/} $arguments\" in $pattern) ;; *) return 1 ;; esac
    rm \"$HOME/fill-$1\"
}
fill() { head -c 16000000 /dev/zero >>\"$HOME/state/filler\" 2>&1; }
arguments=$*
# A build beside this tool fails meanwhile, and frees its room.
if is_asked_to before; then fill; sleep 1; fill; fi
{real} \"$@\"
status=$?
if is_asked_to after; then fill; fi
exit $status
";

/// A `peipkg-repo` that writes the index in place and runs out of room in the middle of it.
const FILLS_IN_THE_INDEX: &str = "#!/bin/sh
[ \"$1\" = publish ] && [ -e \"$HOME/fill-before\" ] || exec {real} \"$@\"
rm \"$HOME/fill-before\"
cd \"$HOME/state\"
head -c 50 repo/index/archive.json >half && cat half >repo/index/archive.json && rm half
head -c 16000000 /dev/zero >filler
exit 1
";

/// The result of the two sweeps.
struct Seen {
    /// The events of the first sweep.
    first: Vec<Event>,
    /// The second sweep's output, and the script's.
    second: Output,
}

impl Seen {
    /// Counts the events `message` of the first sweep and of the second.
    fn count(&self, message: &str) -> (usize, usize) {
        let first = self.first.iter().filter(|event| event["msg"] == message);
        (first.count(), self.second.events(message).len())
    }
}

/// Fills the disk before or after (`when`) a command that matches `pattern`, and checks what must
/// hold at every step.
#[track_caller]
fn fill(when: &str, pattern: &str, peipkg_repo: &str, uploads: bool) -> Seen {
    // Build only one version with an upload: another build would free room for it.
    let versions = if uploads { &["1.1"][..] } else { &["1.0", "1.1"] };
    let repo = GitRepo::program(versions);
    let mut builder = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .program("git", FILLS)
        .program("peipkg-build", FILLS)
        .program("peipkg-repo", peipkg_repo);
    if uploads {
        builder = builder.program("rclone", FILLS);
        builder = builder.config_extra("[upload]\nbackend = \"rclone\"\nremote = \"{home}/remote\"");
    }
    let farm = builder.build();
    fs::write(farm.path(&format!("fill-{when}")), pattern).unwrap();
    fs::write(farm.path("script"), TWO_SWEEPS).unwrap();
    let second = sweep_in(&farm, "exec unshare -rm sh script \"$@\"");
    let first = fs::read_to_string(farm.path("first.log")).unwrap_or_default();
    let context = format!("{when} {pattern}\n{first}\n{second}");
    assert_eq!(second.status.code(), Some(0), "{context}");
    // The system's text, or git's or rclone's for the same.
    let reasons = ["No space left on device", "unable to write file", "remaining disk space"];
    assert!(reasons.iter().any(|reason| first.contains(reason)), "{context}");
    assert!(second.stdout.contains("half written:\nleft:\n"), "{context}");
    let file = |version: &&str| format!("p/tool/{version}-1/tool_{version}-1_noarch.peipkg");
    let files: Vec<String> = versions.iter().map(file).collect();
    let packages = format!("packages: {}\nleft:\n", files.join(" "));
    assert!(second.stdout.ends_with(&packages), "{context}");
    for event in second.all_events() {
        assert!(event["level"] == "info" || event["msg"].contains("restored"), "{event:?}\n{context}");
    }
    Seen { first: logfmt::events(&first), second }
}

#[test]
fn disk_full_before_packages_are_saved_fails_that_build() {
    if !may_mount() {
        return;
    }
    for (when, pattern) in [
        ("before", "git* fetch *"),
        ("before", "git* read-tree *"),
        ("before", "peipkg-build build *"),
        // The manager asks when the packages are there, and then writes their provenance.
        ("after", "peipkg-build --version"),
    ] {
        let seen = fill(when, pattern, FILLS, false);
        let out = &seen.second.stdout;
        assert!(out.starts_with("status 0\n") && out.contains("\nkept:\n"), "{when} {pattern}\n{out}");
        let (failed, complete) = (seen.count("build failed"), seen.count("build + publish complete"));
        // A failed build may free room for the next.
        assert!(failed.0 >= 1 && failed.1 == 0, "{when} {pattern}: {failed:?}");
        assert_eq!((failed.0 + complete.0, complete.0 + complete.1), (2, 2), "{when} {pattern}");
    }
}

#[test]
fn disk_full_in_a_publish_undoes_it() {
    if !may_mount() {
        return;
    }
    for (script, restored) in [(FILLS, 0), (FILLS_IN_THE_INDEX, 1)] {
        let Seen { first, second } = fill("before", "peipkg-repo publish *", script, false);
        let of = |events: &[Event], message: &str, version: &str| {
            events.iter().filter(|event| event["msg"] == message && event["version"] == version).count()
        };
        let all = second.all_events();
        // 1.1 is built first, and its publish meets the full disk. Its outputs are kept, and it is
        // not built again. What 1.0 meets depends on how far it is when the disk is full.
        assert!(second.stdout.lines().any(|line| line.starts_with("kept: ") && line.contains("tool@1.1-1.")));
        assert_eq!(of(&first, "publish failed", "1.1-1"), 1, "{second}");
        assert_eq!(of(&first, "starting build", "1.1-1"), 1, "{second}");
        assert_eq!(of(&all, "starting build", "1.1-1"), 0, "a built version was built again\n{second}");
        assert_eq!(of(&all, "starting build", "1.0-1"), of(&first, "build failed", "1.0-1"), "{second}");
        // A tool without room changes nothing; if there is no room for the old index either, it is
        // restored later.
        let message = "publish was cut short, repository restored";
        let undone =
            [&first, &all].map(|events| events.iter().filter(|event| event["msg"] == message).count());
        assert_eq!(undone.iter().sum::<usize>(), restored, "{second}");
    }
}

#[test]
fn disk_full_in_the_first_publish_leaves_no_repository() {
    if !may_mount() {
        return;
    }
    let seen = fill("before", "peipkg-repo init *", FILLS, false);
    assert!(seen.second.stdout.starts_with("status 1\n") && seen.first.is_empty(), "{}", seen.second);
    assert_eq!(seen.count("build + publish complete"), (0, 2));
}

#[test]
fn disk_full_in_an_upload_fails_it_and_the_next_goes_on() {
    if !may_mount() || !require("rclone") {
        return;
    }
    // The verification, and the passes of the upload.
    for (when, pattern) in [
        ("after", "peipkg-repo verify *"),
        ("before", "rclone copy *"),
        ("before", "rclone sync --delete-after --include *"),
    ] {
        let seen = fill(when, pattern, FILLS, true);
        let (failed, later) = seen.count("upload failed");
        assert!(failed >= 1 && later == 0, "{pattern}: {}", seen.second);
        assert!(seen.count("upload complete").1 >= 1, "{pattern}: {}", seen.second);
    }
}
