//! Durations in the notation of configuration files and recipes: decimal numbers, each with a
//! unit, such as `1h30m`. Pure.
//!
//! [`parse`] follows Go's `time.ParseDuration` and [`format`](fn@format) Go's `Duration.String`, so
//! that deployed files keep their meaning. Two differences: a negative duration is refused, because
//! no setting has a use for one, and fractions of a nanosecond are cut off exactly, without a
//! floating-point number in between.

use std::fmt::Write;
use std::time::Duration;

/// The units and their length in nanoseconds. Both characters for µ are in use: the micro sign and
/// the Greek letter.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest duration, in nanoseconds: Go keeps durations as 64-bit signed integers.
const MAX_NANOS: u128 = i64::MAX as u128;

/// Why a string is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: {reason}")]
pub struct DurationError {
    /// The string.
    pub text: String,
    /// Its defect.
    pub reason: Reason,
}

/// The defect of a malformed duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There are no characters after the sign.
    #[error("it is empty, expected one such as \"1h30m\"")]
    Empty,
    /// It starts with a minus sign.
    #[error("it must not be negative")]
    Negative,
    /// A number is missing or malformed.
    #[error("expected a decimal number at {0:?}")]
    Number(String),
    /// A number has no unit.
    #[error("{0:?} has no unit, use ns, us, ms, s, m or h")]
    NoUnit(String),
    /// A unit is not one of Go's.
    #[error("unknown unit {0:?}, use ns, us, ms, s, m or h")]
    Unit(String),
    /// It does not fit into 64 bits of nanoseconds.
    #[error("it is longer than {max}", max = format(Duration::from_nanos(i64::MAX as u64)))]
    TooLong,
}

/// Reads a duration.
///
/// # Errors
/// When `text` is not in Go's notation, is negative, or is too long.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    nanos(text).map(Duration::from_nanos).map_err(|reason| DurationError { text: text.to_owned(), reason })
}

/// Writes a duration: `1h30m0s`, `5m0s`, `1.5s`, `20ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let nanos = duration.subsec_nanos();
    if seconds == 0 {
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => decimal(u64::from(nanos / 1_000), nanos % 1_000, 3) + "\u{b5}s",
            _ => decimal(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6) + "ms",
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if seconds >= 60 {
        let _ = write!(text, "{minutes}m");
    }
    text + &decimal(seconds % 60, nanos, 9) + "s"
}

/// Returns `whole.fraction` without trailing zeros; `fraction` counts units of 10^-`digits`.
fn decimal(whole: u64, fraction: u32, digits: usize) -> String {
    if fraction == 0 {
        return whole.to_string();
    }
    format!("{whole}.{fraction:0digits$}").trim_end_matches('0').to_owned()
}

fn nanos(text: &str) -> Result<u64, Reason> {
    if text.starts_with('-') {
        return Err(Reason::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(Reason::Empty);
    }
    if rest == "0" {
        return Ok(0);
    }
    let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c| !is_of_number(c)).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(is_of_number).unwrap_or(tail.len()));
        total += term(number, unit).map_err(|reason| match reason {
            Reason::Number(_) => Reason::Number(rest.to_owned()),
            other => other,
        })?;
        if total > MAX_NANOS {
            return Err(Reason::TooLong);
        }
        rest = tail;
    }
    u64::try_from(total).map_err(|_| Reason::TooLong)
}

