//! Random requests against the gate: right ones, odd ones and mutated ones, pipelined and in random
//! pieces. [`oracle`], which shares no code with the manager, says what must be answered.
//!
//! A short form runs with the other tests; `make chaos` sets `PEIPKG_FUZZ_REQUESTS` and
//! `PEIPKG_CHAOS_SEED`.

mod oracle;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use self::oracle::{Expected, SIGNED};
use crate::http::served;
use crate::support::client::{get, openssl_hmac_sha256};
use crate::support::farm::SECRET;
use crate::support::processes::status_number;
use crate::support::random::{Random, number_from_environment};
use crate::support::wait::PATIENCE;

/// The requests of the short form.
const REQUESTS: u64 = 4000;

/// The clients at the same time.
const CLIENTS: u64 = 8;

/// Picks one.
fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
    from[random.below(from.len())]
}

/// Returns a request: mostly right, sometimes odd, sometimes absurd. `signature` signs [`SIGNED`].
fn request(random: &mut Random, signature: &str) -> Vec<u8> {
    let method = pick(random, &["GET", "GET", "HEAD", "POST", "POST", "PUT", "get", "X-!#", "HEADER"]);
    let target = pick(
        random,
        &[
            "/healthz",
            "/healthz",
            "/status",
            "/webhooks/github",
            "/webhooks/github",
            "/healthz?a=b",
            "http://farm/healthz",
            "HTTPS://farm:1/status?x",
            "http://farm",
            "*",
            "/",
            "/?page=2",
            "/metrics",
            "/\"<>\\^`{|}",
            "//healthz",
        ],
    );
    let version = pick(random, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.1 "]);
    let mut head = match random.below(40) {
        0 => format!("\r\n\r\n{method} {target} {version}\r\n"),
        1 => format!("{method}  {target} {version}\r\n"),
        2 => format!("{method} {target}\r\n"),
        3 => format!("{method} /{} {version}\r\n", "y".repeat(random.below(9000))),
        4 => format!("{method} /\u{e9} {version}\r\n"),
        _ => format!("{method} {target} {version}\r\n"),
    };
    let usual = ["Host: farm", "user-agent: x", "Accept: */*", "X-Empty:", "X-Tab: a\tb", "x: \u{e9}"];
    for _ in 0..random.below(4) {
        head.extend([pick(random, &usual), "\r\n"]);
    }
    if random.one_in(4) {
        let options =
            ["close", "keep-alive", "Close", "x, close", "keep-alive, x", "upgrade", "close,keep-alive"];
        head.extend(["Connection: ", pick(random, &options), "\r\n"]);
    }
    if random.one_in(10) {
        let odd = [
            "Transfer-Encoding: chunked",
            "Expect: 100-continue",
            "Expect: 100-Continue",
            "Expect: tea",
            "Content-Length: 26214401",
            "Content-Length: -1",
            "Content-Length: 99999999999999999999",
            "Content-Length: 0",
            "X-GitHub-Event: \t\u{e9}",
            "Content-Type: a\tb",
            " folded: x",
            "no colon",
            "space : x",
            ": nameless",
        ];
        head.extend([pick(random, &odd), "\r\n"]);
    }
    match random.below(60) {
        0 => head += &"a: b\r\n".repeat(random.below(100)),
        1 => head.extend(["Long: ", &"z".repeat(random.below(9000)), "\r\n"]),
        2 => head = head.replace("\r\n", "\n"),
        _ => {}
    }
    let mut body = Vec::new();
    if target == "/webhooks/github" && random.one_in(3) {
        head.extend(["X-GitHub-Event: ping\r\nX-Hub-Signature-256: ", signature, "\r\n"]);
        body = SIGNED.to_vec();
    } else if method == "POST" || random.one_in(8) {
        let longest = if random.one_in(20) { 200_000 } else { 300 };
        // Bodies that look like requests: none may be answered.
        body = b"GET /healthz HTTP/1.1\r\n\r\n".repeat(1 + longest / 25);
        body.truncate(random.below(longest));
    }
    if !body.is_empty() || random.one_in(10) {
        let name = pick(random, &["Content-Length", "content-length", "CONTENT-LENGTH"]);
        head.extend([name, ": ", &body.len().to_string(), "\r\n"]);
    }
    [head.as_bytes(), b"\r\n", &body].concat()
}

/// Changes, inserts, removes or repeats a few bytes, or cuts the end off.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    let (at, byte) = (random.below(bytes.len()), u8::try_from(random.below(256)).expect("a byte"));
    let end = (at + 1 + random.below(40)).min(bytes.len());
    match random.below(6) {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        4 => bytes.truncate(at.max(1)),
        _ => bytes[at] = b"\r\n :,0;HT\0\x7f"[random.below(11)],
    }
}

