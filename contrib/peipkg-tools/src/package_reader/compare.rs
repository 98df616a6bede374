//! Compares two packages: whether they are equal in all that is signed, and if not, which members
//! differ first and where. Verifies no signature.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek as _};

use peipkg_format::problem::OneLine;

use super::archive::{Archive, Entry, EntryKind};
use super::{PackageError, decoder};
use crate::chunks::CHUNK;
use crate::manifest::{FILES_PATH, MANIFEST_PATH};
use crate::signature::{Envelope, MAX_ENVELOPE, SIGNATURE_PATH};

/// How many differences are named.
const NAMED: usize = 10;

/// How many bytes are shown of each side.
const SHOWN: usize = 8;

/// The result of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub enum Comparison {
    /// All that is signed is equal. The text says what else differs; empty if nothing does.
    Same(String),
    /// The packages differ: the first differences, those of the payload before those of the documents,
    /// and how many more there are, a line each.
    Different(Vec<String>),
}

/// Compares the packages in two files. What cannot be read as a package is compared as bytes.
///
/// # Errors
/// If a file cannot be read.
pub fn compare(mut first: File, mut second: File) -> io::Result<Comparison> {
    let Some(bytes) = difference(&mut first, &mut second)? else {
        return Ok(Comparison::Same(String::new()));
    };
    first.rewind()?;
    second.rewind()?;
    Ok(members(first, second).unwrap_or_else(|error| {
        Comparison::Different(vec![format!("the files differ at {bytes}"), OneLine(&error).to_string()])
    }))
}

fn members(first: File, second: File) -> Result<Comparison, String> {
    let (in_first, in_second) = (
        |error: PackageError| format!("cannot read the first package: {error}"),
        |error: PackageError| format!("cannot read the second package: {error}"),
    );
    let mut found = Found::default();
    let mut envelopes = (None, None);
    let (mut a, mut b) = (Side::new(first).map_err(in_first)?, Side::new(second).map_err(in_second)?);
    loop {
        let order = match (&a.entry, &b.entry) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => place(a).cmp(&place(b)),
        };
        if order.is_eq() {
            if a.is_signature() {
                envelopes = (Some(a.content().map_err(in_first)?), Some(b.content().map_err(in_second)?));
            } else {
                found.compare(&mut a, &mut b).map_err(|error| format!("cannot read a package: {error}"))?;
            }
        } else {
            let (side, name) = if order.is_lt() { (&a, "first") } else { (&b, "second") };
            if let Some(entry) = &side.entry {
                found.add(entry, &format!("is only in the {name}"));
            }
        }
        if order.is_le() {
            a.advance().map_err(in_first)?;
        }
        if order.is_ge() {
            b.advance().map_err(in_second)?;
        }
    }
    if a.archive.signed_digest() != b.archive.signed_digest() && found.count == 0 {
        found.add_line(false, "the headers of the archives differ".to_owned());
    }
    if found.count > 0 {
        return Ok(Comparison::Different(found.lines()));
    }
    Ok(match envelopes {
        (Some(first), Some(second)) if first != second => signatures(&first, &second),
        _ => Comparison::Same("the same but for the compression".to_owned()),
    })
}

/// Judges two signatures of the same content that differ. An Ed25519 key makes the same signature each
/// time, so two of one key cannot both be good.
fn signatures(first: &[u8], second: &[u8]) -> Comparison {
    let different = |text: String| Comparison::Different(vec![format!("{SIGNATURE_PATH}: {text}")]);
    match (Envelope::parse(first), Envelope::parse(second)) {
        (Ok(first), Ok(second)) if first.fingerprint() != second.fingerprint() => {
            let (first, second) = (first.fingerprint(), second.fingerprint());
            Comparison::Same(format!(
                "the same but for the signature: the first is by key {first}, the second by key {second}"
            ))
        }
        (Ok(first), Ok(_)) => {
            different(format!("key {} cannot have made both, one signature is altered", first.fingerprint()))
        }
        (Err(error), _) => different(format!("the first is malformed: {error}")),
        (_, Err(error)) => different(format!("the second is malformed: {error}")),
    }
}

/// A package and the entry that it is at.
struct Side {
    archive: Archive<zstd::Decoder<'static, io::BufReader<File>>>,
    entry: Option<Entry>,
}

impl Side {
    fn new(file: File) -> Result<Self, PackageError> {
        let mut side = Self { archive: Archive::new(decoder(file)?), entry: None };
        side.advance().map(|()| side)
    }

