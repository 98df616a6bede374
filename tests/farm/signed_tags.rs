//! Tags that must be signed: real keys of ssh-keygen and gpg, and each way in which a signature does not
//! count.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::executable;
use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::Output;
use crate::support::signing_keys::Keys;
use crate::support::wait::PATIENCE;

/// Makes a repository with one commit and no tag.
pub(super) fn repo() -> GitRepo {
    let repo = GitRepo::program(&["0.1"]);
    repo.git(&["tag", "-d", "v0.1"]);
    repo
}

/// Writes the object of a tag, changed, under a name.
fn retag(repo: &GitRepo, from: &str, to: &str, change: impl FnOnce(String) -> String) {
    let object = change(repo.git(&["cat-file", "tag", from]) + "\n");
    repo.write("../object", object.as_bytes());
    let id = repo.git(&["hash-object", "--literally", "-t", "tag", "-w", "../object"]);
    repo.git(&["update-ref", &format!("refs/tags/{to}"), id.trim()]);
}

pub(super) fn recipe(repo: &GitRepo) -> Recipe {
    Recipe::program("tool", &repo.file_url()).upstream("signers = \"keys\"")
}

pub(super) fn write_signers(farm: &Farm, text: impl AsRef<[u8]>) {
    fs::write(farm.recipes_dir().join("tool/keys"), text).unwrap();
}

/// Checks the reasons of the skipped tags, in any order.
#[track_caller]
pub(super) fn assert_skipped(output: &Output, expected: &[(&str, &str)]) {
    let events = output.events("tag skipped");
    for (tag, part) in expected {
        let found: Vec<_> = events.iter().filter(|event| event["tag"] == *tag).collect();
        assert!(found.len() == 1 && found[0]["reason"].contains(part), "{tag}: {part}: {output}");
    }
    assert_eq!(events.len(), expected.len(), "{output}");
}

/// Runs a sweep in which nothing is new.
#[track_caller]
fn assert_remembered(farm: &Farm, count: usize) {
    let again = farm.once();
    again.assert_success();
    assert_eq!(again.events("starting build").len(), 0, "{again}");
    assert_eq!(again.events("tag skipped").len(), count, "{again}");
    let plan = farm.run(&["--plan"]);
    assert_eq!(plan.stdout.matches("plan=skip").count(), count, "{plan}");
}

#[test]
fn tag_without_good_signature_of_openssh_is_not_built() {
    if !require("ssh-keygen") || !require("gpg") {
        return;
    }
    let (keys, repo) = (Keys::new(), repo());
    let [alice, old, filer] = ["alice", "old", "filer"].map(|name| keys.openssh(name));
    keys.openssh("eve");
    keys.openpgp("carol", &[]);
    keys.tag(&repo, "alice", false, "v1.0");
    keys.tag(&repo, "eve", false, "v1.1");
    repo.tag_annotated("v1.2", "2026-03-01T00:00:00Z");
    repo.tag_light("v1.3");
    keys.tag(&repo, "filer", false, "v1.4");
    keys.tag(&repo, "carol", true, "v1.5");
    // A tag may claim the time at which its key was still valid.
    keys.tag(&repo, "old", false, "v1.6-then");
    retag(&repo, "v1.0", "v1.7", |text| text);
    retag(&repo, "v1.0", "v1.8", |text| text.replace("tag v1.0", "tag v1.8"));
    retag(&repo, "v1.0", "v1.9", |text| {
        text.split("-----BEGIN").next().unwrap().replace("v1.0", "v1.9")
            + "-----BEGIN SIGNED MESSAGE-----\nx\n"
    });
    // git fails without a word.
    retag(&repo, "v1.0", "v1.10", |text| {
        let text = text.replace("tag v1.0", "tag v1.10");
        text.split_inclusive('\n').filter(|line| !line.starts_with("tagger ")).collect()
    });
    let dated = keys.options("old", false);
    let mut dated: Vec<&str> = dated.iter().map(String::as_str).collect();
    dated.extend(["-c", "user.name=A", "-c", "user.email=a@example.com", "tag", "-s", "-m", "old", "v1.6"]);
    let mut git = crate::support::git_repo::git_command(repo.path());
    run(git.env("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z").args(&dated));
    repo.git(&["tag", "-d", "v1.6-then"]);
    // A signed commit of a light tag, and a tag of a tag.
    keys.sign(&repo, "alice", false, &["commit", "-q", "-S", "--allow-empty", "-m", "signed"]);
    repo.tag_light("v2.0");
    keys.sign(&repo, "alice", false, &["tag", "-s", "-m", "outer", "v2.1", "v1.2"]);
    let farm = Farm::builder().with(&recipe(&repo)).build();
    let text =
        format!("alice@x {alice}\nold@x valid-before=\"20210101\" {old}\nf@x namespaces=\"file\" {filer}\n");
    write_signers(&farm, text);
    let output = farm.once();
    output.assert_success().assert_only_events();
    let skipped = [
        ("v1.1", "signed by the key SHA256:"),
        ("v1.2", "it is not signed"),
        ("v1.3", "its commit is not signed"),
        ("v1.4", "may not sign for git"),
        ("v1.5", "signed with OpenPGP"),
        ("v1.6", "has expired"),
        ("v1.7", "is that of tag \"v1.0\""),
        ("v1.8", "does not fit"),
        ("v1.9", "signed with an X.509 certificate"),
        ("v1.10", "its date cannot be read"),
    ];
    assert_skipped(&output, &skipped);
    let published = ["tool 1.0-1 noarch", "tool 2.0-1 noarch", "tool 2.1-1 noarch"];
    farm.assert_published(&published);
    farm.assert_clean();
    assert_remembered(&farm, skipped.len());
    // Another file is another question.
    write_signers(&farm, format!("old@x {old}\n"));
    assert_eq!(farm.once().events("starting build").len(), skipped.len());
    farm.assert_published(&[
        "tool 1.0-1 noarch",
        "tool 1.6-1 noarch",
        "tool 2.0-1 noarch",
        "tool 2.1-1 noarch",
    ]);
}

