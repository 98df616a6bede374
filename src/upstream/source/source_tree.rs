//! Prepares a fetched source tree for a build.

use std::fs;
use std::io;
use std::path::Path;

use crate::state::durable;

/// Removes every `.git` below `root`, of any file type and in submodules too, so that a build sees
/// only the released files. Removes links and never follows them: an upstream chooses their
/// targets.
///
/// # Errors
/// When a directory cannot be read or an entry cannot be removed.
pub(super) fn remove_git_metadata(root: &Path) -> io::Result<()> {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // A link to a directory is no directory here.
            let is_directory = entry.file_type()?.is_dir();
            if entry.file_name() == ".git" {
                durable::remove(&entry.path())?;
            } else if is_directory {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn git_entries_are_removed_and_links_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join(".git")).unwrap();
        fs::write(outside.path().join(".git/config"), "").unwrap();
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        for directory in [".git/objects", "sub/.git", "sub/deep"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("sub/deep/.git"), "gitdir: ../../.git/modules/deep").unwrap();
        fs::write(root.join(".gitignore"), "").unwrap();
        symlink(outside.path(), root.join("link")).unwrap();
        fs::create_dir(root.join("linked")).unwrap();
        symlink(outside.path().join(".git"), root.join("linked/.git")).unwrap();
        remove_git_metadata(root).unwrap();
        for gone in [".git", "sub/.git", "sub/deep/.git", "linked/.git"] {
            assert!(fs::symlink_metadata(root.join(gone)).is_err(), "{gone}");
        }
        for kept in [".gitignore", "sub/deep", "link"] {
            assert!(fs::symlink_metadata(root.join(kept)).is_ok(), "{kept}");
        }
        assert!(outside.path().join(".git/config").exists());
    }
}
