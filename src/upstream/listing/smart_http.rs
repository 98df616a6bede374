//! Lists tags over smart HTTP (gitprotocol-http, protocol version 2) without git: by two requests, or
//! by the second alone where the answer to the first is known. Listings of one host share its
//! connections.
//!
//! The client does what git does with a plain URL, redirects included, and nothing else: no proxy,
//! no credentials, no compression. If it does not understand an answer, git lists the upstream
//! ([`NativeError::NotUnderstood`]). But an answer that is encoded, cut off or too long is an error:
//! a hostile one would swell git.

use std::borrow::Cow;
use std::io::{self, BufReader, Read};
use std::time::{Duration, Instant, SystemTime};

use log::debug;
use peipkg_format::duration;
use peipkg_format::problem::excerpt;
use ureq::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, PRAGMA, RETRY_AFTER,
};
use ureq::http::{Response, StatusCode};
use ureq::unversioned::transport::Connector as _;
use ureq::{Agent, Body, BodyReader, Error};

use crate::farm::events::{PollError, PollFault, Tags};
use crate::process::Interrupt;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::listing::http_url;
use crate::upstream::listing::ls_refs::{self, AnswerError, Server};
use crate::upstream::listing::net::addresses::AddressConnector;
use crate::upstream::listing::net::resolver::CachingResolver;
use crate::upstream::listing::net::tls::{NoTls, TlsConnector};
use crate::upstream::listing::one_request::OneRequest;
use crate::upstream::listing::pkt_line;
use crate::upstream::listing::{refusal, retry_after};

/// The longest answer, in bytes: about 250,000 annotated tags, whose lines have two ids. Each poller
/// may read one at the same time and holds its tags in memory, in half of the bytes.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

/// As many redirects as git follows.
const MAX_REDIRECTS: u32 = 20;

/// The input buffer of a connection, in bytes: a TLS record fits, and the head of an answer must.
/// Each pooled connection has one.
const INPUT_BUFFER: usize = 16 * 1024;

/// The output buffer of a connection, in bytes. Our requests are a few hundred bytes long.
const OUTPUT_BUFFER: usize = 4 * 1024;

/// How much of an answer is read ahead from that buffer, in bytes.
const READ_AHEAD: usize = 4 * 1024;

/// Begins like git's: servers and their proxies recognise git clients by that.
const USER_AGENT: &str = concat!("git/2 (peipkg-manager/", env!("CARGO_PKG_VERSION"), ")");

const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const REQUEST: &str = "application/x-git-upload-pack-request";
const RESULT: &str = "application/x-git-upload-pack-result";
const PAGE: &str = "text/html";

/// The HTTP client. Threads share it and its connections.
#[derive(Debug)]
pub struct SmartHttp {
    agent: Agent,
    deadline: Duration,
    one_request: OneRequest,
}

/// Why there is no native listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeError {
    /// The server speaks only an older protocol version. git should list.
    OlderVersion,
    /// git may understand the upstream better and should list. The reason is one line.
    NotUnderstood(String),
    /// The answer is a page for people, of a login or a check for robots. The server may answer git
    /// differently, but git takes some pages for a repository without tags. The reason is one line.
    Page(String),
    /// git would fail too.
    Final(PollError),
}

struct Listing<'a> {
    client: &'a SmartHttp,
    interrupt: &'a Interrupt,
    end: Instant,
    /// The upstream's URL after redirects, if they led to another host.
    redirected_to: Option<UpstreamUrl>,
    /// Whether two requests follow if this one fails.
    is_one_request: bool,
}

