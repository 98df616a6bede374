//! Parses HTTP/1.x heads: where a message ends, and the head that the gate passes on. Pure.
//!
//! The gate never forwards a client's head. It writes a new one from the method, the path and the
//! few headers that the routes read. So request smuggling, which needs two readings of one head, is
//! impossible, and nothing that a client sends makes `tiny_http` close a connection to the gate.
//! `tiny_http` would close one after:
//!
//! - a request line or header that it cannot parse, or that is not ASCII: refused here;
//! - HTTP/1.0, `Connection: close` or `upgrade`: every head says HTTP/1.1 and has no `Connection`;
//! - an unknown `Expect`: never passed on;
//! - the end of the stream within a body: the gate writes exactly `Content-Length` bytes.
//!
//! A body that no route has read would close nothing, but `tiny_http` would drain it into a buffer of
//! its length: the routes read every body.

use std::time::SystemTime;

/// The longest request head, in bytes: several times the heads of GitHub and of proxies.
pub(crate) const MAX_HEAD: usize = 8 * 1024;

/// The longest request body, in bytes: GitHub's limit for a webhook payload.
pub(crate) const MAX_BODY: usize = 25 * 1024 * 1024;

/// The most headers in a head.
const MAX_HEADERS: usize = 64;

/// The headers that the routes read.
const PASSED_ON: [&str; 7] = [
    "content-type",
    "x-gitea-signature",
    "x-github-event",
    "x-gitlab-token",
    "x-gogs-signature",
    "x-hub-signature",
    "x-hub-signature-256",
];

/// Why the gate answers a request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head cannot be parsed.
    BadRequest,
    /// The request did not arrive in time.
    Timeout,
    /// The head announces a body, but not its length.
    LengthRequired,
    /// The body is too long.
    BodyTooLong,
    /// The client expects something other than `100-continue`.
    Expectation,
    /// The head is too long or has too many headers.
    HeadTooLong,
    /// There is no room for it: too many bytes of requests, too many clients, or too few files.
    Overloaded,
    /// The server behind the gate hangs, or its connection is lost.
    Unanswered,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

impl Refusal {
    /// Returns the status of the answer, and its text, which is the reason.
    pub(crate) fn status_and_text(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest => ("400 Bad Request", "the request cannot be parsed"),
            Self::Timeout => ("408 Request Timeout", "the request did not arrive in time"),
            Self::LengthRequired => ("411 Length Required", "a body needs a Content-Length"),
            Self::BodyTooLong => ("413 Content Too Large", "the body is longer than 25 MiB"),
            Self::Expectation => ("417 Expectation Failed", "the only supported expectation is 100-continue"),
            Self::HeadTooLong => (
                "431 Request Header Fields Too Large",
                "the head is longer than 8 KiB, or has more than 64 fields",
            ),
            Self::Overloaded => ("503 Service Unavailable", "too many requests at once"),
            Self::Unanswered => ("503 Service Unavailable", "the server does not answer"),
            Self::Version => ("505 HTTP Version Not Supported", "only HTTP/1.0 and HTTP/1.1 are supported"),
        }
    }

    /// Returns the whole answer; the gate closes the connection after it. `head_only` says that it
    /// answers a HEAD.
    pub(crate) fn answer(self, head_only: bool, now: SystemTime) -> Vec<u8> {
        let (status, text) = self.status_and_text();
        answer(status, &format!("{text}\n"), head_only, false, now)
    }
}

/// Returns the answer of `/healthz`.
pub(crate) fn healthy(head_only: bool, keep_alive: bool, now: SystemTime) -> Vec<u8> {
    answer("200 OK", "ok", head_only, keep_alive, now)
}

fn answer(status: &str, body: &str, head_only: bool, keep_alive: bool, now: SystemTime) -> Vec<u8> {
    let (date, length) = (httpdate::fmt_http_date(now), body.len());
    let connection = if keep_alive { "" } else { "Connection: close\r\n" };
    let body = if head_only { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Length: {length}\r\n{connection}\r\n{body}"
    )
    .into_bytes()
}

