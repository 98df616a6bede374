//! Feeds every reader of outside bytes with good input and thousands of mutations of it. A reader must
//! return soon and must not panic.
//!
//! The seeds are the files in `tests/corpus/<reader>/`. Each is read unchanged, then mutated in the
//! same way in every run; `PEIPKG_FUZZ_ROUNDS` and `PEIPKG_FUZZ_SEED` change that. A failure prints
//! its input: add it to the corpus. `make fuzz` does the same with libFuzzer, which sees the code that
//! an input reaches.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::readers::{READERS, Reader};

/// The default number of mutations of each seed.
const ROUNDS: u64 = 60;

/// How long a reader may take: a hundred times as long as the slowest one, so that only a blow-up
/// fails.
const SOON: Duration = Duration::from_secs(5);

/// The longest mutated input, in bytes.
const LONGEST: usize = 64 * 1024;

/// A generator of random numbers: xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits") % end
    }

    /// Returns a random range in `length` bytes.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (one, other) = (self.below(length + 1), self.below(length + 1));
        one.min(other)..one.max(other)
    }
}

/// Bytes with a meaning to some of the readers.
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

fn env_number(name: &str, default: u64) -> u64 {
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
    let read = || {
        let started = Instant::now();
        (catch_unwind(|| read(bytes)).is_ok(), started.elapsed())
    };
    let (has_returned, mut took) = read();
    if has_returned && took >= SOON {
        // The machine may have stood still; a slow reader is slow again.
        took = read().1;
    }
    let input = bytes.escape_ascii();
    assert!(has_returned, "{reader} panicked over a mutation of {}:\n{input}", seed.display());
    assert!(took < SOON, "{reader} took {took:?} over a mutation of {}:\n{input}", seed.display());
}

#[test]
fn readers_of_mutated_input_return_soon_without_panic() {
    let rounds = env_number("PEIPKG_FUZZ_ROUNDS", ROUNDS);
    let start = env_number("PEIPKG_FUZZ_SEED", 1);
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

/// `cargo test` passes if no test has the name that a script gives it.
#[test]
fn tests_that_make_fuzz_runs_exist() {
    let script = include_str!("../contrib/fuzz/run.sh");
    let tests = [
        include_str!("mutation_tests.rs"),
        include_str!("../contrib/peipkg-tools/tests/build/signing_random.rs"),
    ];
    let named: Vec<&str> =
        script.split("--nocapture ").skip(1).filter_map(|rest| rest.lines().next()).collect();
    assert!(named.len() >= 2, "{named:?}");
    for name in named {
        assert!(tests.iter().any(|text| text.contains(&format!("\nfn {name}()"))), "{name}");
    }
}

#[test]
fn every_reader_has_a_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let readers = READERS.map(|(reader, _)| reader.to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from(readers));
}
