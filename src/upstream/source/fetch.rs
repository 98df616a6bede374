//! Fetches sources: the files of exactly one tag, as released.
//!
//! git fetches into a bare repository of the upstream, without history. The repository stays cached
//! while more versions of its upstream are queued: the next fetch then transfers only the
//! differences. Each build gets a work tree of its own, without git's files.
//!
//! git cannot take a URL or a tag for an option: a URL follows `--`, and a tag is always written
//! `refs/tags/<tag>`. The full name also makes git ignore a branch of the same name.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peipkg_format::regular_file::{self, MAX_TEXT};

use crate::build_log::BuildLog;
use crate::farm::moment::Moment;
use crate::process::{Interrupt, ProcessError, Program};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::state::durable;
use crate::state::state_dir::StateDir;
use crate::upstream::git::{Git, GitError};
use crate::upstream::git_access;
use crate::upstream::source::commit_times::{self, Commit};
use crate::upstream::source::prefetch::{FetchedTag, Prefetched};
use crate::upstream::source::source_tree;

/// The shortest failed fetch that is not repeated with a new repository. A broken repository fails
/// faster, so the upstream is at fault.
const SLOW: Duration = Duration::from_secs(10);

/// How long fetching one version may take: enough for a large source over a slow line, but an
/// upstream that trickles must not block the builder for a day.
const FETCH_DEADLINE: Duration = Duration::from_hours(1);

/// The most disk space for cached repositories, in bytes: large upstreams must not fill the disk.
/// The cache drops the least recently used ones first.
const MAX_CACHED: u64 = 4 * 1024 * 1024 * 1024;

/// git's message if a server only serves files and cannot leave out the history.
const NO_SHALLOW_FETCH: &str = "dumb http transport does not support shallow";

/// git's message if the upstream names its objects by SHA-256.
const OTHER_OBJECT_FORMAT: &str = "mismatched algorithms";

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
}

/// Fetches sources, and caches the repositories of upstreams.
#[derive(Debug)]
pub(crate) struct Sources {
    git: Arc<Git>,
    state: Arc<StateDir>,
    started: Instant,
    /// The cached repositories, the least recently used first.
    cached: Vec<Repository>,
}

/// A bare repository of one upstream.
#[derive(Debug)]
struct Repository {
    url: UpstreamUrl,
    path: PathBuf,
    prefetched: Prefetched,
    /// Its objects' bytes on disk.
    size: u64,
}

/// When a fetch must end, the switch that ends it early, and the log for the output of git.
#[derive(Clone, Copy)]
struct Context<'a> {
    end: Instant,
    interrupt: &'a Interrupt,
    log: &'a BuildLog,
}

impl Context<'_> {
    /// Halves the time that is left, so that a second attempt has the other half.
    fn first_half(self) -> Self {
        let now = Instant::now();
        Self { end: now + self.end.saturating_duration_since(now) / 2, ..self }
    }
}

impl Sources {
    /// Starts with an empty cache.
    pub(crate) fn new(git: Arc<Git>, state: Arc<StateDir>) -> Self {
        Self { git, state, started: Instant::now(), cached: Vec::new() }
    }

    /// Fetches the files of one tag into `directory`, which must not exist. git's output goes to
    /// `log`. Returns the tag's commit.
    ///
    /// # Errors
    /// When git fails, or has not finished at `end` or after an hour.
    pub(crate) fn fetch(
        &mut self,
        source: Source<'_>,
        directory: &Path,
        end: Option<Instant>,
        interrupt: &Interrupt,
        log: &BuildLog,
    ) -> Result<Commit, GitError> {
        let begun = Instant::now();
        let latest = begun + FETCH_DEADLINE;
        let context = Context { end: end.map_or(latest, |end| end.min(latest)), interrupt, log };
        if let Some(place) = self.cached.iter().position(|cached| cached.url == *source.url) {
            let mut cached = self.cached.remove(place);
            let fetched = match cached.prefetched.take(source.tag, self.now()) {
                Some(fetched) => Ok(fetched),
                None => self.fetch_into(&mut cached, source, context),
            };
            match fetched {
                Ok(fetched) => return self.check_out(cached, &fetched, source, directory, context),
                // The cached repository may be broken: retry with a new one.
                Err(error) => {
                    durable::clear(&cached.path);
                    // Without a retry if no time is left, or if the failure was slow: a broken
                    // repository fails fast, so the upstream is at fault.
                    if error.is_final() || begun.elapsed() >= SLOW {
                        return Err(error);
                    }
                }
            }
        }
        let path = self.state.sources().join(self.state.unique_name("upstream"));
        let mut fresh = Repository { url: source.url.clone(), path, prefetched: Prefetched::new(), size: 0 };
        match self.fetch_into_new(&mut fresh, source, context) {
            Ok(fetched) => self.check_out(fresh, &fetched, source, directory, context),
            Err(error) => {
                durable::clear(&fresh.path);
                Err(error)
            }
        }
    }

