//! The rule for a package's description (PSD-009 §3.3.7): one line that cannot upset a terminal or
//! a page.
//!
//! PSD-009 v0.22 allows printable ASCII only. The deployed tools also allow letters, marks, numbers,
//! punctuation and symbols of every script.

use crate::printable::is_printable;

/// A character that no description may have. `Display` is the end of a sentence that starts with
/// the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "has the character U+{code:04X}; allowed are letters, marks, numbers, punctuation, symbols and the space U+0020",
    code = u32::from(*.0)
)]
pub struct UnfitCharacter(pub char);

/// Checks a description, which may be empty.
///
/// # Errors
/// The first character that is not allowed.
pub fn check_description(text: &str) -> Result<(), UnfitCharacter> {
    text.chars().find(|character| !is_allowed(*character)).map_or(Ok(()), |unfit| Err(UnfitCharacter(unfit)))
}

fn is_allowed(character: char) -> bool {
    // U+FFFD is a symbol, but it stands for bytes that were not UTF-8.
    is_printable(character) && character != char::REPLACEMENT_CHARACTER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printable::UNPRINTABLE;

    #[test]
    fn description_of_any_script_is_allowed() {
        for good in [
            "",
            "A tool (small), with ~90% of C++ & <b>!",
            "A tool — for “everybody”, at 5 € and 漢字",
            "naïve Ωmega кот עברית नमस्ते ไทย 한글",
            "e\u{301} \u{20dd} \u{fe0f}",
            "٣ Ⅷ ½ ①",
            "‐–—‘’„«»、。…‽",
            "+×÷≠∞ $£¥₿ ^`¨ ©®°→☃🦀",
        ] {
            assert_eq!(check_description(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn description_with_another_character_is_refused() {
        for unfit in UNPRINTABLE.concat().chars().chain(['\u{fffd}']) {
            let text = format!("good{unfit} text");
            assert_eq!(check_description(&text), Err(UnfitCharacter(unfit)), "{text:?}");
        }
        let message = check_description("a\u{a0}b\u{202e}").unwrap_err().to_string();
        assert!(message.starts_with("has the character U+00A0; allowed are letters, "), "{message}");
        assert!(UnfitCharacter('\u{10fffd}').to_string().starts_with("has the character U+10FFFD;"));
    }
}
