//! The places of the packages of a publish: each package has one of its own, and nothing else is
//! there. Looks at the files of the output, and writes none.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use peipkg_format::package_url::{Place, place};

use super::entry::{Entry, hash_in};
use super::error::RepoError;
use super::publish::Incoming;
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
    pub(super) relative: String,
    /// The entry's JSON.
    json: &'a str,
}

impl Carried<'_> {
    /// Returns the entry's SHA-256 of the package in hexadecimal, unchecked; none if it has none.
    /// Parses the entry again, because only a package that is missing in the output is compared.
    pub(super) fn hash(&self) -> Option<String> {
        hash_in(self.json).filter(|hash| hash.algorithm == "sha256").map(|hash| hash.value.into_owned())
    }
}

/// Returns the package of a published entry. An entry of another tool may have a URL that leads out
/// of the repository: it has no file, and `verify` reports it.
pub(super) fn to_carry_over<'a>(entry: &Entry<'a>) -> Option<Carried<'a>> {
    of_url(&entry.url).map(|relative| Carried { relative, json: entry.json })
}

/// Returns the path of the package of an entry in JSON.
pub(super) fn of_json(json: &str) -> Option<String> {
    of_url(&Entry::parse(serde_json::from_str(json).ok()?).ok()?.url)
}

fn of_url(url: &str) -> Option<String> {
    match place(url) {
        Ok(Place::Local(path)) => Some(path.to_owned()),
        Ok(Place::Elsewhere(_)) | Err(_) => None,
    }
}

/// Refuses a new package whose URL another package has, new or published.
pub(super) fn check_shared(published: &[Entry<'_>], new: &[Incoming]) -> Result<(), RepoError> {
    let (mut taken, mut errors) = (HashMap::new(), Vec::new());
    for package in new {
        match place(&package.url).map(|place| taken.entry(place)) {
            Ok(Slot::Vacant(free)) => _ = free.insert(package),
            Ok(Slot::Occupied(first)) => {
                let message = format!("has the url {:?} of {} too", package.url, first.get().path.display());
                errors.push(RepoError::invalid(&package.path, message));
            }
            Err(_) => {}
        }
    }
    for entry in published {
        let package = place(&entry.url).ok().and_then(|place| taken.get(&place));
        if let Some(package) = package.filter(|package| package.identity != entry.identity) {
            // Quoted, because the names of a foreign index may hold any character.
            let other = entry.identity.to_string();
            let message = format!("has the url {:?}, which the published {other:?} has already", package.url);
            errors.push(RepoError::invalid(&package.path, message));
        }
    }
    RepoError::several(errors)
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

/// Refuses to carry packages over if another file is at the place of one in `output`. Compares
/// lengths only: an output of another file system would be read whole at each publish.
pub(super) fn check_carried(input: &Path, output: &Path, carried: &[Carried<'_>]) -> Result<(), RepoError> {
    let mut errors = Vec::new();
    for Carried { relative, .. } in carried {
        let (source, target) = (input.join(relative), output.join(relative));
        let Some(ours) = fs::metadata(&source).ok().filter(fs::Metadata::is_file) else { continue };
        match fs::metadata(&target) {
            Ok(theirs) if theirs.is_file() && theirs.len() == ours.len() => {}
            Ok(_) => {
                let message =
                    format!("is not the file {}, whose place it is; move it away", source.display());
                errors.push(RepoError::invalid(&target, message));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => errors.push(RepoError::io(&target, "look at the file")(error)),
        }
    }
    RepoError::several(errors)
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
