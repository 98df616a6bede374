//! The provenance beside each published package: what it says, who verifies it, and that neither a kill
//! nor an undo nor an upload parts it from its package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::farm::{Farm, remote_directory};
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::skip;
use crate::support::recipes::Recipe;
use crate::support::tools::Tools;

/// A `peipkg-repo` that kills its manager after the publish once `die` is there. `$template` is a
/// template of URLs, or empty.
const MORTAL: &str = "#!/bin/sh\n[ \"$1\" = publish ] || exec {real} \"$@\"\n\
    {real} \"$@\" ${template:+--package-url-template \"$template\"} || exit\n\
    [ ! -e \"$HOME/die\" ] || { rm \"$HOME/die\"; kill -9 \"$PPID\"; }\n";

/// A `peipkg-repo` that publishes nothing while `refuse` is there.
const REFUSING: &str =
    "#!/bin/sh\n[ \"$1\" != publish ] || [ ! -e \"$HOME/refuse\" ] || exit 1\nexec {real} \"$@\"\n";

/// The payload of the provenance at `path`.
#[track_caller]
fn statement(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let envelope: Value = serde_json::from_str(&text).unwrap();
    assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    let mut decode = Command::new("sh");
    let payload = envelope["payload"].as_str().unwrap();
    let json = run(decode.args(["-c", "printf %s \"$1\" | base64 -d", "sh", payload]));
    serde_json::from_str(&json).unwrap()
}

/// The provenance of `tool` at `version`, alone in its directory.
fn provenance(farm: &Farm, version: &str) -> PathBuf {
    farm.repo_dir().join("p/tool").join(version).join("provenance.json")
}

/// Runs `peipkg-repo verify`, and returns whether it succeeded and what it said.
fn verify(farm: &Farm) -> (bool, String) {
    let mut command = Command::new(&Tools::get().repo);
    let output = command.arg("verify").arg("--repo").arg(farm.repo_dir()).output().unwrap();
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Fails the test unless verify reports an issue with this text.
#[track_caller]
fn assert_issue(farm: &Farm, expected: &str) {
    let (is_good, text) = verify(farm);
    assert!(!is_good && text.contains(expected), "{text}");
}

fn sha256(path: &Path) -> String {
    let line = run(Command::new("sha256sum").arg(path));
    line.split_once(' ').unwrap().0.to_owned()
}

/// A farm with two packages of an annotated tag.
fn farm() -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    repo.git(&["tag", "-d", "v1.0"]);
    repo.tag_annotated("v1.0", "2026-02-01T00:00:00Z");
    let recipe = Recipe::program("tool", &repo.file_url()).with_doc().upstream("export_version = true");
    (Farm::builder().with(&recipe).build(), repo)
}

