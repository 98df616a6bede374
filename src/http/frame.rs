//! Where an HTTP/1.x message ends, and what of a request is passed on. Pure.
//!
//! The gate lets a request through only when it is complete and within its
//! limits; what it passes on is written anew from the few headers that the
//! routes look at. So neither a strange header nor two readings of one head can
//! reach the server behind it.

/// The longest request head, in bytes: far above GitHub's or a proxy's.
pub(crate) const MAX_HEAD: usize = 8 * 1024;

/// The longest request body, in bytes: GitHub's limit for a webhook payload.
pub(crate) const MAX_BODY: usize = 25 * 1024 * 1024;

/// The most headers a head may have.
const MAX_HEADERS: usize = 64;

/// The headers that the routes look at.
const PASSED_ON: [&str; 3] = ["content-type", "x-github-event", "x-hub-signature-256"];

/// Why a request goes no further than the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head cannot be read.
    BadRequest,
    /// The request did not arrive in time.
    Timeout,
    /// The body's length is not announced.
    LengthRequired,
    /// The body is too long.
    BodyTooLong,
    /// The client expects what nobody can promise.
    Expectation,
    /// The head is too long.
    HeadTooLong,
    /// The server has its hands full.
    Overloaded,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

impl Refusal {
    /// The whole answer; the connection is closed after it.
    pub(crate) fn answer(self) -> Vec<u8> {
        let (status, text) = match self {
            Self::BadRequest => ("400 Bad Request", "the request cannot be understood"),
            Self::Timeout => ("408 Request Timeout", "the request did not arrive in time"),
            Self::LengthRequired => ("411 Length Required", "a body needs a Content-Length"),
            Self::BodyTooLong => ("413 Content Too Large", "the body is longer than 25 MiB"),
            Self::Expectation => ("417 Expectation Failed", "only 100-continue can be expected"),
            Self::HeadTooLong => (
                "431 Request Header Fields Too Large",
                "the head is longer than 8 KiB, or has more than 64 fields",
            ),
            Self::Overloaded => ("503 Service Unavailable", "too many requests at once"),
            Self::Version => ("505 HTTP Version Not Supported", "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        };
        let length = text.len() + 1;
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n");
        format!("{head}Connection: close\r\n\r\n{text}\n").into_bytes()
    }
}

/// A request whose head is complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The length of its head, in bytes.
    pub(crate) head: usize,
    /// The length of its body, in bytes.
    pub(crate) body: usize,
    /// Whether the client wants to send another request after it.
    pub(crate) keep_alive: bool,
    /// Whether the answer has no body, whatever its head says.
    pub(crate) head_only: bool,
    /// Whether the client waits for a go-ahead before it sends the body.
    pub(crate) expects_continue: bool,
    /// The path of a GET, without its query: the answer is the same for all who ask.
    pub(crate) plain_get: Option<String>,
    /// The head that is passed on.
    pub(crate) passed_on: Vec<u8>,
}

/// Reads the head of a request; `None` while it is incomplete.
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
    // A complete head has all three.
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::BadRequest);
    };
    let path = origin_form(path);
    // The server behind would close the connection without a word.
    if !path.is_ascii() {
        return Err(Refusal::BadRequest);
    }
    let mut request = Request {
        head,
        body: 0,
        keep_alive: version == 1,
        head_only: method == "HEAD",
        expects_continue: false,
        plain_get: (method == "GET").then(|| path.split('?').next().unwrap_or_default().to_owned()),
        passed_on: format!("{method} {path} HTTP/1.1\r\n").into_bytes(),
    };
    let mut length = None;
    for header in parsed.headers.iter() {
        let name = header.name.to_ascii_lowercase();
        let value = header.value.trim_ascii();
        match name.as_str() {
            "content-length" => {
                let found = content_length(value)?;
                // Two lengths that differ are two readings of one request.
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
    if request.body > 0 {
        request.plain_get = None;
    }
    request.passed_on.extend_from_slice(format!("content-length: {}\r\n\r\n", request.body).as_bytes());
    Ok(Some(request))
}

/// What a target asks for, whether or not it names the server as well (RFC 9112 §3.2.2).
fn origin_form(target: &str) -> &str {
    let Some((scheme, rest)) = target.split_once("://") else { return target };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return target;
    }
    rest.find('/').map_or("/", |start| &rest[start..])
}

/// A length that is written as digits only. One too large to be a number is a length all the same.
fn content_length(value: &[u8]) -> Result<usize, Refusal> {
    let digits = std::str::from_utf8(value).map_err(|_| Refusal::BadRequest)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::BadRequest);
    }
    Ok(digits.parse().unwrap_or(usize::MAX))
}

/// A response whose head is complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Its status code.
    pub(crate) status: u16,
    /// The length of head and body, in bytes.
    pub(crate) length: usize,
}

/// Reads the head of a response; `None` while it is incomplete. The server behind
/// the gate is our own: what cannot be framed is a defect, answered by closing
/// the connection.
pub(crate) fn response(input: &[u8], head_only: bool) -> Result<Option<Response>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let head = match parsed.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Refusal::BadRequest),
    };
    let header = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = match header {
        Some(header) if !head_only => content_length(header.value)?,
        _ => 0,
    };
    let length = head.checked_add(body).ok_or(Refusal::BadRequest)?;
    Ok(Some(Response { status: parsed.code.unwrap_or_default(), length }))
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
    fn requests_end_where_they_say() {
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
    fn what_is_refused() {
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
    fn only_what_the_routes_look_at_is_passed_on() {
        let head = "POST /webhooks/github HTTP/1.0\r\nHost: h\r\nTE: chunked\r\nUpgrade: x\r\nConnection: upgrade\r\n\
                    X-GitHub-Event:  push \r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc";
        let found = request(head.as_bytes()).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(found.passed_on).unwrap(),
            "POST /webhooks/github HTTP/1.1\r\nx-github-event: push\r\ncontent-length: 3\r\n\r\n"
        );
        assert_eq!(found.head, head.len() - 3);
        assert!(!found.expects_continue, "HTTP/1.0 knows no go-ahead");
    }

    #[test]
    fn a_target_may_name_the_server() {
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
    fn responses_are_measured() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
        let measured = |length| Ok(Some(Response { status: 200, length }));
        assert_eq!(response(answer, false), measured(answer.len()));
        assert_eq!(response(answer, true), measured(answer.len() - 3));
        assert_eq!(response(&answer[..20], false), Ok(None));
        for refusal in [Refusal::BadRequest, Refusal::Overloaded, Refusal::BodyTooLong] {
            let answer = refusal.answer();
            assert_eq!(response(&answer, false).unwrap().unwrap().length, answer.len());
        }
    }
}
