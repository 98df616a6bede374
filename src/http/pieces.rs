//! The bytes of one request, in pieces: memory grows with the bytes that have arrived, not with
//! those that are announced, and shrinks with those that were passed on. One growing buffer is less
//! code, but takes twice the memory when several long bodies arrive at once. Lack of memory is an
//! error, not the end of the process.

use std::collections::{TryReserveError, VecDeque};
use std::io::{self, Write};

use super::socket::write;

/// The greatest length of a piece.
const PIECE: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Pieces {
    list: VecDeque<Vec<u8>>,
    /// The bytes of the first piece that have been written.
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
    ///
    /// # Errors
    /// When the system refuses the memory.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TryReserveError> {
        match self.list.back_mut() {
            Some(last) if last.len() + bytes.len() <= PIECE => {
                last.try_reserve(bytes.len())?;
                last.extend_from_slice(bytes);
            }
            _ => {
                let mut piece = Vec::new();
                piece.try_reserve(bytes.len())?;
                piece.extend_from_slice(bytes);
                self.list.push_back(piece);
            }
        }
        self.length += bytes.len();
        Ok(())
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
