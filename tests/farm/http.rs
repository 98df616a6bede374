//! HTTP for clients: methods, paths, framing, and the answers to malformed requests.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::client::{Connection, Response, exchange, get, openssl_hmac_sha256, request};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::run;
use crate::support::optional::require;
use crate::support::processes::status_number;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, wait_until};

/// GitHub's limit for a payload.
const MAX_BODY: usize = 25 * 1024 * 1024;

/// A daemon without recipes.
pub(crate) fn served() -> (Farm, Running, SocketAddr) {
    let farm = Farm::builder().http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    (farm, daemon, addr)
}

/// Sends `bytes` on a new connection and returns the answer.
#[track_caller]
fn raw(addr: SocketAddr, bytes: &[u8]) -> Response {
    exchange(addr, bytes, PATIENCE).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]))
    })
}

/// Fails the test unless the answer to `bytes` is `status` and the server then closes the
/// connection.
#[track_caller]
fn refused(addr: SocketAddr, status: u16, bytes: &[u8]) {
    let mut connection = Connection::open(addr, PATIENCE).expect("a connection");
    connection.send(bytes).expect("the request");
    let answer = connection.receive(false).expect("an answer");
    assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(!answer.body.is_empty(), "the refusal has no reason");
    assert!(connection.is_closed());
}

