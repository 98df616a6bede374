//! The header blocks before an entry's content in the archive (PSD-009 §3.1.4). Pure.
//!
//! The format fixes every field, so that the same entry always gives the same bytes. A library may
//! change its defaults, so this file writes the bytes itself.
//!
//! For the fields that the format leaves open, this is the layout of the deployed writer:
//!
//! - A path of more than 100 bytes is split at a slash between the fields for prefix and name. This
//!   needs ASCII and a slash at the right place, and that the link's target needs no record.
//! - Otherwise an extended header has a record for each long path or target, `linkpath` first. A
//!   character beyond ASCII makes a path or target long. PSD-009 §3.1.4 has the other order, and
//!   has no records for short paths.
//! - The extended header is a block named `<directory>/PaxHeaders.0/<name>` whose other numbers
//!   are zero. After it, the entry's own fields have the first bytes of path and target, without
//!   the characters beyond ASCII.

/// Size of a block in bytes. Headers and contents fill whole blocks.
pub const BLOCK: usize = 512;
/// The end of an archive: two blocks of zeros.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The largest number in an eleven-digit octal field. Sizes and times may not exceed it: PSD-009
/// §3.1.4 rule 12 forbids the extended records for larger ones.
pub const MAX_NUMBER: u64 = 0o777_7777_7777;

/// The size of the fields for name and target, in bytes.
const NAME_LENGTH: usize = 100;
/// The size of the field for the prefix, in bytes.
const PREFIX_LENGTH: usize = 155;

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
    let mut bytes = Vec::new();
    let (prefix, name) = match split(path) {
        Some(parts) if !is_long(target) => parts,
        None if !is_long(target) && !is_long(path) => ("", path),
        _ => {
            bytes = extended_header(path, target);
            ("", path)
        }
    };
    let mut block = Block::new(flag);
    block.name(0, name);
    block.numbers(0o777, size, mtime);
    block.name(157, target);
    block.text(265, "root");
    block.text(297, "root");
    block.octal(329, 8, 0);
    block.octal(337, 8, 0);
    block.text(345, prefix);
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

/// Whether a path or target does not fit into a field of 100 bytes of ASCII.
fn is_long(text: &str) -> bool {
    text.len() > NAME_LENGTH || !text.is_ascii()
}

/// Splits a path that is longer than the field for the name into prefix and name.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME_LENGTH || !path.is_ascii() {
        return None;
    }
    let end = match path.len() {
        length if length > PREFIX_LENGTH + 1 => PREFIX_LENGTH + 1,
        // The slash that ends a directory's path leaves no name after it.
        length => length - usize::from(path.ends_with('/')),
    };
    let slash = path[..end].rfind('/')?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    let fits = (1..=PREFIX_LENGTH).contains(&prefix.len()) && (1..=NAME_LENGTH).contains(&name.len());
    fits.then_some((prefix, name))
}

