//! The repository's small files as they were before a publish, so that a publish
//! can be undone.
//!
//! `peipkg-repo` may write its index files in place, the index before the
//! packages. So before it runs, the files that it is going to overwrite are saved in one
//! synced file of the state directory. If the tool fails, or everything dies, the
//! publish is either found whole or undone from there: at once, or at the next start.
//!
//! ```text
//! {"outputs":"<directory below publish/>","hidden":[".<name>",…],"files":[["index/archive.json",123],…]}\n
//! <the files' bytes, one after the other>
//! <SHA-256 of all that, in hexadecimal>\n
//! ```
//!
//! Indexes may be long, so none is held in memory before it has to be brought back.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use peipkg_format::hex;
use peipkg_format::repository_layout::{self, ACTIVE_INDEX, ARCHIVE_INDEX, DESCRIPTOR, INDEX_DIRECTORY};
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::state::durable::{self, FileError, at};

/// The indexes that every publish writes anew (PSD-009 §6.2, §6.3).
const INDEXES: [&str; 2] = [ACTIVE_INDEX, ARCHIVE_INDEX];

/// How much is copied at a time, in bytes.
const BLOCK: usize = 32 * 1024;

/// The length of the checksum with its line feed, in bytes.
const CHECKSUM: usize = 65;

/// The journal of one state directory.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    path: PathBuf,
    repo: PathBuf,
}

/// What a journal holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    /// The directory below `publish/` whose publish has begun.
    pub outputs: String,
    /// What had a hidden name in the repository before it: nobody's, or another tool's.
    hidden: Vec<String>,
    /// The small files before it, by their names below the repository.
    files: Vec<(String, Vec<u8>)>,
}

/// Why a journal that is there says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] FileError),
    /// Its bytes are not those that were written: a disk has lost or changed them.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// The first line of a journal.
#[derive(Serialize, Deserialize)]
struct Header {
    outputs: String,
    hidden: Vec<String>,
    files: Vec<(String, u64)>,
}

impl Journal {
    /// The journal at `path`, of the repository at `repo`.
    pub(crate) fn new(path: PathBuf, repo: PathBuf) -> Self {
        Self { path, repo }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Saves the repository's small files, before `outputs` is published.
    ///
    /// # Errors
    /// When the file system refuses; then nothing is saved.
    pub(crate) fn begin(&self, outputs: &str) -> Result<(), FileError> {
        self.save(outputs).map_err(at(&self.path))
    }

    fn save(&self, outputs: &str) -> io::Result<()> {
        let hidden = hidden_names(&self.repo)?;
        let mut header = Header { outputs: outputs.to_owned(), hidden, files: Vec::new() };
        let mut files = Vec::new();
        for name in small_files(&self.repo)? {
            let path = self.repo.join(&name);
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, file) = opened.map_err(|error| cannot_save(&path, &error))?;
            header.files.push((name, length));
            files.push((path, length, file));
        }
        let mut head = serde_json::to_vec(&header)?;
        head.push(b'\n');
        durable::replace(&self.path, |journal| {
            let mut journal = Summed { file: journal, digest: digest::Context::new(&digest::SHA256) };
            journal.write_all(&head)?;
            let mut block = vec![0; BLOCK];
            for (path, length, file) in &mut files {
                let copied = journal.copy(file, &mut block).map_err(|error| cannot_save(path, &error))?;
                if copied != *length {
                    return Err(cannot_save(path, &io::Error::other("it has changed meanwhile")));
                }
            }
            journal.finish()
        })
    }

