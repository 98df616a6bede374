//! A TCP connection that holds no buffers while it rests in the pool.
//!
//! ureq's [`TcpTransport`](ureq::unversioned::transport::TcpTransport) keeps its buffers, 20 KiB, until
//! it is closed. They stay in the heap of the thread that has opened it, so a poller that opened three
//! connections keeps the memory of three. It also asks in three system calls whether a connection is
//! open, twice for each request; here it is one. It sends head and body of a request in two segments, of
//! which the first one wakes the server for nothing; here they go together, when the answer is awaited, and
//! within its limit.
//!
//! Try ureq's transport again when it gives its buffers back.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

/// An open connection.
pub(crate) struct TcpTransport {
    stream: TcpStream,
    buffers: RestingBuffers,
}

/// Buffers that take memory only while a request needs them.
pub(crate) struct RestingBuffers {
    input: Vec<u8>,
    /// The part of the input that nobody has read.
    unread: Range<usize>,
    /// Whether the last reader of the input took any of it.
    has_progress: bool,
    output: Vec<u8>,
    /// How much of the output is still to be sent, at its start.
    unsent: usize,
    /// The longest length of the input, and the length of the output.
    lengths: (usize, usize),
}

/// How long the input buffer is at first, in bytes: most answers fit. A read that fills it doubles it.
const FIRST_INPUT: usize = 4 * 1024;

impl RestingBuffers {
    /// Makes buffers of the lengths in `config`, which take no memory yet.
    pub(crate) fn new(config: &Config) -> Self {
        let lengths = (config.input_buffer_size(), config.output_buffer_size());
        let (input, output) = (Vec::new(), Vec::new());
        Self { input, unread: 0..0, has_progress: false, output, unsent: 0, lengths }
    }

    /// Gives the memory back, unless there is input that nobody has read, or output to send. To be called
    /// between requests.
    pub(crate) fn rest(&mut self) {
        if self.unread.is_empty() && self.unsent == 0 {
            (self.input, self.unread, self.output) = (Vec::new(), 0..0, Vec::new());
        }
    }
}

impl Buffers for RestingBuffers {
    fn output(&mut self) -> &mut [u8] {
        self.tmp_and_output().1
    }

    fn input(&self) -> &[u8] {
        &self.input[self.unread.clone()]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.tmp_and_output().0
    }

    fn input_appended(&mut self, amount: usize) {
        self.unread.end += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.has_progress = amount > 0;
        self.unread.start += amount;
    }

    /// Returns the rest of the input buffer, and the output buffer.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        let (longest, output) = self.lengths;
        if self.input.is_empty() {
            (self.input, self.output) = (vec![0; FIRST_INPUT.min(longest)], vec![0; output]);
        } else if self.unread.end == self.input.len() && self.input.len() < longest {
            self.input.resize((2 * self.input.len()).min(longest), 0);
        }
        self.input.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        (&mut self.input[self.unread.end..], &mut self.output[self.unsent..])
    }

    fn can_use_input(&self) -> bool {
        !self.unread.is_empty() && self.has_progress
    }
}

impl TcpTransport {
    /// Connects to `address`.
    pub(crate) fn connect(
        address: &SocketAddr,
        timeout: NextTimeout,
        config: &Config,
    ) -> Result<Self, Error> {
        let stream = match timeout.not_zero() {
            Some(limit) => TcpStream::connect_timeout(address, *limit),
            None => TcpStream::connect(address),
        };
        let stream = stream.map_err(|error| failure(error, timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffers: RestingBuffers::new(config) })
    }