impl SmartHttp {
    /// Makes a client for `jobs` threads. A listing may take up to `deadline`.
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
        let agent = Agent::with_parts(config, connector, CachingResolver::default());
        Self { agent, deadline, one_request: OneRequest::default() }
    }

    /// Lists by one request also the upstreams whose server has shown nothing yet.
    #[must_use]
    pub(crate) fn guessing(self) -> Self {
        Self { one_request: OneRequest::new(true), ..self }
    }

    /// Forgets which upstreams one request lists.
    pub(crate) fn forget(&self) {
        self.one_request.forget_all();
    }

    /// Lists the tags of `url`, without `refs/tags/`, in the server's order. The deadline counts
    /// from `begun`. Follows a redirect to a URL only if `may_ask` returns no reason against it.
    ///
    /// # Errors
    /// When the upstream gives no listing, or one that git might read differently.
    pub fn list_tags(
        &self,
        url: &UpstreamUrl,
        begun: Instant,
        may_ask: impl Fn(&UpstreamUrl) -> Result<(), String>,
        interrupt: &Interrupt,
    ) -> Result<Tags, NativeError> {
        let asked = self.one_request.server(url, begun);
        if let Some(server) = asked
            && let Some(tags) = self.list_by_one_request(url, server, begun, interrupt)?
        {
            return Ok(tags);
        }
        let mut listing = Listing::new(self, begun, interrupt);
        let (base, server) = listing.discover(url, may_ask)?;
        let tags = listing.list(&base, server)?;
        if asked.is_some() {
            self.one_request.refuse(url, begun);
        } else if base == *url && tags.len() > 0 {
            self.one_request.add(url, server, begun);
        }
        Ok(tags)
    }

    /// Lists the tags of `url` by one request. Returns `None` if two requests should list them, and
    /// forgets the server then: if two fail as well, two are right until it has recovered.
    ///
    /// # Errors
    /// When the host asks for a pause.
    fn list_by_one_request(
        &self,
        url: &UpstreamUrl,
        server: Server,
        begun: Instant,
        interrupt: &Interrupt,
    ) -> Result<Option<Tags>, NativeError> {
        let mut listing = Listing { is_one_request: true, ..Listing::new(self, begun, interrupt) };
        let result = listing.list(url, server);
        if let Ok(tags) = &result
            && tags.len() > 0
        {
            return result.map(Some);
        }
        self.one_request.forget(url);
        let reason = match result {
            // A server that did not understand the request may answer so too.
            Ok(_) => "the answer has no tags".to_owned(),
            // Two requests may follow after the pause, in case it is for a single one only.
            Err(NativeError::Final(error)) if matches!(error.fault, PollFault::Busy { .. }) => {
                return Err(NativeError::Final(error));
            }
            Err(NativeError::Final(error)) => error.reason,
            Err(NativeError::NotUnderstood(reason) | NativeError::Page(reason)) => reason,
            Err(NativeError::OlderVersion) => AnswerError::OlderVersion.to_string(),
        };
        debug!(upstream:% = url, reason; "one request did not list upstream");
        Ok(None)
    }
}

impl<'a> Listing<'a> {
    fn new(client: &'a SmartHttp, begun: Instant, interrupt: &'a Interrupt) -> Self {
        let end = begun + client.deadline;
        Self { client, interrupt, end, redirected_to: None, is_one_request: false }
    }

    /// Asks for the server's capabilities. Returns them and the upstream's URL after redirects.
    fn discover(
        &mut self,
        url: &UpstreamUrl,
        may_ask: impl Fn(&UpstreamUrl) -> Result<(), String>,
    ) -> Result<(UpstreamUrl, Server), NativeError> {
        let mut base = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.get(&http_url::info_refs(&base))?;
            if !(response.status().is_redirection() && response.headers().contains_key(LOCATION)) {
                let reader = self.body_of_type(response, ADVERTISEMENT)?;
                let server = self.read_answer(reader, |reader| ls_refs::read_advertisement(reader))?;
                return Ok((base, server));
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let target = location.and_then(|location| http_url::resolve(&base, location));
            let target = target.ok_or_else(|| {
                NativeError::NotUnderstood("a redirect to neither a URL nor an absolute path".to_owned())
            })?;
            let shown = target.to_string();
            let shown = excerpt(&shown);
            if !matches!(target.scheme(), Some("http" | "https")) {
                return Err(failed(format!("redirected to {shown}, which is not an HTTP URL")));
            }
            let Some(new_base) = http_url::redirected_base(&target) else {
                return Err(failed(format!("redirected to {shown}, which is not an upstream's info/refs")));
            };
            let plain = new_base.plain_http().map_err(|unusual| unusual.to_string());
            if let Err(reason) = plain.and_then(|_| may_ask(&new_base)) {
                return Err(NativeError::NotUnderstood(format!("a redirect to {shown}: {reason}")));
            }
            // Drain the body so the connection can be reused.
            let _ = refusal::discard(&mut response.into_body().into_reader().take(64 * 1024));
            self.redirected_to = (new_base.host() != url.host()).then(|| new_base.clone());
            base = new_base;
        }
        Err(failed(format!("redirected more than {MAX_REDIRECTS} times")))
    }

