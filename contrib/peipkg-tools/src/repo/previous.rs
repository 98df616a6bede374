//! The state that a publish starts from, and the checks that the new state loses none of it.
//!
//! Reads and verifies; writes nothing.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use ed25519_dalek::SigningKey;
use peipkg_format::problem::excerpt;
use peipkg_format::repository_layout as layout;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::descriptor::{Descriptor, Key, KeySet, MAX_DESCRIPTOR, Status};
use super::entry::Entry;
use super::error::RepoError;
use super::files;
use super::generation::Signed;
use super::index::{Index, IndexKind, MAX_INDEX};
use crate::signature::fingerprint;
use crate::timestamp::Timestamp;

/// How many missing packages an error names: a message of thousands would hide the reason.
const MOST_NAMED: usize = 5;
/// How much of a damaged index is searched for its version, in bytes: the head of any index fits.
const HEAD: u64 = 4096;

/// The repository before the publish.
pub(super) struct Previous {
    pub(super) descriptor: Descriptor,
    pub(super) descriptor_bytes: Vec<u8>,
    /// The descriptor's signature, if a trusted key made it; only a rebuild goes on without.
    pub(super) descriptor_signature: Option<Vec<u8>>,
    /// The keys whose signatures count.
    pub(super) trusted: KeySet,
    /// All keys that the descriptor lists: packages that they signed may be published already.
    pub(super) listed: KeySet,
    pub(super) index_version: u64,
    /// The bytes of the archive index; empty for a rebuild.
    pub(super) archive: Vec<u8>,
}

/// Reads and verifies the repository `input`.
pub(super) fn load(
    input: &Path,
    now: &Timestamp,
    key: &SigningKey,
    rebuild: bool,
) -> Result<Previous, RepoError> {
    let Signed { path, bytes: descriptor_bytes, signature } =
        Signed::read(input.join(layout::DESCRIPTOR), MAX_DESCRIPTOR)?;
    let descriptor = Descriptor::parse(&path, &descriptor_bytes)?;
    let public = key.verifying_key();
    let own = fingerprint(&public);
    let is_active = |key: &Key| key.fingerprint == own && key.status == Status::Active;
    if !descriptor.repo.signing.keys.iter().any(is_active) {
        let listed: Vec<_> =
            descriptor.repo.signing.keys.iter().map(|key| key.fingerprint.as_str()).collect();
        let message = format!(
            "the signing key {own} is not an active key of this repository, which lists {}",
            listed.join(", ")
        );
        return Err(RepoError::invalid(&path, message));
    }
    // An unreadable key is an error only if something it signed has to be verified.
    let (mut trusted, _) = KeySet::read_trusted(&descriptor, input, now);
    trusted.add(public);
    let mut listed = KeySet::read_listed(&descriptor, input);
    listed.add(public);
    let signature =
        signature.and_then(|envelope| trusted.check(&path, &descriptor_bytes, &envelope).map(|()| envelope));
    let (descriptor_signature, index_version, archive) = if rebuild {
        (signature.ok(), salvage_index_version(input, now), Vec::new())
    } else {
        let signature = signature?;
        let (active, _) = read_index(IndexKind::Active, input, &descriptor, &trusted)?;
        let (archive, bytes) = read_index(IndexKind::Archive, input, &descriptor, &trusted)?;
        // An interrupted publish of another tool may leave the indexes at different versions.
        // Consumers may have seen the higher one, and they refuse to go back.
        (Some(signature), active.max(archive), bytes)
    };
    Ok(Previous {
        descriptor,
        descriptor_bytes,
        descriptor_signature,
        trusted,
        listed,
        index_version,
        archive,
    })
}

/// Reads and verifies an index; returns its version and its bytes.
fn read_index(
    kind: IndexKind,
    input: &Path,
    descriptor: &Descriptor,
    trusted: &KeySet,
) -> Result<(u64, Vec<u8>), RepoError> {
    let Signed { path, bytes, signature } = Signed::read(kind.path(input), MAX_INDEX)?;
    trusted.check(&path, &bytes, &signature?)?;
    let index: Index<'_, IgnoredAny> = Index::parse(&path, &bytes, kind, &descriptor.repo.name)?;
    Ok((index.index_version.unwrap_or(0), bytes))
}

/// Returns the entries of the archive index at `path`. Refuses to publish at a time before it:
/// consumers would refuse the new index (PSD-009 §6.2.3).
pub(super) fn published_entries<'a>(
    path: &Path,
    previous: &'a Previous,
    now: &Timestamp,
) -> Result<Vec<Entry<'a>>, RepoError> {
    let archive: Index<'a, Vec<&'a RawValue>> =
        Index::parse(path, &previous.archive, IndexKind::Archive, &previous.descriptor.repo.name)?;
    check_time(path, &archive.generated_at, now)?;
    let numbered = (1..).zip(archive.packages);
    numbered
        .map(|(number, raw)| Entry::parse(raw).map_err(|error| explain(path, number, raw, &error)))
        .collect()
}