    fn send(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(left(timeout)?)?;
        let output = &self.buffers.output[..mem::take(&mut self.buffers.unsent)];
        self.stream.write_all(output).map_err(|error| failure(error, timeout))
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.buffers.unsent += amount;
        // Keep room: a writer that finds none takes the connection for closed.
        if self.buffers.unsent > self.buffers.output.len() / 2 { self.send(timeout) } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if self.buffers.unsent > 0 {
            self.send(timeout)?;
        }
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(left(timeout)?)?;
        let input = self.buffers.input_append_buf();
        let amount = loop {
            match self.stream.read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| failure(error, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Whether the server keeps the connection open, and has sent nothing that was not asked for. ureq
    /// asks before it puts a connection into the pool, and before it takes one.
    fn is_open(&mut self) -> bool {
        self.buffers.rest();
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(&self.stream, &mut [0], peek).is_err_and(|error| error == Errno::AGAIN)
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTransport").finish_non_exhaustive()
    }
}

/// Returns the time that is left, if it has an end.
///
/// # Errors
/// When none is left: a socket takes no time of zero.
fn left(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    if timeout.after.is_zero() {
        Err(Error::Timeout(timeout.reason))
    } else {
        Ok(timeout.not_zero().map(|left| *left))
    }
}

/// Turns the error of a socket whose time is over into a time-out.
fn failure(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};
    use ureq::Timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn within(limit: Duration) -> NextTimeout {
        NextTimeout { after: limit.into(), reason: Timeout::Global, per_read: None, per_write: None }
    }

    /// A connection, and the server's end of it.
    fn connection() -> (TcpTransport, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpTransport::connect(&address, within(SOON), &Config::default()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Waits until the client's end differs from one that is open and silent.
    fn wait_closed(client: &mut TcpTransport) {
        let begun = std::time::Instant::now();
        while client.is_open() {
            assert!(begun.elapsed() < SOON, "the connection stays open");
            std::thread::yield_now();
        }
    }

    #[test]
    fn connection_at_rest_holds_no_buffers() {
        let (mut client, mut server) = connection();
        let counted = allocation_counter::measure(|| {
            client.buffers().output()[..4].copy_from_slice(b"ping");
            client.transmit_output(4, within(SOON)).unwrap();
            assert!(client.is_open());
            client.buffers().output()[..4].copy_from_slice(b"pong");
            client.transmit_output(4, within(SOON)).unwrap();
            server.write_all(b"answer").unwrap();
            while client.buffers().input().len() < 6 {
                assert!(client.await_input(within(SOON)).unwrap());
            }
            let mut request = [0; 8];
            server.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"pingpong");
            assert!(client.is_open());
            assert_eq!(client.buffers().input(), b"answer", "input that nobody has read is kept");
            client.buffers().input_consume(6);
            assert!(client.is_open());
        });
        assert!(counted.bytes_max > 1024, "{counted:?}");
        assert_eq!(counted.bytes_current, 0);
    }

    #[test]
    fn input_grows_to_its_longest_length_and_keeps_every_byte() {
        let sent: Vec<u8> = (0..50_000_u32).map(|number| number.to_le_bytes()[number as usize % 2]).collect();
        let config = Config::builder().input_buffer_size(10_000).build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpTransport::connect(&address, within(SOON), &config).unwrap();
        let mut server = listener.accept().unwrap().0;
        let mut received = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| server.write_all(&sent).unwrap());
            while received.len() < sent.len() {
                // As for a head that is not complete, until the buffer is full.
                while client.buffers().input().len() < 10_000.min(sent.len() - received.len()) {
                    assert!(client.await_input(within(SOON)).unwrap());
                }
                received
                    .extend_from_slice(&client.buffers().input()[..7_000.min(sent.len() - received.len())]);
                let taken = 7_000.min(client.buffers().input().len());
                client.buffers().input_consume(taken);
            }
        });
        assert!(received == sent);
    }

    #[test]
    fn request_longer_than_the_buffer_is_sent_in_parts() {
        let (mut client, mut server) = connection();
        // A request that is not sent whole ends the test.
        server.set_read_timeout(Some(SOON)).unwrap();
        let sent: Vec<u8> =
            (0..500_000_u32).map(|number| number.to_le_bytes()[number as usize % 2]).collect();
        let mut received = vec![0; sent.len()];
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                server.read_exact(&mut received).unwrap();
                server.write_all(b"x").unwrap();
            });
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let output = client.buffers().output();
                let amount = output.len().min(rest.len());
                assert!(amount > 0);
                output[..amount].copy_from_slice(&rest[..amount]);
                client.transmit_output(amount, within(SOON)).unwrap();
                rest = &rest[amount..];
            }
            assert!(client.await_input(within(SOON)).unwrap());
            reader.join().unwrap();
        });
        assert!(received == sent);
    }

    #[test]
    fn connection_closed_or_with_unasked_bytes_is_not_open() {
        let (mut client, server) = connection();
        assert!(client.is_open());
        server.shutdown(Shutdown::Write).unwrap();
        wait_closed(&mut client);
        let (mut client, mut server) = connection();
        server.write_all(b"x").unwrap();
        wait_closed(&mut client);
    }

    #[test]
    fn server_that_does_not_answer_is_a_time_out() {
        let (mut client, _server) = connection();
        for limit in [Duration::ZERO, Duration::from_millis(50)] {
            let result = client.await_input(within(limit));
            assert!(matches!(result, Err(Error::Timeout(Timeout::Global))), "{result:?}");
        }
    }
}
