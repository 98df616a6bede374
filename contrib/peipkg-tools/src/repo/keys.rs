//! `keys`: changes which keys `repo.json` lists, and signs it (PSD-009 §5.2.6, §6.1.3).
//!
//! Owns the order of the writes, so that an interrupted change can be repeated: key files, signatures of
//! the indexes, signature of the descriptor, descriptor. Changes no index and no package.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ed25519_dalek::pkcs8::DecodePublicKey as _;
use ed25519_dalek::{SigningKey, VerifyingKey};
use peipkg_format::public_key::MAX_KEY;
use peipkg_format::repository_layout as layout;

use super::descriptor::{Descriptor, Key, KeySet, MAX_DESCRIPTOR, Status, public_key_file};
use super::error::RepoError;
use super::generation::{self, Signed};
use super::index::IndexKind;
use super::published::StoredIndex;
use super::site::{self, Facts, NewestSoFar};
use super::{INCOMING, NEW_DESCRIPTOR, NEW_SIGNATURE, command, files, lock, publish, staging, store};
use crate::cli::note;
use crate::signature::{Envelope, KeyFileError, fingerprint, load_key};
use crate::timestamp::Timestamp;

/// Opens the PEM block of a public key.
const PUBLIC_PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----";

/// The arguments of `keys`.
#[derive(Debug)]
pub struct Request {
    /// The repository.
    pub repo: PathBuf,
    /// The change; without one, the keys are only listed.
    pub change: Option<Change>,
    /// Whether to write the browse site.
    pub site: bool,
}

/// A change of the listed keys. Empty, it only signs `repo.json` again.
#[derive(Debug)]
pub struct Change {
    /// The file of the private key that signs `repo.json`: an active one after the change.
    pub sign_key: PathBuf,
    /// Files of keys, private or public, that become active.
    pub add: Vec<PathBuf>,
    /// The fingerprint of a key that becomes transitioning, and until when its signatures count.
    pub retire: Option<(String, Timestamp)>,
    /// The fingerprint of a key that becomes revoked.
    pub revoke: Option<String>,
}

/// Lists the keys, after the change if there is one.
pub fn run(request: &Request) -> Result<String, RepoError> {
    let root = &request.repo;
    let Some(change) = &request.change else {
        let read = || read_descriptor(root).map(|(descriptor, _)| list(&descriptor));
        return generation::of_one_publish(root, read);
    };
    let key = load_key(&change.sign_key)?;
    let added = change.add.iter().map(|path| read_added(path)).collect::<Result<Vec<_>, _>>()?;
    if !root.join(layout::DESCRIPTOR).is_file() {
        return Err(RepoError::invalid(root, "holds no repo.json"));
    }
    let _lock = lock::exclusive(root)?;
    staging::settle(root)?;
    let (before, signed) = read_descriptor(root)?;
    let after = changed(&before, &signed.path, change, &added)?;
    let own = fingerprint(&key.verifying_key());
    if !after.has_active(&own) {
        let message = format!("the signing key {own} is not an active key after this change");
        return Err(RepoError::invalid(&signed.path, message));
    }
    let bytes = after.to_json();
    let keys = keys_before(&before, root, &key);
    check_descriptor(&keys, &signed, &bytes)?;
    let unsigned = unsigned_indexes(root, &after, &keys)?;

    files::create_dir(&root.join(layout::KEY_DIRECTORY))?;
    let temporary = root.join(INCOMING);
    for (fingerprint, pem) in &added {
        files::replace(&root.join(layout::key(fingerprint)), &temporary, pem.as_bytes())?;
    }
    for path in unsigned {
        let envelope = Envelope::sign_digest(&key, &store::hash_file(&path)?);
        files::replace(&layout::signature(&path), &temporary, &envelope.to_json())?;
    }
    let (signature, descriptor) = (root.join(NEW_SIGNATURE), root.join(NEW_DESCRIPTOR));
    files::write(&signature, &Envelope::sign_bytes(&key, &bytes).to_json())?;
    files::write(&descriptor, &bytes)?;
    let directories = [root.join(layout::KEY_DIRECTORY), root.join(layout::INDEX_DIRECTORY)];
    files::sync_all(&[vec![signature, descriptor], directories.to_vec()].concat())?;
    publish::finish_descriptor(root)?;

    if request.site
        && let Err(problem) = write_site(root, &after)
    {
        note(command::PROGRAM, &format!("changed, but {problem}"));
    }
    let (known, _) = KeySet::read_trusted(&before, root, &Timestamp::at(SystemTime::now()));
    if known.get(&own).is_none() {
        let line = format!(
            "no client knows the key that signed this repo.json: each refuses it until it adds the \
             repository again with key {own}"
        );
        note(command::PROGRAM, &line);
    }
    Ok(list(&after))
}

fn read_descriptor(root: &Path) -> Result<(Descriptor, Signed), RepoError> {
    let signed = Signed::read(root.join(layout::DESCRIPTOR), MAX_DESCRIPTOR)?;
    Descriptor::parse(&signed.path, &signed.bytes).map(|descriptor| (descriptor, signed))
}

