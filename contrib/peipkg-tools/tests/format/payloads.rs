//! Random payloads, built by the real tool: its stream is that of the second implementation, and
//! every reader sees the same names.
//!
//! `PEIPKG_FUZZ_ROUNDS` is the number of random entries, and `PEIPKG_FUZZ_SEED` repeats a run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::{Run, binary, system};
use crate::random::{Random, number_from_environment};
use crate::repo_support::{Farm, TIME, check, manifest};
use crate::second::Entry;

/// [`TIME`] in seconds since 1970, from `date +%s`.
const MTIME: u64 = 1_777_636_800;
/// Random entries of one package.
const ENTRIES: u64 = 250;
/// Lengths at which a writer may change its mind, and their neighbours.
const EDGES: [usize; 7] = [98, 100, 101, 155, 156, 157, 256];

/// A length near an edge, or any.
fn length(random: &mut Random) -> usize {
    if random.one_in(4) { 8 + random.below(600) } else { EDGES[random.below(7)] + random.below(4) - 1 }
}

/// A text of `length` bytes without a slash: ASCII, or with characters of two to four bytes.
fn component(random: &mut Random, length: usize) -> String {
    // Of one in three components, some characters are beyond ASCII; of one in nine, all.
    let (some, all) = (random.one_in(3), random.one_in(9));
    let mut text = String::new();
    while text.len() < length {
        let left = length - text.len();
        let wide = all || (some && random.one_in(4));
        let fitting = ['é', '漢', '🦀'].into_iter().filter(|wide| wide.len_utf8() <= left);
        match fitting.collect::<Vec<_>>()[..] {
            [.., last] if wide && random.one_in(2) => text.push(last),
            [first, ..] if wide => text.push(first),
            _ => text.push(char::from(b"abcXYZ019-._+ ~"[random.below(15)])),
        }
    }
    match text.as_str() {
        "." => "x".to_owned(),
        ".." => "xx".to_owned(),
        _ => text,
    }
}

/// A relative path of `length` bytes that starts with `start`. Slashes are likely where a writer may
/// split or cut.
fn path(random: &mut Random, start: &str, length: usize) -> String {
    let mut text = start.to_owned();
    while text.len() < length {
        let edges = [98, 99, 100, 154, 155, 156, length.saturating_sub(101), length.saturating_sub(102)];
        let end = match random.below(3) {
            0 => edges[random.below(8)],
            1 => text.len() + 1 + random.below(254),
            _ => length,
        };
        // A component has at most 255 bytes, with the one that may be added below.
        let end = end.clamp(text.len() + 1, (text.len() + 254).min(length));
        text += &component(random, end - text.len());
        if text.len() + 1 < length {
            text.push('/');
        } else if text.len() < length {
            text.push('z');
        }
    }
    text
}

/// A target below the link's directory. Slashes may be repeated and may end it.
fn target(random: &mut Random) -> String {
    let length = length(random);
    let mut text = path(random, "", length);
    for _ in 0..random.below(3) {
        let slash = text.match_indices('/').map(|(at, _)| at).nth(random.below(4));
        text.insert(slash.unwrap_or(text.len()), '/');
    }
    text.trim_start_matches('/').to_owned()
}

/// Creates random entries below `root`. Leaves out those whose place is taken.
fn create(random: &mut Random, root: &Path) {
    for number in 0..ENTRIES {
        let length = length(random);
        let relative = path(random, "opt/", length);
        let place = root.join(&relative);
        let parent = place.parent().unwrap();
        if fs::create_dir_all(parent).is_err() || fs::symlink_metadata(&place).is_ok() {
            continue;
        }
        match random.below(3) {
            0 => fs::create_dir(&place).unwrap(),
            1 => symlink(target(random), &place).unwrap(),
            _ => fs::write(&place, format!("{number}").repeat(random.below(400))).unwrap(),
        }
    }
}

/// Adds the entries below `directory` to `entries`, by their paths in the archive.
fn walk(directory: &Path, prefix: &str, entries: &mut BTreeMap<Vec<u8>, Entry>) {
    for found in fs::read_dir(directory).unwrap() {
        let found = found.unwrap();
        let (kind, mut path) =
            (found.file_type().unwrap(), format!("{prefix}{}", found.file_name().display()));
        let mut entry = Entry::file(&path, b"");
        if kind.is_dir() {
            path.push('/');
            entry = Entry { path: path.clone().into(), flag: b'5', ..entry };
            walk(&found.path(), &path, entries);
        } else if kind.is_symlink() {
            let target = fs::read_link(found.path()).unwrap();
            entry = Entry { flag: b'2', target: target.into_os_string().into_encoded_bytes(), ..entry };
        } else {
            entry.content = fs::read(found.path()).unwrap();
        }
        entries.insert(path.into(), entry);
    }
}

