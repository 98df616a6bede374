//! The gate in front of the HTTP server: it takes every connection, and lets
//! through only complete requests within their limits.
//!
//! `tiny_http` gives each connection a thread, reads heads without a limit and
//! waits for a client as long as the client likes. Behind the gate none of this
//! matters: one thread holds all clients in non-blocking sockets, each costs a
//! few kilobytes at most until its request is complete, everything has a
//! deadline, and when there are too many, the one that has kept us waiting the
//! longest makes room. Only then does a request travel on, over a Unix socket
//! in the state directory, and never more than [`MAX_BACKENDS`] at a time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::warn;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, getrlimit};

use crate::http::Board;
use crate::http::client::{Backend, Client, Readiness, Step};
use crate::http::frame::{MAX_BODY, Refusal};
use crate::http::slots::Slots;

/// The most clients held at a time, if the limit on open files allows as many.
const MAX_CLIENTS: u64 = 1000;

/// The most requests being answered at a time; the others wait for their turn.
/// Each is a thread of the server behind the gate.
const MAX_BACKENDS: usize = 16;

/// The connections to the server that are kept for the next request.
const IDLE_BACKENDS: usize = 2;

/// The most bytes of request bodies held at a time: one body of the greatest length, and many usual ones.
const MAX_HELD: usize = MAX_BODY + 4 * 1024 * 1024;

/// The most bytes of answers held for clients that do not read them.
const MAX_UNREAD: usize = 32 * 1024 * 1024;

/// How often deadlines are looked at while there are clients; without clients the gate sleeps.
const SWEEP: Duration = Duration::from_secs(1);

/// How many steps a client may take before the others have their turn, so that one
/// that sends without a pause does not keep the gate to itself: some requests, or a megabyte or two.
const TURN: usize = 32;

/// How long to pause when the system refuses a new connection, so that a lack of files is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long an answer to a plain GET serves others: as long as its Date header is true.
const KEEP: Duration = Duration::from_secs(1);

/// The epoll token of the listening socket; those of clients and backends are made by [`token`].
const LISTENER: u64 = u64::MAX;

/// Starts the gate's thread: clients of `listener` are served by the server at `server`.
///
/// # Errors
/// When the system refuses an epoll instance or a thread.
pub(super) fn start(listener: TcpListener, server: PathBuf, board: Arc<Board>) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Half of the files are for the rest of the process: backends, children, the log.
    let max_clients = usize::try_from((open_files / 2).clamp(8, MAX_CLIENTS)).unwrap_or(8);
    let gate = Gate {
        listener,
        server,
        epoll,
        max_clients,
        clients: Slots::default(),
        backends: Slots::default(),
        idle: Vec::new(),
        waiting: VecDeque::new(),
        unfinished: BTreeSet::new(),
        board,
        kept: HashMap::new(),
        swept: Instant::now(),
    };
    thread::Builder::new().name("http-gate".into()).spawn(move || gate.run())
}

struct Gate {
    listener: TcpListener,
    server: PathBuf,
    epoll: OwnedFd,
    max_clients: usize,
    clients: Slots<Client>,
    backends: Slots<Backend>,
    /// Backends without a client.
    idle: Vec<usize>,
    /// Clients whose request waits for a backend.
    waiting: VecDeque<usize>,
    /// Clients that had their turn, but could go on: no event will tell of them again.
    unfinished: BTreeSet<usize>,
    board: Arc<Board>,
    kept: HashMap<String, KeptAnswer>,
    swept: Instant,
}

/// An answer to a plain GET. It serves everybody until the farm's state changes
/// or its Date header is too old.
struct KeptAnswer {
    response: Arc<[u8]>,
    /// The version of the board when the request was passed on.
    version: u64,
    made: Instant,
}

