//! Reads an index (PSD-009 §6.2, §6.3) entry by entry from any stream: an index may be far longer than
//! what its reader keeps. Holds one block of the document, or one entry if that is longer. Pure.
//!
//! Takes every JSON document that has an array `packages`, in any order of fields and with any white
//! space. Refuses a field that is there twice, bytes that are not UTF-8, and anything after the end.
//! [`compact`] reads the entries that the tools write, and `serde_json` reads all others.

mod compact;
mod entry;

use std::collections::HashSet;
use std::io::{self, Read};

use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde_json::Error;

use compact::Shape;
pub use compact::{Compact, FromCompact};
pub use entry::Entry;
use entry::reason;

/// How much of an index is read at once, in bytes: so much that system calls take no noticeable time,
/// and so little that it stays in the processor's cache while it is hashed and parsed.
const BLOCK: usize = 128 * 1024;

/// When fewer bytes than this are left of a block, the next one is read: an ordinary entry is shorter,
/// and so is parsed once.
const LOW: usize = 8 * 1024;

/// The longest part of an index without the end of an entry, in bytes. An entry is shorter than its
/// package's manifest, which has at most this length (PSD-009 §3.2.10).
const MAX_ENTRY: usize = 16 * 1024 * 1024;

/// The fields of an index whose values are kept (PSD-009 §6.2.2).
const KEPT: [&str; 5] = ["schema_version", "repo", "kind", "index_version", "generated_at"];

/// Reads an index from `source`.
pub struct IndexReader<R> {
    source: R,
    buffer: Vec<u8>,
    /// The part of the buffer that has been read and not been taken.
    start: usize,
    end: usize,
    has_ended: bool,
    /// The place in the document of the buffer's first byte.
    before: u64,
    /// The place behind the last entry.
    last_entry: u64,
    /// The number of line ends that were passed, and the place behind the last one.
    lines: usize,
    line_start: u64,
    state: State,
    /// The names of all fields so far.
    seen: HashSet<String>,
    /// The fields of [`KEPT`] so far, as JSON.
    kept: Vec<(String, String)>,
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// Within the object, before a field or its end.
    Fields {
        is_first: bool,
    },
    /// Within `packages`, before an entry or its end.
    Packages {
        is_first: bool,
    },
    End,
}

