//! The rules of signed binaries, implemented a second time without the tool's code and with other
//! cryptography, so that the tests can compare the two.

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// Why a file is not signed, in the order in which the reasons are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    NotElf,
    NoSections,
    Malformed,
    Signed,
    TooMany,
    SelfCheck,
}

/// A number of `width` bytes. Wider than any in the file, so that no sum overflows.
fn number(file: &[u8], at: u128, width: u128) -> u128 {
    part(file, at, width).unwrap().iter().rev().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

fn part(file: &[u8], at: u128, length: u128) -> Option<&[u8]> {
    file.get(usize::try_from(at).ok()?..usize::try_from(at + length).ok()?)
}

fn put(file: &mut [u8], at: u128, width: usize, value: u128) {
    let at = usize::try_from(at).unwrap();
    file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// The place of the first section called `.peios.sig`: offset and length.
fn find(file: &[u8]) -> Option<(u128, u128)> {
    let [table, count, names] = [(40, 8), (60, 2), (62, 2)].map(|(at, width)| number(file, at, width));
    let names = table + 64 * names;
    let names = part(file, number(file, names + 24, 8), number(file, names + 32, 8))?;
    (0..count).map(|index| table + 64 * index).find_map(|section| {
        let name = names.get(usize::try_from(number(file, section, 4)).unwrap()..)?;
        let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).take(11).collect();
        (name == b".peios.sig").then(|| (number(file, section + 24, 8), number(file, section + 32, 8)))
    })
}

/// The 65 bytes of a file's signature, and the hash that they sign.
pub(crate) fn signature(file: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (at, length) = find(file)?;
    let bytes = part(file, at, length).filter(|_| length == 65)?.to_vec();
    let mut zeroed = file.to_vec();
    zeroed[usize::try_from(at).unwrap()..][..65].fill(0);
    Some((bytes, digest(&SHA256, &zeroed).as_ref().to_vec()))
}

/// Whether a system that trusts the key would take the file as signed.
pub(crate) fn is_signed(file: &[u8], seed: &[u8; 32]) -> bool {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
    let key = UnparsedPublicKey::new(&ED25519, pair.public_key());
    signature(file).is_some_and(|(bytes, hash)| bytes[0] == 1 && key.verify(&hash, &bytes[1..]).is_ok())
}

/// Signs a file.
pub(crate) fn signed(file: &[u8], seed: &[u8; 32]) -> Result<Vec<u8>, Refusal> {
    if file.len() < 64 || file[..6] != [0x7f, b'E', b'L', b'F', 2, 1] {
        return Err(Refusal::NotElf);
    }
    let [table, entry, count, index] =
        [(40, 8), (58, 2), (60, 2), (62, 2)].map(|(at, width)| number(file, at, width));
    if table == 0 || entry != 64 || count == 0 {
        return Err(Refusal::NoSections);
    }
    let sections = part(file, table, 64 * count).filter(|_| (1..count).contains(&index));
    let sections = sections.ok_or(Refusal::Malformed)?;
    let [offset, length] = [24, 32].map(|field| number(sections, 64 * index + field, 8));
    let names = part(file, offset, length).ok_or(Refusal::Malformed)?;
    if find(file).is_some() {
        return Err(Refusal::Signed);
    }
    if count >= 0xfeff {
        return Err(Refusal::TooMany);
    }
    let end = file.len() as u128;
    let mut out = [file, &[0; 65], names, b".peios.sig\0"].concat();
    out.resize(out.len().div_ceil(8) * 8, 0);
    let moved = out.len() as u128;
    out.extend_from_slice(sections);
    put(&mut out, 40, 8, moved);
    put(&mut out, 60, 2, count + 1);
    put(&mut out, moved + 64 * index + 24, 8, end + 65);
    put(&mut out, moved + 64 * index + 32, 8, length + 11);
    // Name, type, flags, address, offset, size, link, info, alignment, size of an entry.
    let widths = [4, 4, 8, 8, 8, 8, 4, 4, 8, 8];
    for (width, value) in widths.into_iter().zip([length, 1, 0, 0, end, 65, 0, 0, 1, 0]) {
        out.extend_from_slice(&value.to_le_bytes()[..width]);
    }
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
    let signature = pair.sign(digest(&SHA256, &out).as_ref());
    out[file.len()] = 1;
    out[file.len() + 1..file.len() + 65].copy_from_slice(signature.as_ref());
    if is_signed(&out, seed) { Ok(out) } else { Err(Refusal::SelfCheck) }
}