    fn list(&mut self, base: &UpstreamUrl, server: Server) -> Result<Tags, NativeError> {
        let body = ls_refs::request(server);
        let url = http_url::upload_pack(base);
        // Leave most of the time to the two requests, if the server does not answer to one alone.
        let answers_within = self.is_one_request.then_some(self.client.deadline / 4);
        let response = self.send(|agent, timeout, idle| {
            let request = agent.post(&url).header("git-protocol", "version=2").header(ACCEPT, RESULT);
            let request = request.header(ACCEPT_ENCODING, "identity").content_type(REQUEST);
            let request = request.config().timeout_recv_response(answers_within);
            request.timeout_global(timeout).max_idle_age(idle).build().send(&body)
        })?;
        let reader = self.body_of_type(response, RESULT)?;
        self.read_answer(reader, |reader| ls_refs::read_tags(reader, server))
    }

    fn get(&mut self, url: &str) -> Result<Response<Body>, NativeError> {
        self.send(|agent, timeout, idle| {
            let request = agent.get(url).header("git-protocol", "version=2").header(PRAGMA, "no-cache");
            let request = request.header(ACCEPT_ENCODING, "identity");
            request.config().timeout_global(timeout).max_idle_age(idle).build().call()
        })
    }

    /// Calls `request` with the time that is left for it, and the longest time that its connection may have
    /// been idle in the pool. Retries once if the connection ends before an answer: a server may close a
    /// pooled connection at any time, and the request changes nothing. The retry takes a new connection: a
    /// server that closes one closes all of them.
    fn send(
        &mut self,
        request: impl Fn(&Agent, Option<Duration>, Duration) -> Result<Response<Body>, Error>,
    ) -> Result<Response<Body>, NativeError> {
        let mut idle = self.client.agent.config().max_idle_age();
        loop {
            if self.interrupt.is_triggered() {
                return Err(failed("the listing was interrupted"));
            }
            let left = self.end.saturating_duration_since(Instant::now());
            match request(&self.client.agent, Some(left), idle) {
                Err(Error::Io(error)) if has_ended(&error) && !idle.is_zero() => idle = Duration::ZERO,
                result => return result.map_err(|error| self.failure(error)),
            }
        }
    }

