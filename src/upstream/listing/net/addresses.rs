//! Which of a host's addresses is connected to: none that is silent holds up the others.
//!
//! A host may have addresses that nothing answers at, mostly those of an IP version
//! that does not work here. ureq gives the first of them more than half of the time. Here
//! the versions take turns, each address but the last has a short time only, and one that
//! could not be connected to comes last for a while. That one could be is no merit: a machine
//! that has hung goes on accepting connections, and would be the first for ever.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::time::Duration as Time;
use ureq::unversioned::transport::{ConnectionDetails, Connector, Either, TcpConnector, Transport};

use crate::upstream::listing::net::tls;

/// What an address may take to answer while there are others: a handshake around the
/// world takes a third of a second, and one packet lost a second more.
const ATTEMPT: Duration = Duration::from_secs(2);

/// For how long an address that could not be connected to comes last. Each time it has passed, that costs an [`ATTEMPT`].
const SHUNNED: Duration = Duration::from_mins(10);

/// How many such addresses are remembered.
const MAX_REMEMBERED: usize = 1000;

/// Connects to the first address that answers.
pub(in crate::upstream::listing) struct AddressConnector {
    tcp: TcpConnector,
    attempt: Duration,
    /// The addresses that could not be connected to, and when.
    silent: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Default for AddressConnector {
    fn default() -> Self {
        Self::new(ATTEMPT)
    }
}

impl AddressConnector {
    /// Gives an address `attempt` while there are others.
    fn new(attempt: Duration) -> Self {
        Self { tcp: TcpConnector::default(), attempt, silent: Mutex::default() }
    }

    /// The addresses that come last.
    fn silent(&self) -> HashSet<SocketAddr> {
        let mut silent = self.known();
        silent.retain(|_, since| since.elapsed() < SHUNNED);
        silent.keys().copied().collect()
    }

    fn note(&self, address: SocketAddr, is_silent: bool) {
        let mut silent = self.known();
        if !is_silent {
            silent.remove(&address);
        } else if silent.len() < MAX_REMEMBERED {
            silent.insert(address, Instant::now());
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        // A map of addresses is whole whatever panicked beside it.
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<In: Transport> Connector<In> for AddressConnector {
    type Out = <TcpConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A));
        }
        let addresses = in_turn(&details.addrs, &self.silent());
        let mut failure = Error::HostNotFound;
        for (number, address) in (1..).zip(&addresses) {
            let mut timeout = tls::left(details);
            if timeout.after.is_zero() {
                return Err(Error::Timeout(timeout.reason));
            }
            if number < addresses.len() {
                timeout.after = timeout.after.min(Time::Exact(self.attempt));
            }
            let mut addrs = ResolvedSocketAddrs::from_fn(|_| *address);
            addrs.push(*address);
            let attempt = ConnectionDetails {
                uri: details.uri,
                addrs,
                config: details.config,
                request_level: details.request_level,
                resolver: details.resolver,
                now: (details.current_time)(),
                timeout,
                current_time: details.current_time.clone(),
                run_connector: details.run_connector.clone(),
                register_shutdown: details.register_shutdown.clone(),
            };
            let result = Connector::<In>::connect(&self.tcp, &attempt, None);
            self.note(*address, result.is_err());
            match result {
                Ok(transport) => return Ok(transport),
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

/// The order to try `addresses` in: those that were `silent` after the others; of either the two IP versions in
/// turn, beginning with that of the system's first choice.
fn in_turn(addresses: &[SocketAddr], silent: &HashSet<SocketAddr>) -> Vec<SocketAddr> {
    let begins_with = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let mut places = [0, 0];
    let mut order: Vec<_> = addresses
        .iter()
        .map(|address| {
            let is_second = address.is_ipv6() != begins_with;
            let place = &mut places[usize::from(is_second)];
            *place += 1;
            (silent.contains(address), *place, is_second, *address)
        })
        .collect();
    order.sort_by_key(|(is_silent, place, is_second, _)| (*is_silent, *place, *is_second));
    order.into_iter().map(|(.., address)| address).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use ureq::Agent;
    use ureq::config::Config;
    use ureq::http::Uri;
    use ureq::unversioned::resolver::Resolver;
    use ureq::unversioned::transport::NextTimeout;

    use super::*;

    #[test]
    fn ip_versions_take_turns() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace().map(|address| address.parse().unwrap()).collect()
        };
        let check = |addresses: &str, silent: &str, expected: &str| {
            let silent = parse(silent).into_iter().collect();
            assert_eq!(in_turn(&parse(addresses), &silent), parse(expected), "{addresses}");
        };
        check("[::1]:1 [::2]:1 1.0.0.1:1 1.0.0.2:1", "", "[::1]:1 1.0.0.1:1 [::2]:1 1.0.0.2:1");
        check("1.0.0.1:1 1.0.0.2:1 [::1]:1", "", "1.0.0.1:1 [::1]:1 1.0.0.2:1");
        check("[::1]:1 [::2]:1 1.0.0.1:1", "[::1]:1", "1.0.0.1:1 [::2]:1 [::1]:1");
        check("[::1]:1 1.0.0.1:1", "1.0.0.1:1 [::1]:1", "[::1]:1 1.0.0.1:1");
        check("1.0.0.1:1", "1.0.0.1:2", "1.0.0.1:1");
        check("", "", "");
    }

    /// Gives a name the addresses of a test.
    #[derive(Debug)]
    struct Fixed(Vec<SocketAddr>);

    impl Resolver for Fixed {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
            let mut all = self.empty();
            self.0.iter().for_each(|address| all.push(*address));
            Ok(all)
        }
    }

    /// Gives a name other addresses each time.
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
        // With nobody accepting and no room for more, Linux leaves further connections without an answer.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&silent, 0).unwrap();
        let silent_at = silent.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&silent_at, Duration::from_millis(200)) {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue has no end");
        }
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let served_at = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            for _ in 0..2 {
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
        let second = took();
        assert!(second < attempt, "{second:?}");
        serving.join().unwrap();
    }

    #[test]
    fn address_never_answering_a_request_does_not_stay_first() {
        // A machine that has hung: its system still accepts connections, and nothing reads them.
        let hung = TcpListener::bind("127.0.0.1:0").unwrap();
        let served = TcpListener::bind("127.0.0.1:0").unwrap();
        let (hung_at, served_at) = (hung.local_addr().unwrap(), served.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = served.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        });
        // The name server names them in turn.
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
