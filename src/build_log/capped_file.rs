//! A file that never exceeds its cap: the head and the tail of everything written to it. Keeps no
//! output in memory.
//!
//! The file grows at its end. When it reaches its limit, the bytes between the head and the tail
//! are removed, and a line in their place says how many. So the file can be read at any time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How much of a log is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cap {
    /// How many bytes of its beginning are kept, rounded down to whole lines.
    pub(super) head: u64,
    /// How many bytes of its end are kept at least, rounded down to whole lines; at most twice as
    /// many.
    pub(super) tail: u64,
}

/// The cap of a build log. A mebibyte holds some ten thousand lines. A build prints its
/// configuration first and its failure last, but with many parallel jobs the cause can be thousands
/// of lines before the end.
pub(super) const CAP: Cap = Cap { head: 1024 * 1024, tail: 1024 * 1024 };

/// Room for the line that counts the removed bytes.
const MARK: u64 = 80;

/// How far to look for the end of a line, in bytes. A longer line is cut.
const NEAR: u64 = 4096;

/// How much of the end to read for a reader, in bytes: room for ten lines of a compiler's.
const TAIL: u64 = 32 * 1024;

/// How many bytes to move at a time.
const PIECE: u64 = 64 * 1024;

impl Cap {
    /// How long a file may become, in bytes.
    fn limit(self) -> u64 {
        self.head + MARK + 2 * self.tail
    }

    /// How far from a cut to look for the end of a line, in bytes.
    fn near(self) -> u64 {
        NEAR.min(self.head / 2).min(self.tail / 2)
    }
}

/// A file, and how it is laid out.
#[derive(Debug)]
pub(super) struct CappedFile {
    file: File,
    cap: Cap,
    length: u64,
    cut: Option<Cut>,
}

/// The place where bytes were removed.
#[derive(Debug, Clone, Copy)]
struct Cut {
    head_end: u64,
    tail_start: u64,
    left_out: u64,
}

impl CappedFile {
    /// Wraps `file`, which must be empty, and open for reading too.
    pub(super) fn new(file: File, cap: Cap) -> Self {
        Self { file, cap, length: 0, cut: None }
    }

    /// Continues `file`, open for reading and writing. If bytes were removed from its middle before
    /// and more must go, the new line counts the latter only.
    pub(super) fn resume(file: File, cap: Cap) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, cap, length, cut: None })
    }

    /// Adds `bytes`.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.length >= self.cap.limit() {
                self.remove_the_middle()?;
            }
            let room = usize::try_from(self.cap.limit() - self.length).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.file.write_all_at(now, self.length)?;
            self.length += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Returns whole lines from the end of the file, [`TAIL`] bytes at most.
    pub(super) fn tail(&self) -> io::Result<String> {
        let start = self.length.saturating_sub(TAIL);
        let bytes = self.read(start, self.length)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // A line that is cut begins elsewhere, perhaps within a character.
        let is_cut = start > 0 && text.contains('\n');
        Ok(if is_cut {
            text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
        } else {
            text
        })
    }

    /// Removes the bytes between the head and the tail, and writes their number in their place.
    fn remove_the_middle(&mut self) -> io::Result<()> {
        let Cut { head_end, tail_start: middle, left_out: before } = match self.cut {
            Some(cut) => cut,
            None => self.end_of_head()?,
        };
        let mut from = self.start_of_tail()?;
        let left_out = before + (from - middle);
        // If the head's last line was cut, end it here.
        let new_line = if head_end == self.cap.head { "\n" } else { "" };
        let mark = format!("{new_line}== {left_out} bytes are left out here\n");
        self.file.write_all_at(mark.as_bytes(), head_end)?;
        let tail_start = head_end + mark.len() as u64;
        let mut to = tail_start;
        while from < self.length {
            let piece = self.read(from, self.length.min(from + PIECE))?;
            self.file.write_all_at(&piece, to)?;
            from += piece.len() as u64;
            to += piece.len() as u64;
        }
        self.length = to;
        self.cut = Some(Cut { head_end, tail_start, left_out });
        self.file.set_len(self.length)
    }

    /// Finds the end of the last whole line of the head.
    fn end_of_head(&self) -> io::Result<Cut> {
        let start = self.cap.head - self.cap.near();
        let line = self.read(start, self.cap.head)?.iter().rposition(|byte| *byte == b'\n');
        let end = line.map_or(self.cap.head, |place| start + place as u64 + 1);
        Ok(Cut { head_end: end, tail_start: end, left_out: 0 })
    }

    /// Finds the start of the first whole line of the tail.
    fn start_of_tail(&self) -> io::Result<u64> {
        let start = self.length - self.cap.tail;
        let line = self.read(start, start + self.cap.near())?.iter().position(|byte| *byte == b'\n');
        Ok(line.map_or(start, |place| start + place as u64 + 1))
    }

    /// Reads the bytes from one place to another. Bytes are zero where another program has
    /// shortened the file.
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

    /// Writes `stream` in pieces of `piece` bytes; returns the file's content.
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
    fn log_up_to_its_limit_stays_whole() {
        let stream = vec![b'x'; usize::try_from(SMALL.limit()).unwrap()];
        for piece in [1, 7, 10_000] {
            assert_eq!(written(&stream, piece), stream);
        }
    }

    #[test]
    fn long_log_keeps_whole_lines_of_head_and_tail_and_counts_the_rest() {
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
    fn long_log_of_one_line_keeps_head_and_tail_too() {
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
    fn longest_mark_leaves_room_for_output() {
        let file = tempfile::tempfile().unwrap();
        let mut capped = CappedFile::new(file.try_clone().unwrap(), SMALL);
        let left_out = u64::MAX - SMALL.limit();
        capped.cut = Some(Cut { head_end: 1000, tail_start: 1000 + MARK, left_out });
        capped.length = SMALL.limit();
        capped.write(b"x").unwrap();
        let cut = capped.cut.unwrap();
        assert!(cut.left_out > left_out && cut.tail_start <= 1000 + MARK);
        assert!(file.metadata().unwrap().len() <= SMALL.limit() - SMALL.tail + 1);
    }

    #[test]
    fn file_shortened_by_another_program_is_written_on() {
        let file = tempfile::tempfile().unwrap();
        let mut capped = CappedFile::new(file.try_clone().unwrap(), SMALL);
        for _ in 0..100 {
            file.set_len(0).unwrap();
            capped.write(&[b'x'; 500]).unwrap();
        }
        assert!(file.metadata().unwrap().len() <= SMALL.limit());
    }
}
