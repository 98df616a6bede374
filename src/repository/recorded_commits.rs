//! Finds from which commits the published versions were built, by the provenance beside their packages:
//! for a farm that has lost `state_dir/published-commits`.
//!
//! A repository that was fetched from its remote may have been altered there, so a key that it lists must
//! have signed the provenance. The digest of the package ties it to its entry in the archive index.

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
use crate::repository::listed_keys::ListedKeys;
use crate::repository::{Repository, published_commits};
use crate::state::durable::{FileError, at};

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
        let mut commits = PublishedCommits::default();
        let index = self.state.archive_index();
        if index.exists()
            && let Err(FileError { path, error }) = add_recorded(&mut commits, &self.state.repo(), &index)
        {
            let path = path.display().to_string();
            warn!(path, error:%; "cannot read published commits");
        }
        commits
    }
}

/// Adds the commits of the versions in the archive index at `index` of the repository at `repo`.
fn add_recorded(commits: &mut PublishedCommits, repo: &Path, index: &Path) -> Result<(), FileError> {
    let keys = ListedKeys::read(repo)?;
    let file = regular_file::open_up_to(index, MAX_INDEX).map_err(at(index))?;
    let add = |entry: Entry| {
        if let Some((recipe, version, commit)) = recorded(&entry, repo, &keys) {
            commits.set(&recipe.into(), version.as_str(), commit);
        }
    };
    each_package(file, add).map(drop).map_err(|error| at(index)(error.into()))
}

/// Returns recipe, version and commit of a published package.
fn recorded(entry: &Entry, repo: &Path, keys: &ListedKeys) -> Option<(String, Version, ObjectId)> {
    let package = entry.path(repo).ok()??;
    let of_place = |place| {
        let bytes = regular_file::read(&provenance(&package, place), MAX_ENVELOPE).ok()?;
        let statement =
            Statement::read(&bytes, &|message, signature| keys.have_signed(message, signature)).ok()?;
        statement.is_about(&entry.shown_name(), entry.hash()?).then_some(statement)
    };
    let statement = of_place(Place::Alone).or_else(|| of_place(Place::Shared))?;
    let parameters = statement.parameters();
    let commit = statement.dependency(SOURCE)?.digest.git_commit.parse().ok()?;
    Some((parameters.recipe.clone(), parameters.version.parse().ok()?, commit))
}
