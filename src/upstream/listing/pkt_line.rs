//! pkt-lines, the framing of git's protocol (gitprotocol-common, "pkt-line format"). Pure.
//!
//! Four hexadecimal digits give a packet's length, themselves included; the data follows. The
//! reader holds one packet at a time, so a long answer needs little memory.

use std::io::{self, Read};

use peipkg_format::problem::excerpt;

/// The most data of one packet, in bytes: git's own limit.
pub(crate) const MAX_DATA: usize = 65_516;

/// How many digits the length has.
const HEADER: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// A line, without the line feed that may end it.
    Data(&'a [u8]),
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: the end of a section.
    Delimiter,
    /// `0002`: the end of a response.
    ResponseEnd,
}

/// Why there is no packet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketError {
    /// The bytes could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The bytes end within a packet.
    #[error("it ends in the middle of a packet")]
    CutOff,
    /// The bytes are no packet.
    #[error("{0}")]
    Malformed(String),
    /// The server reports an error by an `ERR` packet: its message, as one line.
    #[error("the server says: {0}")]
    Remote(String),
}

/// Reads packets one by one.
#[derive(Debug)]
pub(crate) struct Packets<R> {
    reader: R,
    /// The bytes read last: a length, or a packet's data.
    data: Vec<u8>,
}

impl<R: Read> Packets<R> {
    /// Reads packets from `reader`, a few bytes at a time: `reader` should be buffered.
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, data: Vec::new() }
    }

    /// Reads the next packet; `None` if the bytes end between two packets.
    ///
    /// # Errors
    /// When the next bytes are not a packet, or are an `ERR` packet.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet<'_>>, PacketError> {
        match self.read(HEADER)? {
            0 => return Ok(None),
            HEADER => {}
            _ => return Err(PacketError::CutOff),
        }
        let length = match parse_length(&self.data)? {
            0 => return Ok(Some(Packet::Flush)),
            1 => return Ok(Some(Packet::Delimiter)),
            2 => return Ok(Some(Packet::ResponseEnd)),
            length => length,
        };
        let length = length.checked_sub(HEADER).filter(|length| *length <= MAX_DATA).ok_or_else(|| {
            malformed(format!("a packet's length is {length}, expected 4 to {}", MAX_DATA + HEADER))
        })?;
        if self.read(length)? < length {
            return Err(PacketError::CutOff);
        }
        let data = self.data.strip_suffix(b"\n").unwrap_or(&self.data);
        if let Some(message) = data.strip_prefix(b"ERR ") {
            return Err(PacketError::Remote(one_line(message)));
        }
        Ok(Some(Packet::Data(data)))
    }

    /// Checks that nothing follows.
    ///
    /// # Errors
    /// When something follows, or reading fails.
    pub(crate) fn expect_end(&mut self) -> Result<(), PacketError> {
        match self.read(1)? {
            0 => Ok(()),
            _ => Err(malformed("more data follows its last packet")),
        }
    }

    /// Reads the next `length` bytes, or fewer if the input ends. Returns how many.
    fn read(&mut self, length: usize) -> io::Result<usize> {
        self.data.resize(length, 0);
        let mut read = 0;
        while read < length {
            match self.reader.read(&mut self.data[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.data.truncate(read);
        Ok(read)
    }
}

/// Appends `line` as a packet.
///
/// # Panics
/// When it is longer than [`MAX_DATA`]: the manager writes no such line.
pub(crate) fn write(out: &mut Vec<u8>, line: &[u8]) {
    assert!(line.len() <= MAX_DATA, "the line fits into a packet");
    out.extend_from_slice(format!("{:04x}", line.len() + HEADER).as_bytes());
    out.extend_from_slice(line);
}

/// Appends a [`Packet::Delimiter`].
pub(crate) fn write_delimiter(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

/// Appends a [`Packet::Flush`].
pub(crate) fn write_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Turns a server's bytes into one line of at most 200 characters, for a message.
pub(crate) fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(1000)]);
    let words: Vec<&str> = text.split_whitespace().collect();
    excerpt(&words.join(" ")).into_owned()
}

fn parse_length(header: &[u8]) -> Result<usize, PacketError> {
    let add = |length, byte: &u8| Some(length << 4 | char::from(*byte).to_digit(16)? as usize);
    header.iter().try_fold(0, add).ok_or_else(|| {
        malformed(format!("expected a packet's length in four digits, found {:?}", one_line(header)))
    })
}

fn malformed(reason: impl Into<String>) -> PacketError {
    PacketError::Malformed(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the packets with a list: data in quotes, others by name; an error ends the list.
    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        let mut packets = Packets::new(bytes);
        let mut found = Vec::new();
        loop {
            match packets.next_packet() {
                Ok(Some(Packet::Data(line))) => found.push(format!("{:?}", one_line(line))),
                Ok(Some(other)) => found.push(format!("{other:?}")),
                Ok(None) => break,
                Err(error) => {
                    found.push(error.to_string());
                    break;
                }
            }
        }
        assert_eq!(found.join(", "), expected);
    }

    #[test]
    fn packets_of_every_kind_are_read() {
        check(b"", "");
        check(b"0006a\n0005b0004", "\"a\", \"b\", \"\"");
        check(b"0000000100020000", "Flush, Delimiter, ResponseEnd, Flush");
        check(b"000Aabc\n\n\n", "\"abc\"");
        check(b"0011ERR go\naway\n\n", "the server says: go away");
    }

    #[test]
    fn packets_malformed_are_refused() {
        check(b"0", "it ends in the middle of a packet");
        check(b"000", "it ends in the middle of a packet");
        check(b"0006a", "it ends in the middle of a packet");
        check(b"0005", "it ends in the middle of a packet");
        check(b"0003", "a packet's length is 3, expected 4 to 65520");
        check(b"fff1", "a packet's length is 65521, expected 4 to 65520");
        check(b"ffffx", "a packet's length is 65535, expected 4 to 65520");
        check(b"<htm", "expected a packet's length in four digits, found \"<htm\"");
        check(b"+006ab", "expected a packet's length in four digits, found \"+006\"");
        check(b"00 6ab", "expected a packet's length in four digits, found \"00 6\"");
    }

    #[test]
    fn packet_of_the_longest_length_is_read() {
        let mut bytes = Vec::new();
        write(&mut bytes, &vec![b'x'; MAX_DATA]);
        write_flush(&mut bytes);
        assert!(bytes.starts_with(b"fff0"));
        let mut packets = Packets::new(bytes.as_slice());
        assert!(matches!(packets.next_packet(), Ok(Some(Packet::Data(data))) if data.len() == MAX_DATA));
        assert!(matches!(packets.next_packet(), Ok(Some(Packet::Flush))));
        packets.expect_end().unwrap();
    }

    #[test]
    fn data_after_the_last_packet_is_refused() {
        let mut packets = Packets::new(b"0000x".as_slice());
        packets.next_packet().unwrap();
        assert_eq!(packets.expect_end().unwrap_err().to_string(), "more data follows its last packet");
    }
}
