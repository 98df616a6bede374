//! Fetches the submodules of a tree, and theirs, and writes their files.
//!
//! `git submodule` would fetch and write in one step, so the machine's settings for the work tree
//! would reach a build. It also applies a setting of the outer fetch, such as the URL that relative
//! ones refer to, to the inner ones.

use std::io;
use std::path::{Path, PathBuf};

use crate::recipe::upstream_url::{UpstreamUrl, UrlError};
use crate::state::durable;
use crate::upstream::git::GitError;
use crate::upstream::source::attempt::Attempt;
use crate::upstream::source::bare::{self, History};
use crate::upstream::source::economies::{Chances, Economies, Way};
use crate::upstream::source::gitmodules::{self, Submodule};
use crate::upstream::source::work_tree::{self, Tree};

/// The longest answer about the directories of a tree or about its `.gitmodules`, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The most submodules of one source. Each costs a repository, and an upstream chooses how many
/// there are.
const MAX_SUBMODULES: usize = 1000;

/// The cached repositories of submodules.
#[derive(Debug)]
pub(super) struct Modules {
    directory: PathBuf,
    /// Their URLs; the repository's name is its place here.
    urls: Vec<UpstreamUrl>,
}

impl Modules {
    /// Caches repositories in `directory`, which may be missing.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, urls: Vec::new() }
    }

    /// Writes the files of all submodules of `tree`, recursively.
    ///
    /// # Errors
    /// When a submodule has no URL or cannot be fetched.
    pub(super) fn check_out(
        &mut self,
        tree: Tree<'_>,
        economies: &Economies,
        attempt: Attempt<'_>,
    ) -> Result<(), GitError> {
        let mut written = 0;
        let mut waiting =
            vec![(tree.repository.to_owned(), tree.url.clone(), tree.revision.to_owned(), PathBuf::new())];
        while let Some((repository, url, revision, place)) = waiting.pop() {
            let directory = tree.directory.join(&place);
            let outer =
                Tree { repository: &repository, url: &url, revision: &revision, directory: &directory };
            for submodule in list(outer, attempt)? {
                if submodule.is_left_out {
                    continue;
                }
                let place = place.join(&submodule.path);
                let named = |error| GitError::Submodule { path: place.clone(), error: Box::new(error) };
                written += 1;
                if written > MAX_SUBMODULES {
                    return Err(named(GitError::Submodules { most: MAX_SUBMODULES }));
                }
                let url = url_of(&submodule, &url).map_err(named)?;
                let directory = tree.directory.join(&place);
                is_below(tree.directory, &place).map_err(named)?;
                let repository = self.fetch(&url, &submodule.commit, economies, attempt).map_err(named)?;
                let inner = Tree {
                    repository: &repository,
                    url: &url,
                    revision: &submodule.commit,
                    directory: &directory,
                };
                work_tree::write(inner, attempt).map_err(named)?;
                waiting.push((repository, url, submodule.commit, place));
            }
        }
        Ok(())
    }

    /// Fetches a commit of the repository at `url`, unless the cached one has it. Returns the path of
    /// the repository.
    fn fetch(
        &mut self,
        url: &UpstreamUrl,
        commit: &str,
        economies: &Economies,
        attempt: Attempt<'_>,
    ) -> Result<PathBuf, GitError> {
        let known = self.urls.iter().position(|known| known == url);
        let place = known.unwrap_or(self.urls.len());
        let path = self.directory.join(place.to_string());
        if known.is_some() && bare::has_commit(&path, commit, attempt).is_ok() {
            return Ok(path);
        }
        let chances = Chances { is_cached: known.is_some(), has_next: false };
        economies.fetch(url, chances, attempt, |way, is_cached| {
            if !is_cached {
                durable::clear(&path);
                bare::init_for_commit(&path, commit, attempt)?;
            }
            let history = if way == Way::Plain { History::All } else { History::None };
            bare::fetch_commit(&path, url, commit, history, attempt)
        })?;
        if known.is_none() {
            self.urls.push(url.clone());
        }
        Ok(path)
    }
}

/// Lists the submodules of a tree that is written.
///
/// # Errors
/// When git fails, or `.gitmodules` is damaged.
pub(super) fn list(tree: Tree<'_>, attempt: Attempt<'_>) -> Result<Vec<Submodule>, GitError> {
    if !tree.directory.join(".gitmodules").symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(Vec::new());
    }
    let ask = || attempt.local(tree.repository).capture_stdout(MAX_ANSWER);
    let entries = ask().args(["ls-tree", "-r", "-d", "-z", tree.revision]).run(attempt.interrupt)?;
    let blob = format!("--blob={}:.gitmodules", tree.revision);
    let settings =
        ask().args(["config", "--no-includes", "--list", "-z"]).arg(blob).run(attempt.interrupt)?;
    Ok(gitmodules::parse(&entries.stdout, &settings.stdout))
}

fn url_of(submodule: &Submodule, outer: &UpstreamUrl) -> Result<UpstreamUrl, GitError> {
    let refused = |reason: &str| GitError::SubmoduleSource { reason: reason.to_owned() };
    let text = submodule.url.as_deref().ok_or_else(|| refused(".gitmodules has no url for it"))?;
    if text.trim().is_empty() {
        return Err(refused(".gitmodules has an empty url for it"));
    }
    let url = gitmodules::resolve(&outer.address(), text)
        .ok_or_else(|| refused("its relative url leads out of the host"))?;
    url.parse().map_err(|error: UrlError| refused(&format!("its url is {error}")))
}

/// Checks that git has made the submodule's directory at `place` below `root`, and that no link
/// leads elsewhere.
fn is_below(root: &Path, place: &Path) -> Result<(), GitError> {
    let path = root.join(place);
    let tree = |error| GitError::Tree { path: path.clone(), error };
    let is_there = path.canonicalize().map_err(tree)? == root.canonicalize().map_err(tree)?.join(place);
    if is_there { Ok(()) } else { Err(tree(io::ErrorKind::NotADirectory.into())) }
}
