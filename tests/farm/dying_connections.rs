//! Connections that a server announces to keep and closes, as behind a proxy that restarts: the next
//! listing asks over a new one.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use peipkg_manager::smart_http;
use peipkg_manager::{Interrupt, LISTING_DEADLINE};

use crate::support::smart_http::{ADVERTISEMENT, RESULT};

/// How many connections die: as many as the two tries of each request of a listing would take.
const DYING: usize = 4;

/// Answers the two requests of a listing, the first one only when all [`DYING`] connections are open, and
/// closes after the third. Connections after those live on.
fn answer(mut stream: &TcpStream, is_dying: bool, all_open: &Barrier) -> io::Result<()> {
    for number in 0.. {
        let mut request = Vec::new();
        let ends = |request: &[u8]| {
            request.ends_with(if request.starts_with(b"GET") { b"\r\n\r\n" } else { b"0000" })
        };
        while !ends(&request) {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        match number {
            0 if is_dying => drop(all_open.wait()),
            2 if is_dying => break,
            _ => {}
        }
        let (kind, body) = if request.starts_with(b"GET") {
            (ADVERTISEMENT, "000eversion 2\n000cls-refs\n0000".to_owned())
        } else {
            (RESULT, format!("003a{:040x} refs/tags/v1\n0000", 1))
        };
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    }
    Ok(())
}

#[test]
fn kept_connections_dead_at_once_cost_no_listing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.git", listener.local_addr().unwrap()).parse().unwrap();
    thread::spawn(move || {
        let all_open = Arc::new(Barrier::new(DYING));
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let all_open = Arc::clone(&all_open);
            thread::spawn(move || answer(&stream, number < DYING, &all_open));
        }
    });
    let client = smart_http::SmartHttp::new(DYING, LISTING_DEADLINE);
    let list = || {
        let tags = client.list_tags(&url, Instant::now(), |_| Ok(()), &Interrupt::new().unwrap());
        assert!(tags.unwrap().iter().eq(["v1"]));
    };
    thread::scope(|scope| {
        for _ in 0..DYING {
            scope.spawn(list);
        }
    });
    list();
}
