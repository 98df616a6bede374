//! The gate between the clients and `tiny_http`: one thread that holds every client and passes on
//! only complete requests within their limits.
//!
//! `tiny_http` alone gives each connection a thread, reads a head of any length, waits for a client
//! as long as the client likes, and panics where the system refuses it a thread or a file. A few
//! thousand silent clients would end the daemon. Behind the gate they cost a socket and a few
//! kilobytes each: every state has a deadline, and when there are too many clients, the one that
//! has kept the gate waiting the longest makes room.
//!
//! The gate reaches `tiny_http` through [`Backend`]s that exist before the first client and are
//! never made again, so no client and no build can use up the files and threads that they need.
//! Connecting on demand was rejected: `tiny_http` would need a thread and files at the worst
//! moment. Caching answers was rejected too: it needs rules for stale answers, and the server is
//! fast enough.
//!
//! Backends do not break while the rewritten heads of `frame.rs` are all that they carry. If one
//! breaks nevertheless, that is a defect: its client gets 503, the log an error, and the others go
//! on. Without any backend the gate closes its sockets, so that a probe of `/healthz` notices.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use log::{error, warn};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Resource, getrlimit};

use super::backend::{Backend, Request};
use super::client::{Client, Step};
use super::frame::{MAX_BODY, Refusal};

/// The most clients held at a time, if the limit on open files allows as many.
const MAX_CLIENTS: u64 = 1000;

/// The most bytes of requests held at a time: one body of the greatest length beside usual ones.
const MAX_HELD: usize = MAX_BODY + 4 * 1024 * 1024;

/// The most bytes of answers held for clients that do not read them. Each client's copy counts.
const MAX_UNREAD: usize = 32 * 1024 * 1024;

/// How often to check deadlines while there are clients. Without clients the gate sleeps.
const SWEEP: Duration = Duration::from_secs(1);

/// The steps of one client before the others have their turn, so that a client that never stops
/// sending does not keep the gate to itself: a few requests, or 256 KiB.
const TURN: usize = 16;

/// How long to sleep when the system refuses a new connection: a lack of files must not become a
/// busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The epoll token of the listener. Backends and clients are numbered from 0 and no number is
/// reused, so a late event or answer never meets the wrong client.
const LISTENER: u64 = u64::MAX;

/// Starts the gate's thread. It passes the requests of `listener`'s clients to `backends`.
///
/// # Errors
/// When the system refuses an epoll instance or a thread.
pub(super) fn start(listener: TcpListener, backends: Vec<UnixStream>) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    listener.set_nonblocking(true)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Leave half of the files to the rest of the process: children, logs, the repository.
    let max_clients = usize::try_from((open_files / 2).clamp(8, MAX_CLIENTS)).unwrap_or(8);
    let mut gate = Gate {
        listener,
        epoll,
        max_clients,
        backends: BTreeMap::new(),
        clients: BTreeMap::new(),
        next_token: 0,
        waiting: VecDeque::new(),
        unfinished: BTreeSet::new(),
        swept: Instant::now(),
    };
    for socket in backends {
        socket.set_nonblocking(true)?;
        let token = gate.watch(&socket)?;
        gate.backends.insert(token, Backend::new(socket));
    }
    thread::Builder::new().name("http-gate".into()).spawn(move || {
        let error = gate.run();
        error!(error:%; "http gate failed");
    })?;
    Ok(())
}

struct Gate {
    listener: TcpListener,
    epoll: OwnedFd,
    max_clients: usize,
    backends: BTreeMap<u64, Backend>,
    clients: BTreeMap<u64, Client>,
    next_token: u64,
    /// Complete requests that wait for a backend.
    waiting: VecDeque<Request>,
    /// Clients whose turn ended while they could go on: epoll will not report them again.
    unfinished: BTreeSet<u64>,
    swept: Instant,
}

