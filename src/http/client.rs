//! One client of the gate: from its request's first byte to the answer's last.
//!
//! A client goes through its states one request at a time. Nothing here blocks:
//! [`Client::step`] does what can be done now and says what is missing.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::http::frame::{self, Refusal};

/// How long a client may take for a head, or keep a connection without a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);

/// How long a client may take for each [`BODY_CHUNK`] of a body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How long the server behind the gate may take. It answers from memory.
const SERVER_DEADLINE: Duration = Duration::from_secs(30);

/// How long a client may take to read an answer.
const REPLY_DEADLINE: Duration = Duration::from_secs(15);

/// How long a refused client is listened to, so that it reads the answer before
/// the connection is reset under what it is still sending.
const LINGER: Duration = Duration::from_secs(2);

/// How much of a body is read at a time, and freed at a time when it travels on.
const BODY_CHUNK: usize = 64 * 1024;

/// The longest answer of our own server, in bytes: a status report of many thousand recipes.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;

/// A connection to the server behind the gate.
pub(super) struct Backend {
    pub(super) socket: UnixStream,
    /// The client it serves.
    pub(super) client: Option<usize>,
    /// Whether there may be something to read.
    pub(super) input: Readiness,
}

/// What events have told about a socket's input. Events are only sent when
/// something changes, so that what they said has to be remembered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Readiness {
    /// There may be bytes to read.
    readable: bool,
    /// The other side has closed: after the bytes comes the end, with no further event.
    ended: bool,
}

impl Readiness {
    /// Takes note of an event.
    pub(super) fn note(&mut self, flags: EventFlags) {
        self.ended |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        self.readable |= self.ended || flags.intersects(EventFlags::IN);
    }
}

/// A client and its request.
pub(super) struct Client {
    pub(super) socket: TcpStream,
    /// Whether there may be something to read.
    pub(super) readiness: Readiness,
    /// The backend that answers its request.
    pub(super) backend: Option<usize>,
    /// When the state must have changed.
    pub(super) deadline: Instant,
    /// When we began to wait for the request.
    pub(super) since: Instant,
    state: State,
    /// What was read and not yet understood: a part of a head, or requests that were sent ahead.
    input: Vec<u8>,
    keep_alive: bool,
    head_only: bool,
    /// The path of its request without a query, if that is a GET.
    plain_get: Option<String>,
    /// The version of the board when its request was passed on.
    pub(super) version: u64,
}

enum State {
    Head,
    Body { missing: usize, request: Chunks },
    Forward { request: Chunks },
    Await { response: Vec<u8> },
    Reply { response: Arc<[u8]>, written: usize },
    Linger,
}

/// What a client needs next.
pub(super) enum Step {
    /// Another step, at once.
    Again,
    /// An event.
    Wait,
    /// A backend.
    NeedsBackend,
    /// Another step; its backend is free. The answer may serve others, if there is one here.
    Answered(Option<Arc<[u8]>>),
    /// Nothing any more.
    Close,
}

