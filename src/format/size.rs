//! Sizes in the notation of the configuration: a whole number of bytes, or one with a unit, such as
//! `512MiB`. Pure.
//!
//! Only units of 1024 exist here. `MB` means a million bytes to some and 1024 times 1024 to others,
//! so it is refused.

/// The units and how many bytes each has, the largest first.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// The largest size: the system keeps file sizes as 64-bit signed integers.
pub const MAX: u64 = i64::MAX as u64;

/// Why a string is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: {reason}")]
pub struct SizeError {
    /// The string.
    pub text: String,
    /// Its defect.
    pub reason: Reason,
}

/// The defect of a malformed size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It does not start with a digit.
    #[error("expected a whole number, such as \"512MiB\"")]
    Number,
    /// Something other than a unit follows the number.
    #[error("unknown unit {0:?}, use KiB, MiB, GiB or TiB")]
    Unit(String),
    /// It exceeds [`MAX`].
    #[error("it is larger than {MAX} bytes")]
    TooLarge,
}

/// Reads a size, in bytes.
///
/// # Errors
/// When `text` is not a whole number with at most one unit, or is too large.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    bytes(text).map_err(|reason| SizeError { text: text.to_owned(), reason })
}

fn bytes(text: &str) -> Result<u64, Reason> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(Reason::Number);
    }
    let factor = match unit {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| Reason::Unit(unit.to_owned()))?.1,
    };
    // Only digits are left, so the parse fails only when there are too many.
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    size.filter(|size| *size <= MAX).ok_or(Reason::TooLarge)
}

/// Writes a size with the largest unit that needs no fraction: `1GiB`, `1536MiB`, `1000`.
pub fn format(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_a_whole_number_with_at_most_one_unit() {
        for (text, expected, written) in [
            ("0", 0, "0"),
            ("1000", 1000, "1000"),
            ("1024", 1024, "1KiB"),
            ("1KiB", 1024, "1KiB"),
            ("1536KiB", 1_572_864, "1536KiB"),
            ("512MiB", 536_870_912, "512MiB"),
            ("04GiB", 4_294_967_296, "4GiB"),
            ("1024GiB", 1_099_511_627_776, "1TiB"),
            ("9223372036854775807", MAX, "9223372036854775807"),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
            assert_eq!(format(expected), written);
        }
    }

    #[test]
    fn text_that_is_no_size_is_refused_with_its_defect() {
        let unit = |unit: &str| Reason::Unit(unit.to_owned());
        for (text, expected) in [
            ("", Reason::Number),
            ("GiB", Reason::Number),
            ("-1", Reason::Number),
            ("+1", Reason::Number),
            (" 1", Reason::Number),
            ("\u{661}", Reason::Number),
            ("1 GiB", unit(" GiB")),
            ("1GiB ", unit("GiB ")),
            ("1.5GiB", unit(".5GiB")),
            ("1GB", unit("GB")),
            ("1G", unit("G")),
            ("1gib", unit("gib")),
            ("1GiB1MiB", unit("GiB1MiB")),
            ("0x10", unit("x10")),
            ("1_000", unit("_000")),
            ("9223372036854775808", Reason::TooLarge),
            ("8388608TiB", Reason::TooLarge),
            ("99999999999999999999999", Reason::TooLarge),
        ] {
            assert_eq!(parse(text).map_err(|error| error.reason), Err(expected), "{text}");
        }
    }
}
