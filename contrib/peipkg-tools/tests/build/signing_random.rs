//! Signs thousands of random ELF files, valid and mutated, by the tool's code and by `elf.rs`, and
//! compares every byte. `PEIPKG_FUZZ_ROUNDS` and `PEIPKG_FUZZ_SEED` make other or more files.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use peipkg_tools::binary_sign::elf::ElfError;
use peipkg_tools::binary_sign::{SignError, sign};
use peipkg_tools::chunks::CHUNK;

use crate::elf::{self, Refusal};
use crate::random::{Random, number_from_environment};
use crate::signing::{KEY, SAMPLE, SIGNED_SAMPLE};

/// How many files a usual run signs.
const ROUNDS: u64 = 6_000;

/// Signs by the tool's code.
fn by_tool(file: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut output = Cursor::new(Vec::new());
    let key = SigningKey::from_bytes(KEY);
    match sign(&mut Cursor::new(file), &mut output, &key, || Ok::<_, ()>(())) {
        Ok(()) => Ok(output.into_inner()),
        Err(SignError::SelfCheck) => Err(Refusal::SelfCheck),
        Err(SignError::Elf(error)) => Err(match error {
            ElfError::NotElf => Refusal::NotElf,
            ElfError::NoSections { .. } => Refusal::NoSections,
            ElfError::NamesIndex { .. } | ElfError::PastEnd { .. } | ElfError::NamesTooLong(_) => {
                Refusal::Malformed
            }
            ElfError::Present(_) => Refusal::Signed,
            ElfError::TooMany(_) => Refusal::TooMany,
        }),
        Err(error) => panic!("a file in memory: {error:?}"),
    }
}

/// Compares both, and returns the reason of a refusal.
#[track_caller]
fn check(file: &[u8]) -> Option<Refusal> {
    let (found, expected) = (by_tool(file), elf::signed(file, KEY));
    let verdict = |result: &Result<Vec<u8>, Refusal>| result.as_ref().map(Vec::len).map_err(|error| *error);
    assert_eq!(verdict(&found), verdict(&expected), "{}", file.escape_ascii());
    assert!(found == expected, "the bytes differ: {}", file.escape_ascii());
    found.err()
}

/// A file of random parts in a random order: section headers, names, and filling.
fn random_file(random: &mut Random) -> Vec<u8> {
    let count = 2 + random.below(9);
    let index = 1 + random.below(count - 1);
    let mut names = vec![0];
    let mut starts = vec![0_usize];
    for _ in 0..random.below(12) {
        starts.push(names.len());
        let name = *[".text", ".data", ".peios.si", ".peios.sigs", "peios.sig", ".debug_info", ""]
            .get(random.below(7))
            .unwrap();
        names.extend_from_slice(name.as_bytes());
        if !random.one_in(40) {
            names.push(0);
        }
    }
    match random.below(60) {
        0 => names.extend_from_slice(b".peios.sig\0"),
        1 => names.extend_from_slice(b".peios.sig"),
        2 => names.clear(),
        _ => {}
    }
    starts.push(names.len().saturating_sub(11));

    let mut file = vec![0; 64];
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let add_bytes = |file: &mut Vec<u8>, random: &mut Random| {
        for _ in 0..random.below(70) {
            file.push(u8::try_from(random.below(256)).unwrap());
        }
    };
    add_bytes(&mut file, random);
    let first = random.one_in(2);
    let mut names_at = file.len();
    if first {
        file.extend_from_slice(&names);
        add_bytes(&mut file, random);
    }
    let table = file.len();
    for section in 0..count {
        let mut header = [0; 64];
        header.iter_mut().skip(4).for_each(|byte| *byte = u8::try_from(random.below(256)).unwrap());
        let name = starts[random.below(starts.len())];
        // Sometimes behind the end, where the new name will be.
        let name = if random.one_in(100) { names.len() + random.below(2) } else { name };
        header[..4].copy_from_slice(&u32::try_from(name).unwrap().to_le_bytes());
        if section == index {
            header[32..40].copy_from_slice(&(names.len() as u64).to_le_bytes());
        }
        file.extend_from_slice(&header);
    }
    add_bytes(&mut file, random);
    if !first {
        names_at = file.len();
        file.extend_from_slice(&names);
        add_bytes(&mut file, random);
    }
    let field = table + 64 * index + 24;
    file[field..field + 8].copy_from_slice(&(names_at as u64).to_le_bytes());
    file[40..48].copy_from_slice(&(table as u64).to_le_bytes());
    for (at, value) in [(58, 64), (60, count), (62, index)] {
        file[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap().to_le_bytes());
    }
    file
}

