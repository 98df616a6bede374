//! The section headers of an ELF file, and how to append one more section. Pure: bytes are arguments.
//!
//! Every number of the file may be hostile: it is compared with the file's length before it is used,
//! and nothing longer than [`MAX_NAMES`] is asked for.

use std::ops::Range;

/// The length of an ELF header, and of a section header, in bytes.
pub const HEADER: usize = 64;
/// The longest table of section names that is read, in bytes: a kilobyte for each possible section.
pub const MAX_NAMES: u64 = 64 * 1024 * 1024;
/// The first number of sections that leaves no room for another: `SHN_LORESERVE` is 0xff00.
const TOO_MANY: u16 = 0xfeff;
/// Section headers begin at a multiple of this.
const ALIGNMENT: u64 = 8;
/// The type of a section with content, `SHT_PROGBITS`.
const PROGBITS: u32 = 1;

// Offsets of the fields of an ELF header.
const E_SHOFF: usize = 40;
const E_SHENTSIZE: usize = 58;
const E_SHNUM: usize = 60;
const E_SHSTRNDX: usize = 62;
// Offsets of the fields of a section header.
const SH_NAME: usize = 0;
const SH_TYPE: usize = 4;
const SH_OFFSET: usize = 24;
const SH_SIZE: usize = 32;
const SH_ADDRALIGN: usize = 48;

/// Why a section cannot be appended to a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// It is a script, or for another class of machines.
    #[error("it is not a 64-bit little-endian ELF file")]
    NotElf,
    /// Its section headers are missing, or have another size.
    #[error(
        "it has no usable section headers: found {count} of {size} bytes at offset {offset}, \
         expected some of {HEADER} bytes behind the ELF header"
    )]
    NoSections {
        /// The field `e_shnum`.
        count: u16,
        /// The field `e_shentsize`.
        size: u16,
        /// The field `e_shoff`.
        offset: u64,
    },
    /// No section has the index of the one with the names.
    #[error("malformed ELF file: e_shstrndx is {index}, expected the index of one of its {count} sections")]
    NamesIndex {
        /// The field `e_shstrndx`.
        index: u16,
        /// The field `e_shnum`.
        count: u16,
    },
    /// A part of the file would begin or end behind its end.
    #[error(
        "malformed ELF file: {what} of {size} bytes at offset {offset} end behind the file's {length} bytes"
    )]
    PastEnd {
        /// The name of the part.
        what: &'static str,
        /// Its offset in bytes.
        offset: u64,
        /// Its length in bytes.
        size: u64,
        /// The file's length in bytes.
        length: u64,
    },
    /// The section names are longer than any linker makes them.
    #[error("malformed ELF file: its section names have {0} bytes, at most {MAX_NAMES} are read")]
    NamesTooLong(u64),
    /// It is signed.
    #[error("it is signed already: it has a section named {0}")]
    Present(String),
    /// There is no index for another section.
    #[error("it has {0} sections, at most {most} leave room for another", most = TOO_MANY - 1)]
    TooMany(u16),
}

/// The header of an ELF file.
#[derive(Debug, Clone)]
pub struct Header {
    bytes: [u8; HEADER],
    /// The file's length in bytes.
    length: u64,
    table: Range<u64>,
}

/// The sections of an ELF file.
#[derive(Debug, Clone)]
pub struct Sections {
    header: Header,
    /// All section headers.
    table: Vec<[u8; HEADER]>,
    /// The content of the section with the names.
    names: Vec<u8>,
}

/// How a file changes by an appended section.
#[derive(Debug, PartialEq, Eq)]
pub struct Extension {
    /// The new ELF header, in place of the old one.
    pub header: [u8; HEADER],
    /// The bytes to append. They begin with the new section's content, as zeros.
    pub tail: Vec<u8>,
}

