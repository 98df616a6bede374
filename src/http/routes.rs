//! Answers the requests that the gate passes on, one after the other: all but `/healthz`. Only the
//! signed webhook may change the farm, and no answer may wait for a poll or a build.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam_channel::Sender;
use log::warn;
use peipkg_format::problem::excerpt;
use tiny_http::{Header, Method, Request, Response, Server};

use crate::farm::events::Event;
use crate::farm::status::{RefusedWebhooks, Status, Time};
use crate::http::limited::Limited;
use crate::http::metrics;
use crate::http::page;
use crate::http::signature;
use crate::http::snapshot::SnapshotRequest;
use crate::http::webhook::{self, Forge, Payload};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// Prometheus's text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const PAGE_HEADERS: &[(&str, &str)] = &[("Content-Security-Policy", page::POLICY)];
const READ_ONLY: &[(&str, &str)] = &[("Allow", "GET, HEAD")];

/// Answers requests from snapshots of the loop, and turns webhooks into events.
pub(super) struct Routes<M> {
    secret: Option<Vec<u8>>,
    events: Sender<M>,
    /// The last snapshot.
    snapshot: Arc<Status>,
    /// Its JSON, once somebody has asked for it.
    json: Option<Body>,
    bad_signatures: Limited<&'static str>,
    refused: RefusedWebhooks,
    unknown_paths: Limited<String>,
}

/// An answer to send.
struct Answer {
    status: u16,
    content_type: &'static str,
    body: Body,
    /// Headers that only this answer has.
    headers: &'static [(&'static str, &'static str)],
}

/// The body of an answer. An `Arc<[u8]>` would be a copy: two documents of a large farm at a time.
#[derive(Clone)]
struct Body(Arc<Vec<u8>>);

impl<M: From<Event> + From<SnapshotRequest>> Routes<M> {
    pub(super) fn new(secret: Option<Vec<u8>>, snapshot: Arc<Status>, events: Sender<M>) -> Self {
        let (bad_signatures, unknown_paths) = (Limited::default(), Limited::default());
        Self {
            secret,
            events,
            snapshot,
            json: None,
            bad_signatures,
            refused: RefusedWebhooks::default(),
            unknown_paths,
        }
    }

    /// Answers requests one after the other, until the process ends.
    pub(super) fn serve(mut self, server: &Server) {
        for mut request in server.incoming_requests() {
            let answer = self.answer(&mut request);
            // `tiny_http` would drain the rest of the body into a buffer of that length, and end the
            // process for lack of memory.
            let _ = io::copy(request.as_reader(), &mut io::sink());
            // An answer fails only if the gate has closed the connection.
            let _ = send(request, answer);
        }
    }

    fn answer(&mut self, request: &mut Request) -> Answer {
        let url = request.url().to_owned();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        match (path, request.method()) {
            ("/status", Method::Get | Method::Head) => {
                Answer { status: 200, content_type: JSON, body: self.status(), headers: &[] }
            }
            ("/", Method::Get | Method::Head) => {
                self.refresh();
                let page = page::render(&self.snapshot, Time::of(SystemTime::now()), page::number(query));
                Answer { status: 200, content_type: HTML, body: page.into(), headers: PAGE_HEADERS }
            }
            ("/metrics", Method::Get | Method::Head) => {
                self.refresh();
                let body = metrics::render(&self.snapshot).into();
                Answer { status: 200, content_type: METRICS, body, headers: &[] }
            }
            ("/webhooks/github", Method::Post) => self.webhook(Forge::GitHub, request),
            ("/webhooks/gitlab", Method::Post) => self.webhook(Forge::GitLab, request),
            ("/", Method::Post) => {
                self.unknown_path(path);
                Answer::not_allowed(READ_ONLY)
            }
            ("/" | "/healthz" | "/status" | "/metrics", _) => Answer::not_allowed(READ_ONLY),
            ("/webhooks/github" | "/webhooks/gitlab", _) => Answer::not_allowed(&[("Allow", "POST")]),
            (_, Method::Post) => self.unknown_path(path),
            _ => Answer::text(404, "not found"),
        }
    }

