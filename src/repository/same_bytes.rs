//! Compares files block by block: one may have gigabytes.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use peipkg_format::regular_file;

use crate::state::durable::{FileError, at};

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
    Ok(difference(a, b)?.is_none())
}

/// The first byte at which two files differ.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// How many equal bytes come before it.
    at: u64,
    /// Its values; `None` for a file that ends before it.
    values: [Option<u8>; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}", self.at)?;
        for (number, value) in self.values.iter().enumerate() {
            let separator = if number == 0 { ": " } else { ", " };
            match value {
                Some(value) => write!(f, "{separator}{value:02x}")?,
                None => write!(f, "{separator}the end")?,
            }
        }
        Ok(())
    }
}

/// Returns where two files differ first.
pub(crate) fn difference_of_files(a: &Path, b: &Path) -> Result<Option<Difference>, FileError> {
    let open = |path: &Path| regular_file::open(path).map_err(at(path));
    difference(&mut open(a)?, &mut open(b)?).map_err(at(b))
}

fn difference(a: &mut dyn Read, b: &mut dyn Read) -> io::Result<Option<Difference>> {
    let (mut a, mut b) = (BufReader::with_capacity(BLOCK, a), BufReader::with_capacity(BLOCK, b));
    let mut at = 0;
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 || left[..length] != right[..length] {
            let equal = left.iter().zip(right).take_while(|(left, right)| left == right).count();
            let values = [left.get(equal).copied(), right.get(equal).copied()];
            return Ok((values != [None, None]).then_some(Difference { at: at + equal as u64, values }));
        }
        a.consume(length);
        b.consume(length);
        at += length as u64;
    }
}