#[test]
fn provenance_says_what_the_packages_were_built_from() {
    let (farm, repo) = farm();
    let helper = farm.path("recipes/tool/a helper");
    fs::write(&helper, "help").unwrap();
    farm.once().assert_success().assert_only_events();
    let one = provenance(&farm, "1.0-1");
    let other = farm.repo_dir().join("p/tool-doc/1.0-1/provenance.json");
    assert_eq!(fs::read(&one).unwrap(), fs::read(&other).unwrap());
    let found = statement(&one);
    assert_eq!(found["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(found["predicateType"], "https://slsa.dev/provenance/v1");
    let subjects = found["subject"].as_array().unwrap();
    for (subject, name) in subjects.iter().zip(["tool-doc", "tool"]) {
        let file = format!("{name}_1.0-1_noarch.peipkg");
        assert_eq!(subject["name"], file);
        let package = farm.repo_dir().join("p").join(name).join("1.0-1").join(file);
        assert_eq!(subject["digest"]["sha256"], sha256(&package));
    }
    let definition = &found["predicate"]["buildDefinition"];
    let source = format!("git+{}", repo.file_url());
    let parameters = serde_json::json!({
        "source": source, "tag": "v1.0", "recipe": "tool", "version": "1.0-1",
        "submodules": false, "exportVersion": true,
    });
    assert_eq!(definition["externalParameters"], parameters);
    let [from, recipe] = &definition["resolvedDependencies"].as_array().unwrap()[..] else { panic!() };
    assert_eq!(from["uri"], format!("{source}@refs/tags/v1.0"));
    let ids = serde_json::json!({"gitCommit": repo.head(), "gitTag": repo.git(&["rev-parse", "v1.0"])});
    assert_eq!(from["digest"], ids);
    // As `docs/provenance.md` says.
    let command = "find -L . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0r sha256sum -- | sha256sum";
    let mut shell = Command::new("sh");
    let digest = run(shell.args(["-c", command]).current_dir(farm.path("recipes/tool")));
    assert_eq!(format!("{}  -", recipe["digest"]["dirHash"].as_str().unwrap()), digest);
    let run_details = &found["predicate"]["runDetails"];
    assert_eq!(run_details["builder"]["id"], "urn:peipkg-manager:farm:test-farm");
    let versions = &run_details["builder"]["version"];
    assert_eq!(versions["git"], run(Command::new("git").arg("--version")));
    assert_eq!(versions["peipkg-manager"], env!("CARGO_PKG_VERSION"));
    assert!(versions["peipkg-build"].as_str().unwrap().starts_with("peipkg-build "), "{versions}");
    // The key id is the name of the key's file.
    let envelope: Value = serde_json::from_slice(&fs::read(&one).unwrap()).unwrap();
    let key = envelope["signatures"][0]["keyid"].as_str().unwrap();
    assert!(farm.repo_dir().join(format!("keys/{key}.pub")).is_file());
    let (is_good, text) = verify(&farm);
    assert!(is_good && text.contains(", 2 package files hashed, 2 with verified provenance\n"), "{text}");
}

#[test]
fn provenance_is_verified_by_the_programs_of_others() {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let python = python.join("unpacked/attestation/bin/python");
    if !python.exists() {
        return skip("securesystemslib and in-toto-attestation of PyPI, which .ci/run installs");
    }
    let (farm, _repo) = farm();
    farm.once().assert_success();
    let key = fs::read_dir(farm.repo_dir().join("keys")).unwrap().next().unwrap().unwrap().path();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/farm/provenance/verify.py");
    let ours = provenance(&farm, "1.0-1");
    let package = ours.with_file_name("tool_1.0-1_noarch.peipkg");
    let check = |provenance: &Path| {
        let mut command = Command::new(&python);
        command.arg(&script).arg(&key).arg(provenance).arg(&package).output().unwrap()
    };
    let output = check(&ours);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "tool_1.0-1_noarch.peipkg of v1.0\n");
    // The script can fail.
    let forged = farm.path("forged");
    fs::write(&forged, fs::read_to_string(&ours).unwrap().replacen("\"sig\":\"", "\"sig\":\"AAAA", 1))
        .unwrap();
    assert!(!check(&forged).status.success());
}

#[test]
fn provenance_of_the_same_inputs_differs_in_times_only() {
    let repo = GitRepo::program(&["1.0"]);
    let recipe = Recipe::program("tool", &repo.file_url());
    let [one, other] = [(), ()].map(|()| {
        let farm = Farm::builder().with(&recipe).build();
        farm.once().assert_success();
        let mut found = statement(&provenance(&farm, "1.0-1"));
        let metadata = found["predicate"]["runDetails"]["metadata"].take();
        assert!(metadata["startedOn"].as_str() <= metadata["finishedOn"].as_str(), "{metadata}");
        found
    });
    assert_eq!(one, other);
}

#[test]
fn secrets_of_the_url_are_in_no_provenance() {
    let repo = GitRepo::program(&["1.0"]);
    let url = repo.file_url().replacen("file://", "file://me:pw-s3cret@", 1);
    // A long answer counts, but for its secrets.
    let tool = "#!/bin/sh\n[ \"$1\" != --version ] || { echo 'build 9 of https://me:s3cret@h/x'; seq 999; exit; }\n\
                exec {real} \"$@\"\n";
    let recipe = Recipe::program("tool", &url);
    let farm = Farm::builder().with(&recipe).program("peipkg-build", tool).build();
    let output = farm.once();
    let path = provenance(&farm, "1.0-1");
    assert!(path.exists(), "{output}");
    let found = statement(&path);
    let versions = &found["predicate"]["runDetails"]["builder"]["version"];
    assert_eq!(versions["peipkg-build"], "build 9 of https://h/x");
    let found = found.to_string();
    assert!(found.contains("git+file:///") && !found.contains("s3cret") && !found.contains("me:"), "{found}");
}

#[test]
fn provenance_forged_exchanged_or_of_an_altered_package_is_found() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    let [old, new] = ["1.0-1", "1.1-1"].map(|version| provenance(&farm, version));
    let good = fs::read(&new).unwrap();
    // A valid statement of another version.
    fs::copy(&old, &new).unwrap();
    assert_issue(
        &farm,
        "tool/1.1-1/provenance.json: is not about tool_1.1-1_noarch.peipkg with the SHA-256 ",
    );
    // A statement that nobody has signed, but for an older one.
    let text = String::from_utf8(good.clone()).unwrap();
    let payload = |text: &str| text.split('"').nth(7).unwrap().to_owned();
    let other = payload(&fs::read_to_string(&old).unwrap());
    fs::write(&new, text.replace(&payload(&text), &other)).unwrap();
    assert_issue(&farm, "tool/1.1-1/provenance.json: is not signed by a key of the repository");
    for (odd, expected) in [("", "is no DSSE envelope"), ("{}", "is no DSSE envelope"), ("[", "is no DSSE")] {
        fs::write(&new, odd).unwrap();
        assert_issue(&farm, expected);
    }
    fs::remove_file(&new).unwrap();
    run(Command::new("mkfifo").arg(&new));
    assert_issue(&farm, "is a FIFO");
    // Absent is fine.
    fs::remove_file(&new).unwrap();
    let (is_good, text) = verify(&farm);
    assert!(is_good && text.contains(", 1 with verified provenance\n"), "{text}");
    fs::write(&new, good).unwrap();
    fs::write(new.with_file_name("tool_1.1-1_noarch.peipkg"), "altered").unwrap();
    assert_issue(&farm, "hash mismatch: tool_1.1-1_noarch.peipkg");
}

