//! Tells which characters a text may show as they are. Pure.

/// Whether a terminal or a page shows `c` in its place and does nothing else: letters, marks, numbers,
/// punctuation and symbols of every script, and the space U+0020. Not controls, format characters (such as
/// one that turns the direction of the text), other spaces, private use and what Unicode has not assigned.
// The standard library needs a table of these for `Debug`, but has no function for it. It escapes a mark
// only at the start of a text.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    let mut text = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

/// Controls, spaces, format characters, private use, and code points that Unicode has not assigned.
#[cfg(test)]
pub(crate) const UNPRINTABLE: [&str; 5] = [
    "\0\t\n\r\u{1b}\u{7f}\u{80}\u{85}\u{9f}",
    "\u{a0}\u{1680}\u{2000}\u{2003}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}",
    "\u{ad}\u{600}\u{61c}\u{180e}\u{200b}\u{200d}\u{200f}\u{202a}\u{202e}\u{2060}\u{2066}\u{feff}\u{fff9}\
     \u{e0001}\u{e0041}",
    "\u{e000}\u{f8ff}\u{f0000}\u{10fffd}",
    "\u{378}\u{fdd0}\u{ffff}\u{1fffe}\u{e0fff}\u{10ffff}",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_that_is_seen_is_printable() {
        for c in (' '..='~').chain("é漢ת\u{301}\u{20dd}\u{fe0f}٣Ⅷ½①—“»₿☃🦀\u{fffd}".chars())
        {
            assert!(is_printable(c), "{c:?}");
        }
    }

    #[test]
    fn character_that_is_not_seen_is_not_printable() {
        for c in UNPRINTABLE.concat().chars() {
            assert!(!is_printable(c), "{c:?}");
        }
    }
}
