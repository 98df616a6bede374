//! The repository descriptor, and the public keys that it lists (PSD-009 §6.1, §5.2).
//!
//! Decides which keys' signatures count. Writes no file.

use std::path::Path;

use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use peipkg_format::package_url::{Place, below};
use peipkg_format::problem::excerpt;
use peipkg_format::public_key::{self, MAX_KEY};
use peipkg_format::repository_layout as layout;
use serde::{Deserialize, Serialize};

use super::error::RepoError;
use super::files;
use crate::digest::{Digest, sha256, unhex};
use crate::manifest::{SCHEMA_VERSION, to_json};
use crate::signature::{ALGORITHM, Envelope, SignatureError, fingerprint};
use crate::timestamp::Timestamp;

/// Longest descriptor that is read, in bytes: room for thousands of keys.
pub(super) const MAX_DESCRIPTOR: u64 = 1024 * 1024;

/// `repo.json` (PSD-009 §6.1.2). Reading ignores unknown fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Descriptor {
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name, description and keys of the repository.
    pub repo: Repo,
    /// Where the indexes are.
    pub indexes: Indexes,
}

/// Name, description and keys of a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Repo {
    /// Short name, not empty; every index repeats it.
    pub name: String,
    /// One line for people; may be empty.
    #[serde(default)]
    pub description: String,
    /// The keys that may sign for it.
    pub signing: Signing,
}

/// The signature algorithm and the keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signing {
    /// Always [`ALGORITHM`].
    pub algorithm: String,
    /// Sorted by fingerprint, each once.
    pub keys: Vec<Key>,
}

/// A listed public key (PSD-009 §6.1.3).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// See [`fingerprint`].
    pub fingerprint: String,
    /// Where consumers fetch the key file.
    pub url: String,
    /// Whether its signatures count.
    pub status: Status,
    /// When a transitioning key expires: RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
}

/// Whether a key's signatures count (PSD-009 §6.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// They count, and the key makes new ones.
    Active,
    /// They count until [`Key::valid_until`]; the key makes no new ones.
    Transitioning,
    /// They do not count.
    Revoked,
}

/// Where the indexes are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Indexes {
    /// The index of current versions.
    pub active: Pointer,
    /// The index of all versions.
    pub archive: Pointer,
}

/// Where one index is (PSD-009 §6.1.5).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pointer {
    /// URL of the document.
    pub url: String,
    /// URL of its detached signature.
    pub signature_url: String,
}

impl Descriptor {
    /// Whether publishes may use the key with this fingerprint.
    pub(super) fn has_active(&self, fingerprint: &str) -> bool {
        let is_it = |key: &Key| key.fingerprint == fingerprint && key.status == Status::Active;
        self.repo.signing.keys.iter().any(is_it)
    }

    /// Makes the descriptor of a new repository with one key.
    pub fn new(name: &str, description: &str, key: &VerifyingKey) -> Self {
        let pointer = |index: &str| Pointer {
            url: format!("/{index}"),
            signature_url: format!("/{}", layout::signature(index).display()),
        };
        let fingerprint = fingerprint(key);
        let url = format!("/{}", layout::key(&fingerprint));
        let key = Key { fingerprint, url, status: Status::Active, valid_until: None };
        let signing = Signing { algorithm: ALGORITHM.to_owned(), keys: vec![key] };
        Self {
            schema_version: SCHEMA_VERSION,
            repo: Repo { name: name.to_owned(), description: description.to_owned(), signing },
            indexes: Indexes {
                active: pointer(layout::ACTIVE_INDEX),
                archive: pointer(layout::ARCHIVE_INDEX),
            },
        }
    }