    /// Removes the cached repository of an upstream.
    pub(crate) fn forget(&mut self, url: &UpstreamUrl) {
        for repository in self.cached.extract_if(.., |cached| cached.url == *url) {
            durable::clear(&repository.path);
        }
    }

    /// Removes all cached repositories.
    pub(crate) fn forget_all(&mut self) {
        for repository in self.cached.drain(..) {
            durable::clear(&repository.path);
        }
    }

    /// Returns whether no repository is cached.
    pub(crate) fn is_empty(&self) -> bool {
        self.cached.is_empty()
    }

    /// Makes a repository, of the upstream's object format, and fetches into it.
    fn fetch_into_new(
        &self,
        repository: &mut Repository,
        source: Source<'_>,
        context: Context<'_>,
    ) -> Result<FetchedTag, GitError> {
        let init = |path: &Path, object_format: &str| {
            let program = self.git(context).args(["init", "--quiet", "--bare", "--template=", object_format]);
            program.arg("--").arg(path).run(context.interrupt)
        };
        init(&repository.path, "--object-format=sha1")?;
        match self.fetch_into(repository, source, context) {
            Err(GitError::Process(ProcessError::Failed { tail, .. }))
                if tail.contains(OTHER_OBJECT_FORMAT) =>
            {
                durable::clear(&repository.path);
                init(&repository.path, "--object-format=sha256")?;
                self.fetch_into(repository, source, context)
            }
            result => result,
        }
    }

    fn now(&self) -> Moment {
        Moment::from_duration(self.started.elapsed())
    }

