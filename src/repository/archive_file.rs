//! Reads the archive index again only when its file has changed.
//!
//! The loop reads the file and the publisher changes it. They share one [`ArchiveFile`],
//! so the loop does not read the index again after the farm's own publish.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peipkg_format::archive_index::Archive;
use peipkg_format::regular_file::{self, MAX_INDEX};

use crate::repository::index_head;

/// The archive index, and the stamp of the file when it was read last.
#[derive(Debug)]
pub(crate) struct ArchiveFile {
    path: PathBuf,
    /// Locked only to compare or to set what was seen, never while the file is read.
    seen: Mutex<Option<Seen>>,
}

/// The file that was read last: its stamp, and how it is broken, if so.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    fault: Option<String>,
}

/// The metadata that change when a file is replaced or rewritten: device, inode, length, and
/// modification time in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64);

/// The index at one time. Each publish makes its `index_version` higher by one.
#[derive(Debug)]
pub(crate) struct Edition {
    stamp: Stamp,
    index_version: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let (device, inode, length) = (metadata.dev(), metadata.ino(), metadata.len());
        Self(device, inode, length, metadata.mtime(), metadata.mtime_nsec())
    }
}

impl ArchiveFile {
    /// The file at `path`, not yet read.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, seen: Mutex::default() }
    }

    /// Reads the archive, if the file has changed since it was last read or acknowledged. Returns
    /// the error of a file that cannot be read each time, without parsing a broken file again.
    pub(crate) fn read_if_changed(&self) -> Option<Result<Archive, String>> {
        let result = self.read().transpose()?;
        Some(result.map_err(|error| format!("{}: {error}", self.path.display())))
    }

    fn read(&self) -> Result<Option<Archive>, String> {
        // Look before opening: each poll comes here.
        let stamp = self.path.metadata().ok().map(|metadata| Stamp::of(&metadata));
        if let Some(seen) = self.seen().as_ref().filter(|seen| Some(seen.stamp) == stamp) {
            return seen.fault.clone().map_or(Ok(None), Err);
        }
        self.forget();
        let file = regular_file::open_up_to(&self.path, MAX_INDEX).map_err(|error| error.to_string())?;
        let stamp = Stamp::of(&file.metadata().map_err(|error| error.to_string())?);
        match Archive::read(file) {
            Ok(archive) => {
                *self.seen() = Some(Seen { stamp, fault: None });
                Ok(Some(archive))
            }
            Err(error) => {
                let is_broken = !error.is_io();
                let error = io::Error::from(error).to_string();
                // A disk may be readable again later; the text of the file stays what it is.
                if is_broken {
                    *self.seen() = Some(Seen { stamp, fault: Some(error.clone()) });
                }
                Err(error)
            }
        }
    }

    /// Makes the next call read the file, changed or not.
    pub(crate) fn forget(&self) {
        *self.seen() = None;
    }

    /// Returns the file's edition; `None` if there is no index, or somebody is changing it.
    pub(crate) fn edition(&self) -> Option<Edition> {
        let file = regular_file::open_up_to(&self.path, MAX_INDEX).ok()?;
        let stamp = Stamp::of(&file.metadata().ok()?);
        let index_version = index_head::field(&file, "index_version")?;
        // A tool may write in place.
        (stamp == Stamp::of(&file.metadata().ok()?)).then_some(Edition { stamp, index_version })
    }

    /// Counts the file as read at `after`, if only one publish of this process has changed it since it was
    /// read at `before`. Otherwise somebody else has changed the index too, perhaps while the own publish
    /// waited for the repository's lock, and the next call must read it.
    pub(crate) fn acknowledge(&self, before: Option<&Edition>, after: Option<&Edition>) {
        let mut seen = self.seen();
        let is_known = |before: &Edition, after: &Edition| {
            after.index_version.checked_sub(1) == Some(before.index_version)
                && seen.as_ref().is_some_and(|seen| seen.fault.is_none() && seen.stamp == before.stamp)
        };
        *seen = match (before, after) {
            (Some(before), Some(after)) if is_known(before, after) => {
                Some(Seen { stamp: after.stamp, fault: None })
            }
            _ => None,
        };
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_changed_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.json");
        let file = ArchiveFile::new(path.clone());
        assert!(file.read_if_changed().unwrap().unwrap_err().contains("archive.json: No such file"));
        std::fs::write(&path, r#"{"kind":"archive","packages":[]}"#).unwrap();
        assert!(file.read_if_changed().unwrap().unwrap().is_empty());
        assert!(file.read_if_changed().is_none());
        std::fs::write(&path, "{").unwrap();
        assert!(file.read_if_changed().unwrap().is_err());
        let error = file.read_if_changed().unwrap().unwrap_err();
        assert_eq!(file.read_if_changed().unwrap().unwrap_err(), error, "a broken file stays an error");
        let entry = r#"{"kind":"archive","packages":[{"name":"a","version":"1-1","architecture":"noarch"}]}"#;
        std::fs::write(&path, entry).unwrap();
        assert_eq!(file.read_if_changed().unwrap().unwrap().len(), 1);
    }

    #[test]
    fn file_broken_is_not_parsed_again_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.json");
        let write = |text: &str, time: u64| {
            std::fs::write(&path, text).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        let file = ArchiveFile::new(path.clone());
        let index = |version: u64| format!(r#"{{"kind":"archive","index_version":{version},"packages":[]}}"#);
        write(&index(1).replace('[', "("), 1);
        let error = file.read_if_changed().unwrap().unwrap_err();
        // Nothing but the content shows whether the file is read.
        write(&index(1), 1);
        assert_eq!(file.read_if_changed().unwrap().unwrap_err(), error);
        // A publish of our own counts as read only if the index before it was read.
        let before = file.edition();
        write(&index(2), 2);
        file.acknowledge(before.as_ref(), file.edition().as_ref());
        assert!(file.read_if_changed().unwrap().unwrap().is_empty());
        assert!(file.read_if_changed().is_none());
    }

    #[test]
    fn change_is_read_again_unless_it_is_our_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.json");
        let writes = std::cell::Cell::new(0);
        let write = |text: &str| {
            // Two changes may have one time, so each has a length of its own.
            writes.set(writes.get() + 10);
            std::fs::write(&path, text.to_owned() + &" ".repeat(writes.get())).unwrap();
        };
        let file = ArchiveFile::new(path.clone());
        let index = |version: u64| format!(r#"{{"kind":"archive","index_version":{version},"packages":[]}}"#);
        let change = |text: &str| {
            let before = file.edition();
            write(text);
            (before, file.edition())
        };
        let acknowledge = |(before, after): (Option<Edition>, Option<Edition>)| {
            file.acknowledge(before.as_ref(), after.as_ref());
        };
        let read = || assert!(file.read_if_changed().unwrap().is_ok());
        write(&index(8));
        read();
        acknowledge(change(&index(9)));
        assert!(file.read_if_changed().is_none(), "an own change");
        let own = change(&index(10));
        write(&index(11));
        acknowledge(own);
        assert!(file.read_if_changed().is_some(), "another's change after it");
        write(&index(12));
        read();
        write(&index(13));
        acknowledge(change(&index(14)));
        assert!(file.read_if_changed().is_some(), "another's change before it");
        for other in [&index(14), &index(16), &index(13), "{}"] {
            write(&index(14));
            read();
            acknowledge(change(other));
            assert!(file.read_if_changed().is_some(), "another's change within it: {other}");
        }
        write(&index(14));
        read();
        file.forget();
        acknowledge(change(&index(15)));
        assert!(file.read_if_changed().is_some(), "a file that was never read");
    }
}