/// Sends `bytes` in random pieces, and returns everything that comes back until the end.
fn converse(random: &mut Random, addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(addr).expect("the gate accepts");
    client.set_nodelay(true).expect("a socket");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    client.set_write_timeout(Some(PATIENCE)).expect("a socket");
    let mut reader = client.try_clone().expect("a socket");
    thread::scope(|scope| {
        let received = scope.spawn(move || {
            let mut received = Vec::new();
            // A refused client that has sent more may get a reset instead of the end.
            let _ = reader.read_to_end(&mut received);
            received
        });
        let largest = [1, 7, 100, 4096, usize::MAX][random.below(5)];
        let (mut rest, mut pieces) = (bytes, 0);
        while !rest.is_empty() {
            let length = if pieces > 200 { rest.len() } else { 1 + random.below(rest.len().min(largest)) };
            // The gate may have answered and closed.
            if client.write_all(&rest[..length]).is_err() {
                break;
            }
            (rest, pieces) = (&rest[length..], pieces + 1);
            thread::yield_now();
        }
        let _ = client.shutdown(Shutdown::Write);
        received.join().expect("the reader ends")
    })
}

/// Splits what came back into the statuses of the answers, checking their form.
fn answers(received: &[u8], expected: &[Expected]) -> Result<Vec<u16>, String> {
    let (mut rest, mut statuses) = (received, Vec::new());
    while !rest.is_empty() {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").ok_or("half a head")? + 4;
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end..];
        let status: u16 = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| format!("not a status line: {head}"))?;
        if status == 100 {
            continue;
        }
        let due = expected.get(statuses.len()).ok_or_else(|| format!("one answer too many: {head}"))?;
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).ok_or("no Content-Length")?;
        if head.contains("Connection: close\r\n") != due.closes {
            return Err(format!("closes wrongly: {head}"));
        }
        // A refusal may come before the gate knows that the method is HEAD.
        let is_refusal = due.closes && rest.len() == length;
        if !due.is_head || (is_refusal && due.path.is_empty()) {
            let body = rest.get(..length).ok_or("half a body")?;
            if due.statuses == [200] && due.path == "/healthz" && body != b"ok" {
                return Err(format!("another body: {}", String::from_utf8_lossy(body)));
            }
            rest = &rest[length..];
        }
        statuses.push(status);
    }
    Ok(statuses)
}

/// Fails the test unless the answers are those that the oracle expects.
fn check(random: &mut Random, addr: SocketAddr, bytes: &[u8], signature: &str, context: &str) {
    let expected = oracle::expected(bytes, signature);
    let received = converse(random, addr, bytes);
    let found = answers(&received, &expected);
    let is_right = found.as_ref().is_ok_and(|found| {
        let all = expected.iter().filter(|due| !due.may_be_missing).count();
        found.len() >= all && found.iter().zip(&expected).all(|(status, due)| due.statuses.contains(status))
    });
    assert!(
        is_right,
        "{context}\nsent {} bytes: {:?}\nexpected: {expected:?}\nfound: {found:?}\nreceived: {}",
        bytes.len(),
        String::from_utf8_lossy(&bytes[..bytes.len().min(3000)]),
        String::from_utf8_lossy(&received),
    );
}

#[test]
fn random_requests_are_answered_as_the_oracle_expects() {
    let requests = number_from_environment("PEIPKG_FUZZ_REQUESTS", REQUESTS);
    let seed = number_from_environment("PEIPKG_CHAOS_SEED", 1);
    println!("PEIPKG_CHAOS_SEED={seed} PEIPKG_FUZZ_REQUESTS={requests}");
    let (_farm, mut daemon, addr) = served();
    let signature = format!("sha256={}", openssl_hmac_sha256(SECRET.as_bytes(), SIGNED));
    let (sent, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (signature, sent, answered) = (&signature, &sent, &answered);
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(client << 32));
                let mut left = requests.div_ceil(CLIENTS);
                while left > 0 {
                    let count = left.min(1 + random.below(6) as u64);
                    let context = format!("seed {seed}, client {client}, {left} left");
                    left -= count;
                    let mut bytes: Vec<u8> =
                        (0..count).flat_map(|_| request(&mut random, signature)).collect();
                    if random.one_in(3) {
                        mutate(&mut random, &mut bytes);
                    }
                    check(&mut random, addr, &bytes, signature, &context);
                    sent.fetch_add(usize::try_from(count).expect("a few"), Ordering::Relaxed);
                    let complete = oracle::expected(&bytes, signature).len();
                    answered.fetch_add(complete, Ordering::Relaxed);
                }
            });
        }
    });
    let (sent, answered) = (sent.into_inner(), answered.into_inner());
    println!("{sent} requests, {answered} answers");
    assert!(answered > sent / 3, "most requests were lost behind the end of a connection");
    assert_eq!(get(addr, "/healthz").text(), "ok");
    let memory = status_number(daemon.pid(), "VmHWM");
    assert!(memory < 64 * 1024, "{memory} KiB");
    assert!(!daemon.has_ended() && daemon.events().iter().all(|event| event["level"] != "error"), "{daemon}");
}