    /// Whether a publish has begun and was not settled: until then the index may be half written, or name packages that
    /// are not there.
    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The files that were saved before the publish that has begun and was not settled.
    ///
    /// # Errors
    /// When the journal is there, but not as it was written.
    pub(crate) fn read(&self) -> Result<Option<Saved>, JournalError> {
        match fs::read(&self.path) {
            Ok(bytes) => parse(&bytes).map(Some).map_err(JournalError::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&self.path)(error).into()),
        }
    }

    /// Whether both indexes are others now: each publish counts their versions on.
    pub(crate) fn is_superseded(&self, saved: &Saved) -> bool {
        let mut indexes = saved.files.iter().filter(|(name, _)| INDEXES.contains(&&**name));
        indexes.all(|(name, bytes)| fs::read(self.repo.join(name)).is_ok_and(|now| now != *bytes))
    }

    /// Brings the saved files back, removes what the tool has begun aside, and forgets both. Gives whether there was
    /// anything to bring back or remove: a tool that has only refused has changed nothing.
    ///
    /// # Errors
    /// When the file system refuses; the saved files stay in the journal, and this can be done again.
    pub(crate) fn undo(&self, saved: &Saved) -> Result<bool, FileError> {
        let has_changed = self.restore(saved).map_err(at(&self.repo))?;
        self.forget().map(|()| has_changed)
    }

    fn restore(&self, saved: &Saved) -> io::Result<bool> {
        let index = self.repo.join(INDEX_DIRECTORY);
        let mut has_changed = !index.exists();
        if has_changed {
            // A tool may exchange it by two renames, and end between them.
            fs::create_dir(&index)?;
            durable::sync_parent(&index)?;
        }
        for (name, bytes) in &saved.files {
            let path = self.repo.join(name);
            if fs::read(&path).ok().as_ref() != Some(bytes) {
                durable::replace(&path, |file| file.write_all(bytes))?;
                has_changed = true;
            }
        }
        for name in index_files(&self.repo)? {
            if saved.files.iter().all(|(saved, _)| *saved != name) {
                durable::remove(&self.repo.join(name))?;
                has_changed = true;
            }
        }
        // The next run of the tool would go on with what this one has begun, on top of what is no longer there.
        for name in hidden_names(&self.repo)?.iter().filter(|name| !saved.hidden.contains(name)) {
            durable::remove(&self.repo.join(name))?;
            has_changed = true;
        }
        // What is removed must not be there again when the journal is gone.
        durable::sync(&index)?;
        durable::sync(&self.repo)?;
        Ok(has_changed)
    }

    /// Forgets the saved files: the publish stands.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn forget(&self) -> Result<(), FileError> {
        let removed = durable::remove(&self.path).and_then(|()| durable::sync_parent(&self.path));
        removed.map_err(at(&self.path))
    }

    /// Removes what a journal that was never finished has left; warns if that fails.
    pub(crate) fn clear_unfinished(&self) {
        durable::clear(&durable::unfinished(&self.path));
    }
}

/// Syncs the small files that a tool has written to the repository at `repo`.
///
/// # Errors
/// When the file system refuses, or has no such files.
pub(crate) fn sync_small_files(repo: &Path) -> io::Result<()> {
    let index = repo.join(INDEX_DIRECTORY);
    let names = small_files(repo)?.into_iter().map(|name| repo.join(name));
    names.chain([index, repo.to_owned()]).try_for_each(|path| durable::sync(&path))
}

/// All files that a publish overwrites, relative to the repository.
fn small_files(repo: &Path) -> io::Result<Vec<String>> {
    let signature = repository_layout::signature(DESCRIPTOR);
    let descriptor = [DESCRIPTOR.to_owned(), signature.display().to_string()];
    Ok(descriptor.into_iter().chain(index_files(repo)?).collect())
}

/// What in the repository is out of sight: a tool's work in progress.
fn hidden_names(repo: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repo)? {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with('.')).map(str::to_owned));
    }
    Ok(names)
}

/// The index files, relative to the repository.
fn index_files(repo: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repo.join(INDEX_DIRECTORY))? {
        let entry = entry?;
        // A tool may keep directories of its own there; what it publishes are files.
        if let Some(name) =
            entry.file_name().to_str().filter(|_| entry.file_type().is_ok_and(|t| t.is_file()))
        {
            names.push(format!("{INDEX_DIRECTORY}/{name}"));
        }
    }
    names.sort();
    Ok(names)
}

/// Reads the bytes of a journal.
///
/// # Errors
/// What about them is not as it was written.
pub(crate) fn parse(bytes: &[u8]) -> Result<Saved, &'static str> {
    let end = bytes.len().checked_sub(CHECKSUM).ok_or("it is too short")?;
    let (text, claimed) = bytes.split_at(end);
    if claimed != checksum(digest::digest(&digest::SHA256, text)).as_bytes() {
        return Err("its checksum is another");
    }
    parse_text(text)
}

/// Reads what comes before the checksum of a journal.
pub(crate) fn parse_text(text: &[u8]) -> Result<Saved, &'static str> {
    let line = text.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let (header, mut contents) = (&text[..line], &text[line + 1..]);
    let mut header: Header =
        serde_json::from_slice(header).map_err(|_| "its first line is not understood")?;
    let mut files = Vec::new();
    for (name, length) in header.files.drain(..) {
        let length = usize::try_from(length).map_err(|_| "a file in it is too long")?;
        let (file, rest) = contents.split_at_checked(length).ok_or("a file in it is too long")?;
        files.push((name, file.to_vec()));
        contents = rest;
    }
    let Header { outputs, hidden, .. } = header;
    if contents.is_empty() { Ok(Saved { outputs, hidden, files }) } else { Err("it is too long") }
}

/// A file that is written, and the checksum of what was.
struct Summed<'a> {
    file: &'a mut File,
    digest: digest::Context,
}

impl Summed<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)
    }

    /// Copies what is left of `from`, by way of `block`; how much it was.
    fn copy(&mut self, from: &mut File, block: &mut [u8]) -> io::Result<u64> {
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

    fn finish(self) -> io::Result<()> {
        self.file.write_all(checksum(self.digest.finish()).as_bytes())
    }
}

/// A digest as it ends a journal.
fn checksum(digest: digest::Digest) -> String {
    hex::encode(digest.as_ref()) + "\n"
}

/// Of several files that may be at fault, the error names the one.
fn cannot_save(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot save {}: {error}", path.display()))
}
