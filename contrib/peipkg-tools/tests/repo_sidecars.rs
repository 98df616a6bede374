//! The sidecars of packages: verbatim, healed, undone with the publish, and never in its way.

mod repo_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use repo_support::{Farm, Raw, SEED, TIME, check, entries, file, manifest, pack};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Puts something at a path; the second one is a file outside of the repository.
type Put = fn(&Path, &Path);

/// The names of sidecars in an own directory, and the entries of a package that they repeat.
const NAMES: [&str; 2] = ["manifest.json", "files.json"];

fn package(name: &str, version: &str, architecture: &str) -> Vec<Raw> {
    let payload = vec![file(&format!("usr/share/{name}/version"), version.as_bytes())];
    entries(manifest(name, version, architecture), payload)
}

/// Adds a package to the directory for new ones.
fn add(farm: &Farm, name: &str, version: &str, architecture: &str) {
    farm.put(name, version, architecture, &pack(&package(name, version, architecture), Some(SEED)));
}

/// The package file in the repository, where its entry says.
fn stored(root: &Path, name: &str, version: &str, architecture: &str) -> PathBuf {
    let file_name = format!("{name}_{version}_{architecture}.peipkg");
    let pooled = root.join("pool").join(&file_name);
    if pooled.exists() { pooled } else { root.join(format!("p/{name}/{version}/{file_name}")) }
}

/// Checks that the sidecars of these packages are right, and that no others are in their directories.
#[track_caller]
fn check_sidecars(root: &Path, packages: &[[&str; 3]], is_shared: bool) {
    let mut expected = Vec::new();
    for [name, version, architecture] in packages {
        let path = stored(root, name, version, architecture);
        for (document, raw) in NAMES.iter().zip(package(name, version, architecture)) {
            let sidecar = if is_shared {
                path.with_extension(format!("peipkg.{document}"))
            } else {
                path.with_file_name(document)
            };
            let found = fs::read(&sidecar).unwrap_or_else(|error| panic!("{}: {error}", sidecar.display()));
            assert_eq!(found, raw.content, "{}", sidecar.display());
            expected.push(sidecar);
        }
    }
    let mut found: Vec<_> = expected
        .iter()
        .flat_map(|path| fs::read_dir(path.parent().unwrap()).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect();
    found.sort();
    found.dedup();
    expected.sort();
    assert_eq!(found, expected);
}

/// Checks that the command succeeded with a note of each of `notes`.
#[track_caller]
fn check_noted(output: &Output, notes: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.lines().count(), notes.len(), "{text}");
    for note in notes {
        let fits = |line: &str| line.starts_with("peipkg-repo: note: published, but ") && line.contains(note);
        assert!(text.lines().any(fits), "{note} is not in: {text}");
    }
}

fn heal(farm: &Farm) -> Output {
    farm.clear();
    farm.publish()
}

#[test]
fn publish_writes_the_sidecars_of_its_packages() {
    let farm = Farm::new();
    add(&farm, "aa", "1-1", "noarch");
    add(&farm, "bb", "1-1", "x86_64");
    check(&farm.publish(), 0, "");
    let root = farm.repo();
    check_sidecars(&root, &[["aa", "1-1", "noarch"]], false);
    check_sidecars(&root, &[["bb", "1-1", "x86_64"]], false);
    check(&farm.verify(), 0, "");
    // A later publish leaves those of other packages alone.
    let missing = root.join("p/aa/1-1/manifest.json");
    fs::remove_file(&missing).unwrap();
    farm.clear();
    add(&farm, "aa", "2-1", "noarch");
    check(&farm.publish(), 0, "");
    check_sidecars(&root, &[["aa", "2-1", "noarch"]], false);
    assert!(!missing.exists() && !root.join(".incoming.tmp").exists());
}

#[test]
fn packages_of_one_directory_have_sidecars_of_their_own() {
    let architectures = ["noarch", "riscv64", "x86_64"];
    let all = architectures.map(|architecture| ["aa", "1-1", architecture]);
    // All in one publish, one after the other, and two beside one that was alone.
    for groups in [&[3][..], &[1, 1, 1], &[1, 2]] {
        for template in ["/p/{name}/{version}/{filename}", "/pool/{filename}"] {
            let farm = Farm::new();
            let mut published = 0;
            for count in groups {
                farm.clear();
                for architecture in &architectures[published..published + count] {
                    add(&farm, "aa", "1-1", architecture);
                }
                published += count;
                let arguments = [&Farm::PUBLISH[..], &["--package-url-template", template]].concat();
                check(&farm.run(&arguments), 0, "");
                check_sidecars(&farm.repo(), &all[..published], published > 1);
            }
        }
    }
}

