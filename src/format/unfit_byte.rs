//! Finds the byte that makes a secret or a key useless although it looks right in an editor. Pure.
//!
//! An editor may save a byte order mark, and a careless script a NUL or a carriage return. The
//! program that checks the secret on the other side has none, so nothing ever matches.

use std::fmt;

/// A byte that does not belong into a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnfitByte {
    /// Its place, counted from 1.
    position: usize,
    byte: u8,
    is_mark: bool,
}

impl UnfitByte {
    /// Whether it begins a byte order mark.
    pub fn is_mark(&self) -> bool {
        self.is_mark
    }

    /// Finds the first byte of a byte order mark or control character, other than those in
    /// `allowed`. Bytes that are not UTF-8 are no control characters.
    pub fn find(bytes: &[u8], allowed: &[u8]) -> Option<Self> {
        let at = |index: usize, is_mark| Some(Self { position: index + 1, byte: bytes[index], is_mark });
        // UTF-16, in either order.
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return at(0, true);
        }
        let mut index = 0;
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '\u{feff}' {
                    return at(index, true);
                }
                if c.is_control() && !u8::try_from(c).is_ok_and(|c| allowed.contains(&c)) {
                    return at(index, false);
                }
                index += c.len_utf8();
            }
            index += chunk.invalid().len();
        }
        None
    }
}

impl fmt::Display for UnfitByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.is_mark, self.byte) {
            (true, _) => "begins a byte order mark",
            (false, 0) => "is NUL",
            (false, _) => "is of a control character",
        };
        write!(f, "byte {} (0x{:02x}) {what}, save the file without it", self.position, self.byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<&str>) {
        let found = UnfitByte::find(bytes, b"\n").map(|byte| byte.to_string());
        let expected = expected.map(|text| format!("{text}, save the file without it"));
        assert_eq!(found, expected, "{bytes:?}");
    }

    #[test]
    fn byte_unfit_for_a_text_is_named() {
        for good in [&b""[..], b"s3cret", b"two\nlines", "gr\u{fc}n".as_bytes(), b"\x80\xff", b" ~"] {
            check(good, None);
        }
        check(b"\xef\xbb\xbfs3cret", Some("byte 1 (0xef) begins a byte order mark"));
        check("a\u{feff}".as_bytes(), Some("byte 2 (0xef) begins a byte order mark"));
        check(b"\xff\xfes\0", Some("byte 1 (0xff) begins a byte order mark"));
        check(b"\xfe\xff\0s", Some("byte 1 (0xfe) begins a byte order mark"));
        check(b"s3cret\0", Some("byte 7 (0x00) is NUL"));
        check(b"\xffa\r\nb", Some("byte 3 (0x0d) is of a control character"));
        check(b"a\tb", Some("byte 2 (0x09) is of a control character"));
        check(b"a\x7f", Some("byte 2 (0x7f) is of a control character"));
        check("\u{85}".as_bytes(), Some("byte 1 (0xc2) is of a control character"));
    }
}
