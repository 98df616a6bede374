//! Publishes of groups, with a `peipkg-repo` in shell that signs nothing.

#[path = "../../tests/support/executable.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the process tests")]
mod executable;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use peipkg_format::package::PackageName;

use super::*;
use crate::build_log::BuildLog;
use crate::farm::events::{JobKey, PendingOutputs};
use crate::process::Interrupt;
use crate::recipe::secrets::Secrets;
use crate::repository::publish::PublishError;

/// Publishes each package of `$new` in its own step. Runs the files `before` and `after` beside it,
/// if there are any, around the steps. Adds each publish to the file `runs`.
const TOOL: &str = r#"#!/bin/sh
home=${0%/*} command=$1
while [ $# -gt 0 ]; do
    case $1 in --out) out=$2 ;; --new) new=$2 ;; --repo) repo=$2 ;; esac
    shift
done
write() {
    for kind in archive active; do
        echo "{\"kind\":\"archive\",\"index_version\":$1,\"packages\":[$2]}" >"$out/index/$kind.json"
    done
}
step() {
    id=${1##*/} id=${id%.peipkg}
    rest=${id#*_} version=$(sed 's/.*"index_version":\([0-9]*\).*/\1/' "$out/index/archive.json")
    old=$(sed 's/.*"packages":\[\(.*\)\]}/\1/' "$out/index/archive.json")
    identity="\"name\":\"${id%%_*}\",\"version\":\"${rest%_*}\",\"architecture\":\"${id##*_}\""
    case $old in *"$identity"*) echo "$id is already published" >&2; exit 1 ;; esac
    mkdir -p "$out/p/${id%%_*}/${rest%_*}"
    cp "$1" "$out/p/${id%%_*}/${rest%_*}"
    hash=$(sha256sum <"$1")
    write "$next" "${old:+$old,}{$identity,\"url\":\"/p/${id%%_*}/${rest%_*}/$id.peipkg\",\"hash\":{\"value\":\"${hash%% *}\"}}"
}
case $command in
    verify) tail -c 3 "$repo/index/archive.json" | grep -q ']}' ;;
    init) mkdir -p "$out/index"; echo {} >"$out/repo.json"; echo {} >"$out/repo.json.sig"; write 1 ;;
    publish)
        ls "$new" | tr '\n' ' ' >>"$home/runs"
        echo >>"$home/runs"
        next=$(($(sed 's/.*"index_version":\([0-9]*\).*/\1/' "$out/index/archive.json") + 1))
        [ ! -e "$home/before" ] || . "$home/before"
        for file in "$new"/*; do step "$file"; done
        [ ! -e "$home/after" ] || . "$home/after" ;;
esac
"#;

struct Bench {
    home: tempfile::TempDir,
    repository: Repository,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().display();
        let config = format!(
            "[manager]\nid = \"f\"\nrecipes_dir = \"{at}/recipes\"\nstate_dir = \"{at}/state\"\n\
             [repo]\nname = \"r\"\n[signing]\nkey_file = \"{at}/key\"\n[poll]\ndefault_interval = \"1h\"\n"
        );
        let config = Arc::new(Config::parse("c.toml".as_ref(), &config).unwrap());
        let program = home.path().join("peipkg-repo");
        executable::write(&program, TOOL.as_bytes());
        let state = Arc::new(StateDir::open(&home.path().join("state")).unwrap());
        let repository = Repository::new(program, config, state);
        repository.prepare(&Interrupt::new().unwrap()).unwrap();
        repository.archive.read_if_changed().unwrap().unwrap();
        Self { home, repository }
    }

    /// Adds pending packages of these names, of a version of their own.
    fn pending(&self, version: &str, names: &[&str]) -> PendingOutputs {
        let key = JobKey { recipe: names[0].into(), version: version.parse().unwrap() };
        let name = |name: &&str| PackageName { name: (*name).into(), architecture: "noarch".into() };
        let packages: Vec<_> = names.iter().map(name).collect();
        let staged = self.repository.state.stage().join("staged");
        fs::create_dir_all(staged.join("packages")).unwrap();
        for package in &packages {
            let file_name = package.file_name(&key.version);
            fs::write(staged.join("packages").join(&file_name), file_name).unwrap();
        }
        self.repository.pending.add(&staged, &key, &packages, None).unwrap()
    }

    fn hook(&self, name: &str, script: &str) {
        fs::write(self.home.path().join(name), script).unwrap();
    }

    fn unhook(&self) {
        for name in ["before", "after"] {
            let _ = fs::remove_file(self.home.path().join(name));
        }
    }

    fn publish(&self, group: &[PendingOutputs]) -> Result<(), PublishError> {
        let (logs, version) = (self.repository.state.logs(), "1-1".parse().unwrap());
        let log = BuildLog::begin(&logs, "r", &version, "publish", Secrets::default());
        self.repository.publish(group, &Interrupt::new().unwrap(), &log)
    }

    /// Publishes `group` by a manager that dies before it has settled the publish.
    fn publish_and_die(&self, group: &[PendingOutputs]) {
        let journal = self.repository.state.journal();
        let copies = self.home.path().join("copies");
        fs::create_dir(&copies).unwrap();
        // The journal is several files.
        self.hook("before", &format!("cp '{}'* '{}'", journal.display(), copies.display()));
        self.publish(group).unwrap();
        for copy in fs::read_dir(&copies).unwrap().map(Result::unwrap) {
            fs::rename(copy.path(), journal.with_file_name(copy.file_name())).unwrap();
        }
        self.unhook();
    }

    fn index(&self) -> String {
        fs::read_to_string(self.repository.state.archive_index()).unwrap()
    }

    /// The package lists of the tool's publishes.
    fn runs(&self) -> Vec<String> {
        let runs = fs::read_to_string(self.home.path().join("runs")).unwrap_or_default();
        runs.lines().map(|run| run.trim().to_owned()).collect()
    }

    #[track_caller]
    fn assert_published(&self, names: &[&str]) {
        self.assert_published_after("", names);
    }

    #[track_caller]
    fn assert_published_after(&self, case: &str, names: &[&str]) {
        let index = self.index();
        let found: BTreeSet<_> = index.split("\"name\":\"").skip(1).map(|x| x.split('"').next()).collect();
        assert_eq!(found, names.iter().copied().map(Some).collect(), "{case}: {index}");
        assert!(!self.repository.is_unsettled());
        assert_eq!(fs::read_dir(self.repository.state.stage()).unwrap().count(), 0, "the stage is not empty");
    }
}

#[test]
fn group_is_published_by_one_run_and_counts_as_read() {
    let bench = Bench::new();
    let group = [
        bench.pending("1-1", &["aa", "aa-doc"]),
        bench.pending("2-1", &["aa"]),
        bench.pending("1-1", &["bb"]),
    ];
    bench.publish(&group).unwrap();
    assert_eq!(
        bench.runs(),
        ["aa-doc_1-1_noarch.peipkg aa_1-1_noarch.peipkg aa_2-1_noarch.peipkg bb_1-1_noarch.peipkg"]
    );
    bench.assert_published(&["aa", "aa-doc", "bb"]);
    assert!(bench.repository.archive.read_if_changed().is_none());
    for outputs in &group {
        let kept = bench.repository.pending.packages_of(&outputs.directory);
        assert!(fs::read_dir(kept).unwrap().all(|file| file.unwrap().metadata().unwrap().nlink() == 1));
    }
    bench.publish(&[]).unwrap();
    assert_eq!(bench.runs().len(), 1);
}

#[test]
fn group_with_members_gone_names_them_and_changes_nothing() {
    let bench = Bench::new();
    let group = ["aa", "bb", "cc"].map(|name| bench.pending("1-1", &[name]));
    let before = bench.index();
    bench.repository.pending.discard(&group[0]);
    bench.repository.pending.discard(&group[2]);
    let Err(PublishError::Gone(gone)) = bench.publish(&group) else { panic!("not gone") };
    assert_eq!(gone, [group[0].directory.clone(), group[2].directory.clone()]);
    assert!(bench.index() == before && bench.runs().is_empty());
    bench.publish(&group[1..2]).unwrap();
    bench.assert_published(&["bb"]);
}

#[test]
fn group_with_packages_alike_changes_nothing() {
    let bench = Bench::new();
    let group = [bench.pending("1-1", &["aa", "bb"]), bench.pending("1-1", &["cc", "bb"])];
    let error = bench.publish(&group).unwrap_err().to_string();
    assert!(error.starts_with("bb_1-1_noarch.peipkg is in aa@1-1.") && error.contains(" and in cc@1-1."));
    assert!(bench.runs().is_empty());
    bench.assert_published(&[]);
}

#[test]
fn group_refused_after_a_part_is_undone_whole() {
    let bench = Bench::new();
    let group = ["aa", "bb"].map(|name| bench.pending("1-1", &[name]));
    let before = bench.index();
    // The tool fails, or claims success.
    for end in ["echo no space left >&2; exit 1", "exit 0"] {
        bench.hook("before", &format!("step \"$new\"/aa_*; {end}"));
        let error = bench.publish(&group).unwrap_err().to_string();
        assert!(
            error.contains("no space left") || error.contains("bb_1-1_noarch.peipkg is not in"),
            "{error}"
        );
        assert_eq!(bench.index(), before);
        bench.assert_published(&[]);
    }
    bench.unhook();
    bench.publish(&group).unwrap();
    bench.assert_published(&["aa", "bb"]);
}

#[test]
fn group_published_with_other_content_is_undone() {
    let bench = Bench::new();
    let group = ["aa", "bb"].map(|name| bench.pending("1-1", &[name]));
    let before = bench.index();
    let other = "mkdir -p \"$home/x\"; cp \"$new\"/* \"$home/x\"; echo other >\"$home/x/bb_1-1_noarch.peipkg\"; new=$home/x";
    bench.hook("before", other);
    let error = bench.publish(&group).unwrap_err().to_string();
    assert!(error.contains("bb_1-1_noarch.peipkg is not the file that was built"), "{error}");
    assert_eq!(bench.index(), before);
    bench.assert_published(&[]);
}

#[test]
fn group_without_a_file_or_with_another_is_undone_after_a_crash() {
    for (is_emptied, damage) in [(false, None), (false, Some("half")), (true, None), (true, Some("half"))] {
        let bench = Bench::new();
        let group = ["aa", "bb"].map(|name| bench.pending("1-1", &[name]));
        let before = bench.index();
        bench.publish_and_die(&group);
        let package = bench.repository.state.repo().join("p/bb/1-1/bb_1-1_noarch.peipkg");
        match damage {
            Some(half) => fs::write(package, half).unwrap(),
            None => fs::remove_file(package).unwrap(),
        }
        for outputs in group.iter().filter(|_| is_emptied) {
            bench.repository.pending.discard(outputs);
        }
        bench.repository.prepare(&Interrupt::new().unwrap()).unwrap();
        assert_eq!(bench.index(), before);
        bench.assert_published(&[]);
    }
}

#[test]
fn group_done_by_a_tool_that_fails_counts() {
    let bench = Bench::new();
    let group = ["aa", "bb"].map(|name| bench.pending("1-1", &[name]));
    bench.hook("after", "exit 1");
    bench.publish(&group).unwrap();
    bench.assert_published(&["aa", "bb"]);
}

#[test]
fn group_published_already_is_no_error() {
    let bench = Bench::new();
    let group = ["aa", "bb"].map(|name| bench.pending("1-1", &[name]));
    bench.publish(&group).unwrap();
    let before = bench.index();
    bench.publish(&group[..1]).unwrap();
    bench.publish(&group).unwrap();
    assert_eq!(bench.index(), before);
    // But only to the byte.
    let kept = bench.repository.pending.packages_of(&group[0].directory);
    fs::write(kept.join("aa_1-1_noarch.peipkg"), "other").unwrap();
    assert!(bench.publish(&group[..1]).unwrap_err().to_string().contains("is already published"));
    assert_eq!(bench.index(), before);
}

#[test]
fn group_whole_after_a_crash_is_not_published_again() {
    let bench = Bench::new();
    let group = ["aa", "bb", "cc"].map(|name| bench.pending("1-1", &[name]));
    bench.publish_and_die(&group[..2]);
    // The next publish has members of the old group, and a new one.
    bench.publish(&group[1..]).unwrap();
    assert_eq!(bench.runs().len(), 2);
    assert_eq!(bench.runs()[1], "cc_1-1_noarch.peipkg");
    bench.assert_published(&["aa", "bb", "cc"]);
}

/// A name, what became of the index, and which packages are left after the next start.
type Case<'a> = (&'a str, &'a dyn Fn(&str) -> String, &'a [&'a str]);

#[test]
fn group_cut_short_is_settled_for_each_version() {
    let cases: [Case; 5] = [
        ("whole", &str::to_owned, &["aa", "aa-doc", "bb"]),
        ("one version only", &|index| without(index, "bb"), &["aa", "aa-doc"]),
        ("a version in part", &|index| without(index, "aa-doc"), &[]),
        ("another version only", &|index| without(&without(index, "aa"), "aa-doc"), &["bb"]),
        ("none", &|index| without(&without(&without(index, "aa"), "aa-doc"), "bb"), &[]),
    ];
    for (case, change, expected) in cases {
        for is_emptied in [false, true] {
            let bench = Bench::new();
            let group = [bench.pending("1-1", &["aa", "aa-doc"]), bench.pending("1-1", &["bb"])];
            bench.publish_and_die(&group);
            let index = change(&bench.index());
            for name in journal::INDEXES {
                fs::write(bench.repository.state.repo().join(name), &index).unwrap();
            }
            if is_emptied {
                for outputs in &group {
                    bench.repository.pending.discard(outputs);
                }
            }
            bench.repository.prepare(&Interrupt::new().unwrap()).unwrap();
            bench.assert_published_after(case, expected);
            if !is_emptied {
                // All is published in the end, in one run or one by one.
                if bench.publish(&group).is_err() {
                    for one in &group {
                        bench.publish(std::slice::from_ref(one)).unwrap();
                    }
                }
                bench.assert_published(&["aa", "aa-doc", "bb"]);
            }
        }
    }
}

/// Removes the entry of `name` from `index`.
fn without(index: &str, name: &str) -> String {
    let start = index.find(&format!("{{\"name\":\"{name}\"")).unwrap();
    let end = start + index[start..].find("}}").unwrap() + 2;
    let rest = format!("{}{}", &index[..start], &index[end..]);
    rest.replace(",,", ",").replace("[,", "[").replace(",]", "]")
}
