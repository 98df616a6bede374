//! Remembers which upstreams to list by one request, without asking for the server's capabilities
//! first. Must not ask anybody: `smart_http.rs` does.
//!
//! Servers announce their capabilities, and redirect, in the answer to another request than the one
//! that lists. So the memory of a server ends after a day, and a redirected upstream is never
//! remembered: its redirect may change while the former target still answers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::listing::ls_refs::Server;

/// How long to believe what a server has shown. After that, one listing takes two requests.
const BELIEVED: Duration = Duration::from_hours(24);

/// The server that a first request expects: most have SHA-1 repositories.
const GUESS: Server = Server { object_format: None };

/// The servers that earlier listings have met, at most one for each upstream. Threads share it.
#[derive(Debug, Default)]
pub(super) struct OneRequest {
    /// Whether to assume that an unknown server speaks protocol version 2.
    is_guessing: bool,
    shown: Mutex<HashMap<UpstreamUrl, (Shown, Instant)>>,
}

#[derive(Debug, Clone, Copy)]
enum Shown {
    /// Version 2 of the protocol.
    Version2(Server),
    /// Another answer to one request than to two.
    Unlike,
}

impl OneRequest {
    /// Makes an empty memory. With `is_guessing`, it names servers that have shown nothing yet.
    pub(super) fn new(is_guessing: bool) -> Self {
        Self { is_guessing, ..Self::default() }
    }

    /// Returns the server of `url` if one request should list it.
    pub(super) fn server(&self, url: &UpstreamUrl, now: Instant) -> Option<Server> {
        let mut shown = self.shown();
        if shown.get(url).is_some_and(|(_, since)| now.saturating_duration_since(*since) >= BELIEVED) {
            shown.remove(url);
        }
        match shown.get(url) {
            Some((Shown::Version2(server), _)) => Some(*server),
            Some((Shown::Unlike, _)) => None,
            None => self.is_guessing.then_some(GUESS),
        }
    }

    /// Remembers that two requests to `url` have listed tags, without a redirect.
    pub(super) fn add(&self, url: &UpstreamUrl, server: Server, now: Instant) {
        self.shown().entry(url.clone()).or_insert((Shown::Version2(server), now));
    }

    /// Remembers that two requests have listed `url` after one had not.
    pub(super) fn refuse(&self, url: &UpstreamUrl, now: Instant) {
        self.shown().insert(url.clone(), (Shown::Unlike, now));
    }

    /// Forgets what the server of `url` has shown.
    pub(super) fn forget(&self, url: &UpstreamUrl) {
        self.shown().remove(url);
    }

    /// Forgets what all servers have shown.
    pub(super) fn forget_all(&self) {
        self.shown().clear();
    }

    fn shown(&self) -> MutexGuard<'_, HashMap<UpstreamUrl, (Shown, Instant)>> {
        // A panic elsewhere cannot leave the map half changed.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::listing::ls_refs::ObjectFormat;

    const SHA256: Server = Server { object_format: Some(ObjectFormat::Sha256) };

    #[test]
    fn server_shown_is_believed_for_a_day() {
        let (url, now) = ("https://example.org/a".parse().unwrap(), Instant::now());
        let memory = OneRequest::new(false);
        assert_eq!(memory.server(&url, now), None);
        memory.add(&url, SHA256, now);
        assert_eq!(memory.server(&url, now + BELIEVED / 2), Some(SHA256));
        assert_eq!(memory.server(&"https://example.org/b".parse().unwrap(), now), None);
        assert_eq!(memory.server(&url, now + BELIEVED), None);
        memory.add(&url, GUESS, now);
        memory.forget(&url);
        assert_eq!(memory.server(&url, now), None);
        memory.add(&url, GUESS, now);
        memory.forget_all();
        assert_eq!(memory.server(&url, now), None);
    }

    #[test]
    fn server_that_refused_once_is_not_asked_again_for_a_day() {
        let (url, now) = ("https://example.org/a".parse().unwrap(), Instant::now());
        for is_guessing in [false, true] {
            let memory = OneRequest::new(is_guessing);
            memory.add(&url, SHA256, now);
            memory.refuse(&url, now);
            // Two requests list it from now on, which must not undo the refusal.
            memory.add(&url, SHA256, now);
            assert_eq!(memory.server(&url, now + BELIEVED / 2), None);
            assert_eq!(memory.server(&url, now + BELIEVED), is_guessing.then_some(GUESS));
        }
    }
}
