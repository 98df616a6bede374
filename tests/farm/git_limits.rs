//! Upstreams that would swell git or fill the disk: git runs into its limits, the error names the
//! limit's key, and the other recipes are built.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::processes::descendants;
use crate::support::random::Random;
use crate::support::recipes::Recipe;
use crate::support::smart_http::{ADVERTISEMENT, Fault, RESULT, SmartHttp};
use crate::support::wait::{PATIENCE, poll};

const DAY: &str = "2026-02-01T00:00:00Z";

const LIMITS: &str = "[git]\nmemory_limit = \"32MiB\"\nsource_limit = \"2MiB\"\n";
const MEMORY: &str = "more memory than [git] memory_limit = 32MiB allows";
const DISK: &str = "writes more to disk than [git] source_limit = 2MiB allows";

/// The most that the programs of git used, in bytes.
struct Peak {
    /// The memory that all of them had at once.
    memory: u64,
    /// The disk space of the sources.
    disk: u64,
}

/// Sweeps a farm with small limits and the recipes `good` and `bad`. Checks that `good` is
/// published, and that each event `failure` is about `bad` and has the reason `expected`.
#[track_caller]
fn check(bad: &Recipe, failure: &str, expected: &str) -> Peak {
    let http = SmartHttp::new();
    let good = Recipe::program("good", &http.serve("good.git", &GitRepo::program(&["1"])));
    let farm = Farm::builder().with(&good).with(bad).config_extra(LIMITS).build();
    let mut running = farm.start(&["--once"]);
    let mut peak = Peak { memory: 0, disk: 0 };
    let ended = poll(PATIENCE, || {
        let found = descendants(running.pid());
        let git = found.iter().filter(|process| process.name.starts_with("git"));
        peak.memory = peak.memory.max(git.map(|process| memory_of(process.pid)).sum());
        peak.disk = peak.disk.max(disk_usage(&farm.state_dir().join("sources")));
        running.has_ended().then_some(())
    });
    assert!(ended.is_some(), "{}", running.stderr());
    let output = running.wait_exit(PATIENCE);
    output.assert_success().assert_only_events();
    let failures = output.events(failure);
    assert!(!failures.is_empty(), "{output}");
    for failure in failures {
        assert!(failure["recipe"] == "bad" && failure["error"].contains(expected), "{output}");
    }
    farm.assert_published(&["good 1-1 noarch"]);
    farm.assert_clean();
    peak
}

/// The memory that a process has allocated and uses; none if it has ended.
fn memory_of(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    kib.map_or(0, |kib| kib.parse::<u64>().expect("a number") * 1024)
}

fn disk_usage(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_usage(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of_entry).sum()
}

fn endless(content_type: &str, start: &str) -> Fault {
    let block = format!("{start}{}", "x".repeat(0xea60 - 4)).into_bytes();
    Fault::Endless { content_type: content_type.to_owned(), block }
}

/// Checks an upstream that gives our client an answer which git understands better, and git `fault`.
#[track_caller]
fn check_listing(fault: Fault) {
    let http = SmartHttp::new();
    let url = http.serve("bad.git", &GitRepo::program(&["1"]));
    http.fault("bad.git", Fault::Status { code: 404, retry_after: None });
    http.fault_for_git("bad.git/", fault);
    let peak = check(&Recipe::program("bad", &url), "poll failed", MEMORY);
    assert!(peak.memory < 64 << 20, "{}", peak.memory);
}

#[test]
fn listing_by_git_is_endless_is_ended_at_the_memory_limit() {
    check_listing(endless(ADVERTISEMENT, "ea60"));
    check_listing(endless("text/plain", "1234"));
}

#[test]
fn listing_by_git_is_a_bomb_is_ended_at_the_memory_limit() {
    let content_type = ADVERTISEMENT.to_owned();
    check_listing(Fault::Bomb { status: 200, content_type, mib: 200 });
    check_listing(Fault::Bomb { status: 404, content_type: "text/plain".to_owned(), mib: 200 });
}

#[test]
fn fetch_listing_is_endless_is_ended_at_the_memory_limit() {
    let http = SmartHttp::new();
    let url = http.serve("bad.git", &GitRepo::program(&["1"]));
    for (prefix, fault) in
        [("bad.git/info", endless(ADVERTISEMENT, "ea60")), ("bad.git/git-upload-pack", refs_without_end())]
    {
        http.clear_faults();
        http.fault_for_git(prefix, fault);
        let peak = check(&Recipe::program("bad", &url), "build failed", MEMORY);
        assert!(peak.memory < 64 << 20, "{}", peak.memory);
    }
}

/// An endless answer to the second request of a listing, all of whose refs are tags.
fn refs_without_end() -> Fault {
    let one = |n| format!("004a{n:040x} refs/tags/v{n:017}\n").into_bytes();
    Fault::Endless { content_type: RESULT.to_owned(), block: (0..500).flat_map(one).collect() }
}

