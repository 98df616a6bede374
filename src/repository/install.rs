//! Puts a new repository in its place. Must not create one.

use std::fs;
use std::io;
use std::path::Path;

use peipkg_format::repository_layout::DESCRIPTOR;

use crate::state::durable;
use crate::state::volumes::{LOST_AND_FOUND, copy_synced};

/// The directory in `repo/` of an installation under way. As long as it is there and the descriptor
/// is not, every file of `repo/` is of that installation.
const UNFINISHED: &str = ".peipkg-new";

/// Moves the new repository `fresh` to `repo`, which is missing, or empty as [`is_vacant`] tells.
/// A directory that is there keeps its place, because it may be a mounted volume or the target of a
/// link. Its descriptor comes last: without it, the next start installs again.
pub(super) fn install(fresh: &Path, repo: &Path) -> io::Result<()> {
    if !repo.exists() {
        match fs::rename(fresh, repo) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => fs::create_dir(repo)?,
            result => return result,
        }
    }
    let unfinished = repo.join(UNFINISHED);
    finish(repo)?;
    copy_synced(fresh, &unfinished)?;
    merge(&unfinished, repo)?;
    durable::sync_file_system(repo)?;
    finish(repo)?;
    durable::remove(fresh)
}

/// Removes what an installation left that was cut short after its descriptor.
pub(super) fn finish(repo: &Path) -> io::Result<()> {
    durable::remove(&repo.join(UNFINISHED))
}

/// Whether the directory at `repo` has room for a new repository: it is empty, a fresh volume, or
/// has the remains of an installation that was cut short.
pub(super) fn is_vacant(repo: &Path) -> io::Result<bool> {
    if repo.join(UNFINISHED).exists() {
        // With a descriptor or a package it was a repository: its index must not be replaced.
        let has_packages = fs::read_dir(repo.join("p")).is_ok_and(|mut packages| packages.next().is_some());
        return Ok(!repo.join(DESCRIPTOR).exists() && !has_packages);
    }
    for entry in fs::read_dir(repo)? {
        if entry?.file_name() != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves the files of `from` into the directory `to`, the descriptor last.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| entry.file_name() == DESCRIPTOR);
    for entry in entries {
        let target = to.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            if entry.file_name() == DESCRIPTOR {
                // A power cut must not leave the descriptor without the files that it names.
                durable::sync_file_system(to)?;
            }
            fs::rename(entry.path(), target)?;
        } else if target.is_dir() {
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new repository in `home`.
    fn fresh(home: &Path) -> std::path::PathBuf {
        let fresh = home.join("fresh");
        fs::create_dir_all(fresh.join("index")).unwrap();
        for name in [DESCRIPTOR, "repo.json.sig", "index/archive.json"] {
            fs::write(fresh.join(name), "new").unwrap();
        }
        fresh
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn repository_is_installed_whatever_a_cut_left() {
        for left in [&[][..], &[LOST_AND_FOUND], &[UNFINISHED], &[UNFINISHED, "index", LOST_AND_FOUND]] {
            let home = tempfile::tempdir().unwrap();
            let repo = home.path().join("repo");
            for name in left {
                fs::create_dir_all(repo.join(name)).unwrap();
                if *name != LOST_AND_FOUND {
                    fs::write(repo.join(name).join("archive.json"), "old").unwrap();
                }
            }
            assert!(!repo.exists() || is_vacant(&repo).unwrap(), "{left:?}");
            install(&fresh(home.path()), &repo).unwrap();
            let mut expected = vec!["index", DESCRIPTOR, "repo.json.sig"];
            expected.extend(left.contains(&LOST_AND_FOUND).then_some(LOST_AND_FOUND));
            expected.sort_unstable();
            assert_eq!(names(&repo), expected, "{left:?}");
            assert_eq!(fs::read_to_string(repo.join("index/archive.json")).unwrap(), "new");
            assert!(!is_vacant(&repo).unwrap() && !home.path().join("fresh").exists());
        }
    }

    #[test]
    fn directory_with_files_of_others_is_not_vacant() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("p")).unwrap();
        assert!(!is_vacant(home.path()).unwrap());
        fs::remove_dir(home.path().join("p")).unwrap();
        assert!(is_vacant(home.path()).unwrap() && is_vacant(&home.path().join("x")).is_err());
        // A repository whose descriptor was lost, with the remains of its installation.
        fs::create_dir_all(home.path().join("p/tool")).unwrap();
        fs::create_dir(home.path().join(UNFINISHED)).unwrap();
        assert!(!is_vacant(home.path()).unwrap());
        fs::remove_dir(home.path().join("p/tool")).unwrap();
        assert!(is_vacant(home.path()).unwrap());
        fs::write(home.path().join(DESCRIPTOR), "").unwrap();
        assert!(!is_vacant(home.path()).unwrap());
        finish(home.path()).unwrap();
        assert_eq!(names(home.path()), ["p", DESCRIPTOR]);
    }
}
