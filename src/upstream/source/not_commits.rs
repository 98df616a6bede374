//! Remembers between runs which tags name no commit, and which no signer has signed, in a file of the
//! state directory. Without it each sweep would fetch them again. Must not decide anything: the core
//! does.
//!
//! An entry counts for the object that the tag had. It ends after a week: the programs that verify
//! signatures may know more by then. An operator may remove the file at any time.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use log::warn;
use peipkg_format::regular_file;
use serde::{Deserialize, Serialize};

use crate::farm::events::NoCommit;
use crate::state::durable;
use crate::state::troubles;

/// How long to believe an entry.
const BELIEVED: Duration = Duration::from_hours(7 * 24);

/// How many entries to keep, the newest ones: a hostile upstream can have any number of such tags.
const KEPT: usize = 10_000;

/// The longest file to read, in bytes: far longer than [`KEPT`] entries.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// An entry of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    upstream: String,
    tag: String,
    /// The id of the tag's object; earlier managers did not write it.
    #[serde(default)]
    object: String,
    reason: String,
    /// When it was found, in seconds since 1970.
    found: u64,
    /// The digest of the signers, if none of them has signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signers: Option<u64>,
}

/// Reads the entries of the file at `path` that are to be believed. Warns of a file that it cannot
/// read, and then believes nothing: each tag costs one more fetch.
pub(crate) fn read(path: &Path) -> Vec<NoCommit> {
    let entries = entries(path, SystemTime::now()).into_iter();
    let found = |Entry { upstream, tag, object, reason, signers, .. }| NoCommit {
        upstream,
        tag,
        object,
        reason,
        signers,
    };
    entries.map(found).collect()
}

/// Adds `found` to the file at `path`. Warns if that fails: the next run fetches the tag again.
pub(crate) fn add(path: &Path, found: &NoCommit, now: SystemTime) {
    let mut entries = entries(path, now);
    let is_same = |entry: &Entry| {
        entry.upstream == found.upstream && entry.tag == found.tag && entry.signers == found.signers
    };
    entries.retain(|entry| !is_same(entry));
    entries.drain(..entries.len().saturating_sub(KEPT - 1));
    let NoCommit { upstream, tag, object, reason, signers } = found.clone();
    entries.push(Entry { upstream, tag, object, reason, found: seconds(now), signers });
    let written = serde_json::to_vec(&entries)
        .map_err(io::Error::from)
        .and_then(|json| durable::replace(path, |file| file.write_all(&json)));
    troubles::end("cannot remember skipped tags");
    if let Err(error) = written {
        let path = path.display().to_string();
        warn!(path, error:%; "cannot remember skipped tags");
        troubles::begin("cannot remember skipped tags", &path, &error);
    }
}

fn entries(path: &Path, now: SystemTime) -> Vec<Entry> {
    troubles::end("cannot read skipped tags");
    let mut entries = match read_file(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let path = path.display().to_string();
            warn!(path, error:%; "cannot read skipped tags");
            troubles::begin("cannot read skipped tags", &path, &error);
            Vec::new()
        }
    };
    // An entry from the future is of a clock that was wrong.
    let is_believed =
        |entry: &Entry| seconds(now).checked_sub(entry.found).is_some_and(|age| age < BELIEVED.as_secs());
    entries.retain(is_believed);
    entries
}

fn read_file(path: &Path) -> io::Result<Vec<Entry>> {
    Ok(serde_json::from_slice(&regular_file::read(path, MAX_FILE)?)?)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(tag: &str) -> NoCommit {
        let (object, reason) = ("1".repeat(40), "a tree".into());
        NoCommit { upstream: "file:///x".into(), tag: tag.into(), object, reason, signers: None }
    }

    #[test]
    fn entry_found_lately_is_believed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("not-commits.json");
        let now = SystemTime::now();
        assert!(read(&path).is_empty());
        add(&path, &found("old"), now - BELIEVED);
        add(&path, &found("future"), now + BELIEVED);
        add(&path, &found("v1"), now - BELIEVED / 2);
        add(&path, &found("v2"), now);
        add(&path, &found("v1"), now);
        assert_eq!(read(&path), [found("v2"), found("v1")]);
        let entry = |number: usize| Entry {
            upstream: "file:///x".into(),
            tag: number.to_string(),
            object: String::new(),
            reason: String::new(),
            found: seconds(now),
            signers: None,
        };
        fs::write(&path, serde_json::to_vec(&(0..KEPT).map(entry).collect::<Vec<_>>()).unwrap()).unwrap();
        add(&path, &found("last"), now);
        let left = read(&path);
        assert_eq!((left.len(), &*left[0].tag, &*left[KEPT - 1].tag), (KEPT, "1", "last"));
    }

    #[test]
    fn file_damaged_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("not-commits.json");
        for bad in ["", "[{}]", "{\"a\": 1}"] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).is_empty());
            add(&path, &found("v1"), SystemTime::now());
            assert_eq!(read(&path), [found("v1")]);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(read(&path).is_empty());
        add(&path, &found("v1"), SystemTime::now());
    }
}
