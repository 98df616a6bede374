//! One request through `git http-backend`, by CGI (RFC 3875): the body streams in, the answer
//! streams out.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use super::super::git_repo::{isolate, run};
use super::message::{Incoming, Request};

/// Serves `incoming` from the repositories below `root`. An error ends the connection.
pub(super) fn serve(
    incoming: &mut Incoming<'_, '_>,
    out: &mut impl Write,
    root: &Path,
    authenticated: bool,
) -> io::Result<()> {
    let request = incoming.request.clone();
    let mut command = command(&request, root, incoming.is_chunked());
    if authenticated {
        command.env("REMOTE_USER", "tester");
    }
    let mut child = Ended(command.spawn()?);
    let mut stdin = child.0.stdin.take().expect("a pipe was asked for");
    let stdout = child.0.stdout.take().expect("a pipe was asked for");
    thread::scope(|scope| {
        // The backend may answer before it has read everything, so copy both directions at once.
        let feeder = scope.spawn(move || {
            // It may also end early; still drain the body, so that the next request can be read.
            let _ = io::copy(incoming.body(), &mut stdin);
            drop(stdin);
            incoming.drain()
        });
        let answered = answer(BufReader::new(stdout), out, &request);
        if answered.is_err() {
            let _ = child.0.kill();
        }
        let fed = feeder.join().expect("the feeder does not panic");
        answered.and(fed)
    })
}

/// Prepares the backend with the variables that describe `request`.
fn command(request: &Request, root: &Path, chunked: bool) -> Command {
    let mut command = Command::new(backend());
    isolate(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("GATEWAY_INTERFACE", "CGI/1.1").env("SERVER_PROTOCOL", &request.version);
    // git writes its path at the end of the URL, also of one with a query.
    let (path, query) = match request.query.find("/info/refs").or(request.query.find("/git-upload-pack")) {
        Some(at) => {
            let (service, query) = request.query[at..].split_once('&').unwrap_or((&request.query[at..], ""));
            (format!("{}{service}", request.path), query)
        }
        None => (request.path.clone(), &*request.query),
    };
    command.env("REQUEST_METHOD", &request.method).env("QUERY_STRING", query);
    command.env("PATH_INFO", percent_decoded(&path)).env("REMOTE_ADDR", "127.0.0.1");
    let fields = [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("HTTP_ACCEPT_ENCODING", "accept-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ];
    for (variable, field) in fields {
        match request.header(field) {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    // Chunks have no length in advance, and without one the backend reads to the end of the pipe.
    if chunked {
        command.env_remove("CONTENT_LENGTH");
    } else {
        command.env("CONTENT_LENGTH", request.header("content-length").unwrap_or("0"));
    }
    command
}

/// Sends the backend's output as an answer: in chunks, or to the end of the connection for an
/// HTTP/1.0 client.
fn answer(mut output: impl BufRead, out: &mut impl Write, request: &Request) -> io::Result<()> {
    let mut status = "200 OK".to_owned();
    let mut fields = String::new();
    loop {
        let mut line = String::new();
        if output.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(": ") {
            Some(("Status", value)) => value.clone_into(&mut status),
            Some((name, value)) => fields += &format!("{name}: {value}\r\n"),
            None => break,
        }
    }
    let chunks = request.version == "HTTP/1.1";
    let framing = if chunks { "Transfer-Encoding: chunked" } else { "Connection: close" };
    out.write_all(format!("HTTP/1.1 {status}\r\n{fields}{framing}\r\n\r\n").as_bytes())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = output.read(&mut buffer)?;
        if chunks {
            let end: &[u8] = b"\r\n";
            out.write_all(&[format!("{length:x}\r\n").as_bytes(), &buffer[..length], end].concat())?;
        } else {
            out.write_all(&buffer[..length])?;
        }
        if length == 0 {
            return out.flush();
        }
    }
}

/// A child that is waited for when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// The path of `git-http-backend`.
fn backend() -> &'static Path {
    static BACKEND: OnceLock<PathBuf> = OnceLock::new();
    BACKEND.get_or_init(|| Path::new(&run(Command::new("git").arg("--exec-path"))).join("git-http-backend"))
}

/// Decodes each `%XX` in `path`, and leaves invalid escapes as they are.
fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits =
            tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
