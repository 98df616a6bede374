//! A file that never takes more than its cap, whatever is written to it. Nothing of it is held in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::cap::{Cap, Layout, Move};

/// How much is moved at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// A log's file.
#[derive(Debug)]
pub(super) struct CappedFile {
    file: File,
    layout: Layout,
}

impl CappedFile {
    /// Begins to write to `file`, which is empty, and may be read.
    pub(super) fn new(file: File, cap: Cap) -> Self {
        Self { file, layout: Layout::new(cap) }
    }

    /// Adds `bytes`.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.layout.room(bytes.len()));
            self.file.write_all_at(now, self.layout.length())?;
            self.layout.grow(now.len());
            if !later.is_empty() {
                self.take_out_the_middle()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn take_out_the_middle(&mut self) -> io::Result<()> {
        let is_end = |byte: &u8| *byte == b'\n';
        let mut head_line = None;
        if let Some((from, to)) = self.layout.head_window() {
            let found = self.read(from, to)?.iter().rposition(is_end);
            head_line = found.map(|place| from + place as u64 + 1);
        }
        let (from, to) = self.layout.tail_window();
        let tail_line = self.read(from, to)?.iter().position(is_end).map(|place| from + place as u64 + 1);
        let Move { mark, mark_at, from, to, length } = self.layout.take_out_the_middle(head_line, tail_line);
        self.file.write_all_at(mark.as_bytes(), mark_at)?;
        let (mut from, mut to) = (from, to);
        while to < length {
            let piece = self.read(from, from + (length - to).min(PIECE as u64))?;
            self.file.write_all_at(&piece, to)?;
            from += piece.len() as u64;
            to += piece.len() as u64;
        }
        self.file.set_len(length)
    }

    /// The bytes from one place to the other. Somebody else may have shortened the file: what is not there is zero.
    fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        match self.file.read_exact_at(&mut bytes, from) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Cap = Cap { head: 1000, tail: 2000 };

    /// Writes `stream` in pieces of `piece` bytes; returns what is in the file then.
    fn written(stream: &[u8], piece: usize) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        let mut capped = CappedFile::new(file.try_clone().unwrap(), SMALL);
        for piece in stream.chunks(piece) {
            capped.write(piece).unwrap();
            assert!(file.metadata().unwrap().len() <= SMALL.limit());
        }
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// The head, the count and the tail of a log that was cut.
    fn parts(log: &[u8]) -> (&str, u64, &str) {
        let text = str::from_utf8(log).unwrap();
        let (head, rest) = text.split_once("== ").unwrap();
        let (count, tail) = rest.split_once(" bytes are left out here\n").unwrap();
        (head, count.parse().unwrap(), tail)
    }

    #[test]
    fn a_short_log_is_whole() {
        let stream = vec![b'x'; usize::try_from(SMALL.limit()).unwrap()];
        for piece in [1, 7, 10_000] {
            assert_eq!(written(&stream, piece), stream);
        }
    }

    #[test]
    fn of_a_long_log_whole_lines_of_head_and_tail_are_left_and_the_count_is_right() {
        let lines: Vec<String> = (0..20_000).map(|number| format!("line {number}\n")).collect();
        let stream = lines.concat();
        for piece in [1, 13, 700, 5081, 100_000] {
            let log = written(stream.as_bytes(), piece);
            let (head, left_out, tail) = parts(&log);
            assert!(stream.starts_with(head) && head.ends_with('\n'), "{head}");
            assert!(stream.ends_with(tail) && tail.starts_with("line "), "{tail}");
            assert!((500..=1000).contains(&head.len()) && (1000..=4100).contains(&tail.len()));
            assert_eq!(head.len() as u64 + left_out + tail.len() as u64, stream.len() as u64, "{piece}");
        }
    }

    #[test]
    fn of_a_log_without_lines_head_and_tail_are_left_too() {
        let stream = "0123456789".repeat(3000);
        for piece in [1, 999, 30_000] {
            let log = written(stream.as_bytes(), piece);
            let (head, left_out, tail) = parts(&log);
            let head = head.strip_suffix('\n').unwrap();
            assert!(stream.starts_with(head) && head.len() == 1000);
            assert!(stream.ends_with(tail) && (2000..=4100).contains(&tail.len()));
            assert_eq!(head.len() as u64 + left_out + tail.len() as u64, stream.len() as u64, "{piece}");
        }
    }

    #[test]
    fn a_file_that_somebody_has_emptied_is_no_trouble() {
        let file = tempfile::tempfile().unwrap();
        let mut capped = CappedFile::new(file.try_clone().unwrap(), SMALL);
        for _ in 0..100 {
            file.set_len(0).unwrap();
            capped.write(&[b'x'; 500]).unwrap();
        }
        assert!(file.metadata().unwrap().len() <= SMALL.limit());
    }
}
