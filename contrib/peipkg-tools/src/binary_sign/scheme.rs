//! The algorithm of a binary's signature, and how long its bytes are. Nothing else knows either, so
//! a newer algorithm is a change of this file.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::digest::Digest;

/// The length of the stored signature in bytes: the version, then the 64 bytes of Ed25519 (PSD-004
/// §6).
pub const LENGTH: usize = 65;
/// The version that names Ed25519 over the SHA-256 of the file.
const VERSION: u8 = 0x01;

/// A signature as a binary stores it.
pub type Blob = [u8; LENGTH];

/// Signs the SHA-256 of a file whose signature is zero.
pub fn sign(key: &SigningKey, digest: &Digest) -> Blob {
    let mut blob = [0; LENGTH];
    blob[0] = VERSION;
    blob[1..].copy_from_slice(&key.sign(digest).to_bytes());
    blob
}

/// Tells whether `key` made the signature of this SHA-256.
pub fn verify(key: &VerifyingKey, digest: &Digest, blob: &Blob) -> bool {
    let signature = Signature::from_slice(&blob[1..]);
    blob[0] == VERSION && signature.is_ok_and(|signature| key.verify_strict(digest, &signature).is_ok())
}