#[test]
fn sidecars_of_a_tool_that_knows_one_pair_are_replaced_in_a_shared_directory() {
    let farm = Farm::new();
    for version in ["1-1", "2-1"] {
        farm.clear();
        add(&farm, "aa", version, "noarch");
        add(&farm, "aa", version, "x86_64");
        check(&farm.publish(), 0, "");
    }
    for version in ["1-1", "2-1"] {
        for architecture in ["noarch", "x86_64"] {
            let path = stored(&farm.repo(), "aa", version, architecture);
            for name in NAMES {
                fs::rename(path.with_extension(format!("peipkg.{name}")), path.with_file_name(name)).unwrap();
            }
        }
    }
    check(&heal(&farm), 0, "");
    for version in ["1-1", "2-1"] {
        check_sidecars(&farm.repo(), &[["aa", version, "noarch"], ["aa", version, "x86_64"]], true);
    }
}

#[test]
fn publish_of_nothing_heals_the_whole_archive() {
    let farm = Farm::new();
    let versions = ["1-1", "2-1", "3-1", "4-1", "5-1"];
    for version in versions {
        farm.clear();
        add(&farm, "aa", version, "noarch");
        check(&farm.publish(), 0, "");
    }
    let at = |version: &str, name: &str| farm.repo().join(format!("p/aa/{version}/{name}"));
    fs::remove_file(at("1-1", "manifest.json")).unwrap();
    fs::write(at("2-1", "manifest.json"), "").unwrap();
    fs::copy(at("1-1", "files.json"), at("3-1", "files.json")).unwrap();
    fs::write(at("4-1", "aa_4-1_noarch.peipkg.manifest.json"), "of a time with two packages").unwrap();
    fs::write(at("5-1", "files.json"), "x".repeat(100_000)).unwrap();
    check(&heal(&farm), 0, "");
    for version in versions {
        check_sidecars(&farm.repo(), &[["aa", version, "noarch"]], false);
    }
    assert_eq!(farm.listed("archive").len(), versions.len());
    // Right ones are not written again.
    let written = |version| fs::metadata(at(version, "manifest.json")).unwrap().modified().unwrap();
    let before = versions.map(written);
    check(&heal(&farm), 0, "");
    assert_eq!(versions.map(written), before);
}

#[test]
fn package_corrupt_or_missing_is_a_note_of_its_own() {
    let farm = Farm::new();
    for version in ["1-1", "2-1", "3-1", "4-1"] {
        farm.clear();
        add(&farm, "aa", version, "noarch");
        check(&farm.publish(), 0, "");
    }
    let at = |version: &str| stored(&farm.repo(), "aa", version, "noarch");
    fs::write(at("1-1"), "garbage").unwrap();
    fs::remove_file(at("2-1")).unwrap();
    fs::write(at("3-1"), "").unwrap();
    let (manifest, healthy) = (at("1-1").with_file_name("manifest.json"), at("4-1"));
    let before = fs::read(&manifest).unwrap();
    fs::remove_file(healthy.with_file_name("files.json")).unwrap();
    // A publish of other packages does not meet them.
    farm.clear();
    add(&farm, "bb", "1-1", "noarch");
    check(&farm.publish(), 0, "");
    check_noted(
        &heal(&farm),
        &["aa_1-1_noarch.peipkg: ", "aa_2-1_noarch.peipkg: ", "aa_3-1_noarch.peipkg: "],
    );
    assert_eq!(fs::read(manifest).unwrap(), before);
    check_sidecars(&farm.repo(), &[["aa", "4-1", "noarch"]], false);
}

#[test]
fn damage_behind_the_documents_does_not_matter() {
    let farm = Farm::new();
    // Hardly compressible, so that the front of the file holds only the documents.
    let content: Vec<u8> =
        (0..65_536_u32).flat_map(|n| repo_support::sha256(&n.to_le_bytes()).into_bytes()).collect();
    let all = entries(manifest("aa", "1-1", "noarch"), vec![file("usr/share/big", &content)]);
    farm.put("aa", "1-1", "noarch", &pack(&all, Some(SEED)));
    check(&farm.publish(), 0, "");
    let path = stored(&farm.repo(), "aa", "1-1", "noarch");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_file(path.with_file_name("manifest.json")).unwrap();
    check(&heal(&farm), 0, "");
    assert_eq!(fs::read(path.with_file_name("manifest.json")).unwrap(), all[0].content);
}

