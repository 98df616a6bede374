//! The repository descriptor and the keys it names (PSD-009 §6.1, §5.2).

use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::error::RepoError;
use super::{DESCRIPTOR, KEYS, files};
use crate::cli::Timestamp;
use crate::digest::{Digest, sha256};
use crate::manifest::{SCHEMA_VERSION, to_json};
use crate::package_reader::unhex;
use crate::signature::{ALGORITHM, Envelope, MAX_ENVELOPE, SignatureError, fingerprint};

/// Longest descriptor that is read, in bytes: room for thousands of keys.
pub(super) const MAX_DESCRIPTOR: u64 = 1024 * 1024;
/// Longest public key file that is read, in bytes.
pub(super) const MAX_KEY: u64 = 64 * 1024;

/// `repo.json` (PSD-009 §6.1.2). Unknown fields are ignored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Descriptor {
    /// Always 1.
    pub schema_version: u32,
    /// Name, description and keys.
    pub repo: Repo,
    /// Where the indexes are.
    pub indexes: Indexes,
}

/// See [`Descriptor::repo`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Repo {
    /// Not empty.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// The keys.
    pub signing: Signing,
}

/// See [`Repo::signing`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signing {
    /// Always `ed25519`.
    pub algorithm: String,
    /// Sorted by fingerprint.
    pub keys: Vec<Key>,
}

/// A public key (PSD-009 §6.1.3).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// See [`fingerprint`].
    pub fingerprint: String,
    /// Where the key file is.
    pub url: String,
    /// What it is good for.
    pub status: Status,
    /// Until when a transitioning key is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
}

/// A key's part in the repository (PSD-009 §6.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Signs.
    Active,
    /// Has signed; is accepted for a time.
    Transitioning,
    /// Is not accepted.
    Revoked,
}

/// See [`Descriptor::indexes`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Indexes {
    /// The current versions.
    pub active: Pointer,
    /// All versions.
    pub archive: Pointer,
}

/// Where an index is (PSD-009 §6.1.5).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pointer {
    /// The document.
    pub url: String,
    /// Its detached signature.
    pub signature_url: String,
}

impl Descriptor {
    /// The descriptor of a new repository with one key.
    pub fn new(name: &str, description: &str, key: &VerifyingKey) -> Self {
        let pointer = |file: &str| Pointer {
            url: format!("/index/{file}"),
            signature_url: format!("/index/{file}.sig"),
        };
        let fingerprint = fingerprint(key);
        let url = format!("/{}", key_path(&fingerprint));
        let key = Key { fingerprint, url, status: Status::Active, valid_until: None };
        let signing = Signing { algorithm: ALGORITHM.to_owned(), keys: vec![key] };
        Self {
            schema_version: SCHEMA_VERSION,
            repo: Repo { name: name.to_owned(), description: description.to_owned(), signing },
            indexes: Indexes { active: pointer(super::ACTIVE), archive: pointer(super::ARCHIVE) },
        }
    }

    /// The document as it is stored: compact, with one final newline (PSD-009 §6.1.7).
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads the descriptor of the repository at `root`; its bytes come along, for the signature.
    pub fn load(root: &Path) -> Result<(Self, Vec<u8>), RepoError> {
        let path = root.join(DESCRIPTOR);
        let bytes = files::read(&path, MAX_DESCRIPTOR)?;
        Ok((Self::parse(&path, &bytes)?, bytes))
    }

    /// Reads the descriptor at `path` from its bytes; all that is wrong with it is one error.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RepoError> {
        let descriptor: Self = serde_json::from_slice(bytes)
            .map_err(|source| RepoError::Json { path: path.to_owned(), source })?;
        let problems = descriptor.problems();
        if problems.is_empty() {
            return Ok(descriptor);
        }
        Err(RepoError::Several(problems.into_iter().map(|line| RepoError::invalid(path, line)).collect()))
    }

    /// Every rule of PSD-009 §6.1 that it breaks.
    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let signing = &self.repo.signing;
        if self.schema_version != SCHEMA_VERSION {
            found.push(format!("schema_version {} is not known", self.schema_version));
        }
        if self.repo.name.is_empty() {
            found.push("repo.name is empty".to_owned());
        }
        if signing.algorithm != ALGORITHM {
            found.push(format!("algorithm {:?} is not known", signing.algorithm));
        }
        if !signing.keys.iter().any(|key| key.status == Status::Active) {
            found.push("no key is active".to_owned());
        }
        if !signing.keys.is_sorted_by(|one, next| one.fingerprint < next.fingerprint) {
            found.push("the keys are not sorted by fingerprint, or one is there twice".to_owned());
        }
        for key in &signing.keys {
            if unhex(&key.fingerprint).is_none() {
                found.push(format!("key fingerprint {:?} is malformed", key.fingerprint));
            }
            let until = key.valid_until.as_deref();
            if key.status == Status::Transitioning && until.is_none_or(|at| Timestamp::parse(at).is_err()) {
                found.push(format!("transitioning key {} has no valid valid_until", key.fingerprint));
            }
        }
        let pointers = [&self.indexes.active, &self.indexes.archive];
        if pointers.iter().any(|pointer| pointer.url.is_empty() || pointer.signature_url.is_empty()) {
            found.push("an index has no url or no signature_url".to_owned());
        }
        found
    }
}

