//! Writes the files of a commit. They depend on the commit alone: git applies its
//! `.gitattributes`, but no setting of the machine, and no filter but git-lfs.

use std::fs;
use std::path::Path;

use crate::recipe::upstream_url::UpstreamUrl;
use crate::state::durable;
use crate::upstream::git::GitError;
use crate::upstream::source::attempt::Attempt;
use crate::upstream::source::lfs;

/// A commit and where its files are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a> {
    /// The repository that has the commit.
    pub(super) repository: &'a Path,
    /// The URL that the commit was fetched from.
    pub(super) url: &'a UpstreamUrl,
    /// A commit's id, or the full name of a tag.
    pub(super) revision: &'a str,
    /// An empty directory, or one that is missing.
    pub(super) directory: &'a Path,
}

/// Writes the files, with the content that git-lfs keeps elsewhere.
///
/// # Errors
/// When git or git-lfs fails, or git-lfs is needed and missing.
pub(super) fn write(tree: Tree<'_>, attempt: Attempt<'_>) -> Result<(), GitError> {
    let io = |error| GitError::Tree { path: tree.directory.to_owned(), error };
    fs::create_dir_all(tree.directory).map_err(io)?;
    let git = attempt.work_tree(tree.repository, tree.directory);
    let read = git.args(["read-tree", "-m", "-u", tree.revision]).run(attempt.interrupt);
    let written = read.map_err(GitError::from).and_then(|_| {
        lfs::replace_pointers(tree.repository, tree.url, tree.revision, tree.directory, attempt)
    });
    // With this index git would take the next work tree's files for written, and skip them.
    durable::remove(&tree.repository.join("index")).map_err(io)?;
    written
}
