//! A long archive index: how often a publish reads it, how the manager judges a publish into it, and how the
//! journal keeps it.
//!
//! Counts bytes, not time: the system counts what each thread reads.

use std::fs;
use std::path::Path;
use std::process::Command;

use peipkg_tools::signature::{Envelope, load_key};
use rustix::process::Signal;

use crate::broken_disk::sweep_in;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::optional::{not_permitted, require};
use crate::support::recipes::Recipe;
use crate::support::running::Output;
use crate::support::wait::PATIENCE;

/// How many packages [`fill`] adds, and how many dependencies each has: more than a megabyte together.
const PACKAGES: usize = 400;
const DEPENDENCIES: usize = 100;

const INDEXES: [&str; 2] = ["index/archive.json", "index/active.json"];

/// Makes both indexes of the repository at `repo` long, and signs them with the key at `key`. The packages
/// are on another server. A relation of each has the fields of `tool 1.1-1`, as other tools may write it.
pub(crate) fn fill(repo: &Path, key: &Path) {
    // In the form of the tools, with the fields in their order.
    let dependencies: Vec<String> =
        (0..DEPENDENCIES).map(|number| format!(r#"{{"name":"dependency-{number:04}"}}"#)).collect();
    let dependencies = dependencies.join(",");
    let entry = |number: usize| {
        let (name, build) =
            (format!("filler-{number:04}"), r#"{"timestamp":"2026-01-01T00:00:00Z","farm_id":"f"}"#);
        format!(
            r#"{{"name":"{name}","version":"1-1","architecture":"noarch","description":"One of many",
"license":"MIT","homepage":"","dependencies":[{dependencies}],"optional_dependencies":[],"conflicts":[],
"provides":[{{"name":"tool","version":"1.1-1","architecture":"noarch"}}],"replaces":[],"side_effects":[],
"size_compressed":1,"size_installed":1,"hash":{{"algorithm":"sha256","value":"{number:064x}"}},
"url":"https://example.org/{name}_1-1_noarch.peipkg","build":{build}}}"#
        )
        .replace('\n', "")
    };
    let entries = (0..PACKAGES).map(entry).collect::<Vec<_>>().join(",");
    rewrite_indexes(repo, key, |head, rest| {
        let comma = if rest.starts_with(']') { "" } else { "," };
        let index = format!("{head}{entries}{comma}{rest}");
        assert!(index.len() > 1024 * 1024, "{}", index.len());
        index
    });
}

/// Rewrites both indexes of the repository at `repo`, and signs them with the key at `key`. `join` gets the
/// text before the entries, and the text from the first entry on.
fn rewrite_indexes(repo: &Path, key: &Path, join: impl Fn(&str, &str) -> String) {
    let key = load_key(key).unwrap();
    for name in INDEXES {
        let path = repo.join(name);
        let index = fs::read_to_string(&path).unwrap();
        let (head, _) = index.split_once("\"packages\":[").unwrap();
        let (head, rest) = index.split_at(head.len() + "\"packages\":[".len());
        let index = join(head, rest);
        let signature = Envelope::sign_bytes(&key, index.as_bytes()).to_json();
        fs::write(path.with_extension("json.sig"), signature).unwrap();
        fs::write(path, index).unwrap();
    }
}

/// A farm whose repository has `tool 1.0-1` and long indexes. `tool 1.1` waits to be built.
fn long_farm(peipkg_repo: &str) -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", peipkg_repo).build();
    farm.once().assert_success();
    fill(&farm.repo_dir(), &farm.key_path());
    repo.add_versions(&["1.1"]);
    (farm, repo)
}

