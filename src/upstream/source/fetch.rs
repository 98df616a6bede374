//! Fetches sources: the files of exactly one tag, as released.
//!
//! git fetches into a bare repository of the upstream, without history. The repository stays cached
//! while more versions of its upstream are queued: the next fetch then transfers only the
//! differences. Each build gets a work tree of its own, without git's files.
//!
//! Fetching and writing are two steps. Only the first, which talks to the upstream, knows the
//! settings of the machine and the manager's user (`Attempt::transport`); they cannot change the
//! files that the second one writes (`Attempt::local`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::build_log::BuildLog;
use crate::farm::moment::Moment;
use crate::process::{DiskLimit, Interrupt, disk_usage};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::state::durable;
use crate::state::state_dir::StateDir;
use crate::upstream::git::{Git, GitError};
use crate::upstream::source::attempt::Attempt;
use crate::upstream::source::bare::{self, History};
use crate::upstream::source::commit_times::{self, Commit};
use crate::upstream::source::economies::{Chances, Economies, Way};
use crate::upstream::source::prefetch::{FetchedTag, Prefetched};
use crate::upstream::source::signatures::{self, Keys, Signer};
use crate::upstream::source::source_tree;
use crate::upstream::source::submodules::{self, Modules};
use crate::upstream::source::work_tree::{self, Tree};

/// How long fetching one version may take: enough for a large source over a slow line, but an
/// upstream that trickles must not block the builder for a day.
const FETCH_DEADLINE: Duration = Duration::from_hours(1);

/// The most disk space for cached repositories, in bytes, if `[git] source_limit` is not less: large
/// upstreams must not fill the disk. The cache drops the least recently used ones first.
const MAX_CACHED: u64 = 4 * 1024 * 1024 * 1024;

/// How many builds a cached repository serves. It gets slower with each tag that it has.
const MAX_BUILDS: usize = 100;

/// The tag to fetch, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The upstream.
    pub url: &'a UpstreamUrl,
    /// The tag, without `refs/tags/`.
    pub tag: &'a str,
    /// The tags of the next builds.
    pub next_tags: &'a [String],
    /// Whether to fetch submodules, recursively.
    pub submodules: bool,
    /// Who must have signed the tag, if the recipe says that.
    pub keys: Option<Keys<'a>>,
}

/// A source that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// The tag's commit.
    pub commit: Commit,
    /// The directories of the submodules that were not asked for.
    pub left_out: Vec<PathBuf>,
    /// Who has signed the tag, if somebody must.
    pub signer: Option<Signer>,
}

/// Fetches sources, and caches the repositories of upstreams. All builders share it: the next version
/// of an upstream may go to another builder than the last one.
#[derive(Debug)]
pub(crate) struct Sources {
    git: Arc<Git>,
    state: Arc<StateDir>,
    started: Instant,
    /// The cached repositories, the least recently used first. A fetch takes its own out and puts it
    /// back, because the lock must not be held while git runs. An upstream has one build at a time, so
    /// nobody misses the one that is out.
    cached: Mutex<Vec<Repository>>,
    economies: Economies,
}

/// A bare repository of one upstream.
#[derive(Debug)]
struct Repository {
    url: UpstreamUrl,
    path: PathBuf,
    prefetched: Prefetched,
    modules: Modules,
    /// Its bytes on disk after the last fetch.
    size: u64,
    /// When it was used last.
    used: Instant,
    /// For how many builds.
    builds: usize,
}

impl Sources {
    /// Starts with an empty cache.
    pub(crate) fn new(git: Arc<Git>, state: Arc<StateDir>) -> Self {
        let economies = Economies::default();
        Self { git, state, started: Instant::now(), cached: Mutex::default(), economies }
    }

