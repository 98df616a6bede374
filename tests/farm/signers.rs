//! The files with the signers of recipes: which one counts, and which cannot be used.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::signed_tags::{assert_skipped, recipe, repo, write_signers};
use crate::support::executable;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::signing_keys::Keys;
use crate::support::wait::PATIENCE;

/// A text with the UTC time of in an hour, as ssh-keygen reads it.
fn in_an_hour() -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_hours(1)).to_string();
    time.replace(['-', ':', 'T', 'Z'], "")
}

#[test]
fn settings_of_the_machine_add_no_signer() {
    if !require("ssh-keygen") || !require("gpg") {
        return;
    }
    let (keys, user, ssh, pgp) = (Keys::new(), Keys::new(), repo(), repo());
    let [alice, eve] = ["alice", "eve"].map(|name| keys.openssh(name));
    let [carol, dave] = ["carol", "dave"].map(|name| keys.openpgp(name, &[]));
    for (repo, is_pgp, tags) in [
        (&ssh, false, [("alice", "v1.0"), ("eve", "v1.1")]),
        (&pgp, true, [("carol", "v2.0"), ("dave", "v2.1")]),
    ] {
        for (key, tag) in tags {
            keys.tag(repo, key, is_pgp, tag);
        }
    }
    let of_pgp = Recipe::program("pgp", &pgp.file_url()).upstream("signers = \"keys\"");
    let farm = Farm::builder().with(&recipe(&ssh)).with(&of_pgp).build();
    // Read as the machine's time, it is long over.
    write_signers(&farm, format!("alice@x valid-before=\"{}\" {alice}\n", in_an_hour()));
    fs::write(farm.recipes_dir().join("pgp/keys"), carol).unwrap();
    let (all, yes) = (farm.path("all"), farm.path("yes"));
    fs::write(&all, format!("eve@x {eve}\n")).unwrap();
    executable::write(
        &yes,
        b"#!/bin/sh\necho 'Good \"git\" signature for eve@x with ED25519 key SHA256:x'\n",
    );
    let of_dave = user.path("dave.asc");
    fs::write(&of_dave, dave).unwrap();
    user.gpg(&["--import", of_dave.to_str().unwrap()]);
    let known = || user.gpg(&["--with-colons", "--list-keys"]);
    let before = known();
    let config = farm.path("gitconfig");
    let text = |path: &Path| path.display().to_string();
    let settings = format!(
        "[gpg \"ssh\"]\nallowedSignersFile = {}\nprogram = {yes}\n[gpg]\nprogram = {yes}\n",
        text(&all),
        yes = text(&yes)
    );
    fs::write(&config, settings).unwrap();
    let mut sweep = farm.command(&["--once", "--config", farm.config_path().to_str().unwrap()]);
    sweep.env("GIT_CONFIG_GLOBAL", &config).env("GIT_CONFIG_COUNT", "1");
    sweep.env("GIT_CONFIG_KEY_0", "gpg.ssh.program").env("GIT_CONFIG_VALUE_0", &yes);
    sweep.env("GNUPGHOME", user.path("")).env("TZ", "Pacific/Kiritimati");
    let output = Running::spawn(&mut sweep).wait_exit(PATIENCE);
    output.assert_code(0);
    assert_skipped(&output, &[("v1.1", "signed by the key SHA256:"), ("v2.1", "does not have")]);
    farm.assert_published(&["pgp 2.0-1 noarch", "tool 1.0-1 noarch"]);
    assert_eq!(known(), before, "nothing is imported for the user");
}

#[test]
fn recipes_of_one_upstream_each_have_their_own_signers() {
    if !require("ssh-keygen") {
        return;
    }
    let (keys, repo) = (Keys::new(), repo());
    let url = repo.file_url();
    let mut farm = Farm::builder().with(&Recipe::program("any", &url));
    for name in ["alice", "bob"] {
        farm = farm.with(&Recipe::program(name, &url).upstream("signers = \"keys\""));
    }
    let farm = farm.build();
    for (name, tag) in [("alice", "v1.0"), ("bob", "v1.1")] {
        let line = format!("{name}@x {}\n", keys.openssh(name));
        fs::write(farm.recipes_dir().join(name).join("keys"), line).unwrap();
        keys.tag(&repo, name, false, tag);
    }
    repo.git(&["tag", "v1.2"]);
    for builds in [9, 0] {
        let output = farm.once();
        output.assert_success();
        assert_eq!(output.events("starting build").len(), builds, "{output}");
        assert_eq!(output.events("tag skipped").len(), 4, "{output}");
    }
    farm.assert_published(&[
        "alice 1.0-1 noarch",
        "any 1.0-1 noarch",
        "any 1.1-1 noarch",
        "any 1.2-1 noarch",
        "bob 1.1-1 noarch",
    ]);
}

