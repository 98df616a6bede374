//! One client of the gate: reads a request, waits for its answer, writes it, and starts over.
//! [`Client::step`] never blocks; it does what the socket allows and returns what it needs next.
//!
//! A client keeps its request until the request is complete, and its answer until the answer is
//! read. So a slow client occupies memory of its own, but never a connection to the server.

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::frame::{self, Refusal};
use super::pieces::Pieces;
use super::socket::{read, write};

/// How long a client may take for a head, or keep a connection without a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);

/// How long a client may take for each [`BODY_CHUNK`] of a body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How long a client waits for the server, which answers from memory: only a defect takes longer,
/// and clients must not pile up behind it.
const SERVER_DEADLINE: Duration = Duration::from_secs(30);

/// How long a client may take to read an answer.
const REPLY_DEADLINE: Duration = Duration::from_secs(15);

/// How long to drain a client after its last answer: closing a socket with unread input resets the
/// connection, and the client would lose the answer.
const LINGER: Duration = Duration::from_secs(2);

/// The bytes of a body that extend the deadline.
const BODY_CHUNK: usize = 64 * 1024;

/// A connection to a client, and how far its current request is.
pub(super) struct Client {
    pub(super) socket: TcpStream,
    /// When the client is refused or closed unless its state has changed.
    pub(super) deadline: Instant,
    /// When the gate began to wait for the current request.
    pub(super) since: Instant,
    state: State,
    /// Bytes that were read but not yet parsed: part of a head, or pipelined requests.
    input: Vec<u8>,
    keep_alive: bool,
}

enum State {
    Head,
    Body { missing: usize, head_only: bool, request: Pieces },
    Await,
    Reply { response: Vec<u8>, written: usize },
    Linger,
}

/// How to go on with a client.
pub(super) enum Step {
    /// Call `step` again.
    Again,
    /// Wait for an event on its socket.
    Wait,
    /// Pass the request, head and body, to the server.
    Ask { head_only: bool, request: Pieces },
    /// Drop the client.
    Close,
}

impl Client {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let now = Instant::now();
        Ok(Self {
            socket,
            deadline: now + HEAD_DEADLINE,
            since: now,
            state: State::Head,
            input: Vec::new(),
            keep_alive: true,
        })
    }

    /// Whether its request is at the server, or on the way.
    pub(super) fn awaits_answer(&self) -> bool {
        matches!(self.state, State::Await)
    }

    pub(super) fn sends_body(&self) -> bool {
        matches!(self.state, State::Body { .. })
    }

    /// The bytes of its request, once the head is complete.
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Body { request, .. } => request.len(),
            _ => 0,
        }
    }

    /// The bytes of the answer that it has not read to the end.
    pub(super) fn unread(&self) -> usize {
        match &self.state {
            State::Reply { response, .. } => response.len(),
            _ => 0,
        }
    }

    /// Answers with `response`, which replaces whatever the client was doing.
    pub(super) fn reply(&mut self, response: Vec<u8>) {
        self.deadline = Instant::now() + REPLY_DEADLINE;
        self.state = State::Reply { response, written: 0 };
    }

    /// Answers without asking the server, then closes the connection.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.keep_alive = false;
        self.reply(refusal.answer());
    }

    /// Handles a deadline that has passed. Returns whether the client was refused and must be
    /// driven on; otherwise there is nothing to tell it, and the caller drops it.
    pub(super) fn time_out(&mut self) -> bool {
        match &self.state {
            State::Head if self.input.is_empty() => return false,
            State::Head | State::Body { .. } => self.refuse(Refusal::Timeout),
            State::Await => self.refuse(Refusal::Unanswered),
            State::Reply { .. } | State::Linger => return false,
        }
        true
    }

    /// Does what the socket allows. `room` is how many more bytes of bodies the gate may hold.
    pub(super) fn step(&mut self, room: usize) -> Step {
        let result = match self.state {
            State::Head => self.read_head(),
            State::Body { .. } => self.read_body(room),
            State::Await => Ok(Step::Wait),
            State::Reply { .. } => self.write_reply(),
            State::Linger => self.drain(),
        };
        // Whatever the error is, the connection is unusable.
        result.unwrap_or(Step::Close)
    }

    fn read_head(&mut self) -> io::Result<Step> {
        match frame::request(&self.input) {
            Err(refusal) => self.refuse(refusal),
            Ok(Some(request)) => {
                self.input.drain(..request.head);
                self.keep_alive = request.keep_alive;
                if request.expects_continue && self.input.len() < request.body {
                    // A fresh socket has room for 25 bytes; if it has not, the client is at fault.
                    self.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                self.deadline = Instant::now() + BODY_DEADLINE;
                let mut pieces = Pieces::default();
                pieces.push(&request.passed_on);
                let (missing, head_only) = (request.body, request.head_only);
                self.state = State::Body { missing, head_only, request: pieces };
            }
            Ok(None) => {
                let mut buffer = [0; 4096];
                match read(&mut self.socket, &mut buffer)? {
                    Some(0) => return Ok(Step::Close),
                    Some(length) => self.input.extend_from_slice(&buffer[..length]),
                    None => return Ok(Step::Wait),
                }
            }
        }
        Ok(Step::Again)
    }

    fn read_body(&mut self, room: usize) -> io::Result<Step> {
        let State::Body { missing, head_only, request } = &mut self.state else { return Ok(Step::Again) };
        if *missing == 0 {
            let (head_only, request) = (*head_only, std::mem::take(request));
            self.deadline = Instant::now() + SERVER_DEADLINE;
            self.state = State::Await;
            return Ok(Step::Ask { head_only, request });
        }
        if room == 0 {
            self.refuse(Refusal::Overloaded);
            return Ok(Step::Again);
        }
        let chunks_missing = *missing / BODY_CHUNK;
        if self.input.is_empty() {
            let mut buffer = [0; 16 * 1024];
            let wanted = buffer.len().min(*missing);
            match read(&mut self.socket, &mut buffer[..wanted])? {
                Some(0) => return Ok(Step::Close),
                Some(length) => {
                    request.push(&buffer[..length]);
                    *missing -= length;
                }
                None => return Ok(Step::Wait),
            }
        } else {
            let length = self.input.len().min(*missing);
            request.push(&self.input[..length]);
            self.input.drain(..length);
            *missing -= length;
        }
        if *missing / BODY_CHUNK < chunks_missing {
            self.deadline = Instant::now() + BODY_DEADLINE;
        }
        Ok(Step::Again)
    }

    fn write_reply(&mut self) -> io::Result<Step> {
        let State::Reply { response, written } = &mut self.state else { return Ok(Step::Again) };
        while *written < response.len() {
            match write(&mut self.socket, &response[*written..])? {
                Some(length) => *written += length,
                None => return Ok(Step::Wait),
            }
        }
        let now = Instant::now();
        if self.keep_alive {
            self.since = now;
            self.deadline = now + HEAD_DEADLINE;
            self.state = State::Head;
        } else {
            self.socket.shutdown(Shutdown::Write)?;
            self.input = Vec::new();
            self.deadline = now + LINGER;
            self.state = State::Linger;
        }
        Ok(Step::Again)
    }

    /// Reads and discards, until the client closes its side or the deadline passes.
    fn drain(&mut self) -> io::Result<Step> {
        let mut buffer = [0; 16 * 1024];
        Ok(match read(&mut self.socket, &mut buffer)? {
            Some(0) => Step::Close,
            Some(_) if Instant::now() >= self.deadline => Step::Close,
            Some(_) => Step::Again,
            None => Step::Wait,
        })
    }
}
