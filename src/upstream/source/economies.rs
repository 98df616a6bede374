//! Economies of a fetch, and doing without them for a server that refuses them.
//!
//! A cached repository, the tags of the next builds and `--depth=1` save most of a fetch, but not
//! every server or proxy supports them. A failure therefore means a second attempt without
//! economies, into a new repository: the fetch that any git server has always known. Whichever way
//! works is remembered for that upstream, so that the next version does not fail first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::process::ProcessError;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::git::GitError;
use crate::upstream::source::attempt::Attempt;

/// How long an upstream is fetched without the economies that it refused. The failure may have had
/// another cause, so they are tried again some time: a large history costs more than one refusal.
const REMEMBERED: Duration = Duration::from_hours(1);

/// How quickly an unknown failure may be a refusal. A server refuses before it packs; behind a
/// failure that took longer is an upstream that hangs, and it must not take that time again.
const PROMPT: Duration = Duration::from_secs(10);

/// git's messages if a server or a plain file server cannot leave out the history.
const NO_DEPTH: [&str; 3] =
    ["does not support shallow", "support feature 'shallow'", "does not support --depth"];

/// git's message if a server gives a commit only by the name of a branch or tag.
const NO_COMMIT_BY_ID: &str = "not allow request for unadvertised object";

/// git's messages if no request could be made, the tag is gone, or the disk is full. They say
/// nothing of economies.
const NO_REFUSAL: [&str; 4] =
    ["fatal: unable to access", "couldn't find remote ref", "No space left on device", "Disk quota exceeded"];

/// How to fetch, the most economical way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Into the cached repository, with the tags of the next builds, without history.
    Economical,
    /// One tag or commit, without history.
    Alone,
    /// With all history. A repository with all history may be cached: to continue it is no economy
    /// that a server must support.
    Plain,
}

/// Which ways upstreams have refused.
#[derive(Debug, Default)]
pub(super) struct Economies(Mutex<HashMap<UpstreamUrl, (Way, Instant)>>);

/// The economies that a fetch could use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chances {
    /// A repository is cached.
    pub(super) is_cached: bool,
    /// There are tags of next builds.
    pub(super) has_next: bool,
}

impl Economies {
    /// Calls `fetch` with the most economical way that `url` has not refused, and after a refusal
    /// with the next one. `fetch` is told whether to use the cached repository; otherwise it must
    /// begin with a new one.
    ///
    /// # Errors
    /// The last error of `fetch`.
    pub(super) fn fetch<T>(
        &self,
        url: &UpstreamUrl,
        chances: Chances,
        attempt: Attempt<'_>,
        mut fetch: impl FnMut(Way, bool) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let mut way = self.way_of(url);
        let mut is_cached = chances.is_cached && way != Way::Alone;
        if way == Way::Economical && !is_cached && !chances.has_next {
            way = Way::Alone;
        }
        let mut is_refused = false;
        loop {
            let begun = Instant::now();
            let error = match fetch(way, is_cached) {
                Ok(fetched) => {
                    if is_refused {
                        self.ways().insert(url.clone(), (way, Instant::now()));
                    }
                    return Ok(fetched);
                }
                Err(error) => error,
            };
            let cause = cause(&error);
            // A prefetch may take half of the time that is left, and fails when that is over.
            let is_prompt = begun.elapsed() < PROMPT || (way == Way::Economical && chances.has_next);
            // One tag may stay below a limit that several exceed together.
            let is_final = is_beyond_limit(&error) && !(way == Way::Economical && chances.has_next);
            let is_slow = !(is_prompt || cause == Cause::Refusal);
            if error.is_interrupted() || attempt.is_over() || is_final || is_slow {
                return Err(error);
            }
            way = match (way, cause) {
                (Way::Plain, _) if is_cached => Way::Plain,
                (Way::Plain, _) | (Way::Alone, Cause::NoRefusal) => return Err(error),
                (Way::Alone, _) | (Way::Economical, Cause::Refusal) => Way::Plain,
                (Way::Economical, _) => Way::Alone,
            };
            is_refused |= cause != Cause::NoRefusal;
            is_cached = false;
        }
    }

    fn way_of(&self, url: &UpstreamUrl) -> Way {
        let mut ways = self.ways();
        ways.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
        ways.get(url).map_or(Way::Economical, |(way, _)| *way)
    }

    fn ways(&self) -> MutexGuard<'_, HashMap<UpstreamUrl, (Way, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cause of a failure, as far as economies matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The server has refused one of them.
    Refusal,
    /// Something else.
    NoRefusal,
    /// Nothing.
    Unknown,
}

/// Returns whether git has run into a limit of this machine. A plainer way needs no less.
fn is_beyond_limit(error: &GitError) -> bool {
    use ProcessError::{OutOfMemory, TooMuchWritten};
    matches!(error, GitError::Process(OutOfMemory { .. } | TooMuchWritten { .. }))
}

fn cause(error: &GitError) -> Cause {
    let GitError::Process(ProcessError::Failed { tail, .. }) = error else { return Cause::Unknown };
    if NO_DEPTH.iter().any(|text| tail.contains(text)) || tail.contains(NO_COMMIT_BY_ID) {
        Cause::Refusal
    } else if NO_REFUSAL.iter().any(|text| tail.contains(text)) {
        Cause::NoRefusal
    } else {
        Cause::Unknown
    }
}
