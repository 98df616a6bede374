//! The header blocks before an entry's content in the archive (PSD-009 §3.1.4). Pure.
//!
//! The format fixes every field, so that the same entry always gives the same bytes. A library may
//! change its defaults, so this file writes the bytes itself.
//!
//! For the fields that the format leaves open, this is the layout of the deployed writers: the
//! name field holds the first bytes of a long name, the prefix field is empty, and the extended
//! header is a block named `<directory>/PaxHeaders.0/<name>` whose other numbers are zero.

/// Size of a block in bytes. Headers and contents fill whole blocks.
pub const BLOCK: usize = 512;
/// The end of an archive: two blocks of zeros.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The largest number in an eleven-digit octal field. Sizes and times may not exceed it: PSD-009
/// §3.1.4 rule 12 forbids the extended records for larger ones.
pub const MAX_NUMBER: u64 = 0o777_7777_7777;

/// The longest path or target without an extended header, in bytes.
const NAME_LENGTH: usize = 100;

/// The type of an entry (PSD-009 §3.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType<'a> {
    /// A regular file of this many bytes, at most [`MAX_NUMBER`].
    File(u64),
    /// A directory; its path ends in a slash.
    Directory,
    /// A symbolic link to this target.
    Symlink(&'a str),
}

/// Returns the header blocks of an entry. `mtime` is in seconds since 1970, at most [`MAX_NUMBER`].
pub fn header(path: &str, entry: EntryType<'_>, mtime: u64) -> Vec<u8> {
    let (flag, size, target) = match entry {
        EntryType::File(size) => (b'0', size, ""),
        EntryType::Directory => (b'5', 0, ""),
        EntryType::Symlink(target) => (b'2', 0, target),
    };
    let mut records = Vec::new();
    for (key, value) in [("path", path), ("linkpath", target)] {
        if value.len() > NAME_LENGTH {
            records.extend_from_slice(record(key, value).as_bytes());
        }
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        bytes.extend_from_slice(&extended_block(path, records.len()));
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len() + padding(records.len() as u64), 0);
    }
    let mut block = Block::new(path, flag);
    block.numbers(0o777, size, mtime);
    block.text(157, NAME_LENGTH, target);
    block.text(265, 32, "root");
    block.text(297, 32, "root");
    block.octal(329, 8, 0);
    block.octal(337, 8, 0);
    bytes.extend_from_slice(&block.finish());
    bytes
}

/// Returns the length of [`header`] in bytes.
pub fn header_length(path: &str, entry: EntryType<'_>) -> u64 {
    header(path, entry, 0).len() as u64
}

/// Returns the number of zero bytes after a content of `size` bytes.
///
/// # Panics
/// Never: the answer is less than a block.
pub fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).expect("less than a block")
}

/// Returns a pax record, `<length> <key>=<value>\n`. The length counts its own digits.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    loop {
        let whole = rest.len() + length.to_string().len();
        if whole == length {
            return format!("{length}{rest}");
        }
        length = whole;
    }
}

fn extended_block(path: &str, size: usize) -> [u8; BLOCK] {
    let name = match path.rsplit_once('/') {
        Some((directory, file)) => format!("{directory}/PaxHeaders.0/{file}"),
        None => format!("PaxHeaders.0/{path}"),
    };
    let name = first_bytes(&name).trim_end_matches('/');
    let mut block = Block::new(name, b'x');
    block.numbers(0, size as u64, 0);
    block.finish()
}

