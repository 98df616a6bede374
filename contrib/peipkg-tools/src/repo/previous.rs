//! The state that a publish starts from. Reads and verifies; writes nothing.

use std::io::Read as _;
use std::path::Path;

use ed25519_dalek::SigningKey;
use peipkg_format::repository_layout as layout;

use super::descriptor::{Descriptor, KeySet, MAX_DESCRIPTOR};
use super::error::RepoError;
use super::files;
use super::generation::Signed;
use super::index::IndexKind;
use super::published::{Entries, StoredIndex};
use crate::signature::fingerprint;
use crate::timestamp::Timestamp;

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
    /// The archive index, of which only the head has been read; none for a rebuild.
    pub(super) archive: Option<StoredIndex>,
}

/// Reads and verifies the repository `input`, except for the entries of its archive index.
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
    if !descriptor.has_active(&own) {
        let listed: Vec<_> =
            descriptor.repo.signing.keys.iter().map(|key| key.fingerprint.as_str()).collect();
        // The point comes last: the manager shows both ends of a long line.
        let message = format!(
            "it lists {}, and the signing key {own} is not an active key of this repository",
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
    let name = &descriptor.repo.name;
    let (descriptor_signature, index_version, archive) = if rebuild {
        (signature.ok(), salvage_index_version(input, now), None)
    } else {
        let signature = signature?;
        let open = |kind| StoredIndex::open_signed(input, kind);
        // The publish makes the active index anew.
        let active = open(IndexKind::Active)?.check_head(&trusted, name)?.index_version;
        let archive = open(IndexKind::Archive)?;
        // A wrong signature comes before a fault in what it should have signed.
        let head = archive.head(name).or_else(|error| archive.check(&trusted, name).and(Err(error)))?;
        // An interrupted publish of another tool may leave the indexes at different versions.
        // Consumers may have seen the higher one, and they refuse to go back.
        (Some(signature), active.max(head.index_version), Some(archive))
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

impl Previous {
    /// Reads the archive index to its end and verifies it.
    pub(super) fn check_archive(&self) -> Result<(), RepoError> {
        let Some(archive) = &self.archive else { return Ok(()) };
        archive.check(&self.trusted, &self.descriptor.repo.name).map(drop)
    }

    /// Judges the archive index, of which `entries` have been read.
    ///
    /// # Errors
    /// Also when `now` is before it: consumers would refuse the new index (PSD-009 §6.2.3).
    pub(super) fn end_archive(
        &self,
        entries: Entries<'_>,
        path: &Path,
        now: &Timestamp,
    ) -> Result<(), RepoError> {
        let (head, entries) = entries.end(&self.trusted, &self.descriptor.repo.name)?;
        if head.index_version > self.index_version {
            return Err(RepoError::invalid(path, "changed while it was read"));
        }
        check_time(path, &head.generated_at, now)?;
        entries
    }
}

pub(super) fn check_time(path: &Path, generated_at: &str, now: &Timestamp) -> Result<(), RepoError> {
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
