//! Fetching sources: the files of exactly one tag, as they were released.
//!
//! What is fetched goes into a bare repository of the upstream, without history,
//! and stays there as long as further versions of that upstream are waiting: the
//! next fetch then only brings what differs. Each build gets a work tree of its
//! own, in which nothing tells how it was made.
//!
//! Neither a URL nor a tag can become an option: a URL comes after `--`, and a tag
//! is always written as `refs/tags/<tag>`, which also keeps a branch of the same
//! name from winning.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::build_log::BuildLog;
use crate::farm::ledger::SLOW;
use crate::farm::moment::Moment;
use crate::process::{Interrupt, ProcessError, Program};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::state::durable;
use crate::state::state_dir::StateDir;
use crate::upstream::git::{Git, GitError};
use crate::upstream::source::commit_times;
use crate::upstream::source::prefetch::{Ahead, Fetched};
use crate::upstream::source::source_tree;

/// How long fetching one version may take: enough for a large source over a thin
/// line, not enough for an upstream that trickles to keep the builder from the others.
const FETCH_DEADLINE: Duration = Duration::from_hours(1);

/// The most that kept repositories may take on disk, in bytes. Beyond it the one
/// that was not used for the longest time goes.
const MAX_KEPT: u64 = 4 * 1024 * 1024 * 1024;

/// What git says when a server only serves files and cannot send a part of the history.
const NO_SHALLOW_FETCH: &str = "dumb http transport does not support shallow";

/// What git says when the upstream names its objects by SHA-256.
const OTHER_OBJECT_FORMAT: &str = "mismatched algorithms";

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// Where the upstream is.
    pub url: &'a UpstreamUrl,
    /// The tag, without `refs/tags/`.
    pub tag: &'a str,
    /// The tags that are going to be fetched next.
    pub next_tags: &'a [String],
    /// Whether to fetch submodules, recursively.
    pub submodules: bool,
}

/// The fetched upstreams.
#[derive(Debug)]
pub(crate) struct Sources {
    git: Arc<Git>,
    state: Arc<StateDir>,
    started: Instant,
    /// The kept repositories, the one used last at the end.
    kept: Vec<Repository>,
}

/// A bare repository of one upstream.
#[derive(Debug)]
struct Repository {
    url: UpstreamUrl,
    path: PathBuf,
    /// What was fetched ahead.
    ahead: Ahead,
    /// Bytes on disk.
    size: u64,
}

/// One fetch: its limits, and what it tells.
#[derive(Clone, Copy)]
struct Limits<'a> {
    end: Option<Instant>,
    interrupt: &'a Interrupt,
    log: &'a BuildLog,
}

impl Limits<'_> {
    /// The same, with half of the time that is left.
    fn first_half(self) -> Self {
        let now = Instant::now();
        Self { end: self.end.map(|end| now + end.saturating_duration_since(now) / 2), ..self }
    }
}

impl Sources {
    /// Nothing fetched yet.
    pub(crate) fn new(git: Arc<Git>, state: Arc<StateDir>) -> Self {
        Self { git, state, started: Instant::now(), kept: Vec::new() }
    }

    /// Fetches the files of one tag into `directory`, which must not exist.
    /// What git says goes to `log`. Returns the committer time of the tag's commit.
    ///
    /// # Errors
    /// When git fails, or takes until `end` or longer than an hour.
    pub(crate) fn fetch(
        &mut self,
        source: Source<'_>,
        directory: &Path,
        end: Option<Instant>,
        interrupt: &Interrupt,
        log: &BuildLog,
    ) -> Result<SystemTime, GitError> {
        let begun = Instant::now();
        let latest = begun + FETCH_DEADLINE;
        let limits = Limits { end: Some(end.map_or(latest, |end| end.min(latest))), interrupt, log };
        if let Some(place) = self.kept.iter().position(|kept| kept.url == *source.url) {
            let mut kept = self.kept.remove(place);
            let fetched = match kept.ahead.take(source.tag, self.now()) {
                Some(fetched) => Ok(fetched),
                None => self.fetch_into(&mut kept, source, limits),
            };
            match fetched {
                Ok(fetched) => return self.check_out(kept, &fetched, source, directory, limits),
                // Whatever is wrong with it may be the repository's fault: begin again without it.
                Err(error) => {
                    durable::clear(&kept.path);
                    // But not if there is no time left for it, or it has taken so long that it is the upstream's.
                    if error.is_final() || begun.elapsed() >= SLOW {
                        return Err(error);
                    }
                }
            }
        }
        let path = self.state.sources().join(self.state.unique_name("upstream"));
        let mut fresh = Repository { url: source.url.clone(), path, ahead: Ahead::new(), size: 0 };
        match self.begin(&mut fresh, source, limits) {
            Ok(fetched) => self.check_out(fresh, &fetched, source, directory, limits),
            Err(error) => {
                durable::clear(&fresh.path);
                Err(error)
            }
        }
    }

