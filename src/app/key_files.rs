//! The files of keys and of the webhook secret, for a start and for `--check`: whether each can be
//! used, and whether everybody can read it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use peipkg_format::problem::Problem;
use peipkg_format::regular_file;
use peipkg_format::repository_layout::DESCRIPTOR;
use peipkg_format::signing_key::KeyError;
use peipkg_format::unfit_byte::UnfitByte;

use crate::app::public_keys::{self, PublicKeys};
use crate::config::BinaryKey;

/// The longest webhook secret file to read, in bytes. It is far longer than any secret, and bounds
/// the memory that a wrong file, such as a disk image, can take.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// The longest descriptor to read, in bytes: far longer than one with any number of keys that somebody
/// keeps.
const MAX_DESCRIPTOR: u64 = 1024 * 1024;

/// Checks that the farm's key and those for binaries are private keys. Returns the public keys of
/// the keys for binaries.
///
/// # Errors
/// A problem for each file that holds no Ed25519 private key.
pub(super) fn check_keys(
    key_file: Option<&Path>,
    binary_keys: &[BinaryKey],
) -> Result<PublicKeys, Vec<Problem>> {
    let keys = PublicKeys::derive(binary_keys.iter().map(|key| key.private.as_path()));
    let Some((path, error)) = key_file.and_then(|path| Some((path, public_keys::load(path).err()?))) else {
        return keys;
    };
    let problem = match error {
        KeyError::Unreadable(error) => {
            let advice = "\"openssl genpkey -algorithm ed25519 -out FILE\" makes one";
            Problem::unreadable(path, "the key", &error, advice)
        }
        error => Problem::of_file(path, error.to_string()),
    };
    let mut problems = vec![problem];
    problems.extend(keys.err().unwrap_or_default());
    Err(problems)
}

/// Reads the webhook secret: the file's content without white space at its end.
///
/// # Errors
/// If the file cannot be read, is too long or holds no secret, or a byte that no forge's form takes.
pub(super) fn read_webhook_secret(path: &Path) -> Result<Vec<u8>, Problem> {
    let problem = |reason: String| Problem::of_file(path, format!("cannot use the webhook secret: {reason}"));
    let secret = regular_file::read(path, MAX_SECRET_FILE);
    let mut secret = secret.map_err(|error| problem(error.to_string()))?;
    secret.truncate(secret.trim_ascii_end().len());
    // A forge's form takes one line of text, so no signature would ever match.
    if let Some(unfit) = UnfitByte::find(&secret, &[]) {
        return Err(problem(unfit.to_string()));
    }
    if secret.is_empty() { Err(problem("the file is empty".to_owned())) } else { Ok(secret) }
}

/// Warns of each file that everybody can read. The farm works with it, so it is no problem.
pub(super) fn warn_if_exposed(
    key_file: Option<&Path>,
    binary_keys: &[BinaryKey],
    webhook_secret_file: Option<&Path>,
) -> Vec<Problem> {
    let signing = key_file.map(|path| ("the signing key", path));
    let binary =
        binary_keys.iter().map(|key| ("the private key of a [[signing_key]]", key.private.as_path()));
    let secret = webhook_secret_file.map(|path| ("the webhook secret", path));
    let files = signing.into_iter().chain(binary).chain(secret);
    files.filter_map(|(what, path)| exposed(what, path)).collect()
}

/// Warns of a signing key that the repository below `state_dir` does not list: nothing could be published.
/// The operator may be about to list it, so it is no problem.
pub(super) fn warn_if_unlisted(key_file: &Path, state_dir: &Path) -> Option<Problem> {
    let descriptor = state_dir.join("repo").join(DESCRIPTOR);
    // A start creates a missing repository, and publishes report a broken one.
    let listed = regular_file::read(&descriptor, MAX_DESCRIPTOR).ok()?;
    let fingerprint = public_keys::fingerprint(key_file).ok()?;
    let is_listed = listed.windows(fingerprint.len()).any(|part| part == fingerprint.as_bytes());
    let message = format!(
        "{} does not list this key, {fingerprint}, so each publish fails; restore the old key, or list the new \
         one with peipkg-repo keys",
        descriptor.display()
    );
    (!is_listed).then(|| Problem::of_file(key_file, message))
}

/// Returns a warning if everybody can read the file. The operator may choose a group: `root:peipkg`
/// with mode 0640 is as good as 0600.
fn exposed(what: &str, path: &Path) -> Option<Problem> {
    // `check_keys` and `read_webhook_secret` report a missing or unreadable file.
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let message =
        format!("mode {mode:04o} lets everybody read {what}; chmod 600, or 640 if its group must read it");
    (mode & 0o004 != 0 && is_reachable(path)).then(|| Problem::of_file(path, message))
}

/// Tells whether everybody may enter the directories above a file, after following links. Assumes
/// so in doubt.
fn is_reachable(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return true };
    let may_enter = |metadata: fs::Metadata| metadata.permissions().mode() & 0o001 != 0;
    path.ancestors().skip(1).all(|directory| fs::metadata(directory).map_or(true, may_enter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn file_readable_by_all_is_exposed() {
        let directory = tempfile::tempdir().unwrap();
        set_mode(directory.path(), 0o711);
        let file = directory.path().join("key");
        fs::write(&file, "").unwrap();
        for (mode, is_exposed) in
            [(0o600, false), (0o640, false), (0o660, false), (0o644, true), (0o604, true)]
        {
            set_mode(&file, mode);
            let found = exposed("the key", &file);
            assert_eq!(found.is_some(), is_exposed, "{mode:o}");
            if let Some(problem) = found {
                let start = format!("mode {mode:04o} lets everybody read the key; chmod 600");
                assert!(problem.message.starts_with(&start), "{problem}");
            }
        }
        assert_eq!(exposed("the key", Path::new("/not/there")), None);
        assert_eq!(exposed("the key", Path::new("/")), None);
    }

    #[test]
    fn file_in_a_private_directory_is_not_exposed() {
        let above = tempfile::tempdir().unwrap();
        let (inner, outer) = (above.path().join("inner"), tempfile::tempdir().unwrap());
        fs::create_dir(&inner).unwrap();
        let (file, link) = (inner.join("key"), outer.path().join("link"));
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o644);
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for (above_mode, inner_mode, outer_mode, is_exposed) in [
            (0o711, 0o755, 0o755, true),
            (0o711, 0o701, 0o700, true),
            (0o711, 0o750, 0o755, false),
            (0o770, 0o755, 0o755, false),
            (0o704, 0o755, 0o755, false),
        ] {
            set_mode(above.path(), above_mode);
            set_mode(&inner, inner_mode);
            set_mode(outer.path(), outer_mode);
            for path in [&file, &link] {
                let found = exposed("the key", path).is_some();
                assert_eq!(found, is_exposed, "{above_mode:o}/{inner_mode:o}, {}", path.display());
            }
        }
    }
}
