//! Saves the repository's small files before a publish, and restores them to undo it.
//!
//! `peipkg-repo` may write its index files in place, and before the packages. So the manager first
//! saves the files that the tool will overwrite, in synced files of the state directory. If the tool fails,
//! or every process is killed, the publish is either found whole or undone from this journal: at once, or
//! at the next start.
//!
//! ```text
//! {"group":[{"directory":"<directory below publish/>","packages":[["<name>","<version>","<architecture>"],…]},…],
//!  "hidden":[".<name>",…],"files":[["index/archive.json",123],…],
//!  "beside":["index/active.json","index/archive.json"]}\n                   (the three lines are one)
//! <the bytes of the files that are not beside, one after the other>
//! <SHA-256 of the above, in hexadecimal>\n
//! ```
//!
//! The two indexes may be long: the kernel copies each to a file beside the journal,
//! `journal.active.json` and `journal.archive.json`. A hard link is no copy: a tool may write in place.
//! Their signatures, which the journal has, are their checksums: `peipkg-repo verify` must accept the copies
//! before an undo uses them.
//!
//! An earlier version kept the indexes in the journal; an even earlier one published one build at a time
//! and wrote `"outputs":"<directory>"` for the group.
//!
//! No index is read into memory: the saved files are compared and copied block by block.

pub(crate) mod form;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Take};
use std::path::{Path, PathBuf};

use peipkg_format::regular_file::{self, MAX_INDEX};
use peipkg_format::repository_layout::{self, ACTIVE_INDEX, ARCHIVE_INDEX, DESCRIPTOR, INDEX_DIRECTORY};
use peipkg_format::sort;

use crate::repository::journal::form::{BLOCK, ChecksumWriter, Header, MAX_HEAD};
pub(crate) use crate::repository::journal::form::{Member, Saved, SavedFile};
use crate::repository::same_bytes::have_same_bytes;
use crate::state::durable::{self, FileError, at};

/// The indexes that every publish rewrites (PSD-009 §6.2, §6.3).
pub(super) const INDEXES: [&str; 2] = [ACTIVE_INDEX, ARCHIVE_INDEX];

/// The longest journal that is read, in bytes: an earlier version kept both indexes in it.
const MAX_JOURNAL: u64 = 2 * MAX_INDEX + MAX_HEAD;

/// The journal of one state directory.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    repo: PathBuf,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] FileError),
    /// Its bytes are not those that the manager wrote: a disk has lost or changed them.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

impl Journal {
    /// The journal at `path` for the repository at `repo`.
    pub(crate) fn new(path: PathBuf, repo: PathBuf) -> Self {
        Self { path, repo }
    }

    /// The path of the journal.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Saves the repository's small files, before the packages of `group` are published.
    ///
    /// # Errors
    /// When the file system refuses. Then nothing is saved, unless the file system also refuses to remove
    /// it; a settling undoes the publish that has not begun.
    pub(crate) fn begin(&self, group: Vec<Member>) -> Result<(), FileError> {
        self.save(group).inspect_err(|_| _ = self.forget())
    }

    fn save(&self, group: Vec<Member>) -> Result<(), FileError> {
        let hidden = hidden_names(&self.repo).map_err(at(&self.path))?;
        let mut header = Header { group, hidden, ..Header::default() };
        let mut files = Vec::new();
        for name in small_files(&self.repo).map_err(at(&self.path))? {
            let path = self.repo.join(&name);
            let opened = regular_file::open_up_to(&path, MAX_INDEX)
                .and_then(|file| Ok((file.metadata()?.len(), file)));
            let (mut length, file) =
                opened.map_err(|error| cannot_save(&path, &error)).map_err(at(&self.path))?;
            if INDEXES.contains(&&*name) {
                let copy = self.copy_of(&name);
                let copied = durable::copy(&file, &copy).map_err(|error| cannot_save(&path, &error));
                length = copied.map_err(at(&copy))?;
                header.beside.push(name.clone());
            } else {
                files.push((path, length, file));
            }
            header.files.push((name, length));
        }
        self.write(&header, files).map_err(at(&self.path))
    }

    /// Writes the journal, with the bytes of `files`: their paths, lengths and open files.
    fn write(&self, header: &Header, mut files: Vec<(PathBuf, u64, File)>) -> io::Result<()> {
        let mut head = serde_json::to_vec(header)?;
        head.push(b'\n');
        durable::replace(&self.path, |journal| {
            let mut journal = ChecksumWriter::new(journal);
            journal.write_all(&head)?;
            let mut block = vec![0; BLOCK];
            for (path, length, file) in &mut files {
                let copied = journal.copy(file, &mut block).map_err(|error| cannot_save(path, &error))?;
                if copied != *length {
                    return Err(cannot_save(path, &io::Error::other("it changed while it was copied")));
                }
            }
            journal.finish()
        })
    }

    /// The file beside the journal that has the copy of the index `name` of the repository.
    pub(super) fn copy_of(&self, name: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(Path::new(name).file_name().unwrap_or_default());
        path.into()
    }

    fn clear_copies(&self) {
        for name in INDEXES {
            durable::clear(&self.copy_of(name));
        }
    }