/// A request with a complete head.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Request {
    /// The length of its head, in bytes.
    pub(crate) head: usize,
    /// The length of its body, in bytes.
    pub(crate) body: usize,
    /// Whether the client may send another request on the connection.
    pub(crate) keep_alive: bool,
    /// Whether the method is HEAD: the answer announces a length, but has no body.
    pub(crate) head_only: bool,
    /// Whether it asks for `/healthz`, which the gate answers itself.
    pub(crate) asks_health: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// The rewritten head.
    pub(crate) passed_on: Vec<u8>,
}

/// Parses the head of a request; `None` while it is incomplete.
pub(crate) fn request(input: &[u8]) -> Result<Option<Request>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(input) {
        Ok(httparse::Status::Complete(head)) if head <= MAX_HEAD => head,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLong),
        Err(httparse::Error::Version) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::BadRequest),
    };
    // httparse sets all three in a complete head.
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::BadRequest);
    };
    let path = origin_form(path);
    // `tiny_http` would close the connection.
    if !path.is_ascii() {
        return Err(Refusal::BadRequest);
    }
    let mut request = Request {
        head,
        body: 0,
        keep_alive: version == 1,
        head_only: method == "HEAD",
        asks_health: matches!(method, "GET" | "HEAD") && path.split('?').next() == Some("/healthz"),
        expects_continue: false,
        passed_on: format!("{method} {path} HTTP/1.1\r\n").into_bytes(),
    };
    let mut length = None;
    for header in parsed.headers.iter() {
        let name = header.name.to_ascii_lowercase();
        let value = header.value.trim_ascii();
        match name.as_str() {
            "content-length" => {
                let found = content_length(value)?;
                // Different lengths allow two readings of one request.
                if length.is_some_and(|length| length != found) {
                    return Err(Refusal::BadRequest);
                }
                length = Some(found);
            }
            "transfer-encoding" => return Err(Refusal::LengthRequired),
            "expect" if value.eq_ignore_ascii_case(b"100-continue") => {
                request.expects_continue = version == 1;
            }
            "expect" => return Err(Refusal::Expectation),
            "connection" => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        request.keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        request.keep_alive = true;
                    }
                }
            }
            _ if PASSED_ON.contains(&name.as_str()) => {
                if !value.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
                    return Err(Refusal::BadRequest);
                }
                request.passed_on.extend_from_slice(name.as_bytes());
                request.passed_on.extend_from_slice(b": ");
                request.passed_on.extend_from_slice(value);
                request.passed_on.extend_from_slice(b"\r\n");
            }
            _ => {}
        }
    }
    request.body = length.unwrap_or(0);
    if request.body > MAX_BODY {
        return Err(Refusal::BodyTooLong);
    }
    request.passed_on.extend_from_slice(format!("content-length: {}\r\n\r\n", request.body).as_bytes());
    Ok(Some(request))
}

/// Removes scheme and host from a target in absolute form (RFC 9112 §3.2.2).
fn origin_form(target: &str) -> &str {
    let Some((scheme, rest)) = target.split_once("://") else { return target };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return target;
    }
    rest.find('/').map_or("/", |start| &rest[start..])
}

/// Parses a length, which consists of digits only. A length that overflows is the greatest, so that
/// the client learns that its body is too long.
fn content_length(value: &[u8]) -> Result<usize, Refusal> {
    let digits = std::str::from_utf8(value).map_err(|_| Refusal::BadRequest)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::BadRequest);
    }
    Ok(digits.parse().unwrap_or(usize::MAX))
}