    /// Returns a snapshot as JSON. Renders each once: a large farm has megabytes.
    fn status(&mut self) -> Body {
        self.refresh();
        self.json.get_or_insert_with(|| self.snapshot.to_json().into()).clone()
    }

    /// Asks the loop for a newer snapshot.
    fn refresh(&mut self) {
        // Sending fails only while the process ends.
        let answer = SnapshotRequest::ask(self.refused, |request| drop(self.events.send(request.into())));
        if let Some(snapshot) = answer.filter(|snapshot| !Arc::ptr_eq(snapshot, &self.snapshot)) {
            self.snapshot = snapshot;
            self.json = None;
        }
    }

    fn webhook(&mut self, forge: Forge, request: &mut Request) -> Answer {
        let Ok(body) = read(request) else { return Answer::text(503, "too little memory") };
        let header = |name: &'static str| {
            let found = request.headers().iter().find(|header| header.field.equiv(name));
            found.map(|header| header.value.as_str())
        };
        let checked = match (&self.secret, forge) {
            (None, _) => Err("no webhook_secret_file is configured"),
            (Some(secret), Forge::GitHub) => signature::check_signature(secret, header, &body),
            (Some(secret), Forge::GitLab) => signature::check_token(secret, header),
        };
        if let Err(reason) = checked {
            self.refused.refused += 1;
            self.refused.last_refused = Some(Time::of(SystemTime::now()));
            self.bad_signatures.record(reason);
            if let Some((reason, not_logged)) = self.bad_signatures.due(Instant::now()) {
                warn!(reason, not_logged; "webhook signature invalid");
            }
            return Answer::text(401, "webhook signature invalid");
        }
        let (event, text) =
            match webhook::parse(forge, header("x-github-event"), header("content-type"), &body) {
                Ok(Payload::Ping(repositories)) => (Event::PingReceived { repositories }, "pong"),
                Ok(Payload::News(repositories)) => (Event::WebhookReceived { repositories }, "accepted"),
                Err(error) => {
                    warn!(error:%; "webhook payload refused");
                    // It counts as received.
                    let _ = self.events.send(Event::WebhookReceived { repositories: Vec::new() }.into());
                    return Answer::text(400, &error.to_string());
                }
            };
        // Sending fails only while the process ends.
        let _ = self.events.send(event.into());
        Answer::text(200, text)
    }

    /// Answers a POST to a path that does not exist, and logs it: the URL of a webhook is probably
    /// wrong, and its forge shows that to few people.
    fn unknown_path(&mut self, path: &str) -> Answer {
        self.unknown_paths.record(excerpt(path).into_owned());
        if let Some((path, not_logged)) = self.unknown_paths.due(Instant::now()) {
            let advice = "webhooks go to /webhooks/github or /webhooks/gitlab";
            warn!(path:%, not_logged, advice; "POST to an unknown path");
        }
        Answer::text(404, "not found")
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Answer {
    fn text(status: u16, text: &str) -> Self {
        Self { status, content_type: TEXT, body: format!("{text}\n").into_bytes().into(), headers: &[] }
    }

    fn not_allowed(allow: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers: allow, ..Self::text(405, "method not allowed") }
    }
}

/// Reads a body. The gate has bounded its length, and sends all of it.
///
/// # Errors
/// When the system refuses the memory. It must not end the process.
fn read(request: &mut Request) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    body.try_reserve_exact(request.body_length().unwrap_or(0))?;
    request.as_reader().read_to_end(&mut body)?;
    Ok(body)
}

fn send(request: Request, answer: Answer) -> std::io::Result<()> {
    let length = answer.body.0.len();
    let mut headers = Vec::with_capacity(5);
    let mut add = |name: &str, value: &str| headers.extend(Header::from_bytes(name, value));
    add("Content-Type", answer.content_type);
    add("X-Content-Type-Options", "nosniff");
    // A proxy must not show an old state, nor keep one that is confidential.
    add("Cache-Control", "no-store");
    for (name, value) in answer.headers {
        add(name, value);
    }
    let body = std::io::Cursor::new(answer.body);
    let response = Response::new(answer.status.into(), headers, body, Some(length), None);
    // The gate finds the end of an answer by its Content-Length, so none may be chunked.
    request.respond(response.with_chunked_threshold(usize::MAX))
}
