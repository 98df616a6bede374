//! The SHA-256 of an index while it is read or written.
//!
//! A publish hashes the old archive index and the new one, which is most of its work. A step of
//! SHA-256 waits for the one before it, so a processor with SHA extensions is half idle. It computes two
//! hashes in less time when they alternate.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::mem;
use std::rc::Rc;
use std::slice;

use rustix::fs::{FallocateFlags, fallocate};
use sha2::block_api::Sha256VarCore;
use sha2::digest::block_api::{Buffer, UpdateCore as _, VariableOutputCore};

use crate::chunks::for_each_chunk;
use crate::digest::Digest;

/// Bytes that are buffered before a write. Writing an index in pieces of 128 KiB costs the system a fifth
/// more.
const BUFFER: usize = 512 * 1024;

/// A block of SHA-256.
type Block = sha2::digest::block_api::Block<Sha256VarCore>;

/// A hash whose blocks can be passed one by one: `Sha256` would look for a begun block each time.
struct Hasher {
    core: Sha256VarCore,
    /// The bytes of a block that is not full.
    begun: Buffer<Sha256VarCore>,
}

impl Default for Hasher {
    fn default() -> Self {
        let core = <Sha256VarCore as VariableOutputCore>::new(size_of::<Digest>());
        Self { core: core.expect("the length of a SHA-256"), begun: Buffer::<Sha256VarCore>::default() }
    }
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        self.begun.digest_blocks(bytes, |blocks| self.core.update_blocks(blocks));
    }

    /// Hashes `bytes`, and `others` for the hash `other`.
    fn update_both(&mut self, bytes: &[u8], other: &mut Self, others: &[u8]) {
        let (bytes, others) = (self.fill_block(bytes), other.fill_block(others));
        let (blocks, other_blocks) = (Block::slice_as_chunks(bytes).0, Block::slice_as_chunks(others).0);
        for (block, other_block) in blocks.iter().zip(other_blocks) {
            self.core.update_blocks(slice::from_ref(block));
            other.core.update_blocks(slice::from_ref(other_block));
        }
        let both = blocks.len().min(other_blocks.len()) * size_of::<Block>();
        self.update(&bytes[both..]);
        other.update(&others[both..]);
    }

    /// Fills the block that was begun, and returns the other bytes.
    fn fill_block<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = if self.begun.get_pos() == 0 { 0 } else { self.begun.remaining() };
        let (first, rest) = bytes.split_at(bytes.len().min(missing));
        self.update(first);
        rest
    }

    fn end(mut self) -> Digest {
        let mut digest = sha2::digest::Output::<sha2::Sha256>::default();
        self.core.finalize_variable_core(&mut self.begun, &mut digest);
        digest.into()
    }
}

/// A file that is written, and hashed later than written if another is read meanwhile.
pub(super) struct Output {
    file: File,
    buffer: Vec<u8>,
    /// How much of the buffer is hashed.
    hashed: usize,
    hasher: Hasher,
    /// How much of the file is written.
    length: u64,
}

impl Output {
    /// Writes `file`, which will have some `expected` bytes.
    pub(super) fn new(file: File, expected: u64) -> Self {
        if expected > BUFFER as u64 {
            // A file system that has found the place for all bytes writes them with a quarter less CPU time.
            // Some cannot; and on a full disk, the write fails and says so.
            let _ = fallocate(&file, FallocateFlags::empty(), 0, expected);
        }
        Self { file, buffer: Vec::with_capacity(BUFFER), hashed: 0, hasher: Hasher::default(), length: 0 }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() > BUFFER {
            self.hasher.update(bytes);
            self.length += bytes.len() as u64;
            return self.file.write_all(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the SHA-256 of all.
    pub(super) fn end(&mut self) -> io::Result<Digest> {
        self.flush()?;
        self.file.set_len(self.length)?;
        Ok(mem::take(&mut self.hasher).end())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer[self.hashed..]);
        self.file.write_all(&self.buffer)?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.hashed = 0;
        Ok(())
    }

    /// Hashes `bytes` for the hash `other`, and what has not been hashed here.
    fn hash_beside(&mut self, other: &mut Hasher, bytes: &[u8]) {
        self.hasher.update_both(&self.buffer[self.hashed..], other, bytes);
        self.hashed = self.buffer.len();
    }
}

/// A file that is read and hashed.
pub(super) struct Input<'a> {
    file: &'a File,
    hasher: Hasher,
    beside: Option<Rc<RefCell<Output>>>,
}

impl<'a> Input<'a> {
    /// Reads `file`. Hashes `beside` at the same time.
    pub(super) fn new(file: &'a File, beside: Option<Rc<RefCell<Output>>>) -> Self {
        Self { file, hasher: Hasher::default(), beside }
    }

    /// Reads on to the end, and returns the SHA-256 of all.
    pub(super) fn end(mut self) -> io::Result<Digest> {
        for_each_chunk(&mut self, |error| error, |_| Ok(()))?;
        Ok(self.hasher.end())
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        let bytes = &buffer[..length];
        match &self.beside {
            Some(output) => output.borrow_mut().hash_beside(&mut self.hasher, bytes),
            None => self.hasher.update(bytes),
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;
    use crate::digest::sha256;

    #[test]
    fn two_hashes_are_those_of_each_file_whatever_the_lengths_of_the_parts() {
        let text: Vec<u8> =
            (0..3_000_000_u32).map(|number| number.wrapping_mul(number / 7).to_le_bytes()[0]).collect();
        for (read, written) in [(1, 1), (63, 65), (64, 64), (100_001, 99), (131_072, 700), (7, 600_000)] {
            let (all, mut old) = (&text[..text.len().min(read * 10_000)], tempfile::tempfile().unwrap());
            io::Write::write_all(&mut old, all).unwrap();
            old.rewind().unwrap();
            let new = tempfile::tempfile().unwrap();
            let output = Rc::new(RefCell::new(Output::new(new.try_clone().unwrap(), 3_500_000)));
            let mut input = Input::new(&old, Some(Rc::clone(&output)));
            let (mut buffer, mut parts) = (vec![0; read], text.chunks(written));
            // The longer one of both goes on alone.
            while input.read(&mut buffer).unwrap() > 0 {
                parts.next().map_or(Ok(()), |part| output.borrow_mut().write_all(part)).unwrap();
            }
            parts.try_for_each(|part| output.borrow_mut().write_all(part)).unwrap();
            assert_eq!(input.end().unwrap(), sha256(all), "{read} {written}");
            assert_eq!(output.borrow_mut().end().unwrap(), sha256(&text), "{read} {written}");
            let mut bytes = Vec::new();
            (&new).rewind().and_then(|()| (&new).read_to_end(&mut bytes)).unwrap();
            assert!(bytes == text, "{read} {written}");
        }
    }
}