/// Returns as much of `name` as the field holds, cut between characters.
fn first_bytes(name: &str) -> &str {
    let end = (0..=NAME_LENGTH.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

/// A header block that is being filled in.
struct Block([u8; BLOCK]);

impl Block {
    fn new(path: &str, flag: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        let mut name = first_bytes(path);
        if name.len() < path.len() {
            // Readers that ignore extended headers would take a name that ends in a slash for a
            // directory.
            name = name.trim_end_matches('/');
        }
        block.text(0, NAME_LENGTH, name);
        block.0[156] = flag;
        block.text(257, 8, "ustar\x0000");
        block
    }

    fn numbers(&mut self, mode: u64, size: u64, mtime: u64) {
        self.octal(100, 8, mode);
        self.octal(108, 8, 0);
        self.octal(116, 8, 0);
        self.octal(124, 12, size);
        self.octal(136, 12, mtime);
    }

    fn text(&mut self, at: usize, length: usize, text: &str) {
        let text = if length == NAME_LENGTH { first_bytes(text) } else { text };
        self.0[at..at + text.len()].copy_from_slice(text.as_bytes());
    }

    /// Writes octal digits into the whole field except its final NUL.
    fn octal(&mut self, at: usize, length: usize, number: u64) {
        let digits = format!("{number:0width$o}", width = length - 1);
        self.0[at..at + length - 1].copy_from_slice(digits.as_bytes());
    }

    /// Writes the checksum, which counts its own field as spaces, and returns the block.
    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148, 7, sum);
        self.0[154] = 0;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(block: &[u8], at: usize, length: usize) -> &str {
        std::str::from_utf8(&block[at..at + length]).unwrap()
    }

    #[test]
    fn header_of_a_file_has_every_field() {
        let block = header("usr/share/hello/MESSAGE", EntryType::File(14), 1_777_636_800);
        assert_eq!(block.len(), BLOCK);
        let expected = [
            (0, "usr/share/hello/MESSAGE\0"),
            (100, "0000777\0"),
            (108, "0000000\0"),
            (116, "0000000\0"),
            (124, "00000000016\0"),
            (136, "15175112700\0"),
            (156, "0"),
            (157, "\0"),
            (257, "ustar\x0000"),
            (265, "root\0"),
            (297, "root\0"),
            (329, "0000000\0"),
            (337, "0000000\0"),
            (345, "\0"),
        ];
        for (at, text) in expected {
            assert_eq!(field(&block, at, text.len()), text, "field at {at}");
        }
        assert_eq!(&field(&block, 148, 8)[6..], "\0 ");
        assert!(block[345..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn name_longer_than_its_field_gets_a_record() {
        let fits = "e".repeat(100);
        let block = header(&fits, EntryType::File(0), 0);
        assert_eq!((block.len(), field(&block, 0, 100)), (BLOCK, fits.as_str()));
        let long = "e".repeat(101);
        let blocks = header(&long, EntryType::File(0), 0);
        assert_eq!(blocks.len(), 3 * BLOCK);
        assert_eq!(blocks[156], b'x');
        assert!(field(&blocks, BLOCK, 113).starts_with(&format!("111 path={long}\n")));
        assert_eq!(field(&blocks, 2 * BLOCK, 101), format!("{fits}0"));
    }

    #[test]
    fn record_of_path_precedes_linkpath() {
        let (path, target) = (format!("usr/{}", "p".repeat(100)), "t".repeat(120));
        let blocks = header(&path, EntryType::Symlink(&target), 7);
        let records = format!("114 path={path}\n134 linkpath={target}\n");
        assert_eq!(field(&blocks, BLOCK, records.len()), records);
        assert_eq!(field(&blocks, 0, 17), "usr/PaxHeaders.0/");
        assert_eq!(field(&blocks, 124, 12), format!("{:011o}\0", records.len()));
        assert_eq!(blocks[2 * BLOCK + 156], b'2');
    }

    #[test]
    fn record_length_counts_its_own_digits() {
        assert_eq!(record("path", "x"), "9 path=x\n");
        assert_eq!(record("path", &"x".repeat(89)).len(), 98);
        for length in 80..1100 {
            let text = record("path", &"x".repeat(length));
            let (length, _) = text.split_once(' ').unwrap();
            assert_eq!(length.parse(), Ok(text.len()));
        }
    }

    #[test]
    fn name_cut_keeps_whole_characters_and_names_no_directory() {
        let path = format!("{}ü/x", "a".repeat(99));
        assert_eq!(
            field(&header(&path, EntryType::File(0), 0), 2 * BLOCK, 100),
            format!("{}\0", "a".repeat(99))
        );
        let path = format!("{}/x", "a".repeat(99));
        assert_eq!(header(&path, EntryType::File(0), 0)[2 * BLOCK + 99], 0);
    }

    #[test]
    fn contents_fill_whole_blocks() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
