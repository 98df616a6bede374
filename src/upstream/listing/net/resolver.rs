//! Host names to addresses, each name once a minute.
//!
//! ureq resolves for every request, those on a kept connection included, in a thread
//! of its own. A sweep over many repositories of few hosts would ask for the same
//! name hundreds of times. An address needs no thread at all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long an answer is used: the system does not tell how long it holds, and no
/// upstream is polled more often than once a minute.
const LIFETIME: Duration = Duration::from_mins(1);

/// A resolver that remembers. The answers that have expired are forgotten whenever one is added.
#[derive(Debug, Default)]
pub(in crate::upstream::listing) struct RememberingResolver {
    system: DefaultResolver,
    known: Mutex<HashMap<String, (Instant, Vec<SocketAddr>)>>,
}

impl Resolver for RememberingResolver {
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
            return Ok(self.collect(&[address]));
        }
        let now = Instant::now();
        let is_fresh = |since: Instant| now.saturating_duration_since(since) < LIFETIME;
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, addresses)) = known().get(&host)
            && is_fresh(*since)
        {
            return Ok(self.collect(addresses));
        }
        let resolved = self.system.resolve(uri, config, timeout)?;
        let mut known = known();
        known.retain(|_, (since, _)| is_fresh(*since));
        known.insert(host, (now, resolved.to_vec()));
        Ok(resolved)
    }
}

impl RememberingResolver {
    fn collect(&self, addresses: &[SocketAddr]) -> ResolvedSocketAddrs {
        let mut all = self.empty();
        for address in addresses {
            all.push(*address);
        }
        all
    }
}
