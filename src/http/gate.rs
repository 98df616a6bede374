//! The gate: one thread that holds every client, and passes on only complete requests within their
//! limits. It answers `/healthz` itself: that must not wait for a slow answer of the routes.
//!
//! A server with a thread for each connection is ended by a few thousand silent clients. Here they
//! cost a socket and a few kilobytes each: every state has a deadline, and when there are too many
//! clients, the one that has kept the gate waiting the longest makes room. When too many bytes of
//! bodies have arrived, the longest unfinished body makes room, not the newcomer.
//!
//! All that the gate needs exists before the first client and is never made again, the connections to
//! `tiny_http` included: no client and no build can use it up. A client that cannot be served for
//! want of files or memory gets 503, and the log a line.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use log::{error, warn};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, getrlimit};

use super::backend::{Ask, Reply};
use super::client::{Client, Step};
use super::desk::Desk;
use super::frame::{MAX_BODY, Refusal};
use super::limited::Limited;

/// The most clients held at a time, if the limit on open files allows as many.
const MAX_CLIENTS: u64 = 1000;

/// The files left to the rest of the process at the least: its own, and those of a few children.
const OTHER_FILES: u64 = 48;

/// The most bytes of requests held at a time: one body of the greatest length beside usual ones.
const MAX_HELD: usize = MAX_BODY + 4 * 1024 * 1024;

/// The most bytes of answers held for clients that do not read them.
const MAX_UNREAD: usize = 32 * 1024 * 1024;

/// How often to check deadlines while there are clients. Without clients the gate sleeps.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a client may be silent before others are preferred: its request may be on the way.
const MOMENT: Duration = Duration::from_secs(1);

/// The steps of one client before the others have their turn, so that a client that never stops
/// sending does not keep the gate to itself: a few requests, or 256 KiB.
const TURN: usize = 16;

/// The most connections accepted in one go, so that a flood of them leaves the clients their turn.
const ACCEPTS: usize = 64;

/// How long to sleep when the system refuses even the connection that would be refused: a lack of
/// files must not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The epoll token of the listener. Clients are numbered from 0 and no number is reused, so a late
/// event or answer never meets the wrong client.
const LISTENER: u64 = u64::MAX;

/// The epoll token of the desk's first connection. The others count down from it.
const FIRST_CONNECTION: u64 = u64::MAX - 1;

/// What a socket is watched for. Events are edge-triggered: whoever handles one must read or write
/// until the socket would block.
const EDGES: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// Returns how many clients may be held at a time: leaves half of the files to the rest of the
/// process, for children, logs and the repository.
pub(super) fn max_clients() -> usize {
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let max = (open_files / 2).min(open_files.saturating_sub(OTHER_FILES)).clamp(4, MAX_CLIENTS);
    usize::try_from(max).unwrap_or(4)
}

/// Starts the thread of the gate. It passes the requests of `listener`'s clients on to
/// `connections`, and holds at most `max_clients` at a time.
///
/// # Errors
/// When the system refuses a file or a thread.
pub(super) fn start(
    listener: TcpListener,
    connections: Vec<UnixStream>,
    max_clients: usize,
) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    listener.set_nonblocking(true)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let desk = Desk::new(connections)?;
    for (socket, number) in desk.sockets().zip(0..) {
        epoll::add(&epoll, socket, EventData::new_u64(FIRST_CONNECTION - number), EDGES)?;
    }
    let gate = Gate {
        spare: Some(spare(&listener)?),
        listener,
        epoll,
        desk,
        max_clients,
        clients: HashMap::new(),
        next_token: 0,
        unfinished: BTreeSet::new(),
        starved: BTreeSet::new(),
        swept: Instant::now(),
        refusals: Limited::default(),
        accept_errors: Limited::default(),
    };
    thread::Builder::new().name("http-gate".into()).spawn(move || {
        let error = gate.run();
        error!(error:%; "http gate failed");
    })?;
    Ok(())
}

/// Returns a file that does nothing but occupy its number.
fn spare(of: &impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(of, 0)?)
}

