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

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::warn;

use super::git::{Git, GitError, unexpected};
use super::source_tree;
use crate::process::{Interrupt, ProcessError, Program};
use crate::state_dir::{self, StateDir};

/// How long fetching one version may take: enough for a large source over a thin
/// line, not enough for an upstream that trickles to keep the builder from the others.
const FETCH_DEADLINE: Duration = Duration::from_hours(1);

/// The most that kept repositories may take on disk, in bytes. Beyond it the one
/// that was not used for the longest time goes.
const MAX_KEPT: u64 = 4 * 1024 * 1024 * 1024;

/// How long a tag that was fetched ahead is taken for what the upstream has: not
/// longer than a tag may wait between a poll and its build anyway.
const AHEAD_FRESH: Duration = Duration::from_mins(1);

/// What git says when a server only serves files and cannot send a part of the history.
const NO_SHALLOW_FETCH: &str = "dumb http transport does not support shallow";

/// What git says when the upstream names its objects by SHA-256.
const OTHER_OBJECT_FORMAT: &str = "mismatched algorithms";

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The upstream's URL.
    pub url: &'a str,
    /// The tag, without `refs/tags/`.
    pub tag: &'a str,
    /// The tags that are going to be fetched next.
    pub next_tags: &'a [String],
    /// Whether to fetch submodules, recursively.
    pub submodules: bool,
}

/// The fetched upstreams.
#[derive(Debug)]
pub struct Sources {
    git: Arc<Git>,
    state: Arc<StateDir>,
    /// The kept repositories, the one used last at the end.
    kept: Vec<Repository>,
}

/// A bare repository of one upstream.
#[derive(Debug)]
struct Repository {
    url: String,
    path: PathBuf,
    /// The tags in it that were fetched ahead, and when.
    ahead: Ahead,
    /// Bytes on disk.
    size: u64,
}

/// Tags that were fetched ahead of their builds.
#[derive(Debug)]
struct Ahead {
    tags: HashSet<String>,
    fetched: Instant,
}

impl Ahead {
    fn new(tags: HashSet<String>) -> Self {
        Self { tags, fetched: Instant::now() }
    }

    /// Whether `tag` need not be fetched. A tag can be moved: what was fetched a while ago is fetched again.
    fn take(&mut self, tag: &str) -> bool {
        self.tags.remove(tag) && self.fetched.elapsed() < AHEAD_FRESH
    }
}

