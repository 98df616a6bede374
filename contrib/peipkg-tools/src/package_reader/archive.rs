//! The tar stream of a package, block by block (PSD-009 §3.1).
//!
//! Owns the form of headers, the hash of the signed bytes and the bound on decompressed bytes. Must
//! not know what an entry means. A general tar reader would accept more than the format allows,
//! and then two readers could see different files in the same signed bytes.

use std::borrow::Cow;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::PackageError;
use crate::digest::Digest;
use crate::payload::MAX_DECOMPRESSED;
use crate::signature::SIGNATURE_PATH;
use crate::tar_header::{BLOCK, padding};

/// The longest extended header, in bytes: two paths of 4096 bytes fit.
const MAX_EXTENDED_HEADER: u64 = 16 * 1024;
/// The size of the fields for name and target, in bytes (PSD-009 §3.1.4).
const FIELD: usize = 100;
/// Most zero bytes after the last entry. Two blocks are the rule; some writers fill a record of 20.
const MAX_TRAILER: usize = 10 * 1024;

/// The type of an entry (PSD-009 §3.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    /// A symbolic link to this target.
    Symlink(String),
}

/// The header of one entry; its content follows in the stream.
#[derive(Debug)]
pub(super) struct Entry {
    /// The path without the `/` that ends a directory's.
    pub(super) path: String,
    /// Whether the path in the archive ends in `/`.
    slash: bool,
    pub(super) kind: EntryKind,
    /// Bytes of content; 0 for directories and links.
    pub(super) size: u64,
    /// The time, in seconds since 1970.
    pub(super) time: u64,
}

impl Entry {
    /// Returns the path exactly as in the archive.
    pub(super) fn archive_path(&self) -> Cow<'_, str> {
        if self.slash { format!("{}/", self.path).into() } else { (&self.path).into() }
    }
}

/// Reads a tar stream, and hashes the bytes before the signature entry.
pub(super) struct Archive<R> {
    source: R,
    produced: u64,
    /// Unread bytes of the current entry's content; `padding` follows them.
    remaining: u64,
    padding: usize,
    signed: Option<Sha256>,
    signed_digest: Option<Digest>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(source: R) -> Self {
        let signed = Some(Sha256::new());
        Self { source, produced: 0, remaining: 0, padding: 0, signed, signed_digest: None }
    }

    /// Reads a stream whose signature was verified before, so that it need not be hashed.
    pub(super) fn new_authentic(source: R) -> Self {
        Self { signed: None, ..Self::new(source) }
    }

    /// Returns the SHA-256 of everything before the signature entry, once the reader is there.
    pub(super) fn signed_digest(&self) -> Option<Digest> {
        self.signed_digest
    }

