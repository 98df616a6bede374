//! Signs binaries: appends the section `.peios.sig` to an ELF file (PSD-004 §6).
//!
//! The signature covers the SHA-256 of the whole signed file with the signature's own bytes zero.
//! [`sign`] works on streams and touches no file; [`replace`] puts the signed file in the place of
//! the other.
//!
//! A binary may be larger than memory: it is copied in chunks. Only its section headers, at most
//! 4 MiB, and its section names, at most [`elf::MAX_NAMES`], are held, each twice for a moment.

pub mod elf;
pub mod replace;
pub mod scheme;

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use self::elf::{ElfError, HEADER, Header, Sections};
use crate::chunks::for_each_chunk;

/// The section that holds the signature.
pub const SECTION: &str = ".peios.sig";

/// Why a binary cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError<E> {
    /// It is no ELF file to which a section can be appended.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(io::Error),
    /// The signed file cannot be written.
    #[error("cannot write the signed file: {0}")]
    Write(io::Error),
    /// The signature cannot be found or verified in the file that was written.
    #[error("self-check failed: in the signed file, the section found as {SECTION} has no valid signature")]
    SelfCheck,
    /// The caller asked to stop.
    #[error(transparent)]
    Stopped(E),
}

/// Writes `input`, signed with `key`, to the empty `output`, and reads it again to verify the
/// signature. `check` runs before each chunk, and its error stops the writing.
pub fn sign<E>(
    input: &mut (impl Read + Seek),
    output: &mut (impl Read + Write + Seek),
    key: &SigningKey,
    check: impl Fn() -> Result<(), E>,
) -> Result<(), SignError<E>> {
    let length = input.seek(SeekFrom::End(0)).map_err(SignError::Read)?;
    let extension = sections(input, length)?.extend(SECTION, scheme::LENGTH)?;
    let mut hasher = Sha256::new();
    let mut write = |bytes: &[u8]| {
        check().map_err(SignError::Stopped)?;
        hasher.update(bytes);
        output.write_all(bytes).map_err(SignError::Write)
    };
    write(&extension.header)?;
    for_each_in(input, HEADER as u64..length, &mut write)?;
    write(&extension.tail)?;
    let blob = scheme::sign(key, &hasher.finalize().into());
    let put = output.seek(SeekFrom::Start(length)).and_then(|_| output.write_all(&blob));
    put.map_err(SignError::Write)?;
    // A reader finds the signature by its name, so another section must not have that.
    if is_signed(output, &key.verifying_key(), check)? { Ok(()) } else { Err(SignError::SelfCheck) }
}

/// Tells whether `file` has a signature by `key`. Finds and verifies it as a system does.
fn is_signed<E>(
    file: &mut (impl Read + Seek),
    key: &VerifyingKey,
    check: impl Fn() -> Result<(), E>,
) -> Result<bool, SignError<E>> {
    let length = file.seek(SeekFrom::End(0)).map_err(SignError::Read)?;
    let Some((offset, size)) = sections(file, length)?.find(SECTION) else { return Ok(false) };
    let end = offset.checked_add(size).filter(|end| size == scheme::LENGTH as u64 && *end <= length);
    let Some(end) = end else { return Ok(false) };
    let mut blob = [0; scheme::LENGTH];
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut blob));
    read.map_err(SignError::Read)?;
    let mut hasher = Sha256::new();
    let mut hash = |bytes: &[u8]| {
        check().map_err(SignError::Stopped)?;
        hasher.update(bytes);
        Ok(())
    };
    for_each_in(file, 0..offset, &mut hash)?;
    hash(&[0; scheme::LENGTH])?;
    for_each_in(file, end..length, &mut hash)?;
    Ok(scheme::verify(key, &hasher.finalize().into(), &blob))
}

/// Reads the section headers and names of a file of `length` bytes.
fn sections<E>(file: &mut (impl Read + Seek), length: u64) -> Result<Sections, SignError<E>> {
    let start = read_range(file, 0..length.min(HEADER as u64)).map_err(SignError::Read)?;
    let header = Header::parse(&start, length)?;
    let table = read_range(file, header.table()).map_err(SignError::Read)?;
    let names = header.names(&table)?;
    let names = read_range(file, names).map_err(SignError::Read)?;
    Ok(header.with(&table, names))
}

/// Reads a part of a file. [`elf`] bounds its length.
fn read_range(file: &mut (impl Read + Seek), range: Range<u64>) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(range.start))?;
    let length = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Passes a part of a file to `sink`, chunk by chunk. Fails if the file has become shorter.
fn for_each_in<E>(
    file: &mut (impl Read + Seek),
    range: Range<u64>,
    mut sink: impl FnMut(&[u8]) -> Result<(), SignError<E>>,
) -> Result<(), SignError<E>> {
    file.seek(SeekFrom::Start(range.start)).map_err(SignError::Read)?;
    let mut left = range.end - range.start;
    for_each_chunk(&mut file.take(left), SignError::Read, |chunk| {
        left -= chunk.len() as u64;
        sink(chunk)
    })?;
    if left > 0 { Err(SignError::Read(io::ErrorKind::UnexpectedEof.into())) } else { Ok(()) }
}