    /// Returns the document as it is stored: compact, with one final newline (PSD-009 §6.1.7).
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads the descriptor at `path` from its bytes.
    ///
    /// # Errors
    /// Every problem at once, as [`RepoError::Several`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RepoError> {
        let descriptor: Self = serde_json::from_slice(bytes)
            .map_err(|source| RepoError::Json { path: path.to_owned(), source })?;
        let problems = descriptor.problems();
        if problems.is_empty() {
            return Ok(descriptor);
        }
        Err(RepoError::Several(problems.into_iter().map(|line| RepoError::invalid(path, line)).collect()))
    }

    /// Returns the URLs by which a client cannot find the indexes, their signatures and the keys of
    /// the repository at `root`.
    pub(super) fn url_problems(&self, root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for (kind, pointer, file) in [
            ("active", &self.indexes.active, layout::ACTIVE_INDEX),
            ("archive", &self.indexes.archive, layout::ARCHIVE_INDEX),
        ] {
            for (field, url, file) in [
                ("url", &pointer.url, file.into()),
                ("signature_url", &pointer.signature_url, layout::signature(file)),
            ] {
                let real = |path: &Path| root.join(path).canonicalize().ok();
                let problem = match below(url) {
                    // A copy would stay as it is when the next publish changes the index.
                    Ok(Place::Local(path)) => (Path::new(path) != file
                        && (real(Path::new(path)).is_none() || real(Path::new(path)) != real(&file)))
                    .then(|| format!("does not lead to {}", file.display())),
                    Ok(Place::Elsewhere(_)) => None,
                    Err(error) => Some(error.to_string()),
                };
                let name = || format!("indexes.{kind}.{field} {:?}", excerpt(url));
                found.extend(problem.map(|problem| format!("{} {problem}", name())));
            }
        }
        let keys = self.repo.signing.keys.iter().filter(|key| key.status != Status::Revoked);
        found.extend(keys.filter_map(|Key { fingerprint, url, .. }| {
            let error = below(url).err()?;
            Some(format!("the url {:?} of key {fingerprint} {error}", excerpt(url)))
        }));
        found
    }

    /// Returns every rule of PSD-009 §6.1 that the descriptor breaks.
    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let signing = &self.repo.signing;
        if self.schema_version != SCHEMA_VERSION {
            found.push(format!("schema_version is {}, expected {SCHEMA_VERSION}", self.schema_version));
        }
        if self.repo.name.is_empty() {
            found.push("repo.name is empty".to_owned());
        }
        if signing.algorithm != ALGORITHM {
            found.push(format!("algorithm is {:?}, expected {ALGORITHM:?}", signing.algorithm));
        }
        if !signing.keys.iter().any(|key| key.status == Status::Active) {
            found.push("no key is active".to_owned());
        }
        if !signing.keys.is_sorted_by(|one, next| one.fingerprint < next.fingerprint) {
            found.push("the keys are not sorted by fingerprint, or one is listed twice".to_owned());
        }
        for key in &signing.keys {
            if unhex(&key.fingerprint).is_none() {
                found.push(format!(
                    "key fingerprint {:?} is not 64 lower-case hexadecimal digits",
                    key.fingerprint
                ));
            }
            let until = key.valid_until.as_deref();
            if key.status == Status::Transitioning && until.is_none_or(|at| Timestamp::parse(at).is_err()) {
                found.push(format!(
                    "transitioning key {} has no valid_until such as 2026-05-01T12:00:00Z",
                    key.fingerprint
                ));
            }
        }
        let pointers = [&self.indexes.active, &self.indexes.archive];
        if pointers.iter().any(|pointer| pointer.url.is_empty() || pointer.signature_url.is_empty()) {
            found.push("an index has no url or no signature_url".to_owned());
        }
        found
    }
}

/// Returns a public key as it is published: a PEM block (PSD-009 §5.2.2).
///
/// # Panics
/// Never: the 32 bytes of a key always encode.
pub fn public_key_file(key: &SigningKey) -> String {
    key.verifying_key().to_public_key_pem(LineEnding::LF).expect("32 bytes always encode")
}

/// Public keys by fingerprint.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<(String, VerifyingKey)>,
}

