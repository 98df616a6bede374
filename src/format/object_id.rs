//! The ids of git's objects. Pure.
//!
//! A repository names its objects by SHA-1 or by SHA-256, and all of them by the same one.

use std::fmt;
use std::str::FromStr;

use crate::hex;

/// The bytes of an id by SHA-1.
pub const SHA1: usize = 20;

/// The bytes of an id by SHA-256.
pub const SHA256: usize = 32;

/// The value of each byte as a hexadecimal digit. A listing and a start of the farm read an id for each
/// version, and a table takes a quarter of the time of comparisons.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit as usize] as usize] = digit;
        values[b"0123456789ABCDEF"[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

/// The value of a byte that is no digit, in [`VALUES`].
const NO_DIGIT: u8 = 0x80;

/// The id of an object of git.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// The bytes, with zeros behind those of SHA-1.
    bytes: [u8; SHA256],
    is_sha256: bool,
}

/// Why a text is not the id of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an object id, expected 40 or 64 hexadecimal digits")]
pub struct NoObjectId {
    /// The text, shortened.
    pub found: String,
}

impl ObjectId {
    /// Takes 20 or 32 bytes for an id; `None` for another number.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut id = Self { bytes: [0; SHA256], is_sha256: bytes.len() == SHA256 };
        id.bytes
            .get_mut(..bytes.len())
            .filter(|_| [SHA1, SHA256].contains(&bytes.len()))?
            .copy_from_slice(bytes);
        Some(id)
    }

    /// Reads 40 or 64 hexadecimal digits; `None` if the text has another form.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let is_sha256 = match text.len() {
            40 => false,
            64 => true,
            _ => return None,
        };
        let mut id = Self { bytes: [0; SHA256], is_sha256 };
        let mut all = 0;
        for (byte, digits) in id.bytes.iter_mut().zip(text.chunks_exact(2)) {
            let (high, low) = (VALUES[usize::from(digits[0])], VALUES[usize::from(digits[1])]);
            all |= high | low;
            *byte = high << 4 | low;
        }
        (all < NO_DIGIT).then_some(id)
    }

    /// Returns the bytes: 20 or 32.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..if self.is_sha256 { SHA256 } else { SHA1 }]
    }
}

impl fmt::Display for ObjectId {
    /// Writes lower-case hexadecimal digits, as git does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ObjectId {
    type Err = NoObjectId;

    fn from_str(text: &str) -> Result<Self, NoObjectId> {
        let error = || NoObjectId { found: crate::problem::excerpt(text).into_owned() };
        Self::from_hex(text.as_bytes()).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_id_is_read_from_40_or_64_digits_and_written_in_lower_case() {
        for digits in [40, 64] {
            let text = "0123456789ABCDEFabcdef".repeat(3)[..digits].to_owned();
            let id: ObjectId = text.parse().unwrap();
            assert_eq!((id.to_string(), id.as_bytes().len()), (text.to_lowercase(), digits / 2));
            assert_eq!(ObjectId::from_bytes(id.as_bytes()), Some(id));
        }
        let longer = "1".repeat(40) + &"0".repeat(24);
        assert_ne!("1".repeat(40).parse::<ObjectId>().unwrap(), longer.parse().unwrap());
    }

    #[test]
    fn object_id_of_another_form_is_refused() {
        for length in [0, 1, 2, 39, 41, 63, 65, 66, 80, 128] {
            assert!("1".repeat(length).parse::<ObjectId>().is_err(), "{length}");
        }
        for bad in ["g", " ", "-", "+", "\u{e9}"] {
            let text = bad.to_owned() + &"0".repeat(40 - bad.len());
            let error = text.parse::<ObjectId>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} is not an object id, expected 40 or 64 hexadecimal digits"));
        }
        assert_eq!(ObjectId::from_bytes(&[0; 21]), None);
        assert_eq!(ObjectId::from_bytes(&[0; 33]), None);
    }
}
