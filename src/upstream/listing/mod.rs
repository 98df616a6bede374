//! Listing an upstream's tags. It fetches no source.
//!
//! There are two ways to list: natively, by one or two HTTP requests of our own client, and by
//! `git ls-remote`, which costs processes but handles every URL and setting. [`Lister`] lists
//! natively where the result is the same, and by git everywhere else.

pub(crate) mod git_settings;
pub(crate) mod http_url;
pub(crate) mod ls_refs;
pub(crate) mod ls_remote;
pub(crate) mod native_or_git;
mod net;
mod one_request;
pub(crate) mod pkt_line;
pub mod ref_name;
mod refusal;
pub(crate) mod retry_after;
pub mod smart_http;

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::debug;

use crate::farm::events::{PollError, PollFault, Tags};
use crate::process::Interrupt;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::git::Git;
use crate::upstream::listing::git_settings::CachedSettings;
use crate::upstream::listing::native_or_git::Way;
use crate::upstream::listing::smart_http::{NativeError, SmartHttp};

/// How long a listing may take: far longer than any answer takes, but an upstream that hangs
/// costs its poller a minute only.
pub const LISTING_DEADLINE: Duration = Duration::from_mins(1);

/// A successful listing.
#[derive(Debug)]
pub struct Listed {
    /// The tags, without `refs/tags/`, in the server's order.
    pub tags: Tags,
    /// The upstream's URL after redirects, if there were any. git does not tell.
    pub redirected_to: Option<UpstreamUrl>,
}

/// Lists the tags of upstreams, natively or by git. Threads share it.
#[derive(Debug)]
pub struct Lister {
    git: Arc<Git>,
    http: SmartHttp,
    deadline: Duration,
    settings: CachedSettings,
    /// The upstreams whose server lacks protocol version 2. Asking them natively first would cost
    /// each listing a request for nothing. A reload forgets them: a server may be updated.
    without_version_2: Mutex<HashSet<UpstreamUrl>>,
}

impl Lister {
    /// Makes a lister for `jobs` threads. `deadline` covers a whole listing: choosing the way, the
    /// native attempt, and git. Killing a hung git may take a second more.
    pub fn new(git: Arc<Git>, jobs: usize, deadline: Duration) -> Self {
        let http = SmartHttp::new(jobs, deadline);
        let (settings, without_version_2) = (CachedSettings::default(), Mutex::default());
        Self { git, http, deadline, settings, without_version_2 }
    }

    /// Assumes that servers speak protocol version 2: for a process that lists each upstream once.
    #[must_use]
    pub fn guessing(self) -> Self {
        Self { http: self.http.guessing(), ..self }
    }

    /// Lists the tags of `url`, without `refs/tags/`, in the server's order; see [`Lister::list`].
    ///
    /// # Errors
    /// As [`Lister::list`].
    pub fn list_tags(&self, url: &UpstreamUrl, interrupt: &Interrupt) -> Result<Tags, PollError> {
        self.list(url, interrupt).map(|listed| listed.tags)
    }

    /// Lists the tags of `url`, without `refs/tags/`, in the server's order.
    ///
    /// A triggered `interrupt` ends git at once, and a native listing before its next request.
    ///
    /// # Errors
    /// When the upstream does not answer in time, answers too much or not at all.
    pub fn list(&self, url: &UpstreamUrl, interrupt: &Interrupt) -> Result<Listed, PollError> {
        let begun = Instant::now();
        let mut is_page = false;
        let reason = match self.way(url, begun, interrupt) {
            Way::Git(reason) => reason,
            Way::Native => match self.list_natively(url, begun, interrupt) {
                Err(NativeError::NotUnderstood(reason)) => reason,
                Err(NativeError::Page(reason)) => {
                    is_page = true;
                    reason
                }
                Err(NativeError::OlderVersion) => {
                    self.without_version_2().insert(url.clone());
                    "the server does not speak protocol version 2".to_owned()
                }
                Err(NativeError::Final(error)) => {
                    debug!(upstream:% = url, way = "native"; "listing upstream");
                    return Err(error);
                }
                Ok(listed) => {
                    debug!(upstream:% = url, way = "native"; "listing upstream");
                    return Ok(listed);
                }
            },
        };
        debug!(upstream:% = url, way = "git", reason; "listing upstream");
        // The native attempt has used up a part of the deadline.
        let left = self.deadline.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let reason = format!("{reason}, and there is no time left for git");
            return Err(PollError { reason, fault: PollFault::Other });
        }
        let tags = self.git.list_tags(url, left, interrupt)?;
        if is_page && tags.len() == 0 {
            let reason = format!("{reason}, and git finds no tags in it");
            return Err(PollError { reason, fault: PollFault::Other });
        }
        Ok(Listed { tags, redirected_to: None })
    }

    /// Forgets git's settings and what servers have shown of protocol version 2.
    pub fn reload(&self) {
        self.settings.forget();
        self.http.forget();
        self.without_version_2().clear();
    }

    fn way(&self, url: &UpstreamUrl, begun: Instant, interrupt: &Interrupt) -> Way {
        if self.without_version_2().contains(url) {
            return Way::Git("the server did not speak protocol version 2 last time".to_owned());
        }
        // Many upstreams are git's whatever the settings are: do not read the settings for those.
        match url.plain_http() {
            Ok(plain) => self.settings.get(&self.git, begun, interrupt).way_of(url, plain),
            Err(unusual) => Way::Git(unusual.to_string()),
        }
    }

    fn list_natively(
        &self,
        url: &UpstreamUrl,
        begun: Instant,
        interrupt: &Interrupt,
    ) -> Result<Listed, NativeError> {
        let redirected_to = RefCell::new(None);
        let may_ask = |target: &UpstreamUrl| match self.settings.get(&self.git, begun, interrupt).way(target)
        {
            Way::Native => {
                redirected_to.replace(Some(target.clone()));
                Ok(())
            }
            Way::Git(reason) => Err(reason),
        };
        let tags = self.http.list_tags(url, begun, may_ask, interrupt)?;
        Ok(Listed { tags, redirected_to: redirected_to.into_inner() })
    }

    fn without_version_2(&self) -> MutexGuard<'_, HashSet<UpstreamUrl>> {
        // A panic elsewhere cannot leave the set half changed.
        self.without_version_2.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
