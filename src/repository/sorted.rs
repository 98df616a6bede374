//! Finds entries of the archive index by bisection: tools sort it by name, and then by version, newest
//! first (PSD-009 §6.3). Reads a few blocks of the index instead of all of it.
//!
//! Whether an entry is found must not decide anything but the cost. In an index of another order or
//! form nothing is found, and the caller reads all of it.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use peipkg_format::package::PackageName;
use peipkg_format::version::Version;
use serde::de::DeserializeOwned;

use crate::repository::index_head;

/// How much is read at a time, in bytes: more than most entries have.
const BLOCK: usize = 2048;

/// How far the next entry is searched, in bytes.
const MAX_GAP: usize = 64 * 1024;

/// About how much one bisection reads, in bytes.
const COST: u64 = 16 * 1024;

/// The begin of an entry. A JSON string cannot contain it: its quotes would be escaped.
const BEGIN: &[u8] = br#"{"name":""#;

/// The longest part of an entry with its name, version and architecture, in bytes.
const IDENTITY: usize = 512;

/// Returns the entries of these packages in the order of `wanted`, if all are found and that costs less
/// than to read the index.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn find<E: DeserializeOwned>(
    index: &File,
    wanted: &[(&PackageName, &Version)],
) -> io::Result<Option<Vec<E>>> {
    let index = Sorted { file: index, length: index.metadata()?.len() };
    if wanted.len() as u64 * COST > index.length || !index.is_whole()? {
        return Ok(None);
    }
    wanted.iter().map(|(package, version)| index.find(package, version)).collect()
}

/// An index that may be sorted.
struct Sorted<'a> {
    file: &'a File,
    length: u64,
}

/// Where an entry begins, and what it is of.
struct Found {
    start: u64,
    name: String,
    version: Version,
    architecture: String,
}

impl Sorted<'_> {
    /// Whether head and end of the index are those of a whole one: a tool may have written half of it.
    fn is_whole(&self) -> io::Result<bool> {
        let mut end = [0; 64];
        let from = self.length.saturating_sub(end.len() as u64);
        let length = self.file.read_at(&mut end, from)?;
        Ok(end[..length].trim_ascii_end().ends_with(b"]}")
            && index_head::field::<String>(self.from(0), "kind").as_deref() == Some("archive"))
    }

    fn find<E: DeserializeOwned>(&self, package: &PackageName, version: &Version) -> io::Result<Option<E>> {
        let compare = |found: &Found| {
            let by_version = || version.sort_cmp(&found.version);
            let by_name = found.name.as_str().cmp(&package.name);
            by_name.then_with(by_version).then_with(|| found.architecture.cmp(&package.architecture))
        };
        // If the index is sorted, the entry begins at `low` or between `low` and `high`.
        let (mut low, mut high) = (0, self.length);
        while high - low > BLOCK as u64 {
            let middle = low + (high - low) / 2;
            match self.next(middle, high)? {
                Some(found) if compare(&found) == Ordering::Equal => return self.entry(found.start),
                Some(found) if compare(&found) == Ordering::Less => low = found.start + 1,
                _ => high = middle,
            }
        }
        while let Some(found) = self.next(low, high)? {
            if compare(&found) == Ordering::Equal {
                return self.entry(found.start);
            }
            low = found.start + 1;
        }
        Ok(None)
    }

    /// Returns the first entry that begins at `low` or between `low` and `high`.
    fn next(&self, low: u64, high: u64) -> io::Result<Option<Found>> {
        let (mut text, mut searched) = (Vec::new(), 0);
        while searched < MAX_GAP {
            let length = text.len();
            text.resize(length + BLOCK, 0);
            let read = self.file.read_at(&mut text[length..], low + length as u64)?;
            text.truncate(length + read);
            // Look only at begins whose identity has been read too.
            let end = if read == 0 { text.len() } else { text.len().saturating_sub(IDENTITY) };
            while searched < end {
                if let Some([name, version, architecture]) = identity(&text[searched..])
                    && let Ok(version) = version.parse()
                {
                    let start = low + searched as u64;
                    let found =
                        Found { start, name: name.into(), version, architecture: architecture.into() };
                    return Ok(Some(found).filter(|_| start < high));
                }
                searched += 1;
            }
            if read == 0 || low + searched as u64 >= high {
                break;
            }
        }
        Ok(None)
    }

    /// Reads the entry that begins at `start`.
    fn entry<E: DeserializeOwned>(&self, start: u64) -> io::Result<Option<E>> {
        let text = BufReader::with_capacity(BLOCK, self.from(start));
        match E::deserialize(&mut serde_json::Deserializer::from_reader(text)) {
            Err(error) if error.is_io() => Err(error.into()),
            entry => Ok(entry.ok()),
        }
    }

    fn from(&self, offset: u64) -> impl Read {
        From { file: self.file, offset }
    }
}

