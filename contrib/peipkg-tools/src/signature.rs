//! The signature envelope (PSD-009 §5.1.3), key fingerprints (PSD-009 §5.2.3) and private keys.
//!
//! The last entry of a package is an envelope over the tar stream before it. A file beside a
//! repository document is an envelope over the document's bytes. An envelope always signs the
//! SHA-256 of the content, never the content itself.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use peipkg_format::signing_key::{self, KeyError, PrivateKey};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, hex, sha256, unhex};
use crate::manifest::{SCHEMA_VERSION, to_json};

/// The path of the signature in the archive: the last entry (PSD-009 §3.2.3).
pub const SIGNATURE_PATH: &str = ".peipkg/signature";
/// The longest envelope that a consumer must accept, in bytes (PSD-009 §3.2.10).
pub const MAX_ENVELOPE: usize = 64 * 1024;
/// The only signature algorithm (PSD-009 §5.2.1).
pub const ALGORITHM: &str = "ed25519";

/// A signature, and the fingerprint of the key that made it (PSD-009 §5.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    fingerprint: String,
    signature: Signature,
}

/// Why an envelope is refused.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// It is longer than [`MAX_ENVELOPE`].
    #[error("signature envelope is {0} bytes long, at most {MAX_ENVELOPE} are allowed")]
    TooLong(usize),
    /// It is not the JSON document of PSD-009 §5.1.3, or has an unknown field.
    #[error("not a signature envelope: {0}")]
    Form(#[from] serde_json::Error),
    /// Its schema version is unknown.
    #[error("signature envelope has schema version {0}, expected {SCHEMA_VERSION}")]
    SchemaVersion(u32),
    /// Its algorithm is unknown.
    #[error("signature algorithm is {0:?}, expected {ALGORITHM:?}")]
    Algorithm(String),
    /// The fingerprint is not 64 lower-case hexadecimal digits.
    #[error("key fingerprint {0:?} is not 64 lower-case hexadecimal digits")]
    Fingerprint(String),
    /// The signature is not the unpadded base64 of 64 bytes.
    #[error("signature is not 64 bytes in base64 without padding")]
    Encoding,
    /// Another key than the expected one made it.
    #[error("signed by key {found}, expected key {expected}")]
    OtherKey {
        /// Fingerprint in the envelope.
        found: String,
        /// Fingerprint of the expected key.
        expected: String,
    },
    /// The expected key did not sign this content.
    #[error("signature does not match the content")]
    Mismatch,
}

/// The JSON form of an envelope.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema_version: u32,
    algorithm: String,
    key_fingerprint: String,
    signature: String,
}

impl Envelope {
    /// Signs a SHA-256 value (PSD-009 §5.1.6).
    pub fn sign_digest(key: &SigningKey, digest: &Digest) -> Self {
        Self { fingerprint: fingerprint(&key.verifying_key()), signature: key.sign(digest) }
    }

    /// Signs the SHA-256 of `bytes`.
    pub fn sign_bytes(key: &SigningKey, bytes: &[u8]) -> Self {
        Self::sign_digest(key, &sha256(bytes))
    }

    /// Reads an envelope, and refuses unknown fields (PSD-009 §5.1.3).
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(SignatureError::TooLong(bytes.len()));
        }
        let document: Document = serde_json::from_slice(bytes)?;
        if document.schema_version != SCHEMA_VERSION {
            return Err(SignatureError::SchemaVersion(document.schema_version));
        }
        if document.algorithm != ALGORITHM {
            return Err(SignatureError::Algorithm(document.algorithm));
        }
        let fingerprint = document.key_fingerprint;
        if unhex(&fingerprint).is_none() {
            return Err(SignatureError::Fingerprint(fingerprint));
        }
        let bytes = STANDARD_NO_PAD.decode(document.signature).map_err(|_| SignatureError::Encoding)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| SignatureError::Encoding)?;
        Ok(Self { fingerprint, signature })
    }

    /// Returns the envelope as it is stored: compact JSON and one final newline.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(&Document {
            schema_version: SCHEMA_VERSION,
            algorithm: ALGORITHM.to_owned(),
            key_fingerprint: self.fingerprint.clone(),
            signature: STANDARD_NO_PAD.encode(self.signature.to_bytes()),
        })
    }

    /// Returns the fingerprint of the key that allegedly made the signature. It selects the key to
    /// verify with; by itself it proves nothing.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Checks that `key` signed `digest` (PSD-009 §5.3).
    pub fn verify_digest(&self, key: &VerifyingKey, digest: &Digest) -> Result<(), SignatureError> {
        let expected = fingerprint(key);
        if self.fingerprint != expected {
            return Err(SignatureError::OtherKey { found: self.fingerprint.clone(), expected });
        }
        key.verify_strict(digest, &self.signature).map_err(|_| SignatureError::Mismatch)
    }

    /// Checks that `key` signed the SHA-256 of `bytes`.
    pub fn verify_bytes(&self, key: &VerifyingKey, bytes: &[u8]) -> Result<(), SignatureError> {
        self.verify_digest(key, &sha256(bytes))
    }
}

