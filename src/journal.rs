//! The repository's small files as they were before a publish, so that a publish
//! can be undone.
//!
//! `peipkg-repo` may write its index files in place, the index before the
//! packages. So before it runs, what it is going to overwrite is kept in one
//! synced file of the state directory. If the tool fails, or everything dies, the
//! publish is either found whole or undone from there: at once, or at the next start.
//!
//! ```text
//! {"outputs":"<directory below publish/>","files":[["index/archive.json",123],…]}\n
//! <the files' bytes, one after the other>
//! ```

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::state_dir;

/// What a publish overwrites: the descriptor with its signature, and the indexes.
const DESCRIPTOR: [&str; 2] = ["repo.json", "repo.json.sig"];
const INDEX: &str = "index";

/// The longest first line of a journal, in bytes: a few file names.
const MAX_HEADER: u64 = 64 * 1024;

/// The journal of one state directory.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    repo: PathBuf,
}

/// The first line of a journal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    outputs: String,
    files: Vec<(String, u64)>,
}

impl Journal {
    /// The journal at `path`, of the repository at `repo`.
    pub fn new(path: PathBuf, repo: PathBuf) -> Self {
        Self { path, repo }
    }

    /// Keeps the repository's small files, before `outputs` is published.
    ///
    /// # Errors
    /// When the file system refuses; then nothing is kept.
    pub fn begin(&self, outputs: &str) -> io::Result<()> {
        let mut names: Vec<String> = DESCRIPTOR.map(str::to_owned).to_vec();
        names.extend(self.index_files()?);
        let mut header = Header { outputs: outputs.to_owned(), files: Vec::new() };
        let mut contents = Vec::new();
        for name in names {
            let bytes = fs::read(self.repo.join(&name))?;
            header.files.push((name, bytes.len() as u64));
            contents.extend(bytes);
        }
        let mut text = serde_json::to_vec(&header)?;
        text.push(b'\n');
        text.extend(contents);
        write_synced(&self.path, &text)
    }

    /// Whether a publish has begun and was not settled: until then the index may be half written, or name packages that
    /// are not there.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The outputs whose publish has begun and was not settled.
    ///
    /// # Errors
    /// When the journal is there, but cannot be read.
    pub fn pending(&self) -> io::Result<Option<String>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(read_header(&mut BufReader::new(file))?.outputs)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings the kept files back, and forgets them.
    ///
    /// # Errors
    /// When the file system refuses; what was kept stays, and this can be done again.
    pub fn undo(&self) -> io::Result<()> {
        let mut journal = BufReader::new(File::open(&self.path)?);
        let header = read_header(&mut journal)?;
        for (name, length) in &header.files {
            let mut bytes = Vec::new();
            journal.by_ref().take(*length).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != *length {
                return Err(io::Error::other("the journal is too short"));
            }
            let path = self.repo.join(name);
            if fs::read(&path).ok().as_deref() != Some(&bytes) {
                write_synced(&path, &bytes)?;
            }
        }
        for name in self.index_files()? {
            if header.files.iter().all(|(kept, _)| *kept != name) {
                state_dir::remove(&self.repo.join(name))?;
            }
        }
        self.forget()
    }

    /// Forgets the kept files: the publish stands.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn forget(&self) -> io::Result<()> {
        state_dir::remove(&self.path)?;
        sync_directory(&self.path)
    }

    /// The index files, relative to the repository.
    fn index_files(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.repo.join(INDEX))? {
            let entry = entry?;
            // A tool may keep directories of its own there; what it publishes are files.
            if let Some(name) =
                entry.file_name().to_str().filter(|_| entry.file_type().is_ok_and(|t| t.is_file()))
            {
                names.push(format!("{INDEX}/{name}"));
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Reads the first line.
pub(crate) fn read_header(journal: &mut impl BufRead) -> io::Result<Header> {
    let mut line = Vec::new();
    journal.take(MAX_HEADER).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// Replaces a file in one step: a reader or a crash sees the old bytes or the new ones.
fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Out of space, perhaps: what is half written must not take more of it.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(path)
}

/// Makes the renaming or removal of `path` last.
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> (tempfile::TempDir, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let repo = directory.path().join("repo");
        fs::create_dir_all(repo.join("index")).unwrap();
        for name in ["repo.json", "repo.json.sig", "index/archive.json", "index/active.json"] {
            fs::write(repo.join(name), format!("old {name}\n")).unwrap();
        }
        let journal = Journal::new(directory.path().join("journal"), repo);
        (directory, journal)
    }

    #[test]
    fn a_publish_is_undone_to_the_byte() {
        let (directory, journal) = repository();
        let repo = directory.path().join("repo");
        assert_eq!(journal.pending().unwrap(), None);
        journal.begin("a@1-1.0").unwrap();
        assert_eq!(journal.pending().unwrap().as_deref(), Some("a@1-1.0"));
        fs::write(repo.join("index/archive.json"), "half a new ind").unwrap();
        fs::write(repo.join("index/fresh.json"), "").unwrap();
        fs::remove_file(repo.join("repo.json")).unwrap();
        journal.undo().unwrap();
        for name in ["repo.json", "repo.json.sig", "index/archive.json", "index/active.json"] {
            assert_eq!(fs::read_to_string(repo.join(name)).unwrap(), format!("old {name}\n"));
        }
        assert!(!repo.join("index/fresh.json").exists());
        assert_eq!(journal.pending().unwrap(), None);
    }

    #[test]
    fn a_publish_that_stands_is_not_touched() {
        let (directory, journal) = repository();
        journal.begin("a@1-1.0").unwrap();
        fs::write(directory.path().join("repo/index/archive.json"), "new").unwrap();
        journal.forget().unwrap();
        assert_eq!(journal.pending().unwrap(), None);
        assert_eq!(fs::read_to_string(directory.path().join("repo/index/archive.json")).unwrap(), "new");
    }

    #[test]
    fn a_broken_journal_is_an_error_and_changes_nothing() {
        let (directory, journal) = repository();
        journal.begin("a@1-1.0").unwrap();
        let whole = fs::read(directory.path().join("journal")).unwrap();
        fs::write(directory.path().join("journal"), &whole[..whole.len() - 1]).unwrap();
        assert!(journal.undo().is_err());
        fs::write(directory.path().join("journal"), "").unwrap();
        assert!(journal.pending().is_err());
    }
}
