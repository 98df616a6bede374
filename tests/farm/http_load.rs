//! Slow, silent, greedy and many clients: each costs bounded time, and none keeps others from
//! `/healthz`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::http::served;
use crate::support::client::{self, Connection, exchange, get};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::processes::{sockets, status_number};
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, poll, wait_until};

/// Limit of a single answer while other clients misbehave: far above the usual time, even on a busy
/// machine, and below the deadlines of the others, ten seconds and more.
const PROMPT: Duration = Duration::from_secs(9);

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n";

#[track_caller]
fn assert_prompt(addr: SocketAddr) {
    let answer = exchange(addr, HEALTHZ, PROMPT).unwrap_or_else(|error| panic!("/healthz: {error}"));
    assert_eq!(answer.text(), "ok");
}

/// The statuses of all answers until the connection is closed.
fn until_closed(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    // A reset ends the connection too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn clients_slow_or_silent_are_cut_off_in_time() {
    // The first deadline is 15 s. The server checks it every second, and reads from a refused
    // client for two more. A deadline that began again with each byte would end ten seconds or more
    // after this limit, when the clients stop writing.
    const LIMIT: Duration = Duration::from_secs(28);
    let (_farm, daemon, addr) = served();
    let idle = sockets(daemon.pid());
    let begin = Instant::now();
    let open = |first: &[u8]| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(first).unwrap();
        stream
    };
    let slow_head = open(b"GET /healthz HTTP/1.1\r\nX-Slow: ");
    let slow_body = open(b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
    let cases = [
        ("silent", open(b""), ""),
        ("half a request", open(b"GET /healthz HT"), "HTTP/1.1 408 "),
        (
            "half a body",
            open(b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"),
            "HTTP/1.1 408 ",
        ),
        ("kept and unused", open(b"GET /healthz HTTP/1.1\r\n\r\n"), "HTTP/1.1 200 "),
        ("one byte a second of a head", slow_head.try_clone().unwrap(), "HTTP/1.1 408 "),
        ("one byte a second of a body", slow_body.try_clone().unwrap(), "HTTP/1.1 408 "),
    ];
    thread::scope(|scope| {
        for (name, mut stream, expected) in cases {
            scope.spawn(move || {
                let answer = until_closed(&mut stream);
                let took = begin.elapsed();
                assert!(
                    answer.starts_with(expected) && answer.is_empty() == expected.is_empty(),
                    "{name}: {answer}"
                );
                assert!(took < LIMIT, "{name}: {took:?}");
            });
        }
        for mut stream in [slow_head, slow_body] {
            scope.spawn(move || {
                // The sleep is the client's pace and waits for nothing.
                while begin.elapsed() < LIMIT && stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_secs(1));
                }
            });
        }
        scope.spawn(move || assert_prompt(addr));
    });
    let left = poll(PATIENCE, || (sockets(daemon.pid()) <= idle).then_some(()));
    assert!(left.is_some(), "{} sockets, at first {idle}", sockets(daemon.pid()));
}

#[test]
fn clients_not_reading_a_large_answer_do_not_block_others() {
    // The status of 400 polled recipes is larger than the buffers between two sockets.
    let repo = GitRepo::new();
    repo.commit(&[], "2026-01-01T00:00:00Z");
    let mut builder = Farm::builder().http();
    for number in 0..400 {
        let id = format!("recipe-with-a-long-name-to-make-the-status-long-{number}");
        builder = builder.with(&Recipe::program(&id, &repo.file_url()));
    }
    let farm = builder.build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("poll complete", 400, PATIENCE);
    wait_until("the status shows all polls", PATIENCE, || {
        let polls = client::status(addr)["polls"].clone();
        polls.as_object().is_some_and(|polls| polls.values().all(|poll| !poll["last_poll"].is_null()))
    });
    let length = get(addr, "/status").body.len();
    assert!(length > 60_000, "{length}");
    let mut deaf: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_nonblocking(true).unwrap();
            // Fill the socket with requests: the answers to a few of them fill the other direction.
            while stream.write(b"GET /status HTTP/1.1\r\n\r\n").is_ok_and(|length| length == 24) {}
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_prompt(addr);
        assert_eq!(get(addr, "/status").body.len(), length);
    }
    // Each client still gets its answers once it reads.
    for stream in &mut deaf[..3] {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
    }
    let memory = status_number(daemon.pid(), "VmRSS");
    assert!(memory < 64 * 1024, "{memory} KiB");
}