/// Reads a file from an offset, and leaves the file's own offset alone.
struct From<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Reads name, version and architecture of the entry that `text` begins with. A relation begins with a
/// name too, but no architecture follows.
fn identity(text: &[u8]) -> Option<[&str; 3]> {
    let (mut rest, mut values) = (text, [""; 3]);
    let keys = [BEGIN, br#"","version":""#, br#"","architecture":""#];
    for (value, key) in values.iter_mut().zip(keys) {
        rest = rest.strip_prefix(key)?;
        let (text, after) = rest.split_at(rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?);
        (*value, rest) = (str::from_utf8(text).ok()?, after);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Entry {
        url: String,
    }

    /// Returns an entry as tools write it, with relations that look like other entries.
    fn entry(name: &str, version: &str, architecture: &str) -> String {
        format!(
            r#"{{"name":"{name}","version":"{version}","architecture":"{architecture}","description":"{}\"{{\\\"name\\\":\\\"tool-0003\\\"",
"dependencies":[{{"name":"tool-0003","version":"2-1","arch":"noarch"}},{{"name":"tool-0007"}}],
"url":"/{name}/{version}/{architecture}"}}"#,
            "long ".repeat(name.len() * version.len() * 3),
        )
        .replace('\n', "")
    }

    /// The identities of an index of 200 names, each with three versions, the first in two
    /// architectures.
    fn identities() -> Vec<(String, &'static str, &'static str)> {
        let versions = [("10-1", "noarch"), ("2-1", "noarch"), ("2-1", "x86_64"), ("2~rc1-1", "noarch")];
        let names = (0..200).map(|number| format!("tool-{number:04}"));
        names.flat_map(|name| versions.map(|(version, of)| (name.clone(), version, of))).collect()
    }

    fn index(entries: &[String]) -> String {
        format!("{{\"kind\":\"archive\",\"index_version\":3,\"packages\":[{}]}}\n", entries.join(","))
    }

    /// Returns the URLs of these packages by bisection.
    #[track_caller]
    fn urls(index: &str, wanted: &[(&str, &str, &str)]) -> Option<Vec<String>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), index).unwrap();
        let package = |(name, version, architecture): &(&str, &str, &str)| {
            let package = PackageName { name: (*name).into(), architecture: (*architecture).into() };
            (package, version.parse::<Version>().unwrap())
        };
        let wanted: Vec<_> = wanted.iter().map(package).collect();
        let wanted: Vec<_> = wanted.iter().map(|(package, version)| (package, version)).collect();
        let found: Vec<Entry> = find(&File::open(file.path()).unwrap(), &wanted).unwrap()?;
        Some(found.into_iter().map(|entry| entry.url).collect())
    }

    #[test]
    fn each_entry_of_a_sorted_index_is_found() {
        let all = identities();
        let entries: Vec<_> = all.iter().map(|(name, version, of)| entry(name, version, of)).collect();
        let index = index(&entries);
        assert!(index.len() as u64 > 4 * COST, "{}", index.len());
        for (name, version, of) in &all {
            assert_eq!(urls(&index, &[(name, version, of)]).unwrap(), [format!("/{name}/{version}/{of}")]);
        }
        let [first, last] = [("tool-0000", "10-1", "noarch"), ("tool-0199", "2~rc1-1", "noarch")];
        assert_eq!(
            urls(&index, &[last, first]).unwrap(),
            ["/tool-0199/2~rc1-1/noarch", "/tool-0000/10-1/noarch"]
        );
        // Names, versions and architectures that are not listed, and relations that are.
        for lost in [
            ("tool-0003", "2-1", "aarch64"),
            ("tool-0007", "3-1", "noarch"),
            ("tool-000", "2-1", "noarch"),
            ("a", "1-1", "noarch"),
            ("z", "1-1", "noarch"),
        ] {
            assert_eq!(urls(&index, &[first, lost]), None, "{lost:?}");
        }
    }

    #[test]
    fn index_that_is_short_or_of_another_form_is_left_to_the_caller() {
        let all = identities();
        let mut entries: Vec<_> = all.iter().map(|(name, version, of)| entry(name, version, of)).collect();
        let wanted = [("tool-0001", "2-1", "noarch")];
        let whole = index(&entries);
        assert!(urls(&whole, &wanted).is_some());
        assert_eq!(urls(&index(&entries[..8]), &wanted), None, "reading it costs less");
        for end in [1, 2, 3, 100] {
            assert_eq!(urls(&whole[..whole.len() - 1 - end], &wanted), None, "cut off by {end}");
        }
        assert_eq!(urls(&whole.replacen("archive", "active", 1), &wanted), None);
        assert_eq!(urls(&whole.replace(':', ": "), &wanted), None);
        assert_eq!(urls(&format!("{whole}x"), &wanted), None);
        entries.reverse();
        assert_eq!(urls(&index(&entries), &wanted), None);
    }
}
