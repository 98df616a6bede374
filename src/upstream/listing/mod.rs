//! Upstreams: listing their tags and fetching a tag's source.
//!
//! There are two ways to list: our own HTTP client, which costs two requests, and
//! `git ls-remote`, which costs processes and can do everything. [`Lister`] takes
//! the first where the result is the same and the second everywhere else.

pub(crate) mod git_settings;
pub(crate) mod http_url;
pub(crate) mod ls_refs;
pub(crate) mod native_or_git;
mod net;
pub(crate) mod pkt_line;
pub mod ref_name;
pub(crate) mod retry_after;
pub mod smart_http;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::debug;

use crate::farm::events::{PollError, PollFault};
use crate::process::Interrupt;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::git::Git;
use crate::upstream::listing::git_settings::Known;
use crate::upstream::listing::native_or_git::{Settings, Way};
use crate::upstream::listing::smart_http::{NativeError, SmartHttp};

/// How long a listing may take: far longer than any answer, short enough that an
/// upstream that hangs keeps a poller from others for a minute only.
pub const LISTING_DEADLINE: Duration = Duration::from_mins(1);

/// Lists the tags of upstreams, natively or by git. Threads share it.
#[derive(Debug)]
pub struct Lister {
    git: Arc<Git>,
    http: SmartHttp,
    deadline: Duration,
    settings: Known,
    /// The upstreams that do not speak protocol version 2. They are not asked again: a
    /// server that learns it will be noticed after a reload.
    older_version: Mutex<HashSet<UpstreamUrl>>,
}

impl Lister {
    /// A lister for `jobs` threads. A listing may take up to `deadline`, all of it: finding out
    /// the way, the native attempt, and git. Only the end of a git that has to be killed comes on top.
    pub fn new(git: Arc<Git>, jobs: usize, deadline: Duration) -> Self {
        let http = SmartHttp::new(jobs, deadline);
        Self { git, http, deadline, settings: Known::default(), older_version: Mutex::default() }
    }

    /// Lists the tags of `url`, without `refs/tags/`, in the server's order.
    ///
    /// A triggered `interrupt` ends git at once; a native listing ends before its next
    /// request.
    ///
    /// # Errors
    /// When the upstream does not answer in time, answers too much or not at all.
    pub fn list_tags(&self, url: &UpstreamUrl, interrupt: &Interrupt) -> Result<Vec<String>, PollError> {
        let begun = Instant::now();
        let reason = match self.way(url, begun, interrupt) {
            Way::Git(reason) => reason,
            Way::Native => match self.list_natively(url, begun, interrupt) {
                Err(NativeError::NotUnderstood(reason)) => reason,
                Err(NativeError::OlderVersion) => {
                    self.older_version().insert(url.clone());
                    "the server does not speak protocol version 2".to_owned()
                }
                Err(NativeError::Final(error)) => {
                    debug!(upstream:% = url, way = "native"; "listing upstream");
                    return Err(error);
                }
                Ok(tags) => {
                    debug!(upstream:% = url, way = "native"; "listing upstream");
                    return Ok(tags);
                }
            },
        };
        debug!(upstream:% = url, way = "git", reason; "listing upstream");
        // What the native attempt has taken is not given twice.
        let limit = self.left(begun);
        if limit.is_zero() {
            let reason = format!("{reason}, and there is no time left for git");
            return Err(PollError { reason, fault: PollFault::Other });
        }
        self.git.list_tags(url, limit, interrupt)
    }

    /// What is left for a listing that has `begun` then.
    fn left(&self, begun: Instant) -> Duration {
        self.deadline.saturating_sub(begun.elapsed())
    }

    /// Forgets what was found out about upstreams and about git's settings.
    pub fn reload(&self) {
        self.settings.forget();
        self.older_version().clear();
    }

    fn way(&self, url: &UpstreamUrl, begun: Instant, interrupt: &Interrupt) -> Way {
        if self.older_version().contains(url) {
            return Way::Git("the server did not speak protocol version 2 before".to_owned());
        }
        // Most farms have upstreams that git lists whatever its settings are.
        match Settings::default().way(url) {
            Way::Native => self.settings.get(&self.git, begun, interrupt).way(url),
            way @ Way::Git(_) => way,
        }
    }

    fn list_natively(
        &self,
        url: &UpstreamUrl,
        begun: Instant,
        interrupt: &Interrupt,
    ) -> Result<Vec<String>, NativeError> {
        let may_ask = |target: &UpstreamUrl| match self.settings.get(&self.git, begun, interrupt).way(target)
        {
            Way::Native => Ok(()),
            Way::Git(reason) => Err(reason),
        };
        self.http.list_tags_within(self.left(begun), url, may_ask, interrupt)
    }

    fn older_version(&self) -> std::sync::MutexGuard<'_, HashSet<UpstreamUrl>> {
        // A set of URLs is whole whatever panicked beside it.
        self.older_version.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
