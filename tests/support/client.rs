//! HTTP as bytes: sends exactly the bytes that a test wrote. Openssl computes the signatures, not
//! our own code.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::wait::PATIENCE;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without the framing of the transfer.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first field called `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that stays open between requests.
pub struct Connection {
    stream: BufReader<Timed>,
    limit: Duration,
}

/// A stream with one deadline for all its reads: an answer that trickles in gets no extra time.
struct Timed {
    stream: TcpStream,
    end: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

impl Connection {
    /// Connects. `limit` applies to each answer and each write.
    ///
    /// # Errors
    /// When the server does not accept the connection within `limit`.
    pub fn open(addr: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, limit)?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        let timed = Timed { stream, end: Instant::now() + limit };
        Ok(Self { stream: BufReader::new(timed), limit })
    }

    /// Sends `bytes` as they are.
    ///
    /// # Errors
    /// When the other side has closed the connection, or does not read in time.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().stream.write_all(bytes)
    }

    /// Reads one answer and skips interim ones. `head`: the request was a HEAD, so the answer has
    /// no body.
    ///
    /// # Errors
    /// When the connection ends or time runs out before the answer is complete, or when it is not HTTP.
    pub fn receive(&mut self, head: bool) -> io::Result<Response> {
        self.stream.get_mut().end = Instant::now() + self.limit;
        loop {
            let (status, headers) = self.receive_head()?;
            if (100..200).contains(&status) {
                continue;
            }
            let mut response = Response { status, headers, body: Vec::new() };
            if !head && status != 204 && status != 304 {
                response.body = self.receive_body(&response)?;
            }
            return Ok(response);
        }
    }

    /// Whether the server has closed the connection, with nothing more to read. Waits for that as
    /// long as for an answer.
    pub fn is_closed(&mut self) -> bool {
        self.stream.get_mut().end = Instant::now() + self.limit;
        match self.stream.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    fn receive_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| bad(&format!("not a status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&format!("not a field: {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn receive_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line()?;
                let length = u64::from_str_radix(&line, 16).map_err(|_| bad("not a chunk's length"))?;
                let start = body.len() as u64;
                self.stream.by_ref().take(length).read_to_end(&mut body)?;
                if body.len() as u64 - start != length || !self.line()?.is_empty() {
                    return Err(bad("a chunk of another length"));
                }
                if length == 0 {
                    return Ok(body);
                }
            }
        }
        let length = response.header("content-length").and_then(|length| length.parse().ok());
        self.stream.by_ref().take(length.unwrap_or(u64::MAX)).read_to_end(&mut body)?;
        if length.is_some_and(|length: u64| length != body.len() as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(body)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.by_ref().take(64 * 1024).read_until(b'\n', &mut line)?;
        let line = String::from_utf8(line).map_err(|_| bad("not UTF-8"))?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Sends `bytes` on a connection of its own and reads one answer within `limit`.
///
/// # Errors
/// When there is no complete answer.
pub fn exchange(addr: SocketAddr, bytes: &[u8], limit: Duration) -> io::Result<Response> {
    let mut connection = Connection::open(addr, limit)?;
    connection.send(bytes)?;
    connection.receive(bytes.starts_with(b"HEAD "))
}

/// `GET path`; fails the test without an answer.
#[track_caller]
pub fn get(addr: SocketAddr, path: &str) -> Response {
    request(addr, "GET", path, &[], b"")
}

/// Reads `/status`; fails the test unless it is a JSON document.
#[track_caller]
pub fn status(addr: SocketAddr) -> serde_json::Value {
    // The routes show the last document if the loop does not answer within 100 ms, as on a busy machine.
    let prompt = || {
        let begun = Instant::now();
        let response = get(addr, "/status");
        (begun.elapsed() < Duration::from_millis(100)).then_some(response)
    };
    let response = (0..10).find_map(|_| prompt()).unwrap_or_else(|| get(addr, "/status"));
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}

/// `method path` with `headers` and `body`; fails the test without an answer.
#[track_caller]
pub fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        bytes += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        bytes += &format!("Content-Length: {}\r\n", body.len());
    }
    let bytes = [bytes.as_bytes(), b"\r\n", body].concat();
    exchange(addr, &bytes, PATIENCE).unwrap_or_else(|error| panic!("{method} http://{addr}{path}: {error}"))
}

/// Sends a signed webhook: `event` as GitHub names it, `body` as JSON, signed with `secret` by
/// openssl.
#[track_caller]
pub fn webhook(addr: SocketAddr, event: &str, secret: &str, body: &[u8]) -> Response {
    let signature = format!("sha256={}", openssl_hmac_sha256(secret.as_bytes(), body));
    let headers = [
        ("Content-Type", "application/json"),
        ("X-GitHub-Event", event),
        ("X-Hub-Signature-256", signature.as_str()),
    ];
    request(addr, "POST", "/webhooks/github", &headers, body)
}

/// The HMAC-SHA256 of `body` under `secret`, which must not be empty, as lower-case hexadecimal
/// digits.
#[track_caller]
pub fn openssl_hmac_sha256(secret: &[u8], body: &[u8]) -> String {
    let key = format!("hexkey:{}", hex(secret));
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-mac", "HMAC", "-binary", "-macopt", &key]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().expect("a pipe was asked for").write_all(body).expect("openssl reads the body");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success() && output.stdout.len() == 32, "{command:?}: {}", output.status);
    hex(&output.stdout)
}

/// `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
