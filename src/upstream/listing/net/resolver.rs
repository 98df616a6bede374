//! Resolves host names, and caches each answer for a minute.
//!
//! ureq asks its resolver at every request, even if a pooled connection serves it. Its
//! [`DefaultResolver`] caches nothing, and starts a thread for each lookup that has a time limit,
//! as all of ours have. A sweep over 500 repositories of one host would start 1000 threads and ask
//! for one name 1000 times. This resolver only adds the cache and leaves the lookup to ureq's. It
//! resolves literal addresses without a thread.
//!
//! Try ureq's alone again when ureq resolves only for new connections.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long a cached answer is used: the system does not tell for how long it is valid, and no
/// upstream is polled more often than once a minute.
const LIFETIME: Duration = Duration::from_mins(1);

/// Resolves by the system. Each new answer removes the expired ones, which bounds the cache.
#[derive(Debug, Default)]
pub(crate) struct CachingResolver {
    system: DefaultResolver,
    cache: Mutex<HashMap<String, (Instant, ResolvedSocketAddrs)>>,
}

impl CachingResolver {
    fn cache(&self) -> MutexGuard<'_, HashMap<String, (Instant, ResolvedSocketAddrs)>> {
        // A panic elsewhere cannot leave the map half changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
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
        let addresses = self.system.resolve(uri, config, timeout)?;
        let mut cache = self.cache();
        cache.retain(|_, (since, _)| is_fresh(*since));
        cache.insert(host, (now, addresses.clone()));
        Ok(addresses)
    }
}
