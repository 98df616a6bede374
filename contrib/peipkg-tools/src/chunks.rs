//! Reading a file of any length through one small buffer.

use std::io::{self, Read};

/// Bytes that are read at once: enough that hashing, not system calls, takes the time.
pub const CHUNK: usize = 128 * 1024;

/// Reads `source` to its end and passes each chunk to `sink`.
///
/// # Errors
/// A failed read as `read_error` makes it, or the first error of `sink`: the caller can tell a
/// broken source from a full disk.
pub fn for_each_chunk<E>(
    source: &mut impl Read,
    read_error: impl Fn(io::Error) -> E,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => sink(&chunk[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
}