    /// Fetches a tag, and prefetches some of the next ones with it.
    fn fetch_into(
        &self,
        repository: &mut Repository,
        source: Source<'_>,
        context: Context<'_>,
    ) -> Result<FetchedTag, GitError> {
        let planned = repository.prefetched.plan(source.next_tags, self.now());
        if !planned.is_empty() {
            let tags = || planned.iter().map(String::as_str).chain([source.tag]);
            let begun = self.now();
            match self.fetch_tags(&repository.path, source.url, tags(), context.first_half()) {
                Ok(()) => {
                    let commits = commit_times::of_tags(
                        self.git_in(&repository.path, context),
                        tags(),
                        context.interrupt,
                    )?;
                    repository.prefetched.record(&planned, &commits, begun);
                    return Ok(FetchedTag { commit: commits.get(source.tag).cloned() });
                }
                // A next tag that has vanished or is too large must not fail this one: fetch it
                // alone.
                Err(ProcessError::Failed { .. } | ProcessError::TimedOut { .. }) => {
                    repository.prefetched.record_failure();
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.fetch_tags(&repository.path, source.url, [source.tag], context)?;
        Ok(FetchedTag { commit: None })
    }

    fn fetch_tags<'t>(
        &self,
        path: &Path,
        url: &UpstreamUrl,
        tags: impl IntoIterator<Item = &'t str>,
        context: Context<'_>,
    ) -> Result<(), ProcessError> {
        let refspecs: Vec<String> =
            tags.into_iter().map(|tag| format!("+refs/tags/{tag}:refs/tags/{tag}")).collect();
        let fetch = |depth: &[&str]| {
            let options =
                ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance"];
            let program = git_access::grant(self.git_in(path, context), url).args(options).args(depth);
            program.args(["--", &git_access::name(url)]).args(&refspecs).run(context.interrupt).map(drop)
        };
        match fetch(&["--depth=1"]) {
            Err(ProcessError::Failed { tail, .. }) if tail.contains(NO_SHALLOW_FETCH) => fetch(&[]),
            result => result,
        }
    }

    /// Makes the work tree, and caches the repository for the next version.
    fn check_out(
        &mut self,
        mut repository: Repository,
        fetched: &FetchedTag,
        source: Source<'_>,
        directory: &Path,
        context: Context<'_>,
    ) -> Result<Commit, GitError> {
        // Find the commit first: a tag of a tree has files to check out, but is no release.
        let git = || self.git_in(&repository.path, context);
        let commit = fetched.commit.clone();
        let commit = commit.map_or_else(|| commit_times::of_tag(git, source.tag, context.interrupt), Ok);
        let result = commit.and_then(|commit| {
            self.make_work_tree(&repository.path, source, directory, context).map(|()| commit)
        });
        // The build may change or remove its work tree, so git must forget it.
        let is_forgotten = durable::remove(&repository.path.join("worktrees")).is_ok();
        if result.is_err() || !is_forgotten {
            durable::clear(&repository.path);
            return result;
        }
        repository.size = size_of(&repository.path).unwrap_or(MAX_CACHED);
        self.cached.push(repository);
        while self.cached.iter().map(|cached| cached.size).sum::<u64>() > MAX_CACHED {
            durable::clear(&self.cached.remove(0).path);
        }
        result
    }

    fn make_work_tree(
        &self,
        repository: &Path,
        source: Source<'_>,
        directory: &Path,
        context: Context<'_>,
    ) -> Result<(), GitError> {
        let tree = |error| GitError::Tree { path: directory.to_owned(), error };
        if source.submodules {
            // git writes this version's submodules into the configuration, and would apply some of
            // that to the next version.
            let config = repository.join("config");
            let before = regular_file::read(&config, MAX_TEXT).map_err(tree)?;
            let added = self.add_with_submodules(repository, source, directory, context);
            fs::write(&config, before).map_err(tree)?;
            added?;
        } else {
            fs::create_dir(directory).map_err(tree)?;
            let index = repository.join("index");
            let mut work_tree = OsString::from("--work-tree=");
            work_tree.push(directory);
            let program = self.git_in(repository, context).env("GIT_INDEX_FILE", &index).arg(work_tree);
            let reference = format!("refs/tags/{}", source.tag);
            let written = program.args(["read-tree", "-m", "-u", &reference]).run(context.interrupt);
            // With this index git would take the next work tree's files for written, and skip them.
            durable::remove(&index).map_err(tree)?;
            written?;
        }
        source_tree::remove_git_metadata(directory).map_err(tree)
    }

    /// Makes a work tree that is registered in the repository: `git submodule` needs one.
    fn add_with_submodules(
        &self,
        repository: &Path,
        source: Source<'_>,
        directory: &Path,
        context: Context<'_>,
    ) -> Result<(), ProcessError> {
        let interrupt = context.interrupt;
        let add = self.git_in(repository, context).args(["worktree", "add", "--quiet", "--detach"]);
        add.arg(directory).arg(format!("refs/tags/{}", source.tag)).run(interrupt)?;
        // A submodule's URL may be relative to the upstream's. On the same host it gets the same
        // credentials.
        let origin = format!("remote.origin.url={}", source.url.address());
        let update = |depth: &[&str]| {
            let options = ["-c", &origin, "submodule", "--quiet", "update", "--init", "--recursive"];
            git_access::grant(self.git_in(directory, context), source.url)
                .args(options)
                .args(depth)
                .run(interrupt)
        };
        // With depth 1 git asks for the submodule's commit by its id. Some servers refuse ids that
        // are no branch's tip, so retry with the whole history.
        match update(&["--depth=1"]) {
            Err(ProcessError::Failed { .. }) => update(&[]).map(drop),
            result => result.map(drop),
        }
    }

    fn git(&self, context: Context<'_>) -> Program {
        let left = context.end.saturating_duration_since(Instant::now());
        self.git.program(context.interrupt).deadline(Some(left)).log_to(context.log)
    }

    fn git_in(&self, directory: &Path, context: Context<'_>) -> Program {
        self.git(context).arg("-C").arg(directory)
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.forget_all();
    }
}

/// Sums up the bytes of a repository's objects, packed and loose.
fn size_of(repository: &Path) -> io::Result<u64> {
    let mut size = 0;
    let mut directories = vec![repository.join("objects")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                directories.push(entry.path());
            } else {
                size += metadata.len();
            }
        }
    }
    Ok(size)
}
