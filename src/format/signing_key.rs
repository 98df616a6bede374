//! Ed25519 private keys as files: PEM PKCS#8 or the raw 32-byte seed (PSD-009 §5.2.2).
//!
//! The key's bytes never appear in a message.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ed25519::pkcs8::{DecodePrivateKey as _, KeypairBytes};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::hex;
use crate::problem::Problem;

/// Longest key file that is read, in bytes: far above any PEM file, far below a mistake like a disk image.
const MAX_KEY_FILE: u64 = 64 * 1024;

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
    /// It is a PKCS#8 private key, but not one of Ed25519 that can be read.
    #[error(
        "not an Ed25519 private key: found one for another algorithm or a damaged one, expected an Ed25519 key"
    )]
    OtherKey,
    /// It is neither PEM nor 32 bytes long.
    #[error("not an Ed25519 private key: found {0} bytes, expected PEM PKCS#8 or a raw seed of 32 bytes")]
    Length(u64),
}

/// An Ed25519 private key.
pub struct PrivateKey {
    seed: [u8; 32],
    public: [u8; 32],
}

impl PrivateKey {
    /// The key's 32 bytes, of which all else is derived (RFC 8032 §5.1.5).
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public key as 64 lower-case hexadecimal digits.
    pub fn public_hex(&self) -> String {
        hex::encode(&self.public)
    }

    /// The key of a seed; with the `public` key that came along, if one did, which must be its own.
    fn from_seed(seed: [u8; 32], public: Option<&[u8]>) -> Option<Self> {
        let pair = match public {
            Some(public) => Ed25519KeyPair::from_seed_and_public_key(&seed, public),
            None => Ed25519KeyPair::from_seed_unchecked(&seed),
        };
        let public = pair.ok()?.public_key().as_ref().try_into().ok()?;
        Some(Self { seed, public })
    }
}

/// Reads the private key at `path`.
///
/// # Errors
/// When the file cannot be read or holds no Ed25519 private key.
pub fn load(path: &Path) -> Result<PrivateKey, KeyError> {
    let length = fs::metadata(path)?.len();
    if length > MAX_KEY_FILE {
        return Err(KeyError::Length(length));
    }
    parse(&fs::read(path)?)
}

/// Reads a private key from the bytes of its file.
///
/// # Errors
/// When the bytes are no Ed25519 private key.
pub fn parse(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    if let Ok(seed) = <[u8; 32]>::try_from(bytes) {
        return PrivateKey::from_seed(seed, None).ok_or(KeyError::OtherKey);
    }
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let Some((_, after)) = text.split_once("-----BEGIN ") else {
        return Err(KeyError::Length(bytes.len() as u64));
    };
    let found = after.split("-----").next().unwrap_or_default();
    if found != "PRIVATE KEY" {
        return Err(KeyError::NotEd25519 { found: found.to_owned() });
    }
    let pair = KeypairBytes::from_pkcs8_pem(text.trim()).map_err(|_| KeyError::OtherKey)?;
    let public = pair.public_key.as_ref().map(|public| public.0.as_slice());
    PrivateKey::from_seed(pair.secret_key, public).ok_or(KeyError::OtherKey)
}

/// The public keys of some private key files, derived once at the start.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys(HashMap<PathBuf, String>);

impl PublicKeys {
    /// Derives the public key of each of `files`.
    ///
    /// # Errors
    /// Every file that holds no Ed25519 private key.
    pub fn derive<'p>(files: impl IntoIterator<Item = &'p Path>) -> Result<Self, Vec<Problem>> {
        let (mut keys, mut problems) = (HashMap::new(), Vec::new());
        for file in files {
            match load(file) {
                Ok(key) => {
                    keys.insert(file.to_owned(), key.public_hex());
                }
                Err(error) => problems.push(Problem::of_file(file, error.to_string())),
            }
        }
        if problems.is_empty() { Ok(Self(keys)) } else { Err(problems) }
    }

    /// The public key of a file, as 64 lower-case hexadecimal digits.
    pub fn of(&self, file: &Path) -> Option<&str> {
        self.0.get(file).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed and public key of RFC 8032 §7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    /// The same seed as PKCS#8, encoded with openssl.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    fn seed() -> Vec<u8> {
        SEED.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn seed_and_its_pem_are_the_same_key() {
        assert_eq!(parse(&seed()).unwrap().public_hex(), PUBLIC);
        assert_eq!(parse(PEM.as_bytes()).unwrap().public_hex(), PUBLIC);
    }

    #[test]
    fn public_key_of_another_key_is_refused() {
        // RFC 8410 §10.3, less its attributes: the same key with its public key.
        const WITH_PUBLIC: &str = "MFECAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            gSEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        let pem =
            |base64: &str| format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
        let public = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        assert_eq!(parse(pem(WITH_PUBLIC).as_bytes()).unwrap().public_hex(), public);
        let other = WITH_PUBLIC.replace("ZuE=", "ZuI=");
        assert!(matches!(parse(pem(&other).as_bytes()), Err(KeyError::OtherKey)));
    }

    #[test]
    fn key_malformed_is_refused() {
        let error = |bytes: &[u8]| parse(bytes).err().unwrap().to_string();
        assert!(error(b"short").contains("found 5 bytes"));
        assert!(error(&[0; 33]).contains("found 33 bytes"));
        assert!(
            error(b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")
                .contains("another algorithm")
        );
        assert!(error(b"-----BEGIN RSA PRIVATE KEY-----\nAA==\n").contains("RSA PRIVATE KEY"));
    }
}
