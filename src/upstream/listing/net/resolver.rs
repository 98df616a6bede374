//! Resolves host names, and caches each answer for a minute.
//!
//! ureq asks its resolver at every request, even if a pooled connection serves it. Its
//! [`DefaultResolver`] caches nothing, and starts a thread for each lookup that has a time limit,
//! as all of ours have. A sweep over 500 repositories of one host would start 1000 threads and ask
//! for one name 1000 times. Where the system refuses that thread, ureq's panics, and a build that
//! leaves many processes behind would end the manager; here such a lookup fails.
//!
//! This resolver caches, and resolves literal addresses without a thread. Try ureq's alone again
//! when ureq resolves only for new connections and survives without a thread.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long a cached answer is used: the system does not tell for how long it is valid, and no
/// upstream is polled more often than once a minute.
const LIFETIME: Duration = Duration::from_mins(1);

/// The most addresses of a name that are used: as many as ureq has room for.
const MAX_ADDRESSES: usize = 16;

/// Resolves by the system. Each new answer removes the expired ones, which bounds the cache.
#[derive(Debug, Default)]
pub(crate) struct CachingResolver {
    cache: Mutex<HashMap<String, (Instant, ResolvedSocketAddrs)>>,
}

impl CachingResolver {
    fn cache(&self) -> MutexGuard<'_, HashMap<String, (Instant, ResolvedSocketAddrs)>> {
        // A panic elsewhere cannot leave the map half changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for CachingResolver {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(Error::BadUri(uri.to_string()));
        };
        let host = DefaultResolver::host_and_port(scheme, authority);
        let host = host.ok_or_else(|| Error::BadUri(uri.to_string()))?;
        if let Ok(address) = host.parse() {
            let mut addresses = self.empty();
            addresses.push(address);
            return Ok(addresses);
        }
        let now = Instant::now();
        let is_fresh = |since: Instant| now.saturating_duration_since(since) < LIFETIME;
        if let Some((since, addresses)) = self.cache().get(&host)
            && is_fresh(*since)
        {
            return Ok(addresses.clone());
        }
        let mut addresses = self.empty();
        for address in look_up(host.clone(), timeout)?.into_iter().take(MAX_ADDRESSES) {
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(Error::HostNotFound);
        }
        let mut cache = self.cache();
        cache.retain(|_, (since, _)| is_fresh(*since));
        cache.insert(host, (now, addresses.clone()));
        Ok(addresses)
    }
}

/// Asks the system for the addresses of `host`, which includes a port.
///
/// # Errors
/// When the system knows no address, does not answer in time, or refuses a thread.
fn look_up(host: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
    let (answer, answered) = bounded(1);
    // The system's function has no time limit; a thread that is late ends by itself.
    thread::Builder::new().name("resolver".into()).spawn(move || {
        let _ = answer.send(host.to_socket_addrs().map(Vec::from_iter));
    })?;
    match answered.recv_timeout(*timeout.after) {
        Ok(addresses) => Ok(addresses?),
        Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
        Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
    }
}