/// Lists the keys, one per line: the active ones first.
fn list(descriptor: &Descriptor) -> String {
    let mut text = String::new();
    for status in [Status::Active, Status::Transitioning, Status::Revoked] {
        for key in descriptor.repo.signing.keys.iter().filter(|key| key.status == status) {
            let until = key.valid_until.as_deref().unwrap_or_default();
            let _ = match status {
                Status::Active => writeln!(text, "{} active", key.fingerprint),
                Status::Transitioning => writeln!(text, "{} transitioning until {until}", key.fingerprint),
                Status::Revoked => writeln!(text, "{} revoked", key.fingerprint),
            };
        }
    }
    text
}

/// Reads a key that becomes active. Returns its fingerprint, and its public key in PEM. A file of 32
/// bytes is a private seed, as it is for `--sign-key`: a seed must never be published for a public key.
fn read_added(path: &Path) -> Result<(String, String), RepoError> {
    let bytes = files::read(path, MAX_KEY)?;
    if !bytes.trim_ascii_start().starts_with(PUBLIC_PEM) {
        let key = load_key(path).map_err(|KeyFileError { source, .. }| {
            RepoError::invalid(path, format!("{source}; or a public key in PEM, \"PUBLIC KEY\""))
        })?;
        return Ok((fingerprint(&key.verifying_key()), public_key_file(&key)));
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned() + "\n";
    match VerifyingKey::from_public_key_pem(&text) {
        Ok(key) => Ok((fingerprint(&key), text)),
        Err(_) => Err(RepoError::invalid(path, "holds no Ed25519 public key")),
    }
}

/// Returns the descriptor at `path` with the change made.
fn changed(
    before: &Descriptor,
    path: &Path,
    change: &Change,
    added: &[(String, String)],
) -> Result<Descriptor, RepoError> {
    let mut after = before.clone();
    let keys = &mut after.repo.signing.keys;
    for (fingerprint, _) in added {
        match keys.iter_mut().find(|key| key.fingerprint == *fingerprint) {
            Some(Key { status: Status::Revoked, .. }) => return Err(refuse_revoked(path, fingerprint)),
            Some(key) => (key.status, key.valid_until) = (Status::Active, None),
            None => keys.push(Key {
                fingerprint: fingerprint.clone(),
                url: format!("/{}", layout::key(fingerprint)),
                status: Status::Active,
                valid_until: None,
            }),
        }
    }
    keys.sort_by(|one, other| one.fingerprint.cmp(&other.fingerprint));
    if let Some((fingerprint, until)) = &change.retire {
        let key = listed(keys, path, fingerprint)?;
        if key.status == Status::Revoked {
            return Err(refuse_revoked(path, fingerprint));
        }
        (key.status, key.valid_until) = (Status::Transitioning, Some(until.as_str().to_owned()));
    }
    if let Some(fingerprint) = &change.revoke {
        let key = listed(keys, path, fingerprint)?;
        (key.status, key.valid_until) = (Status::Revoked, None);
    }
    Ok(after)
}

fn listed<'k>(keys: &'k mut [Key], path: &Path, fingerprint: &str) -> Result<&'k mut Key, RepoError> {
    let found = keys.iter_mut().find(|key| key.fingerprint == fingerprint);
    found.ok_or_else(|| RepoError::invalid(path, format!("lists no key {fingerprint:?}")))
}

fn refuse_revoked(path: &Path, fingerprint: &str) -> RepoError {
    RepoError::invalid(path, format!("key {fingerprint} is revoked, which is for good; make a new key"))
}

/// Returns the keys that may have signed the documents before the change: those that were not revoked,
/// even if they have expired, and `own`, because an interrupted change has signed with it.
fn keys_before(before: &Descriptor, root: &Path, own: &SigningKey) -> KeySet {
    let mut keys = KeySet::read_unrevoked(before, root);
    keys.add(own.verifying_key());
    keys
}

/// Refuses a descriptor that no key of the repository has signed: it must not be signed now. An
/// interrupted change has left the signature of the new descriptor, `after`.
fn check_descriptor(keys: &KeySet, signed: &Signed, after: &[u8]) -> Result<(), RepoError> {
    let path = &signed.path;
    let Ok(envelope) = &signed.signature else {
        return files::read(&layout::signature(path), MAX_KEY).map(drop);
    };
    let checked = keys.check(path, &signed.bytes, envelope);
    checked.or_else(|error| keys.check(path, after, envelope).map_err(|_| error))
}

/// Returns the indexes whose signature is not by a key that is active in `after`.
///
/// # Errors
/// When none of `keys` has signed an index: it must not be signed now.
fn unsigned_indexes(root: &Path, after: &Descriptor, keys: &KeySet) -> Result<Vec<PathBuf>, RepoError> {
    let mut found = Vec::new();
    for kind in [IndexKind::Archive, IndexKind::Active] {
        let index = StoredIndex::open_signed(root, kind)?;
        index.check_head(keys, &after.repo.name)?;
        if !after.has_active(&index.signer()?) {
            found.push(index.path);
        }
    }
    Ok(found)
}

/// Writes the browse site, which names the active keys.
fn write_site(root: &Path, descriptor: &Descriptor) -> Result<(), RepoError> {
    let index = StoredIndex::open(IndexKind::Active.path(root), IndexKind::Active)?;
    let (mut newest, mut count) = (NewestSoFar::new(site::NEWEST), 0);
    let head = index.each(&descriptor.repo.name, |number, entry| {
        newest.add(entry.json, entry.built);
        count = number;
        Ok(())
    })?;
    let newest = newest.into_newest();
    site::write(root, &Facts::new(descriptor, head.index_version, &head.generated_at, count, newest))
}
