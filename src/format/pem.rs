//! PEM (RFC 7468): DER in base64 between two lines that name it. Pure.

use base64ct::{Base64, Encoding as _};

/// Begins the first line of a block.
pub(crate) const START: &str = "-----BEGIN ";

/// Decodes the block named `label`. Ignores what precedes it, as openssl writes a key's attributes there.
/// `None` if there is no such block, or if something follows it.
pub(crate) fn decode(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, block) = text.split_once(&format!("{START}{label}-----"))?;
    let (content, rest) = block.split_once(&format!("-----END {label}-----"))?;
    let content: String = content.split_ascii_whitespace().collect();
    if rest.trim_ascii().is_empty() { Base64::decode_vec(&content).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_is_decoded_whatever_its_lines() {
        for text in [
            "-----BEGIN A-----\nAQID\nBA==\n-----END A-----\n",
            "-----BEGIN A-----\r\nAQIDBA==\r\n-----END A-----",
            "Key Attributes: <No Attributes>\n-----BEGIN A-----\n AQ\nIDB A==\n\n-----END A-----\n\n",
        ] {
            assert_eq!(decode(text, "A"), Some(vec![1, 2, 3, 4]), "{text}");
        }
    }

    #[test]
    fn block_that_is_damaged_is_refused() {
        let good = "-----BEGIN A-----\nAQIDBA==\n-----END A-----\n";
        for (from, to) in [
            ("BEGIN A", "BEGIN B"),
            ("END A", "END B"),
            ("-----END A-----", ""),
            ("AQIDBA==", "AQIDBA"),
            ("AQIDBA==", "AQIDBB=="),
            ("AQID", "AQ-D"),
            ("END A-----\n", "END A-----\nx"),
        ] {
            assert_eq!(decode(&good.replacen(from, to, 1), "A"), None, "{from} {to}");
        }
    }
}