#[track_caller]
fn assert_whole(farm: &Farm, output: &Output) {
    output.assert_success().assert_only_events();
    let published = farm.published();
    assert_eq!(published.len(), PACKAGES + 2, "{output}");
    assert!(published.contains(&"tool 1.1-1 noarch".to_owned()), "{output}");
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn relation_that_looks_like_an_entry_is_none() {
    let (farm, _repo) = long_farm("#!/bin/sh\nexec {real} \"$@\"\n");
    let output = farm.once();
    output.event("build + publish complete");
    assert_whole(&farm, &output);
}

#[test]
fn zeros_within_a_long_index_are_noticed_in_spite_of_exit_status_0() {
    const ZEROS: &str = "#!/bin/sh
{real} \"$@\" || exit
[ \"$1\" = publish ] && [ -e \"$HOME/damage\" ] || exit 0
dd if=/dev/zero of=\"$HOME/state/repo/index/archive.json\" bs=4096 seek=20 count=1 conv=notrunc 2>&1
";
    let (farm, _repo) = long_farm(ZEROS);
    let index = farm.repo_dir().join("index/archive.json");
    let before = fs::read(&index).unwrap();
    fs::write(farm.path("damage"), "").unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events().event("publish was cut short, repository restored");
    let error = &output.event("publish failed")["error"];
    assert!(error.contains("exited with status 0, but ") && error.contains("archive.json: "), "{output}");
    assert!(fs::read(&index).unwrap() == before, "{output}");
    farm.assert_verifies();
    fs::remove_file(farm.path("damage")).unwrap();
    let output = farm.once();
    assert!(output.events("starting build").is_empty(), "{output}");
    assert_whole(&farm, &output);
}

/// The bytes that the threads of process `pid` have read, without those of its ended children. `None`
/// if the system does not count them.
fn bytes_read(pid: i32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let of_thread = |thread: &Path| {
        let counts = fs::read_to_string(thread.join("io")).ok()?;
        counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok())
    };
    threads.map(|thread| of_thread(&thread.path())).sum()
}

#[test]
fn publish_reads_each_index_at_most_once() {
    let small = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &small.file_url())).build();
    farm.once().assert_success();
    fill(&farm.repo_dir(), &farm.key_path());
    let mut daemon = farm.daemon();
    daemon.wait_event("poll complete", PATIENCE);
    let Some(before) = bytes_read(daemon.pid()) else {
        not_permitted("/proc/<pid>/task/<tid>/io");
        return;
    };
    let length = |name: &str| fs::metadata(farm.repo_dir().join(name)).unwrap().len();
    let (archive, active) = (length("index/archive.json"), length("index/active.json"));
    small.add_versions(&["1.1"]);
    daemon.signal(Signal::HUP);
    daemon.wait_event("build + publish complete", PATIENCE);
    let read = bytes_read(daemon.pid()).unwrap() - before;
    // The kernel copies both old indexes for the journal, and the manager reads the new archive index.
    let most = archive + active + length("index/archive.json");
    println!("the manager read {read} bytes of {most}");
    assert!(read * 10 < most * 11, "the manager read {read} bytes, expected {most}");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success();
    farm.assert_verifies();
}

/// A `peipkg-repo` whose publish does what the file `fault` says.
const FAULTY: &str = "#!/bin/sh
[ \"$1\" = publish ] || exec {real} \"$@\"
case $(cat \"$HOME/fault\" 2>&1) in
refuse) exit 1 ;;
cut) printf 'half a new index' | dd of=\"$HOME/state/repo/index/archive.json\" conv=notrunc 2>&1; exit 1 ;;
esac
exec {real} \"$@\"
";

#[test]
fn undo_needs_less_memory_than_an_index_is_long() {
    // In KiB: not as much as both indexes together.
    const LIMITED: &str = "ulimit -d 65536; exec \"$@\"";
    let (farm, _repo) = long_farm(FAULTY);
    let fault = |fault: &str| fs::write(farm.path("fault"), fault).unwrap();
    let padding = format!("}},{}{{\"name\":\"filler", " ".repeat(96 * 1024));
    rewrite_indexes(&farm.repo_dir(), &farm.key_path(), |head, rest| {
        let index = format!("{head}{}", rest.replace("},{\"name\":\"filler", &padding));
        assert!(index.len() > 32 * 1024 * 1024, "{}", index.len());
        index
    });
    let indexes = || INDEXES.map(|name| fs::read(farm.repo_dir().join(name)).unwrap());
    let before = indexes();
    for (name, is_undone) in [("refuse", false), ("cut", true)] {
        fault(name);
        let output = sweep_in(&farm, LIMITED);
        output.assert_success().assert_only_events().event("publish failed");
        let undone = output.events("publish was cut short, repository restored");
        assert_eq!(undone.len(), usize::from(is_undone), "{output}");
        assert!(indexes() == before, "{output}");
    }
    fault("none");
    let output = sweep_in(&farm, LIMITED);
    output.event("build + publish complete");
    assert_whole(&farm, &output);
}