    /// Returns the body of `response`, if the answer is a success of type `content_type`. Drains
    /// the body of an answer that git should read, see [`Self::drain`].
    fn body_of_type(
        &self,
        response: Response<Body>,
        content_type: &str,
    ) -> Result<BodyReader<'static>, NativeError> {
        let (head, body) = response.into_parts();
        let field = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let status = head.status;
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let asked = retry_after::parse(field(RETRY_AFTER), SystemTime::now());
            // A server error without Retry-After is this repository's fault, not the host's.
            let fault = if status.is_server_error() && field(RETRY_AFTER).is_none() {
                PollFault::Other
            } else {
                let pause = retry_after::wait(asked);
                PollFault::Busy { pause, redirected_to: self.redirected_to.clone() }
            };
            // An end of the text that is slow to come must not take the time of the two requests.
            let body = (!self.is_one_request || fault != PollFault::Other).then_some(body);
            let reason = refusal::reason(status, asked, &head.headers, body);
            return Err(NativeError::Final(PollError { reason, fault }));
        }
        // git would unpack it in memory, and a few KiB may become gigabytes.
        let encoding = head
            .headers
            .get(CONTENT_ENCODING)
            .map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()));
        if !["", "identity"].contains(&encoding.trim().to_ascii_lowercase().as_str()) {
            let encoding = pkt_line::one_line(encoding.as_bytes());
            return Err(failed(format!("the answer has the encoding {encoding:?}, which was not asked for")));
        }
        let mut reader = body.into_with_config().limit(MAX_ANSWER).reader();
        let found = field(CONTENT_TYPE).unwrap_or_default();
        let found_type = found.split(';').next().unwrap_or_default().trim();
        let reason = if status != StatusCode::OK {
            format!("the answer has status {}", status.as_u16())
        } else if !found_type.eq_ignore_ascii_case(content_type) {
            format!("the answer has type {:?}", excerpt(found))
        } else {
            return Ok(reader);
        };
        self.drain(&mut reader)?;
        let is_page = status == StatusCode::OK && found_type.eq_ignore_ascii_case(PAGE);
        Err(if is_page { NativeError::Page(reason) } else { NativeError::NotUnderstood(reason) })
    }

    /// Reads an answer by `read`. Drains one that git should read, see [`Self::drain`].
    fn read_answer<T>(
        &self,
        reader: BodyReader<'static>,
        read: impl Fn(&mut BufReader<BodyReader<'static>>) -> Result<T, AnswerError>,
    ) -> Result<T, NativeError> {
        let mut reader = BufReader::with_capacity(READ_AHEAD, reader);
        let failure = match read(&mut reader) {
            Ok(result) => return Ok(result),
            Err(AnswerError::Read(error)) => return Err(self.failure(error.into())),
            // A server that cuts its answers off for us may not do so for git.
            Err(error @ AnswerError::CutOff) => return Err(failed(error.to_string())),
            Err(AnswerError::Remote(message)) => {
                return Err(failed(format!("the server says: {message}")));
            }
            Err(AnswerError::OlderVersion) => NativeError::OlderVersion,
            Err(error @ AnswerError::NotUnderstood(_)) => NativeError::NotUnderstood(error.to_string()),
        };
        self.drain(&mut reader)?;
        Err(failure)
    }

    /// Reads an answer to its end before git asks for the same one: git would hold an endless
    /// answer in memory. Leaves the time to the two requests if they follow.
    fn drain(&self, reader: &mut impl Read) -> Result<(), NativeError> {
        if self.is_one_request {
            return Ok(());
        }
        refusal::discard(reader).map_err(|error| self.failure(error.into()))
    }

    fn failure(&self, error: Error) -> NativeError {
        match error {
            Error::Timeout(_) => {
                let limit = duration::format(self.client.deadline);
                self.no_answer(format!("no complete answer within {limit}"))
            }
            Error::BodyExceedsLimit(_) => {
                failed(format!("the answer is longer than {} MiB", MAX_ANSWER / 1024 / 1024))
            }
            // ureq reports an end within a chunk as a stalled body.
            Error::BodyStalled => failed(CUT_SHORT),
            Error::Io(error) if has_ended(&error) => failed(CUT_SHORT),
            // git may use another trust store or accept older certificates.
            Error::Other(error) if error.is::<NoTls>() => NativeError::NotUnderstood(error.to_string()),
            Error::Io(error) => self.no_answer(format!("the connection failed: {error}")),
            error @ (Error::HostNotFound | Error::ConnectionFailed) => {
                self.no_answer(format!("the connection failed: {error}"))
            }
            Error::LargeResponseHeader(..) => failed("the head of the answer is too long"),
            Error::Protocol(_) | Error::Http(_) | Error::BadUri(_) => {
                NativeError::NotUnderstood(error.to_string())
            }
            error => failed(format!("the connection failed: {error}")),
        }
    }

    /// Blames the upstream's host for giving no answer, unless it has redirected to another host.
    fn no_answer(&self, reason: String) -> NativeError {
        let fault = if self.redirected_to.is_some() { PollFault::Other } else { PollFault::NoAnswer };
        NativeError::Final(PollError { reason, fault })
    }
}

const CUT_SHORT: &str = "the server closed the connection before its answer was complete";

/// Makes an error that does not blame the upstream's host and that git cannot mend.
fn failed(reason: impl Into<String>) -> NativeError {
    NativeError::Final(PollError { reason: reason.into(), fault: PollFault::Other })
}

/// Returns whether the server has ended the connection.
fn has_ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