    /// Forgets what was fetched of an upstream.
    pub(crate) fn forget(&mut self, url: &UpstreamUrl) {
        for kept in self.kept.extract_if(.., |kept| kept.url == *url) {
            durable::clear(&kept.path);
        }
    }

    /// Forgets everything that was fetched.
    pub(crate) fn forget_all(&mut self) {
        for kept in self.kept.drain(..) {
            durable::clear(&kept.path);
        }
    }

    /// Whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Makes a repository and fetches into it.
    fn begin(
        &self,
        repository: &mut Repository,
        source: Source<'_>,
        limits: Limits<'_>,
    ) -> Result<Fetched, GitError> {
        let init = |path: &Path, object_format: &str| {
            let program = self.git(limits).args(["init", "--quiet", "--bare", "--template=", object_format]);
            program.arg("--").arg(path).run(limits.interrupt)
        };
        init(&repository.path, "--object-format=sha1")?;
        match self.fetch_into(repository, source, limits) {
            Err(GitError::Process(ProcessError::Failed { tail, .. }))
                if tail.contains(OTHER_OBJECT_FORMAT) =>
            {
                durable::clear(&repository.path);
                init(&repository.path, "--object-format=sha256")?;
                self.fetch_into(repository, source, limits)
            }
            result => result,
        }
    }

    fn now(&self) -> Moment {
        Moment::from_duration(self.started.elapsed())
    }

