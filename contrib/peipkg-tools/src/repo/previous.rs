//! The state that a publish starts from, and what must not be lost of it.

use std::collections::HashSet;
use std::path::Path;

use ed25519_dalek::SigningKey;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::descriptor::{Descriptor, Status, TrustedKeys};
use super::error::RepoError;
use super::index::{Entry, Index, Kind, MAX_INDEX};
use super::{DESCRIPTOR, INDEX_DIR, files};
use crate::cli::Timestamp;
use crate::signature::fingerprint;

/// Most packages that are named where many are missing.
const MOST_NAMED: usize = 5;

/// The state before, as far as a publish needs it.
pub(super) struct Previous {
    pub(super) descriptor: Descriptor,
    pub(super) descriptor_bytes: Vec<u8>,
    /// Whether the descriptor's signature counts; only a rebuild goes on without.
    pub(super) descriptor_signed: bool,
    /// The keys whose signatures count.
    pub(super) trusted: TrustedKeys,
    /// All keys that the descriptor lists: what they have signed was good once.
    pub(super) listed: TrustedKeys,
    pub(super) index_version: u64,
    /// The archive index as it is on disk; empty for a rebuild.
    pub(super) archive: Vec<u8>,
}

/// Reads and verifies the state that is published onto.
pub(super) fn load(
    input: &Path,
    now: &Timestamp,
    key: &SigningKey,
    rebuild: bool,
) -> Result<Previous, RepoError> {
    let (descriptor, descriptor_bytes) = Descriptor::load(input)?;
    let path = input.join(DESCRIPTOR);
    let public = key.verifying_key();
    let own = fingerprint(&public);
    let is_active = |key: &super::descriptor::Key| key.fingerprint == own && key.status == Status::Active;
    if !descriptor.repo.signing.keys.iter().any(is_active) {
        let listed: Vec<_> =
            descriptor.repo.signing.keys.iter().map(|key| key.fingerprint.as_str()).collect();
        let message = format!(
            "the signing key {own} is not an active key of this repository, which has {}",
            listed.join(", ")
        );
        return Err(RepoError::invalid(&path, message));
    }
    // Keys other than the one at hand matter only if something was signed with them.
    let (mut trusted, _) = TrustedKeys::load(&descriptor, input, now);
    trusted.add(public);
    let mut listed = TrustedKeys::load_all(&descriptor, input);
    listed.add(public);
    let signed = trusted.check_bytes(&path, &descriptor_bytes);
    let descriptor_signed = signed.is_ok();
    if rebuild {
        let index_version = salvage_index_version(input, now);
        let archive = Vec::new();
        return Ok(Previous {
            descriptor,
            descriptor_bytes,
            descriptor_signed,
            trusted,
            listed,
            index_version,
            archive,
        });
    }
    signed?;
    let read = |kind: Kind| {
        let path = input.join(INDEX_DIR).join(kind.file_name());
        let bytes = files::read(&path, MAX_INDEX)?;
        trusted.check_bytes(&path, &bytes)?;
        Ok::<_, RepoError>((path, bytes))
    };
    let version = |kind: Kind, path: &Path, bytes: &[u8]| {
        let index: Index<'_, IgnoredAny> = Index::parse(path, bytes, kind, &descriptor.repo.name)?;
        Ok::<_, RepoError>(index.index_version.unwrap_or(0))
    };
    let (path, active) = read(Kind::Active)?;
    let active = version(Kind::Active, &path, &active)?;
    let (path, archive) = read(Kind::Archive)?;
    // Another tool that was interrupted may have left the archive ahead; consumers have seen both.
    let index_version = active.max(version(Kind::Archive, &path, &archive)?);
    Ok(Previous { descriptor, descriptor_bytes, descriptor_signed, trusted, listed, index_version, archive })
}

/// The entries of the archive. Consumers refuse an index that is older than the one
/// they know (PSD-009 §6.2.3), so none is made.
pub(super) fn published_entries<'a>(
    path: &Path,
    previous: &'a Previous,
    now: &Timestamp,
) -> Result<Vec<Entry<'a>>, RepoError> {
    let archive: Index<'a, Vec<&'a RawValue>> =
        Index::parse(path, &previous.archive, Kind::Archive, &previous.descriptor.repo.name)?;
    check_time(path, &archive.generated_at, now)?;
    let json = |source| RepoError::Json { path: path.to_owned(), source };
    archive.packages.into_iter().map(|raw| Entry::parse(raw).map_err(json)).collect()
}

fn check_time(path: &Path, generated_at: &str, now: &Timestamp) -> Result<(), RepoError> {
    match Timestamp::parse(generated_at) {
        Ok(then) if now.seconds() < then.seconds() => {
            let message = format!(
                "was made at {generated_at}, later than the --timestamp {}; consumers would refuse the new one",
                now.as_str()
            );
            Err(RepoError::invalid(path, message))
        }
        _ => Ok(()),
    }
}

/// What is about to replace the state of a repository.
pub(super) struct Successor<'a> {
    pub(super) repo: &'a str,
    pub(super) index_version: u64,
    pub(super) timestamp: &'a Timestamp,
    /// Its packages, in any order.
    pub(super) packages: Vec<&'a Entry<'a>>,
}

/// Refuses to replace the archive at `path` by one that lacks some of it or is older. An archive
/// that cannot be read has nothing to lose.
pub(super) fn refuse_loss(path: &Path, successor: &Successor<'_>) -> Result<(), RepoError> {
    let Ok(bytes) = files::read(path, MAX_INDEX) else { return Ok(()) };
    let former: Result<Index<'_, Vec<&RawValue>>, _> =
        Index::parse(path, &bytes, Kind::Archive, successor.repo);
    let Ok(former) = former else { return Ok(()) };
    check_time(path, &former.generated_at, successor.timestamp)?;
    let (before, after) = (former.index_version.unwrap_or(0), successor.index_version);
    if before > after {
        let message = format!("has index_version {before}; the new one would have {after}");
        return Err(RepoError::invalid(path, message));
    }
    let kept: HashSet<_> =
        successor.packages.iter().map(|one| (&*one.name, &*one.version, &*one.architecture)).collect();
    let entries = former.packages.iter().filter_map(|raw| Entry::parse(raw).ok());
    let mut lost: Vec<String> = entries
        .filter(|one| !kept.contains(&(&*one.name, &*one.version, &*one.architecture)))
        .map(|one| format!("{:?}", format!("{} {} {}", one.name, one.version, one.architecture)))
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    let count = lost.len();
    lost.truncate(MOST_NAMED);
    let more = if count > MOST_NAMED { ", …" } else { "" };
    let message = format!(
        "lists {count} packages that the new one would lack: {}{more}; without this file, it would not count",
        lost.join(", ")
    );
    Err(RepoError::invalid(path, message))
}

/// The highest version either index claims, read from whatever is left of them. With nothing
/// left, seconds since 1970 are more than any number of publishes (PSD-009 §6.2.3).
fn salvage_index_version(root: &Path, now: &Timestamp) -> u64 {
    let claimed = |kind: Kind| {
        let bytes = files::read(&root.join(INDEX_DIR).join(kind.file_name()), MAX_INDEX).ok()?;
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned();
        let (_, after) = head.split_once("\"index_version\"")?;
        let digits = after.trim_start_matches(|c: char| c == ':' || c.is_ascii_whitespace());
        let end = digits.find(|c: char| !c.is_ascii_digit())?;
        digits[..end].parse().ok()
    };
    let highest = [Kind::Active, Kind::Archive].into_iter().filter_map(claimed).max();
    highest.unwrap_or_else(|| now.seconds())
}
