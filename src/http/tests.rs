//! Tests the gate with servers that misbehave as `tiny_http` never does: one answers before it reads
//! the body, one closes its connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use super::gate;

/// Far above the time that any step here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a gate with `count` backends; returns its address and the server's ends.
fn gate(count: usize) -> (SocketAddr, Vec<UnixStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), gate_at(listener, count))
}

fn gate_at(listener: TcpListener, count: usize) -> Vec<UnixStream> {
    let (ours, servers): (Vec<_>, Vec<_>) = (0..count).map(|_| UnixStream::pair().unwrap()).unzip();
    gate::start(listener, ours).unwrap();
    for server in &servers {
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    servers
}

/// Sends `request`; it must ask for the end of the connection.
fn send(addr: SocketAddr, request: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(request).unwrap();
    client
}

fn receive(mut client: TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// Reads one request with a body of `body` bytes; returns its method.
fn read_request(server: &mut UnixStream, body: usize) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        let length = server.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "the gate has closed the connection");
        bytes.extend_from_slice(&buffer[..length]);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if end.is_some_and(|end| bytes.len() == end + 4 + body) {
            let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
            return String::from_utf8_lossy(method).into_owned();
        }
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

#[test]
fn answer_larger_than_the_sockets_before_the_body_is_read_arrives() {
    // Far more than a Unix socket holds: server and gate would wait for each other.
    const LENGTH: usize = 4_000_000;
    let (addr, mut servers) = gate(1);
    let mut server = servers.remove(0);
    let answers = thread::spawn(move || {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{}", "y".repeat(LENGTH));
        for _ in 0..2 {
            // The request has begun to come.
            server.read_exact(&mut [0]).unwrap();
            server.write_all(answer.as_bytes()).unwrap();
            read_request(&mut server, LENGTH);
        }
    });
    let head = format!("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n");
    // Twice, so that the body of the first request is seen not to reach the second.
    for _ in 0..2 {
        let client = send(addr, &[head.as_bytes(), &vec![b'x'; LENGTH]].concat());
        let answer = receive(client);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("yyy"), "{}", answer.len());
    }
    answers.join().unwrap();
}

#[test]
fn connection_to_the_server_lost_answers_503_and_the_others_serve_on() {
    let (addr, mut servers) = gate(2);
    let client = send(addr, GET);
    read_request(&mut servers[0], 0);
    servers.remove(0);
    assert!(receive(client).starts_with("HTTP/1.1 503 "));
    for _ in 0..2 {
        let client = send(addr, GET);
        read_request(&mut servers[0], 0);
        servers[0].write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        assert!(receive(client).ends_with("\r\n\r\nok"));
    }
    // An answer to no request makes the gate drop the connection. It was the last one, so the gate
    // stops listening.
    servers[0].write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    assert_eq!(servers[0].read(&mut [0]).unwrap(), 0);
    let end = std::time::Instant::now() + PATIENCE;
    while TcpStream::connect(addr).is_ok() {
        assert!(std::time::Instant::now() < end, "the gate still listens");
        thread::yield_now();
    }
}

#[test]
fn requests_beyond_the_backends_wait_for_their_turn() {
    let (addr, mut servers) = gate(1);
    let clients: Vec<_> = (0..20).map(|_| send(addr, GET)).collect();
    for _ in 0..20 {
        read_request(&mut servers[0], 0);
        servers[0].write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    }
    for client in clients {
        assert!(receive(client).ends_with("\r\n\r\nok"));
    }
}

#[test]
fn client_with_much_to_read_does_not_block_the_gate() {
    // Several turns of the gate, and no more than the sockets hold before anybody reads.
    const LENGTH: usize = 600_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Both have sent all when the gate begins, and the one with the long body comes first.
    let head = format!("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n");
    let long = send(addr, &[head.as_bytes(), &vec![b'x'; LENGTH]].concat());
    let short = send(addr, GET);
    let mut servers = gate_at(listener, 1);
    for (method, body) in [("GET", 0), ("POST", LENGTH)] {
        assert_eq!(read_request(&mut servers[0], body), method);
        servers[0].write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    }
    for client in [long, short] {
        assert!(receive(client).ends_with("\r\n\r\nok"));
    }
}
