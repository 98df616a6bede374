//! Entries in compact form: with exactly the fields of PSD-009 §6.2.4 in its order, and without white
//! space or escapes, as the tools write them. Comparing the text between the values takes a
//! fraction of the time of a parser. Pure.
//!
//! Takes an entry only if `serde_json` would read the same from it; leaves all others to it.

use std::ops::Range;

use serde::de::IgnoredAny;

/// The fields of an entry in compact form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compact<'a> {
    /// The package's name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its architecture.
    pub architecture: &'a str,
    /// The length of the package file, in bytes.
    pub size_compressed: u64,
    /// The length of its files, in bytes.
    pub size_installed: u64,
    /// Its hash of algorithm `sha256`, unchecked.
    pub hash: &'a str,
    /// Where the file is, unchecked.
    pub url: &'a str,
    /// When the package was built, unchecked.
    pub built: &'a str,
}

/// A view of an entry: the fields that a caller needs. [`serde::Deserialize`] must read the same.
pub trait FromCompact<'a> {
    /// Takes the fields of an entry in compact form.
    fn from_compact(entry: Compact<'a>) -> Self;
}

/// The places of the fields of an entry in compact form, from its first byte.
pub(super) struct Shape {
    /// The length of the entry.
    pub(super) length: usize,
    name: Range<usize>,
    version: Range<usize>,
    architecture: Range<usize>,
    size_compressed: u64,
    size_installed: u64,
    hash: Range<usize>,
    url: Range<usize>,
    built: Range<usize>,
}

impl Shape {
    /// Returns the shape of the entry at the start of `bytes`, if all of it is there and compact.
    // Inline, so that the crate of a caller decides how this is optimised.
    #[inline]
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut at = Cursor { bytes, at: 0 };
        at.literal(b"{\"name\":\"")?;
        let name = at.text()?;
        at.literal(b",\"version\":\"")?;
        let version = at.text()?;
        at.literal(b",\"architecture\":\"")?;
        let architecture = at.text()?;
        at.literal(b",\"description\":\"")?;
        at.text()?;
        at.literal(b",\"license\":\"")?;
        at.text()?;
        at.literal(b",\"homepage\":\"")?;
        at.text()?;
        at.literal(b",\"dependencies\":[")?;
        at.list()?;
        at.literal(b",\"optional_dependencies\":[")?;
        at.list()?;
        at.literal(b",\"conflicts\":[")?;
        at.list()?;
        at.literal(b",\"provides\":[")?;
        at.list()?;
        at.literal(b",\"replaces\":[")?;
        at.list()?;
        at.literal(b",\"side_effects\":[")?;
        at.list()?;
        at.literal(b",\"size_compressed\":")?;
        let size_compressed = at.number()?;
        at.literal(b",\"size_installed\":")?;
        let size_installed = at.number()?;
        at.literal(b",\"hash\":{\"algorithm\":\"sha256\",\"value\":\"")?;
        let hash = at.text()?;
        at.literal(b"},\"url\":\"")?;
        let url = at.text()?;
        at.literal(b",\"build\":{\"timestamp\":\"")?;
        let built = at.text()?;
        at.literal(b",\"farm_id\":\"")?;
        at.text()?;
        at.literal(b"}}")?;
        let length = at.at;
        Some(Self { length, name, version, architecture, size_compressed, size_installed, hash, url, built })
    }

    /// Returns the fields of the entry `json`, which has this shape.
    #[inline]
    pub(super) fn compact(self, json: &str) -> Option<Compact<'_>> {
        Some(Compact {
            name: json.get(self.name)?,
            version: json.get(self.version)?,
            architecture: json.get(self.architecture)?,
            size_compressed: self.size_compressed,
            size_installed: self.size_installed,
            hash: json.get(self.hash)?,
            url: json.get(self.url)?,
            built: json.get(self.built)?,
        })
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Eight bytes with one bit each.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of eight bytes.
const HIGH: u64 = 0x80 * ONES;

impl Cursor<'_> {
    /// Passes exactly this text.
    #[inline]
    fn literal<const N: usize>(&mut self, text: &[u8; N]) -> Option<()> {
        let found: &[u8; N] = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        (found == text).then_some(())
    }

    /// Passes the rest of a string and its quote, and returns where its content is. Takes no string
    /// with an escape or a control character.
    #[inline]
    fn text(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        loop {
            // The bytes of a word whose highest bit is set are a quote, a backslash, or below a space.
            // A byte above such a one may be set wrongly, so only the lowest counts.
            let word = u64::from_le_bytes(*self.bytes.get(self.at..)?.first_chunk()?);
            let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
            let quote = is_zero(word ^ (u64::from(b'"') * ONES));
            let backslash = is_zero(word ^ (u64::from(b'\\') * ONES));
            let control = word.wrapping_sub(u64::from(b' ') * ONES) & !word;
            let found = (quote | backslash | control) & HIGH;
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                break;
            }
            self.at += 8;
        }
        let end = self.at;
        self.literal(b"\"").map(|()| start..end)
    }

    /// Passes a number without sign, fraction and exponent.
    #[inline]
    fn number(&mut self) -> Option<u64> {
        let digits = self.bytes.get(self.at..)?;
        let length = digits.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
        // A longer one may exceed the type, and no JSON number starts with a further zero.
        if length == 0 || length == 20 || length > 1 && digits[0] == b'0' {
            return None;
        }
        self.at += length;
        Some(digits[..length].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }

    /// Passes the rest of an array.
    #[inline]
    fn list(&mut self) -> Option<()> {
        let start = self.at;
        if *self.bytes.get(self.at)? == b']' {
            self.at += 1;
            return Some(());
        }
        if self.relations().is_some() {
            return Some(());
        }
        // With the bracket before.
        let list = &self.bytes[start - 1..];
        let mut values = serde_json::Deserializer::from_slice(list).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        self.at = start - 1 + values.byte_offset();
        Some(())
    }

    /// Passes objects whose fields are all strings, as relations to other packages are, up to the end
    /// of the array.
    #[inline]
    fn relations(&mut self) -> Option<()> {
        loop {
            self.literal(b"{\"")?;
            loop {
                self.text()?;
                self.literal(b":\"")?;
                self.text()?;
                match self.bytes.get(self.at..)?.first_chunk()? {
                    b",\"" => self.at += 2,
                    b"}," => break,
                    b"}]" => {
                        self.at += 2;
                        return Some(());
                    }
                    _ => return None,
                }
            }
            self.at += 2;
        }
    }
}