    /// Fetches a tag, and with it some of those that come next.
    fn fetch_into(
        &self,
        repository: &mut Repository,
        source: Source<'_>,
        limits: Limits<'_>,
    ) -> Result<Fetched, GitError> {
        let ahead = repository.ahead.plan(source.next_tags, self.now());
        if !ahead.is_empty() {
            let tags = || ahead.iter().map(String::as_str).chain([source.tag]);
            let begun = self.now();
            match self.fetch_tags(&repository.path, source.url, tags(), limits.first_half()) {
                Ok(()) => {
                    let git = self.git(limits).arg("-C").arg(&repository.path);
                    let committed = commit_times::of_tags(git, tags(), limits.interrupt)?;
                    repository.ahead.note(&ahead, &committed, begun);
                    return Ok(Fetched { committed: committed.get(source.tag).copied() });
                }
                // One that has vanished meanwhile, or is too much, must not take the others along.
                Err(ProcessError::Failed { .. } | ProcessError::TimedOut { .. }) => {
                    repository.ahead.note_failure();
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.fetch_tags(&repository.path, source.url, [source.tag], limits)?;
        Ok(Fetched { committed: None })
    }

    fn fetch_tags<'t>(
        &self,
        path: &Path,
        url: &UpstreamUrl,
        tags: impl IntoIterator<Item = &'t str>,
        limits: Limits<'_>,
    ) -> Result<(), ProcessError> {
        let refspecs: Vec<String> =
            tags.into_iter().map(|tag| format!("+refs/tags/{tag}:refs/tags/{tag}")).collect();
        let fetch = |depth: &[&str]| {
            let options =
                ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance"];
            let program = self.git(limits).arg("-C").arg(path).args(options).args(depth);
            program.args(["--", url.secret_text()]).args(&refspecs).run(limits.interrupt).map(drop)
        };
        match fetch(&["--depth=1"]) {
            Err(ProcessError::Failed { tail, .. }) if tail.contains(NO_SHALLOW_FETCH) => fetch(&[]),
            result => result,
        }
    }

    /// Makes the work tree, and keeps the repository for the next version.
    fn check_out(
        &mut self,
        mut repository: Repository,
        fetched: &Fetched,
        source: Source<'_>,
        directory: &Path,
        limits: Limits<'_>,
    ) -> Result<SystemTime, GitError> {
        let result = self.make_work_tree(&repository.path, source, directory, limits).and_then(|()| {
            let git = || self.git(limits).arg("-C").arg(&repository.path);
            fetched.committed.map_or_else(|| commit_times::of_tag(git(), source.tag, limits.interrupt), Ok)
        });
        // The work tree is the build's now: git must not look for it again.
        let forgotten = durable::remove(&repository.path.join("worktrees"));
        let usable = result.is_ok() && forgotten.is_ok();
        if !usable {
            durable::clear(&repository.path);
            return result;
        }
        repository.size = size_of(&repository.path).unwrap_or(MAX_KEPT);
        self.kept.push(repository);
        while self.kept.iter().map(|kept| kept.size).sum::<u64>() > MAX_KEPT {
            durable::clear(&self.kept.remove(0).path);
        }
        result
    }

    fn make_work_tree(
        &self,
        repository: &Path,
        source: Source<'_>,
        directory: &Path,
        limits: Limits<'_>,
    ) -> Result<(), GitError> {
        let tree = |error| GitError::Tree { path: directory.to_owned(), error };
        if source.submodules {
            // git takes note of a version's submodules in here, and some of it would go for the next version too.
            let config = repository.join("config");
            let before = fs::read(&config).map_err(tree)?;
            let added = self.add_with_submodules(repository, source, directory, limits);
            fs::write(&config, before).map_err(tree)?;
            added?;
        } else {
            fs::create_dir(directory).map_err(tree)?;
            let index = repository.join("index");
            let mut work_tree = OsString::from("--work-tree=");
            work_tree.push(directory);
            let program =
                self.git(limits).env("GIT_INDEX_FILE", &index).arg("-C").arg(repository).arg(work_tree);
            let reference = format!("refs/tags/{}", source.tag);
            let written = program.args(["read-tree", "-m", "-u", &reference]).run(limits.interrupt);
            // The next version is written to another place: an index would tell git that its files are there.
            durable::remove(&index).map_err(tree)?;
            written?;
        }
        source_tree::remove_git_metadata(directory)
            .map_err(|error| GitError::Tree { path: directory.to_owned(), error })
    }

    /// Makes a work tree that git knows of, as submodules need one.
    fn add_with_submodules(
        &self,
        repository: &Path,
        source: Source<'_>,
        directory: &Path,
        limits: Limits<'_>,
    ) -> Result<(), ProcessError> {
        let interrupt = limits.interrupt;
        let git = |place: &Path| self.git(limits).arg("-C").arg(place);
        let add = git(repository).args(["worktree", "add", "--quiet", "--detach"]).arg(directory);
        add.arg(format!("refs/tags/{}", source.tag)).run(interrupt)?;
        // Submodule URLs may be relative to this one.
        let origin = format!("remote.origin.url={}", source.url.secret_text());
        let update = |depth: &[&str]| {
            let options = ["-c", &origin, "submodule", "--quiet", "update", "--init", "--recursive"];
            git(directory).args(options).args(depth).run(interrupt)
        };
        // Not every server gives out a commit that is no branch's tip, which is all that depth 1 asks for.
        match update(&["--depth=1"]) {
            Err(ProcessError::Failed { .. }) => update(&[]).map(drop),
            result => result.map(drop),
        }
    }

    fn git(&self, limits: Limits<'_>) -> Program {
        let left = limits.end.map(|end| end.saturating_duration_since(Instant::now()));
        self.git.program(limits.interrupt).deadline(left).log_to(limits.log)
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.forget_all();
    }
}

/// The bytes of a repository's objects: packs and loose ones.
fn size_of(repository: &Path) -> io::Result<u64> {
    let mut size = 0;
    let mut pending = vec![repository.join("objects")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else {
                size += metadata.len();
            }
        }
    }
    Ok(size)
}
