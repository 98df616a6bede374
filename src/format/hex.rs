//! Bytes in hexadecimal. Pure.

/// Returns `bytes` in lower-case hexadecimal, the form of every digest and key in the format.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_two_digits_each() {
        assert_eq!(encode(&[0x00, 0x09, 0xaf, 0xff]), "0009afff");
        assert_eq!(encode(&[]), "");
    }
}