impl Gate {
    /// Serves until epoll fails or the last backend is lost; returns why.
    fn run(mut self) -> io::Error {
        let mut events = Vec::with_capacity(256);
        while !self.backends.is_empty() {
            let pause = if !self.unfinished.is_empty() {
                Some(Timespec::default())
            } else if self.clients.is_empty() {
                None
            } else {
                Timespec::try_from(SWEEP).ok()
            };
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, pause.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return error.into(),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    token if self.backends.contains_key(&token) => self.drive_backend(token),
                    token => self.drive(token),
                }
            }
            for token in std::mem::take(&mut self.unfinished) {
                self.drive(token);
            }
            if self.swept.elapsed() >= SWEEP {
                self.sweep();
            }
            self.pass_on();
        }
        io::Error::other("every connection to the http server is lost")
    }

    /// Registers a socket under a new token. Events are edge-triggered: whoever handles one must
    /// read or write until the socket would block.
    fn watch(&mut self, socket: impl AsFd) -> io::Result<u64> {
        let token = self.next_token;
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(token), interest)?;
        self.next_token += 1;
        Ok(token)
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let is_full = self.clients.len() >= self.max_clients;
                    if is_full && !self.close_longest(|client| !client.awaits_answer()) {
                        continue;
                    }
                    let client = Client::new(socket)
                        .and_then(|client| self.watch(&client.socket).map(|token| (token, client)));
                    self.clients.extend(client);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(error:%; "cannot accept a connection");
                    self.close_longest(|client| !client.awaits_answer());
                    thread::sleep(ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Closes the client that the gate has waited for the longest, idle time included, among those
    /// that `candidate` admits. Returns whether there was one.
    fn close_longest(&mut self, candidate: impl Fn(&Client) -> bool) -> bool {
        let candidates = self.clients.iter().filter(|(_, client)| candidate(client));
        let longest = candidates.min_by_key(|(_, client)| client.since).map(|(token, _)| *token);
        longest.and_then(|token| self.clients.remove(&token)).is_some()
    }

    /// Moves a client on until it has to wait or its turn is over.
    fn drive(&mut self, token: u64) {
        for _ in 0..TURN {
            let sends_body = self.clients.get(&token).is_some_and(Client::sends_body);
            let room = if sends_body { MAX_HELD.saturating_sub(self.held()) } else { 0 };
            let Some(client) = self.clients.get_mut(&token) else { return };
            match client.step(room) {
                Step::Again => {}
                Step::Wait => return,
                Step::Ask { head_only, request } => {
                    return self.waiting.push_back(Request { client: token, head_only, bytes: request });
                }
                Step::Close => {
                    self.clients.remove(&token);
                    return;
                }
            }
        }
        self.unfinished.insert(token);
    }

    /// The bytes of all requests that the gate holds.
    fn held(&self) -> usize {
        let of_clients: usize = self.clients.values().map(Client::held).sum();
        let waiting: usize = self.waiting.iter().map(|request| request.bytes.len()).sum();
        let of_backends: usize = self.backends.values().map(Backend::held).sum();
        of_clients + waiting + of_backends
    }

    /// Gives the requests that wait to the backends that are idle.
    fn pass_on(&mut self) {
        while !self.waiting.is_empty() {
            let idle = self.backends.iter_mut().find(|(_, backend)| backend.is_idle());
            let Some((&token, backend)) = idle else { return };
            let Some(request) = self.waiting.pop_front() else { return };
            if let Err(error) = backend.start(request) {
                self.lose_backend(token, &error);
            }
        }
    }

    fn drive_backend(&mut self, token: u64) {
        let Some(backend) = self.backends.get_mut(&token) else { return };
        match backend.step() {
            Ok(None) => {}
            Ok(Some((client, response))) => self.answer(client, |client| client.reply(response)),
            Err(error) => self.lose_backend(token, &error),
        }
    }

    fn lose_backend(&mut self, token: u64, error: &io::Error) {
        let Some(backend) = self.backends.remove(&token) else { return };
        error!(error:%, left = self.backends.len(); "lost a connection to the http server");
        if let Some(client) = backend.client() {
            self.answer(client, |client| client.refuse(Refusal::Unanswered));
        }
    }

    /// Answers a client, unless it has left or timed out meanwhile. If the clients leave too much
    /// unread, those that have taken the longest are closed.
    fn answer(&mut self, token: u64, reply: impl FnOnce(&mut Client)) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        if !client.awaits_answer() {
            return;
        }
        reply(client);
        self.drive(token);
        // Most clients take a whole answer at once; then nothing was added to what is unread.
        if self.clients.get(&token).is_some_and(|client| client.unread() > 0) {
            while self.clients.values().map(Client::unread).sum::<usize>() > MAX_UNREAD {
                self.close_longest(|client| client.unread() > 0);
            }
        }
    }

    /// Refuses or closes the clients whose deadline has passed, and forgets their requests.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        let is_late = |client: &Client| client.deadline <= self.swept;
        let late: Vec<u64> =
            self.clients.iter().filter(|(_, client)| is_late(client)).map(|(token, _)| *token).collect();
        for token in late {
            if self.clients.get_mut(&token).is_some_and(Client::time_out) {
                self.drive(token);
            } else {
                self.clients.remove(&token);
            }
        }
        let clients = &self.clients;
        self.waiting.retain(|request| clients.get(&request.client).is_some_and(Client::awaits_answer));
    }
}