impl Header {
    /// Reads the first bytes of a file of `length` bytes.
    pub fn parse(start: &[u8], length: u64) -> Result<Self, ElfError> {
        let bytes: [u8; HEADER] = *start.first_chunk().ok_or(ElfError::NotElf)?;
        // The magic number, then ELFCLASS64 and ELFDATA2LSB.
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err(ElfError::NotElf);
        }
        let (offset, size, count) =
            (u64_at(&bytes, E_SHOFF), u16_at(&bytes, E_SHENTSIZE), u16_at(&bytes, E_SHNUM));
        if offset == 0 || usize::from(size) != HEADER || count == 0 {
            return Err(ElfError::NoSections { count, size, offset });
        }
        let index = u16_at(&bytes, E_SHSTRNDX);
        if index == 0 || index >= count {
            return Err(ElfError::NamesIndex { index, count });
        }
        let table = within("section headers", offset, u64::from(count) * HEADER as u64, length)?;
        Ok(Self { bytes, length, table })
    }

    /// Returns where in the file its section headers are.
    pub fn table(&self) -> Range<u64> {
        self.table.clone()
    }

    /// Returns where in the file the names of its sections are. `table` has the bytes of
    /// [`Header::table`].
    pub fn names(&self, table: &[u8]) -> Result<Range<u64>, ElfError> {
        let index = usize::from(u16_at(&self.bytes, E_SHSTRNDX));
        let section = table.as_chunks().0.get(index).unwrap_or(&[0; HEADER]);
        let (offset, size) = (u64_at(section, SH_OFFSET), u64_at(section, SH_SIZE));
        let range = within("section names", offset, size, self.length)?;
        if size > MAX_NAMES { Err(ElfError::NamesTooLong(size)) } else { Ok(range) }
    }

    /// Completes the sections with the bytes of [`Header::table`] and [`Header::names`].
    pub fn with(self, table: &[u8], names: Vec<u8>) -> Sections {
        Sections { header: self, table: table.as_chunks().0.to_vec(), names }
    }
}

impl Sections {
    /// Returns the place of the first section named `name`, as its header has it: it may be behind
    /// the end of the file.
    pub fn find(&self, name: &str) -> Option<(u64, u64)> {
        let found = self.table.iter().find(|section| self.is_named(section, name))?;
        Some((u64_at(found, SH_OFFSET), u64_at(found, SH_SIZE)))
    }

    /// Compares one name without searching for its end, which hostile names put far away.
    fn is_named(&self, section: &[u8; HEADER], name: &str) -> bool {
        let at = usize::try_from(u32::from_le_bytes(field(section, SH_NAME))).ok();
        let rest = at.and_then(|at| self.names.get(at..)).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first().is_none_or(|next| *next == 0))
    }

    /// Appends a section of `size` bytes: its content, the names with the new one, and the section
    /// headers with the new one, all behind the end of the file. Nothing within the file moves, so
    /// its segments stay valid; the old names and headers stay as dead bytes.
    pub fn extend(self, name: &str, size: usize) -> Result<Extension, ElfError> {
        if self.find(name).is_some() {
            return Err(ElfError::Present(name.to_owned()));
        }
        let Self { header: Header { bytes: mut header, length, .. }, mut table, mut names } = self;
        let count = u16_at(&header, E_SHNUM);
        if count >= TOO_MANY {
            return Err(ElfError::TooMany(count));
        }
        let new_name = u32::try_from(names.len()).map_err(|_| ElfError::NamesTooLong(names.len() as u64))?;
        names.extend_from_slice(name.as_bytes());
        names.push(0);

        // The index is below the number of sections, and `table` has as many headers.
        let old_names = &mut table[usize::from(u16_at(&header, E_SHSTRNDX))];
        put(old_names, SH_OFFSET, (length + size as u64).to_le_bytes());
        put(old_names, SH_SIZE, (names.len() as u64).to_le_bytes());
        let mut section = [0; HEADER];
        put(&mut section, SH_NAME, new_name.to_le_bytes());
        put(&mut section, SH_TYPE, PROGBITS.to_le_bytes());
        put(&mut section, SH_OFFSET, length.to_le_bytes());
        put(&mut section, SH_SIZE, (size as u64).to_le_bytes());
        put(&mut section, SH_ADDRALIGN, 1_u64.to_le_bytes());
        table.push(section);

        let mut tail = vec![0; size];
        tail.append(&mut names);
        while !(length + tail.len() as u64).is_multiple_of(ALIGNMENT) {
            tail.push(0);
        }
        put(&mut header, E_SHOFF, (length + tail.len() as u64).to_le_bytes());
        put(&mut header, E_SHNUM, (count + 1).to_le_bytes());
        tail.extend_from_slice(table.as_flattened());
        Ok(Extension { header, tail })
    }
}

/// Returns a part of a file of `length` bytes.
fn within(what: &'static str, offset: u64, size: u64, length: u64) -> Result<Range<u64>, ElfError> {
    let end = offset.checked_add(size).filter(|end| *end <= length);
    end.map(|end| offset..end).ok_or(ElfError::PastEnd { what, offset, size, length })
}

fn field<const N: usize>(bytes: &[u8; HEADER], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn u16_at(bytes: &[u8; HEADER], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8; HEADER], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

fn put<const N: usize>(bytes: &mut [u8; HEADER], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
