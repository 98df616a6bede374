//! The places of the packages of a publish: each package has one of its own, and nothing else is
//! there. Looks at the files of the output, and writes none.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use peipkg_format::package_url::{Place, place};

use super::entry::{Entry, hash_in};
use super::error::RepoError;
use super::incoming::Incoming;
use super::store;

/// A new package that the repository stores.
pub(super) struct Planned<'a> {
    pub(super) package: &'a Incoming,
    /// Where it belongs, relative to the repository's root.
    pub(super) relative: &'a str,
    /// Whether it is there already: an interrupted publish has left it.
    pub(super) is_there: bool,
}

/// A published package that another output needs too.
pub(super) struct Carried<'a> {
    /// Where it belongs, relative to the repository's root.
    pub(super) relative: &'a str,
    /// The entry's JSON.
    json: &'a str,
}

impl<'a> Carried<'a> {
    /// Returns the package of a published entry. An entry of another tool may have a URL that leads
    /// out of the repository: it has no file, and `verify` reports it.
    pub(super) fn of(entry: &'a Entry<'_>) -> Option<Self> {
        of_entry(entry).map(|relative| Self { relative, json: entry.json })
    }

    /// Returns the entry's SHA-256 of the package in hexadecimal, unchecked; none if it has none.
    /// Parses the entry again, because only a package that is missing in the output is compared.
    pub(super) fn hash(&self) -> Option<String> {
        hash_in(self.json).filter(|hash| hash.algorithm == "sha256").map(|hash| hash.value.into_owned())
    }

    /// Refuses to carry the package over if another file is at its place in `output`. Compares lengths
    /// only: an output of another file system would be read whole at each publish.
    pub(super) fn check(&self, input: &Path, output: &Path) -> Result<(), RepoError> {
        let (source, target) = (input.join(self.relative), output.join(self.relative));
        let Some(ours) = fs::metadata(&source).ok().filter(fs::Metadata::is_file) else { return Ok(()) };
        match fs::metadata(&target) {
            Ok(theirs) if theirs.is_file() && theirs.len() == ours.len() => Ok(()),
            Ok(_) => {
                let message =
                    format!("is not the file {}, whose place it is; move it away", source.display());
                Err(RepoError::invalid(&target, message))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(RepoError::io(&target, "look at the file")(error)),
        }
    }
}

/// Returns the path of the package of an entry, if it is stored here.
pub(super) fn of_entry<'a>(entry: &'a Entry<'_>) -> Option<&'a str> {
    match place(&entry.url) {
        Ok(Place::Local(path)) => Some(path),
        Ok(Place::Elsewhere(_)) | Err(_) => None,
    }
}

/// Finds new packages whose URL another package has, new or published.
pub(super) struct Shared<'a> {
    /// The new packages by their URLs without the first slash, which makes no difference.
    taken: BTreeMap<&'a str, &'a Incoming>,
    errors: Vec<RepoError>,
}

impl<'a> Shared<'a> {
    /// Compares the new packages.
    pub(super) fn new(new: &'a [Incoming]) -> Self {
        let (mut taken, mut errors) = (BTreeMap::new(), Vec::new());
        for package in new {
            match taken.entry(without_slash(&package.url)) {
                Slot::Vacant(free) => _ = free.insert(package),
                Slot::Occupied(first) => {
                    let first: &Incoming = first.get();
                    let message = format!("has the url {:?} of {} too", package.url, first.path.display());
                    errors.push(RepoError::invalid(&package.path, message));
                }
            }
        }
        Self { taken, errors }
    }

    /// Compares a published entry with the new packages.
    pub(super) fn check(&mut self, entry: &Entry<'_>) {
        let Some(package) = self.taken.get(without_slash(&entry.url)) else { return };
        let is_same =
            matches!((place(&entry.url), place(&package.url)), (Ok(one), Ok(other)) if one == other);
        if is_same && package.identity != entry.identity {
            // Quoted, because the names of a foreign index may hold any character.
            let other = entry.identity.to_string();
            let message = format!("has the url {:?}, which the published {other:?} has already", package.url);
            self.errors.push(RepoError::invalid(&package.path, message));
        }
    }

    /// Returns what was found.
    pub(super) fn end(self) -> Result<(), RepoError> {
        RepoError::several(self.errors)
    }
}

fn without_slash(url: &str) -> &str {
    url.strip_prefix('/').unwrap_or(url)
}

/// Says which of the packages `new` the repository `output` stores, and where.
///
/// # Errors
/// When a file with other bytes is in the way.
pub(super) fn plan<'a>(output: &Path, new: &'a [Incoming]) -> Result<Vec<Planned<'a>>, RepoError> {
    let (mut plan, mut errors) = (Vec::new(), Vec::new());
    for package in new {
        let Ok(Place::Local(relative)) = place(&package.url) else { continue };
        match is_there(output, relative, package) {
            Ok(is_there) => plan.push(Planned { package, relative, is_there }),
            Err(error) => errors.push(error),
        }
    }
    RepoError::several(errors).map(|()| plan)
}

/// Whether `package` is at `relative` below `output`.
fn is_there(output: &Path, relative: &str, package: &Incoming) -> Result<bool, RepoError> {
    let target = output.join(relative);
    match fs::metadata(&target) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found.map_err(RepoError::io(&target, "look at the file"))?,
    };
    let is_same = store::hash_file(&target)? == package.hash;
    // No entry names this file. Under the name of the package, an interrupted publish has left it;
    // under any other name, it may be anybody's.
    if !is_same && target.file_name().is_none_or(|name| name != package.identity.file_name().as_str()) {
        let source = package.path.display();
        let message = format!(
            "has other bytes than {source}, whose place it is; move it away, or use another template"
        );
        return Err(RepoError::invalid(&target, message));
    }
    Ok(is_same)
}
