//! Ed25519 public keys as files: PEM, or the raw 32 bytes (PSD-009 §5.2.2). Computes nothing with a key.

use crate::pem;

/// Precedes a key in its PEM block: all of the DER but the key's 32 bytes (RFC 8410 §4).
const PREFIX: &[u8] = &[0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 33, 0];

/// The longest file of a public key that is read, in bytes.
pub const MAX_KEY: u64 = 64 * 1024;

/// Reads a public key from the bytes of its file, if they are one.
pub fn parse(bytes: &[u8]) -> Option<[u8; 32]> {
    if let Ok(raw) = bytes.try_into() {
        return Some(raw);
    }
    let der = pem::decode(std::str::from_utf8(bytes).ok()?, "PUBLIC KEY")?;
    der.strip_prefix(PREFIX)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_and_raw_bytes_are_the_same_key() {
        // RFC 8410 §10.1.
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                   -----END PUBLIC KEY-----\n";
        let key = parse(pem.as_bytes()).unwrap();
        assert_eq!(key[..4], [0x19, 0xbf, 0x44, 0x09]);
        assert_eq!(parse(&key), Some(key));
        for bad in [&b""[..], &key[1..], &pem.as_bytes()[1..], b"\xff"] {
            assert_eq!(parse(bad), None);
        }
        assert_eq!(parse(pem.replace("MCowBQYDK2Vw", "MCowBQYDK2Vv").as_bytes()), None, "another algorithm");
    }
}
