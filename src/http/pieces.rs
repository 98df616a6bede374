//! The bytes of one request, in pieces: memory grows with the bytes that have arrived, not with
//! those that are announced, and shrinks while they are written to the server. One growing buffer
//! is less code, but takes twice the memory when several long bodies arrive at once.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::socket::write;

/// The greatest length of a piece.
const PIECE: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Pieces {
    list: VecDeque<Vec<u8>>,
    /// The bytes of the first piece that are written.
    written: usize,
    /// The bytes of all pieces.
    length: usize,
}

impl Pieces {
    /// The bytes held.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Appends `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        match self.list.back_mut() {
            Some(last) if last.len() + bytes.len() <= PIECE => last.extend_from_slice(bytes),
            _ => self.list.push_back(bytes.to_vec()),
        }
    }

    /// Writes and frees as much as the socket takes.
    pub(super) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while let Some(first) = self.list.front() {
            match write(socket, &first[self.written..])? {
                Some(length) => self.written += length,
                None => return Ok(()),
            }
            if self.written == first.len() {
                self.length -= first.len();
                self.written = 0;
                self.list.pop_front();
            }
        }
        Ok(())
    }
}