impl KeySet {
    /// Reads the keys that the repository at `root` trusts at `now`: active ones, and
    /// transitioning ones that are still valid (PSD-009 §5.2.5). Returns an error for each that
    /// cannot be read.
    pub fn read_trusted(descriptor: &Descriptor, root: &Path, now: &Timestamp) -> (Self, Vec<RepoError>) {
        let mut found = Self::default();
        let mut problems = Vec::new();
        for key in &descriptor.repo.signing.keys {
            let until = key.valid_until.as_deref().and_then(|until| Timestamp::parse(until).ok());
            let is_trusted = match key.status {
                Status::Active => true,
                Status::Transitioning => until.is_some_and(|until| now.seconds() <= until.seconds()),
                Status::Revoked => false,
            };
            if is_trusted {
                match read_public_key(root, key) {
                    Ok(public) => found.add(public),
                    Err(error) => problems.push(error),
                }
            }
        }
        (found, problems)
    }

    /// Reads every key that the repository at `root` lists, trusted or not. Skips unreadable ones.
    pub fn read_listed(descriptor: &Descriptor, root: &Path) -> Self {
        let mut found = Self::default();
        let keys = &descriptor.repo.signing.keys;
        keys.iter().filter_map(|key| read_public_key(root, key).ok()).for_each(|key| found.add(key));
        found
    }

    /// Reads every key that the repository at `root` lists, but for revoked ones: old documents count
    /// after their key has expired. Skips unreadable ones.
    pub fn read_unrevoked(descriptor: &Descriptor, root: &Path) -> Self {
        let mut found = Self::default();
        let keys = descriptor.repo.signing.keys.iter().filter(|key| key.status != Status::Revoked);
        keys.filter_map(|key| read_public_key(root, key).ok()).for_each(|key| found.add(key));
        found
    }

    /// Whether a key of the set made the signature, in 64 bytes, of `message`.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        self.keys.iter().any(|(_, key)| key.verify_strict(message, &signature).is_ok())
    }

    /// Adds a key.
    pub fn add(&mut self, key: VerifyingKey) {
        self.keys.push((fingerprint(&key), key));
    }

    /// Finds a key by its fingerprint.
    pub fn get(&self, fingerprint: &str) -> Option<&VerifyingKey> {
        self.keys.iter().find(|(known, _)| known == fingerprint).map(|(_, key)| key)
    }

    /// Checks that a key of the set made `envelope`, the detached signature of the document at
    /// `path` (PSD-009 §6.1.6).
    pub fn check(&self, path: &Path, bytes: &[u8], envelope: &[u8]) -> Result<(), RepoError> {
        self.check_digest(path, &sha256(bytes), envelope)
    }

    /// Checks the same by the SHA-256 of the document.
    pub fn check_digest(&self, path: &Path, digest: &Digest, envelope: &[u8]) -> Result<(), RepoError> {
        let path = layout::signature(path);
        let refuse = |source: SignatureError| RepoError::Signature { path: path.clone(), source };
        let envelope = Envelope::parse(envelope).map_err(refuse)?;
        let Some(key) = self.get(envelope.fingerprint()) else {
            let message =
                format!("made by key {}, which repo.json does not list as valid", envelope.fingerprint());
            return Err(RepoError::invalid(&path, message));
        };
        envelope.verify_digest(key, digest).map_err(refuse)
    }
}

/// Reads a public key, raw or PEM, and checks its fingerprint (PSD-009 §5.2.2). A URL on another
/// host, or one that leads out of the repository, is no place to read from; the key's conventional
/// place stands in for it.
fn read_public_key(root: &Path, listed: &Key) -> Result<VerifyingKey, RepoError> {
    let expected = &listed.fingerprint;
    let path = match below(&listed.url) {
        Ok(Place::Local(path)) => root.join(path),
        Ok(Place::Elsewhere(_)) | Err(_) => root.join(layout::key(expected)),
    };
    let bytes = files::read(&path, MAX_KEY)?;
    match public_key::parse(&bytes).and_then(|raw| VerifyingKey::from_bytes(&raw).ok()) {
        Some(key) if fingerprint(&key) == *expected => Ok(key),
        Some(key) => {
            let found = fingerprint(&key);
            Err(RepoError::invalid(&path, format!("holds key {found}, expected key {expected}")))
        }
        None => Err(RepoError::invalid(&path, "holds no Ed25519 public key, expected PEM or 32 bytes")),
    }
}
