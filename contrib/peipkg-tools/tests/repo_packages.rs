//! Runs peipkg-repo on packages that it must refuse.

mod repo_support;

use repo_support::{Farm, Raw, SEED, check, compress, entries, file, good, link, manifest, pack, tar};
use serde_json::json;

/// Publishes one package of these bytes, and expects the refusal `expected`.
#[track_caller]
fn refused(farm: &Farm, bytes: &[u8], expected: &str) {
    farm.clear();
    let path = farm.put("aa", "1-1", "noarch", bytes);
    let before = farm.snapshot();
    let output = farm.publish();
    check(&output, 1, expected);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(path.to_str().unwrap()), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(farm.snapshot(), before);
}

/// Makes the entries of a good package, which a test then spoils.
fn start() -> Vec<Raw> {
    entries(manifest("aa", "1-1", "noarch"), vec![file("usr/share/a/x", b"x"), file("usr/share/a/y", b"yy")])
}

/// Makes a package that is good apart from its payload.
fn with_payload(payload: Vec<Raw>) -> Vec<u8> {
    pack(&entries(manifest("aa", "1-1", "noarch"), payload), Some(SEED))
}

#[test]
fn package_unspoilt_is_accepted() {
    let farm = Farm::new();
    let mut all = start();
    // Entries that a later format version may add are ignored.
    all.insert(2, file(".peipkg/later", b"{}"));
    farm.put("aa", "1-1", "noarch", &pack(&all, Some(SEED)));
    check(&farm.publish(), 0, "");
}

#[test]
fn package_signature_wrong_is_refused() {
    let farm = Farm::new();
    refused(&farm, &pack(&start(), None), "it has no signature");
    refused(&farm, &pack(&start(), Some([8; 32])), "does not list as active");
    // Changed after signing. Every signed byte counts, so one case of each kind is enough.
    let mut envelope = file(".peipkg/signature", b"");
    envelope.content = repo_support::envelope(SEED, &[0; 32]).to_string().into_bytes();
    let mut all = start();
    all.push(envelope.clone());
    refused(&farm, &compress(tar(&all)), "signature does not match");
    all.push(file("usr/share/a/z", b""));
    refused(&farm, &compress(tar(&all)), "its signature is not the last entry");
    let mut all = start();
    all.push(file(".peipkg/signature", b"{}"));
    refused(&farm, &compress(tar(&all)), "not a signature envelope");
    all.pop();
    all.push(file(".peipkg/signature", &vec![b' '; 65537]));
    refused(&farm, &compress(tar(&all)), "is larger than the format allows");
}

#[test]
fn package_payload_wrong_is_refused() {
    let farm = Farm::new();
    let cases: [(Raw, &str); 13] = [
        (file("/usr/share/a", b""), "component"),
        (file("usr/share/../../etc/passwd", b""), "component"),
        (file("usr/share/a\nb", b""), "control character"),
        (file("home/x", b""), "outside the permitted destinations"),
        (file("usr/lib/x86_64-linux-peios/a.so", b""), "noarch"),
        (link("usr/share/a", "/etc/passwd"), "absolute"),
        (link("usr/share/a", "../../tmp/x"), "leads outside"),
        (Raw { mode: 0o4777, ..file("usr/share/a", b"") }, "mode other than 0777"),
        (Raw { typeflag: b'1', ..link("usr/share/a", "usr/share/b") }, "neither a file"),
        (Raw { typeflag: b'3', ..file("usr/share/a", b"") }, "neither a file"),
        (Raw { typeflag: b'g', ..file("usr/share/a", b"") }, "global extended header"),
        (Raw { typeflag: b'5', ..file("usr/share/a", b"x") }, "has content"),
        (file(".peipkg", b""), "is out of place"),
    ];
    for (raw, expected) in cases {
        refused(&farm, &with_payload(vec![raw]), expected);
    }
    let twice = vec![file("usr/share/a", b""), file("usr/share/a", b"")];
    refused(&farm, &with_payload(twice), "listed twice");
    let unsorted = vec![file("usr/share/b", b""), file("usr/share/a", b"")];
    refused(&farm, &with_payload(unsorted), "order of paths");
    let directory = |path: &str| Raw { typeflag: b'5', ..file(path, b"") };
    let both = vec![file("usr/share/a", b""), file("usr/share/a-b", b""), directory("usr/share/a/")];
    refused(&farm, &with_payload(both), "lies below a file or symbolic link");
    let below_a_link = vec![link("usr/share/a", "b"), file("usr/share/a-b", b""), file("usr/share/a/x", b"")];
    refused(&farm, &with_payload(below_a_link), "lies below a file or symbolic link");
    let mut late = start();
    late.push(file(".peipkg/late", b""));
    refused(&farm, &pack(&late, Some(SEED)), "is out of place");
}