#[test]
fn sidecar_of_another_kind_is_a_note() {
    let kinds: [(&str, Put); 4] = [
        ("directory", |path, _| fs::create_dir(path).unwrap()),
        ("link", |path, outside| symlink(outside, path).unwrap()),
        ("dangling link", |path, outside| symlink(outside.with_extension("none"), path).unwrap()),
        ("FIFO", |path, _| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap()),
    ];
    for (kind, put) in kinds {
        let farm = Farm::new();
        let outside = farm.path("outside");
        fs::write(&outside, "precious").unwrap();
        let odd = farm.repo().join("p/aa/1-1/manifest.json");
        fs::create_dir_all(odd.parent().unwrap()).unwrap();
        put(&odd, &outside);
        add(&farm, "aa", "1-1", "noarch");
        add(&farm, "bb", "1-1", "noarch");
        check_noted(&farm.publish(), &["p/aa/1-1/manifest.json: is not a regular file, remove it"]);
        check_noted(&heal(&farm), &["p/aa/1-1/manifest.json"]);
        assert_eq!(fs::read_to_string(&outside).unwrap(), "precious", "{kind}");
        assert!(!fs::symlink_metadata(&odd).unwrap().is_file() && !farm.path("outside.none").exists());
        assert!(odd.with_file_name("files.json").is_file(), "{kind}");
        check(&farm.verify(), 0, "");
        check_sidecars(&farm.repo(), &[["bb", "1-1", "noarch"]], false);
        assert_eq!(farm.listed("archive").len(), 2);
    }
}

#[test]
fn package_with_the_name_of_a_sidecar_is_not_replaced() {
    let farm = Farm::new();
    add(&farm, "aa", "1-1", "noarch");
    check(&farm.publish(), 0, "");
    let path = farm.repo().join("p/aa/1-1/manifest.json");
    let other = repo_support::good("bb", "1-1", "noarch");
    fs::write(&path, &other).unwrap();
    check_noted(&heal(&farm), &["p/aa/1-1/manifest.json: is a package"]);
    farm.clear();
    add(&farm, "aa", "1-1", "x86_64");
    check_noted(&farm.publish(), &["p/aa/1-1/manifest.json: is a package"]);
    assert_eq!(fs::read(path).unwrap(), other);
}

/// A limit on the length of files simulates a full disk.
#[test]
fn disk_full_at_a_sidecar_does_not_fail_the_publish() {
    let farm = Farm::new();
    let payload: Vec<_> = (0..3000).map(|n| file(&format!("usr/share/aa/{n:04}"), b"x")).collect();
    let all = entries(manifest("aa", "1-1", "noarch"), payload);
    farm.put("aa", "1-1", "noarch", &pack(&all, Some(SEED)));
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 300; exec \"$@\"", "sh"]);
    let publish = farm.command(&Farm::PUBLISH);
    shell.arg(publish.get_program()).args(publish.get_args()).current_dir(farm.dir.path());
    check_noted(&shell.output().unwrap(), &[".incoming.tmp: cannot write the file"]);
    check(&farm.verify(), 0, "");
    let files = stored(&farm.repo(), "aa", "1-1", "noarch").with_file_name("files.json");
    assert!(!files.exists() && !farm.repo().join(".incoming.tmp").exists());
    check(&heal(&farm), 0, "");
    assert_eq!(fs::read(files).unwrap(), all[1].content);
}

