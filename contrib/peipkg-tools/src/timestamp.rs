//! Points in time as the format writes them (PSD-009 §3.3.4). Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::tar_header::MAX_NUMBER;

/// A point in time, with the text that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    text: String,
    seconds: u64,
    has_fraction: bool,
}

/// The text is no timestamp.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time in UTC such as 2026-05-01T12:00:00Z")]
pub struct TimestampError(String);

impl Timestamp {
    /// Reads an RFC 3339 time in UTC that ends in `Z`, not before 1970.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let error = || TimestampError(text.to_owned());
        let time = humantime::parse_rfc3339(text).map_err(|_| error())?;
        let whole = Self::at(time);
        // The parser accepts more than clients do: `+00:00`, a dot without digits, letters after the
        // `Z`, and a leap second, which it takes for the second before.
        let rest = text.strip_prefix(whole.text.trim_end_matches('Z')).ok_or_else(error)?;
        let digits = rest.strip_prefix('.').and_then(|rest| rest.strip_suffix('Z'));
        let has_fraction = digits
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
        if rest == "Z" || has_fraction {
            Ok(Self { text: text.to_owned(), has_fraction, ..whole })
        } else {
            Err(error())
        }
    }

    /// Returns the timestamp of `time`, to the second.
    pub fn at(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        Self { text, seconds, has_fraction: false }
    }

    /// Returns the text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the seconds since 1970, without the fraction.
    pub fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Returns the modification time of an archive entry, in seconds since 1970.
    ///
    /// # Errors
    /// Why no entry can have this time: the archive stores whole seconds in eleven octal digits
    /// and nothing else (PSD-009 §3.1.4 rules 2 and 12).
    pub fn entry_mtime(&self) -> Result<u64, String> {
        let text = &self.text;
        if self.has_fraction {
            Err(format!("{text:?} has a fraction of a second, expected whole seconds"))
        } else if self.seconds > MAX_NUMBER {
            Err(format!("{text:?} is too late for an archive entry, expected a year before 2242"))
        } else {
            Ok(self.seconds)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_not_in_the_format_is_refused() {
        let time = Timestamp::parse("2026-05-01T12:00:00Z").unwrap();
        assert_eq!((time.as_str(), time.entry_mtime()), ("2026-05-01T12:00:00Z", Ok(1_777_636_800)));
        assert!(Timestamp::parse("2026-05-01T12:00:00.5Z").unwrap().entry_mtime().is_err());
        assert!(Timestamp::parse("2242-03-16T12:56:31Z").unwrap().entry_mtime().is_ok());
        assert!(Timestamp::parse("2242-03-16T12:56:32Z").unwrap().entry_mtime().is_err());
        for bad in [
            "",
            "now",
            "2026-05-01",
            "2026-05-01T12:00:00",
            "2026-05-01T12:00:00+00:00",
            "1969-12-31T23:59:59Z",
            "2026-05-01T12:00:00.Z",
            "2026-05-01T12:00:00,5Z",
            "2026-05-01T12:00:00.5.5Z",
            "2026-05-01T12:00:00ZZ",
            "2026-05-01T12:00:00ZabcZ",
            "2026-05-01T23:59:60Z",
            "2016-12-31T23:59:60.5Z",
            "2026-02-29T12:00:00Z",
            "2026-05-01T24:00:00Z",
            "2026-05-01t12:00:00Z",
            "2026-05-01T12:00:00z",
            "2026-05-01 12:00:00Z",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad:?}");
        }
    }
}