#[test]
fn pages_answer_by_method_and_path() {
    let (_farm, _daemon, addr) = served();
    let health = get(addr, "/healthz");
    assert_eq!((health.status, health.body.as_slice()), (200, &b"ok"[..]));
    assert!(health.header("content-type").unwrap().starts_with("text/plain"));
    let status = get(addr, "/status");
    assert_eq!((status.status, status.header("content-type")), (200, Some("application/json")));
    for path in ["/", "/healthz", "/status", "/metrics"] {
        let whole = get(addr, path);
        // Ask until both come in the same second: the page says how long ago the manager started.
        wait_until(&format!("HEAD {path} has the headers of a GET"), PATIENCE, || {
            let (head, body) = (request(addr, "HEAD", path, &[], b""), get(addr, path));
            assert_eq!((head.status, head.body.len()), (200, 0));
            ["content-type", "content-length"].iter().all(|name| head.header(name) == body.header(name))
        });
        // The page says what time it is.
        if path != "/" {
            assert_eq!(get(addr, &format!("{path}?a=b&c")).body, whole.body, "the query changed the answer");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "BREW"] {
            let answer = request(addr, method, path, &[], b"");
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let answer = request(addr, method, "/webhooks/github", &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
    }
    for path in [
        "/healthz/",
        "/index.html",
        "//healthz",
        "/Status",
        "/webhooks",
        "/webhooks/github/",
        "/webhooks/gogs",
        "/%68ealthz",
        "/status/../healthz",
        "/favicon.ico",
        "*",
    ] {
        for method in ["GET", "POST", "HEAD", "DELETE"] {
            assert_eq!(request(addr, method, path, &[], b"").status, 404, "{method} {path}");
        }
    }
    // An unexpected body must not become part of the next request.
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    for method in ["GET", "POST", "DELETE"] {
        connection
            .send(format!("{method} /healthz HTTP/1.1\r\nContent-Length: 30\r\n\r\n").as_bytes())
            .unwrap();
        connection.send(b"GET /status HTTP/1.1\r\nX: 12\r\n\r\n").unwrap();
        let expected = if method == "GET" { 200 } else { 405 };
        assert_eq!(connection.receive(false).unwrap().status, expected, "{method}");
    }
    connection.send(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(connection.receive(false).unwrap().text(), "ok");
}

#[test]
fn target_in_absolute_form_is_answered() {
    let (_farm, _daemon, addr) = served();
    for target in [format!("http://{addr}/healthz"), "HTTP://farm.example.org/healthz?x".to_owned()] {
        assert_eq!(get(addr, &target).text(), "ok", "{target}");
    }
    assert!(get(addr, "http://farm.example.org").text().starts_with("<!doctype html>"));
    let ping = request(addr, "POST", &format!("http://{addr}/webhooks/github"), &[], b"{}");
    assert_eq!(ping.status, 401);
}

#[test]
fn connections_are_kept_and_closed_as_the_client_wishes() {
    let (_farm, _daemon, addr) = served();
    let ask = |head: &str| format!("GET /healthz {head}\r\n\r\n");
    let kept = [
        ask("HTTP/1.1"),
        ask("HTTP/1.1\r\nConnection: keep-alive"),
        ask("HTTP/1.0\r\nConnection: Keep-Alive"),
    ];
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    for text in kept.iter().chain(&kept) {
        connection.send(text.as_bytes()).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "ok", "{text}");
    }
    for text in
        [ask("HTTP/1.0"), ask("HTTP/1.1\r\nConnection: close"), ask("HTTP/1.0\r\nConnection: x, close")]
    {
        let mut connection = Connection::open(addr, PATIENCE).unwrap();
        connection.send(text.as_bytes()).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "ok");
        assert!(connection.is_closed(), "{text}");
    }
    // A client may close its side after its request.
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(ask("HTTP/1.1").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[test]
fn requests_pipelined_are_answered_in_order() {
    let (_farm, _daemon, addr) = served();
    let body = "x".repeat(3000);
    let asked = [
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 200),
        ("GET /nothing HTTP/1.1\r\n\r\n".to_owned(), 404),
        (format!("POST /webhooks/github HTTP/1.1\r\nContent-Length: 3000\r\n\r\n{body}"), 401),
        ("GET /status?1 HTTP/1.1\r\n\r\n".to_owned(), 200),
        ("PUT /status HTTP/1.1\r\n\r\n".to_owned(), 405),
    ];
    let all: String = asked.iter().cycle().take(200).map(|(text, _)| text.as_str()).collect();
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    connection.send(all.as_bytes()).unwrap();
    for number in 0..200 {
        assert_eq!(connection.receive(false).unwrap().status, asked[number % asked.len()].1, "{number}");
    }
    // Cut the bytes anywhere: the requests stay the same.
    let text = &all[..all.len() / 40];
    for cut in [1, 7, 1000] {
        let mut connection = Connection::open(addr, PATIENCE).unwrap();
        for piece in text.as_bytes().chunks(cut) {
            connection.send(piece).unwrap();
        }
        for (_, status) in &asked {
            assert_eq!(connection.receive(false).unwrap().status, *status, "cut to {cut}");
        }
    }
}

#[test]
fn request_malformed_is_refused_and_the_connection_closed() {
    let (_farm, _daemon, addr) = served();
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    for bytes in [
        &client_hello[..],
        b"\0\0\0\0",
        b"hello\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET  /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nName : x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /webhooks/github HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 0x1\r\n\r\na",
        b"POST /webhooks/github HTTP/1.1\r\nContent-Length:\r\n\r\n",
    ] {
        refused(addr, 400, bytes);
    }
    refused(addr, 505, b"GET /healthz HTTP/2.0\r\n\r\n");
    refused(addr, 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    refused(addr, 417, b"POST /webhooks/github HTTP/1.1\r\nExpect: tea\r\nContent-Length: 1\r\n\r\na");
    let chunked = "POST /webhooks/github HTTP/1.1\r\nTransfer-Encoding: ";
    for rest in [
        "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "chunked\r\n\r\nzz\r\n",
        "chunked\r\nContent-Length: 5\r\n\r\nhello",
        "gzip, chunked\r\n\r\n",
        "\r\n\r\n",
    ] {
        refused(addr, 411, format!("{chunked}{rest}").as_bytes());
    }
    let get = "GET /healthz HTTP/1.1\r\n";
    refused(addr, 431, format!("{get}{}\r\n", "A: b\r\n".repeat(1000)).as_bytes());
    refused(addr, 431, format!("{get}Cookie: {}\r\n\r\n", "x".repeat(100_000)).as_bytes());
    refused(addr, 431, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)).as_bytes());
    refused(addr, 431, format!("{get}{}", "A: b\r\n".repeat(100_000)).as_bytes());
    // Requests within the limits are answered, and empty lines before a request are skipped.
    assert_eq!(
        raw(addr, format!("\r\n\r\n{get}Cookie: {}\r\n\r\n", "x".repeat(7000)).as_bytes()).text(),
        "ok"
    );
}

#[test]
fn body_longer_than_25_mib_is_refused() {
    let (_farm, daemon, addr) = served();
    let post = |length: usize| format!("POST /webhooks/github HTTP/1.1\r\nContent-Length: {length}\r\n");
    let before = status_number(daemon.pid(), "VmHWM");
    refused(addr, 413, format!("{}\r\n", post(MAX_BODY + 1)).as_bytes());
    refused(addr, 413, format!("{}\r\n", post(usize::MAX)).as_bytes());
    refused(
        addr,
        413,
        b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
    );
    // A client that sends the whole body without waiting can read the answer too, and costs no
    // memory.
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    connection.send(format!("{}\r\n", post(30_000_000)).as_bytes()).unwrap();
    let block = vec![b' '; 1_000_000];
    for _ in 0..30 {
        connection.send(&block).unwrap();
    }
    assert_eq!(connection.receive(false).unwrap().status, 413);
    let grown = status_number(daemon.pid(), "VmHWM") - before;
    assert!(grown < 4 * 1024, "{grown} KiB more");
    // The server reads the longest payload of GitHub and checks its signature.
    let body =
        format!(r#"{{"repository":{{"html_url":"https://h/o/r"}},"x":"{}"}}"#, "y".repeat(MAX_BODY - 50));
    let signature = format!(
        "X-Hub-Signature-256: sha256={}\r\n",
        openssl_hmac_sha256(SECRET.as_bytes(), body.as_bytes())
    );
    let text = format!("{}{signature}\r\n{body}", post(body.len()));
    assert!(body.len() <= MAX_BODY);
    assert_eq!(raw(addr, text.as_bytes()).status, 200);
}

#[test]
fn client_expects_100_gets_it_unless_the_body_is_refused() {
    let (farm, _daemon, addr) = served();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /webhooks/github HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    refused(addr, 413, head.replace("Length: 2", "Length: 30000000").as_bytes());
    if !require("curl") {
        return;
    }
    for (size, expected) in [(2_000_000, "401"), (30_000_000, "413")] {
        let file = farm.path("body");
        std::fs::write(&file, vec![b' '; size]).unwrap();
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "50",
            "--noproxy",
            "*",
            "--output",
            "/dev/null",
        ]);
        // An hour for the go-ahead: without it, curl would wait and then time out.
        curl.args([
            "--write-out",
            "%{http_code}",
            "--expect100-timeout",
            "3600",
            "--header",
            "Expect: 100-continue",
        ]);
        curl.arg("--data-binary").arg(format!("@{}", file.display()));
        assert_eq!(run(curl.arg(format!("http://{addr}/webhooks/github"))), expected);
    }
}

