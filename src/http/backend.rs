//! One connection between the gate and `tiny_http`: passes one request at a time and collects its
//! answer. It never blocks, and knows nothing of clients but a token.
//!
//! It reads while it still writes: `tiny_http` may answer before it has read the body, and blocks
//! until that answer is read.

use std::io;
use std::os::unix::net::UnixStream;

use super::frame;
use super::pieces::Pieces;
use super::socket::read;

/// A connection that `tiny_http` keeps open from the start to the end of the process.
pub(super) struct Backend {
    pub(super) socket: UnixStream,
    exchange: Option<Exchange>,
}

/// A complete request of a client.
pub(super) struct Request {
    /// The client's token.
    pub(super) client: u64,
    /// Whether the answer has no body.
    pub(super) head_only: bool,
    /// Head and body.
    pub(super) bytes: Pieces,
}

/// The rest of a request, and the beginning of its answer.
struct Exchange {
    request: Request,
    response: Vec<u8>,
}

impl Backend {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, exchange: None }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.exchange.is_none()
    }

    /// The token of the client whose request it carries.
    pub(super) fn client(&self) -> Option<u64> {
        self.exchange.as_ref().map(|exchange| exchange.request.client)
    }

    /// The bytes of the request that it holds.
    pub(super) fn held(&self) -> usize {
        self.exchange.as_ref().map_or(0, |exchange| exchange.request.bytes.len())
    }

    /// Begins to pass on `request`. The answer comes from a later [`step`](Self::step).
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) fn start(&mut self, request: Request) -> io::Result<()> {
        let exchange = self.exchange.insert(Exchange { request, response: Vec::new() });
        exchange.request.bytes.write_to(&mut self.socket)
    }

    /// Writes and reads as much as the socket allows. Returns the client's token and the whole
    /// answer once both request and answer are complete.
    ///
    /// # Errors
    /// When the connection is lost, or carries bytes that answer no request.
    pub(super) fn step(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        if let Some(exchange) = &mut self.exchange {
            exchange.request.bytes.write_to(&mut self.socket)?;
        }
        while !self.is_answered()? {
            let mut buffer = [0; 16 * 1024];
            match (read(&mut self.socket, &mut buffer)?, &mut self.exchange) {
                (None, _) => return Ok(None),
                (Some(0), _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (Some(length), Some(exchange)) => exchange.response.extend_from_slice(&buffer[..length]),
                (Some(_), None) => return Err(io::Error::other("an answer without a request")),
            }
        }
        // Keep the connection busy until the whole body is written: the next request comes after
        // it.
        let done = self.exchange.take_if(|exchange| exchange.request.bytes.len() == 0);
        Ok(done.map(|exchange| (exchange.request.client, exchange.response)))
    }

    fn is_answered(&self) -> io::Result<bool> {
        let Some(exchange) = &self.exchange else { return Ok(false) };
        match frame::response(&exchange.response, exchange.request.head_only) {
            Ok(Some(length)) if exchange.response.len() > length => {
                Err(io::Error::other("an answer longer than its Content-Length"))
            }
            Ok(length) => Ok(length == Some(exchange.response.len())),
            Err(_) => Err(io::Error::other("an answer that is not HTTP")),
        }
    }
}
