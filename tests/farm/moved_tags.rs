//! Tags of published versions that move, with real git.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::get;
use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::smart_http::SmartHttp;
use crate::support::static_files::StaticFiles;
use crate::support::wait::PATIENCE;

const MOVED: &str = "published tag moved";
const DAY: &str = "2026-02-01T00:00:00Z";

/// Runs a sweep that builds `builds` versions.
#[track_caller]
fn sweep(farm: &Farm, builds: usize) -> Output {
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.events("build + publish complete").len(), builds, "{output}");
    output
}

/// Checks that a sweep builds nothing and warns of each `recipe version tag published listed`.
#[track_caller]
fn check_moved(farm: &Farm, expected: &[[&str; 5]]) {
    let output = sweep(farm, 0);
    let keys = ["recipe", "version", "tag", "published_commit", "listed_commit"];
    let found: Vec<_> = output.events(MOVED).iter().map(|event| keys.map(|key| event[key].clone())).collect();
    assert_eq!(found, expected, "{output}");
}

/// The lines of the file that remembers commits, sorted.
fn remembered(farm: &Farm) -> Vec<String> {
    let text = fs::read_to_string(farm.path("state/published-commits")).unwrap();
    let mut lines: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Makes `tag` an annotated one of the current commit, whatever it was.
fn annotate(repo: &GitRepo, tag: &str, message: &str) {
    repo.git(&["tag", "--force", "--annotate", "--message", message, "--", tag]);
}

#[test]
fn published_tag_moved_is_told_by_each_sweep_and_builds_nothing() {
    for format in ["sha1", "sha256"] {
        let repo = if format == "sha1" { GitRepo::new() } else { GitRepo::sha256() };
        repo.add_versions(&["1", "2"]);
        let (first, second) = (repo.git(&["rev-parse", "v1"]), repo.head());
        annotate(&repo, "v2", "two");
        repo.git(&["update-server-info"]);
        let (http, files) = (SmartHttp::new(), StaticFiles::serve(&repo.git_dir(), "/dumb.git/"));
        let dumb = files.url();
        let urls = [repo.file_url(), http.serve("smart.git", &repo), dumb.trim_end_matches('/').to_owned()];
        let ids = ["file", "smart", "dumb"];
        let mut farm = Farm::builder();
        for (id, url) in ids.iter().zip(&urls) {
            farm = farm.with(&Recipe::program(id, url));
        }
        let farm = farm.build();
        sweep(&farm, 6);
        let built = |id: &str| [format!("{id} 1-1 {first}"), format!("{id} 2-1 {second}")];
        let mut expected: Vec<String> = ids.iter().flat_map(|id| built(id)).collect();
        expected.sort();
        assert_eq!(remembered(&farm), expected);
        // Tags that are annotated, made again or packed lead to the same commits.
        annotate(&repo, "v2", "two again");
        repo.git(&["tag", "--force", "--annotate", "--message", "one", "v1", &first]);
        repo.git(&["pack-refs", "--all"]);
        repo.git(&["update-server-info"]);
        check_moved(&farm, &[]);
        let third = repo.commit(&[("README", "other")], DAY);
        repo.tag_light("v1");
        annotate(&repo, "v2", "two moved");
        repo.git(&["update-server-info"]);
        let requests = http.requests().len();
        let mut expected = Vec::new();
        for id in ["dumb", "file", "smart"] {
            expected.push([id, "1-1", "v1", &first, &third]);
            expected.push([id, "2-1", "v2", &second, &third]);
        }
        for _ in 0..2 {
            let output = sweep(&farm, 0);
            let keys = ["recipe", "version", "tag", "published_commit", "listed_commit"];
            let events = output.events(MOVED);
            let mut found: Vec<_> = events.iter().map(|event| keys.map(|key| event[key].clone())).collect();
            found.sort();
            assert_eq!(found, expected, "{output}");
        }
        let of_listing = if format == "sha1" { 1 } else { 3 };
        assert_eq!(http.requests().len() - requests, 2 * of_listing, "no further request");
        let plan = farm.run(&["--plan"]);
        let reason = format!("tag v1 moved: commit {first} is published, the tag is now at {third}");
        let line = format!("recipe=file plan=published version=1-1 tag=v1 reason=\"{reason}\"");
        assert!(plan.assert_success().stdout.lines().any(|other| other == line), "{plan}");
        repo.git(&["tag", "--force", "v1", &first]);
        repo.git(&["tag", "--force", "v2", &second]);
        repo.git(&["update-server-info"]);
        check_moved(&farm, &[]);
    }
}

#[test]
fn tag_that_moves_during_its_build_is_told_by_the_next_listing() {
    let repo = GitRepo::program(&["1"]);
    let built = repo.head();
    let moving = repo.commit(&[("README", "other")], DAY);
    let script = format!("git -C {} tag --force v1 {moving} >&2", repo.path().display());
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url()).before_build(&script)).build();
    sweep(&farm, 1);
    assert_eq!(remembered(&farm), [format!("tool 1-1 {built}")]);
    check_moved(&farm, &[["tool", "1-1", "v1", &built, &moving]]);
}

