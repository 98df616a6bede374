//! Listing tags over smart HTTP (gitprotocol-http, protocol version 2) without git:
//! two requests over connections that are kept for the next upstream of the host.
//!
//! It does what git does with a plain URL, redirects included, and nothing beyond:
//! no proxy, no credentials, no compression. An answer that it does not understand
//! is not an error but git's turn ([`NativeError::NotUnderstood`]).

use std::io::{self, BufReader, Read};
use std::time::{Duration, Instant, SystemTime};

use peipkg_format::duration;
use ureq::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, PRAGMA, RETRY_AFTER};
use ureq::http::{Response, StatusCode};
use ureq::unversioned::transport::Connector as _;
use ureq::{Agent, Body, BodyReader, Error};

use crate::farm::events::{PollError, PollFault};
use crate::process::Interrupt;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::listing::http_url;
use crate::upstream::listing::ls_refs::{self, AnswerError, Server};
use crate::upstream::listing::net::addresses::AddressConnector;
use crate::upstream::listing::net::resolver::RememberingResolver;
use crate::upstream::listing::net::tls::{NoTls, TlsConnector};
use crate::upstream::listing::retry_after;

/// The longest answer, in bytes: about 250,000 tags. Each poller may be at such a one, and
/// keeps a name or two for each line of it.
const ANSWER_LIMIT: u64 = 16 * 1024 * 1024;

/// As many redirects as git follows.
const MAX_REDIRECTS: u32 = 20;

/// How a connection reads: in pieces as large as a TLS record may be, two buffers for
/// each of the connections that are kept. The head of an answer must fit.
const INPUT_BUFFER: usize = 16 * 1024;

/// Our requests are a few hundred bytes long.
const OUTPUT_BUFFER: usize = 4 * 1024;

/// Servers and the proxies before them recognise git clients by how this begins.
const USER_AGENT: &str = concat!("git/2 (peipkg-manager/", env!("CARGO_PKG_VERSION"), ")");

const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const REQUEST: &str = "application/x-git-upload-pack-request";
const RESULT: &str = "application/x-git-upload-pack-result";

/// The HTTP client. Threads share it and its connections.
#[derive(Debug)]
pub struct SmartHttp {
    agent: Agent,
    deadline: Duration,
}

/// Why there is no native listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeError {
    /// The server speaks an older protocol version only: it is git's turn.
    OlderVersion,
    /// git may understand the upstream better, for this reason, in one line: it is git's turn.
    NotUnderstood(String),
    /// git would not fare better.
    Final(PollError),
}

/// One listing.
struct Listing<'a> {
    client: &'a SmartHttp,
    interrupt: &'a Interrupt,
    end: Instant,
    /// Where redirects have led to, if it is another host.
    redirected_to: Option<UpstreamUrl>,
}

impl SmartHttp {
    /// A client for `jobs` threads. A listing may take up to `deadline`.
    pub fn new(jobs: usize, deadline: Duration) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(USER_AGENT)
            .max_response_header_size(INPUT_BUFFER - 1024)
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            .max_idle_connections(jobs)
            .max_idle_connections_per_host(jobs)
            .build();
        let connector = ().chain(AddressConnector::default()).chain(TlsConnector::default());
        let agent = Agent::with_parts(config, connector, RememberingResolver::default());
        Self { agent, deadline }
    }

    /// Lists the tags of `url`, without `refs/tags/`, in the server's order. Where a
    /// redirect leads is asked only if `may_ask` does not object.
    ///
    /// # Errors
    /// When there is no listing that git would give as well.
    pub fn list_tags(
        &self,
        url: &UpstreamUrl,
        may_ask: impl Fn(&UpstreamUrl) -> Result<(), String>,
        interrupt: &Interrupt,
    ) -> Result<Vec<String>, NativeError> {
        self.list_tags_within(self.deadline, url, may_ask, interrupt)
    }

    /// The same, within another `limit`.
    ///
    /// # Errors
    /// As before.
    pub fn list_tags_within(
        &self,
        limit: Duration,
        url: &UpstreamUrl,
        may_ask: impl Fn(&UpstreamUrl) -> Result<(), String>,
        interrupt: &Interrupt,
    ) -> Result<Vec<String>, NativeError> {
        // A deadline beyond what a clock can show is none.
        let end = Instant::now().checked_add(limit).unwrap_or_else(Instant::now);
        let mut listing = Listing { client: self, interrupt, end, redirected_to: None };
        let (base, server) = listing.discover(url, may_ask)?;
        listing.list(&base, server)
    }
}