    /// Skips unread content and reads the next entry; `None` after the last one.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, PackageError> {
        self.skip_content()?;
        let mut block = self.header_block()?;
        if block.iter().all(|byte| *byte == 0) {
            self.check_trailer()?;
            return Ok(None);
        }
        let mut header = RawHeader::parse(&block)?;
        let mut extended = Extended::default();
        if header.typeflag == b'x' {
            self.hash(&block);
            extended = self.extended_header(header.size)?;
            block = self.header_block()?;
            header = RawHeader::parse(&block)?;
        }
        let entry = header.entry(extended)?;
        if entry.path == SIGNATURE_PATH {
            self.signed_digest = self.signed.take().map(|hash| hash.finalize().into());
        }
        self.hash(&block);
        self.expect_content(entry.size)?;
        Ok(Some(entry))
    }

    /// Reads content of the current entry and returns the number of bytes, 0 at the end.
    pub(super) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, PackageError> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.source.read(&mut buffer[..wanted]).map_err(PackageError::Unreadable)?;
        if read == 0 {
            return Err(PackageError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        self.hash(&buffer[..read]);
        self.remaining -= read as u64;
        if self.remaining == 0 && self.padding > 0 {
            let padding = std::mem::take(&mut self.padding);
            let mut rest = [0; BLOCK];
            self.fill(&mut rest[..padding])?;
            self.hash(&rest[..padding]);
        }
        Ok(read)
    }

    /// Reads the whole content of the current entry, at most `cap` bytes.
    pub(super) fn read_all(&mut self, entry: &Entry, cap: usize) -> Result<Vec<u8>, PackageError> {
        if entry.size > cap as u64 {
            return Err(PackageError::entry(&entry.path, "is larger than the format allows"));
        }
        self.read_rest()
    }

    fn read_rest(&mut self) -> Result<Vec<u8>, PackageError> {
        // Grows with the bytes that arrive, so that a large claimed size allocates nothing.
        let mut content = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.read_content(&mut buffer)? {
                0 => return Ok(content),
                read => content.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn expect_content(&mut self, size: u64) -> Result<(), PackageError> {
        // Counts the header and the bytes that it announces.
        let announced = size.saturating_add((BLOCK + padding(size)) as u64);
        self.produced = self.produced.saturating_add(announced);
        if self.produced > MAX_DECOMPRESSED {
            return Err(PackageError::TooLarge);
        }
        self.remaining = size;
        self.padding = padding(size);
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), PackageError> {
        let mut buffer = [0; 8 * 1024];
        while self.read_content(&mut buffer)? > 0 {}
        Ok(())
    }

    fn header_block(&mut self) -> Result<[u8; BLOCK], PackageError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PackageError> {
        self.source.read_exact(buffer).map_err(PackageError::Unreadable)
    }

    fn hash(&mut self, bytes: &[u8]) {
        if let Some(signed) = &mut self.signed {
            signed.update(bytes);
        }
    }

    fn extended_header(&mut self, size: u64) -> Result<Extended, PackageError> {
        if size > MAX_EXTENDED_HEADER {
            return Err(PackageError::Archive("an extended header is larger than 16 KiB"));
        }
        self.expect_content(size)?;
        Extended::parse(&self.read_rest()?)
    }

    /// Checks that after the first zero block follow a second one and only zeros to the end.
    fn check_trailer(&mut self) -> Result<(), PackageError> {
        let mut total = 0;
        let mut buffer = [0; BLOCK];
        loop {
            let read = self.source.read(&mut buffer).map_err(PackageError::Unreadable)?;
            total += read;
            if buffer[..read].iter().any(|byte| *byte != 0) || total > MAX_TRAILER {
                return Err(PackageError::Archive("bytes follow the end of the archive"));
            }
            if read == 0 {
                break;
            }
        }
        if total < BLOCK {
            return Err(PackageError::Archive("the archive does not end in two zero blocks"));
        }
        Ok(())
    }
}

/// The fields of one ustar header that the format uses.
struct RawHeader<'a> {
    name: &'a [u8],
    /// The directory of the name, for a path that its field does not hold.
    prefix: &'a [u8],
    link: &'a [u8],
    size: u64,
    mode: u64,
    /// 0 if it is no number: nothing that is installed has it.
    time: u64,
    typeflag: u8,
}

impl<'a> RawHeader<'a> {
    fn parse(block: &'a [u8; BLOCK]) -> Result<Self, PackageError> {
        let bad = PackageError::Archive;
        if &block[257..265] != b"ustar\x0000" {
            return Err(bad("a header is not in pax format"));
        }
        let sum = block[..148].iter().chain(&block[156..]).map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
        if octal(&block[148..156]) != Some(sum) {
            return Err(bad("a header's checksum is wrong"));
        }
        let prefix = text(&block[345..500]);
        if block[345 + prefix.len()..].iter().any(|byte| *byte != 0) {
            return Err(bad("a header has padding that is not zero"));
        }
        if block[0] == 0 && !prefix.is_empty() {
            return Err(bad("a header has a prefix but no name"));
        }
        let number =
            |range: std::ops::Range<usize>| octal(&block[range]).ok_or(bad("a header has a bad number"));
        Ok(Self {
            name: text(&block[..100]),
            prefix,
            link: text(&block[157..257]),
            size: number(124..136)?,
            mode: number(100..108)?,
            time: octal(&block[136..148]).unwrap_or_default(),
            typeflag: block[156],
        })
    }

    /// Makes an entry of the header and the extended header before it.
    fn entry(self, extended: Extended) -> Result<Entry, PackageError> {
        let had_link = extended.link.is_some();
        let own = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(PackageError::Archive("a path is not UTF-8")),
        };
        let paths = [(self.name, &extended.path), (self.link, &extended.link)];
        let is_other = |(field, long): (&[u8], &Option<String>)| {
            long.as_ref().is_some_and(|long| !stands_for(field, long))
        };
        // A reader that ignores extended headers puts a prefix before the start of the path.
        let is_moved = extended.path.is_some() && !self.prefix.is_empty();
        if is_moved || paths.into_iter().any(is_other) {
            return Err(PackageError::Archive(
                "an extended header is not for a long path, or not for its entry's path",
            ));
        }
        let mut path = match extended.path {
            Some(path) => path,
            None if self.prefix.is_empty() => own(self.name)?,
            None => own(&[self.prefix, b"/", self.name].concat())?,
        };
        let kind = match self.typeflag {
            b'0' | 0 => EntryKind::File,
            b'5' => EntryKind::Directory,
            b'2' => EntryKind::Symlink(extended.link.map_or_else(|| own(self.link), Ok)?),
            b'g' => return Err(PackageError::Archive("it has a global extended header")),
            b'x' => return Err(PackageError::Archive("two extended headers follow each other")),
            _ => {
                return Err(PackageError::entry(&path, "is neither a file, a directory nor a symbolic link"));
            }
        };
        if had_link && !matches!(kind, EntryKind::Symlink(_)) {
            return Err(PackageError::entry(&path, "has a link target but is no symbolic link"));
        }
        if self.mode != 0o777 {
            return Err(PackageError::entry(&path, "has a mode other than 0777"));
        }
        let slash = kind == EntryKind::Directory && path.ends_with('/');
        if slash {
            path.pop();
        }
        if kind != EntryKind::File && self.size != 0 {
            return Err(PackageError::entry(&path, "has content but is no file"));
        }
        Ok(Entry { path, slash, kind, size: self.size, time: self.time })
    }
}