impl Client {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let now = Instant::now();
        Ok(Self {
            socket,
            readiness: Readiness { readable: true, ended: false },
            backend: None,
            deadline: now + HEAD_DEADLINE,
            since: now,
            state: State::Head,
            input: Vec::new(),
            keep_alive: true,
            head_only: false,
            plain_get: None,
            version: 0,
        })
    }

    /// Whether it keeps us waiting, rather than we it.
    pub(super) fn owes_us(&self) -> bool {
        matches!(self.state, State::Head | State::Body { .. } | State::Linger | State::Reply { .. })
    }

    /// Whether its request is complete, but on its way to no backend.
    pub(super) fn wants_backend(&self) -> bool {
        matches!(self.state, State::Forward { .. }) && self.backend.is_none()
    }

    /// Whether it is sending a body.
    pub(super) fn sends_body(&self) -> bool {
        matches!(self.state, State::Body { .. })
    }

    /// The bytes held for it beside a head.
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Body { request, .. } | State::Forward { request } => request.length,
            _ => 0,
        }
    }

    /// The answer that it is still reading.
    pub(super) fn unread(&self) -> Option<&Arc<[u8]>> {
        match &self.state {
            State::Reply { response, .. } => Some(response),
            _ => None,
        }
    }

    /// Answers without asking the server, and closes after that.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.keep_alive = false;
        self.reply(refusal.answer().into());
    }

    /// Its deadline has come: whether there is still something to say to it.
    pub(super) fn time_out(&mut self) -> bool {
        let has_begun = match &self.state {
            State::Head => !self.input.is_empty(),
            State::Body { .. } => true,
            _ => false,
        };
        if has_begun {
            self.refuse(Refusal::Timeout);
        }
        has_begun
    }

    /// Does what can be done now. `room` is how many more bytes of bodies may be held.
    pub(super) fn step(&mut self, backend: Option<&mut Backend>, room: usize) -> Step {
        let result = match (&mut self.state, backend) {
            (State::Head, _) => self.read_head(),
            (State::Body { .. }, _) => self.read_body(room),
            (State::Forward { .. }, None) => return Step::NeedsBackend,
            (State::Forward { request }, Some(backend)) => match request.write_to(&mut backend.socket) {
                Ok(true) => {
                    self.state = State::Await { response: Vec::new() };
                    Ok(Step::Again)
                }
                Ok(false) => Ok(Step::Wait),
                Err(error) => Err(error),
            },
            (State::Await { .. }, Some(backend)) => self.read_response(backend),
            (State::Await { .. }, None) => return Step::Close,
            (State::Reply { .. }, _) => self.write_reply(),
            (State::Linger, _) => self.drain(),
        };
        // Whatever the error: the connection is of no use any more.
        result.unwrap_or(Step::Close)
    }

    fn read_head(&mut self) -> io::Result<Step> {
        match frame::request(&self.input) {
            Err(refusal) => {
                self.refuse(refusal);
                Ok(Step::Again)
            }
            Ok(Some(request)) => {
                self.input.drain(..request.head);
                self.keep_alive = request.keep_alive;
                self.head_only = request.head_only;
                self.plain_get = request.plain_get;
                if request.expects_continue && self.input.len() < request.body {
                    // A socket that has no room for these few bytes is not worth waiting for.
                    self.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                let mut chunks = Chunks::default();
                chunks.push(request.passed_on);
                self.deadline = Instant::now() + BODY_DEADLINE;
                self.state = State::Body { missing: request.body, request: chunks };
                Ok(Step::Again)
            }
            Ok(None) => {
                let mut buffer = [0; 4096];
                match read(&mut self.socket, &mut self.readiness, &mut buffer)? {
                    Some(0) => Ok(Step::Close),
                    Some(length) => {
                        self.input.extend_from_slice(&buffer[..length]);
                        Ok(Step::Again)
                    }
                    None => Ok(Step::Wait),
                }
            }
        }
    }

    fn read_body(&mut self, room: usize) -> io::Result<Step> {
        let State::Body { missing, request } = &mut self.state else { return Ok(Step::Again) };
        if *missing == 0 {
            let request = std::mem::take(request);
            self.deadline = Instant::now() + SERVER_DEADLINE;
            self.state = State::Forward { request };
            return Ok(Step::Again);
        }
        if room == 0 {
            self.refuse(Refusal::Overloaded);
            return Ok(Step::Again);
        }
        if !self.input.is_empty() {
            let length = self.input.len().min(*missing);
            request.push(self.input.drain(..length).collect());
            *missing -= length;
            return Ok(Step::Again);
        }
        let wanted = BODY_CHUNK.min(*missing);
        let last = request.last_with_room(wanted);
        let start = last.len();
        last.resize(start + wanted, 0);
        let result = read(&mut self.socket, &mut self.readiness, &mut last[start..]);
        let length = result.as_ref().map_or(0, |length| length.unwrap_or(0));
        last.truncate(start + length);
        request.length += length;
        *missing -= length;
        if start + length >= BODY_CHUNK {
            self.deadline = Instant::now() + BODY_DEADLINE;
        }
        match result? {
            Some(0) => Ok(Step::Close),
            Some(_) => Ok(Step::Again),
            None => Ok(Step::Wait),
        }
    }

    fn read_response(&mut self, backend: &mut Backend) -> io::Result<Step> {
        let State::Await { response } = &mut self.state else { return Ok(Step::Again) };
        let mut buffer = [0; 16 * 1024];
        match read(&mut backend.socket, &mut backend.input, &mut buffer)? {
            Some(0) => return Ok(Step::Close),
            Some(length) => response.extend_from_slice(&buffer[..length]),
            None => return Ok(Step::Wait),
        }
        match frame::response(response, self.head_only) {
            Ok(Some(head)) if response.len() >= head.length => {
                let response: Arc<[u8]> = std::mem::take(response).into();
                self.reply(response.clone());
                Ok(Step::Answered((head.status == 200).then_some(response)))
            }
            Ok(_) if response.len() <= MAX_RESPONSE => Ok(Step::Again),
            _ => Ok(Step::Close),
        }
    }

    /// The path it asks for, if the answer is the same for all who ask.
    pub(super) fn plain_get(&self) -> Option<&str> {
        self.plain_get.as_deref()
    }

    /// Answers with `response`, whoever has made it.
    pub(super) fn reply(&mut self, response: Arc<[u8]>) {
        self.deadline = Instant::now() + REPLY_DEADLINE;
        self.state = State::Reply { response, written: 0 };
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

    /// Reads and forgets.
    fn drain(&mut self) -> io::Result<Step> {
        let mut buffer = [0; 16 * 1024];
        match read(&mut self.socket, &mut self.readiness, &mut buffer)? {
            Some(0) => Ok(Step::Close),
            Some(_) if Instant::now() >= self.deadline => Ok(Step::Close),
            Some(_) => Ok(Step::Again),
            None => Ok(Step::Wait),
        }
    }
}

/// A request in pieces that are freed as they travel on.
#[derive(Default)]
struct Chunks {
    pieces: VecDeque<Vec<u8>>,
    /// How much of the first chunk is written.
    written: usize,
    /// The bytes in all chunks.
    length: usize,
}

impl Chunks {
    fn push(&mut self, chunk: Vec<u8>) {
        self.length += chunk.len();
        self.pieces.push_back(chunk);
    }

    /// The last chunk, if it can take `wanted` more bytes, or a new one.
    fn last_with_room(&mut self, wanted: usize) -> &mut Vec<u8> {
        let fits = self.pieces.back().is_some_and(|last| last.len() + wanted <= BODY_CHUNK);
        if !fits {
            self.pieces.push_back(Vec::new());
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last]
    }

    /// Writes what the socket takes; whether that was all.
    fn write_to(&mut self, socket: &mut UnixStream) -> io::Result<bool> {
        while let Some(chunk) = self.pieces.front() {
            if self.written == chunk.len() {
                self.length -= chunk.len();
                self.written = 0;
                self.pieces.pop_front();
                continue;
            }
            match write(socket, &chunk[self.written..])? {
                Some(length) => self.written += length,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Reads once. `None` when there is nothing to read now; a read that does not
/// fill the buffer has emptied the socket, and the next event will say so.
fn read(socket: &mut impl Read, readiness: &mut Readiness, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    if !readiness.readable {
        return Ok(None);
    }
    match socket.read(buffer) {
        Ok(length) => {
            readiness.readable = readiness.ended || length == buffer.len() || length == 0;
            Ok(Some(length))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            readiness.readable = false;
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => read(socket, readiness, buffer),
        Err(error) => Err(error),
    }
}

/// Writes once. `None` when the socket takes nothing now.
fn write(socket: &mut impl Write, bytes: &[u8]) -> io::Result<Option<usize>> {
    match socket.write(bytes) {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => write(socket, bytes),
        Err(error) => Err(error),
    }
}