impl Listing<'_> {
    /// Asks what the server can do; where it is, after redirects.
    fn discover(
        &mut self,
        url: &UpstreamUrl,
        may_ask: impl Fn(&UpstreamUrl) -> Result<(), String>,
    ) -> Result<(UpstreamUrl, Server), NativeError> {
        let mut base = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.get(&http_url::info_refs(&base))?;
            if !(response.status().is_redirection() && response.headers().contains_key(LOCATION)) {
                let reader = self.expect(response, ADVERTISEMENT)?;
                let server = self.understand(reader, |reader| ls_refs::read_advertisement(reader))?;
                return Ok((base, server));
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let target = location.and_then(|location| http_url::resolve(&base, location));
            let target =
                target.ok_or_else(|| NativeError::NotUnderstood("an unusual redirect".to_owned()))?;
            if !matches!(target.scheme(), Some("http" | "https")) {
                return Err(failed(format!("redirected to {target}, which is not an HTTP URL")));
            }
            let Some(new_base) = http_url::redirected_base(&target) else {
                return Err(failed(format!("redirected to {target}, which is no place for info/refs")));
            };
            let plain = new_base.plain_http().map_err(|_| "its URL is not a plain one".to_owned());
            if let Err(reason) = plain.and_then(|_| may_ask(&new_base)) {
                return Err(NativeError::NotUnderstood(format!("a redirect to {target}: {reason}")));
            }
            // Drain the body so the connection can be reused.
            let _ = io::copy(&mut response.into_body().into_reader().take(64 * 1024), &mut io::sink());
            self.redirected_to = (new_base.host() != url.host()).then(|| new_base.clone());
            base = new_base;
        }
        Err(failed(format!("redirected more than {MAX_REDIRECTS} times")))
    }

    fn list(&mut self, base: &UpstreamUrl, server: Server) -> Result<Vec<String>, NativeError> {
        let body = ls_refs::request(server);
        let url = http_url::upload_pack(base);
        let response = self.send(|agent, timeout| {
            let request = agent.post(&url).header("git-protocol", "version=2").header(ACCEPT, RESULT);
            request.content_type(REQUEST).config().timeout_global(timeout).build().send(&body)
        })?;
        let reader = self.expect(response, RESULT)?;
        self.understand(reader, |reader| ls_refs::read_tags(reader, server))
    }

    fn get(&mut self, url: &str) -> Result<Response<Body>, NativeError> {
        self.send(|agent, timeout| {
            let request = agent.get(url).header("git-protocol", "version=2").header(PRAGMA, "no-cache");
            request.config().timeout_global(timeout).build().call()
        })
    }

    /// Makes a request, with what is left of the time; again, if the connection ended
    /// before there was an answer: a server may close a kept one at any time, and
    /// nothing that is asked here changes anything.
    fn send(
        &mut self,
        request: impl Fn(&Agent, Option<Duration>) -> Result<Response<Body>, Error>,
    ) -> Result<Response<Body>, NativeError> {
        let mut tries = 0..2;
        loop {
            if self.interrupt.is_triggered() {
                return Err(failed("the listing was interrupted"));
            }
            tries.next();
            let left = self.end.saturating_duration_since(Instant::now());
            match request(&self.client.agent, Some(left)) {
                Err(Error::Io(error)) if has_ended(&error) && !tries.is_empty() => {}
                result => return result.map_err(|error| self.failure(error)),
            }
        }
    }

    /// The body of `response`, if it is one of that type.
    fn expect(
        &self,
        response: Response<Body>,
        content_type: &str,
    ) -> Result<BodyReader<'static>, NativeError> {
        let (head, body) = response.into_parts();
        let field = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let status = head.status;
        let refusal = |fault| {
            let reason = format!("the server answered with status {}", status.as_u16());
            Err(NativeError::Final(PollError { reason, fault }))
        };
        // A server error without a word about the time is this repository's, not the host's.
        if status.is_server_error() && field(RETRY_AFTER).is_none() {
            return refusal(PollFault::Other);
        }
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let pause = retry_after::parse(field(RETRY_AFTER), SystemTime::now());
            return refusal(PollFault::Busy { pause, redirected_to: self.redirected_to.clone() });
        }
        let mut reader = body.into_with_config().limit(ANSWER_LIMIT).reader();
        let found = field(CONTENT_TYPE).unwrap_or_default();
        let found_type = found.split(';').next().unwrap_or_default().trim();
        let reason = if status != StatusCode::OK {
            format!("the answer has status {}", status.as_u16())
        } else if !found_type.eq_ignore_ascii_case(content_type) {
            format!("the answer has type {found:?}")
        } else if head.headers.contains_key(CONTENT_ENCODING) {
            "the answer is encoded".to_owned()
        } else {
            return Ok(reader);
        };
        self.read_on(&mut reader)?;
        Err(NativeError::NotUnderstood(reason))
    }

    /// Reads an answer by `read`. What is not understood is read to its end all the same:
    /// an endless answer must not be handed on to git, which would keep all of it.
    fn understand<T>(
        &self,
        reader: BodyReader<'static>,
        read: impl Fn(&mut BufReader<BodyReader<'static>>) -> Result<T, AnswerError>,
    ) -> Result<T, NativeError> {
        let mut reader = BufReader::new(reader);
        let failure = match read(&mut reader) {
            Ok(result) => return Ok(result),
            Err(AnswerError::Read(error)) => return Err(self.failure(error.into())),
            Err(AnswerError::Remote(message)) => {
                return Err(failed(format!("the server says: {message}")));
            }
            Err(AnswerError::OlderVersion) => NativeError::OlderVersion,
            Err(error @ AnswerError::NotUnderstood(_)) => NativeError::NotUnderstood(error.to_string()),
        };
        self.read_on(&mut reader)?;
        Err(failure)
    }

    fn read_on(&self, reader: &mut impl Read) -> Result<(), NativeError> {
        io::copy(reader, &mut io::sink()).map(drop).map_err(|error| self.failure(error.into()))
    }

    fn failure(&self, error: Error) -> NativeError {
        match error {
            Error::Timeout(_) => {
                let limit = duration::format(self.client.deadline);
                self.no_answer(format!("no complete answer within {limit}"))
            }
            Error::BodyExceedsLimit(_) => {
                failed(format!("the answer is longer than {} MiB", ANSWER_LIMIT / 1024 / 1024))
            }
            // The end came within a chunk.
            Error::BodyStalled => failed(CUT_SHORT),
            Error::Io(error) if has_ended(&error) => failed(CUT_SHORT),
            // git may trust what this does not: another store, an older kind of certificate.
            Error::Other(error) if error.is::<NoTls>() => NativeError::NotUnderstood(error.to_string()),
            Error::Io(error) => self.no_answer(format!("the connection failed: {error}")),
            error @ (Error::HostNotFound | Error::ConnectionFailed) => {
                self.no_answer(format!("the connection failed: {error}"))
            }
            Error::Protocol(_) | Error::LargeResponseHeader(..) | Error::Http(_) | Error::BadUri(_) => {
                NativeError::NotUnderstood(error.to_string())
            }
            error => failed(format!("the connection failed: {error}")),
        }
    }

    /// Blames the upstream's host for a silence, but not for the silence of a host that it redirects to.
    fn no_answer(&self, reason: String) -> NativeError {
        let fault = if self.redirected_to.is_some() { PollFault::Other } else { PollFault::NoAnswer };
        NativeError::Final(PollError { reason, fault })
    }
}

/// What is said of an answer that ends too early, wherever that is noticed.
const CUT_SHORT: &str = "the server closed the connection before its answer was complete";

/// A failure for which the upstream's host is not to blame.
fn failed(reason: impl Into<String>) -> NativeError {
    NativeError::Final(PollError { reason: reason.into(), fault: PollFault::Other })
}

/// Whether the other side has ended the connection.
fn has_ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
