//! The form of a journal's bytes. Pure.

use std::io;

use peipkg_format::hex;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::farm::events::PendingOutputs;

/// The length of the checksum with its line feed, in bytes.
pub(super) const CHECKSUM_LENGTH: usize = 65;

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
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// The names and lengths of those files that are beside the journal.
    pub(super) beside: Vec<(String, u64)>,
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
    fn from(PendingOutputs { directory, key, packages }: &PendingOutputs) -> Self {
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
    /// Returns the bytes that the file `name`, relative to the repository, had before the publish.
    pub(crate) fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(saved, _)| saved == name).map(|(_, bytes)| &**bytes)
    }

    /// Returns all saved files.
    pub(crate) fn files(&self) -> &[(String, Vec<u8>)] {
        &self.files
    }

    /// Returns the names of the files that no checksum of the journal covers.
    pub(crate) fn names_beside(&self) -> impl Iterator<Item = &str> {
        self.beside.iter().map(|(name, _)| &**name)
    }
}

/// Parses the bytes of a journal. The files beside it are left to the caller.
///
/// # Errors
/// How the bytes are damaged.
pub(crate) fn parse(bytes: &[u8]) -> Result<Saved, &'static str> {
    let end = bytes.len().checked_sub(CHECKSUM_LENGTH).ok_or("it is too short")?;
    let (text, claimed) = bytes.split_at(end);
    if claimed != checksum(digest::digest(&digest::SHA256, text)).as_bytes() {
        return Err(OTHER_CHECKSUM);
    }
    parse_text(text)
}

/// Parses the bytes before the checksum of a journal.
pub(crate) fn parse_text(text: &[u8]) -> Result<Saved, &'static str> {
    let line = text.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let (header, mut contents) = (&text[..line], &text[line + 1..]);
    let mut header: Header = serde_json::from_slice(header).map_err(|_| "its first line cannot be parsed")?;
    let (mut files, mut beside) = (Vec::new(), Vec::new());
    for (name, length) in header.files.drain(..) {
        if header.beside.contains(&name) {
            beside.push((name, length));
            continue;
        }
        let length = usize::try_from(length).map_err(|_| "a file in it is too long")?;
        let (file, rest) = contents.split_at_checked(length).ok_or("a file in it is too long")?;
        files.push((name, file.to_vec()));
        contents = rest;
    }
    let Header { outputs, mut group, hidden, .. } = header;
    group.extend(outputs.map(|directory| Member { directory, packages: Vec::new() }));
    if group.is_empty() {
        return Err("it names no packages");
    }
    if contents.is_empty() { Ok(Saved { group, hidden, files, beside }) } else { Err("it is too long") }
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
