//! Runs `peipkg-repo keys`: a key is added, retired and revoked, and clients that know only the keys of
//! before accept what they should.

mod repo_support;

use std::fs;
use std::process::Output;

use ed25519_dalek::SigningKey;
use repo_support::{Farm, SEED, check, envelope, json_file, sha256};
use sha2::{Digest as _, Sha256};

const NEW_SEED: [u8; 32] = [9; 32];

fn fingerprint(seed: [u8; 32]) -> String {
    sha256(SigningKey::from_bytes(&seed).verifying_key().as_bytes())
}

/// A farm with `aa 1-1` published, and the file `new-key`.
fn farm() -> Farm {
    let farm = Farm::new();
    fs::write(farm.path("new-key"), NEW_SEED).unwrap();
    farm.publish_all(&["aa 1-1 noarch"]);
    farm
}

fn keys(farm: &Farm, arguments: &[&str]) -> Output {
    farm.run(&[&["keys", "--repo", "REPO"], arguments].concat())
}

/// Publishes `package` with the key at `key`.
fn publish(farm: &Farm, package: &str, seed: [u8; 32], key: &str) -> Output {
    farm.clear();
    let payload = repo_support::entries(repo_support::manifest("aa", package, "noarch"), Vec::new());
    farm.put("aa", package, "noarch", &repo_support::pack(&payload, Some(seed)));
    let mut arguments = Farm::PUBLISH;
    arguments[6] = key;
    farm.run(&arguments)
}