#[test]
fn provenance_is_beside_its_package_after_a_kill() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .program("peipkg-repo", MORTAL)
        .build();
    farm.once().assert_success();
    repo.add_versions(&["1.1"]);
    fs::write(farm.path("die"), "").unwrap();
    assert_eq!(farm.once().status.code(), None);
    assert!(!provenance(&farm, "1.1-1").exists());
    // Not even the build's own directory may be needed for more than this.
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    assert_eq!(statement(&provenance(&farm, "1.1-1"))["subject"][0]["name"], "tool_1.1-1_noarch.peipkg");
}

/// A farm whose first version is built and not published, its upstream, and the directory of the version.
fn farm_with_a_pending_version() -> (Farm, GitRepo, PathBuf) {
    let repo = GitRepo::program(&["1.0"]);
    let recipe = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&recipe).program("peipkg-repo", REFUSING).build();
    fs::write(farm.path("refuse"), "").unwrap();
    farm.once();
    fs::remove_file(farm.path("refuse")).unwrap();
    let [directory] = &farm.kept()[..] else { panic!("{:?}", farm.kept()) };
    let pending = farm.path("state/publish").join(directory);
    (farm, repo, pending)
}

#[test]
fn provenance_of_packages_that_somebody_else_published_is_placed() {
    let (farm, _repo, pending) = farm_with_a_pending_version();
    let new = pending.join("packages");
    let now = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]));
    let mut publish = Command::new(&Tools::get().repo);
    publish.args(["publish", "--timestamp", &now, "--sign-key"]).arg(farm.key_path());
    publish.arg("--in").arg(farm.repo_dir()).arg("--out").arg(farm.repo_dir()).arg("--new").arg(new);
    run(&mut publish);
    farm.once().assert_success();
    farm.assert_clean();
    assert!(provenance(&farm, "1.0-1").exists());
}

#[test]
fn packages_of_an_earlier_manager_are_published_without_provenance() {
    let (farm, _repo, pending) = farm_with_a_pending_version();
    fs::remove_file(pending.join("provenance.json")).unwrap();
    farm.once_without_builds(&["tool 1.0-1 noarch"]);
    assert!(!provenance(&farm, "1.0-1").exists());
}

#[test]
fn place_taken_by_something_else_is_said_and_left_alone() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let [directory, notes, empty] = ["1.1-1", "1.2-1", "1.3-1"].map(|version| provenance(&farm, version));
    farm.once().assert_success();
    repo.add_versions(&["1.1", "1.2", "1.3"]);
    fs::create_dir_all(&directory).unwrap();
    for (path, text) in [(&notes, "mine"), (&empty, "")] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let output = farm.once();
    output.assert_success();
    let said = output.events("cannot put the provenance beside its package");
    assert!(said.iter().all(|event| event["path"] != empty.display().to_string()), "{output}");
    assert_eq!(said.len(), 2, "{output}");
    farm.assert_published(
        &["1.0", "1.1", "1.2", "1.3"]
            .map(|version| format!("tool {version}-1 noarch"))
            .each_ref()
            .map(String::as_str),
    );
    farm.assert_clean();
    assert!(directory.is_dir());
    assert_eq!(fs::read_to_string(&notes).unwrap(), "mine");
    // A power cut may have left an empty one.
    assert_eq!(statement(&empty)["subject"][0]["name"], "tool_1.3-1_noarch.peipkg");
}

