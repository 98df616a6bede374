//! `init`: an empty repository (PSD-009 §6.1, §6.2).

use std::fs;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use peipkg_format::signing_key;

use super::descriptor::{Descriptor, key_path, public_key_file, signature_path};
use super::error::RepoError;
use super::index::Header;
use super::merge::Merged;
use super::staging::Staging;
use super::{DESCRIPTOR, INDEX_DIR, KEYS, MARKER, WRITING, files};
use crate::cli::Timestamp;
use crate::signature::{Envelope, fingerprint};

/// What `init` is told.
#[derive(Debug)]
pub struct Request {
    /// The repository's name.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
    /// The private key's file.
    pub sign_key: PathBuf,
    /// When the indexes are said to be made.
    pub timestamp: Timestamp,
    /// The directory: empty, or not there yet.
    pub out: PathBuf,
}

/// Creates the repository and returns a line for the person who asked.
pub fn run(request: &Request) -> Result<String, RepoError> {
    let key = signing_key::load(&request.sign_key)
        .map_err(|source| RepoError::Key { path: request.sign_key.clone(), source })?;
    let key = SigningKey::from_bytes(key.seed());
    if request.name.chars().any(char::is_control) {
        return Err(RepoError::invalid(&request.out, "a repository's name has no control characters"));
    }
    let out = &request.out;
    fs::create_dir_all(out).map_err(RepoError::io(out, "create the directory"))?;
    let _lock = super::lock::take(out)?;
    clear_interrupted(out)?;
    let marker = out.join(MARKER);
    files::create_dir(&marker)?;

    let public = key.verifying_key();
    let fingerprint = fingerprint(&public);
    let header = Header { repo: &request.name, index_version: 1, generated_at: request.timestamp.as_str() };
    let staging = Staging::write(out, &key, header, &Merged::default())?;
    let keys = out.join(KEYS);
    files::create_dir(&keys)?;
    let key_file = out.join(key_path(&fingerprint));
    files::write(&key_file, public_key_file(&key).as_bytes())?;
    let descriptor = Descriptor::new(&request.name, &request.description, &public).to_json();
    let signature = signature_path(&out.join(DESCRIPTOR));
    files::write(&signature, &Envelope::sign_bytes(&key, &descriptor).to_json())?;
    let unfinished = marker.join(DESCRIPTOR);
    files::write(&unfinished, &descriptor)?;

    let written = [key_file, keys, signature, unfinished.clone(), parent(out)];
    files::sync_all(&staging.paths().chain(written).collect::<Vec<_>>())?;
    if let Some(problem) = staging.commit()? {
        return Err(problem);
    }
    files::rename(&unfinished, &out.join(DESCRIPTOR))?;
    files::sync_all(std::slice::from_ref(out))?;
    files::remove_dir(&marker)?;
    Ok(format!("created repository {:?}, signed by key {fingerprint}\n", request.name))
}

/// Removes what an interrupted `init` left; anything else makes the directory one that is in use.
fn clear_interrupted(out: &Path) -> Result<(), RepoError> {
    let list = || fs::read_dir(out)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    let names = list().map_err(RepoError::io(out, "list the directory"))?;
    if names.is_empty() {
        return Ok(());
    }
    let ours = [MARKER, WRITING, INDEX_DIR, KEYS, "repo.json.sig"];
    let interrupted = names.iter().any(|name| name == MARKER);
    if !interrupted || !names.iter().all(|name| ours.iter().any(|known| name == known)) {
        return Err(RepoError::invalid(out, "is not empty; init creates a repository in an empty directory"));
    }
    for name in [WRITING, INDEX_DIR, KEYS] {
        files::remove_dir(&out.join(name))?;
    }
    Ok(())
}

/// The directory in which a new directory's name has to be durable.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