#[test]
fn curl_requests_of_every_page_are_answered() {
    if !require("curl") {
        return;
    }
    let (_farm, _daemon, addr) = served();
    let curl = |arguments: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--fail", "--max-time", "50", "--noproxy", "*"])
            .args(arguments);
        run(command.arg(format!("http://{addr}{path}")))
    };
    assert_eq!(curl(&[], "/healthz"), "ok");
    assert_eq!(curl(&["--http1.0"], "/healthz"), "ok");
    assert!(curl(&["--head"], "/status").contains("200 OK"));
    assert!(
        curl(&["--compressed", "--http2"], "/status").starts_with(r#"{"farm_id":"test-farm","recipes":[],"#)
    );
}

#[test]
fn requests_at_the_same_instant_are_all_answered() {
    let (_farm, mut daemon, addr) = served();
    let limit = Duration::from_secs(10);
    // On SIGCONT the daemon finds all requests at once: of all kinds, and more than it answers at a
    // time.
    daemon.signal(rustix::process::Signal::STOP);
    let mut connections: Vec<Connection> = (0..90).map(|_| Connection::open(addr, limit).unwrap()).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        let path = if number < 60 { "/healthz" } else { "/status?" };
        connection.send(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    }
    daemon.signal(rustix::process::Signal::CONT);
    for (number, connection) in connections.iter_mut().enumerate() {
        let answer = connection.receive(false);
        assert!(answer.is_ok_and(|answer| answer.status == 200), "request {number} was not answered");
    }
}