/// One fetch: its limits.
#[derive(Clone, Copy)]
struct Limits<'a> {
    end: Option<Instant>,
    interrupt: &'a Interrupt,
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
    pub fn new(git: Arc<Git>, state: Arc<StateDir>) -> Self {
        Self { git, state, kept: Vec::new() }
    }

    /// Fetches the files of one tag into `directory`, which must not exist.
    /// Returns the committer time of the tag's commit.
    ///
    /// # Errors
    /// When git fails, or takes until `end` or longer than an hour.
    pub fn fetch(
        &mut self,
        source: Source<'_>,
        directory: &Path,
        end: Option<Instant>,
        interrupt: &Interrupt,
    ) -> Result<SystemTime, GitError> {
        let latest = Instant::now() + FETCH_DEADLINE;
        let limits = Limits { end: Some(end.map_or(latest, |end| end.min(latest))), interrupt };
        if let Some(place) = self.kept.iter().position(|kept| kept.url == source.url) {
            let mut kept = self.kept.remove(place);
            let fetched = if kept.ahead.take(source.tag) {
                Ok(())
            } else {
                self.fetch_into(&kept.path, source, limits).map(|ahead| kept.ahead = Ahead::new(ahead))
            };
            match fetched {
                Ok(()) => return self.check_out(kept, source, directory, limits),
                // Whatever is wrong with it may be the repository's fault: begin again without it.
                Err(error) => {
                    discard(&kept.path);
                    // But not if there is no time left for it.
                    if error.is_final() {
                        return Err(error);
                    }
                }
            }
        }
        let path = self.state.sources().join(self.state.unique_name("upstream"));
        match self.begin(&path, source, limits) {
            Ok(ahead) => {
                let ahead = Ahead::new(ahead);
                let fresh = Repository { url: source.url.to_owned(), path, ahead, size: 0 };
                self.check_out(fresh, source, directory, limits)
            }
            Err(error) => {
                discard(&path);
                Err(error)
            }
        }
    }

    /// Forgets what was fetched of an upstream.
    pub fn forget(&mut self, url: &str) {
        for kept in self.kept.extract_if(.., |kept| kept.url == url) {
            discard(&kept.path);
        }
    }

    /// Forgets everything that was fetched.
    pub fn forget_all(&mut self) {
        for kept in self.kept.drain(..) {
            discard(&kept.path);
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Makes a repository and fetches into it.
    fn begin(
        &self,
        path: &Path,
        source: Source<'_>,
        limits: Limits<'_>,
    ) -> Result<HashSet<String>, GitError> {
        let init = |object_format: &str| {
            let program = self.git(limits).args(["init", "--quiet", "--bare", "--template=", object_format]);
            program.arg("--").arg(path).run(limits.interrupt)
        };
        init("--object-format=sha1")?;
        match self.fetch_into(path, source, limits) {
            Err(GitError::Process(ProcessError::Failed { tail, .. }))
                if tail.contains(OTHER_OBJECT_FORMAT) =>
            {
                discard(path);
                init("--object-format=sha256")?;
                self.fetch_into(path, source, limits)
            }
            result => result,
        }
    }

    /// Fetches a tag, and with it those that come next; returns which of them are there.
    fn fetch_into(
        &self,
        path: &Path,
        source: Source<'_>,
        limits: Limits<'_>,
    ) -> Result<HashSet<String>, GitError> {
        if !source.next_tags.is_empty() {
            let tags = source.next_tags.iter().map(String::as_str).chain([source.tag]);
            match self.fetch_tags(path, source.url, tags, limits.first_half()) {
                Ok(()) => return Ok(source.next_tags.iter().cloned().collect()),
                // One that has vanished meanwhile, or is too much, must not take the others along.
                Err(ProcessError::Failed { .. } | ProcessError::TimedOut { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.fetch_tags(path, source.url, [source.tag], limits)?;
        Ok(HashSet::new())
    }

    fn fetch_tags<'t>(
        &self,
        path: &Path,
        url: &str,
        tags: impl IntoIterator<Item = &'t str>,
        limits: Limits<'_>,
    ) -> Result<(), ProcessError> {
        let refspecs: Vec<String> =
            tags.into_iter().map(|tag| format!("+refs/tags/{tag}:refs/tags/{tag}")).collect();
        let fetch = |depth: &[&str]| {
            let options =
                ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance"];
            let program = self.git(limits).arg("-C").arg(path).args(options).args(depth);
            program.args(["--", url]).args(&refspecs).run(limits.interrupt).map(drop)
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
        source: Source<'_>,
        directory: &Path,
        limits: Limits<'_>,
    ) -> Result<SystemTime, GitError> {
        let result = self.make_work_tree(&repository.path, source, directory, limits);
        // The work tree is the build's now: git must not look for it again.
        let forgotten = state_dir::remove(&repository.path.join("worktrees"));
        let usable = result.is_ok() && forgotten.is_ok();
        if !usable {
            discard(&repository.path);
            return result;
        }
        repository.size = size_of(&repository.path).unwrap_or(MAX_KEPT);
        self.kept.push(repository);
        while self.kept.iter().map(|kept| kept.size).sum::<u64>() > MAX_KEPT {
            discard(&self.kept.remove(0).path);
        }
        result
    }

    fn make_work_tree(
        &self,
        repository: &Path,
        source: Source<'_>,
        directory: &Path,
        limits: Limits<'_>,
    ) -> Result<SystemTime, GitError> {
        let reference = format!("refs/tags/{}", source.tag);
        if source.submodules {
            self.add_with_submodules(repository, source, directory, limits)?;
        } else {
            let tree = |error| GitError::Tree { path: directory.to_owned(), error };
            fs::create_dir(directory).map_err(tree)?;
            let index = repository.join("index");
            let mut work_tree = OsString::from("--work-tree=");
            work_tree.push(directory);
            let program =
                self.git(limits).env("GIT_INDEX_FILE", &index).arg("-C").arg(repository).arg(work_tree);
            let written = program.args(["read-tree", "-m", "-u", &reference]).run(limits.interrupt);
            // The next version is written to another place: an index would tell git that its files are there.
            state_dir::remove(&index).map_err(tree)?;
            written?;
        }
        let show = ["show", "--no-patch", "--no-show-signature", "--format=%ct"];
        let show = self.git(limits).arg("-C").arg(repository).args(show).arg(reference + "^{commit}");
        let committed = parse_commit_time(&show.capture_stdout(1024).run(limits.interrupt)?.stdout)?;
        source_tree::remove_git_metadata(directory)
            .map_err(|error| GitError::Tree { path: directory.to_owned(), error })?;
        Ok(committed)
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
        // Submodule URLs may be relative to this one; those of an earlier version are no longer true.
        git(directory).args(["config", "remote.origin.url", source.url]).run(interrupt)?;
        git(directory).args(["submodule", "--quiet", "sync", "--recursive"]).run(interrupt)?;
        let update = |depth: &[&str]| {
            let options = ["submodule", "--quiet", "update", "--init", "--recursive"];
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
        self.git.program(limits.interrupt).deadline(left)
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.forget_all();
    }
}

/// Removes a repository that is not needed, or not to be trusted, any more.
fn discard(path: &Path) {
    if let Err(error) = state_dir::remove(path) {
        warn!(path = path.display().to_string(), error:%; "clear staging dir failed");
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

fn parse_commit_time(output: &[u8]) -> Result<SystemTime, GitError> {
    /// The last second that RFC 3339 can write: the end of the year 9999.
    const LATEST: u64 = 253_402_300_799;
    let text = String::from_utf8_lossy(output);
    let seconds = text.trim().parse().ok().filter(|seconds| *seconds <= LATEST);
    seconds
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| unexpected(text.trim(), "a commit time between 1970 and 9999"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_times() {
        let time = parse_commit_time(b"1700000000\n").unwrap();
        assert_eq!(humantime::format_rfc3339_seconds(time).to_string(), "2023-11-14T22:13:20Z");
        for bad in ["", "x", "-1", "99999999999999"] {
            assert!(parse_commit_time(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