#[test]
fn half_requests_by_the_hundred_do_not_delay_others() {
    let (_farm, daemon, addr) = served();
    let threads = || std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().count();
    assert_prompt(addr);
    let before = threads();
    let half: Vec<TcpStream> = (0..300)
        .map(|number| {
            let mut stream = TcpStream::connect(addr).unwrap();
            let begun: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /healthz HTTP/1.1\r\nHost: ",
                _ => b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 5000\r\n\r\nabc",
            };
            stream.write_all(begun).unwrap();
            stream
        })
        .collect();
    for _ in 0..50 {
        assert_prompt(addr);
    }
    assert!(
        threads() <= before,
        "a client without a request cost a thread: {before} before, now {}",
        threads()
    );
    drop(half);
    wait_until("the gate has closed the connections", PATIENCE, || sockets(daemon.pid()) < 20);
}

#[test]
fn clients_too_many_drops_the_oldest_idle_one() {
    let farm = Farm::builder().http().build();
    // The gate gives half of the permitted open files to clients.
    let manager = farm.command(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 128 && exec \"$0\" --config \"$1\""]);
    command.arg(manager.get_program()).arg(farm.config_path()).current_dir(farm.home());
    for (name, value) in manager.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut daemon = Running::spawn(&mut command);
    let addr = daemon.http_addr();
    let mut clients: Vec<Connection> = (0..200).map(|_| Connection::open(addr, PATIENCE).unwrap()).collect();
    assert_prompt(addr);
    assert!(sockets(daemon.pid()) < 90, "{}", sockets(daemon.pid()));
    assert!(clients[..100].iter_mut().all(Connection::is_closed), "the oldest connections were not closed");
    let newest = clients.last_mut().unwrap();
    newest.send(HEALTHZ).unwrap();
    assert_eq!(newest.receive(false).unwrap().text(), "ok");
    assert!(daemon.events().iter().all(|event| event["level"] == "info"), "{daemon}");
}