/// Spoils a number, a byte or the end of a file.
fn mutate(file: &mut Vec<u8>, random: &mut Random) {
    let length = file.len() as u64;
    let numbers = [
        0,
        1,
        2,
        63,
        64,
        65,
        length - 1,
        length,
        length + 1,
        1 << 31,
        1 << 32,
        1 << 63,
        u64::MAX,
        u64::MAX - 63,
    ];
    let number = numbers[random.below(numbers.len())];
    let number = if random.one_in(3) { length.wrapping_sub(random.number() % 200) } else { number };
    let table = u64::from_le_bytes(*file[40..].first_chunk().unwrap());
    let in_table = usize::try_from(table).unwrap_or(0).saturating_add(random.below(640));
    let places = [(40, 8), (58, 2), (60, 2), (62, 2), (in_table, 8), (in_table & !7, 8), (in_table & !63, 4)];
    let (at, width) = places[random.below(places.len())];
    match random.below(5) {
        0 => file.truncate(random.below(file.len() + 1)),
        1 => {
            let at = random.below(file.len());
            file[at] ^= 1 << random.below(8);
        }
        2 => {
            let at = random.below(8);
            file[at] = u8::try_from(random.below(256)).unwrap();
        }
        _ if at < file.len() && at + width <= file.len() => {
            file[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        _ => {}
    }
}

#[test]
fn files_random_or_mutated_are_signed_as_the_rules_say() {
    let rounds = number_from_environment("PEIPKG_FUZZ_ROUNDS", ROUNDS);
    let seed = number_from_environment("PEIPKG_FUZZ_SEED", 1);
    println!("PEIPKG_FUZZ_SEED={seed} PEIPKG_FUZZ_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let mut verdicts: BTreeMap<Option<Refusal>, u64> = BTreeMap::new();
    for round in 0..rounds {
        let mut file = match random.below(8) {
            0 => SAMPLE.to_vec(),
            1 if random.one_in(4) => SIGNED_SAMPLE.to_vec(),
            _ => random_file(&mut random),
        };
        for _ in 0..(round % 4).min(2) {
            if file.len() >= 64 {
                mutate(&mut file, &mut random);
            }
        }
        *verdicts.entry(check(&file)).or_default() += 1;
    }
    println!("{verdicts:?}");
    // Else the random files are too much alike for a comparison.
    if rounds >= ROUNDS {
        let refusals =
            [Refusal::NotElf, Refusal::NoSections, Refusal::Malformed, Refusal::Signed, Refusal::SelfCheck];
        for verdict in refusals.map(Some).into_iter().chain([None]) {
            assert!(verdicts.get(&verdict).is_some_and(|count| *count >= 10), "{verdict:?} in {verdicts:?}");
        }
    }
}

/// A file with `count` section headers, all zero but for that of the names.
fn many_sections(count: u16) -> Vec<u8> {
    let mut file = vec![0; 64 + 64 * usize::from(count) + 1];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[40] = 64;
    file[58] = 64;
    file[62] = 1;
    file[60..62].copy_from_slice(&count.to_le_bytes());
    let end = file.len() as u64 - 1;
    file[152..160].copy_from_slice(&end.to_le_bytes());
    file[160] = 1;
    file
}

#[test]
fn number_of_sections_does_not_overflow() {
    assert_eq!(check(&many_sections(0xfefe)), None);
    for count in [0xfeff, 0xff00, 0xffff] {
        assert_eq!(check(&many_sections(count)), Some(Refusal::TooMany));
    }
}

#[test]
fn caller_asks_to_stop_before_each_chunk() {
    // A file of five chunks and some bytes: the header, six chunks, and what is appended.
    let mut file = SAMPLE.to_vec();
    file.resize(5 * CHUNK + 100, 0);
    for allowed in 0..8 {
        let calls = Cell::new(0);
        let check = || {
            calls.set(calls.get() + 1);
            if calls.get() > allowed { Err("stop") } else { Ok(()) }
        };
        let mut output = Cursor::new(Vec::new());
        let result = sign(&mut Cursor::new(&file), &mut output, &SigningKey::from_bytes(KEY), check);
        assert!(matches!(result, Err(SignError::Stopped("stop"))), "{result:?}");
        assert!(output.into_inner().len() <= allowed * CHUNK, "{allowed}");
    }
}

/// Names without an end must not be searched once for each section.
#[test]
fn names_without_end_are_compared_soon() {
    let mut file = many_sections(0xfefe);
    let names = vec![b'.'; 4 << 20];
    for section in file[64..].as_chunks_mut::<64>().0 {
        section[0] = 1;
    }
    file[160..168].copy_from_slice(&(names.len() as u64).to_le_bytes());
    file.pop();
    file.extend_from_slice(&names);
    let start = Instant::now();
    assert_eq!(check(&file), None);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn file_shorter_than_a_header_is_refused() {
    for length in 0..64 {
        assert_eq!(check(&SAMPLE[..length]), Some(Refusal::NotElf));
    }
    // A file of 64 bytes is a header, whose sections are missing.
    assert_eq!(check(&SAMPLE[..64]), Some(Refusal::Malformed));
}
