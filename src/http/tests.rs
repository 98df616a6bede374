//! Tests the gate with `tiny_http` and routes that hang, and with servers that misbehave as
//! `tiny_http` never does: one answers before it reads the body, one closes its connection.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tempfile::TempDir;
use tiny_http::Response;

use super::frame::MAX_BODY;
use super::{behind, gate};

/// Far above the time that any step here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// More clients than a test has.
const MANY: usize = 100;

const GET: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Starts a gate before `tiny_http`, and routes that answer what `answer` makes of the length of a
/// request's body.
fn serve(listener: TcpListener, max_clients: usize, mut answer: impl FnMut(u64) -> String + Send + 'static) {
    let directory = TempDir::with_prefix("behind-").unwrap();
    let (server, connections) = behind::open(directory.path()).unwrap();
    assert_eq!(directory.path().read_dir().unwrap().count(), 0, "the socket is left behind");
    thread::spawn(move || {
        for mut request in server.incoming_requests() {
            let length = io::copy(request.as_reader(), &mut io::sink()).unwrap();
            let text = answer(length);
            request.respond(Response::from_string(text)).unwrap();
        }
    });
    gate::start(listener, connections, max_clients).unwrap();
}

/// Starts a gate whose routes report the length of each body, and answer when they may.
fn held_gate(listener: TcpListener, max_clients: usize) -> (Receiver<u64>, Sender<()>) {
    let ((asked, asks), (go, may_go)) = (unbounded(), unbounded());
    serve(listener, max_clients, move |length| {
        asked.send(length).unwrap();
        may_go.recv_timeout(PATIENCE).unwrap();
        "ok".to_owned()
    });
    (asks, go)
}

/// Starts a gate before servers that are no `tiny_http`; returns their ends of the connections.
fn gate_before(listener: TcpListener, count: usize) -> Vec<UnixStream> {
    let (ours, servers): (Vec<_>, Vec<_>) = (0..count).map(|_| UnixStream::pair().unwrap()).unzip();
    gate::start(listener, ours, MANY).unwrap();
    for server in &servers {
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    servers
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

/// Sends `request`; it must ask for the end of the connection if the answer is to be received.
fn send(addr: SocketAddr, request: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client.write_all(request).unwrap();
    client
}

fn receive(mut client: TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// A request whose body has `sent` of `length` bytes.
fn post(length: usize, sent: usize) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; sent]].concat()
}

#[test]
fn answer_larger_than_the_sockets_before_the_body_is_read_arrives() {
    // Far more than a Unix socket holds: server and gate would wait for each other.
    const LENGTH: usize = 4_000_000;
    let (listener, addr) = listener();
    let mut server = gate_before(listener, 1).remove(0);
    let answers = thread::spawn(move || {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{}", "y".repeat(LENGTH));
        for _ in 0..2 {
            // The request has begun to come.
            server.read_exact(&mut [0]).unwrap();
            server.write_all(answer.as_bytes()).unwrap();
            read_request(&mut server, LENGTH);
        }
    });
    for _ in 0..2 {
        let answer = receive(send(addr, &post(LENGTH, LENGTH)));
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("yyy"), "{}", answer.len());
    }
    answers.join().unwrap();
}

