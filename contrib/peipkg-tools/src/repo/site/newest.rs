//! The newest packages of an index, for people. Pure.
//!
//! Another tool may have written an entry with anything in it, so everything beside its identity
//! may be missing or of another type. Leaves out fields of another type.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

use crate::digest::sha256;
use crate::timestamp::Timestamp;

/// An entry of an index as people see it. Every text is as the package has it, not escaped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in super::super) struct Newest {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    pub(super) description: String,
    pub(super) license: String,
    pub(super) homepage: String,
    pub(super) url: String,
    /// Size of the package file, in bytes.
    pub(super) size_compressed: Option<u64>,
    /// Size of its files, in bytes.
    pub(super) size_installed: Option<u64>,
    /// When it was built, if that is a time as the format writes it.
    pub(super) built: Option<Timestamp>,
    pub(super) farm: String,
    /// SHA-256 of identity and content: no other package has it, and it survives a rebuilt index.
    pub(super) digest: [u8; 32],
}

/// The one field that the order needs: an index may have a million entries.
#[derive(Deserialize)]
struct Dated<'a> {
    #[serde(borrow)]
    build: DatedBuild<'a>,
}

#[derive(Deserialize)]
struct DatedBuild<'a> {
    #[serde(borrow)]
    timestamp: std::borrow::Cow<'a, str>,
}

/// Finds the entries that were built last, as the entries of an index pass by.
pub(in super::super) struct NewestSoFar {
    count: usize,
    /// By time and place, newest first; those of one second by their place in the index. Entries
    /// without a time come last.
    found: BTreeMap<(Reverse<Option<u64>>, usize), String>,
    place: usize,
    /// The time of the last one found, if there are `count` and it is one without a fraction.
    oldest: String,
}

impl NewestSoFar {
    /// Finds at most `count` entries.
    pub(in super::super) fn new(count: usize) -> Self {
        Self { count, found: BTreeMap::new(), place: 0, oldest: String::new() }
    }

    /// Adds the next entry. `built` is its time of build, if that is known already.
    pub(in super::super) fn add(&mut self, json: &str, built: Option<&str>) {
        self.place += 1;
        let is_full = self.found.len() >= self.count;
        // Texts of this form have the order of their times. Parsing each would take longer than to copy
        // the entry.
        if is_full && built.is_some_and(|built| built.len() == self.oldest.len() && *built <= *self.oldest) {
            return;
        }
        let dated = built.is_none().then(|| serde_json::from_str::<Dated<'_>>(json).ok()).flatten();
        let text = built.or(dated.as_ref().map(|dated| &*dated.build.timestamp));
        let time = text.and_then(|text| Timestamp::parse(text).ok());
        let key = (Reverse(time.map(|time| time.seconds())), self.place);
        if is_full && self.found.last_key_value().is_none_or(|(last, _)| *last < key) {
            return;
        }
        self.found.insert(key, json.to_owned());
        if self.found.len() > self.count {
            self.found.pop_last();
        }
        self.note_oldest();
    }

    fn note_oldest(&mut self) {
        let last = self.found.last_key_value().filter(|_| self.found.len() == self.count);
        self.oldest = match last {
            Some(((Reverse(Some(seconds)), _), _)) => {
                let time = UNIX_EPOCH + Duration::from_secs(*seconds);
                Timestamp::at(time).as_str().to_owned()
            }
            _ => String::new(),
        };
    }

    /// Returns the entries, newest first.
    pub(in super::super) fn into_newest(self) -> Vec<Newest> {
        self.found.into_values().filter_map(|json| read(&json)).collect()
    }
}

#[cfg(test)]
pub(super) fn newest(entries: &[&str], count: usize) -> Vec<Newest> {
    let mut newest = NewestSoFar::new(count);
    for json in entries {
        newest.add(json, None);
    }
    newest.into_newest()
}

fn read(json: &str) -> Option<Newest> {
    let entry: Value = serde_json::from_str(json).ok()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let [name, version, architecture] = ["name", "version", "architecture"].map(|field| text(&entry[field]));
    let content = text(&entry["hash"]["value"]);
    let digest = sha256(format!("{name} {version} {architecture} {content}").as_bytes());
    Some(Newest {
        name,
        version,
        architecture,
        description: text(&entry["description"]),
        license: text(&entry["license"]),
        homepage: text(&entry["homepage"]),
        url: text(&entry["url"]),
        size_compressed: entry["size_compressed"].as_u64(),
        size_installed: entry["size_installed"].as_u64(),
        built: Timestamp::parse(&text(&entry["build"]["timestamp"])).ok(),
        farm: text(&entry["build"]["farm_id"]),
        digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_entries_come_first_whatever_their_fields_hold() {
        let dated = |name: &str, time: &str| {
            format!(
                r#"{{"name":"{name}","version":"1-1","architecture":"noarch","build":{{"timestamp":"{time}"}}}}"#
            )
        };
        let entries = [
            dated("old", "2024-01-01T00:00:00Z"),
            r#"{"name":"odd","version":"1-1","architecture":"noarch","build":7,"size_compressed":-1,"license":[]}"#
                .to_owned(),
            dated("twin-a", "2026-01-01T00:00:00Z"),
            dated("wrong", "yesterday"),
            dated("twin-b", "2026-01-01T00:00:00.5Z"),
            dated("new", "2026-01-01T00:00:01Z"),
        ];
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        let newest = |count| newest(&entries, count);
        let names = |count| newest(count).into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names(9), ["new", "twin-a", "twin-b", "old", "odd", "wrong"]);
        assert_eq!(names(2), ["new", "twin-a"]);
        assert_eq!(names(0), [""; 0]);
        let odd = newest(9).remove(4);
        assert_eq!((odd.built, odd.size_compressed, odd.license.as_str()), (None, None, ""));
    }
}
