//! Checks the provenance beside a package, if there is one. Reads only.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use peipkg_format::dsse::{EnvelopeError, MAX_ENVELOPE};
use peipkg_format::provenance::{ProvenanceError, Statement};
use peipkg_format::sidecars::{self as names, Place};

use super::descriptor::{Descriptor, KeySet};
use super::error::RepoError;
use super::files;

/// The keys that may have signed provenance. Those whose time has expired count: they signed before.
pub(super) struct Keys {
    listed: KeySet,
    unrevoked: KeySet,
}

impl Keys {
    /// Reads the keys that the repository at `root` lists.
    pub(super) fn read(descriptor: &Descriptor, root: &Path) -> Self {
        let (listed, unrevoked) =
            (KeySet::read_listed(descriptor, root), KeySet::read_unrevoked(descriptor, root));
        Self { listed, unrevoked }
    }
}

/// Whether a package has a provenance, and whether that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No provenance.
    Nothing,
    /// Its provenance, which proves nothing, because only revoked keys signed it.
    Revoked,
    /// Its provenance.
    Verified,
}

/// Checks the provenance of the package file `package` below `root`: one of `keys` signed it, and it is about
/// the package `name` with this SHA-256.
///
/// # Errors
/// When the file beside the package is not its provenance.
pub(super) fn check(
    root: &Path,
    package: &Path,
    name: &str,
    sha256: &str,
    keys: &Keys,
) -> Result<Found, RepoError> {
    let own = names::provenance(package, Place::Shared);
    let is_there = |path: &Path| {
        fs::symlink_metadata(path).map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true)
    };
    let mut found = if is_there(&own) { check_file(&own, name, sha256, keys)? } else { Found::Nothing };
    let alone = names::provenance(package, Place::Alone);
    let relative = package.strip_prefix(root).unwrap_or(package);
    // People may look at either file. At the root, a file of this name may be anybody's.
    if names::may_be_alone(relative) && is_there(&alone) {
        match check_file(&alone, name, sha256, keys) {
            Ok(of_alone) if found == Found::Nothing => found = of_alone,
            // It is of another package that was alone here.
            Err(problem) if !is_shared(package, relative) => return Err(problem),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}

fn check_file(path: &Path, name: &str, sha256: &str, keys: &Keys) -> Result<Found, RepoError> {
    let bytes = files::read(path, MAX_ENVELOPE)?;
    let read =
        |keys: &KeySet| Statement::read(&bytes, &|message, signature| keys.has_signed(message, signature));
    let (statement, found) = match read(&keys.unrevoked) {
        Err(ProvenanceError::Envelope(EnvelopeError::NotSigned)) => (read(&keys.listed), Found::Revoked),
        other => (other, Found::Verified),
    };
    let statement = statement.map_err(|error| RepoError::invalid(path, error.to_string()))?;
    if statement.is_about(name, sha256) {
        return Ok(found);
    }
    Err(RepoError::invalid(path, format!("is not about {name} with the SHA-256 {sha256}")))
}

/// Whether other packages are in the directory of a package.
fn is_shared(package: &Path, relative: &Path) -> bool {
    let entries = package.parent().and_then(|directory| fs::read_dir(directory).ok());
    let entries = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names::place(relative, entries) == Place::Shared
}
