//! Keys that everybody may read. That keeps no farm from working, so it is a warning.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::config::BinaryKey;
use crate::problem::Problem;

/// What is to be said about the key files that a configuration names.
pub fn warnings(
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
    (mode & 0o004 != 0).then(|| Problem::of_file(path, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_everybody_may_read_is_exposed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, is_exposed) in
            [(0o600, false), (0o640, false), (0o660, false), (0o644, true), (0o604, true)]
        {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let found = exposed("the key", file.path());
            assert_eq!(found.is_some(), is_exposed, "{mode:o}");
            if let Some(problem) = found {
                let start = format!("mode {mode:04o} lets everybody read the key; chmod 600");
                assert!(problem.message.starts_with(&start), "{problem}");
            }
        }
        assert_eq!(exposed("the key", Path::new("/not/there")), None);
        assert_eq!(exposed("the key", Path::new("/")), None);
    }
}