/// A `peipkg-repo` that first writes half an index in place and kills its manager, and afterwards
/// publishes. It records the journal's files, and how many names the index has.
const WRITES_IN_PLACE: &str = "#!/bin/sh
[ \"$1\" = publish ] && [ -e \"$HOME/die\" ] || exec {real} \"$@\"
rm \"$HOME/die\"
cd \"$HOME/state\" || exit
for kind in archive active; do
    echo $(stat -c '%h' repo/index/$kind.json)
    cmp repo/index/$kind.json journal.$kind.json && echo copied
    filefrag -v journal.$kind.json 2>&1 | grep -q shared && echo shared
done >\"$HOME/seen\"
[ $(wc -c <journal) -lt 100000 ] && echo short >>\"$HOME/seen\"
printf 'half a new index' | dd of=repo/index/archive.json conv=notrunc 2>&1
kill -9 \"$PPID\"
";

/// A farm without a repository, and its upstream.
fn farm_that_writes_in_place() -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    (Farm::builder().program("peipkg-repo", WRITES_IN_PLACE).build(), repo)
}

/// Kills the manager of `farm` in a publish into long indexes, and lets the next one undo it. Each runs
/// after `mount`, a line of shell in a mount namespace. Returns what the tool has seen of the journal.
fn seen_of_the_journal(farm: &Farm, repo: &GitRepo, mount: &str) -> String {
    let run = |script: &str| {
        fs::write(farm.path("script"), format!("{mount}\n{script}")).unwrap();
        let enter =
            if mount.is_empty() { "exec sh script \"$@\"" } else { "exec unshare -m sh script \"$@\"" };
        sweep_in(farm, enter)
    };
    run("\"$@\" && cp -a state/repo filled").assert_success();
    fill(&farm.path("filled"), &farm.key_path());
    farm.add(&Recipe::program("tool", &repo.file_url()));
    fs::write(farm.path("die"), "").unwrap();
    let output =
        run("cp filled/index/* state/repo/index && sync -f state\n\"$@\" 2>first.log\n\"$@\" || exit
ls state\npeipkg-repo verify --repo state/repo --mode metadata >&2");
    assert_eq!(
        output.stdout, "lock\nlogs\npublish\npublished-commits\nrepo\nsources\nstage\ntool-lock\n",
        "{output}"
    );
    output.event("publish was cut short, repository restored");
    assert_eq!(output.event("build + publish complete")["recipe"], "tool", "{output}");
    assert!(output.events("starting build").is_empty(), "{output}");
    fs::read_to_string(farm.path("seen")).unwrap()
}

#[test]
fn journal_has_copies_of_both_indexes() {
    let (farm, repo) = farm_that_writes_in_place();
    let seen = seen_of_the_journal(&farm, &repo, "");
    // The file system of the temporary directory may share blocks.
    assert_eq!(seen.replace("shared\n", ""), "1\ncopied\n1\ncopied\nshort\n");
}

#[test]
fn copies_share_blocks_where_the_file_system_can() {
    let (farm, repo) = farm_that_writes_in_place();
    let (state, image) = (farm.state_dir(), farm.path("image"));
    fs::create_dir(&state).unwrap();
    let make = format!("truncate -s 256M '{0}' && mkfs.btrfs -q '{0}'", image.display());
    let mount = format!("mount -o loop '{}' '{}' || exit 9", image.display(), state.display());
    let probe = format!("{make} && exec unshare -m sh -c \"{mount}\"");
    let can_mount = Command::new("sh").args(["-c", &probe]).output();
    if !can_mount.is_ok_and(|output| output.status.success()) {
        not_permitted("mkfs.btrfs and loop devices");
        return;
    }
    if require("filefrag") {
        let seen = seen_of_the_journal(&farm, &repo, &mount);
        assert_eq!(seen, "1\ncopied\nshared\n1\ncopied\nshared\nshort\n");
    }
}
