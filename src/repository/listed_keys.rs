//! The public keys that a repository lists, for a reader that checks a signature without `peipkg-repo`.
//!
//! Believes `repo.json`: clients and `peipkg-repo verify` check who signed that.

use std::io;
use std::path::Path;

use peipkg_format::hex;
use peipkg_format::public_key::{self, MAX_KEY};
use peipkg_format::regular_file::{self, MAX_TEXT};
use peipkg_format::repository_layout::{DESCRIPTOR, key};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;

use crate::state::durable::{FileError, at};

/// Public keys that are not revoked. The time until which one is valid does not count: its statements are
/// older.
pub(crate) struct ListedKeys(Vec<[u8; 32]>);

#[derive(Deserialize)]
struct Descriptor {
    repo: Repo,
}

#[derive(Deserialize)]
struct Repo {
    signing: Signing,
}

#[derive(Deserialize)]
struct Signing {
    keys: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    fingerprint: String,
    status: String,
}

impl ListedKeys {
    /// Reads the keys of the repository at `repo`, each from its conventional place (PSD-009 §6.4.2). Skips
    /// those that are not there.
    ///
    /// # Errors
    /// When `repo.json` cannot be read.
    pub(crate) fn read(repo: &Path) -> Result<Self, FileError> {
        let path = repo.join(DESCRIPTOR);
        let parse = |bytes: Vec<u8>| serde_json::from_slice::<Descriptor>(&bytes).map_err(io::Error::from);
        let descriptor = regular_file::read(&path, MAX_TEXT).and_then(parse).map_err(at(&path))?;
        let mut keys = Vec::new();
        for Listed { fingerprint, status } in descriptor.repo.signing.keys {
            let bytes = regular_file::read(&repo.join(key(&fingerprint)), MAX_KEY).unwrap_or_default();
            let found = public_key::parse(&bytes).filter(|_| status != "revoked");
            keys.extend(found.filter(|key| hex::encode(digest(&SHA256, key).as_ref()) == fingerprint));
        }
        Ok(Self(keys))
    }

    /// Whether one of the keys made the signature of `message`.
    pub(crate) fn have_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|key| UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok())
    }
}