/// A farm whose upstream has a tag that carol has signed with gpg, the upstream, and carol's key, which is not
/// in the file of signers yet.
fn farm_of_carol() -> (GitRepo, Farm, String) {
    let (keys, repo) = (Keys::new(), repo());
    let carol = keys.openpgp("carol", &[]);
    keys.tag(&repo, "carol", true, "v1.0");
    let farm = Farm::builder().with(&recipe(&repo)).build();
    (repo, farm, carol)
}

#[test]
fn keyring_that_gpg_cannot_import_fails_the_build() {
    if !require("gpg") {
        return;
    }
    let (_repo, farm, carol) = farm_of_carol();
    let body = carol.lines().position(str::is_empty).expect("the end of the armor's head") + 1;
    let damaged: String = carol
        .lines()
        .enumerate()
        .map(|(number, line)| if number == body { line.to_lowercase() } else { line.to_owned() } + "\n")
        .collect();
    write_signers(&farm, damaged);
    let output = farm.once();
    let error = &output.event("build failed")["error"];
    assert!(error.contains("by \"keys\": gpg cannot import its keys: "), "{output}");
    assert_eq!(output.events("tag skipped").len(), 0, "{output}");
    farm.assert_published(&[]);
    write_signers(&farm, carol);
    farm.once().assert_success();
    farm.assert_published(&["tool 1.0-1 noarch"]);
}

#[test]
fn gpg_that_does_not_work_is_named_with_its_words() {
    if !require("gpg") {
        return;
    }
    let (_repo, farm, carol) = farm_of_carol();
    write_signers(&farm, carol);
    let words = "error while loading shared libraries: libgcrypt.so.20: cannot open shared object file";
    for (said, expected) in [
        (format!("gpg: {words}"), format!("gpg cannot import its keys: {words}")),
        ("out of order".to_owned(), "gpg exited with status 127: out of order".to_owned()),
    ] {
        farm.write_program("gpg", &format!("#!/bin/sh\necho '{said}' >&2\nexit 127\n"));
        let output = farm.once();
        let expected = format!(
            "cannot fetch the source: cannot verify the signature of the tag by \"keys\": {expected}"
        );
        assert_eq!(output.event("build failed")["error"], expected, "{output}");
    }
}

#[test]
fn signers_changed_count_from_the_reload_on() {
    if !require("ssh-keygen") {
        return;
    }
    let (keys, repo) = (Keys::new(), repo());
    let [alice, bob] = ["alice", "bob"].map(|name| keys.openssh(name));
    keys.tag(&repo, "alice", false, "v1.0");
    keys.tag(&repo, "bob", false, "v1.1");
    let farm = Farm::builder().with(&recipe(&repo)).http().build();
    write_signers(&farm, format!("alice@x {alice}\n"));
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    daemon.wait_event("tag skipped", PATIENCE);
    let status = crate::support::client::status(addr);
    assert!(status["warnings"][0]["detail"].as_str().unwrap().contains("refused: signed by"), "{status}");
    assert!(status["failures"].is_null(), "{status}");
    keys.tag(&repo, "alice", false, "v1.2");
    write_signers(&farm, format!("bob@x {bob}\n"));
    daemon.signal(Signal::HUP);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    daemon.wait_events("tag skipped", 2, PATIENCE);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0);
    assert_eq!(output.events("starting build").len(), 4, "{output}");
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}
#[test]
fn signers_unusable_are_problems_of_the_recipe() {
    let repo = repo();
    let farm = Farm::builder().with(&recipe(&repo)).build();
    let check = |part: &str| {
        let output = farm.run(&["--check"]);
        output.assert_code(1);
        assert!(output.stdout.contains("peipkg.toml:") && output.stdout.contains(part), "{part}: {output}");
        farm.run(&["--once"]).assert_code(1);
    };
    check("[upstream] signers \"keys\" cannot be read");
    for (text, part) in [
        (&b""[..], "has no key"),
        (b"hello world\n", "line 1"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "has a private key"),
        (b"a@x valid-before=\"2030-01-31\" ssh-ed25519 AAAA\n", "valid-before=\"20300131\""),
        (b"\x99\x01\x8d\x04", "is damaged or cut short"),
    ] {
        write_signers(&farm, text);
        check(part);
    }
    let path = farm.recipes_dir().join("tool/keys");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    check("cannot be read");
    fs::remove_dir(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    check("is a FIFO");
    for bad in ["/etc/passwd", "../keys", ""] {
        farm.add(&Recipe::program("tool", &repo.file_url()).upstream(&format!("signers = {bad:?}")));
        check("does not name a file in the recipe's directory");
    }
}