#[test]
fn connection_to_the_server_lost_answers_503_and_the_others_serve_on() {
    let (listener, addr) = listener();
    let mut servers = gate_before(listener, 2);
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
fn clients_that_always_ask_make_room_for_newcomers() {
    const PLACES: usize = 8;
    let (listener, addr) = listener();
    let (_asks, go) = held_gate(listener, PLACES);
    let kept = b"GET / HTTP/1.1\r\n\r\n";
    let mut hogs: Vec<_> = (0..PLACES).map(|_| send(addr, kept)).collect();
    (0..PLACES).for_each(|_| go.send(()).unwrap());
    for hog in &mut hogs {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let mut byte = [0];
            hog.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
    }
    for hog in &mut hogs {
        hog.write_all(kept).unwrap();
    }
    // All wait for their second answers, the newcomers for their first.
    let newcomers: Vec<_> = (0..PLACES).map(|_| send(addr, GET)).collect();
    (0..2 * PLACES).for_each(|_| go.send(()).unwrap());
    for newcomer in newcomers {
        assert!(receive(newcomer).starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn requests_beyond_the_connections_wait_for_their_turn() {
    let (listener, addr) = listener();
    let (asks, go) = held_gate(listener, MANY);
    let clients: Vec<_> = (0..50).map(|_| send(addr, GET)).collect();
    asks.recv_timeout(PATIENCE).unwrap();
    (0..50).for_each(|_| go.send(()).unwrap());
    for client in clients {
        assert!(receive(client).ends_with("\r\n\r\nok"));
    }
}

#[test]
fn healthz_waits_for_no_other_answer_and_no_room() {
    let (listener, addr) = listener();
    let (asks, go) = held_gate(listener, MANY);
    // The routes hang in the first request. The others take all connections and all room.
    let mut others = vec![thread::spawn(move || receive(send(addr, &post(MAX_BODY, MAX_BODY))))];
    assert_eq!(asks.recv_timeout(PATIENCE).unwrap(), MAX_BODY as u64);
    others.extend((0..20).map(|_| thread::spawn(move || receive(send(addr, &post(400_000, 400_000))))));
    let ask = |head: &str| receive(send(addr, format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()));
    for _ in 0..10 {
        let answer = ask("GET /healthz?probe HTTP/1.1");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
        assert!(ask("HEAD /healthz HTTP/1.1").ends_with("Connection: close\r\n\r\n"));
    }
    assert!(!others.iter().any(thread::JoinHandle::is_finished), "nothing hung");
    (0..21).for_each(|_| go.send(()).unwrap());
    for client in others {
        assert!(client.join().unwrap().ends_with("\r\n\r\nok"));
    }
    // On one connection, the answers keep the order of the requests, and the end of each is its own.
    let pipelined = b"GET /healthz HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nPOST /healthz HTTP/1.1\r\n\r\n\
        GET /healthz HTTP/1.1\r\nContent-Length: 9\r\n\r\nunread me\
        HEAD /healthz HTTP/1.1\r\n\r\nGET /healthz HTTP/1.0\r\n\r\n";
    let client = send(addr, pipelined);
    (0..2).for_each(|_| go.send(()).unwrap());
    let answers = receive(client);
    let bodies = answers.split("\r\n\r\n").map(|part| part.split("HTTP/1.1 200").next().unwrap_or_default());
    let bodies: Vec<_> = bodies.skip(1).collect();
    assert_eq!(bodies, ["ok", "ok", "ok", "ok", "", "ok"], "{answers}");
    assert_eq!(answers.matches("Server: tiny-http").count(), 2, "{answers}");
}

#[test]
fn client_with_much_to_read_does_not_block_the_gate() {
    // Several turns of the gate, and no more than the sockets hold before anybody reads.
    const LENGTH: usize = 600_000;
    let (listener, addr) = listener();
    // Both have sent all when the gate begins, and the one with the long body comes first.
    let clients = [send(addr, &post(LENGTH, LENGTH)), send(addr, GET)];
    let mut server = gate_before(listener, 1).remove(0);
    for (method, body) in [("GET", 0), ("POST", LENGTH)] {
        assert_eq!(read_request(&mut server, body), method);
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    }
    for client in clients {
        assert!(receive(client).ends_with("\r\n\r\nok"));
    }
}

#[test]
fn bodies_unfinished_make_room_for_newcomers() {
    let (listener, addr) = listener();
    serve(listener, MANY, |length| length.to_string());
    // Each sends as much as the gate takes, and never finishes.
    let greedy: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(move || {
                let mut client = send(addr, &post(MAX_BODY, 0));
                let piece = vec![b'x'; 64 * 1024];
                for _ in 0..MAX_BODY / piece.len() - 1 {
                    if client.write_all(&piece).is_err() {
                        break;
                    }
                }
                client
            })
        })
        .collect();
    for _ in 0..300 {
        let answer = receive(send(addr, &post(20_000, 20_000)));
        assert!(answer.ends_with("\r\n\r\n20000"), "{answer}");
    }
    let greedy: Vec<_> = greedy.into_iter().map(|client| client.join().unwrap()).collect();
    for _ in 0..300 {
        let answer = receive(send(addr, &post(20_000, 20_000)));
        assert!(answer.ends_with("\r\n\r\n20000"), "{answer}");
    }
    let refused = greedy.into_iter().filter(|client| {
        client.set_nonblocking(true).unwrap();
        let mut start = [0; 13];
        (&mut &*client).read_exact(&mut start).is_ok() && &start == b"HTTP/1.1 503 "
    });
    assert_eq!(refused.count(), 2, "there is room for exactly one of them");
}

#[test]
fn bodies_complete_make_newcomers_wait_and_refuse_none() {
    let (listener, addr) = listener();
    let (asks, go) = held_gate(listener, MANY);
    let long = thread::spawn(move || receive(send(addr, &post(MAX_BODY, MAX_BODY))));
    assert_eq!(asks.recv_timeout(PATIENCE).unwrap(), MAX_BODY as u64);
    // Together more than there is room for.
    let others: Vec<_> = (0..20).map(|_| send(addr, &post(400_000, 400_000))).collect();
    (0..21).for_each(|_| go.send(()).unwrap());
    for client in others {
        let answer = receive(client);
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
    assert!(long.join().unwrap().ends_with("\r\n\r\nok"));
}

#[test]
fn connection_ends_as_the_client_asked_and_the_answer_says_so() {
    let (listener, addr) = listener();
    serve(listener, MANY, |_| "ok".to_owned());
    let kept = b"GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\n";
    for (last, closes) in
        [(GET, true), (b"GET / HTTP/1.0\r\n\r\n", true), (b"GET / HTTP/1.1\r\nConnection: x\r\n\r\n", false)]
    {
        let client = send(addr, &[&kept[..], last].concat());
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let answers = receive(client);
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answers}");
        assert_eq!(answers.matches("\r\n\r\nok").count(), 2, "{answers}");
        assert_eq!(answers.matches("Connection: close\r\n").count(), usize::from(closes), "{answers}");
    }
}
