//! The public keys of private key files: derived once at the start, so that a bad file fails the
//! start and not a build. Writes nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use peipkg_format::hex;
use peipkg_format::problem::Problem;
use peipkg_format::signing_key::{self, KeyError, PrivateKey};
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// Public keys by the files of their private keys.
#[derive(Debug, Clone, Default)]
pub(super) struct PublicKeys(HashMap<PathBuf, String>);

impl PublicKeys {
    /// Derives the public key of each of `files`.
    ///
    /// # Errors
    /// A problem for each file that holds no Ed25519 private key.
    pub(super) fn derive<'p>(files: impl IntoIterator<Item = &'p Path>) -> Result<Self, Vec<Problem>> {
        let (mut keys, mut problems) = (HashMap::new(), Vec::new());
        for file in files {
            match load(file) {
                Ok(public) => {
                    keys.insert(file.to_owned(), public);
                }
                Err(error) => problems.push(Problem::of_file(file, error.to_string())),
            }
        }
        if problems.is_empty() { Ok(Self(keys)) } else { Err(problems) }
    }

    /// Returns the public key of a file, as 64 lower-case hexadecimal digits.
    pub(super) fn of(&self, file: &Path) -> Option<&str> {
        self.0.get(file).map(String::as_str)
    }
}

/// Reads the private key at `path`, and returns its public key like [`PublicKeys::of`].
pub(super) fn load(path: &Path) -> Result<String, KeyError> {
    derive(&signing_key::load(path)?)
}

/// Reads the private key at `path`, and returns the fingerprint by which a repository lists its public key.
pub(super) fn fingerprint(path: &Path) -> Result<String, KeyError> {
    Ok(fingerprint_of(&key_pair(&signing_key::load(path)?)?))
}

/// Returns the SHA-256 of a public key, which names its file in a repository (PSD-009 §5.2.3).
pub(super) fn fingerprint_of(pair: &Ed25519KeyPair) -> String {
    hex::encode(digest(&SHA256, pair.public_key().as_ref()).as_ref())
}

/// Derives the public key of a private key, and refuses a file with the public key of another one.
pub(crate) fn derive(key: &PrivateKey) -> Result<String, KeyError> {
    Ok(hex::encode(key_pair(key)?.public_key().as_ref()))
}

/// Returns a private key that signs, and refuses a file with the public key of another one.
pub(super) fn key_pair(key: &PrivateKey) -> Result<Ed25519KeyPair, KeyError> {
    let pair = match key {
        PrivateKey::Seed(seed) => Ed25519KeyPair::from_seed_unchecked(seed),
        // "Maybe": a document without the public key cannot be checked.
        PrivateKey::Pkcs8(document) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(document),
    };
    pair.map_err(|_| KeyError::OtherKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_key_of_a_seed_is_derived() {
        // RFC 8032 §7.1, test 1.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(derive(&signing_key::parse(pem.as_bytes()).unwrap()).unwrap(), public);
    }

    #[test]
    fn public_key_of_another_key_is_refused() {
        // RFC 8410 §10.3, less its attributes: a private key with its public key.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MFECAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            gSEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PRIVATE KEY-----\n";
        let mut key = signing_key::parse(pem.as_bytes()).unwrap();
        let public = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        assert_eq!(derive(&key).unwrap(), public);
        let PrivateKey::Pkcs8(document) = &mut key else { panic!("no PKCS#8") };
        *document.last_mut().unwrap() ^= 1;
        assert!(matches!(derive(&key), Err(KeyError::OtherKey)));
    }
}
