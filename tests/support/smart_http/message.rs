//! HTTP messages: requests with their bodies in either framing, and whole answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// The longest accepted line, in bytes: above any header field of git.
const MAX_LINE: u64 = 64 * 1024;

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// The text after the `?`, as it was sent.
    pub query: String,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// The header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of the first field called `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The value of `Git-Protocol`, such as `version=2`.
    pub fn git_protocol(&self) -> Option<&str> {
        self.header("git-protocol")
    }

    /// Whether another request may follow on the connection.
    pub(super) fn keeps_alive(&self) -> bool {
        let close = self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.version == "HTTP/1.1" && !close
    }
}

/// A request whose body has not been read yet.
pub(in crate::support) struct Incoming<'r, 's> {
    pub(in crate::support) request: Request,
    body: Body<'r, 's>,
}

impl<'r, 's> Incoming<'r, 's> {
    /// Reads the next request up to its body; `None` at the end of the connection.
    pub(in crate::support) fn read(reader: &'r mut BufReader<&'s TcpStream>) -> io::Result<Option<Self>> {
        let Some(line) = read_line(reader)? else { return Ok(None) };
        let words: Vec<&str> = line.split(' ').collect();
        let &[method, target, version] = words.as_slice() else { return Err(bad("not a request line")) };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            version: version.to_owned(),
            headers: Vec::new(),
        };
        loop {
            let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("not a header field"))?;
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let chunked =
            request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = request.header("content-length").map_or(Ok(0), str::parse);
        let left = if chunked { 0 } else { length.map_err(|_| bad("not a length"))? };
        Ok(Some(Self { request, body: Body { reader, left, chunked } }))
    }

    /// Whether the body comes in chunks, its length unknown.
    pub(super) fn is_chunked(&self) -> bool {
        self.request.header("content-length").is_none() && self.request.header("transfer-encoding").is_some()
    }

    /// Whether the body, which must not come in chunks, begins with `start`. Reads nothing of it.
    pub(super) fn begins_with(&mut self, start: &[u8]) -> io::Result<bool> {
        Ok(self.body.left > 0 && self.body.reader.fill_buf()?.starts_with(start))
    }

    /// The body, without its framing.
    pub(in crate::support) fn body(&mut self) -> &mut (impl Read + use<'r, 's>) {
        &mut self.body
    }

    /// Drains the body, so that the next request can be read.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.body, &mut io::sink()).map(drop)
    }
}

/// A request's body.
struct Body<'r, 's> {
    reader: &'r mut BufReader<&'s TcpStream>,
    /// The bytes left of the body or of the present chunk.
    left: u64,
    /// Whether chunks are still to come.
    chunked: bool,
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.chunked {
            let line = read_line(self.reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            self.left = u64::from_str_radix(digits, 16).map_err(|_| bad("not a chunk's length"))?;
            if self.left == 0 {
                self.chunked = false;
                while read_line(self.reader)?.is_some_and(|trailer| !trailer.is_empty()) {}
            }
        }
        if self.left == 0 {
            return Ok(0);
        }
        let length = self.reader.by_ref().take(self.left).read(buffer)?;
        if length == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        if self.left == 0 && self.chunked {
            read_line(self.reader)?;
        }
        Ok(length)
    }
}

/// Writes a whole answer.
pub(super) fn respond(
    out: &mut impl Write,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Test\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    out.write_all(&[head.as_bytes(), b"\r\n", body].concat())
}

/// The value of `Authorization` for these basic credentials.
pub(super) fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for group in format!("{user}:{password}").as_bytes().chunks(3) {
        let bits =
            group.iter().fold(0, |bits, &byte| bits << 8 | usize::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * place) & 63]);
            text.push(if place <= group.len() { digit } else { '=' });
        }
    }
    text
}

/// One line without its end; `None` at the end of the stream.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8(line).map_err(|_| bad("not UTF-8"))?;
    let line = line.strip_suffix('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
