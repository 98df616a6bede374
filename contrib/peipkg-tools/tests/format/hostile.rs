//! Headers that two readers could read in two ways, and orders of entries: each is refused with its
//! reason.

use ed25519_dalek::SigningKey;
use peipkg_tools::package_reader;
use sha2::{Digest as _, Sha256};
use std::io::Cursor;

use crate::repo_support::{
    Farm, Raw, SEED, check, compress, entries, envelope, file, link, manifest, pack, tar,
};

/// The offset and the size of the field for the prefix.
const PREFIX: usize = 345;

/// A header that [`tar`] cannot write: bytes to put at offsets, after which the checksum is right again.
type Patch<'a> = &'a [(usize, &'a [u8])];

/// Makes a package of these payload entries, each with its patch, that is otherwise good.
fn package(payload: &[(Raw, Patch<'_>)], paths: &[&str]) -> Vec<u8> {
    let listed = paths.iter().map(|path| file(path, b"")).collect();
    let mut stream = tar(&entries(manifest("aa", "1-1", "noarch"), listed)[..2]);
    for (raw, patch) in payload {
        let mut blocks = tar(std::slice::from_ref(raw));
        for (at, bytes) in *patch {
            blocks[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        blocks[148..156].fill(b' ');
        let sum: u32 = blocks[..512].iter().map(|byte| u32::from(*byte)).sum();
        blocks[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        stream.extend(blocks);
    }
    let envelope = format!("{}\n", envelope(SEED, &Sha256::digest(&stream)));
    stream.extend(tar(&[file(".peipkg/signature", envelope.as_bytes())]));
    compress(stream)
}

/// Reads a package and returns why it is refused, or nothing.
fn reason(package: &[u8]) -> String {
    let key = SigningKey::from_bytes(&SEED).verifying_key();
    match package_reader::read(Cursor::new(package), |_| Some(&key)) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// An extended header with these records.
fn extended(records: &str) -> Raw {
    Raw { typeflag: b'x', mode: 0, ..file("PaxHeaders.0/x", records.as_bytes()) }
}

/// A record of an extended header.
fn record(key: &str, value: &str) -> String {
    let made = |length: usize| format!("{length} {key}={value}\n");
    (1..9999).map(made).find(|record| record.starts_with(&format!("{} ", record.len()))).unwrap()
}

#[test]
fn header_prefix_is_part_of_the_path() {
    let one = |name: &str, prefix: &[u8], path: &str| {
        reason(&package(&[(file(name, b""), &[(PREFIX, prefix)])], &[path]))
    };
    assert_eq!(one("x", b"usr/share", "usr/share/x"), "");
    assert_eq!(
        one(&"n".repeat(100), &[b'p'; 155], ""),
        format!(
            "entry \"{}/{}\" is outside the permitted destinations (PSD-009 §3.4.1)",
            "p".repeat(155),
            "n".repeat(100)
        )
    );
    let long = format!("opt/{}", "p".repeat(151));
    assert_eq!(one(&"n".repeat(100), long.as_bytes(), &format!("{long}/{}", "n".repeat(100))), "");
    // The file list has the name without the prefix.
    assert!(one("usr/share/x", b"opt", "usr/share/x").contains("is not in files.json at its place"));
    for (name, prefix, expected) in [
        ("x", &b"usr/share/"[..], "component"),
        ("x", b"/usr/share", "component"),
        ("x", b"usr/share/..", "component"),
        ("../x", b"usr/share/a", "component"),
        ("/x", b"usr/share", "component"),
        ("", b"usr/share", "a header has a prefix but no name"),
        ("x", b"usr/share\0/y", "a header has padding that is not zero"),
        ("x", b"usr\xff", "a path is not UTF-8"),
        ("manifest.json", b".peipkg", "is out of place"),
    ] {
        let found = one(name, prefix, "usr/share/x");
        assert!(found.contains(expected), "{name:?} after {prefix:?}: {found:?}");
    }
    // The rest of the block is no part of the prefix.
    let found = reason(&package(&[(file("usr/share/x", b""), &[(500, b"tar")])], &["usr/share/x"]));
    assert_eq!(found, "not a package archive: a header has padding that is not zero");
}

/// Readers skip and stop at different bytes, so they could see another size.
#[test]
fn header_number_that_is_read_in_two_ways_is_refused() {
    let one = |size: &[u8]| {
        reason(&package(&[(file("usr/share/x", b"1234567"), &[(124, size)])], &["usr/share/x"]))
    };
    let bad = "not a package archive: a header has a bad number";
    for size in
        [&b"\x00000000007\0"[..], b" 0000000007\0", b"00000 000007", b"00000000007x", b"0000000000\x007"]
    {
        assert_eq!(one(size), bad, "{size:?}");
    }
    for size in [&b"\0\0\0\0\0\0\0\0\0\0\0\0"[..], b"0000000000-7", b"\x80\0\0\0\0\0\0\0\0\0\0\x07"] {
        assert_eq!(one(size), bad, "{size:?}");
    }
    for size in [&b"7 \0\0\0\0\0\0\0\0\0\0"[..], b"0000000007 \0", b"000000000007"] {
        assert!(one(size).contains("files.json says"), "{size:?}: {}", one(size));
    }
}

#[test]
fn header_extended_that_is_read_in_two_ways_is_refused() {
    let path = format!("usr/share/{}", "x".repeat(100));
    let target = "t".repeat(101);
    let good = record("path", &path);
    let both = |first: &str, second: &str, own: &Raw, patch| {
        reason(&package(&[(extended(&format!("{first}{second}")), &[]), (own.clone(), patch)], &[&path]))
    };
    let own = file(&path[..100], b"");
    assert_eq!(both(&good, "", &own, &[]), "");
    let own_link = link("usr/share/l", &target[..100]);
    let linkpath = record("linkpath", &target);
    let empty = "not a package archive: an extended header is malformed";
    let moved =
        "not a package archive: an extended header is not for a long path, or not for its entry's path";
    assert_eq!(both(&good, "", &own, &[(PREFIX, b"opt")]), moved);
    assert_eq!(both(&good, &good, &own, &[]), empty);
    assert_eq!(both("", "", &own, &[]), empty);
    assert!(both(&linkpath, &good, &own, &[(157, &[b't'; 100])]).contains("but is no symbolic link"));
    assert!(both(&good, &record("mtime", "1"), &own, &[]).contains("another record than path or linkpath"));
    // A link's records may have either order, and its path may be split.
    let path_of_link = format!("opt/{}", "l".repeat(100));
    let own_long = link(&path_of_link[..100], &target[..100]);
    let of_link = record("path", &path_of_link);
    for records in [format!("{linkpath}{of_link}"), format!("{of_link}{linkpath}")] {
        assert_eq!(reason(&package(&[(extended(&records), &[]), (own_long.clone(), &[])], &[])), "");
    }
    let split: Patch<'_> = &[(PREFIX, b"opt")];
    assert_eq!(reason(&package(&[(extended(&linkpath), &[]), (own_link, split)], &[])), "");
}

#[test]
fn entries_sorted_without_the_slash_of_directories_are_refused_with_the_reason() {
    let directory = |path: &str| Raw { typeflag: b'5', ..file(path, b"") };
    let sorted =
        |entries_of: [Raw; 3]| pack(&entries(manifest("aa", "1-1", "noarch"), entries_of.into()), Some(SEED));
    let (foo, bar, x) = (directory("opt/foo/"), file("opt/foo-bar", b"1"), file("opt/foo/x", b"2"));
    let farm = Farm::new();
    let path = farm.put("aa", "1-1", "noarch", &sorted([foo.clone(), bar.clone(), x.clone()]));
    let before = farm.snapshot();
    let refused = farm.publish();
    let line = format!(
        "peipkg-repo: {}: entry \"opt/foo-bar\" follows \"opt/foo/\", which sorts after it: the / of a directory \
         counts in the order of entries (PSD-009 §3.1.4), and clients refuse the package; build it again with \
         another peipkg-build\n",
        path.display()
    );
    check(&refused, 1, &line);
    assert_eq!(farm.snapshot(), before);
    // A rebuild only warns: packages that another tool has published stay.
    let all = farm.new_dir().display().to_string();
    let rebuild = [
        &["publish", "--in", "REPO", "--rebuild", "--all-packages-dir", &all][..],
        &["--sign-key", "KEY", "--timestamp", "2026-05-01T12:00:00Z", "--out", "REPO"],
    ];
    let output = farm.run(&rebuild.concat());
    let warned = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), warned), (Some(0), line.replace("repo: ", "repo: warning: ")));
    assert_eq!(farm.listed("active"), ["aa 1-1 noarch"]);
    // The right order, and one that is neither.
    let farm = Farm::new();
    farm.put("aa", "1-1", "noarch", &sorted([bar.clone(), foo.clone(), x.clone()]));
    check(&farm.publish(), 0, "");
    let farm = Farm::new();
    farm.put("aa", "1-1", "noarch", &sorted([bar, x, foo]));
    check(&farm.publish(), 1, "is not in the order of paths, or is there twice");
}