/// Returns one number with its unit, in nanoseconds.
fn term(number: &str, unit: &str) -> Result<u128, Reason> {
    /// The digits of a fraction that are read. Later ones are worth less than a hundred-thousandth
    /// of a nanosecond, and more digits could overflow 64 bits.
    const PRECISION: usize = 18;

    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(Reason::Number(number.to_owned()));
    }
    if unit.is_empty() {
        return Err(Reason::NoUnit(number.to_owned()));
    }
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let scale = known.map(|(_, nanos)| u128::from(*nanos)).ok_or_else(|| Reason::Unit(unit.to_owned()))?;
    // Only digits are left, so parsing fails only on a number of more than 64 bits.
    let integer = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u64>() };
    let whole = u128::from(integer(whole).map_err(|_| Reason::TooLong)?);
    let fraction = &fraction[..fraction.len().min(PRECISION)];
    let parts = u128::from(integer(fraction).map_err(|_| Reason::TooLong)?);
    let divisor = fraction.bytes().fold(1, |product: u128, _| product * 10);
    Ok(whole * scale + parts * scale / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, nanos: u64, canonical: &str) {
        let found = parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found, Duration::from_nanos(nanos), "{text}");
        assert_eq!(format(found), canonical, "{text}");
        assert_eq!(parse(canonical), Ok(found), "{text} does not survive being written");
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let found = parse(text).map_or_else(|error| error.to_string(), format);
        assert_eq!(found, format!("{text:?} is not a duration: {expected}"));
    }

    #[test]
    fn duration_in_gos_notation_is_read() {
        const SECOND: u64 = 1_000_000_000;
        check("0", 0, "0s");
        check("+0", 0, "0s");
        check("0s", 0, "0s");
        check("0h0m", 0, "0s");
        check("30s", 30 * SECOND, "30s");
        check("1m", 60 * SECOND, "1m0s");
        check("+5m", 300 * SECOND, "5m0s");
        check("90m", 5400 * SECOND, "1h30m0s");
        check("5400s", 5400 * SECOND, "1h30m0s");
        check("1h30m", 5400 * SECOND, "1h30m0s");
        check("30m1h", 5400 * SECOND, "1h30m0s");
        check("6h", 21_600 * SECOND, "6h0m0s");
        check("24h", 86_400 * SECOND, "24h0m0s");
        check("1.5h", 5400 * SECOND, "1h30m0s");
        check(".5s", SECOND / 2, "500ms");
        check("1.s", SECOND, "1s");
        check("1.5s", 1_500_000_000, "1.5s");
        check("61.25s", 61_250_000_000, "1m1.25s");
        check("1h0.001s", 3600 * SECOND + 1_000_000, "1h0m0.001s");
        check("12ns", 12, "12ns");
        check("11us", 11_000, "11\u{b5}s");
        check("11\u{b5}s", 11_000, "11\u{b5}s");
        check("1.5\u{3bc}s", 1_500, "1.5\u{b5}s");
        check("1.05ms", 1_050_000, "1.05ms");
        check("1.9999ns", 1, "1ns");
        check("0.100000000000000000000h", 360 * SECOND, "6m0s");
        check("9223372036854775807ns", i64::MAX as u64, "2562047h47m16.854775807s");
    }

    #[test]
    fn duration_malformed_is_refused() {
        check_error("", "it is empty, expected one such as \"1h30m\"");
        check_error("+", "it is empty, expected one such as \"1h30m\"");
        check_error("-5m", "it must not be negative");
        check_error("90", "\"90\" has no unit, use ns, us, ms, s, m or h");
        check_error("1h30", "\"30\" has no unit, use ns, us, ms, s, m or h");
        check_error("1d", "unknown unit \"d\", use ns, us, ms, s, m or h");
        check_error("5 m", "unknown unit \" m\", use ns, us, ms, s, m or h");
        check_error("5m ", "unknown unit \"m \", use ns, us, ms, s, m or h");
        check_error("1H", "unknown unit \"H\", use ns, us, ms, s, m or h");
        check_error("hour", "expected a decimal number at \"hour\"");
        check_error("1h.m", "expected a decimal number at \".m\"");
        check_error("1.2.3s", "expected a decimal number at \"1.2.3s\"");
        check_error("+-1s", "expected a decimal number at \"-1s\"");
        check_error("2562048h", "it is longer than 2562047h47m16.854775807s");
        check_error("9223372036854775808ns", "it is longer than 2562047h47m16.854775807s");
        check_error("99999999999999999999999s", "it is longer than 2562047h47m16.854775807s");
    }
}
