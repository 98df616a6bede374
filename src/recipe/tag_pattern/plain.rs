//! Tag patterns of the simplest form, which most recipes have: `^v(\d+\.\d+\.\d+)$`. Pure.
//!
//! The engine takes some 5,000 instructions for each tag, and as much as three tags for the pattern. Here
//! a tag has one way to match at most, so there is nothing to search. A pattern has the form if it is
//! anchored at both ends, has one group, and is made of characters, `\d` and `\d+`. All others are the
//! engine's; for these the result is the engine's too.

/// A pattern of that form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlainPattern(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Literal(u8),
    /// `\d`
    Digit,
    /// `\d+`, which no digit may follow.
    Digits,
    /// Where the group begins.
    Open,
    /// Where the group ends.
    Close,
}

impl PlainPattern {
    /// Reads a pattern; `None` if it has another form, or is none.
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        let mut bytes = pattern.strip_prefix('^')?.strip_suffix('$')?.bytes().peekable();
        let (mut pieces, mut last, mut groups) = (Vec::new(), None, Vec::new());
        while let Some(byte) = bytes.next() {
            let piece = match byte {
                b'(' => Piece::Open,
                b')' => Piece::Close,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'/' => Piece::Literal(byte),
                b'\\' => match bytes.next()? {
                    b'd' if bytes.next_if_eq(&b'+').is_some() => Piece::Digits,
                    b'd' => Piece::Digit,
                    escaped @ (b'.' | b'-' | b'+') => Piece::Literal(escaped),
                    _ => return None,
                },
                _ => return None,
            };
            pieces.push(piece);
            if matches!(piece, Piece::Open | Piece::Close) {
                groups.push(piece);
            } else if last.replace(piece) == Some(Piece::Digits) && piece.may_be_digit() {
                return None;
            }
        }
        (groups == [Piece::Open, Piece::Close]).then_some(Self(pieces))
    }

    /// Returns what the group captures; `None` if the pattern does not match.
    pub(super) fn capture<'a>(&self, tag: &'a str) -> Option<&'a str> {
        let (mut rest, mut start, mut end) = (tag.as_bytes(), 0, 0);
        for piece in &self.0 {
            let digits = || rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let length = match piece {
                Piece::Literal(byte) => usize::from(rest.first() == Some(byte)),
                Piece::Digit => digits().min(1),
                Piece::Digits => digits(),
                Piece::Open => {
                    start = tag.len() - rest.len();
                    continue;
                }
                Piece::Close => {
                    end = tag.len() - rest.len();
                    continue;
                }
            };
            if length == 0 {
                return None;
            }
            rest = &rest[length..];
        }
        tag.get(start..end).filter(|_| rest.is_empty())
    }
}

impl Piece {
    fn may_be_digit(self) -> bool {
        match self {
            Self::Literal(byte) => byte.is_ascii_digit(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use regex_lite::Regex;

    use super::*;

    #[test]
    fn pattern_of_pieces_captures_what_the_engine_does() {
        let pieces = ["v", "-", "_", "/", "7", r"\.", r"\-", r"\+", r"\d", r"\d+", "(", ")", ""];
        let tags: Vec<String> =
            ["", "v", "7", "77", "v7", "v7.7", "v7-7", "7.7.7", "v7_77", "v.", "v+7", "\u{663}"]
                .iter()
                .flat_map(|tag| ["", "7", "1", "v", "\n", "/1", "-12"].map(|end| format!("{tag}{end}")))
                .collect();
        let (mut plain, mut matched) = (0, 0);
        for number in 0..pieces.len().pow(5) {
            let of = |at: u32| pieces[number / pieces.len().pow(at) % pieces.len()];
            let pattern = format!("^{}{}{}{}{}$", of(0), of(1), of(2), of(3), of(4));
            let Some(read) = PlainPattern::parse(&pattern) else { continue };
            plain += 1;
            let regex = Regex::new(&pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.captures_len(), 2, "{pattern}");
            // The engine is slow without optimisation.
            for tag in tags.iter().skip(number % 5).step_by(5) {
                let expected = regex.captures(tag).map(|found| found.get(1).unwrap().as_str());
                assert_eq!(read.capture(tag), expected, "{tag:?} against {pattern}");
                matched += usize::from(expected.is_some());
            }
        }
        assert!(plain > 1000 && matched > 100, "{plain} {matched}");
    }

    #[test]
    fn pattern_of_another_form_is_the_engines() {
        for pattern in [
            "",
            "^$",
            "v",
            "^v(1)",
            "v(1)$",
            "^v1$",
            "^(1)(2)$",
            "^((1))$",
            "^)1($",
            "^(1$",
            r"^v(\d+)\$",
            r"^(\d+\d)$",
            r"^(\d+)1$",
            r"^\d+(\d+)$",
            r"^(\d*)$",
            r"^(\d+?)$",
            r"^(\d++)$",
            r"^(\d{2})$",
            "^v+(1)$",
            "^v?(1)$",
            "^(1)?$",
            "^(?:v)(1)$",
            "^(?<major>1)$",
            "^(1|2)$",
            "^(.)$",
            "^([12])$",
            r"^(\w)$",
            r"^(\D)$",
            r"^(\\)$",
            "^^(1)$",
            "^(1)$$",
            "^(\u{e9})$",
            "^( )$",
            "^(1)\\$",
        ] {
            assert_eq!(PlainPattern::parse(pattern), None, "{pattern}");
        }
        for pattern in [r"^v(\d+\.\d+\.\d+)$", r"^(\d+)$", r"^release-(\d+\.\d)$", r"^v(\d)\d$", "^v()$"] {
            assert!(PlainPattern::parse(pattern).is_some(), "{pattern}");
        }
    }
}
