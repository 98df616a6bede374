//! Compares pending packages with the repository: whether the archive index lists them, and whether
//! the published files are theirs, to the byte.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use peipkg_format::package::PackageName;
use peipkg_format::sort;

use crate::farm::events::PendingOutputs;
use crate::repository::inspect::sha256;
use crate::repository::listed::{Entry, Listing};
use crate::repository::same_bytes::is_same_file;
use crate::repository::{Repository, journal};
use crate::state::durable::{self, FileError, at};

impl Repository {
    /// Finds the entries of the packages of `group` in the archive index. One run for the whole group: it
    /// may have to read the whole index.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(super) fn listing<'a>(
        &self,
        group: impl IntoIterator<Item = &'a PendingOutputs>,
    ) -> Result<Listing, FileError> {
        let index = self.state.archive_index();
        Listing::read(&index, group).map_err(at(&index))
    }

    /// Returns the files of `outputs` in the repository, if all its packages are published as they
    /// were built; none for a package whose URL is of another server.
    ///
    /// # Errors
    /// Which package is not, as the end of a sentence.
    pub(super) fn published(
        &self,
        outputs: &PendingOutputs,
        listing: &Listing,
    ) -> Result<Vec<PathBuf>, String> {
        let version = &outputs.key.version;
        let entry = |package: &PackageName| {
            let unlisted = || format!("{} is not in the archive index", package.file_name(version));
            listing.get(package, version).ok_or_else(unlisted)
        };
        let entries: Result<Vec<_>, _> = outputs.packages.iter().map(entry).collect();
        let listed = outputs.packages.iter().zip(entries?);
        let files = listed.map(|(package, entry)| self.unaltered(outputs, package, entry));
        files.filter_map(Result::transpose).collect()
    }

    /// Returns which package of `outputs` the archive index lists although the repository does not
    /// have it as it was built, as the end of a sentence.
    pub(super) fn listed_but_altered(&self, outputs: &PendingOutputs, listing: &Listing) -> Option<String> {
        let version = &outputs.key.version;
        outputs.packages.iter().find_map(|package| {
            let entry = listing.get(package, version)?;
            self.unaltered(outputs, package, entry).err()
        })
    }

    /// Syncs the indexes and the published `files` before the pending packages, perhaps the only other
    /// copy, are removed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn sync(&self, files: impl IntoIterator<Item = PathBuf>) -> Result<(), FileError> {
        let repo = self.state.repo();
        journal::sync_small_files(&repo).map_err(at(&repo))?;
        // Sync the directories too, each once: all of `p/<name>/<version>` may be new.
        let above = |file: PathBuf| {
            let above = file.ancestors().take_while(|path| *path != repo).map(Path::to_owned);
            above.collect::<Vec<_>>()
        };
        let paths = files.into_iter().flat_map(above).fold(BTreeSet::new(), sort::included);
        paths.iter().try_for_each(|path| durable::sync(path).map_err(at(path)))
    }

    /// Returns the file of a package of `outputs` that `entry` lists, if the repository stores it.
    ///
    /// # Errors
    /// When the package is not published as it was built, as the end of a sentence.
    fn unaltered(
        &self,
        outputs: &PendingOutputs,
        package: &PackageName,
        entry: &Entry,
    ) -> Result<Option<PathBuf>, String> {
        let file_name = package.file_name(&outputs.key.version);
        let built = self.pending.packages_of(&outputs.directory).join(&file_name);
        let path = entry.path(&self.state.repo())?;
        let is_same = match &path {
            Some(path) => is_same_file(&built, path).unwrap_or(false),
            // Somebody else stores it, who got it before: the index vouches for its bytes.
            None => sha256(&built).is_ok_and(|built| built.as_deref() == entry.hash()),
        };
        if is_same { Ok(path) } else { Err(format!("{file_name} is not the file that was built")) }
    }
}
