//! The archive index as a file: read again only when it has changed.

use std::fs::{File, Metadata};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::archive::Archive;

/// The file, and how it looked when it was read last.
#[derive(Debug)]
pub struct ArchiveFile {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What changes when a file is replaced or rewritten: device, inode, length, seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let (device, inode, length) = (metadata.dev(), metadata.ino(), metadata.len());
        Self(device, inode, length, metadata.mtime(), metadata.mtime_nsec())
    }
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

    /// Takes the file as it is now for read: its changes are known already.
    pub fn acknowledge(&mut self) {
        if self.seen.is_some() {
            self.seen = self.path.metadata().ok().as_ref().map(Stamp::of);
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
        std::fs::write(&path, "{}").unwrap();
        file.acknowledge();
        assert!(file.read_if_changed().is_none());
        std::fs::write(&path, entry).unwrap();
        file.forget();
        file.acknowledge();
        assert!(file.read_if_changed().unwrap().is_ok());
    }
}
