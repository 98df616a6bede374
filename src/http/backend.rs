//! One connection between the gate and `tiny_http`: passes one request at a time and collects its
//! answer. It never blocks, and knows nothing of clients but a token.
//!
//! It reads while it still writes: `tiny_http` may answer before it has read the body, and blocks
//! until that answer is read.

use std::io;
use std::os::unix::net::UnixStream;

use super::frame::{self, Refusal};
use super::pieces::Pieces;
use super::socket::read;

/// A connection that `tiny_http` keeps open from the start to the end of the process.
pub(super) struct Backend {
    pub(super) socket: UnixStream,
    exchange: Option<Exchange>,
}

/// A complete request of a client.
pub(super) struct Ask {
    /// The client's token.
    pub(super) client: u64,
    /// Whether the answer has no body.
    pub(super) head_only: bool,
    /// Whether the client's connection stays open after the answer.
    pub(super) keep_alive: bool,
    /// Head and body.
    pub(super) request: Pieces,
}

/// A client's token, and the answer to its request.
pub(super) type Reply = (u64, Result<Vec<u8>, Refusal>);

/// A request under way, and the beginning of its answer.
struct Exchange {
    /// `ask.request` has the bytes that are not written yet.
    ask: Ask,
    /// The length of the whole request.
    length: usize,
    /// The bytes of the answer that have arrived; `None` if there was no memory for the rest.
    answer: Option<Vec<u8>>,
    /// The bytes of the answer that have not arrived; `None` while its head is incomplete.
    missing: Option<usize>,
}

impl Backend {
    /// A connection over `socket`.
    ///
    /// # Errors
    /// When the socket cannot be used without blocking.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, exchange: None })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.exchange.is_none()
    }

    /// The length of the request that it carries.
    pub(super) fn held(&self) -> usize {
        self.exchange.as_ref().map_or(0, |exchange| exchange.length)
    }

    /// Refuses the request that it carries.
    pub(super) fn abandon(self) -> Option<Reply> {
        self.exchange.map(|exchange| (exchange.ask.client, Err(Refusal::Unanswered)))
    }

    /// Begins to pass on a request. The answer comes from a later [`step`](Self::step).
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) fn start(&mut self, ask: Ask) -> io::Result<()> {
        let length = ask.request.len();
        let exchange = Exchange { ask, length, answer: Some(Vec::new()), missing: None };
        self.exchange.insert(exchange).ask.request.write_to(&mut self.socket)
    }

    /// Writes and reads as much as the socket allows. Returns the answer once both request and answer
    /// are complete.
    ///
    /// # Errors
    /// When the connection is lost, or carries bytes that answer no request.
    pub(super) fn step(&mut self) -> io::Result<Option<Reply>> {
        if let Some(exchange) = &mut self.exchange {
            exchange.ask.request.write_to(&mut self.socket)?;
        }
        while self.exchange.as_ref().is_none_or(|exchange| exchange.missing != Some(0)) {
            let mut buffer = [0; 16 * 1024];
            match (read(&mut self.socket, &mut buffer)?, &mut self.exchange) {
                (None, _) => return Ok(None),
                (Some(0), _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (Some(length), Some(exchange)) => exchange.receive(&buffer[..length])?,
                (Some(_), None) => return Err(io::Error::other("an answer without a request")),
            }
        }
        // Keep the connection busy until the whole body is written: the next request comes after
        // it.
        let done = self.exchange.take_if(|exchange| exchange.ask.request.len() == 0);
        Ok(done.map(|exchange| (exchange.ask.client, exchange.answer.ok_or(Refusal::Overloaded))))
    }
}

impl Exchange {
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        let too_long = || io::Error::other("an answer longer than its Content-Length");
        if let Some(missing) = self.missing {
            self.missing = Some(missing.checked_sub(bytes.len()).ok_or_else(too_long)?);
            if let Some(answer) = &mut self.answer {
                answer.extend_from_slice(bytes);
            }
            return Ok(());
        }
        let answer = self.answer.get_or_insert_default();
        answer.extend_from_slice(bytes);
        let parsed = frame::response(answer).map_err(|_| io::Error::other("an answer that is not HTTP"))?;
        let Some((head, body)) = parsed else { return Ok(()) };
        let body = if self.ask.head_only { 0 } else { body };
        let missing = body.checked_sub(answer.len() - head).ok_or_else(too_long)?;
        self.missing = Some(missing);
        if !self.ask.keep_alive {
            // The head ends with an empty line.
            let end = head - 2;
            answer.splice(end..end, *b"Connection: close\r\n");
        }
        // Nothing else here grows with the farm. Lack of memory must not end the process.
        if answer.try_reserve_exact(missing).is_err() {
            self.answer = None;
        }
        Ok(())
    }
}
