//! Keys that everybody may read. That keeps no farm from working, so it is a warning.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use peipkg_format::problem::Problem;

use crate::config::BinaryKey;

/// What is to be said about the key files that a configuration names.
pub(super) fn warnings(
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

/// A group is for the operator to choose: `root:peipkg` with mode 0640 is as good as 0600.
fn exposed(what: &str, path: &Path) -> Option<Problem> {
    // A file that is not there, or cannot be read, is a problem for others to report.
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let message =
        format!("mode {mode:04o} lets everybody read {what}; chmod 600, or 640 if its group is to read it");
    (mode & 0o004 != 0 && can_be_reached(path)).then(|| Problem::of_file(path, message))
}

/// Whether the directories above a file let everybody through, wherever links lead. In case of doubt they do.
fn can_be_reached(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return true };
    let lets_through = |metadata: fs::Metadata| metadata.permissions().mode() & 0o001 != 0;
    path.ancestors().skip(1).all(|directory| fs::metadata(directory).map_or(true, lets_through))
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
    fn file_nobody_can_reach_is_not_exposed() {
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