/// Overrides name entries by their path in the archive; a directory's ends in a slash.
#[test]
fn package_manifest_contradicts_its_payload_is_refused() {
    let farm = Farm::new();
    let payload = || {
        vec![
            Raw { typeflag: b'5', ..file("usr/share/a/", b"") },
            link("usr/share/a/l", "x"),
            file("usr/share/a/x", b""),
        ]
    };
    let package = |path: &str, target: &str| {
        let mut manifest = manifest("aa", "1-1", "noarch");
        manifest["sd_overrides"] = json!([{"path": path, "sd": "AQAEgAAAAAAAAAAAAAAAAAAAAAA"}]);
        manifest["provides"] = json!([{"name": "role", "claims": {"data": {"target": target}}}]);
        pack(&entries(manifest, payload()), Some(SEED))
    };
    for path in ["usr/share/a", "usr/share/a/l", "usr/share/a/x/", "/usr/share/a/x"] {
        refused(&farm, &package(path, "/usr/share/a/x"), "is no file or directory of the payload");
    }
    refused(&farm, &package("usr/share/a/x", "/usr/share/a/y"), "is not in the payload");
    farm.clear();
    farm.put("aa", "1-1", "noarch", &package("usr/share/a/", "/usr/share/a/x"));
    check(&farm.publish(), 0, "");
}

/// A link may lead outside the destinations if the package has the directory, wherever it is in the
/// archive.
#[test]
fn package_links_outside_the_destinations_are_refused() {
    let farm = Farm::new();
    let directory = |path: &str| Raw { typeflag: b'5', ..file(path, b"") };
    for target in ["../../tmp", "../../run", "../../usr", "../../usr/lib", "../../proc"] {
        refused(
            &farm,
            &with_payload(vec![link("etc/x/a", target)]),
            "leads outside the permitted destinations",
        );
    }
    let links = [link("etc/x/a", "../../run"), link("etc/x/b", "../../usr/lib")];
    let own = [directory("run/"), directory("usr/"), directory("usr/lib/")];
    let all = [&links[..], &own[..]].concat();
    refused(&farm, &with_payload(all[..4].to_vec()), "\"etc/x/b\": target \"../../usr/lib\"");
    farm.clear();
    farm.put("aa", "1-1", "noarch", &with_payload(all));
    check(&farm.publish(), 0, "");
}