/// Returns the lengths of a response's head and body, in bytes; `None` while its head is incomplete.
///
/// # Errors
/// When it is no response. Only our own routes answer here, so that is a defect.
pub(crate) fn response(input: &[u8]) -> Result<Option<(usize, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let head = match parsed.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Refusal::BadRequest),
    };
    let header = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = header.map_or(Ok(0), |header| content_length(header.value))?;
    Ok(Some((head, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, expected: Result<Option<(usize, bool)>, Refusal>) {
        let found = request(head.as_bytes()).map(|found| found.map(|found| (found.body, found.keep_alive)));
        assert_eq!(found, expected, "{head:?}");
    }

    #[test]
    fn request_ends_where_its_head_says() {
        check("GET / HTTP/1.1\r\n\r\n", Ok(Some((0, true))));
        check("GET / HTTP/1.0\r\n\r\n", Ok(Some((0, false))));
        check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Ok(Some((0, true))));
        check("GET / HTTP/1.1\r\nConnection: x, close\r\n\r\n", Ok(Some((0, false))));
        check("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", Ok(Some((5, true))));
        check("POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", Ok(Some((5, true))));
        check("POST / HTTP/1.1\r\nContent-Length: 26214400\r\n\r\n", Ok(Some((MAX_BODY, true))));
        check("GET / HTTP/1.1\r\nHost: x\r\n", Ok(None));
        check("", Ok(None));
    }

    #[test]
    fn request_beyond_limits_or_unparsable_is_refused() {
        check("POST / HTTP/1.1\r\nContent-Length: 26214401\r\n\r\n", Err(Refusal::BodyTooLong));
        check(
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            Err(Refusal::BodyTooLong),
        );
        check("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Err(Refusal::BadRequest));
        check("POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", Err(Refusal::BadRequest));
        check("POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", Err(Refusal::BadRequest));
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Refusal::LengthRequired));
        check(
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n",
            Err(Refusal::LengthRequired),
        );
        check("POST / HTTP/1.1\r\nExpect: tea\r\n\r\n", Err(Refusal::Expectation));
        check("POST / HTTP/1.1\r\nX-Hub-Signature-256: \u{e9}\r\n\r\n", Err(Refusal::BadRequest));
        check("GET / HTTP/2.0\r\n\r\n", Err(Refusal::Version));
        check("\x16\x03\x01", Err(Refusal::BadRequest));
        check("GET /\r\n\r\n", Err(Refusal::BadRequest));
        check("GET /\u{e9} HTTP/1.1\r\n\r\n", Err(Refusal::BadRequest));
        check(&format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(MAX_HEAD)), Err(Refusal::HeadTooLong));
        check(&format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(MAX_HEAD)), Err(Refusal::HeadTooLong));
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)), Err(Refusal::HeadTooLong));
    }

    #[test]
    fn passed_on_head_has_only_headers_of_the_routes() {
        let head = "POST /webhooks/github HTTP/1.0\r\nHost: h\r\nTE: chunked\r\nUpgrade: x\r\nConnection: upgrade\r\n\
                    X-GitHub-Event:  push \r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc";
        let found = request(head.as_bytes()).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(found.passed_on).unwrap(),
            "POST /webhooks/github HTTP/1.1\r\nx-github-event: push\r\ncontent-length: 3\r\n\r\n"
        );
        assert_eq!(found.head, head.len() - 3);
        assert!(!found.expects_continue, "HTTP/1.0 has no 100 Continue");
    }

    #[test]
    fn origin_form_of_absolute_target_is_its_path() {
        for (target, path) in [
            ("http://h:1/status?x", "/status?x"),
            ("HTTPS://h/http://i/", "/http://i/"),
            ("http://h", "/"),
            ("/http://h/x", "/http://h/x"),
            ("ftp://h/x", "ftp://h/x"),
            ("*", "*"),
        ] {
            assert_eq!(origin_form(target), path);
        }
    }

    #[test]
    fn response_ends_where_its_head_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
        assert_eq!(response(answer), Ok(Some((answer.len() - 3, 3))));
        assert_eq!(response(&answer[..20]), Ok(None));
        for refusal in [Refusal::BadRequest, Refusal::Unanswered, Refusal::BodyTooLong] {
            let answer = refusal.answer(false, SystemTime::UNIX_EPOCH);
            let (head, body) = response(&answer).unwrap().unwrap();
            assert_eq!(head + body, answer.len());
            assert_eq!(refusal.answer(true, SystemTime::UNIX_EPOCH), answer[..head]);
        }
    }
}
