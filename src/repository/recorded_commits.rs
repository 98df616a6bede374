//! Finds from which commits the published versions were built, by the provenance beside their packages:
//! for a farm that has lost `state_dir/published-commits`.
//!
//! Whoever can write to `repo/` can write to that file too, so no signature is checked. The digest of
//! the package ties a provenance to its entry in the archive index.

use std::path::Path;

use log::warn;
use peipkg_format::archive_index::each_package;
use peipkg_format::dsse::MAX_ENVELOPE;
use peipkg_format::object_id::ObjectId;
use peipkg_format::provenance::{SOURCE, Statement};
use peipkg_format::regular_file::{self, MAX_INDEX};
use peipkg_format::sidecars::{Place, provenance};
use peipkg_format::version::Version;

use crate::farm::commits::PublishedCommits;
use crate::repository::listed::Entry;
use crate::repository::{Repository, published_commits};

impl Repository {
    /// Returns the commits of the published versions. Makes the file that remembers them anew if it is
    /// not whole.
    pub(crate) fn published_commits(&self) -> PublishedCommits {
        let path = self.state.published_commits();
        let (commits, is_whole) = published_commits::read(&path);
        if is_whole {
            return commits;
        }
        let mut recorded = self.recorded_commits();
        recorded.extend(&commits);
        if recorded.recipes().next().is_some() || path.exists() {
            published_commits::write(&path, &recorded);
        }
        recorded
    }

    /// Returns the commits of all published versions that have a provenance.
    fn recorded_commits(&self) -> PublishedCommits {
        let (mut commits, repo) = (PublishedCommits::default(), self.state.repo());
        let index = self.state.archive_index();
        if !index.exists() {
            return commits;
        }
        let read = regular_file::open_up_to(&index, MAX_INDEX).and_then(|file| {
            let add = |entry: Entry| {
                if let Some((recipe, version, commit)) = recorded(&entry, &repo) {
                    commits.set(&recipe.into(), version.as_str(), commit);
                }
            };
            Ok(each_package(file, add)?)
        });
        if let Err(error) = read {
            let path = index.display().to_string();
            warn!(path, error:%; "cannot read published commits");
        }
        commits
    }
}

/// Returns recipe, version and commit of a published package.
fn recorded(entry: &Entry, repo: &Path) -> Option<(String, Version, ObjectId)> {
    let package = entry.path(repo).ok()??;
    let of_place = |place| {
        let bytes = regular_file::read(&provenance(&package, place), MAX_ENVELOPE).ok()?;
        let statement = Statement::read(&bytes, &|_, _| true).ok()?;
        statement.is_about(&entry.shown_name(), entry.hash()?).then_some(statement)
    };
    let statement = of_place(Place::Alone).or_else(|| of_place(Place::Shared))?;
    let parameters = statement.parameters();
    let commit = statement.dependency(SOURCE)?.digest.git_commit.parse().ok()?;
    Some((parameters.recipe.clone(), parameters.version.parse().ok()?, commit))
}