struct Gate {
    listener: TcpListener,
    epoll: OwnedFd,
    /// Closed when the process has no files left, to accept a client and refuse it.
    spare: Option<OwnedFd>,
    desk: Desk,
    max_clients: usize,
    clients: HashMap<u64, Client>,
    next_token: u64,
    /// Clients whose turn ended while they could go on: epoll will not report them again.
    unfinished: BTreeSet<u64>,
    /// Clients that could go on if complete bodies did not occupy the room.
    starved: BTreeSet<u64>,
    swept: Instant,
    /// Why clients were refused, and their addresses.
    refusals: Limited<(&'static str, SocketAddr)>,
    accept_errors: Limited<io::Error>,
}

impl Gate {
    /// Serves until epoll fails or the last connection to the server is lost; returns why.
    fn run(mut self) -> io::Error {
        let mut events = Vec::with_capacity(256);
        while !self.desk.is_closed() {
            let pause = if !self.unfinished.is_empty() {
                Some(Timespec::default())
            } else if self.clients.is_empty() && !self.has_lines_to_log() {
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
                    token if token < self.next_token => self.drive(token),
                    token => self.take_answer(FIRST_CONNECTION - token),
                }
            }
            for token in std::mem::take(&mut self.unfinished) {
                self.drive(token);
            }
            if self.swept.elapsed() >= SWEEP {
                self.sweep();
            }
            self.pass_on();
            self.log();
        }
        io::Error::other("every connection to the http server is lost")
    }

    /// Registers a socket under a new token.
    fn watch(&mut self, socket: impl AsFd) -> io::Result<u64> {
        let token = self.next_token;
        epoll::add(&self.epoll, socket, EventData::new_u64(token), EDGES)?;
        self.next_token += 1;
        Ok(token)
    }

