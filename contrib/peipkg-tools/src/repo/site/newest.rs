//! The newest packages of an index, for people. Pure.
//!
//! Another tool may have written an entry with anything in it, so everything beside its identity
//! may be missing or of another type. Leaves out fields of another type.

use std::cmp::Reverse;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::sha256;
use crate::timestamp::Timestamp;

/// An entry of an index as people see it. Every text is as the package has it, not escaped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Newest {
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

/// Returns the `count` entries that were built last, newest first; those of one second by their
/// place in `entries`. Entries without a time come last.
pub(super) fn newest(entries: &[&str], count: usize) -> Vec<Newest> {
    let built = |json: &str| {
        let dated: Dated<'_> = serde_json::from_str(json).ok()?;
        Some(Timestamp::parse(&dated.build.timestamp).ok()?.seconds())
    };
    let mut order: Vec<_> =
        entries.iter().enumerate().map(|(place, json)| (Reverse(built(json)), place)).collect();
    if count < order.len() {
        order.select_nth_unstable(count);
        order.truncate(count);
    }
    order.sort_unstable();
    order.into_iter().filter_map(|(_, place)| read(entries[place])).collect()
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
        let names = |count| newest(&entries, count).into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names(9), ["new", "twin-a", "twin-b", "old", "odd", "wrong"]);
        assert_eq!(names(2), ["new", "twin-a"]);
        assert_eq!(names(0), [""; 0]);
        let odd = newest(&entries, 9).remove(4);
        assert_eq!((odd.built, odd.size_compressed, odd.license.as_str()), (None, None, ""));
    }
}