/// Returns the fingerprint of a public key: lower-case hexadecimal SHA-256 of its 32 bytes
/// (PSD-009 §5.2.3).
pub fn fingerprint(key: &VerifyingKey) -> String {
    hex(&sha256(key.as_bytes()))
}

/// A private key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = .path.display())]
pub struct KeyFileError {
    path: PathBuf,
    pub(crate) source: KeyError,
}

/// Reads the private key at `path`.
pub fn load_key(path: &Path) -> Result<SigningKey, KeyFileError> {
    let key = signing_key::load(path).and_then(|key| read_key(&key));
    key.map_err(|source| KeyFileError { path: path.to_owned(), source })
}

/// Reads a key, and refuses one beside the public key of another.
fn read_key(key: &PrivateKey) -> Result<SigningKey, KeyError> {
    match key {
        PrivateKey::Seed(seed) => Ok(SigningKey::from_bytes(seed)),
        PrivateKey::Pkcs8(document) => SigningKey::from_pkcs8_der(document).map_err(|_| KeyError::OtherKey),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes, PublicKeyBytes};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn envelope_survives_its_document() {
        let envelope = Envelope::sign_bytes(&key(1), b"content");
        let text = String::from_utf8(envelope.to_json()).unwrap();
        assert!(text.starts_with("{\"schema_version\":1,\"algorithm\":\"ed25519\",\"key_fingerprint\":\""));
        assert!(text.ends_with("\"}\n") && !text.contains('='), "{text}");
        let read = Envelope::parse(text.as_bytes()).unwrap();
        assert_eq!(read, envelope);
        read.verify_bytes(&key(1).verifying_key(), b"content").unwrap();
    }

    #[test]
    fn signature_of_another_key_or_content_has_its_own_error() {
        let envelope = Envelope::sign_bytes(&key(1), b"content");
        let refuse =
            |key: &SigningKey, bytes: &[u8]| envelope.verify_bytes(&key.verifying_key(), bytes).unwrap_err();
        assert!(matches!(refuse(&key(2), b"content"), SignatureError::OtherKey { .. }));
        assert!(matches!(refuse(&key(1), b"contend"), SignatureError::Mismatch));
    }

    #[test]
    fn private_key_with_another_public_key_is_refused() {
        let public = key(1).verifying_key().to_bytes();
        let file = |seed: u8| {
            let pair = KeypairBytes { secret_key: [seed; 32], public_key: Some(PublicKeyBytes(public)) };
            PrivateKey::Pkcs8(pair.to_pkcs8_der().unwrap().as_bytes().to_vec())
        };
        assert_eq!(read_key(&file(1)).unwrap(), key(1));
        assert!(matches!(read_key(&file(2)), Err(KeyError::OtherKey)));
    }

    #[test]
    fn manager_and_tools_read_the_same_private_keys() {
        // RFC 8410 §7, and §10.3 with and without attributes.
        let v1 = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let with_public = "-----BEGIN PRIVATE KEY-----\n\
            MFECAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            gSEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PRIVATE KEY-----\n";
        let with_attributes = "-----BEGIN PRIVATE KEY-----\n\
            MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
            Z9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PRIVATE KEY-----\n";
        for (pem, from, to, is_good) in [
            (v1, "", "", true),
            (with_public, "", "", true),
            (with_attributes, "", "", true),
            (v1, "MC4CAQAw", "MC4CAQIw", false),
            (v1, "K2Vw", "K2Vx", false),
            (v1, "MC4C", "MC8C", false),
            (with_public, "AxZuE=", "AxZuA=", false),
        ] {
            let text = pem.replacen(from, to, 1);
            let Ok(PrivateKey::Pkcs8(document)) = signing_key::parse(text.as_bytes()) else {
                panic!("no PKCS #8: {text}")
            };
            let of_manager = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document);
            let of_tools = read_key(&PrivateKey::Pkcs8(document));
            assert_eq!((of_manager.is_ok(), of_tools.is_ok()), (is_good, is_good), "{text}");
        }
    }

    #[test]
    fn document_is_read_strictly() {
        let good = String::from_utf8(Envelope::sign_bytes(&key(1), b"").to_json()).unwrap();
        let cases = [
            ("\"schema_version\":1", "\"schema_version\":2", "schema version 2"),
            ("ed25519", "rsa", "\"rsa\""),
            ("\"algorithm\":\"ed25519\",", "", "missing field `algorithm`"),
            ("{\"schema", "{\"extra\":1,\"schema", "unknown field `extra`"),
            ("key_fingerprint\":\"", "key_fingerprint\":\"A", "hexadecimal"),
            ("signature\":\"", "signature\":\"AAAA", "64 bytes"),
            ("\"}", "==\"}", "without padding"),
        ];
        for (from, to, expected) in cases {
            let error = Envelope::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{from} to {to}: {error}");
        }
        assert!(matches!(Envelope::parse(&vec![b' '; MAX_ENVELOPE + 1]), Err(SignatureError::TooLong(_))));
    }
}