    fn advance(&mut self) -> Result<(), PackageError> {
        self.entry = self.archive.next_entry()?;
        Ok(())
    }

    fn is_signature(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.path == SIGNATURE_PATH)
    }

    /// Reads the content of the signature.
    fn content(&mut self) -> Result<Vec<u8>, PackageError> {
        match &self.entry {
            Some(entry) => self.archive.read_all(entry, MAX_ENVELOPE),
            None => Ok(Vec::new()),
        }
    }
}

impl Read for Side {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.archive.read_content(buffer).map_err(|error| match error {
            PackageError::Unreadable(error) => error,
            error => io::Error::other(error),
        })
    }
}

/// Returns the place of an entry in the order of a package (PSD-009 §3.1.4, §3.2.3).
fn place(entry: &Entry) -> (u8, String) {
    let rank = match entry.path.as_str() {
        MANIFEST_PATH => 0,
        FILES_PATH => 1,
        SIGNATURE_PATH => 4,
        path if path.starts_with(".peipkg/") => 2,
        _ => 3,
    };
    (rank, entry.archive_path().into_owned())
}

/// The differences so far.
#[derive(Default)]
struct Found {
    payload: Vec<String>,
    documents: Vec<String>,
    count: usize,
    has_times: bool,
}

impl Found {
    /// Compares the entries that both sides are at, which have the same path.
    fn compare(&mut self, first: &mut Side, second: &mut Side) -> io::Result<()> {
        let bytes = difference(first, second)?;
        let (Some(a), Some(b)) = (&first.entry, &second.entry) else { return Ok(()) };
        if let (EntryKind::Symlink(a_target), EntryKind::Symlink(b_target)) = (&a.kind, &b.kind) {
            if a_target != b_target {
                self.add(a, &format!("leads to {a_target:?} in the first, to {b_target:?} in the second"));
            }
        } else if a.kind != b.kind {
            self.add(a, "is of another type in the second");
        } else if let Some(bytes) = bytes {
            let sizes = if a.size == b.size {
                String::new()
            } else {
                format!("; it has {} bytes in the first, {} in the second", a.size, b.size)
            };
            self.add(a, &format!("differs at {bytes}{sizes}"));
        }
        // All entries of a package have the same time.
        if a.time != b.time && !self.has_times {
            self.has_times = true;
            self.add_line(false, format!("the times of the entries differ: {}, {}", a.time, b.time));
        }
        Ok(())
    }

    fn add(&mut self, entry: &Entry, text: &str) {
        let is_payload = !entry.path.starts_with(".peipkg/");
        self.add_line(is_payload, format!("{}: {text}", OneLine(&entry.archive_path())));
    }

    /// Adds a line. The documents list sizes and hashes of the payload: they differ because of it.
    fn add_line(&mut self, is_payload: bool, line: String) {
        self.count += 1;
        let lines = if is_payload { &mut self.payload } else { &mut self.documents };
        if lines.len() < NAMED {
            lines.push(line);
        }
    }

    fn lines(mut self) -> Vec<String> {
        self.payload.append(&mut self.documents);
        self.payload.truncate(NAMED);
        if self.count > self.payload.len() {
            self.payload.push(format!("and {} more", self.count - self.payload.len()));
        }
        self.payload
    }
}

/// Finds the first byte at which two readers differ, and shows some bytes from there on. `None` if they
/// are equal. Reads no further.
fn difference(first: &mut dyn Read, second: &mut dyn Read) -> io::Result<Option<String>> {
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    let mut offset = 0;
    loop {
        let [a, b] = &mut buffers;
        let (a_length, b_length) = (fill(first, a)?, fill(second, b)?);
        let (a, b) = (&a[..a_length], &b[..b_length]);
        let common = a_length.min(b_length);
        let at = a.iter().zip(b).position(|(a, b)| a != b);
        if at.is_some() || a_length != b_length {
            let at = at.unwrap_or(common);
            return Ok(Some(format!(
                "byte {}: {}, {}",
                offset + at as u64,
                shown(&a[at..]),
                shown(&b[at..])
            )));
        }
        if common < CHUNK {
            return Ok(None);
        }
        offset += common as u64;
    }
}

fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// Shows some bytes in hexadecimal, and as text if they are text.
fn shown(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(SHOWN)];
    if bytes.is_empty() {
        return "the end".to_owned();
    }
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    match std::str::from_utf8(bytes) {
        Ok(found) if bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) => text + &format!(" {found:?}"),
        _ => text,
    }
}
