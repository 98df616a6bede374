//! Compares files block by block: one may have gigabytes.

use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use peipkg_format::regular_file;

/// How much of a file is held in memory at a time, in bytes.
const BLOCK: usize = 64 * 1024;

/// Whether two files have the same bytes.
pub(super) fn is_same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (regular_file::open(a)?, regular_file::open(b)?);
    let (found, other) = (a.metadata()?, b.metadata()?);
    // A tool may have linked the package instead of copying it.
    if (found.dev(), found.ino()) == (other.dev(), other.ino()) {
        return Ok(true);
    }
    Ok(found.len() == other.len() && have_same_bytes(&mut a, &mut b)?)
}

/// Whether the rest of `a` and of `b` are the same bytes.
pub(super) fn have_same_bytes(a: &mut dyn Read, b: &mut dyn Read) -> io::Result<bool> {
    let (mut a, mut b) = (BufReader::with_capacity(BLOCK, a), BufReader::with_capacity(BLOCK, b));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 || left[..length] != right[..length] {
            return Ok(left.is_empty() && right.is_empty());
        }
        a.consume(length);
        b.consume(length);
    }
}
