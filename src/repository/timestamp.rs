//! Chooses the time of a publish: now, unless the present index has a later time.
//!
//! A clock may be wrong, above all right after a boot. If it was ahead during a publish, the next
//! index cannot be older: clients refuse it (PSD-009 §6.2.3), and so tools do not make it. Repeat
//! the time of the present index until the clock has passed it; to wait instead may take years.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use log::warn;
use peipkg_format::{duration, regular_file};

use crate::repository::index_head;
use crate::repository::journal::INDEXES;
use crate::state::troubles;

/// How much of an index is read, in bytes: its time comes before its packages, which may be many.
const HEAD: u64 = 64 * 1024;

/// How far ahead an index may be without a warning: operating systems adjust clocks by less.
const TOLERANCE: Duration = Duration::from_mins(1);

/// Returns the `--timestamp` for a command that writes the indexes of the repository at `repo`.
/// Ignores an index that is missing or has no time: the tool reports what is wrong with it.
pub(crate) fn for_repository(repo: &Path) -> String {
    let indexes = INDEXES.iter().filter_map(|name| generated_at(regular_file::open(&repo.join(name)).ok()?));
    let (timestamp, ahead) = choose(SystemTime::now(), indexes);
    troubles::end("the repository's index is ahead of the clock, publishing with its time");
    if ahead > TOLERANCE {
        let ahead_by = duration::format(Duration::from_secs(ahead.as_secs()));
        warn!(timestamp, ahead_by; "the repository's index is ahead of the clock, publishing with its time");
        troubles::begin(
            "the repository's index is ahead of the clock, publishing with its time",
            &timestamp,
            &ahead_by,
        );
    }
    timestamp
}

/// Returns the latest of `now` and the times of `indexes`, and how far ahead of `now` it is. Keeps
/// the text of an index's time, with fractions: rounding would make it earlier.
fn choose(now: SystemTime, indexes: impl Iterator<Item = (SystemTime, String)>) -> (String, Duration) {
    match indexes.max_by_key(|(time, _)| *time) {
        Some((time, text)) if time > now => (text, time.duration_since(now).unwrap_or_default()),
        _ => (humantime::format_rfc3339_seconds(now).to_string(), Duration::ZERO),
    }
}

/// Reads the time of an index, as a time and as text, if its head has one.
pub(crate) fn generated_at(index: impl Read) -> Option<(SystemTime, String)> {
    // Accept UTC only, as tools write and read it.
    let text = index_head::field::<String>(index.take(HEAD), "generated_at");
    let text = text.filter(|text| text.ends_with('Z'))?;
    Some((humantime::parse_rfc3339(&text).ok()?, text))
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
    fn timestamp_is_never_before_the_indexs_time() {
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
        // The last valid time, and texts that are no time.
        assert_eq!(choose(now, &["9999-12-31T23:59:59.999999999Z"]).0, "9999-12-31T23:59:59.999999999Z");
        for strange in ["10000-01-01T00:00:00Z", "2037-01-01T00:00:00+00:00", "2037-01-01", "", "--help"] {
            assert_eq!(choose(now, &[strange]).0, now, "{strange}");
        }
    }

    #[test]
    fn long_index_is_read_only_at_its_head() {
        /// Fails the test when more than a head is read.
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
        // The time of a package is not the index's.
        assert_eq!(read(&format!("{{{packages},{time}}}")), None);
        for none in ["", "{", "[]", "{\"generated_at\":1}", "{\"generated_at\":\"2037-01", "\0"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