#[test]
fn publish_that_fails_leaves_no_sidecars() {
    let farm = Farm::new();
    add(&farm, "aa", "1-1", "noarch");
    check(&farm.publish(), 0, "");
    // The foreign file makes the commit move the index files out of a directory that cannot be made.
    fs::write(farm.repo().join("index/README"), "ours").unwrap();
    fs::write(farm.repo().join(".index.next"), "in the way").unwrap();
    farm.clear();
    add(&farm, "aa", "1-1", "x86_64");
    add(&farm, "bb", "1-1", "noarch");
    check(&farm.publish(), 1, ".index.next");
    assert_eq!(farm.listed("archive"), ["aa 1-1 noarch"]);
    let left = farm.snapshot().into_iter().filter(|(path, _)| path.starts_with(farm.repo().join("p")));
    let left: Vec<_> = left.filter(|(path, _)| path.extension().unwrap() == "json").collect();
    let published = stored(&farm.repo(), "aa", "1-1", "noarch");
    let mut expected = NAMES.map(|name| published.with_file_name(name));
    expected.sort();
    assert_eq!(left.iter().map(|(path, _)| path).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    fs::remove_file(farm.repo().join(".index.next")).unwrap();
    check(&farm.publish(), 0, "");
    check_sidecars(&farm.repo(), &[["aa", "1-1", "noarch"], ["aa", "1-1", "x86_64"]], true);
}

#[test]
fn other_output_and_rebuild_have_all_sidecars() {
    let farm = Farm::new();
    add(&farm, "aa", "1-1", "noarch");
    add(&farm, "aa", "1-1", "x86_64");
    add(&farm, "bb", "1-1", "noarch");
    check(&farm.publish(), 0, "");
    farm.clear();
    add(&farm, "bb", "2-1", "noarch");
    let mut arguments = Farm::PUBLISH;
    arguments[10] = "other";
    check(&farm.run(&arguments), 0, "");
    let check_all = |root: &Path| {
        check_sidecars(root, &[["aa", "1-1", "noarch"], ["aa", "1-1", "x86_64"]], true);
        check_sidecars(root, &[["bb", "1-1", "noarch"]], false);
        check_sidecars(root, &[["bb", "2-1", "noarch"]], false);
    };
    check_all(&farm.path("other"));
    let rebuild = |output: &str| {
        let arguments =
            ["publish", "--rebuild", "--in", "other", "--all-packages-dir", "other/p", "--out", output];
        let signed = ["--sign-key", "KEY", "--timestamp", TIME];
        check(&farm.run(&[&arguments[..], &signed].concat()), 0, "");
        check_all(&farm.path(output));
    };
    rebuild("rebuilt");
    fs::remove_file(farm.path("other/p/bb/1-1/files.json")).unwrap();
    rebuild("other");
}

/// A farm whose repository a deployed tool made.
fn sample(name: &str) -> Farm {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let farm = Farm::new();
    fs::remove_dir_all(farm.repo()).unwrap();
    let copied = Command::new("cp").arg("-R").arg(samples.join(name)).arg(farm.repo()).status().unwrap();
    assert!(copied.success());
    fs::copy(samples.join("key.seed"), farm.key()).unwrap();
    farm
}

#[test]
fn packages_in_a_pool_of_a_deployed_tool_get_sidecars_of_their_own() {
    let names = |farm: &Farm| -> Vec<String> {
        let entries = fs::read_dir(farm.repo().join("pool")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let expected = |packages: &[&str]| -> Vec<String> {
        let of = |package: &&str| ["", ".files.json", ".manifest.json"].map(|end| format!("{package}{end}"));
        packages.iter().flat_map(of).collect()
    };
    let packages = ["long-path_1.2.3-1_noarch.peipkg", "utf8-description_1.2.3-1_noarch.peipkg"];
    let farm = sample("repository-pool");
    assert!(names(&farm).contains(&"manifest.json".to_owned()));
    check(&heal(&farm), 0, "");
    assert_eq!(names(&farm), expected(&packages));
    let manifest =
        fs::read_to_string(farm.repo().join(format!("pool/{}.manifest.json", packages[1]))).unwrap();
    assert!(manifest.contains("\"name\":\"utf8-description\""), "{manifest}");

    // The same by a publish of another package into the pool.
    let farm = sample("repository-pool");
    let seed = fs::read(farm.key()).unwrap().try_into().unwrap();
    farm.put("aa", "1-1", "noarch", &pack(&package("aa", "1-1", "noarch"), Some(seed)));
    let arguments = [&Farm::PUBLISH[..], &["--package-url-template", "/pool/{filename}"]].concat();
    check(&farm.run(&arguments), 0, "");
    assert_eq!(names(&farm), expected(&["aa_1-1_noarch.peipkg", packages[0], packages[1]]));
}

#[test]
fn package_stored_elsewhere_has_no_sidecars() {
    let farm = sample("repository-absolute");
    let is_sidecar = |name: &str| NAMES.iter().any(|sidecar| name.ends_with(sidecar));
    check(&heal(&farm), 0, "");
    let seed = fs::read(farm.key()).unwrap().try_into().unwrap();
    farm.put("aa", "1-1", "noarch", &pack(&package("aa", "1-1", "noarch"), Some(seed)));
    let arguments =
        [&Farm::PUBLISH[..], &["--package-url-template", "https://example.org/{filename}"]].concat();
    check(&farm.run(&arguments), 0, "");
    assert!(!farm.snapshot().iter().any(|(path, _)| is_sidecar(path.to_str().unwrap())));
}

#[test]
fn package_at_the_root_leaves_the_files_of_others_alone() {
    let farm = Farm::new();
    let site = farm.repo().join("manifest.json");
    fs::write(&site, "of a site").unwrap();
    add(&farm, "aa", "1-1", "noarch");
    let arguments = [&Farm::PUBLISH[..], &["--package-url-template", "/{filename}"]].concat();
    check(&farm.run(&arguments), 0, "");
    assert!(farm.repo().join("aa_1-1_noarch.peipkg.manifest.json").exists());
    assert_eq!(fs::read_to_string(site).unwrap(), "of a site");
}
