//! One client of the gate: reads a request, waits for its answer, writes it, and starts over.
//! [`Client::step`] never blocks; it does what the socket allows and returns what it needs next.
//!
//! A client keeps its request until the request is complete, and its answer until the answer is
//! read. So a slow client occupies memory of its own, but never the routes.

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use super::frame::{self, Refusal};
use super::pieces::Pieces;
use super::socket::{read, write};

/// How long a client may take for a head, or keep a connection without a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);

/// How long a client may take for each [`BODY_CHUNK`] of a body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How long a client waits for the routes, which answer from memory: only a defect takes longer, and
/// clients must not pile up behind it.
const ROUTES_DEADLINE: Duration = Duration::from_secs(30);

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
    /// The client's address.
    pub(super) from: SocketAddr,
    /// When the client is refused or closed unless its state has changed.
    pub(super) deadline: Instant,
    /// When the gate began to wait for the current request.
    pub(super) since: Instant,
    state: State,
    /// Bytes that were read but not yet parsed: part of a head, or pipelined requests.
    input: Vec<u8>,
    /// How many of its requests were answered.
    pub(super) answered: u64,
    keep_alive: bool,
    /// Whether the answer has no body.
    head_only: bool,
    /// Whether it asks for `/healthz`.
    asks_health: bool,
}

enum State {
    Head,
    /// `request` has the head that is passed on, and what has arrived of the body.
    Body {
        missing: usize,
        request: Pieces,
    },
    Await,
    Reply {
        answer: Vec<u8>,
        written: usize,
    },
    Linger,
}

/// How to go on with a client.
pub(super) enum Step {
    /// Call `step` again.
    Again,
    /// Wait for an event on its socket.
    Wait,
    /// Pass the request to the routes.
    Ask { head_only: bool, keep_alive: bool, request: Pieces },
    /// Call `step` again. The client has been refused.
    Refused(Refusal),
    /// Drop the client.
    Close,
}

impl Client {
    pub(super) fn new(socket: TcpStream, from: SocketAddr) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let now = Instant::now();
        Ok(Self {
            socket,
            from,
            deadline: now + HEAD_DEADLINE,
            since: now,
            state: State::Head,
            input: Vec::new(),
            answered: 0,
            keep_alive: true,
            head_only: false,
            asks_health: false,
        })
    }

    /// Whether its request is at the routes, or on the way.
    pub(super) fn awaits_answer(&self) -> bool {
        matches!(self.state, State::Await)
    }

    pub(super) fn sends_body(&self) -> bool {
        // `/healthz` needs room for nothing but a body.
        matches!(self.state, State::Body { missing, .. } if missing > 0 || !self.asks_health)
    }

    /// Whether it has sent a part of a request that is not answered.
    pub(super) fn has_begun(&self) -> bool {
        match self.state {
            State::Head => !self.input.is_empty(),
            State::Body { .. } | State::Await => true,
            State::Reply { .. } | State::Linger => false,
        }
    }

    /// The bytes of the request whose body it is sending.
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Body { request, .. } => request.len(),
            _ => 0,
        }
    }

    /// The bytes of the answer that it has not read to the end.
    pub(super) fn unread(&self) -> usize {
        match &self.state {
            State::Reply { answer, .. } => answer.len(),
            _ => 0,
        }
    }

    /// Answers its request with the bytes of a whole answer.
    pub(super) fn take_answer(&mut self, answer: Vec<u8>) {
        self.answered += 1;
        self.reply(answer);
    }

    /// Answers with `answer`, which replaces whatever the client was doing.
    fn reply(&mut self, answer: Vec<u8>) {
        self.deadline = Instant::now() + REPLY_DEADLINE;
        self.state = State::Reply { answer, written: 0 };
    }

    /// Answers without asking the routes, then closes the connection.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.keep_alive = false;
        self.reply(refusal.answer(self.head_only, SystemTime::now()));
    }

    /// Handles a deadline that has passed: returns why to refuse the client, or nothing if there is
    /// nothing to tell it.
    pub(super) fn time_out(&self) -> Option<Refusal> {
        match &self.state {
            State::Head | State::Body { .. } if self.has_begun() => Some(Refusal::Timeout),
            State::Await => Some(Refusal::Unanswered),
            _ => None,
        }
    }

    /// Does what the socket allows.
    pub(super) fn step(&mut self) -> Step {
        let result = match self.state {
            State::Head => self.read_head(),
            State::Body { .. } => self.read_body(),
            State::Await => Ok(Step::Wait),
            State::Reply { .. } => self.write_reply(),
            State::Linger => self.drain(),
        };
        // Whatever the error is, the connection is unusable.
        result.unwrap_or(Step::Close)
    }

    fn read_head(&mut self) -> io::Result<Step> {
        match frame::request(&self.input) {
            Err(refusal) => {
                self.refuse(refusal);
                return Ok(Step::Refused(refusal));
            }
            Ok(Some(head)) => {
                self.input.drain(..head.head);
                self.keep_alive = head.keep_alive;
                self.head_only = head.head_only;
                self.asks_health = head.asks_health;
                if head.expects_continue && self.input.len() < head.body {
                    // A fresh socket has room for 25 bytes; if it has not, the client is at fault.
                    self.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                self.deadline = Instant::now() + BODY_DEADLINE;
                let mut request = Pieces::default();
                if request.push(&head.passed_on).is_err() {
                    self.refuse(Refusal::Overloaded);
                    return Ok(Step::Refused(Refusal::Overloaded));
                }
                self.state = State::Body { missing: head.body, request };
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

    fn read_body(&mut self) -> io::Result<Step> {
        let State::Body { missing, request } = &mut self.state else { return Ok(Step::Again) };
        if *missing == 0 && self.asks_health {
            self.take_answer(frame::healthy(self.head_only, self.keep_alive, SystemTime::now()));
            return Ok(Step::Again);
        }
        if *missing == 0 {
            let request = std::mem::take(request);
            self.deadline = Instant::now() + ROUTES_DEADLINE;
            self.state = State::Await;
            let (head_only, keep_alive) = (self.head_only, self.keep_alive);
            return Ok(Step::Ask { head_only, keep_alive, request });
        }
        let chunks_missing = *missing / BODY_CHUNK;
        let mut buffer = [0; 16 * 1024];
        let length = if self.input.is_empty() {
            let wanted = buffer.len().min(*missing);
            match read(&mut self.socket, &mut buffer[..wanted])? {
                Some(0) => return Ok(Step::Close),
                Some(length) => length,
                None => return Ok(Step::Wait),
            }
        } else {
            // The input is no longer than a head, which the buffer has room for.
            let length = self.input.len().min(*missing).min(buffer.len());
            buffer[..length].copy_from_slice(&self.input[..length]);
            self.input.drain(..length);
            length
        };
        if request.push(&buffer[..length]).is_err() {
            self.refuse(Refusal::Overloaded);
            return Ok(Step::Refused(Refusal::Overloaded));
        }
        *missing -= length;
        if *missing / BODY_CHUNK < chunks_missing {
            self.deadline = Instant::now() + BODY_DEADLINE;
        }
        Ok(Step::Again)
    }

    fn write_reply(&mut self) -> io::Result<Step> {
        let State::Reply { answer, written } = &mut self.state else { return Ok(Step::Again) };
        while *written < answer.len() {
            match write(&mut self.socket, &answer[*written..])? {
                Some(length) => *written += length,
                None => return Ok(Step::Wait),
            }
        }
        let now = Instant::now();
        if self.keep_alive {
            self.head_only = false;
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
