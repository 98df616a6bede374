//! The standard input of a child.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};

use rustix::fs::{MemfdFlags, memfd_create};

/// Returns a file in memory with `bytes`, to be read from its beginning. A pipe would have to be
/// filled while the child reads it, and may be shorter than the bytes.
pub(super) fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