/// Returns the extended header of an entry: its block and the blocks of its records.
fn extended_header(path: &str, target: &str) -> Vec<u8> {
    let records = [("linkpath", target), ("path", path)].into_iter().filter(|(_, value)| is_long(value));
    let records: String = records.map(|(key, value)| record(key, value)).collect();
    let (directory, file) = path.rfind('/').map_or(("", path), |slash| path.split_at(slash + 1));
    let name = ascii(&format!("{directory}PaxHeaders.0/{file}"));
    let mut block = Block::new(b'x');
    block.text(0, name[..name.len().min(NAME_LENGTH)].trim_end_matches('/'));
    block.numbers(0, records.len() as u64, 0);
    let mut bytes = block.finish().to_vec();
    bytes.extend_from_slice(records.as_bytes());
    bytes.resize(bytes.len() + padding(records.len() as u64), 0);
    bytes
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

/// Returns `text` without its characters beyond ASCII.
fn ascii(text: &str) -> String {
    text.chars().filter(char::is_ascii).collect()
}

/// A header block that is being filled in.
struct Block([u8; BLOCK]);

impl Block {
    fn new(flag: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.0[156] = flag;
        block.text(257, "ustar\x0000");
        block
    }

    fn numbers(&mut self, mode: u64, size: u64, mtime: u64) {
        self.octal(100, 8, mode);
        self.octal(108, 8, 0);
        self.octal(116, 8, 0);
        self.octal(124, 12, size);
        self.octal(136, 12, mtime);
    }

    /// Writes as much of a path or target as its field holds.
    fn name(&mut self, at: usize, text: &str) {
        let text = ascii(text);
        let cut = &text[..text.len().min(NAME_LENGTH)];
        self.text(at, cut);
        if cut.len() < text.len() && cut.ends_with('/') {
            // Readers that ignore extended headers would take a name that ends in a slash for a
            // directory. The deployed writer ends the name before the slashes with one zero byte.
            self.0[at + cut.trim_end_matches('/').len()] = 0;
        }
    }

    fn text(&mut self, at: usize, text: &str) {
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

    /// Checks the blocks before the content: the records, and the fields for name and prefix.
    #[track_caller]
    fn check(path: &str, target: &str, records: &str, name: &str, prefix: &str) {
        let entry = if target.is_empty() { EntryType::File(0) } else { EntryType::Symlink(target) };
        let blocks = header(path, entry, 7);
        let last = blocks.len() - BLOCK;
        assert_eq!(last == 0, records.is_empty(), "{path}");
        if last > 0 {
            assert_eq!((blocks[156], field(&blocks, 124, 12)), (b'x', &*format!("{:011o}\0", records.len())));
            assert_eq!(field(&blocks, BLOCK, last - BLOCK).trim_end_matches('\0'), records);
        }
        let text = |at, length| field(&blocks, last + at, length).trim_end_matches('\0');
        assert_eq!((text(0, 100), text(345, 155)), (name, prefix), "{path}");
    }

    #[test]
    fn path_longer_than_its_field_is_split() {
        let [a, b, c] = [("a", 100), ("b", 90), ("c", 101)].map(|(letter, count)| letter.repeat(count));
        check(&a, "", "", &a, "");
        check(&format!("{b}/{a}"), "", "", &a, &b);
        check(&format!("{b}/{b}"), "t", "", &b, &b);
        // The last slash in the first 156 bytes counts, and a directory's own does not.
        let deep = format!("{b}/{}/{a}", "d".repeat(64));
        check(&deep, "", "", &a, &deep[..155]);
        check(
            &format!("{b}/{}/{}/", "d".repeat(20), "e".repeat(20)),
            "",
            "",
            &format!("{}/", "e".repeat(20)),
            &format!("{b}/{}", "d".repeat(20)),
        );
        let directory = format!("{b}/{}/", "d".repeat(64));
        check(&directory, "", "", &directory[91..], &b);
        // No slash is at the right place.
        check(&c, "", &format!("111 path={c}\n"), &c[..100], "");
        check(&format!("{b}/{c}"), "", &format!("202 path={b}/{c}\n"), &format!("{b}/{}", &c[..9]), "");
    }

    #[test]
    fn record_of_linkpath_precedes_path() {
        let (path, target) = (format!("usr/{}/p", "p".repeat(100)), "t".repeat(120));
        let records = format!("134 linkpath={target}\n116 path={path}\n");
        // Split alone, the path gets a record once the target needs one.
        check(&path, &target, &records, &path[..100], "");
        check("usr/l", &target, &records[..134], "usr/l", "");
        check(&path, "t", "", "p", &path[..104]);
        assert_eq!(field(&header(&path, EntryType::Symlink(&target), 7), 0, 10), "usr/pppppp");
        assert_eq!(field(&header("usr/l", EntryType::Symlink(&target), 7), 0, 19), "usr/PaxHeaders.0/l\0");
    }

    #[test]
    fn characters_beyond_ascii_need_a_record_and_leave_the_fields() {
        check("opt/é.txt", "", "19 path=opt/é.txt\n", "opt/.txt", "");
        check("opt/l", "é", "15 linkpath=é\n", "opt/l", "");
        let blocks = header("漢/é", EntryType::File(0), 0);
        assert_eq!(field(&blocks, 0, 15), "/PaxHeaders.0\0\0");
        let blocks = header("opt/漢/", EntryType::Directory, 0);
        assert_eq!(field(&blocks, 0, 19), "opt//PaxHeaders.0\0\0");
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
    fn name_that_is_cut_names_no_directory() {
        let path = format!("{}é/x", "a".repeat(99));
        let block = &header(&path, EntryType::File(0), 0)[2 * BLOCK..];
        assert_eq!(field(block, 0, 100), format!("{}\0", "a".repeat(99)));
        let path = format!("{}/é/x", "a".repeat(98));
        let block = &header(&path, EntryType::File(0), 0)[2 * BLOCK..];
        assert_eq!(field(block, 0, 100), format!("{}\0/", "a".repeat(98)));
        let block = &header("opt/l", EntryType::Symlink(&path), 0)[2 * BLOCK..];
        assert_eq!(field(block, 157, 100), format!("{}\0/", "a".repeat(98)));
        // Not cut: the slash is the directory's.
        let block = &header(&format!("é{}/", "a".repeat(99)), EntryType::Directory, 0)[2 * BLOCK..];
        assert_eq!(field(block, 0, 101), format!("{}/0", "a".repeat(99)));
    }

    #[test]
    fn contents_fill_whole_blocks() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