#[test]
fn tag_that_moves_before_its_fetch_is_remembered_as_fetched() {
    let repo = GitRepo::program(&["1"]);
    let listed = repo.head();
    let fetched = repo.commit(&[("README", "other")], DAY);
    let git_dir = repo.git_dir();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *\" fetch \"*) {{real}} --git-dir={} tag --force v1 {fetched} >&2 ;; esac\n\
         exec {{real}} \"$@\"\n",
        git_dir.display()
    );
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).program("git", &script);
    let farm = farm.build();
    sweep(&farm, 1);
    assert_eq!(remembered(&farm), [format!("tool 1-1 {fetched}")]);
    check_moved(&farm, &[]);
    repo.git(&["tag", "--force", "v1", &listed]);
    check_moved(&farm, &[["tool", "1-1", "v1", &fetched, &listed]]);
}

#[test]
fn daemon_shows_a_moved_tag_until_it_points_back_and_notifies() {
    let repo = GitRepo::program(&["1"]);
    let (first, url) = (repo.head(), repo.file_url());
    let script = "#!/bin/sh\ncat >> \"$(dirname \"$0\")/../told\"\n";
    let farm = Farm::builder().with(&Recipe::program("tool", &url)).http().program("tell", script);
    let farm = farm.config_extra("[notify]\ncommand = [\"tell\"]\n").build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let text = |path: &str| get(addr, path).text();
    daemon.wait_event("build + publish complete", PATIENCE);
    let second = repo.commit(&[("README", "other")], DAY);
    repo.tag_light("v1");
    let mut completed = 1;
    let mut poll = |daemon: &mut Running| {
        completed += 1;
        daemon.signal(Signal::HUP);
        daemon.wait_events("poll complete", completed, PATIENCE);
    };
    for _ in 0..2 {
        poll(&mut daemon);
        let status: Value = serde_json::from_str(&text("/status")).unwrap();
        let detail = format!("tag v1 moved: commit {first} is published, the tag is now at {second}");
        let warning = serde_json::json!(
            {"event": MOVED, "recipe": "tool", "subject": "1-1", "detail": detail}
        );
        assert_eq!(status["warnings"], serde_json::json!([warning]));
        assert!(text("/").contains(MOVED));
        assert!(text("/metrics").contains(MOVED));
    }
    repo.git(&["tag", "--force", "v1", &first]);
    poll(&mut daemon);
    let status: Value = serde_json::from_str(&text("/status")).unwrap();
    assert_eq!(status["warnings"], serde_json::json!([]));
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    assert_eq!(output.event(MOVED)["level"], "warn", "{output}");
    assert_eq!(output.event("published tag points back")["level"], "info", "{output}");
    let told = fs::read_to_string(farm.path("told")).unwrap();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = told.iter().map(|one| (one["event"].as_str().unwrap(), &one["version"])).collect();
    let version = Value::from("1-1");
    assert_eq!(events, ["published", "tag_moved", "tag_moved_back"].map(|event| (event, &version)));
}

