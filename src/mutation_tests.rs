//! Everything that reads bytes from outside, given what it should read and thousands of mutilations of it: whatever comes,
//! it answers, soon, and does not panic.
//!
//! The seeds are files of `tests/corpus/<reader>/`. Each is read as it is and then mutated, the same way in each run;
//! `PEIPKG_FUZZ_ROUNDS` and `PEIPKG_FUZZ_SEED` ask for more. An input that has broken something is printed, and belongs
//! into the corpus. `make fuzz` does the same with libFuzzer, which sees what of the code its inputs reach.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::readers::{READERS, Reader};

/// Mutations of each seed, when nothing else is asked for.
const ROUNDS: u64 = 60;

/// What any answer may take: a hundred times what the slowest takes here, so that only a blow-up is found.
const SOON: Duration = Duration::from_secs(5);

/// The longest mutated input, in bytes.
const LONGEST: usize = 64 * 1024;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits") % end
    }

    /// Where something begins and ends in `length` bytes.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (one, other) = (self.below(length + 1), self.below(length + 1));
        one.min(other)..one.max(other)
    }
}

/// Bytes that mean something to one reader or another.
const TOKENS: [&[u8]; 16] = [
    b"\0",
    b"\n",
    b"\r\n\r\n",
    b"\"",
    b"\\u0000",
    b"[[",
    b"]]",
    b"{",
    b"}",
    b"99999999999999999999",
    b"-1",
    b"\xff",
    "\u{202e}".as_bytes(),
    b"((((",
    b"{1000}",
    b"=",
];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(random.range(bytes.len()))),
            3 => {
                let part = bytes[random.range(bytes.len())].to_vec();
                for _ in 0..=random.below(20) {
                    bytes.splice(at.min(bytes.len())..at.min(bytes.len()), part.iter().copied());
                }
            }
            4 => drop(bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            5 => drop(bytes.splice(at..at, other[random.range(other.len())].iter().copied())),
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                for _ in 0..random.below(300) {
                    bytes.extend_from_slice(token);
                }
            }
        }
        bytes.truncate(LONGEST);
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .filter(|text| !text.is_empty())
        .map_or(default, |text| text.parse().expect("a number"))
}

fn seeds(reader: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(reader);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn check(reader: &str, read: Reader, seed: &Path, bytes: &[u8]) {
    let started = Instant::now();
    let answered = catch_unwind(|| read(bytes)).is_ok();
    let took = started.elapsed();
    let shown = bytes.escape_ascii();
    assert!(answered, "{reader} panicked over a mutation of {}:\n{shown}", seed.display());
    assert!(took < SOON, "{reader} took {took:?} over a mutation of {}:\n{shown}", seed.display());
}

#[test]
fn readers_of_mutated_input_keep_their_promise() {
    let rounds = number("PEIPKG_FUZZ_ROUNDS", ROUNDS);
    let start = number("PEIPKG_FUZZ_SEED", 1);
    println!("PEIPKG_FUZZ_SEED={start} PEIPKG_FUZZ_ROUNDS={rounds}");
    for (reader, read) in READERS {
        let seeds = seeds(reader);
        assert!(!seeds.is_empty(), "no seeds for {reader}");
        let mut random = Random(start.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for (path, bytes) in &seeds {
            check(reader, read, path, bytes);
            for _ in 0..rounds {
                let mut mutated = bytes.clone();
                let other = &seeds[random.below(seeds.len())].1;
                mutate(&mut mutated, other, &mut random);
                check(reader, read, path, &mutated);
            }
        }
    }
}

#[test]
fn readers_and_corpora_belong_together() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let readers = READERS.map(|(reader, _)| reader.to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from(readers));
}