impl Gate {
    fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
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
                Err(error) => {
                    log::error!(error:%; "http gate failed");
                    return;
                }
            }
            for event in &events {
                // The fields of an event are unaligned: they have to be copied.
                let (data, flags) = (event.data, event.flags);
                let (is_backend, index) =
                    (data.u64() & 1 == 1, usize::try_from(data.u64() >> 1).unwrap_or(0));
                if data.u64() == LISTENER {
                    self.accept();
                } else if !is_backend {
                    if let Some(client) = self.clients.get(index) {
                        client.readiness.note(flags);
                        self.drive(index);
                    }
                } else if let Some(backend) = self.backends.get(index) {
                    backend.input.note(flags);
                    match backend.client {
                        Some(client) => self.drive(client),
                        // The server says nothing unasked: it has closed a connection that nobody used.
                        None if flags.intersects(EventFlags::IN | EventFlags::RDHUP) => {
                            self.drop_backend(index);
                        }
                        None => {}
                    }
                }
            }
            for index in std::mem::take(&mut self.unfinished) {
                self.drive(index);
            }
            if self.swept.elapsed() >= SWEEP {
                self.sweep();
            }
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    if self.clients.len() >= self.max_clients {
                        self.make_room();
                    }
                    let Ok(client) = Client::new(socket) else { continue };
                    let index = self.clients.insert(client);
                    let added = self.clients.get(index).map(|client| {
                        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                        epoll::add(&self.epoll, &client.socket, token(index, false), interest)
                    });
                    if !matches!(added, Some(Ok(()))) {
                        self.clients.remove(index);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client has gone before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(error:%; "cannot accept a connection");
                    self.make_room();
                    thread::sleep(ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Closes the connection that has kept us waiting for a request the longest.
    fn make_room(&mut self) {
        let waiting = self.clients.iter().filter(|(_, client)| client.owes_us());
        if let Some((index, _)) = waiting.min_by_key(|(_, client)| client.since) {
            self.drop_client(index);
        }
    }

    /// Takes a client as far as it goes without waiting, or until its turn is over.
    fn drive(&mut self, index: usize) {
        for _ in 0..TURN {
            let room = self.room_for_body(index);
            let Some(client) = self.clients.get(index) else { return };
            let backend = client.backend.and_then(|backend| self.backends.get(backend));
            match client.step(backend, room) {
                Step::Again => {}
                Step::Wait => return,
                Step::NeedsBackend => {
                    if !self.answer_from_kept(index) && !self.assign_backend(index) {
                        return;
                    }
                }
                Step::Answered(response) => {
                    let backend = client.backend.take();
                    if let (Some(response), Some(path)) = (response, client.plain_get()) {
                        let kept = KeptAnswer { response, version: client.version, made: Instant::now() };
                        // There are no more entries than pages: only they are found.
                        self.kept.insert(path.to_owned(), kept);
                    }
                    if let Some(backend) = backend {
                        self.release_backend(backend);
                    }
                    self.limit_unread();
                }
                Step::Close => return self.drop_client(index),
            }
        }
        self.unfinished.insert(index);
    }

    /// Drops those who have kept their answers unread the longest, if all unread
    /// answers together are too long.
    fn limit_unread(&mut self) {
        while self.unread() > MAX_UNREAD {
            let readers = self.clients.iter().filter(|(_, client)| client.unread().is_some());
            let Some((index, _)) = readers.min_by_key(|(_, client)| client.deadline) else { return };
            self.drop_client(index);
        }
    }

    /// The bytes of all unread answers; one that serves many counts once.
    fn unread(&self) -> usize {
        let answers = self.clients.iter().filter_map(|(_, client)| client.unread());
        let distinct: HashMap<*const u8, usize> =
            answers.map(|answer| (answer.as_ptr(), answer.len())).collect();
        distinct.values().sum()
    }

    /// Answers a plain GET with what the server has answered a moment ago.
    fn answer_from_kept(&mut self, index: usize) -> bool {
        let version = self.board.version();
        let Some(client) = self.clients.get(index) else { return false };
        let Some(kept) = client.plain_get().and_then(|path| self.kept.get(path)) else { return false };
        let is_fresh = kept.version == version && kept.made.elapsed() < KEEP;
        if is_fresh {
            client.reply(kept.response.clone());
        }
        is_fresh
    }

    /// How many more bytes of its body may be held for a client.
    fn room_for_body(&mut self, index: usize) -> usize {
        if !self.clients.get(index).is_some_and(|client| client.sends_body()) {
            return 0;
        }
        let held = self.clients.iter().map(|(_, client)| client.held()).sum();
        MAX_HELD.saturating_sub(held)
    }

    /// Gives a client a connection to the server, or a place in the queue for one.
    fn assign_backend(&mut self, index: usize) -> bool {
        let backend = match self.idle.pop() {
            Some(backend) => backend,
            None if self.backends.len() < MAX_BACKENDS => match self.connect() {
                Ok(backend) => backend,
                Err(error) => {
                    warn!(error:%; "cannot reach the http server");
                    if let Some(client) = self.clients.get(index) {
                        client.refuse(Refusal::Overloaded);
                    }
                    return true;
                }
            },
            None => {
                if !self.waiting.contains(&index) {
                    self.waiting.push_back(index);
                }
                return false;
            }
        };
        if let (Some(client), Some(taken)) = (self.clients.get(index), self.backends.get(backend)) {
            client.backend = Some(backend);
            client.version = self.board.version();
            taken.client = Some(index);
        }
        true
    }

    fn connect(&mut self) -> io::Result<usize> {
        let socket = UnixStream::connect(&self.server)?;
        socket.set_nonblocking(true)?;
        let index = self.backends.insert(Backend { socket, client: None, input: Readiness::default() });
        if let Some(backend) = self.backends.get(index) {
            let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &backend.socket, token(index, true), interest)?;
        }
        Ok(index)
    }

    /// Hands a backend whose answer is complete to the next client that waits for one.
    fn release_backend(&mut self, index: usize) {
        let Some(backend) = self.backends.get(index) else { return };
        backend.client = None;
        self.idle.push(index);
        self.serve_waiting();
        while self.idle.len() > IDLE_BACKENDS {
            if let Some(surplus) = self.idle.first().copied() {
                self.drop_backend(surplus);
            }
        }
    }

    /// Lets clients that wait for a backend go on, as long as there is one to have:
    /// who is answered without a backend leaves it to the next.
    fn serve_waiting(&mut self) {
        while !self.idle.is_empty() || self.backends.len() < MAX_BACKENDS {
            let Some(next) = self.waiting.pop_front() else { return };
            // A client that has gone meanwhile has left the queue, but its place may be taken by another.
            if self.clients.get(next).is_some_and(|client| client.wants_backend()) {
                self.drive(next);
            }
        }
    }

    fn drop_backend(&mut self, index: usize) {
        self.idle.retain(|idle| *idle != index);
        self.backends.remove(index);
    }

    /// Closes a client's connection, and the backend's whose answer nobody waits for now.
    fn drop_client(&mut self, index: usize) {
        self.waiting.retain(|waiting| *waiting != index);
        if let Some(client) = self.clients.remove(index)
            && let Some(backend) = client.backend
        {
            self.drop_backend(backend);
            self.serve_waiting();
        }
    }

    /// Looks for clients whose time is over.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        let now = self.swept;
        let late: Vec<usize> = self
            .clients
            .iter()
            .filter(|(_, client)| client.deadline <= now)
            .map(|(index, _)| index)
            .collect();
        for index in late {
            if self.clients.get(index).is_some_and(Client::time_out) {
                self.drive(index);
            } else {
                self.drop_client(index);
            }
        }
    }
}

fn token(index: usize, is_backend: bool) -> EventData {
    EventData::new_u64((index as u64) << 1 | u64::from(is_backend))
}
