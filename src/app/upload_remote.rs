//! Finds uploads that would end in the wrong place: in the state directory itself, or in a remote
//! that rclone does not know. [`crate::config`] has judged the remote's form.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use peipkg_format::problem::Problem;

use crate::config::{Draft, Place, STATE_SUBDIRS, Upload, place};
use crate::process::{Interrupt, Program};

/// How long rclone may take to list its remotes: it reads a local file only.
const DEADLINE: Duration = Duration::from_secs(30);

/// The longest list of remotes to read, in bytes.
const MAX_LIST: usize = 1024 * 1024;

/// How many links to follow: as many as the kernel does.
const MAX_LINKS: usize = 40;

/// Returns a problem if the remote is a directory of this machine that is, contains, or is in the
/// state directory: an upload would copy the repository into itself, or delete the farm's files.
pub(super) fn overlap(draft: &Draft) -> Option<Problem> {
    let Upload::Rclone { remote } = draft.upload.as_ref()? else { return None };
    let Place::Local(local) = place(remote)? else { return None };
    overlap_of(draft, local).map(|message| problem(draft, message))
}

/// Asks rclone whether it knows the remote. Returns a warning if it does not, or if the remote is a
/// directory of this machine after all, in the wrong place.
pub(super) fn unknown(draft: &Draft, rclone: &Path) -> Option<Problem> {
    let Upload::Rclone { remote } = draft.upload.as_ref()? else { return None };
    let Place::Named(name, path) = place(remote)? else { return None };
    let warning = |message: String| Some(problem(draft, format!("[upload] remote: {message}")));
    let interrupt = match Interrupt::new() {
        Ok(interrupt) => interrupt,
        Err(error) => return warning(format!("cannot ask rclone for its remotes: {error}")),
    };
    let program = Program::new(rclone).args(["listremotes", "--long"]);
    let output = program.deadline(Some(DEADLINE)).capture_stdout(MAX_LIST).run(&interrupt);
    let list = match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return warning(format!("cannot ask rclone for its remotes: {error}")),
    };
    let known: Vec<(&str, &str)> = list.lines().filter_map(|line| line.split_once(':')).collect();
    let Some((_, kind)) = known.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let known =
            if names.is_empty() { "has none".to_owned() } else { format!("has {}", names.join(", ")) };
        return warning(format!(
            "rclone knows no remote {name:?}, its configuration {known}; as the manager's user, try: rclone listremotes"
        ));
    };
    if kind.trim() != "local" {
        return None;
    }
    if !path.starts_with('/') {
        return warning(format!(
            "{name:?} is a directory of this machine, so its path must be absolute, found {path:?}"
        ));
    }
    overlap_of(draft, Path::new(path)).map(|message| problem(draft, message))
}

fn problem(draft: &Draft, message: String) -> Problem {
    Problem { path: draft.path.clone(), line: draft.remote_line, message }
}

/// Says how `local` and the state directory overlap.
fn overlap_of(draft: &Draft, local: &Path) -> Option<String> {
    let state = draft.state_dir.as_deref()?;
    let remote = resolve(local);
    // Each directory may be a link, or a volume that is mounted elsewhere too.
    let places = STATE_SUBDIRS.iter().map(|name| state.join(name));
    let places: Vec<PathBuf> = std::iter::once(state.to_owned()).chain(places).collect();
    let place = places.into_iter().find(|place| {
        let place = resolve(place);
        is_within(&remote, &place) || is_within(&place, &remote)
    })?;
    let leads = if remote == local { String::new() } else { format!(", which is {}", remote.display()) };
    Some(format!(
        "[upload] remote must be outside the state_dir and not above it: \
         an upload to {:?}{leads} would overwrite {}",
        local.display().to_string(),
        place.display()
    ))
}

/// Whether `inner` is `outer` or is in it.
fn is_within(inner: &Path, outer: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let outer_identity = identity(outer);
    inner
        .ancestors()
        .any(|above| above == outer || (outer_identity.is_some() && identity(above) == outer_identity))
}

/// Follows the links of an absolute path, also those that lead to nothing yet.
fn resolve(path: &Path) -> PathBuf {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut found, mut pending, mut links) = (PathBuf::from("/"), parts(path), 0);
    while let Some(part) = pending.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => drop(found.pop()),
            Some(Component::Normal(name)) => {
                let next = found.join(name);
                match fs::read_link(&next) {
                    Ok(target) if links < MAX_LINKS => {
                        links += 1;
                        pending.extend(parts(&target));
                    }
                    _ => found = next,
                }
            }
            // An absolute target of a link begins anew.
            Some(Component::RootDir) => found = PathBuf::from("/"),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn path_with_links_is_resolved_to_its_end() {
        let home = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(home.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a/b", root.join("relative")).unwrap();
        symlink(root.join("gone/on"), root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let check = |path: &str, expected: &str| assert_eq!(resolve(&root.join(path)), root.join(expected));
        check("a/./b/../c", "a/c");
        check("relative/x", "a/b/x");
        check("relative/../x", "a/x");
        check("dangling/x", "gone/on/x");
        check("loop/x", "loop/x");
        assert_eq!(resolve(Path::new("/../..")), Path::new("/"));
    }

    #[test]
    fn path_with_another_name_of_the_directory_is_within() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("state");
        fs::create_dir(&root).unwrap();
        assert!(is_within(&root.join("new/x"), &root) && is_within(&root, &root));
        assert!(!is_within(&root, &root.join("x")) && !is_within(Path::new("/nowhere"), &root));
        // Another name of the same directory, as a bind mount gives.
        assert!(is_within(&home.path().join("./state/../state/x"), &root));
    }
}
