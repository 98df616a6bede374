//! Chooses which of a host's addresses to connect to, so that dead ones do not delay the others.
//!
//! A host may have addresses at which nothing answers, mostly those of an IP version that this
//! network lacks. ureq's [`TcpConnector`](ureq::unversioned::transport::TcpConnector) tries the addresses in the resolver's order, gives the
//! first one more than half of the time, and remembers no failure: with one dead IPv6 address in
//! front, each new connection used up 40 of the listing's 60 seconds. A short `timeout_connect`
//! would not help: ureq divides it in the same way, so it would also cut off hosts that are slow
//! but have one address only.
//!
//! Here the IP versions take turns, each address but the last has a short time, and an address that
//! failed comes last for a while. An earlier version preferred the address that connected last. A
//! successful connect earns no preference any more: a hung machine still accepts connections, and
//! stayed first for ever.
//!
//! Try ureq's connector again when it connects to several addresses at once (RFC 8305).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::transport::time::Duration as Time;
use ureq::unversioned::transport::{ConnectionDetails, Connector, Either, Transport};

use peipkg_format::sort;

use crate::upstream::listing::net::tcp::TcpTransport;
use crate::upstream::listing::net::tls;

/// How long to wait for an address while there are others: a handshake around the world takes a
/// third of a second, and one lost packet a second more.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How long an address that failed comes last. After that, trying it again may cost an [`ATTEMPT`].
const DEMOTION: Duration = Duration::from_mins(10);

/// How many failed addresses are remembered: far more than a farm's hosts have, and it bounds the
/// memory if a name server invents addresses.
const MAX_FAILED: usize = 1000;

/// The buffers below TLS, in bytes: rustls reads as much at a time. A connection at rest keeps them,
/// beside those above TLS.
const BELOW_TLS: usize = 4 * 1024;

/// Connects to the first address that answers.
pub(crate) struct AddressConnector {
    below_tls: Config,
    attempt: Duration,
    /// The addresses that failed to connect, and when.
    failed: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Default for AddressConnector {
    fn default() -> Self {
        Self::new(ATTEMPT)
    }
}

impl AddressConnector {
    /// Waits up to `attempt` for an address while there are others.
    fn new(attempt: Duration) -> Self {
        let below_tls = Config::builder().input_buffer_size(BELOW_TLS).output_buffer_size(BELOW_TLS).build();
        Self { below_tls, attempt, failed: Mutex::default() }
    }

    /// Returns the addresses that come last.
    fn demoted(&self) -> HashSet<SocketAddr> {
        let mut failed = self.failed();
        failed.retain(|_, since| since.elapsed() < DEMOTION);
        failed.keys().copied().collect()
    }

    fn record(&self, address: SocketAddr, has_failed: bool) {
        let mut failed = self.failed();
        if !has_failed {
            failed.remove(&address);
        } else if failed.len() < MAX_FAILED {
            failed.insert(address, Instant::now());
        }
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        // A panic elsewhere cannot leave the map half changed.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<In: Transport> Connector<In> for AddressConnector {
    type Out = Either<In, TcpTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A));
        }
        let addresses = in_turn(&details.addrs, &self.demoted());
        let mut failure = Error::HostNotFound;
        for (number, address) in (1..).zip(&addresses) {
            let mut timeout = tls::time_left(details);
            if timeout.after.is_zero() {
                return Err(Error::Timeout(timeout.reason));
            }
            if number < addresses.len() {
                timeout.after = timeout.after.min(Time::Exact(self.attempt));
            }
            let config = if details.needs_tls() { &self.below_tls } else { details.config };
            let result = TcpTransport::connect(address, timeout, config);
            self.record(*address, result.is_err());
            match result {
                Ok(transport) => return Ok(Some(Either::B(transport))),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl fmt::Debug for AddressConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressConnector").finish_non_exhaustive()
    }
}

