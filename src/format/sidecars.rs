//! The names of a package's sidecars: its `manifest.json`, `files.json` and `provenance.json`, beside it
//! for people. Pure.
//!
//! A package that is alone in its directory has these names. In a shared directory they would be one
//! set for all its packages, so there each package has `<file name>.manifest.json` and so on.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The names of the sidecars of a package that is alone in its directory: its manifest (PSD-009
/// §3.3) and its file list (PSD-009 §3.5.1).
const NAMES: [&str; 2] = ["manifest.json", "files.json"];

/// The name of the provenance of a package that is alone in its directory.
const PROVENANCE: &str = "provenance.json";

/// Whether other packages are in the directory of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the only one.
    Alone,
    /// There are others, or nobody can tell.
    Shared,
}

/// Returns the paths of those sidecars of the package file `package` that a publish makes of the package:
/// manifest, file list.
pub fn sidecars(package: &Path, place: Place) -> [PathBuf; 2] {
    NAMES.map(|name| beside(package, place, name))
}

/// Returns the path of the provenance of the package file `package`, which the farm writes.
pub fn provenance(package: &Path, place: Place) -> PathBuf {
    beside(package, place, PROVENANCE)
}

fn beside(package: &Path, place: Place, name: &str) -> PathBuf {
    match place {
        Place::Alone => package.with_file_name(name),
        Place::Shared => {
            let mut path = package.as_os_str().to_owned();
            path.push(".");
            path.push(name);
            path.into()
        }
    }
}

/// Tells the place of the package file `package`, relative to the repository's root, from the names
/// in its directory. Takes no more names than it needs.
///
/// Only files named `*.peipkg` count as packages. A package of another name, which a URL template
/// may give it, counts as shared: nothing tells its neighbours from other files. So does a package at
/// the root, where a site may have a `manifest.json` of its own.
pub fn place(package: &Path, mut names: impl Iterator<Item = OsString>) -> Place {
    let own = package.file_name().unwrap_or_default();
    let is_alone = may_be_alone(package) && !names.any(|name| is_other_package(own, &name));
    if is_alone { Place::Alone } else { Place::Shared }
}

/// Whether [`place`] would find the package file `package`, relative to the repository's root, alone if
/// no other were in its directory.
pub fn may_be_alone(package: &Path) -> bool {
    !is_at_root(package) && package.file_name().is_some_and(is_package)
}

/// Whether the file `name` is a package beside the package file `own`. Files whose names begin with
/// `own` and a dot, such as `<own>.debug.peipkg`, belong to it (PSD-009 §6.4.4).
pub fn is_other_package(own: &OsStr, name: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(own.as_encoded_bytes());
    is_package(name) && rest.is_none_or(|rest| !rest.is_empty() && rest[0] != b'.')
}

/// Whether the package file `package`, relative to the repository's root, is in no directory.
pub fn is_at_root(package: &Path) -> bool {
    package.parent().is_none_or(|directory| directory.as_os_str().is_empty())
}

/// Whether a file of this name is a package. Tools hide unfinished files by a dot.
pub fn is_package(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".peipkg") && !name.starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(package: &str, names: &[&str], expected: [&str; 2]) {
        let package = Path::new(package);
        let place = place(package, names.iter().map(OsString::from));
        assert_eq!(sidecars(package, place), expected.map(PathBuf::from), "{names:?}");
        let provenance = provenance(package, place).display().to_string();
        assert_eq!(provenance, expected[0].replace("manifest.json", "provenance.json"));
    }

    #[test]
    fn sidecars_of_a_shared_directory_have_the_packages_name() {
        let alone = ["p/jq/1-1/manifest.json", "p/jq/1-1/files.json"];
        let package = "p/jq/1-1/jq_1-1_noarch.peipkg";
        let shared =
            ["p/jq/1-1/jq_1-1_noarch.peipkg.manifest.json", "p/jq/1-1/jq_1-1_noarch.peipkg.files.json"];
        let own = "jq_1-1_noarch.peipkg";
        check(package, &[own], alone);
        check(package, &[], alone);
        check(package, &["manifest.json", own, "provenance.json", ".x.peipkg", "x.peipkg.sig"], alone);
        check(package, &[own, "jq_1-1_x86_64.peipkg"], shared);
        check(package, &["jq_1-1_noarch.peipkg.manifest.json", own], alone);
        check(package, &[own, "jq_1-1_noarch.peipkg.debug.peipkg"], alone);
        check(package, &[own, "jq_1-1_noarch.peipkg-2.peipkg"], shared);
        check("pool/a-1-1-noarch", &[], ["pool/a-1-1-noarch.manifest.json", "pool/a-1-1-noarch.files.json"]);
        check("x/a.peipkg", &["a.peipkg", "b-1"], ["x/manifest.json", "x/files.json"]);
        check("a.peipkg", &["a.peipkg"], ["a.peipkg.manifest.json", "a.peipkg.files.json"]);
    }
}