/// Which keys have signed the descriptor and both indexes.
fn signers(farm: &Farm) -> [String; 3] {
    ["repo.json", "index/archive.json", "index/active.json"].map(|name| {
        let envelope = json_file(&farm.repo().join(format!("{name}.sig")));
        let fingerprint = envelope["key_fingerprint"].as_str().unwrap().to_owned();
        let seed = if fingerprint == self::fingerprint(SEED) { SEED } else { NEW_SEED };
        // Not by the code under test.
        let bytes = fs::read(farm.repo().join(name)).unwrap();
        assert_eq!(envelope, repo_support::envelope(seed, &Sha256::digest(bytes)), "{name}");
        fingerprint
    })
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn rotation_is_signed_by_keys_that_clients_know() {
    let farm = farm();
    let (old, new) = (fingerprint(SEED), fingerprint(NEW_SEED));
    check(&publish(&farm, "2-1", NEW_SEED, "new-key"), 1, "is not an active key");
    let output = keys(&farm, &["--sign-key", "KEY", "--add", "new-key"]);
    check(&output, 0, "");
    let mut both = [format!("{old} active\n"), format!("{new} active\n")];
    both.sort();
    assert_eq!(text(&output).0, both.concat());
    assert_eq!(signers(&farm), [old.clone(), old.clone(), old.clone()]);
    let page = fs::read_to_string(farm.repo().join("index.html")).unwrap();
    assert!(page.contains(&new) && page.contains("aa"), "the site names the new key");
    // Now either key may sign packages and indexes.
    check(&publish(&farm, "2-1", NEW_SEED, "new-key"), 0, "");
    check(&publish(&farm, "3-1", SEED, "KEY"), 0, "");
    check(&farm.verify(), 0, "");
    // A key that retires takes no signature with it: those of the indexes are made again.
    let until = ["--retire", &old, "--until", "2126-01-01T00:00:00Z"];
    check(&keys(&farm, &[&["--sign-key", "new-key"], &until[..]].concat()), 0, "");
    assert_eq!(signers(&farm), [new.clone(), new.clone(), new.clone()]);
    check(&publish(&farm, "4-1", SEED, "new-key"), 0, "");
    check(&publish(&farm, "5-1", SEED, "KEY"), 1, "is not an active key");
    let past = ["--retire", &old, "--until", "2026-05-01T00:00:00Z"];
    check(&keys(&farm, &[&["--sign-key", "new-key"], &past[..]].concat()), 0, "");
    check(&publish(&farm, "5-1", SEED, "new-key"), 1, "does not list as active or transitioning");
    check(&farm.verify(), 0, "");
}

#[test]
fn revoked_key_counts_no_more_and_stays_listed() {
    let farm = farm();
    let (old, new) = (fingerprint(SEED), fingerprint(NEW_SEED));
    let output = keys(&farm, &["--sign-key", "new-key", "--add", "new-key", "--revoke", &old]);
    let (stdout, stderr) = text(&output);
    assert!(output.status.success() && stderr.contains("no client knows the key"), "{stderr}");
    assert!(stdout.contains(&format!("{old} revoked\n")), "{stdout}");
    assert_eq!(signers(&farm), [new.clone(), new.clone(), new.clone()]);
    assert!(!fs::read_to_string(farm.repo().join("index.html")).unwrap().contains(&old));
    check(&farm.verify(), 0, "");
    check(&publish(&farm, "2-1", SEED, "new-key"), 1, "does not list as active or transitioning");
    check(&publish(&farm, "2-1", NEW_SEED, "new-key"), 0, "");
    assert_eq!(text(&keys(&farm, &[])).0, stdout);
    for change in [&["--add", "KEY"][..], &["--retire", &old, "--until", "2126-01-01T00:00:00Z"]] {
        check(&keys(&farm, &[&["--sign-key", "new-key"], change].concat()), 1, "revoked, which is for good");
    }
}

#[test]
fn change_that_was_cut_short_is_repeated() {
    let farm = farm();
    let change = ["--sign-key", "new-key", "--add", "new-key", "--revoke", &fingerprint(SEED)];
    let before = fs::read(farm.repo().join("repo.json")).unwrap();
    assert!(keys(&farm, &change).status.success());
    let after = farm.snapshot();
    // Everything but the last step is done.
    fs::write(farm.repo().join("repo.json"), before).unwrap();
    assert!(!farm.verify().status.success());
    assert!(keys(&farm, &change).status.success());
    assert_eq!(farm.snapshot(), after);
}

#[test]
fn what_no_key_has_signed_is_not_signed_now() {
    let add = ["--sign-key", "KEY", "--add", "new-key"];
    for name in ["repo.json", "index/archive.json", "index/active.json"] {
        let farm = farm();
        let path = farm.repo().join(name);
        let altered = fs::read_to_string(&path).unwrap().replace("farm", "form");
        fs::write(&path, &altered).unwrap();
        let before = farm.snapshot();
        check(&keys(&farm, &add), 1, "signature does not match the content");
        // Nor is what a stranger has signed.
        let envelope = envelope([3; 32], &Sha256::digest(&altered)).to_string();
        fs::write(farm.repo().join(format!("{name}.sig")), envelope).unwrap();
        check(&keys(&farm, &add), 1, "which repo.json does not list as valid");
        fs::remove_file(farm.repo().join(format!("{name}.sig"))).unwrap();
        check(&keys(&farm, &add), 1, ".sig: cannot read the file");
        let unchanged = |(path, _): &&(std::path::PathBuf, Vec<u8>)| path.extension() != Some("sig".as_ref());
        assert!(farm.snapshot().iter().filter(unchanged).eq(before.iter().filter(unchanged)));
    }
}

#[test]
fn wrong_arguments_change_nothing() {
    let farm = farm();
    fs::write(farm.path("rsa.pub"), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap();
    fs::write(farm.path("long"), [7; 33]).unwrap();
    let (old, before) = (fingerprint(SEED), farm.snapshot());
    for (arguments, status, expected) in [
        (&["--add", "new-key"][..], 2, "need --sign-key KEY"),
        (&["--sign-key", "KEY", "--retire", &old], 2, "--retire needs --until TIME"),
        (&["--sign-key", "KEY", "--until", "2126-01-01T00:00:00Z"], 2, "--until is for --retire only"),
        (&["--sign-key", "KEY", "--retire", &old, "--until", "soon"], 2, "is not an RFC 3339 time"),
        (&["--sign-key", "KEY", "--revoke", "0f"], 1, "lists no key \"0f\""),
        (&["--sign-key", "KEY", "--revoke", &old], 1, "is not an active key after this change"),
        (&["--sign-key", "new-key"], 1, "is not an active key after this change"),
        (&["--sign-key", "KEY", "--add", "rsa.pub"], 1, "holds no Ed25519 public key"),
        (
            &["--sign-key", "KEY", "--add", "long"],
            1,
            "found 33 bytes, expected PEM PKCS#8 or a raw seed of 32 bytes; or a public key in PEM",
        ),
        (&["--sign-key", "KEY", "--add", "gone"], 1, "gone: cannot read the file"),
    ] {
        check(&keys(&farm, arguments), status, expected);
        assert_eq!(farm.snapshot(), before, "{arguments:?}");
    }
    check(&farm.run(&["keys"]), 2, "missing required flag --repo");
    check(&farm.run(&["keys", "--repo", "new"]), 1, "repo.json");
}

#[test]
fn public_key_in_pem_is_added_without_its_private_key() {
    let farm = farm();
    let pem = peipkg_tools::repo::descriptor::public_key_file(&SigningKey::from_bytes(&NEW_SEED));
    fs::write(farm.path("offline.pub"), pem.trim()).unwrap();
    check(&keys(&farm, &["--sign-key", "KEY", "--add", "offline.pub", "--no-site"]), 0, "");
    check(&farm.verify(), 0, "");
    // The offline key is known by now, so it may revoke the other one, and clients accept that.
    let revoke = ["--sign-key", "new-key", "--revoke", &fingerprint(SEED)];
    check(&keys(&farm, &revoke), 0, "");
    check(&farm.verify(), 0, "");
}

#[test]
fn repository_of_the_deployed_tool_gets_a_second_key() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    for sample in ["repository-absolute", "repository-pool"] {
        let farm = Farm::new();
        fs::remove_dir_all(farm.repo()).unwrap();
        let copied =
            std::process::Command::new("cp").arg("-r").arg(samples.join(sample)).arg(farm.repo()).status();
        assert!(copied.unwrap().success());
        fs::copy(samples.join("key.seed"), farm.key()).unwrap();
        fs::write(farm.path("new-key"), NEW_SEED).unwrap();
        let metadata =
            |expected| check(&farm.run(&["verify", "--repo", "REPO", "--mode", "metadata"]), 0, expected);
        let index = farm.index("archive");
        check(&keys(&farm, &["--sign-key", "KEY", "--add", "new-key", "--no-site"]), 0, "");
        metadata("");
        let listed = text(&keys(&farm, &[])).0;
        let old = listed.split_whitespace().find(|word| word.len() == 64 && *word != fingerprint(NEW_SEED));
        let retire = ["--sign-key", "new-key", "--retire", old.unwrap(), "--until", "2126-01-01T00:00:00Z"];
        check(&keys(&farm, &[&retire[..], &["--no-site"]].concat()), 0, "");
        metadata("");
        assert_eq!(farm.index("archive"), index, "{sample}");
    }
}