/// Where a public key is published, below the repository's root (PSD-009 §6.4.2).
pub fn key_path(fingerprint: &str) -> String {
    format!("{KEYS}/{fingerprint}.pub")
}

/// A public key as it is published: a PEM block (PSD-009 §5.2.2).
///
/// # Panics
/// Never: the 32 bytes of a key always encode.
pub fn public_key_file(key: &SigningKey) -> String {
    key.verifying_key().to_public_key_pem(LineEnding::LF).expect("32 bytes always encode")
}

/// The keys whose signatures count (PSD-009 §5.2.5).
#[derive(Debug, Default)]
pub struct TrustedKeys {
    keys: Vec<(String, VerifyingKey)>,
}

impl TrustedKeys {
    /// The keys of `descriptor` that are active, or transitioning and still valid at `now`, read
    /// from the repository at `root`. Keys that cannot be read are left out and reported apart.
    pub fn load(descriptor: &Descriptor, root: &Path, now: &Timestamp) -> (Self, Vec<RepoError>) {
        let mut found = Self::default();
        let mut problems = Vec::new();
        for key in &descriptor.repo.signing.keys {
            let until = key.valid_until.as_deref().and_then(|until| Timestamp::parse(until).ok());
            let accepted = match key.status {
                Status::Active => true,
                Status::Transitioning => until.is_some_and(|until| now.seconds() <= until.seconds()),
                Status::Revoked => false,
            };
            if !accepted {
                continue;
            }
            match read_public_key(&local_key_file(root, key), &key.fingerprint) {
                Ok(public) => found.add(public),
                Err(error) => problems.push(error),
            }
        }
        (found, problems)
    }

    /// All keys of `descriptor`, accepted or not, that can be read from the repository at `root`.
    pub fn load_all(descriptor: &Descriptor, root: &Path) -> Self {
        let keys = &descriptor.repo.signing.keys;
        let read = |key: &Key| read_public_key(&local_key_file(root, key), &key.fingerprint).ok();
        let mut found = Self::default();
        keys.iter().filter_map(read).for_each(|key| found.add(key));
        found
    }

    /// Trusts one more key.
    pub fn add(&mut self, key: VerifyingKey) {
        self.keys.push((fingerprint(&key), key));
    }

    /// The key of a fingerprint.
    pub fn get(&self, fingerprint: &str) -> Option<&VerifyingKey> {
        self.keys.iter().find(|(known, _)| known == fingerprint).map(|(_, key)| key)
    }

    /// Checks the detached signature of `document`, whose content has `digest`, and returns the
    /// fingerprint of the key that made it (PSD-009 §6.1.6).
    pub fn check(&self, document: &Path, digest: &Digest) -> Result<String, RepoError> {
        let bytes = files::read(&signature_path(document), MAX_ENVELOPE as u64)?;
        self.check_envelope(document, digest, &bytes)
    }

    /// The same with the signature in memory.
    pub fn check_envelope(
        &self,
        document: &Path,
        digest: &Digest,
        envelope: &[u8],
    ) -> Result<String, RepoError> {
        let path = signature_path(document);
        let refuse = |source: SignatureError| RepoError::Signature { path: path.clone(), source };
        let envelope = Envelope::parse(envelope).map_err(refuse)?;
        let Some(key) = self.get(envelope.fingerprint()) else {
            let message =
                format!("made by key {}, which repo.json does not list as valid", envelope.fingerprint());
            return Err(RepoError::invalid(&path, message));
        };
        envelope.verify_digest(key, digest).map_err(refuse)?;
        Ok(envelope.fingerprint().to_owned())
    }

    /// The same for a document in memory.
    pub fn check_bytes(&self, document: &Path, bytes: &[u8]) -> Result<String, RepoError> {
        self.check(document, &sha256(bytes))
    }
}

/// Where the detached signature of a document is.
pub fn signature_path(document: &Path) -> PathBuf {
    let mut path = document.as_os_str().to_owned();
    path.push(super::SIGNATURE_SUFFIX);
    path.into()
}

/// A key file where its URL says, else where it is by convention.
fn local_key_file(root: &Path, key: &Key) -> PathBuf {
    files::below(root, &key.url).unwrap_or_else(|| root.join(key_path(&key.fingerprint)))
}

/// Reads a public key, raw or PEM, and holds it against its fingerprint (PSD-009 §5.2.2).
fn read_public_key(path: &Path, expected: &str) -> Result<VerifyingKey, RepoError> {
    let bytes = files::read(path, MAX_KEY)?;
    let key = match <&[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(raw) => VerifyingKey::from_bytes(raw).ok(),
        Err(_) => std::str::from_utf8(&bytes)
            .ok()
            .and_then(|pem| VerifyingKey::from_public_key_pem(pem.trim()).ok()),
    };
    match key {
        Some(key) if fingerprint(&key) == expected => Ok(key),
        Some(key) => {
            let found = fingerprint(&key);
            Err(RepoError::invalid(path, format!("holds key {found}, expected key {expected}")))
        }
        None => Err(RepoError::invalid(path, "holds no Ed25519 public key")),
    }
}