/// A manifest that mentions every entry, so that a reader that sees another name refuses the
/// package.
fn mentioning(name: &str, entries: &BTreeMap<Vec<u8>, Entry>) -> Value {
    let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
    let (links, others): (Vec<_>, Vec<_>) = entries.values().partition(|entry| entry.flag == b'2');
    let mut manifest = manifest(name, "1-1", "noarch");
    manifest["sd_overrides"] = others
        .iter()
        .map(|entry| json!({"path": text(&entry.path), "sd": "AQAEgAAAAAAAAAAAAAAAAAAAAAA"}))
        .collect();
    let claims = |(at, link): (usize, &&Entry)| {
        let target = format!("/{}", text(&link.path));
        json!({"name": format!("role-{at:05}"), "claims": {"link": {"target": target}}})
    };
    manifest["provides"] = links.iter().enumerate().map(claims).collect();
    manifest
}

/// Checks a whole stream against the second implementation. The tool's own documents count as they
/// are: other tests hold their text.
#[track_caller]
fn check_stream(name: &str, stream: &[u8], entries: &BTreeMap<Vec<u8>, Entry>) {
    let mut at = 0;
    let mut next = |expected: &[u8], what: &dyn Fn() -> String| {
        let found = &stream[at..(at + expected.len()).min(stream.len())];
        let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
        assert_eq!((differs, found.len()), (None, expected.len()), "{name}: {}", what());
        at += expected.len();
        at
    };
    let document = |at: usize, path: &str| {
        let size = std::str::from_utf8(&stream[at + 124..at + 135]).unwrap();
        let size = usize::from_str_radix(size, 8).unwrap();
        Entry::file(path, &stream[at + 512..at + 512 + size]).blocks(MTIME)
    };
    let mut place = 0;
    for path in [".peipkg/manifest.json", ".peipkg/files.json"] {
        place = next(&document(place, path), &|| path.to_owned());
    }
    for entry in entries.values() {
        place = next(&entry.blocks(MTIME), &|| format!("{entry:?}"));
    }
    place = next(&document(place, ".peipkg/signature"), &|| "signature".to_owned());
    assert_eq!(stream[place..], [0; 1024], "{name}");
}

/// Compares the names and targets that two foreign readers see.
#[track_caller]
fn check_readers(name: &str, stream: &[u8], entries: &BTreeMap<Vec<u8>, Entry>) {
    let payload = |path: &[u8]| !path.starts_with(b".peipkg/");
    let mut seen = Vec::new();
    for entry in tar::Archive::new(stream).entries().unwrap() {
        let entry = entry.unwrap();
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        seen.push((entry.path_bytes().into_owned(), target));
    }
    seen.retain(|(path, _)| payload(path));
    let expected: Vec<_> = entries.values().map(|entry| (entry.path.clone(), entry.target.clone())).collect();
    assert_eq!(seen, expected, "{name}: the tar crate");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(stream).unwrap();
    let options = [OsStr::new("--quoting-style=literal"), OsStr::new("-tf"), file.path().as_os_str()];
    if let Some(listing) = system("tar", &options, b"") {
        assert!(listing.status.success(), "{}", String::from_utf8_lossy(&listing.stderr));
        let names =
            listing.stdout.split(|byte| *byte == b'\n').filter(|name| !name.is_empty() && payload(name));
        let expected: Vec<&[u8]> = entries.keys().map(Vec::as_slice).collect();
        assert_eq!(names.collect::<Vec<_>>(), expected, "{name}: tar");
    }
}

#[test]
fn random_payloads_are_the_second_implementations_and_every_reader_agrees() {
    let rounds = number_from_environment("PEIPKG_FUZZ_ROUNDS", 3000);
    let seed = number_from_environment("PEIPKG_FUZZ_SEED", 1);
    println!("PEIPKG_FUZZ_SEED={seed} PEIPKG_FUZZ_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let farm = Farm::new();
    let (mut headers, packages) = (0, rounds.div_ceil(ENTRIES));
    for number in 0..packages {
        let name = format!("random-{number:05}");
        let staged = farm.path("staged");
        create(&mut random, &staged);
        let mut entries = BTreeMap::new();
        walk(&staged, "", &mut entries);
        headers += entries.len() as u64;
        let manifest = mentioning(&name, &entries);
        fs::write(farm.path("manifest.json"), manifest.to_string()).unwrap();
        let package = farm.new_dir().join(format!("{name}_1-1_noarch.peipkg"));
        let mut command = binary();
        command.arg("pack").arg("--manifest").arg(farm.path("manifest.json")).arg("--staged").arg(&staged);
        command.arg("--out").arg(&package).arg("--sign-key").arg(farm.key());
        let run = Run::of(&mut command);
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{name}");
        let stream = zstd::decode_all(&*fs::read(&package).unwrap()).unwrap();
        check_stream(&name, &stream, &entries);
        check_readers(&name, &stream, &entries);
        fs::remove_dir_all(&staged).unwrap();
    }
    assert!(headers > rounds, "{headers} entries only");
    assert_eq!(TIME, "2026-05-01T12:00:00Z");
    // Our reader, which also compares every name with the manifest and the file list.
    check(&farm.publish(), 0, "");
    let verified = farm.verify();
    check(&verified, 0, "");
    assert!(String::from_utf8(verified.stdout).unwrap().starts_with(&format!("ok: {packages} packages")));
}