/// Returns the order in which to try `addresses`: the `demoted` ones last, and in both parts the
/// two IP versions in turn, beginning with the version of the system's first choice.
fn in_turn(addresses: &[SocketAddr], demoted: &HashSet<SocketAddr>) -> Vec<SocketAddr> {
    let is_v6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let mut places = [0, 0];
    let mut order: Vec<_> = addresses
        .iter()
        .map(|address| {
            let is_second = address.is_ipv6() != is_v6_first;
            let place = &mut places[usize::from(is_second)];
            *place += 1;
            (demoted.contains(address), *place, is_second, *address)
        })
        .collect();
    sort::sort_by(&mut order, |a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    order.into_iter().map(|(.., address)| address).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use ureq::Agent;
    use ureq::http::Uri;
    use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
    use ureq::unversioned::transport::NextTimeout;

    use super::*;

    #[test]
    fn addresses_of_two_ip_versions_take_turns() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace().map(|address| address.parse().unwrap()).collect()
        };
        let check = |addresses: &str, demoted: &str, expected: &str| {
            let demoted = parse(demoted).into_iter().collect();
            assert_eq!(in_turn(&parse(addresses), &demoted), parse(expected), "{addresses}");
        };
        check("[::1]:1 [::2]:1 1.0.0.1:1 1.0.0.2:1", "", "[::1]:1 1.0.0.1:1 [::2]:1 1.0.0.2:1");
        check("1.0.0.1:1 1.0.0.2:1 [::1]:1", "", "1.0.0.1:1 [::1]:1 1.0.0.2:1");
        check("[::1]:1 [::2]:1 1.0.0.1:1", "[::1]:1", "1.0.0.1:1 [::2]:1 [::1]:1");
        check("[::1]:1 1.0.0.1:1", "1.0.0.1:1 [::1]:1", "[::1]:1 1.0.0.1:1");
        check("1.0.0.1:1", "1.0.0.1:2", "1.0.0.1:1");
        check("", "", "");
    }

    /// Resolves every name to the same addresses.
    #[derive(Debug)]
    struct Fixed(Vec<SocketAddr>);

    impl Resolver for Fixed {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
            let mut all = self.empty();
            self.0.iter().for_each(|address| all.push(*address));
            Ok(all)
        }
    }

    /// Resolves a name to other addresses each time.
    #[derive(Debug)]
    struct Turns(Mutex<VecDeque<Vec<SocketAddr>>>);

    impl Resolver for Turns {
        fn resolve(
            &self,
            uri: &Uri,
            config: &Config,
            timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, Error> {
            let turn = self.0.lock().unwrap().pop_front().unwrap();
            Fixed(turn).resolve(uri, config, timeout)
        }
    }

    #[test]
    fn address_not_answering_costs_its_attempt_once() {
        // Linux leaves connections beyond a full backlog without an answer.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&silent, 0).unwrap();
        let silent_at = silent.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&silent_at, Duration::from_millis(200)) {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the backlog has no end");
        }
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let served_at = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            for _ in 0..4 {
                let (mut stream, _) = server.accept().unwrap();
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            }
        });
        let attempt = Duration::from_millis(500);
        let connector = ().chain(AddressConnector::new(attempt));
        let addresses = Fixed(vec![silent_at, silent_at, served_at]);
        let agent = Agent::with_parts(Config::builder().proxy(None).build(), connector, addresses);
        let took = || {
            let begun = Instant::now();
            let limit = Some(Duration::from_secs(30));
            let request = agent.get("http://many.invalid/").config().timeout_global(limit).build();
            assert_eq!(request.call().unwrap().status(), 204);
            begun.elapsed()
        };
        let first = took();
        assert!(first >= attempt * 2 && first < Duration::from_secs(10), "{first:?}");
        // Three times, because a busy machine may delay one.
        let later = [(); 3].map(|()| took());
        assert!(later.iter().any(|took| *took < attempt), "{later:?}");
        serving.join().unwrap();
    }

    #[test]
    fn address_never_answering_a_request_does_not_stay_first() {
        // A hung machine: its kernel still accepts connections, and nothing reads them.
        let hung = TcpListener::bind("127.0.0.1:0").unwrap();
        let served = TcpListener::bind("127.0.0.1:0").unwrap();
        let (hung_at, served_at) = (hung.local_addr().unwrap(), served.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = served.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        });
        // The name server rotates the two addresses.
        let turns = Turns(Mutex::new([vec![hung_at, served_at], vec![served_at, hung_at]].into()));
        let connector = ().chain(AddressConnector::default());
        let agent = Agent::with_parts(Config::builder().proxy(None).build(), connector, turns);
        let ask = |limit| {
            let request = agent.get("http://many.invalid/").config().timeout_global(Some(limit)).build();
            request.call().map(|answer| answer.status().as_u16())
        };
        assert!(matches!(ask(Duration::from_millis(300)), Err(Error::Timeout(_))));
        assert_eq!(ask(Duration::from_secs(10)).unwrap(), 204);
        serving.join().unwrap();
    }
}