    /// Fetches the files of one tag into `directory`, which must not exist. git's output goes to
    /// `log`.
    ///
    /// # Errors
    /// When git fails, or has not finished at `end` or after an hour.
    pub(crate) fn fetch(
        &self,
        source: Source<'_>,
        directory: &Path,
        end: Option<Instant>,
        interrupt: &Interrupt,
        log: &BuildLog,
    ) -> Result<Fetched, GitError> {
        let latest = Instant::now() + FETCH_DEADLINE;
        let git = Arc::clone(&self.git);
        let attempt = Attempt {
            git: &git,
            upstream: source.url,
            end: end.map_or(latest, |end| end.min(latest)),
            disk: None,
            interrupt,
            log,
        };
        let mut cached = self.take(|cached| cached.url == *source.url).pop();
        if let Some(old) = cached.take_if(|cached| cached.is_old()) {
            durable::clear(&old.path);
        }
        let (now, state) = (Moment::from_duration(self.started.elapsed()), &self.state);
        let chances = Chances { is_cached: cached.is_some(), has_next: !source.next_tags.is_empty() };
        let (repository, fetched) =
            self.economies.fetch(source.url, chances, attempt, |way, is_cached| {
                let mut repository = match cached.take() {
                    Some(cached) if is_cached => cached,
                    unused => {
                        if let Some(unused) = unused {
                            durable::clear(&unused.path);
                        }
                        Repository::new(source.url, state.sources().join(state.unique_name("upstream")))
                    }
                };
                let disk = repository.disk_limit(directory, &git);
                let attempt = Attempt { disk: disk.as_ref(), ..attempt };
                let fetched = repository.fetch(source, way, is_cached, now, attempt);
                if fetched.is_err() {
                    durable::clear(&repository.path);
                }
                Ok((repository, fetched?))
            })?;
        self.check_out(repository, &fetched, source, directory, attempt)
    }

    /// Removes the cached repository of an upstream.
    pub(crate) fn forget(&self, url: &UpstreamUrl) {
        clear(&self.take(|cached| cached.url == *url));
    }

    /// Removes the cached repositories that were not used for `span`.
    pub(crate) fn forget_unused(&self, span: Duration) {
        clear(&self.take(|cached| cached.used.elapsed() >= span));
    }

    /// Returns whether no repository is cached.
    pub(crate) fn is_empty(&self) -> bool {
        self.cached().is_empty()
    }

    /// Takes the repositories that `is_wanted` admits out of the cache.
    fn take(&self, mut is_wanted: impl FnMut(&Repository) -> bool) -> Vec<Repository> {
        self.cached().extract_if(.., |cached| is_wanted(cached)).collect()
    }

    fn cached(&self) -> MutexGuard<'_, Vec<Repository>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the work tree, and caches the repository for the next version.
    fn check_out(
        &self,
        mut repository: Repository,
        fetched: &FetchedTag,
        source: Source<'_>,
        directory: &Path,
        attempt: Attempt<'_>,
    ) -> Result<Fetched, GitError> {
        let disk = repository.disk_limit(directory, attempt.git);
        let attempt = Attempt { disk: disk.as_ref(), ..attempt };
        let result = repository.check_out(fetched, source, directory, &self.economies, attempt);
        // A skipped tag is no reason to fetch the next ones again.
        if !matches!(result, Ok(_) | Err(GitError::Refused { .. } | GitError::NoCommit { .. })) {
            durable::clear(&repository.path);
            return result;
        }
        repository.size = disk_usage(std::slice::from_ref(&repository.path), u64::MAX);
        let most = attempt.git.source_limit().map_or(MAX_CACHED, |limit| limit.bytes.min(MAX_CACHED));
        (repository.used, repository.builds) = (Instant::now(), repository.builds + 1);
        let mut too_many = Vec::new();
        let mut cached = self.cached();
        cached.push(repository);
        while cached.iter().map(|cached| cached.size).sum::<u64>() > most {
            too_many.push(cached.remove(0));
        }
        drop(cached);
        clear(&too_many);
        result
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        clear(&self.take(|_| true));
    }
}

/// Removes repositories from the disk.
fn clear(repositories: &[Repository]) {
    for repository in repositories {
        durable::clear(&repository.path);
    }
}