    /// Whether a publish has begun and is not settled.
    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Reads where the files are that were saved before the publish that is not settled, if there is one.
    ///
    /// # Errors
    /// When there is a journal, but it cannot be read or is damaged.
    pub(crate) fn read(&self) -> Result<Option<Saved>, JournalError> {
        let read = regular_file::open_up_to(&self.path, MAX_JOURNAL)
            .and_then(|journal| form::read(&mut &journal, journal.metadata()?.len()));
        let saved = match read {
            Ok(saved) => saved.map_err(JournalError::Damaged)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&self.path)(error).into()),
        };
        for SavedFile { name, length, .. } in saved.beside() {
            let path = self.copy_of(name);
            match regular_file::open_up_to(&path, MAX_INDEX).and_then(|copy| copy.metadata()) {
                Ok(copy) if copy.len() == *length => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error).into()),
                _ => return Err(JournalError::Damaged("the copy of an index is gone or has another length")),
            }
        }
        Ok(Some(saved))
    }

    /// Opens the bytes of a saved file.
    ///
    /// # Errors
    /// When they cannot be read. Names their file, and has none of the kinds that tell of the repository.
    pub(super) fn open(&self, saved: &SavedFile) -> io::Result<Take<File>> {
        let path = if saved.offset.is_some() { self.path.clone() } else { self.copy_of(&saved.name) };
        let opened = regular_file::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(saved.offset.unwrap_or(0)))?;
            Ok(file.take(saved.length))
        });
        opened.map_err(|error| io::Error::other(at(&path)(error)))
    }

    /// Whether the repository has other bytes than a saved file.
    ///
    /// # Errors
    /// When a file cannot be read, or the repository has none.
    pub(super) fn is_other(&self, saved: &SavedFile) -> io::Result<bool> {
        let mut file = regular_file::open(&self.repo.join(&saved.name))?;
        // Read no more than it takes to tell.
        Ok(file.metadata()?.len() != saved.length || !have_same_bytes(&mut file, &mut self.open(saved)?)?)
    }

    /// Restores the saved files, removes the tool's unfinished work, then removes the journal.
    /// Returns whether the repository had changed: a tool that only refused has changed nothing.
    ///
    /// # Errors
    /// When the file system refuses. The journal stays, so the caller can try again.
    pub(crate) fn undo(&self, saved: &Saved) -> Result<bool, FileError> {
        let has_changed = self.restore(saved).map_err(at(&self.repo))?;
        self.forget().map(|()| has_changed)
    }

    fn restore(&self, saved: &Saved) -> io::Result<bool> {
        let index = self.repo.join(INDEX_DIRECTORY);
        let mut has_changed = !index.exists();
        if has_changed {
            // A tool may replace the directory by two renames, and end between them.
            fs::create_dir(&index)?;
            durable::sync_parent(&index)?;
        }
        for saved in &saved.files {
            if self.is_other(saved).unwrap_or(true) {
                durable::replace(&self.repo.join(&saved.name), |file| self.copy(saved, file))?;
                has_changed = true;
            }
        }
        for name in index_files(&self.repo)? {
            if saved.file(&name).is_none() {
                durable::remove(&self.repo.join(name))?;
                has_changed = true;
            }
        }
        // Otherwise the tool's next run would continue this unfinished work, although the index
        // that it is based on is gone.
        for name in hidden_names(&self.repo)?.iter().filter(|name| !saved.hidden.contains(name)) {
            durable::remove(&self.repo.join(name))?;
            has_changed = true;
        }
        // Sync the removals before the journal goes: a power cut could bring the files back.
        durable::sync(&index)?;
        durable::sync(&self.repo)?;
        Ok(has_changed)
    }

    /// Copies the bytes of a saved file to `file`.
    pub(super) fn copy(&self, saved: &SavedFile, file: &mut File) -> io::Result<()> {
        if io::copy(&mut self.open(saved)?, file)? == saved.length {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the journal has become shorter"))
    }

    /// Removes the journal: the publish is settled.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn forget(&self) -> Result<(), FileError> {
        let removed = durable::remove(&self.path).and_then(|()| durable::sync_parent(&self.path));
        removed.map_err(at(&self.path))?;
        // Only a journal that is there needs them, and a power cut cannot bring it back now.
        self.clear_copies();
        Ok(())
    }

    /// Removes what a crash left of a journal that was half written or settled; warns if that fails.
    pub(crate) fn clear_unfinished(&self) {
        durable::clear(&durable::unfinished(&self.path));
        if !self.exists()
            && let Err(FileError { path, error }) = self.forget()
        {
            durable::not_cleared(&path, &error);
        }
    }
}

/// Syncs the small files of the repository at `repo`.
///
/// # Errors
/// When the file system refuses, or a file is missing.
pub(crate) fn sync_small_files(repo: &Path) -> io::Result<()> {
    let index = repo.join(INDEX_DIRECTORY);
    let names = small_files(repo)?.into_iter().map(|name| repo.join(name));
    names.chain([index, repo.to_owned()]).try_for_each(|path| durable::sync(&path))
}

/// Returns the names of the files that a publish overwrites, relative to the repository: the
/// descriptor and the indexes, with their signatures.
pub(super) fn small_files(repo: &Path) -> io::Result<Vec<String>> {
    let signature = repository_layout::signature(DESCRIPTOR);
    let descriptor = [DESCRIPTOR.to_owned(), signature.display().to_string()];
    Ok(descriptor.into_iter().chain(index_files(repo)?).collect())
}

/// Returns the hidden names in the repository: a tool's work in progress.
fn hidden_names(repo: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repo)? {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with('.')).map(str::to_owned));
    }
    Ok(names)
}

/// Returns the names of the index files, relative to the repository.
fn index_files(repo: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repo.join(INDEX_DIRECTORY))? {
        let entry = entry?;
        // Skip directories: a tool may work in one, but it publishes files.
        if let Some(name) =
            entry.file_name().to_str().filter(|_| entry.file_type().is_ok_and(|t| t.is_file()))
        {
            names.push(format!("{INDEX_DIRECTORY}/{name}"));
        }
    }
    sort::sort(&mut names);
    Ok(names)
}

/// Names the file that could not be saved: the caller only names the journal.
fn cannot_save(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot save {}: {error}", path.display()))
}
