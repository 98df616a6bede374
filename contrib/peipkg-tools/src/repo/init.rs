//! `init`: creates an empty repository (PSD-009 §6.1, §6.2).
//!
//! Owns the retry after an interruption. Must not touch a directory that anything else uses.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use peipkg_format::repository_layout as layout;

use super::descriptor::{Descriptor, public_key_file};
use super::error::RepoError;
use super::index::Header;
use super::site::{self, Facts};
use super::staging::Writing;
use super::{LOCK, MARKER, WRITING, command, files, lock};
use crate::cli::note;
use crate::expression::check_line;
use crate::signature::{Envelope, fingerprint, load_key};
use crate::timestamp::Timestamp;

/// The directories that an interrupted `init` may leave.
const DIRECTORIES: [&str; 3] = [WRITING, layout::INDEX_DIRECTORY, layout::KEY_DIRECTORY];

/// The arguments of `init`.
#[derive(Debug)]
pub struct Request {
    /// The repository's name.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
    /// The file of the private key.
    pub sign_key: PathBuf,
    /// The `generated_at` of the indexes.
    pub timestamp: Timestamp,
    /// The directory: empty or missing.
    pub out: PathBuf,
    /// Whether to write the browse site.
    pub site: bool,
}

/// Creates the repository, and returns a summary line.
pub fn run(request: &Request) -> Result<String, RepoError> {
    let key = load_key(&request.sign_key)?;
    for (flag, text) in [("--name", &request.name), ("--description", &request.description)] {
        if let Err(problem) = check_line(text) {
            return Err(RepoError::invalid(&request.out, format!("{flag} {text:?} {problem}")));
        }
    }
    let out = &request.out;
    fs::create_dir_all(out).map_err(RepoError::io(out, "create the directory"))?;
    // Before the lock, too: its file must not appear in a directory that anything else uses.
    check_free(out)?;
    let _lock = lock::exclusive(out)?;
    clear_interrupted(out)?;
    let marker = out.join(MARKER);
    files::create_dir(&marker)?;

    let public = key.verifying_key();
    let fingerprint = fingerprint(&public);
    let header = Header { repo: &request.name, index_version: 1, generated_at: request.timestamp.as_str() };
    let (staging, _) = Writing::begin(out, header, None)?.end(&key)?;
    let keys = out.join(layout::KEY_DIRECTORY);
    files::create_dir(&keys)?;
    let key_file = out.join(layout::key(&fingerprint));
    files::write(&key_file, public_key_file(&key).as_bytes())?;
    let repository = Descriptor::new(&request.name, &request.description, &public);
    let descriptor = repository.to_json();
    let signature = out.join(layout::signature(layout::DESCRIPTOR));
    files::write(&signature, &Envelope::sign_bytes(&key, &descriptor).to_json())?;
    let unfinished = marker.join(layout::DESCRIPTOR);
    files::write(&unfinished, &descriptor)?;

    let written = [key_file, keys, signature, unfinished.clone(), parent(out)];
    files::sync_all(&staging.paths().chain(written).collect::<Vec<_>>())?;
    if let Some(problem) = staging.commit()? {
        return Err(problem);
    }
    files::rename(&unfinished, &out.join(layout::DESCRIPTOR))?;
    files::sync_all(std::slice::from_ref(out))?;
    files::remove_dir(&marker)?;
    if request.site {
        let facts = Facts::new(&repository, header.index_version, header.generated_at, 0, Vec::new());
        if let Err(problem) = site::write(out, &facts) {
            note(command::PROGRAM, &format!("created, but {problem}"));
        }
    }
    Ok(format!("created repository {:?}, signed by key {fingerprint}\n", request.name))
}

/// Removes the files of an interrupted `init`.
fn clear_interrupted(out: &Path) -> Result<(), RepoError> {
    check_free(out)?;
    DIRECTORIES.iter().try_for_each(|name| files::remove_dir(&out.join(name)))
}

/// Refuses a directory that holds anything but the files of an interrupted `init`.
fn check_free(out: &Path) -> Result<(), RepoError> {
    let list = || fs::read_dir(out)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    let mut names = list().map_err(RepoError::io(out, "list the directory"))?;
    names.retain(|name| name != LOCK);
    if names.is_empty() {
        return Ok(());
    }
    let signature = layout::signature(layout::DESCRIPTOR);
    let is_ours = |name: &OsString| {
        name == MARKER || *name == signature || DIRECTORIES.iter().any(|known| name == known)
    };
    let interrupted = names.iter().any(|name| name == MARKER);
    if !interrupted || !names.iter().all(is_ours) {
        return Err(RepoError::invalid(out, "is not empty; init creates a repository in an empty directory"));
    }
    Ok(())
}

/// Returns the directory to sync so that the name of `path` survives a power cut.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
