//! What time a publish is given: now, unless the present index is of a later time.
//!
//! A clock may be wrong, most of all right after a boot. An index that was once made ahead of time stays: clients
//! refuse one that is older than theirs (PSD-009 §6.2.3), and so no tool makes one. To go on with the time of that index
//! until the clock has passed it is the only way that does not wait for years.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use log::warn;
use peipkg_format::duration;
use peipkg_format::repository_layout::{ACTIVE_INDEX, ARCHIVE_INDEX};
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

/// The indexes, below the repository (PSD-009 §6.2, §6.3).
const INDEXES: [&str; 2] = [ARCHIVE_INDEX, ACTIVE_INDEX];

/// How much of an index is looked at, in bytes: its time comes before its packages, which may be many.
const HEAD: u64 = 64 * 1024;

/// How much ahead an index may be before anybody hears of it: clocks are adjusted.
const SLIGHT: Duration = Duration::from_mins(1);

/// The `--timestamp` of a command that writes the indexes of the repository at `repo`. An index that is not there, or
/// does not tell its time, does not count: what is wrong with it, the tool says.
pub(crate) fn for_repository(repo: &Path) -> String {
    let indexes = INDEXES.iter().filter_map(|name| generated_at(File::open(repo.join(name)).ok()?));
    let (timestamp, ahead) = choose(SystemTime::now(), indexes);
    if ahead > SLIGHT {
        let ahead_by = duration::format(Duration::from_secs(ahead.as_secs()));
        warn!(timestamp, ahead_by; "the repository's index is ahead of the clock, publishing with its time");
    }
    timestamp
}

/// The latest of `now` and the times of `indexes`, and how much after `now` that is. A time of an index stays as its tool
/// has written it, fractions and all: rounded, it would be an earlier one.
fn choose(now: SystemTime, indexes: impl Iterator<Item = (SystemTime, String)>) -> (String, Duration) {
    match indexes.max_by_key(|(time, _)| *time) {
        Some((time, text)) if time > now => (text, time.duration_since(now).unwrap_or_default()),
        _ => (humantime::format_rfc3339_seconds(now).to_string(), Duration::ZERO),
    }
}

/// When an index was made, and the same as it is written there, if its head says so.
pub(crate) fn generated_at(index: impl Read) -> Option<(SystemTime, String)> {
    let mut found = None;
    // It ends in an error, since there is no need to read on.
    let head = BufReader::with_capacity(1024, index.take(HEAD));
    let _ = serde_json::Deserializer::from_reader(head).deserialize_map(Head(&mut found));
    // In UTC, as tools write it and read it.
    let text = found.filter(|text| text.ends_with('Z'))?;
    Some((humantime::parse_rfc3339(&text).ok()?, text))
}

/// Looks for the time in an index object, and no further.
struct Head<'a>(&'a mut Option<String>);

impl<'de> Visitor<'de> for Head<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<String>()? {
            if field == "generated_at" {
                *self.0 = Some(map.next_value()?);
                return Err(A::Error::custom("that is all"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    fn index(time: &str) -> Option<(SystemTime, String)> {
        generated_at(format!("{{\"repo\":\"r\",\"generated_at\":\"{time}\",\"packages\":[").as_bytes())
    }

    #[test]
    fn timestamp_is_never_before_that_of_the_index() {
        let earlier = "2026-05-01T11:59:59Z";
        let now = "2026-05-01T12:00:00Z";
        let later = "2037-01-01T00:00:00.25Z";
        let choose =
            |clock, indexes: &[&str]| choose(at(clock), indexes.iter().filter_map(|time| index(time)));
        assert_eq!(choose(now, &[]), (now.to_owned(), Duration::ZERO));
        assert_eq!(choose(now, &[earlier, earlier]), (now.to_owned(), Duration::ZERO));
        // A clock without a battery.
        assert_eq!(choose("1970-01-01T00:00:09Z", &[earlier]).0, earlier);
        // One index may be ahead of the other, if its publish was cut short.
        for indexes in [&[earlier, later][..], &[later, earlier], &[later]] {
            let (time, ahead) = choose(now, indexes);
            assert_eq!((time.as_str(), ahead), (later, at(later).duration_since(at(now)).unwrap()));
        }
        // The last that can be written, and what cannot be read as one.
        assert_eq!(choose(now, &["9999-12-31T23:59:59.999999999Z"]).0, "9999-12-31T23:59:59.999999999Z");
        for strange in ["10000-01-01T00:00:00Z", "2037-01-01T00:00:00+00:00", "2037-01-01", "", "--help"] {
            assert_eq!(choose(now, &[strange]).0, now, "{strange}");
        }
    }

    #[test]
    fn timestamp_of_a_long_index_reads_only_its_head() {
        /// Fails the test when it is read beyond what a head may have.
        struct Bounded<R>(R, u64);
        impl<R: Read> Read for Bounded<R> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let length = self.0.read(buffer)?;
                self.1 += length as u64;
                assert!(self.1 <= HEAD);
                Ok(length)
            }
        }
        let time = "\"generated_at\":\"2037-01-01T00:00:00Z\"";
        let package = "{\"generated_at\":\"2001-01-01T00:00:00Z\",\"x\":[{}]}";
        let packages = format!("\"packages\":[{}{package}]", format!("{package},").repeat(100_000));
        let read = |text: &str| generated_at(Bounded(text.as_bytes(), 0)).map(|(_, text)| text);
        assert_eq!(read(&format!("{{{time},{packages}}}")).as_deref(), Some("2037-01-01T00:00:00Z"));
        // What a package says is not the index's time.
        assert_eq!(read(&format!("{{{packages},{time}}}")), None);
        for none in ["", "{", "[]", "{\"generated_at\":1}", "{\"generated_at\":\"2037-01", "\0"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