#[test]
fn commits_lost_are_believed_as_listed_and_damaged_lines_are_dropped() {
    let repo = GitRepo::program(&["1", "2"]);
    let (first, second) = (repo.git(&["rev-parse", "v1"]), repo.head());
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    sweep(&farm, 2);
    let path = farm.path("state/published-commits");
    let whole = [format!("tool 1-1 {first}"), format!("tool 2-1 {second}")];
    assert_eq!(remembered(&farm), whole);
    fs::remove_file(&path).unwrap();
    check_moved(&farm, &[]);
    assert_eq!(remembered(&farm), whole);
    for damage in ["x\n".to_owned(), format!("tool 2-1 {}", &second[1..])] {
        fs::write(&path, format!("{}\n{damage}", whole[0])).unwrap();
        let output = sweep(&farm, 0);
        assert_eq!(output.events("cannot read published commits").len(), 1, "{output}");
        assert_eq!(remembered(&farm), whole);
        check_moved(&farm, &[]);
    }
    // The good lines of a damaged file count more than provenance.
    let other = "1".repeat(40);
    fs::write(&path, format!("tool 1-1 {other}\nx\n")).unwrap();
    check_moved(&farm, &[["tool", "1-1", "v1", &other, &first]]);
    fs::write(&path, whole.join("\n")).unwrap();
    let moved = repo.commit(&[("README", "other")], DAY);
    repo.tag_light("v2");
    check_moved(&farm, &[["tool", "2-1", "v2", &second, &moved]]);
    // A higher revision is built from the tag as it is.
    farm.add(&Recipe::program("tool", &repo.file_url()).upstream("peios_revision = 2"));
    sweep(&farm, 2);
    check_moved(&farm, &[]);
    assert_eq!(remembered(&farm)[3], format!("tool 2-2 {moved}"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let output = sweep(&farm, 0);
    assert!(!output.events("cannot read published commits").is_empty(), "{output}");
    assert!(!output.events("cannot remember published commits").is_empty(), "{output}");
}

/// Writes the provenance of a published package, as if it was built from `commit`, with the digest of the
/// package of version `digest_of`. The key in `key` signs it.
fn write_provenance(farm: &Farm, [version, digest_of]: [&str; 2], file: &str, commit: &str, key: &Path) {
    use peipkg_format::provenance as form;
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&fs::read(key).unwrap()).unwrap();
    let sign = |message: &[u8]| pair.sign(message).as_ref().to_vec();
    let directory = farm.repo_dir().join("p/tool").join(version);
    let package = format!("tool_{version}_noarch.peipkg");
    let other = directory.with_file_name(digest_of).join(format!("tool_{digest_of}_noarch.peipkg"));
    let sha256 = sha256_of(&other);
    let subject = vec![form::Subject { name: package, digest: form::Sha256 { sha256 } }];
    let digest = form::Digests { git_commit: commit.to_owned(), ..form::Digests::default() };
    let source = form::Dependency { name: form::SOURCE.to_owned(), digest, ..form::Dependency::default() };
    let parameters = form::ExternalParameters {
        source: "git+file:///x".to_owned(),
        tag: "v1".to_owned(),
        recipe: "tool".to_owned(),
        version: version.to_owned(),
        submodules: false,
        export_version: false,
    };
    let builder = form::Builder { id: form::builder_id("f"), version: form::Versions::default() };
    let run = form::RunDetails { builder, metadata: form::Metadata::default() };
    let keys = form::InternalParameters::default();
    let statement = form::Statement::new(subject, parameters, keys, vec![source], run);
    fs::write(directory.join(file), statement.write(String::new(), &sign)).unwrap();
}

/// The SHA-256 of a file, by `sha256sum`.
fn sha256_of(path: &Path) -> String {
    let output = run(Command::new("sha256sum").arg(path));
    output.split(' ').next().expect("a digest").to_owned()
}

#[test]
fn commits_lost_are_those_of_the_provenance_beside_the_packages() {
    let repo = GitRepo::program(&["1", "2", "3"]);
    let commit = |tag: &str| repo.git(&["rev-parse", tag]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    sweep(&farm, 3);
    let (other, third) = ("1".repeat(40), commit("v3"));
    let (key, stranger) = (farm.key_path(), farm.path("stranger.key"));
    fs::write(&stranger, [7; 32]).unwrap();
    write_provenance(&farm, ["1-1"; 2], "provenance.json", &other, &key);
    fs::remove_file(farm.repo_dir().join("p/tool/2-1/provenance.json")).unwrap();
    write_provenance(&farm, ["2-1"; 2], "tool_2-1_noarch.peipkg.provenance.json", &other, &key);
    // The provenance of other bytes says nothing of these, and a stranger's says nothing.
    write_provenance(&farm, ["3-1", "2-1"], "provenance.json", &other, &key);
    write_provenance(&farm, ["3-1"; 2], "tool_3-1_noarch.peipkg.provenance.json", &other, &stranger);
    check_moved(&farm, &[]);
    fs::remove_file(farm.path("state/published-commits")).unwrap();
    let moved = |version, tag| ["tool", version, tag, &other, &commit(tag)].map(str::to_owned);
    let output = sweep(&farm, 0);
    let keys = ["recipe", "version", "tag", "published_commit", "listed_commit"];
    let found: Vec<_> = output.events(MOVED).iter().map(|event| keys.map(|key| event[key].clone())).collect();
    assert_eq!(found, [moved("1-1", "v1"), moved("2-1", "v2")], "{output}");
    let expected = [format!("tool 1-1 {other}"), format!("tool 2-1 {other}"), format!("tool 3-1 {third}")];
    assert_eq!(remembered(&farm), expected);
}

#[test]
fn pending_version_keeps_its_commit_until_a_later_run_publishes_it() {
    let repo = GitRepo::program(&["1"]);
    let built = repo.head();
    let refuse = "#!/bin/sh\n[ \"$1\" = publish ] && exit 3\nexec {real} \"$@\"\n";
    let farm =
        Farm::builder().with(&Recipe::program("tool", &repo.file_url())).program("peipkg-repo", refuse);
    let farm = farm.build();
    let output = farm.once();
    assert_eq!(output.events("publish failed").len(), 1, "{output}");
    let job = fs::read_to_string(farm.path("state/publish").join(&farm.kept()[0]).join("job.json")).unwrap();
    let job: Value = serde_json::from_str(&job).unwrap();
    assert_eq!((&job["tag"], &job["commit"]), (&"v1".into(), &built.as_str().into()));
    let moved = repo.commit(&[("README", "other")], DAY);
    repo.tag_light("v1");
    farm.write_program("peipkg-repo", "#!/bin/sh\nexec {real} \"$@\"\n");
    farm.once().assert_success();
    farm.assert_published(&["tool 1-1 noarch"]);
    assert_eq!(remembered(&farm), [format!("tool 1-1 {built}")]);
    check_moved(&farm, &[["tool", "1-1", "v1", &built, &moved]]);
}
