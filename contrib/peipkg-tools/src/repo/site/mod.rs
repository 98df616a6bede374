//! The browse site at a repository's root: for people, unsigned, and never in the way of a publish.
//!
//! ```text
//! index.html            what this is, how to use it, the newest packages; complete without JavaScript
//! feed.xml             the newest packages
//! assets/browse.css     style sheet
//! assets/browse.js      search and the pages of the packages: reads the indexes and the sidecars
//! assets/browse.svg     icon
//! ```
//!
//! Page and feed depend on the index and the descriptor alone, never on the clock: the same publish
//! writes the same bytes. Everything that a package says is text. `markup` escapes it here, and
//! `browse.js` never parses it; the page's Content-Security-Policy holds even if both fail.
//!
//! The files are written after the indexes stand. A reader may for a moment see a page that is
//! older than the index; the script shows the index.

mod feed;
mod markup;
mod newest;
mod page;

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use peipkg_format::repository_layout as layout;

use super::descriptor::{Descriptor, Status};
use super::error::RepoError;
use super::{SITE, files};
pub(super) use newest::{Newest, NewestSoFar};

/// How many packages page and feed have: a few screens, and weeks of a busy farm.
pub(super) const NEWEST: usize = 50;

/// The content of page and feed.
pub(super) struct Facts<'a> {
    name: &'a str,
    description: &'a str,
    /// Fingerprints of the active keys.
    keys: Vec<&'a str>,
    index_version: u64,
    /// RFC 3339 in UTC.
    generated_at: &'a str,
    /// The number of entries in the active index.
    packages: usize,
    newest: Vec<Newest>,
}

impl<'a> Facts<'a> {
    /// Collects what the site says about a publish: the number of entries in the active index, and the
    /// newest of them.
    pub(super) fn new(
        descriptor: &'a Descriptor,
        index_version: u64,
        generated_at: &'a str,
        packages: usize,
        newest: Vec<Newest>,
    ) -> Self {
        let keys = descriptor.repo.signing.keys.iter().filter(|key| key.status == Status::Active);
        Self {
            name: &descriptor.repo.name,
            description: &descriptor.repo.description,
            keys: keys.map(|key| key.fingerprint.as_str()).collect(),
            index_version,
            generated_at,
            packages,
            newest,
        }
    }
}

/// Writes the site of the repository at `root` over the one that is there. Leaves files that would be the
/// same, and all others.
///
/// # Errors
/// When a file cannot be written. Each file is then as it was or new, never half. When a link or
/// anything else that no publish has made is in the place of one: then nothing is written.
pub(super) fn write(root: &Path, facts: &Facts<'_>) -> Result<(), RepoError> {
    check_place(&root.join(layout::SITE_ASSETS), "directory", Metadata::is_dir)?;
    layout::SITE.iter().try_for_each(|name| check_place(&root.join(name), "file", Metadata::is_file))?;
    let (page, feed) = (page::render(facts), feed::render(facts));
    let content = |name: &str| match name {
        layout::SITE_PAGE => page.as_str(),
        layout::SITE_FEED => feed.as_str(),
        layout::SITE_STYLE => include_str!("assets/browse.css"),
        layout::SITE_SCRIPT => include_str!("assets/browse.js"),
        _ => include_str!("assets/browse.svg"),
    };
    files::create_dir(&root.join(layout::SITE_ASSETS))?;
    let temporary = root.join(SITE);
    for name in layout::SITE {
        let (path, content) = (root.join(name), content(name).as_bytes());
        // Style and script change with the program only, and mirrors copy what is written anew.
        if files::read(&path, content.len() as u64).is_ok_and(|before| before == content) {
            continue;
        }
        files::replace(&path, &temporary, content)?;
    }
    files::sync_all(&[root.join(layout::SITE_ASSETS), root.to_owned()])
}

/// Refuses what is not of the kind that the site has at `path`, such as a link to a directory, which
/// would take the files elsewhere.
fn check_place(path: &Path, kind: &str, is_kind: fn(&Metadata) -> bool) -> Result<(), RepoError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !is_kind(&found) => {
            let message = format!("is not a {kind}, so the browse site is not written; remove it");
            Err(RepoError::invalid(path, message))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RepoError::io(path, "look at it")(error))
        }
        _ => Ok(()),
    }
}

/// Copies the files of others at the root of the repository `from`, and those beside the site's
/// assets, to the one at `to`, unless something is there: a `robots.txt` or `CNAME` belongs to the
/// operator, and so does an `index.html` if `has_site` is not set. Hidden files are work files;
/// directories other than the assets may hold anything.
///
/// # Errors
/// When a file cannot be copied.
pub(super) fn carry_over_others(from: &Path, to: &Path, has_site: bool) -> Result<(), RepoError> {
    let signature = layout::signature(layout::DESCRIPTOR);
    for directory in ["", layout::SITE_ASSETS] {
        let (source, target) = (from.join(directory), to.join(directory));
        // A link leads to files that are not of this repository.
        if source.is_symlink() || target.is_symlink() {
            continue;
        }
        let names = match names_of_files(&source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names.map_err(RepoError::io(&source, "list the directory"))?,
        };
        for name in names {
            let relative = Path::new(directory).join(&name);
            let hidden = name.as_encoded_bytes().starts_with(b".");
            let ours = relative == Path::new(layout::DESCRIPTOR)
                || relative == signature
                || has_site && layout::SITE.iter().any(|known| relative == Path::new(known));
            if !hidden && !ours && fs::symlink_metadata(target.join(&name)).is_err() {
                files::create_dir(&target)?;
                copy(&source.join(&name), &target.join(&name), &to.join(SITE))?;
            }
        }
    }
    Ok(())
}

/// Returns the names of the regular files in `directory`.
fn names_of_files(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    Ok(names)
}

/// Copies a file. Not by a link: who edits one copy in place must not change the other.
fn copy(source: &Path, target: &Path, temporary: &Path) -> Result<(), RepoError> {
    let copied = files::open(source).and_then(|mut reader| {
        let mut writer = files::create(temporary)?;
        io::copy(&mut reader, &mut writer).map_err(RepoError::io(target, "copy the file"))
    });
    let moved = copied.and_then(|_| files::rename(temporary, target));
    moved.inspect_err(|_| drop(files::remove_file(temporary)))
}

#[cfg(test)]
mod tests;