#[test]
fn provenance_unreadable_or_of_another_version_keeps_no_version_from_its_publish() {
    let repo = GitRepo::program(&["1.0"]);
    let mut farm = Farm::builder().program("peipkg-repo", REFUSING);
    for name in ["odd", "other", "tool"] {
        farm = farm.with(&Recipe::program(name, &repo.file_url()));
    }
    let farm = farm.build();
    fs::write(farm.path("refuse"), "").unwrap();
    farm.once();
    fs::remove_file(farm.path("refuse")).unwrap();
    let pending = |recipe: &str| {
        let kept = farm.kept().into_iter().find(|name| name.starts_with(recipe)).unwrap();
        farm.path("state/publish").join(kept).join("provenance.json")
    };
    let odd = pending("odd@");
    fs::remove_file(&odd).unwrap();
    std::os::unix::fs::symlink(&odd, &odd).unwrap();
    fs::copy(pending("tool@"), pending("other@")).unwrap();
    let output = farm.once_without_builds(&["odd 1.0-1 noarch", "other 1.0-1 noarch", "tool 1.0-1 noarch"]);
    assert_eq!(output.events("cannot put the provenance beside its package").len(), 2, "{output}");
    let is_there = |name: &str| farm.repo_dir().join("p").join(name).join("1.0-1/provenance.json").exists();
    assert_eq!(["odd", "other", "tool"].map(is_there), [false, false, true]);
}

#[test]
fn provenance_in_a_shared_directory_has_the_name_of_its_package() {
    // The companion tool renames its own sidecars; another tool knows of none.
    for knows in [true, false] {
        let repo = GitRepo::program(&["1.0"]);
        let hide = if knows {
            ""
        } else {
            "find \"$HOME/state/repo\" -name provenance.json -exec mv {} {}.hidden ';'\n"
        };
        let back = if knows {
            ""
        } else {
            "find \"$HOME/state/repo\" -name '*.hidden' | while read f; do mv \"$f\" \"${f%.hidden}\"; done\n"
        };
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = publish ] || exec {{real}} \"$@\"\n{hide}\
             {{real}} \"$@\" --package-url-template '/pool/{{filename}}' || exit\n{back}"
        );
        let farm = Farm::builder()
            .with(&Recipe::program("tool", &repo.file_url()))
            .program("peipkg-repo", &script)
            .build();
        farm.once().assert_success();
        let pool = farm.repo_dir().join("pool");
        let first = fs::read(pool.join("provenance.json")).unwrap();
        repo.add_versions(&["1.1"]);
        farm.once().assert_success().assert_only_events();
        assert!(!pool.join("provenance.json").exists());
        assert_eq!(fs::read(pool.join("tool_1.0-1_noarch.peipkg.provenance.json")).unwrap(), first);
        let second = statement(&pool.join("tool_1.1-1_noarch.peipkg.provenance.json"));
        assert_eq!(second["predicate"]["buildDefinition"]["externalParameters"]["tag"], "v1.1");
        let (is_good, text) = verify(&farm);
        assert!(is_good && text.contains(", 2 with verified provenance\n"), "{text}");
    }
}

#[test]
fn provenance_is_undone_and_uploaded_with_its_package() {
    let Some((_home, remote)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    let script = "#!/bin/sh\n{real} \"$@\" || exit\n\
                  [ \"$1\" != publish ] || [ ! -e \"$HOME/die\" ] || { rm \"$HOME/die\"; kill -9 \"$PPID\"; }\n";
    let recipe = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&recipe).rclone(&remote).program("peipkg-repo", script).build();
    farm.once().assert_success();
    let copy = remote.join("p/tool/1.0-1/provenance.json");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(provenance(&farm, "1.0-1")).unwrap());
    // As if the manager had been killed between the provenance and the end of the publish, and the index
    // were lost then.
    repo.add_versions(&["1.1"]);
    fs::write(farm.path("die"), "").unwrap();
    assert_eq!(farm.once().status.code(), None);
    let new = provenance(&farm, "1.1-1");
    fs::copy(provenance(&farm, "1.0-1"), &new).unwrap();
    fs::remove_file(farm.repo_dir().join("index/active.json")).unwrap();
    fs::remove_dir_all(farm.path("state/publish")).unwrap();
    farm.remove_recipe("tool");
    farm.add(&Recipe::program("tool", &repo.file_url()).upstream("exclude = [\"v1.1\"]"));
    let output = farm.once();
    output.assert_success();
    output.event("publish was cut short, repository restored");
    assert!(!new.exists() && provenance(&farm, "1.0-1").exists(), "{output}");
    // What is stale goes from the remote.
    fs::remove_file(provenance(&farm, "1.0-1")).unwrap();
    farm.add(&recipe);
    farm.once().assert_success();
    assert!(!copy.exists());
    assert!(remote.join("p/tool/1.1-1/provenance.json").exists());
}