    fn accept(&mut self) {
        // Another thread may have taken its number while it was closed.
        if self.spare.is_none() {
            self.spare = spare(&self.listener).ok();
        }
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok((socket, from)) => self.admit(socket, from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.accept_errors.record(error);
                    let has_room = self.close_longest() || self.refuse_next();
                    if !has_room {
                        thread::sleep(ACCEPT_PAUSE);
                    }
                    // Let the clients move on before the next try.
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: TcpStream, from: SocketAddr) {
        if self.clients.len() >= self.max_clients && !self.close_longest() {
            return self.turn_away(socket, from);
        }
        let client = Client::new(socket, from)
            .and_then(|client| self.watch(&client.socket).map(|token| (token, client)));
        match client {
            Ok((token, client)) => drop(self.clients.insert(token, client)),
            Err(error) => self.accept_errors.record(error),
        }
    }

    /// Accepts the next client with the spare file, and refuses it. Returns whether that was
    /// possible.
    fn refuse_next(&mut self) -> bool {
        self.spare = None;
        let accepted = self.listener.accept();
        let is_accepted = accepted.is_ok();
        if let Ok((socket, from)) = accepted {
            self.turn_away(socket, from);
        }
        self.spare = spare(&self.listener).ok();
        is_accepted
    }

    /// Refuses a client that there is no room for, as far as its socket takes the answer at once.
    fn turn_away(&mut self, socket: TcpStream, from: SocketAddr) {
        self.refusals.record((Refusal::Overloaded.status_and_text().1, from));
        if let Ok(mut client) = Client::new(socket, from) {
            client.refuse(Refusal::Overloaded);
            client.step();
        }
    }

    /// Closes the client that the gate has waited for the longest, idle time included. Before those
    /// that it has waited for only a moment, closes the one that has had the most answers: clients
    /// that always have another request must not keep all places. Returns whether there was one.
    fn close_longest(&mut self) -> bool {
        let silent = self.clients.iter().filter(|(_, client)| !client.awaits_answer());
        let longest = silent.min_by_key(|(_, client)| client.since);
        let late = longest.filter(|(_, client)| client.since.elapsed() >= MOMENT);
        let greediest = || self.clients.iter().max_by_key(|(_, client)| client.answered);
        let greediest = || greediest().filter(|(_, client)| client.answered > 0);
        let one = late.or_else(greediest).or(longest);
        let Some(longest) = one.map(|(token, _)| *token) else { return false };
        // A client that has asked for nothing loses nothing.
        if self.clients.get(&longest).is_some_and(Client::has_begun) {
            self.refuse(longest, Refusal::Overloaded);
            // Its file is needed now: send what its socket takes at once.
            self.clients.get_mut(&longest).map(Client::step);
        }
        self.clients.remove(&longest).is_some()
    }

    fn refuse(&mut self, token: u64, refusal: Refusal) {
        if let Some(client) = self.clients.get_mut(&token) {
            client.refuse(refusal);
            self.refusals.record((refusal.status_and_text().1, client.from));
        }
    }

    /// Moves a client on until it has to wait or its turn is over.
    fn drive(&mut self, token: u64) {
        for _ in 0..TURN {
            if self.clients.get(&token).is_some_and(Client::sends_body) && !self.has_room_for(token) {
                return;
            }
            let Some(client) = self.clients.get_mut(&token) else { return };
            match client.step() {
                Step::Again => {}
                Step::Refused(refusal) => {
                    self.refusals.record((refusal.status_and_text().1, client.from));
                }
                Step::Wait => return,
                Step::Ask { head_only, keep_alive, request } => {
                    return self.desk.push(Ask { client: token, head_only, keep_alive, request });
                }
                Step::Close => {
                    self.clients.remove(&token);
                    return;
                }
            }
        }
        self.unfinished.insert(token);
    }

    /// Whether a client that sends a body may go on, and be it with its refusal. Without room, the
    /// client waits while complete bodies are at the desk, as they are gone soon. Otherwise refuses
    /// the client with the longest unfinished body.
    fn has_room_for(&mut self, token: u64) -> bool {
        if self.held() < MAX_HELD {
            return true;
        }
        if self.desk.held() > 0 {
            self.starved.insert(token);
            return false;
        }
        let longest = self.clients.iter().max_by_key(|(_, client)| client.held());
        if let Some(longest) = longest.map(|(token, _)| *token) {
            self.refuse(longest, Refusal::Overloaded);
            self.unfinished.insert(longest);
        }
        true
    }

    /// The bytes of all bodies that the gate or the routes hold.
    fn held(&self) -> usize {
        self.clients.values().map(Client::held).sum::<usize>() + self.desk.held()
    }

    fn pass_on(&mut self) {
        for lost in self.desk.pass_on() {
            self.answer(lost);
        }
    }

    /// Gives a client the answer that connection `number` has brought.
    fn take_answer(&mut self, number: u64) {
        let Some(reply) = usize::try_from(number).ok().and_then(|number| self.desk.step(number)) else {
            return;
        };
        self.answer(reply);
        self.unfinished.append(&mut self.starved);
    }

    /// Answers a client, unless it has left or timed out meanwhile. If the clients leave too much
    /// unread, those that have taken the longest are closed.
    fn answer(&mut self, (token, answer): Reply) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        if !client.awaits_answer() {
            return;
        }
        match answer {
            Ok(answer) => client.take_answer(answer),
            Err(refusal) => self.refuse(token, refusal),
        }
        self.drive(token);
        // Most clients take a whole answer at once; then nothing was added to what is unread.
        if self.clients.get(&token).is_some_and(|client| client.unread() > 0) {
            while self.clients.values().map(Client::unread).sum::<usize>() > MAX_UNREAD {
                let readers = self.clients.iter().filter(|(_, client)| client.unread() > 0);
                let slowest = readers.min_by_key(|(_, client)| client.since).map(|(token, _)| *token);
                let Some(client) = slowest.and_then(|token| self.clients.remove(&token)) else { return };
                self.refusals.record(("too many unread answers", client.from));
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
            match self.clients.get(&token).and_then(Client::time_out) {
                Some(refusal) => {
                    self.refuse(token, refusal);
                    self.drive(token);
                }
                None => drop(self.clients.remove(&token)),
            }
        }
        let clients = &self.clients;
        self.desk.retain(|client| clients.get(&client).is_some_and(Client::awaits_answer));
    }

    fn has_lines_to_log(&self) -> bool {
        self.refusals.is_waiting() || self.accept_errors.is_waiting()
    }

    fn log(&mut self) {
        if !self.has_lines_to_log() {
            return;
        }
        let now = Instant::now();
        if let Some((error, not_logged)) = self.accept_errors.due(now) {
            warn!(error:%, not_logged; "cannot accept a connection");
        }
        if let Some(((reason, from), not_logged)) = self.refusals.due(now) {
            warn!(reason, from:%, not_logged; "request refused");
        }
    }
}