#[test]
fn package_file_list_wrong_is_refused() {
    let farm = Farm::new();
    let spoilt = |from: &str, to: &str| {
        let mut all = start();
        let text = String::from_utf8(all[1].content.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        all[1].content = text.replacen(from, to, 1).into_bytes();
        pack(&all, Some(SEED))
    };
    let hash = repo_support::sha256(b"x");
    refused(&farm, &spoilt(&hash, &repo_support::sha256(b"z")), "another SHA-256");
    refused(&farm, &spoilt(&hash, &hash.to_uppercase()), "64 lower-case hexadecimal digits");
    refused(&farm, &spoilt("\"size\":1", "\"size\":2"), "size_installed says 3");
    refused(&farm, &spoilt("sha256", "blake3"), "expected 1 and \"sha256\"");
    refused(&farm, &spoilt("{", "["), "files.json");
    let mut all = start();
    all.pop();
    refused(&farm, &pack(&all, Some(SEED)), "is in files.json but not in the archive");
    let mut all = start();
    all.push(file("usr/share/a/z", b""));
    refused(&farm, &pack(&all, Some(SEED)), "is not in files.json");
    let mut all = start();
    all[3].content = b"y".to_vec();
    refused(&farm, &pack(&all, Some(SEED)), "another size");
}

#[test]
fn package_manifest_wrong_is_refused() {
    let farm = Farm::new();
    let cases = [
        ("schema_version", json!(2), "schema_version is 2"),
        ("name", json!("../x"), "name \"../x\""),
        ("version", json!("1"), "does not end in -<revision>"),
        ("architecture", json!("X86"), "is not an architecture"),
        ("description", json!("a\u{1b}[2J"), "has the character U+001B; allowed are"),
        ("homepage", json!("javascript:alert(1)"), "http"),
        ("default_root", json!("/mnt"), "name of a root"),
        ("side_effects", json!(["rm -rf"]), "side effect \"rm -rf\""),
        ("side_effects", json!(["ldconfig", "ldconfig"]), "side effect \"ldconfig\" is listed twice"),
        ("replaces", json!(vec![json!({"name": "aa"}); 1001]), "more than 1000 entries"),
        ("provides", json!([{"name": "role", "claims": {"bin": {}}}]), "\"bin\" has no target"),
        (
            "provides",
            json!([{"name": "role", "claims": {"bin": {"target": "/usr/bin/none"}}}]),
            "\"/usr/bin/none\", is not in the payload",
        ),
        ("dependencies", json!([{"name": "role", "claims": {"bin": {"path": "/tmp/x"}}}]), "below /run"),
        ("dependencies", json!([{"name": "b"}, {"name": "aa"}]), "dependencies: \"b\" is not 2 to 128"),
        ("dependencies", json!([{"name": "bb"}, {"name": "aa"}]), "order of the list"),
        ("dependencies", json!([{"name": "bb", "arch": "x86_64"}]), "arch other than"),
        ("conflicts", json!([{"name": "bb", "constraint": "~> 1"}]), "conflicts: \"bb\""),
        (
            "sd_overrides",
            json!([{"path": "usr/share/none", "sd": "AQAEgAAAAAAAAAAAAAAAAAAAAAA"}]),
            "is no file or directory of the payload",
        ),
        ("sd_overrides", json!([{"path": "usr/share/none", "sd": "?"}]), "base64 without padding"),
        ("build", json!({"timestamp": "now", "farm_id": "", "source_ref": ""}), "build.timestamp"),
    ];
    for (key, value, expected) in cases {
        let mut spoilt = manifest("aa", "1-1", "noarch");
        spoilt[key] = value;

        refused(&farm, &pack(&entries(spoilt, Vec::new()), Some(SEED)), expected);
    }
    let mut spoilt = manifest("aa", "1-1", "noarch");
    spoilt.as_object_mut().unwrap().remove("conflicts");
    refused(&farm, &pack(&entries(spoilt, Vec::new()), Some(SEED)), "`conflicts`");
    let other = pack(&entries(manifest("aa", "1-2", "noarch"), Vec::new()), Some(SEED));
    refused(&farm, &other, "its manifest calls for the file name aa_1-2_noarch.peipkg");
}

#[test]
fn package_archive_wrong_is_refused() {
    let farm = Farm::new();
    refused(&farm, b"", "cannot read the package");
    refused(&farm, b"not zstd at all", "cannot read the package");
    let whole = good("aa", "1-1", "noarch");
    refused(&farm, &whole[..whole.len() / 2], "cannot read the package");
    refused(&farm, &[&whole[..], b"trailing"].concat(), "cannot read the package");
    let mut stream = zstd::decode_all(&*whole).unwrap();
    stream[148] ^= 1;
    refused(&farm, &zstd::encode_all(&*stream, 1).unwrap(), "checksum");
    stream[148] ^= 1;
    let end = stream.len() - 1024;
    refused(&farm, &zstd::encode_all(&stream[..end], 1).unwrap(), "cannot read the package");
    refused(&farm, &zstd::encode_all(&stream[..end + 512], 1).unwrap(), "two zero blocks");
    stream.extend(b"more");
    refused(&farm, &zstd::encode_all(&*stream, 1).unwrap(), "follow the end");
    let without = start().split_off(1);
    refused(&farm, &pack(&without, Some(SEED)), "its first entry is not");
    // A key that would change how the entry is read.
    let mut all = start();
    all.insert(2, Raw { typeflag: b'x', mode: 0o644, ..file("x", b"10 size=1\n") });
    refused(&farm, &pack(&all, Some(SEED)), "another record");
    // Two names for one entry, and a name that needs no extended header.
    let long = format!("usr/share/{}", "a".repeat(100));
    for (path, field) in [(&*long, "usr/share/b"), ("usr/share/b", "usr/share/b")] {
        let length = (10..200).find(|length| format!("{length} path={path}\n").len() == *length).unwrap();
        let record = format!("{length} path={path}\n");
        let mut all = start();
        all.insert(2, Raw { typeflag: b'x', mode: 0o644, ..file("x", record.as_bytes()) });
        all[3].path = field.to_owned();
        refused(&farm, &pack(&all, Some(SEED)), "an extended header is not for a long path");
    }
}

#[test]
fn package_bomb_costs_neither_memory_nor_disk() {
    let farm = Farm::new();
    // A few hundred kilobytes that decompress to 5 GiB of zeros, as a package's metadata.
    let mut header = tar(&[file(".peipkg/manifest.json", b"")]);
    header[124..136].copy_from_slice(b"50000000000\0");
    header[148..156].copy_from_slice(b"        ");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    refused(&farm, &compress(header), "decompresses to more than");
    // A manifest of 17 MiB; the limit is 16.
    let mut all = start();
    all[0].content = vec![b' '; 17 << 20];
    refused(&farm, &pack(&all, Some(SEED)), "is larger than the format allows");
}