/// Names the entry `number` of the index at `path`: the place that `error` has is one in the entry.
fn explain(path: &Path, number: usize, raw: &RawValue, error: &serde_json::Error) -> RepoError {
    let entry: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    // Quoted, because the names of a foreign index may hold any character.
    let name = entry["name"].as_str().map(|name| format!(" ({:?})", excerpt(name))).unwrap_or_default();
    let reason = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let reason = reason.strip_suffix(&place).unwrap_or(&reason);
    RepoError::invalid(path, format!("entry {number}{name}: {reason}"))
}

fn check_time(path: &Path, generated_at: &str, now: &Timestamp) -> Result<(), RepoError> {
    match Timestamp::parse(generated_at) {
        Ok(then) if now.seconds() < then.seconds() => {
            let message = format!(
                "generated_at is {generated_at}, later than the --timestamp {}; consumers would refuse the new index",
                now.as_str()
            );
            Err(RepoError::invalid(path, message))
        }
        _ => Ok(()),
    }
}

/// The state that is about to replace a repository's.
pub(super) struct Successor<'a> {
    pub(super) repo: &'a str,
    pub(super) index_version: u64,
    pub(super) timestamp: &'a Timestamp,
    /// Its packages, in any order.
    pub(super) packages: Vec<&'a Entry<'a>>,
}

/// Refuses to replace the archive index at `path` by one that is not newer, lacks a package, or lists
/// other bytes for one. An index that cannot be read has nothing to lose.
pub(super) fn refuse_loss(path: &Path, successor: &Successor<'_>) -> Result<(), RepoError> {
    let Ok(bytes) = files::read(path, MAX_INDEX) else { return Ok(()) };
    let former: Result<Index<'_, Vec<&RawValue>>, _> =
        Index::parse(path, &bytes, IndexKind::Archive, successor.repo);
    let Ok(former) = former else { return Ok(()) };
    check_time(path, &former.generated_at, successor.timestamp)?;
    let (before, after) = (former.index_version.unwrap_or(0), successor.index_version);
    if before >= after {
        let message = format!("has index_version {before}; the new one would have {after}");
        return Err(RepoError::invalid(path, message));
    }
    let retained: HashMap<_, _> = successor.packages.iter().map(|entry| (&entry.identity, *entry)).collect();
    let (mut lost, mut changed) = (Vec::new(), Vec::new());
    for entry in former.packages.iter().filter_map(|raw| Entry::parse(raw).ok()) {
        // Quoted, because the names of a foreign index may hold any character.
        let name = || format!("{:?}", entry.identity.to_string());
        match retained.get(&entry.identity) {
            None => lost.push(name()),
            Some(new) if entry.hash().is_some_and(|hash| Some(hash) != new.hash()) => changed.push(name()),
            Some(_) => {}
        }
    }
    let refuse = |mut names: Vec<String>, before: &str, after: &str| {
        let count = names.len();
        names.truncate(MOST_NAMED);
        let more = if count > MOST_NAMED { ", …" } else { "" };
        let message = format!("lists {count} packages {before}: {}{more}; {after}", names.join(", "));
        Err(RepoError::invalid(path, message))
    };
    if !lost.is_empty() {
        return refuse(lost, "that the new one would lack", "remove this file to drop them");
    }
    if !changed.is_empty() {
        let way_out = "published versions never change; remove this file to replace them";
        return refuse(changed, "with another hash", way_out);
    }
    Ok(())
}

/// Returns the version that a rebuild of `root` counts up from. If neither index claims one, seconds
/// since 1970 exceed any number of publishes (PSD-009 §6.2.3).
fn salvage_index_version(root: &Path, now: &Timestamp) -> u64 {
    claimed_index_version(root).unwrap_or_else(|| now.seconds())
}

/// Returns the highest version that either index of `root` claims, however damaged they are.
pub(super) fn claimed_index_version(root: &Path) -> Option<u64> {
    let claimed = |kind: IndexKind| {
        let mut head = Vec::new();
        files::open(&kind.path(root)).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let (_, after) = head.split_once("\"index_version\"")?;
        let digits = after.trim_start_matches(|c: char| c == ':' || c.is_ascii_whitespace());
        let end = digits.find(|c: char| !c.is_ascii_digit())?;
        digits[..end].parse().ok()
    };
    [IndexKind::Active, IndexKind::Archive].into_iter().filter_map(claimed).max()
}
