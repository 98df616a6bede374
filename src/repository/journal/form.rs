//! The form of a journal's bytes. Pure.

use std::io::{self, BufRead as _, BufReader, Read};

use peipkg_format::hex;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::farm::events::PendingOutputs;

/// The length of the checksum with its line feed, in bytes.
pub(super) const CHECKSUM_LENGTH: usize = 65;

/// The longest first line that is read, in bytes.
pub(super) const MAX_HEAD: u64 = 16 * 1024 * 1024;

/// How much is copied at a time, in bytes.
pub(super) const BLOCK: usize = 32 * 1024;

/// How a journal is damaged whose bytes have changed.
pub(super) const OTHER_CHECKSUM: &str = "its checksum does not match";

/// The content of a journal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    /// The builds whose publish has begun, at least one.
    pub group: Vec<Member>,
    /// The hidden names that were in the repository before the publish. An undo keeps them.
    pub(super) hidden: Vec<String>,
    /// The small files before the publish, by their names below the repository.
    pub(super) files: Vec<SavedFile>,
}

/// Where the bytes of a saved file are. They stay on the disk: an index may have gigabytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SavedFile {
    /// Its name below the repository.
    pub name: String,
    /// Its length, in bytes.
    pub length: u64,
    /// Where it begins in the journal; none if it is a file beside the journal.
    pub offset: Option<u64>,
}

/// A build in the group that one publish brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The directory of its pending packages below `publish/`.
    pub directory: String,
    /// Its packages, by name, version and architecture. Empty if an earlier version wrote the journal.
    pub packages: Vec<(String, String, String)>,
}

impl From<&PendingOutputs> for Member {
    fn from(PendingOutputs { directory, key, packages, .. }: &PendingOutputs) -> Self {
        let version = key.version.as_str();
        let packages = packages.iter().map(|p| (p.name.clone(), version.to_owned(), p.architecture.clone()));
        Self { directory: directory.clone(), packages: packages.collect() }
    }
}

/// The first line of a journal.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Header {
    /// An earlier version wrote this directory instead of the group.
    #[serde(skip_serializing)]
    pub outputs: Option<String>,
    #[serde(default)]
    pub group: Vec<Member>,
    pub hidden: Vec<String>,
    /// All files and their lengths. An earlier version misses the bytes of those beside the journal, and
    /// takes it for damaged.
    pub files: Vec<(String, u64)>,
    /// Which of the files are beside the journal. An earlier version has none, or only clones.
    #[serde(default, alias = "cloned", skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
}

impl Saved {
    /// Returns what was saved of the file `name`, relative to the repository.
    pub(crate) fn file(&self, name: &str) -> Option<&SavedFile> {
        self.files.iter().find(|saved| saved.name == name)
    }

    /// Returns all saved files.
    pub(crate) fn files(&self) -> &[SavedFile] {
        &self.files
    }

    /// Returns the files that no checksum of the journal covers.
    pub(crate) fn beside(&self) -> impl Iterator<Item = &SavedFile> {
        self.files.iter().filter(|saved| saved.offset.is_none())
    }
}

/// Reads a journal of `length` bytes, but holds only its first line in memory. The files beside it are
/// left to the caller.
///
/// # Errors
/// When it cannot be read. Otherwise the result says how its bytes are damaged.
pub(crate) fn read(journal: &mut dyn Read, length: u64) -> io::Result<Result<Saved, &'static str>> {
    let Some(end) = length.checked_sub(CHECKSUM_LENGTH as u64) else { return Ok(Err("it is too short")) };
    let mut sum = ChecksumWriter::new(io::sink());
    let mut line = Vec::new();
    let mut text = BufReader::with_capacity(BLOCK, journal.take(end));
    (&mut text).take(MAX_HEAD).read_until(b'\n', &mut line)?;
    sum.write_all(&line)?;
    sum.copy(&mut text, &mut vec![0; BLOCK])?;
    let mut claimed = Vec::new();
    let mut rest = text.into_inner().into_inner().take(CHECKSUM_LENGTH as u64 + 1);
    rest.read_to_end(&mut claimed)?;
    if claimed != sum.checksum().as_bytes() {
        return Ok(Err(OTHER_CHECKSUM));
    }
    Ok(parse_head(&line, end))
}

/// Parses the first line of a journal with its line feed. The checksum begins at `end`.
pub(crate) fn parse_head(line: &[u8], end: u64) -> Result<Saved, &'static str> {
    let header = line.strip_suffix(b"\n").ok_or("it has no first line")?;
    let header: Header = serde_json::from_slice(header).map_err(|_| "its first line cannot be parsed")?;
    let Header { outputs, mut group, hidden, files, beside } = header;
    let mut at = line.len() as u64;
    let mut saved = Vec::new();
    for (name, length) in files {
        let offset = if beside.contains(&name) { None } else { Some(at) };
        if offset.is_some() {
            at = at.checked_add(length).filter(|at| *at <= end).ok_or("a file in it is too long")?;
        }
        saved.push(SavedFile { name, length, offset });
    }
    group.extend(outputs.map(|directory| Member { directory, packages: Vec::new() }));
    if group.is_empty() {
        return Err("it names no packages");
    }
    if at == end { Ok(Saved { group, hidden, files: saved }) } else { Err("it is too long") }
}

/// Writes a file and computes its checksum.
pub(super) struct ChecksumWriter<W> {
    file: W,
    digest: digest::Context,
}

impl<W: io::Write> ChecksumWriter<W> {
    pub(super) fn new(file: W) -> Self {
        Self { file, digest: digest::Context::new(&digest::SHA256) }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)
    }

    /// Copies the rest of `from`, through `block`. Returns the number of bytes.
    pub(super) fn copy(&mut self, from: &mut impl io::Read, block: &mut [u8]) -> io::Result<u64> {
        let mut copied = 0;
        loop {
            match from.read(block)? {
                0 => return Ok(copied),
                length => {
                    self.write_all(&block[..length])?;
                    copied += length as u64;
                }
            }
        }
    }

    /// Writes the checksum.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.write_all(self.checksum().as_bytes())
    }

    /// Returns the checksum of what was written.
    pub(super) fn checksum(&self) -> String {
        checksum(self.digest.clone().finish())
    }
}

/// Formats the last line of a journal.
fn checksum(digest: digest::Digest) -> String {
    hex::encode(digest.as_ref()) + "\n"
}