#[test]
fn tag_without_good_signature_of_openpgp_is_not_built() {
    if !require("ssh-keygen") || !require("gpg") {
        return;
    }
    let (keys, repo) = (Keys::new(), repo());
    let carol = keys.openpgp("carol", &[]);
    keys.openpgp("dave", &[]);
    keys.openpgp("eve", &[]);
    keys.openssh("alice");
    keys.tag(&repo, "carol", true, "v1.0");
    keys.tag(&repo, "dave", true, "v1.1");
    keys.tag(&repo, "eve", true, "v1.2");
    keys.tag(&repo, "alice", false, "v1.3");
    retag(&repo, "v1.0", "v1.4", |text| text.replace("tag v1.0", "tag v1.4"));
    // A signature that is none.
    retag(&repo, "v1.0", "v1.6", |text| {
        let head = text.split("-----BEGIN").next().unwrap().replace("tag v1.0", "tag v1.6");
        head + &carol.replace("PUBLIC KEY BLOCK", "SIGNATURE")
    });
    // A key that was valid when it signed, and is not now.
    let past = ["--faked-system-time", "20200101T000000"];
    let gina = keys.openpgp("gina", &past);
    let signed = keys.options("gina", true);
    let program = keys.path("sign-with-gpg");
    let text = fs::read_to_string(&program)
        .unwrap()
        .replace("exec gpg", "exec gpg --faked-system-time 20200102T000000");
    let options: Vec<&str> = signed.iter().map(String::as_str).collect();
    executable::write(&program, text.as_bytes());
    repo.git(&[&options[..], &["tag", "-s", "-m", "old", "v1.5"]].concat());
    let mut revoke = Command::new("gpg");
    let fingerprint = keys.gpg(&["--with-colons", "--list-keys", "dave"]);
    let fingerprint =
        fingerprint.lines().find_map(|line| line.strip_prefix("fpr:")).unwrap().trim_matches(':').to_owned();
    let certificate = keys.path(&format!("openpgp-revocs.d/{fingerprint}.rev"));
    let text = fs::read_to_string(&certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    fs::write(&certificate, text).unwrap();
    run(revoke
        .args(["--batch", "--quiet", "--homedir"])
        .arg(keys.home.path())
        .arg("--import")
        .arg(&certificate));
    let dave = keys.gpg(&["--armor", "--export", "dave"]);
    keys.sign(&repo, "carol", true, &["commit", "-q", "-S", "--allow-empty", "-m", "signed"]);
    repo.tag_light("v2.0");
    let farm = Farm::builder().with(&recipe(&repo)).build();
    write_signers(&farm, format!("Our keys:\n{carol}\nand\n{dave}\n{gina}\n"));
    let output = farm.once();
    output.assert_success().assert_only_events();
    let skipped = [
        ("v1.1", "is revoked"),
        ("v1.2", "does not have"),
        ("v1.3", "signed with OpenSSH"),
        ("v1.4", "does not fit"),
        ("v1.5", "has expired"),
        ("v1.6", "its signature, its tagger"),
    ];
    assert_skipped(&output, &skipped);
    farm.assert_published(&["tool 1.0-1 noarch", "tool 2.0-1 noarch"]);
    farm.assert_clean();
    assert_remembered(&farm, skipped.len());
    let mut binary = Command::new("gpg");
    binary.args(["--batch", "--homedir"]).arg(keys.home.path()).args(["--export", "eve"]);
    write_signers(&farm, binary.output().unwrap().stdout);
    farm.once().assert_success();
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.2-1 noarch", "tool 2.0-1 noarch"]);
}

#[test]
fn refused_tag_is_looked_at_again_once_it_is_moved() {
    if !require("ssh-keygen") {
        return;
    }
    let (keys, repo) = (Keys::new(), repo());
    let alice = keys.openssh("alice");
    keys.openssh("bob");
    keys.tag(&repo, "bob", false, "v1.0");
    repo.git(&["tag", "v1.1"]);
    let with_signers = || {
        let farm = Farm::builder().with(&recipe(&repo)).build();
        write_signers(&farm, format!("alice@x {alice}\n"));
        farm
    };
    let (swept, farm) = (with_signers(), with_signers());
    assert_skipped(&swept.once(), &[("v1.0", "no valid entry"), ("v1.1", "is not signed")]);
    assert_remembered(&swept, 2);
    let mut daemon = farm.daemon();
    daemon.wait_events("tag skipped", 2, PATIENCE);
    // An object on the same commit is another one.
    keys.sign(&repo, "alice", false, &["tag", "-f", "-s", "-m", "release", "v1.0"]);
    let output = swept.once();
    assert_eq!(output.events("starting build").len(), 1, "{output}");
    swept.assert_published(&["tool 1.0-1 noarch"]);
    daemon.signal(Signal::HUP);
    daemon.wait_event("build + publish complete", PATIENCE);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(0);
    farm.assert_published(&["tool 1.0-1 noarch"]);
}
