//! Spoilt packages: the reader refuses them or reads them as others do, and never panics.
//!
//! `PEIPKG_FUZZ_ROUNDS` is the number of packages, and `PEIPKG_FUZZ_SEED` repeats a run.

use std::fs;
use std::io::{Cursor, Read as _};

use ed25519_dalek::{SigningKey, VerifyingKey};
use peipkg_tools::package_reader;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::random::{Random, number_from_environment};
use crate::repo_support::{SEED, compress, envelope, file, sha256, tar};

/// The tar streams of the deployed tools' packages, without signature and end.
fn streams() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/packages");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let stream = |path| {
        let mut stream = zstd::decode_all(&*fs::read(path).unwrap()).unwrap();
        let signature = stream.windows(17).rposition(|window| window == b".peipkg/signature").unwrap();
        stream.truncate(signature);
        stream
    };
    paths.into_iter().map(stream).collect()
}

/// Spoils a stream in one of many ways, some of which keep it valid.
fn spoil(random: &mut Random, stream: &mut Vec<u8>, others: &[Vec<u8>]) {
    let block = |random: &mut Random, stream: &[u8]| 512 * random.below(stream.len() / 512);
    match random.below(7) {
        0 => {
            let at = random.below(stream.len());
            stream[at] = random.number().to_le_bytes()[0];
        }
        1 => {
            // A field of a block takes the bytes of another block's.
            let fields = [0..100, 100..108, 124..136, 156..157, 157..257, 345..500, 500..512, 0..512];
            let field = fields[random.below(8)].clone();
            let other = &others[random.below(others.len())];
            let (to, from) = (block(random, stream), block(random, other));
            stream[to + field.start..to + field.end]
                .copy_from_slice(&other[from + field.start..from + field.end]);
        }
        2 => {
            let at = block(random, stream);
            stream[at + 156] = b"0125xgLK7\0"[random.below(10)];
        }
        3 => {
            let (from, to) = (block(random, stream), block(random, stream));
            let copied = stream[from..from + 512].to_vec();
            stream.splice(to..to, copied);
        }
        4 => {
            let at = block(random, stream);
            stream.drain(at..at + 512);
        }
        5 => {
            // Text: a path, a record or a document.
            let at = random.below(stream.len() - 8);
            let word: &[u8] =
                [&b"/"[..], b"..", b"\0", b"\xc3", b"9", b"path=", b"\n", b"{"][random.below(8)];
            stream[at..at + word.len()].copy_from_slice(word);
        }
        _ => {
            let at = block(random, stream);
            stream[at + 345 + random.below(155)] = b"a/.\0\xff"[random.below(5)];
        }
    }
}

/// Writes the right checksum into every block that looks like a header: otherwise most spoilt packages
/// would be refused for it.
fn seal(stream: &mut [u8]) {
    for block in stream.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

/// The regular files that another reader sees, as they are in a file list.
fn files(stream: &[u8]) -> Vec<(String, u64, String)> {
    let mut found = Vec::new();
    for entry in tar::Archive::new(stream).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        if entry.header().entry_type().is_file() && !path.starts_with(".peipkg/") {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((path, content.len() as u64, sha256(&content)));
        }
    }
    found
}

/// The file list of a stream.
fn listed(stream: &[u8]) -> Vec<(String, u64, String)> {
    let mut archive = tar::Archive::new(stream);
    let mut entry = archive.entries().unwrap().nth(1).unwrap().unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let field = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    let entries = list["entries"].as_array().unwrap().iter();
    entries
        .map(|entry| (field(entry, "path"), entry["size"].as_u64().unwrap(), field(entry, "hash")))
        .collect()
}

#[test]
fn random_changes_never_mislead_the_reader() {
    let rounds = number_from_environment("PEIPKG_FUZZ_ROUNDS", 4000);
    let seed = number_from_environment("PEIPKG_FUZZ_SEED", 1);
    println!("PEIPKG_FUZZ_SEED={seed} PEIPKG_FUZZ_ROUNDS={rounds}");
    let key: VerifyingKey = SigningKey::from_bytes(&SEED).verifying_key();
    let read = |bytes: &[u8]| package_reader::read(Cursor::new(bytes), |_| Some(&key));
    let streams = streams();
    let mut random = Random::new(seed);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut stream = streams[random.below(streams.len())].clone();
        for _ in 0..random.below(4) {
            spoil(&mut random, &mut stream, &streams);
        }
        if !random.one_in(8) {
            seal(&mut stream);
        }
        let envelope = format!("{}\n", envelope(SEED, &Sha256::digest(&stream)));
        stream.extend(tar(&[file(".peipkg/signature", envelope.as_bytes())]));
        let mut package = compress(stream.clone());
        // Few of the packages are damaged as files.
        let is_damaged = random.one_in(20);
        if is_damaged {
            let at = random.below(package.len());
            package[at] ^= 1 << random.below(8);
        }
        match read(&package) {
            Ok(_) => {
                accepted += 1;
                assert_eq!(files(&stream), listed(&stream), "seed {seed}: another reader sees other files");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > rounds / 10 && refused > rounds / 3, "{accepted} accepted, {refused} refused");
}