impl<R: Read> IndexReader<R> {
    /// Starts at the beginning of a document.
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            has_ended: false,
            before: 0,
            last_entry: 0,
            lines: 0,
            line_start: 0,
            state: State::Start,
            seen: HashSet::new(),
            kept: Vec::new(),
            count: 0,
        }
    }

    /// Returns the next entry; none at the end of the document, which is checked to its last byte.
    ///
    /// # Errors
    /// When the source cannot be read, or the document is broken here. Do not go on after that.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, Error> {
        loop {
            match self.state {
                State::Start => {
                    self.expect(b'{', "expected an index, which is an object")?;
                    self.state = State::Fields { is_first: true };
                }
                State::Fields { is_first } => self.pass_field(is_first)?,
                State::Packages { is_first } => {
                    if self.has_another(is_first, b']', "EOF while parsing a list", "expected `,` or `]`")? {
                        return self.take_entry().map(Some);
                    }
                    self.state = State::Fields { is_first: false };
                }
                State::End => return Ok(None),
            }
        }
    }

    /// Returns the value of a field of the index beside `packages`, if it has been read so far: one
    /// of `schema_version`, `repo`, `kind`, `index_version` and `generated_at`.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn field<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some((_, json)) = self.kept.iter().find(|(kept, _)| kept == name) else { return Ok(None) };
        let read = serde_json::from_str(json);
        read.map(Some).map_err(|error| Error::custom(format!("field {name}: {}", reason(&error))))
    }

    /// Whether all fields that [`IndexReader::field`] knows have been read. What follows can be only
    /// entries, and fields that no reader uses.
    pub fn has_all_fields(&self) -> bool {
        self.kept.len() == KEPT.len()
    }

    /// The number of entries so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the source, of which a part may have been read ahead.
    pub fn into_source(self) -> R {
        self.source
    }

    /// Reads the field before which the reader is, except for the elements of `packages`; or the end.
    fn pass_field(&mut self, is_first: bool) -> Result<(), Error> {
        if !self.has_another(is_first, b'}', "EOF while parsing an object", "expected `,` or `}`")? {
            if self.peek()?.is_some() {
                return Err(self.error("trailing characters"));
            }
            if !self.seen.contains("packages") {
                return Err(Error::missing_field("packages"));
            }
            self.state = State::End;
            return Ok(());
        }
        match self.peek()? {
            Some(b'"') => {}
            Some(_) => return Err(self.error("key must be a string")),
            None => return Err(self.error("EOF while parsing an object")),
        }
        let name: String = serde_json::from_str(self.take_value()?)?;
        self.expect(b':', "expected `:`")?;
        if !self.seen.insert(name.clone()) {
            return Err(self.error(&format!("duplicate field {name:?}")));
        }
        if name == "packages" {
            self.expect(b'[', "expected an array of packages")?;
            self.state = State::Packages { is_first: true };
            return Ok(());
        }
        let json = self.take_value()?.to_owned();
        if KEPT.contains(&&*name) {
            self.kept.push((name, json));
        }
        self.state = State::Fields { is_first: false };
        Ok(())
    }

    /// Takes the comma before an element, or the `end` of all. Returns whether there is an element.
    fn has_another(&mut self, is_first: bool, end: u8, at_eof: &str, wrong: &str) -> Result<bool, Error> {
        match self.peek()? {
            None => Err(self.error(at_eof)),
            Some(byte) if byte == end => {
                self.start += 1;
                Ok(false)
            }
            Some(_) if is_first => Ok(true),
            Some(b',') => {
                self.start += 1;
                if self.peek()? == Some(end) { Err(self.error("trailing comma")) } else { Ok(true) }
            }
            Some(_) => Err(self.error(wrong)),
        }
    }

    fn take_entry(&mut self) -> Result<Entry<'_>, Error> {
        if self.peek()?.is_none() {
            return Err(self.error("EOF while parsing a value"));
        }
        if self.end - self.start < LOW && !self.has_ended {
            self.fill()?;
        }
        let shape = Shape::of(&self.buffer[self.start..self.end]);
        let length = match &shape {
            Some(shape) => shape.length,
            None => self.find_value()?,
        };
        let (first, at) = (self.start, self.place());
        self.check_text(length)?;
        if shape.is_none() {
            self.count_lines(length);
        }
        self.start += length;
        self.count += 1;
        self.last_entry = self.place();
        self.state = State::Packages { is_first: false };
        let json = text(&self.buffer[first..first + length]);
        let compact = shape.and_then(|shape| shape.compact(json));
        Ok(Entry { json, at, number: self.count, compact })
    }

    /// Takes the next value, of any type, and returns it as it is in the document.
    fn take_value(&mut self) -> Result<&str, Error> {
        if self.peek()?.is_none() {
            return Err(self.error("EOF while parsing a value"));
        }
        let length = self.find_value()?;
        self.check_text(length)?;
        self.count_lines(length);
        let first = self.start;
        self.start += length;
        Ok(text(&self.buffer[first..first + length]))
    }

    /// Reads on until the buffer has the whole next value, and returns its length.
    fn find_value(&mut self) -> Result<usize, Error> {
        loop {
            let rest = &self.buffer[self.start..self.end];
            let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
            match values.next() {
                // A number at the end of the buffer may go on.
                Some(Ok(_)) if self.has_ended || values.byte_offset() < rest.len() => {
                    return Ok(values.byte_offset());
                }
                Some(Err(error)) if self.has_ended || !error.is_eof() => {
                    return Err(self.error_within(&error));
                }
                _ => self.fill()?,
            }
        }
    }

    fn check_text(&self, length: usize) -> Result<(), Error> {
        match std::str::from_utf8(&self.buffer[self.start..self.start + length]) {
            Ok(_) => Ok(()),
            Err(error) => {
                let place = self.place() + error.valid_up_to() as u64;
                Err(self.error_at("invalid unicode code point", self.lines, place))
            }
        }
    }

    /// Notes the line ends within the next `length` bytes.
    fn count_lines(&mut self, length: usize) {
        for at in self.start..self.start + length {
            if self.buffer[at] == b'\n' {
                self.lines += 1;
                self.line_start = self.before + at as u64 + 1;
            }
        }
    }

    /// Skips white space, and returns the byte after it; none at the end.
    fn peek(&mut self) -> Result<Option<u8>, Error> {
        loop {
            while let Some(byte) = self.buffer[self.start..self.end].first().copied() {
                match byte {
                    b' ' | b'\t' | b'\r' => {}
                    b'\n' => self.count_lines(1),
                    _ => return Ok(Some(byte)),
                }
                self.start += 1;
            }
            if self.has_ended {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    fn expect(&mut self, expected: u8, otherwise: &str) -> Result<(), Error> {
        match self.peek()? {
            Some(byte) if byte == expected => {
                self.start += 1;
                Ok(())
            }
            Some(_) => Err(self.error(otherwise)),
            None => Err(self.error("EOF while parsing a value")),
        }
    }

    /// Fills the buffer behind the bytes that have not been taken; makes it longer if they fill it.
    fn fill(&mut self) -> Result<(), Error> {
        if self.before + self.end as u64 - self.last_entry > MAX_ENTRY as u64 {
            return Err(Error::io(io::Error::other(format!("no entry ends within {MAX_ENTRY} bytes"))));
        }
        let length = self.end - self.start;
        if length > self.buffer.len() / 2 || self.buffer.is_empty() {
            let mut longer = vec![0; (self.buffer.len() * 2).clamp(BLOCK, MAX_ENTRY + 2 * BLOCK)];
            longer[..length].copy_from_slice(&self.buffer[self.start..self.end]);
            self.buffer = longer;
        } else {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        self.before += self.start as u64;
        (self.start, self.end) = (0, length);
        while self.end < self.buffer.len() {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.has_ended = true;
                    break;
                }
                Ok(length) => self.end += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(error)),
            }
        }
        Ok(())
    }

    /// The place in the document of the next byte.
    fn place(&self) -> u64 {
        self.before + self.start as u64
    }

    fn error(&self, reason: &str) -> Error {
        self.error_at(reason, self.lines, self.place() + u64::from(!self.has_ended || self.start < self.end))
    }

    /// Moves the place of an error in the next value to its place in the document.
    fn error_within(&self, error: &Error) -> Error {
        if error.line() <= 1 {
            let place = self.place() + error.column() as u64;
            return self.error_at(&reason(error), self.lines, place);
        }
        let (line, column) = (self.lines + error.line(), error.column());
        Error::custom(format!("{} at line {line} column {column}", reason(error)))
    }

    /// Makes an error at a place in the document. `serde_json` reads the line and column back.
    fn error_at(&self, reason: &str, lines: usize, place: u64) -> Error {
        let column = place - self.line_start;
        Error::custom(format!("{reason} at line {} column {column}", lines + 1))
    }
}

/// Returns bytes that have been checked as text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests;
