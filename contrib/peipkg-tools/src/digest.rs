//! SHA-256 values, the only digests of the format (PSD-009 §3.5.5), and their hexadecimal form.

pub use peipkg_format::hex::encode as hex;
use sha2::{Digest as _, Sha256};

/// A SHA-256 value.
pub type Digest = [u8; 32];

/// Returns the SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// Reads a SHA-256 value from 64 lower-case hexadecimal digits, the only form the format allows.
pub fn unhex(text: &str) -> Option<Digest> {
    /// Stands for a byte that is no digit.
    const NONE: u8 = 0xff;
    const VALUES: [u8; 256] = {
        let mut values = [NONE; 256];
        let mut value = 0;
        while value < 16 {
            values[b"0123456789abcdef"[value as usize] as usize] = value;
            value += 1;
        }
        values
    };
    let pairs: &[[u8; 2]] = text.as_bytes().as_chunks().0;
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    // An index has many: look for a wrong digit once, at the end.
    let mut all = 0;
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| VALUES[usize::from(digit)]);
        *byte = high << 4 | low;
        all |= high | low;
    }
    (all != NONE).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&sha256(b"")), known);
        assert_eq!(unhex(known), Some(sha256(b"")));
        for bad in ["", &known[1..], &format!("{known}00"), &known.to_uppercase(), &known.replace('e', "g")] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
