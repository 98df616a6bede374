//! Detecting that a file changed between two looks at it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Identifies a state of a file. Every write moves the change time, which no program can set.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Length of the file in bytes.
    pub size: u64,
    file: (u64, u64),
    changed: (i64, i64),
}

impl Stamp {
    /// Takes the stamp of a file.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            file: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;

    fn stamp(path: &Path) -> Stamp {
        Stamp::of(&fs::metadata(path).unwrap())
    }

    #[test]
    fn stamp_of_a_file_written_or_replaced_at_equal_length_differs() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&path, "1").unwrap();
        fs::write(&other, "2").unwrap();
        let before = stamp(&path);
        assert_eq!(stamp(&path), before);
        // The clock of change times ticks every few milliseconds, so write until it has ticked.
        let deadline = Instant::now() + Duration::from_secs(10);
        while stamp(&path) == before {
            assert!(Instant::now() < deadline, "no write changes the stamp");
            fs::write(&path, "3").unwrap();
        }
        let before = stamp(&path);
        fs::rename(&other, &path).unwrap();
        assert_ne!(stamp(&path), before);
    }
}
