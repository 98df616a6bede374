//! Reads `Retry-After`: how long a busy server wants no requests (RFC 9110 §10.2.3). Pure.

use std::time::{Duration, SystemTime};

/// The wait when a busy server names none.
pub(crate) const DEFAULT: Duration = Duration::from_mins(1);

/// The longest wait that a server may ask for: a mistaken one must not silence an upstream for a
/// day.
const MAX: Duration = Duration::from_hours(1);

/// The shortest wait: asking a busy server again at once would keep it busy.
const MIN: Duration = Duration::from_secs(1);

/// Returns how long to wait for a server that asks for `asked`.
pub(crate) fn wait(asked: Option<Duration>) -> Duration {
    asked.map_or(DEFAULT, |asked| asked.clamp(MIN, MAX))
}

/// Returns the wait for which `field` asks at `now`, in seconds or by a date. An unreadable `field`
/// counts as none.
pub(crate) fn parse(field: Option<&str>, now: SystemTime) -> Option<Duration> {
    let field = field?.trim();
    let is_number = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        // A number that does not fit is longer than the longest wait.
        Some(Duration::from_secs(field.parse().unwrap_or(u64::MAX)))
    } else {
        let date = httpdate::parse_http_date(field).ok();
        date.map(|date| date.duration_since(now).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_clamped_and_has_a_default() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (field, seconds) in [
            (None, 60),
            (Some("7"), 7),
            (Some(" 120 "), 120),
            (Some("0"), 1),
            (Some("86400"), 3600),
            (Some("99999999999999999999999"), 3600),
            (Some("Sun, 06 Nov 1994 08:51:37 GMT"), 120),
            (Some("Sun, 06 Nov 1994 08:00:00 GMT"), 1),
            (Some("Fri, 06 Nov 2099 08:00:00 GMT"), 3600),
            (Some("soon"), 60),
            (Some("-1"), 60),
            (Some(""), 60),
        ] {
            assert_eq!(wait(parse(field, now)), Duration::from_secs(seconds), "{field:?}");
        }
    }
}
