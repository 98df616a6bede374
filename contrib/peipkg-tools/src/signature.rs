//! The signature envelope (PSD-009 §5.1.3) and key fingerprints (PSD-009 §5.2.3).
//!
//! The same envelope signs a package from within, over the tar stream that
//! precedes it, and a repository's documents from beside them, over their
//! bytes. What is signed is always a SHA-256 value, never the content itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, hex, sha256};
use crate::manifest::{SCHEMA_VERSION, to_json};

/// Where the signature stands in the archive: its last entry (PSD-009 §3.2.3).
pub const SIGNATURE_PATH: &str = ".peipkg/signature";
/// The longest envelope a consumer has to accept, in bytes (PSD-009 §3.2.10).
pub const MAX_ENVELOPE: usize = 64 * 1024;
/// The only signature algorithm (PSD-009 §5.2.1).
pub const ALGORITHM: &str = "ed25519";

/// A signature and the fingerprint of the key that made it (PSD-009 §5.1.3).
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
    /// It is not the JSON document of PSD-009 §5.1.3; additional fields count.
    #[error("not a signature envelope: {0}")]
    Form(#[from] serde_json::Error),
    /// It is of another schema version.
    #[error("signature envelope has schema version {0}, only {SCHEMA_VERSION} is known")]
    SchemaVersion(u32),
    /// It is by another algorithm.
    #[error("signature algorithm is {0:?}, only {ALGORITHM:?} is known")]
    Algorithm(String),
    /// The fingerprint is not 64 lower-case hexadecimal digits.
    #[error("key fingerprint {0:?} is not 64 lower-case hexadecimal digits")]
    Fingerprint(String),
    /// The signature is not the unpadded base64 of 64 bytes.
    #[error("signature is not 64 bytes in base64 without padding")]
    Encoding,
    /// Another key made it.
    #[error("signed by key {found}, expected key {expected}")]
    OtherKey {
        /// Fingerprint in the envelope.
        found: String,
        /// Fingerprint of the key it was held against.
        expected: String,
    },
    /// The key matches, the signed content does not.
    #[error("signature does not match the content")]
    Mismatch,
}

/// The envelope's JSON document.
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

    /// Reads an envelope, strictly (PSD-009 §5.1.3).
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
        let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if fingerprint.len() != 64 || !fingerprint.bytes().all(is_hex) {
            return Err(SignatureError::Fingerprint(fingerprint));
        }
        let bytes = STANDARD_NO_PAD.decode(document.signature).map_err(|_| SignatureError::Encoding)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| SignatureError::Encoding)?;
        Ok(Self { fingerprint, signature })
    }

    /// The envelope as it is stored: compact JSON and one final newline.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(&Document {
            schema_version: SCHEMA_VERSION,
            algorithm: ALGORITHM.to_owned(),
            key_fingerprint: self.fingerprint.clone(),
            signature: STANDARD_NO_PAD.encode(self.signature.to_bytes()),
        })
    }

    /// Fingerprint of the key that is said to have made the signature; it
    /// chooses the key to verify with and proves nothing by itself.
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

/// The fingerprint of a public key: lower-case hexadecimal SHA-256 of its 32 bytes (PSD-009 §5.2.3).
pub fn fingerprint(key: &VerifyingKey) -> String {
    hex(&sha256(key.as_bytes()))
}

#[cfg(test)]
mod tests {
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
    fn signature_of_another_key_or_content_is_told_apart() {
        let envelope = Envelope::sign_bytes(&key(1), b"content");
        let refuse =
            |key: &SigningKey, bytes: &[u8]| envelope.verify_bytes(&key.verifying_key(), bytes).unwrap_err();
        assert!(matches!(refuse(&key(2), b"content"), SignatureError::OtherKey { .. }));
        assert!(matches!(refuse(&key(1), b"contend"), SignatureError::Mismatch));
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
