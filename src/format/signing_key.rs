//! Ed25519 private keys as files: PEM PKCS#8 or the raw 32-byte seed (PSD-009 §5.2.2).
//!
//! Reads no further than to the PKCS#8 and computes nothing: the manager and the tools each read it,
//! derive and sign with the library that they link for other reasons. The key's bytes never appear in a
//! message.

use std::io;
use std::path::Path;

use crate::unfit_byte::UnfitByte;
use crate::{pem, regular_file};

/// The name of a PKCS#8 private key in PEM.
const LABEL: &str = "PRIVATE KEY";

/// The longest key file that [`load`] reads, in bytes: far above any PEM file, far below a disk
/// image named by mistake.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// A private key as its file has it.
#[derive(Clone)]
pub enum PrivateKey {
    /// The seed alone.
    Seed([u8; 32]),
    /// A PKCS#8 document (RFC 5958), which may be of any algorithm, damaged, or beside another key's public
    /// key. Its reader returns [`KeyError::OtherKey`] then.
    Pkcs8(Vec<u8>),
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key: {0}")]
    Unreadable(#[from] io::Error),
    /// It is a PEM file, but holds something else.
    #[error(
        "not an Ed25519 private key: found a PEM block {found:?}, expected an Ed25519 key in \"PRIVATE KEY\""
    )]
    NotEd25519 {
        /// The label of the PEM block that was found.
        found: String,
    },
    /// It is a PKCS#8 private key, but of another algorithm or damaged, or the public key beside it
    /// is not its own.
    #[error(
        "not an Ed25519 private key: found one for another algorithm or a damaged one, expected an Ed25519 key"
    )]
    OtherKey,
    /// It is PEM, but for a byte that an editor or a script has added.
    #[error("not an Ed25519 private key: {0}")]
    Unfit(UnfitByte),
    /// It is neither PEM nor 32 bytes long.
    #[error("not an Ed25519 private key: found {0} bytes, expected PEM PKCS#8 or a raw seed of 32 bytes")]
    Length(u64),
}

/// Reads the private key at `path`. See [`parse`].
///
/// # Errors
/// When the file cannot be read or holds no Ed25519 private key.
pub fn load(path: &Path) -> Result<PrivateKey, KeyError> {
    parse(&regular_file::read(path, MAX_KEY_FILE)?)
}

/// Finds a private key in the bytes of its file.
///
/// # Errors
/// When the bytes are neither a seed nor a PEM block of a PKCS#8 private key.
pub fn parse(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    if let Ok(seed) = bytes.try_into() {
        return Ok(PrivateKey::Seed(seed));
    }
    // Only a text can have too much: other bytes are wrong as a whole.
    let is_text = bytes.windows(pem::START.len()).any(|window| window == pem::START.as_bytes());
    let unfit = UnfitByte::find(bytes, b"\t\n\r");
    if let Some(unfit) = unfit.filter(|unfit| is_text || unfit.is_mark()) {
        return Err(KeyError::Unfit(unfit));
    }
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let Some((_, after)) = text.split_once(pem::START) else {
        return Err(KeyError::Length(bytes.len() as u64));
    };
    let found = after.split("-----").next().unwrap_or_default();
    if found != LABEL {
        return Err(KeyError::NotEd25519 { found: found.to_owned() });
    }
    pem::decode(text, LABEL).map(PrivateKey::Pkcs8).ok_or(KeyError::OtherKey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    /// The private key of RFC 8032 §7.1, test 1, encoded with openssl.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

    #[test]
    fn pem_and_raw_seed_are_the_same_key() {
        let Ok(PrivateKey::Pkcs8(pkcs8)) = parse(PEM.as_bytes()) else { panic!("no PKCS#8") };
        // The seed is the end of the document (RFC 8410 §7).
        let (_, seed) = pkcs8.split_at(pkcs8.len() - 32);
        assert_eq!(hex::encode(seed), SEED);
        assert!(matches!(parse(seed), Ok(PrivateKey::Seed(found)) if found == seed));
    }

    #[test]
    fn key_malformed_is_refused() {
        let error = |bytes: &[u8]| parse(bytes).err().unwrap().to_string();
        assert!(error(b"short").contains("found 5 bytes"));
        assert!(error(&[0; 33]).contains("found 33 bytes"));
        assert!(
            error(b"-----BEGIN PRIVATE KEY-----\nAA=\n-----END PRIVATE KEY-----\n").contains("damaged one")
        );
        assert!(error(b"-----BEGIN RSA PRIVATE KEY-----\nAA==\n").contains("RSA PRIVATE KEY"));
    }

    #[test]
    fn key_with_an_unfit_byte_is_refused_by_its_place() {
        let error = |bytes: &[u8]| parse(bytes).err().map(|error| error.to_string()).unwrap_or_default();
        let utf16: Vec<u8> = "\u{feff}-----BEGIN".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(error(&utf16).contains("byte 1 (0xff) begins a byte order mark"));
        assert!(
            error(format!("\u{feff}{PEM}").as_bytes()).contains("byte 1 (0xef) begins a byte order mark")
        );
        assert!(error(format!("{PEM}\0").as_bytes()).contains(&format!("byte {} (0x00)", PEM.len() + 1)));
        assert!(error(PEM.replacen("MC4", "MC\x0b4", 1).as_bytes()).contains("(0x0b) is of a control"));
        assert!(parse(PEM.replace('\n', "\r\n").as_bytes()).is_ok());
        // A raw seed may begin with any byte.
        let mut seed = [0; 32];
        seed[..3].copy_from_slice(b"\xef\xbb\xbf");
        assert!(parse(&seed).is_ok());
    }
}
