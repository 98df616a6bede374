//! The packages that a publish adds: reads and checks each, and makes its entry.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use peipkg_format::package_url::place;

use super::entry::{Entry, Identity, entry_json};
use super::error::RepoError;
use super::previous::Previous;
use super::publish::{Request, Source};
use super::template::Template;
use super::{clients, command, files, store};
use crate::cli::{note, warn};
use crate::digest::Digest;
use crate::package_reader;

/// A package that was read and found good.
pub(super) struct Incoming {
    pub(super) path: PathBuf,
    pub(super) identity: Identity<'static>,
    pub(super) hash: Digest,
    /// Names a place: [`places`] may take it.
    pub(super) url: String,
    json: String,
    /// Reasons why deployed clients refuse it, or the index that lists it.
    warnings: Vec<String>,
}

impl Incoming {
    /// Returns its entry.
    pub(super) fn entry(&self) -> Entry<'_> {
        let (identity, url) = (self.identity.borrowed(), self.url.as_str().into());
        Entry { identity, url, json: &self.json, built: None }
    }
}

/// Prints the warnings of all packages.
pub(super) fn print_warnings(packages: &[Incoming]) {
    for package in packages {
        for warning in &package.warnings {
            warn(command::PROGRAM, &format!("{}: {warning}", package.path.display()));
        }
    }
}

/// Reads every package of the request, and reports the errors of all packages together.
pub(super) fn read(request: &Request, previous: &Previous) -> Result<Vec<Incoming>, RepoError> {
    // A package stays published when the key that signed it expires, and when clients refuse it.
    let (paths, keys, is_published) = match &request.source {
        Source::New(directory) => (store::find_packages(directory, false)?, &previous.trusted, false),
        Source::Rebuild(directory) => (store::find_packages(directory, true)?, &previous.listed, true),
    };
    let former = RefCell::new(BTreeSet::new());
    let key = |fingerprint: &str| {
        let found = keys.get(fingerprint);
        if found.is_some() && previous.trusted.get(fingerprint).is_none() {
            former.borrow_mut().insert(fingerprint.to_owned());
        }
        found
    };
    let mut found: BTreeMap<String, Incoming> = BTreeMap::new();
    let mut errors = Vec::new();
    for path in paths {
        match read_package(&path, key, &request.template, is_published) {
            Ok(package) => match found.get(&package.identity.file_name()) {
                Some(first) if first.hash != package.hash => {
                    let message = format!("is not the same package as {}", first.path.display());
                    errors.push(RepoError::invalid(&path, message));
                }
                _ => {
                    found.insert(package.identity.file_name(), package);
                }
            },
            Err(error) => errors.push(error),
        }
    }
    for fingerprint in former.into_inner() {
        let line = format!("packages are signed by key {fingerprint}, which is no longer accepted");
        note(command::PROGRAM, &line);
    }
    RepoError::several(errors).map(|()| found.into_values().collect())
}

fn read_package<'k>(
    path: &Path,
    key: impl Fn(&str) -> Option<&'k VerifyingKey>,
    template: &Template,
    is_published: bool,
) -> Result<Incoming, RepoError> {
    let file = files::open(path)?;
    let refuse = |source| RepoError::Package { path: path.to_owned(), source };
    let mut package = package_reader::read(file, key).map_err(refuse)?;
    let mut warnings = clients::warnings(&package.metadata.manifest);
    match package.misplaced.take() {
        Some(problem) if is_published => warnings.push(problem.to_string()),
        Some(problem) => return Err(refuse(problem)),
        None => {}
    }
    let manifest = &package.metadata.manifest;
    let identity = Identity {
        name: manifest.name.clone().into(),
        version: manifest.version.clone().into(),
        architecture: manifest.architecture.clone().into(),
    };
    let file_name = identity.file_name();
    if path.file_name().is_none_or(|name| name != file_name.as_str()) {
        return Err(RepoError::invalid(path, format!("its manifest calls for the file name {file_name}")));
    }
    let url = template.expand(&manifest.name, &manifest.version, &manifest.architecture);
    if let Err(error) = place(&url) {
        // The template is good, but may begin with the name of a package called `index`.
        return Err(RepoError::invalid(path, format!("its url {url:?} {error}; use another template")));
    }
    let json = entry_json(&package, &url);
    Ok(Incoming { path: path.to_owned(), identity, hash: package.hash, url, json, warnings })
}