impl Repository {
    /// Describes a repository at `path` that is still to be made.
    fn new(url: &UpstreamUrl, path: PathBuf) -> Self {
        let modules = Modules::new(path.join("modules"));
        Self {
            url: url.clone(),
            path,
            prefetched: Prefetched::new(),
            modules,
            size: 0,
            used: Instant::now(),
            builds: 0,
        }
    }

    /// Whether a new one would cost less, because nothing is prefetched.
    fn is_old(&self) -> bool {
        self.builds >= MAX_BUILDS && self.prefetched.is_empty()
    }

    /// Returns what fetching into it and writing files below `directory` may add to the disk. Its
    /// submodules and the content of git-lfs are below its own path.
    fn disk_limit(&self, directory: &Path, git: &Git) -> Option<DiskLimit> {
        let directories = vec![self.path.clone(), directory.to_owned()];
        git.source_limit().map(|limit| DiskLimit { directories, before: self.size, limit })
    }

    /// Fetches a tag, unless it is prefetched. Makes the repository first unless it `is_cached`.
    fn fetch(
        &mut self,
        source: Source<'_>,
        way: Way,
        is_cached: bool,
        now: Moment,
        attempt: Attempt<'_>,
    ) -> Result<FetchedTag, GitError> {
        if is_cached {
            return match self.prefetched.take(source.tag, now).filter(|_| way == Way::Economical) {
                Some(fetched) => Ok(fetched),
                None => self.fetch_into(source, way, now, attempt),
            };
        }
        let path = self.path.clone();
        bare::init_and_fetch(&path, attempt, || self.fetch_into(source, way, now, attempt))
    }

    /// Fetches a tag, and prefetches some of the next ones with it if it is fetched the economical
    /// way.
    fn fetch_into(
        &mut self,
        source: Source<'_>,
        way: Way,
        now: Moment,
        attempt: Attempt<'_>,
    ) -> Result<FetchedTag, GitError> {
        let history = if way == Way::Plain { History::All } else { History::None };
        let next = if way == Way::Economical { source.next_tags } else { &[] };
        let planned = self.prefetched.plan(next, now);
        if planned.is_empty() {
            bare::fetch_tags(&self.path, source.url, [source.tag], history, attempt)?;
            return Ok(FetchedTag { commit: None });
        }
        let tags = || planned.iter().map(String::as_str).chain([source.tag]);
        bare::fetch_tags(&self.path, source.url, tags(), history, attempt.first_half())?;
        let commits = commit_times::of_tags(attempt.local(&self.path), tags(), attempt.interrupt)?;
        self.prefetched.record(&planned, &commits, now);
        Ok(FetchedTag { commit: commits.get(source.tag).cloned() })
    }

    fn check_out(
        &mut self,
        fetched: &FetchedTag,
        source: Source<'_>,
        directory: &Path,
        economies: &Economies,
        attempt: Attempt<'_>,
    ) -> Result<Fetched, GitError> {
        // Find the commit first: a tag of a tree has files to check out, but is no release.
        let commit = match &fetched.commit {
            Some(commit) => commit.clone(),
            None => commit_times::of_tag(|| attempt.local(&self.path), source.tag, attempt.interrupt)?,
        };
        // Verify before any file of the tag is written, and before it makes git fetch anything else.
        let verify = |keys| signatures::verify(keys, &self.path, source.tag, attempt);
        let signer = source.keys.map(verify).transpose()?;
        let revision = format!("refs/tags/{}", source.tag);
        let tree = Tree { repository: &self.path, url: source.url, revision: &revision, directory };
        work_tree::write(tree, attempt)?;
        let mut left_out = Vec::new();
        if source.submodules {
            self.modules.check_out(tree, economies, attempt)?;
        } else {
            // A damaged `.gitmodules` must not fail a build that needs no submodules.
            let submodules = submodules::list(tree, attempt).unwrap_or_default();
            left_out.extend(submodules.into_iter().map(|submodule| submodule.path.into()));
        }
        let tree = |error| GitError::Tree { path: directory.to_owned(), error };
        source_tree::prepare(directory, commit.time).map_err(tree)?;
        Ok(Fetched { commit, left_out, signer })
    }
}