#[test]
fn fetch_pack_claims_a_billion_objects_is_ended_at_the_memory_limit() {
    let http = SmartHttp::new();
    let url = http.serve("bad.git", &GitRepo::program(&["1"]));
    http.fault("bad.git", Fault::EndlessPack { objects: 1 << 30 });
    check(&Recipe::program("bad", &url), "build failed", MEMORY);
}

#[test]
fn fetch_pack_is_endless_is_ended_at_the_source_limit() {
    let http = SmartHttp::new();
    let url = http.serve("bad.git", &GitRepo::program(&["1"]));
    http.fault("bad.git", Fault::EndlessPack { objects: 100_000 });
    let peak = check(&Recipe::program("bad", &url), "build failed", DISK);
    assert!(peak.disk < 4 << 20, "{}", peak.disk);
}

#[test]
fn source_expands_is_ended_at_the_source_limit() {
    let zeros = GitRepo::new();
    zeros.write("zeros", &vec![0; 32 << 20]);
    let commit = zeros.commit(&[], DAY);
    zeros.tag_light("v1");

    let many = GitRepo::new();
    many.commit(&[("0", "")], DAY);
    // Each level has ten times the entries of the one below: ten thousand empty files.
    let mut object = many.git(&["rev-parse", "HEAD:0"]);
    let mut kind = "100644,";
    for _ in 0..4 {
        many.git(&["read-tree", "--empty"]);
        for number in 0..10 {
            if kind == "100644," {
                many.git(&["update-index", "--add", "--cacheinfo", &format!("{kind}{object},{number}")]);
            } else {
                many.git(&["read-tree", &format!("--prefix={number}/"), &object]);
            }
        }
        object = many.git(&["write-tree"]);
        kind = "tree";
    }
    let tip = many.git(&["commit-tree", "-m", "many", &object]);
    many.git(&["update-ref", "refs/tags/v1", &tip]);

    let http = SmartHttp::new();
    let siblings = tempfile::tempdir().unwrap();
    let outer = GitRepo::in_dir(siblings.path(), "outer.git");
    let zeros_url = http.serve("zeros.git", &zeros);
    outer.add_submodule("sub", "../zeros.git", &commit);
    outer.commit(&[("content", "")], DAY);
    outer.tag_light("v1");
    let outer_url = http.serve("outer.git", &outer);

    for bad in [
        Recipe::program("bad", &zeros_url),
        Recipe::program("bad", &http.serve("many.git", &many)),
        Recipe::program("bad", &outer_url).upstream("submodules = true"),
    ] {
        let peak = check(&bad, "build failed", DISK);
        assert!(peak.disk < 24 << 20, "{}", peak.disk);
    }
}

#[test]
fn pack_larger_than_the_memory_limit_is_fetched() {
    let repo = GitRepo::new();
    let mut random = Random::new(7);
    for number in 0..12 {
        let noise: Vec<u8> = (0..1 << 18).flat_map(|_| random.number().to_le_bytes()).collect();
        repo.write(&format!("noise{number}"), &noise);
    }
    repo.commit(&[("program.sh", "#!/bin/sh\n"), ("README", "")], DAY);
    repo.tag_light("v1");
    let http = SmartHttp::new();
    let limits = "[git]\nmemory_limit = \"16MiB\"\nsource_limit = \"200MiB\"\n";
    for url in [http.serve("large.git", &repo), repo.file_url()] {
        let farm = Farm::builder().with(&Recipe::program("large", &url)).config_extra(limits).build();
        let output = farm.once();
        output.assert_success().assert_only_events();
        assert_eq!(farm.published(), ["large 1-1 noarch"], "{output}");
        farm.assert_clean();
    }
}

#[test]
fn content_of_git_lfs_is_fetched_within_the_memory_limit_and_ended_at_the_source_limit() {
    if !require("git-lfs") {
        return;
    }
    let repo = GitRepo::new();
    repo.write(".gitattributes", b"/content filter=lfs -text\n");
    repo.write_lfs("content", &"x".repeat(16 << 20));
    repo.commit(&[("program.sh", "#!/bin/sh\n"), ("README", "")], DAY);
    repo.tag_light("v1");
    let http = SmartHttp::new();
    for url in [http.serve("large.git", &repo), repo.file_url()] {
        for (source_limit, error) in [("64MiB", None), ("4MiB", Some("source_limit = 4MiB allows"))] {
            let limits = format!("[git]\nmemory_limit = \"192MiB\"\nsource_limit = \"{source_limit}\"\n");
            let farm = Farm::builder().with(&Recipe::program("large", &url)).config_extra(&limits).build();
            let output = farm.once();
            output.assert_success().assert_only_events();
            match error {
                None => assert_eq!(farm.published(), ["large 1-1 noarch"], "{output}"),
                Some(error) => assert!(output.event("build failed")["error"].contains(error), "{output}"),
            }
            farm.assert_clean();
        }
    }
}