#[test]
fn clients_that_always_have_a_request_make_room_for_newcomers() {
    let farm = Farm::builder().http().build();
    let mut command = farm.command(&["--config"]);
    command.arg(farm.config_path());
    // Places for 16 clients.
    let mut daemon = Running::spawn(&mut farm.shell(&command, "ulimit -n 64 && exec \"$@\""));
    let addr = daemon.http_addr();
    let (done, end) = (AtomicBool::new(false), Instant::now() + PATIENCE);
    let is_over = || done.load(Ordering::Relaxed) || Instant::now() >= end;
    thread::scope(|scope| {
        for _ in 0..16 {
            let mut writer = TcpStream::connect(addr).unwrap();
            writer.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut reader = writer.try_clone().unwrap();
            reader.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            scope.spawn(move || {
                let requests = b"GET /healthz HTTP/1.1\r\n\r\n".repeat(1000);
                while !is_over() && writer.write_all(&requests).is_ok() {}
            });
            scope.spawn(move || {
                let mut buffer = [0; 16384];
                while !is_over() && !matches!(reader.read(&mut buffer), Ok(0)) {}
            });
        }
        for _ in 0..12 {
            assert_prompt(addr);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn client_never_stops_sending_does_not_delay_others() {
    let (_farm, _daemon, addr) = served();
    // Flood until all answers have come, but end if none comes.
    let (done, end) = (AtomicBool::new(false), Instant::now() + PATIENCE);
    let is_flooding = || !done.load(Ordering::Relaxed) && Instant::now() < end;
    let flood = |first: &'static [u8], block: Vec<u8>, reads: bool| {
        while is_flooding() {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            stream.write_all(first).unwrap();
            let mut reader = stream.try_clone().unwrap();
            thread::scope(|scope| {
                if reads {
                    scope.spawn(move || {
                        let mut buffer = [0; 16384];
                        while reader.read(&mut buffer).is_ok_and(|length| length > 0) {}
                    });
                }
                while is_flooding() && stream.write_all(&block).is_ok() {}
            });
        }
    };
    thread::scope(|scope| {
        // One client sends on after its refusal, one sends endless requests, one sends long bodies.
        scope.spawn(|| flood(b"garbage\r\n\r\n", vec![b'x'; 65536], true));
        let requests = b"GET /healthz HTTP/1.1\r\n\r\n".repeat(1000);
        scope.spawn(|| flood(b"", requests, true));
        let body = [
            b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n".as_slice(),
            &vec![b'x'; 20_000_000],
        ]
        .concat();
        scope.spawn(|| flood(b"", body, true));
        for _ in 0..30 {
            assert_prompt(addr);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn odd_requests_are_answered_and_leave_nothing_open() {
    let (_farm, daemon, addr) = served();
    let idle = sockets(daemon.pid());
    let long = format!("Content-Length: 200000\r\n\r\n{}", "x".repeat(200_000));
    // Each of these is unusual, and a careless server takes its body for a request.
    for text in [
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nTE: chunked\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nX: \u{e9}\r\n\r\n",
        "POST /healthz HTTP/1.1\r\nExpect: tea\r\n\r\n",
        "POST /healthz HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        &format!("POST /healthz HTTP/1.1\r\n{long}"),
        &format!("GET /status HTTP/1.1\r\n{long}"),
        &format!("HEAD /nothing HTTP/1.1\r\n{long}"),
        &format!("POST /webhooks/github HTTP/1.1\r\n{long}"),
        "!#$%&'*+-.^_`|~ /healthz HTTP/1.1\r\n\r\n",
        "CONNECT farm:1 HTTP/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
        "POST /webhooks/github HTTP/1.1\r\nX-Hub-Signature-256:\r\nContent-Type: \r\nContent-Length: 0\r\n\r\n",
    ] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let answer = until_closed(&mut stream);
            assert!(
                answer.starts_with("HTTP/1.1 ") && !answer.starts_with("HTTP/1.1 503 "),
                "{text}: {answer}"
            );
        }
        assert_prompt(addr);
    }
    wait_until("the gate has closed the clients' sockets", PATIENCE, || sockets(daemon.pid()) <= idle);
    assert_eq!(sockets(daemon.pid()), idle, "a connection was not closed");
    assert!(daemon.events().iter().all(|event| event["level"] != "error"), "{daemon}");
}

#[test]
fn clients_are_answered_when_no_more_files_can_be_opened() {
    let (_farm, daemon, addr) = served();
    let mut clients: Vec<Connection> = (0..50).map(|_| Connection::open(addr, PATIENCE).unwrap()).collect();
    let mut ask = |count: usize| {
        for client in &mut clients[..count] {
            client.send(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        }
        for client in &mut clients[..count] {
            assert_eq!(client.receive(false).unwrap().text(), "ok");
        }
    };
    // Each is accepted, but the routes have never had more than one request at a time.
    (0..50).for_each(|_| ask(1));
    let none = Rlimit { current: Some(3), maximum: Some(3) };
    prlimit(Pid::from_raw(daemon.pid()), Resource::Nofile, none).unwrap();
    (0..10).for_each(|_| ask(50));
    assert!(daemon.events().iter().all(|event| event["level"] == "info"), "{daemon}");
}
