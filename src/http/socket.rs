//! Reads and writes a non-blocking socket once.

use std::io::{self, ErrorKind, Read, Write};

/// Reads once; 0 at the end of the stream, `None` when there is nothing to read now.
pub(super) fn read(socket: &mut impl Read, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    settle(|| socket.read(buffer))
}

/// Writes once; `None` when the socket takes nothing now.
pub(super) fn write(socket: &mut impl Write, bytes: &[u8]) -> io::Result<Option<usize>> {
    settle(|| socket.write(bytes))
}

/// Repeats an interrupted `call`, and returns `None` where it would block.
fn settle(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(length) => return Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
