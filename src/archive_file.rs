//! The archive index as a file: read again only when it has changed.

use std::fs::{File, Metadata};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::archive::Archive;

/// The file, and how it looked when it was read last.
#[derive(Debug)]
pub struct ArchiveFile {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What changes when a file is replaced or rewritten: device, inode, length, seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    /// How the file at `path` looks now; `None` if there is none.
    pub fn of_file(path: &Path) -> Option<Self> {
        path.metadata().ok().as_ref().map(Self::of)
    }

    fn of(metadata: &Metadata) -> Self {
        let (device, inode, length) = (metadata.dev(), metadata.ino(), metadata.len());
        Self(device, inode, length, metadata.mtime(), metadata.mtime_nsec())
    }
}

/// How a publish of this process has changed the file.
#[derive(Debug, Clone, Copy)]
pub struct OwnChange {
    /// How it looked before.
    pub before: Option<Stamp>,
    /// How it looked at the end.
    pub after: Option<Stamp>,
}

impl ArchiveFile {
    /// The file at `path`, not yet read.
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// The archive, if the file has changed since it was read or acknowledged
    /// last; why it cannot be read, as long as that is so.
    pub fn read_if_changed(&mut self) -> Option<Result<Archive, String>> {
        let result = (|| {
            let file = File::open(&self.path)?;
            let stamp = Stamp::of(&file.metadata()?);
            if self.seen == Some(stamp) {
                return Ok(None);
            }
            self.seen = None;
            let archive = Archive::read(BufReader::with_capacity(64 * 1024, file))?;
            self.seen = Some(stamp);
            Ok(Some(archive))
        })();
        result.map_err(|error: io::Error| format!("{}: {error}", self.path.display())).transpose()
    }

    /// Forgets that the file was read: it is read again next time.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// Takes the file after `change` for read: what has changed is known. If it was not as it was read
    /// when the change began, somebody else has changed it too, and it is read again next time.
    pub fn acknowledge(&mut self, change: OwnChange) {
        if self.seen == change.before {
            self.seen = change.after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.json");
        let mut file = ArchiveFile::new(path.clone());
        assert!(file.read_if_changed().unwrap().unwrap_err().contains("archive.json: No such file"));
        std::fs::write(&path, r#"{"kind":"archive","packages":[]}"#).unwrap();
        assert!(file.read_if_changed().unwrap().unwrap().is_empty());
        assert!(file.read_if_changed().is_none());
        std::fs::write(&path, "{").unwrap();
        assert!(file.read_if_changed().unwrap().is_err());
        assert!(file.read_if_changed().unwrap().is_err(), "a broken file stays an error");
        let entry = r#"{"kind":"archive","packages":[{"name":"a","version":"1-1","architecture":"noarch"}]}"#;
        std::fs::write(&path, entry).unwrap();
        assert_eq!(file.read_if_changed().unwrap().unwrap().len(), 1);
    }

    #[test]
    fn an_own_change_is_not_read_but_somebody_elses_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.json");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let change = |text: &str| {
            let before = Stamp::of_file(&path);
            write(text);
            OwnChange { before, after: Stamp::of_file(&path) }
        };
        let mut file = ArchiveFile::new(path.clone());
        write(r#"{"kind":"archive","packages":[]}"#);
        assert!(file.read_if_changed().unwrap().is_ok());
        file.acknowledge(change("{}"));
        assert!(file.read_if_changed().is_none(), "an own change");
        let own = change("{ }");
        write(" {}  ");
        file.acknowledge(own);
        assert!(file.read_if_changed().is_some(), "somebody else's after it");
        write(r#"{"kind":"archive","packages":[]} "#);
        assert!(file.read_if_changed().unwrap().is_ok());
        write("{");
        file.acknowledge(change("{}"));
        assert!(file.read_if_changed().is_some(), "somebody else's before it");
        file.forget();
        file.acknowledge(change("{ }"));
        assert!(file.read_if_changed().is_some(), "what was never read");
    }
}