/// Whether `field` may hold the start of `long`, the path of an extended header. Readers that
/// ignore extended headers use the field, so it must be a prefix: otherwise they would see another
/// path. Some writers use an extended header for every name that is not ASCII, and leave the
/// characters beyond ASCII out of the field.
fn stands_for(field: &[u8], long: &str) -> bool {
    let ascii: String = long.chars().filter(char::is_ascii).collect();
    let is_prefix = long.as_bytes().starts_with(field) || ascii.as_bytes().starts_with(field);
    is_prefix && (long.len() > FIELD || ascii.len() < long.len())
}

/// The records of an extended header, in either order: PSD-009 §3.1.4 has `path` first, the deployed
/// writer `linkpath`. No other key is allowed.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
}

impl Extended {
    fn parse(mut records: &[u8]) -> Result<Self, PackageError> {
        let bad = PackageError::Archive("an extended header is malformed");
        let mut found = Self::default();
        while !records.is_empty() {
            let Some((key, value, rest)) = split_record(records) else { return Err(bad) };
            let slot = match key {
                "path" => &mut found.path,
                "linkpath" => &mut found.link,
                _ => {
                    return Err(PackageError::Archive(
                        "an extended header has another record than path or linkpath",
                    ));
                }
            };
            if slot.replace(value.to_owned()).is_some() {
                return Err(bad);
            }
            records = rest;
        }
        if found.path.is_none() && found.link.is_none() {
            return Err(bad);
        }
        Ok(found)
    }
}

/// Splits the first record, `<length> <key>=<value>\n`, off.
fn split_record(records: &[u8]) -> Option<(&str, &str, &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let (key, value) = std::str::from_utf8(record).ok()?.split_once('=')?;
    Some((key, value, &records[length..]))
}

/// Returns a field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Reads an octal field: digits, then zero bytes and spaces to its end. Readers differ about anything
/// else. Refuses base 256: only numbers beyond the cap need it.
fn octal(field: &[u8]) -> Option<u64> {
    let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
    let (digits, rest) = field.split_at(end);
    let well_formed = digits.iter().all(|byte| matches!(byte, b'0'..=b'7'))
        && rest.iter().all(|byte| matches!(byte, 0 | b' '));
    // An empty text is no number.
    well_formed.then(|| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()).flatten()
}
