//! Package versions: grammar and order (PSD-009 §2.2, §9.3). Pure.
//!
//! [`Version`] does not implement `Ord`. The specification's order treats aliases such as
//! `1.0~alpha-1` and `1.0~a-1` as equal, but their texts differ, and so they are different
//! packages. `Eq` compares texts, [`Version::compare`] is the specification's order.

mod order;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

pub use order::newest_first;

/// A whole package version, `[<epoch>:]<upstream>-<peios_revision>`.
///
/// It is small: an upstream decides how many versions wait for their build.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    text: Box<str>,
    /// Start and end of the upstream version in `text`, which has at most [`Version::MAX_LEN`]
    /// bytes.
    upstream: (u8, u8),
}

/// Why a string is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Longer than [`Version::MAX_LEN`].
    #[error("version is {0} bytes long, at most {max} fit into a file name", max = Version::MAX_LEN)]
    TooLong(usize),
    /// The epoch is not a canonical decimal number.
    #[error("epoch {0:?} is not a decimal number without leading zeros")]
    Epoch(String),
    /// There is no `-<revision>` at the end, or it is not a positive canonical number.
    #[error("{0:?} does not end in -<revision>, a positive number without leading zeros")]
    Revision(String),
    /// The upstream part is empty or starts with neither a digit nor a letter.
    #[error("upstream version {0:?} does not start with an ASCII digit or letter")]
    Start(String),
    /// The upstream part has a character outside the allowed set.
    #[error("upstream version {0:?} has {1:?}, allowed are ASCII letters, digits and . + - ~")]
    Character(String, char),
}

impl Version {
    /// The longest accepted version, in bytes: with a name of 64 bytes and an architecture, it
    /// still fits into a file name of 255 bytes.
    pub const MAX_LEN: usize = 128;

    /// Returns the version as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the part between epoch and revision.
    pub fn upstream(&self) -> &str {
        &self.text[usize::from(self.upstream.0)..usize::from(self.upstream.1)]
    }

    /// Compares by PSD-009 §2.2.6: epoch, upstream version, revision. Sort by
    /// [`Version::sort_cmp`] instead.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.compare_upstream(other).then_with(|| self.revision().cmp(&other.revision()))
    }

    /// Compares for sorting: like [`Version::compare`], but without its cycles. The specification
    /// has `1~r` < `1` < `1+git` < `1~r`, because it compares words by their letters even if only
    /// one of them is a pre-release. Here, the pre-release is older. A standard sort by an order
    /// with cycles has no defined result and may panic.
    pub fn sort_cmp(&self, other: &Self) -> Ordering {
        let upstream = || sort_segments(self.upstream(), other.upstream());
        self.epoch()
            .cmp(&other.epoch())
            .then_with(upstream)
            .then_with(|| self.revision().cmp(&other.revision()))
    }

    fn epoch(&self) -> u64 {
        // Without an epoch, the upstream version comes first.
        self.upstream.0.checked_sub(1).map_or(0, |colon| parsed(&self.text[..usize::from(colon)]))
    }

    fn revision(&self) -> u64 {
        parsed(&self.text[usize::from(self.upstream.1) + 1..])
    }

    /// Compares like [`Version::compare`], without the revision.
    pub fn compare_upstream(&self, other: &Self) -> Ordering {
        let upstream = || compare_segments(self.upstream(), other.upstream());
        self.epoch().cmp(&other.epoch()).then_with(upstream)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    /// Parses by PSD-009 §2.2.5.
    #[inline]
    fn from_str(text: &str) -> Result<Self, VersionError> {
        Ok(Self { upstream: Self::place_of_upstream(text)?, text: text.into() })
    }
}

impl Version {
    /// Checks a version, as parsing does, without keeping it.
    ///
    /// # Errors
    /// If `text` is not a version.
    pub fn check(text: &str) -> Result<(), VersionError> {
        Self::place_of_upstream(text).map(drop)
    }

    /// Finds start and end of the upstream version in a version.
    fn place_of_upstream(text: &str) -> Result<(u8, u8), VersionError> {
        if text.len() > Self::MAX_LEN {
            return Err(VersionError::TooLong(text.len()));
        }
        // Bytes: searching for characters takes several times as long, for each version of a listing.
        let start = match text.bytes().position(|byte| byte == b':') {
            Some(colon) => {
                canonical_number(&text[..colon]).ok_or_else(|| VersionError::Epoch(text[..colon].into()))?;
                colon + 1
            }
            None => 0,
        };
        let remainder = &text[start..];
        let has_revision = |hyphen: &usize| canonical_number(&remainder[hyphen + 1..]).is_some_and(|n| n > 0);
        let hyphen = remainder.bytes().rposition(|byte| byte == b'-').filter(has_revision);
        let upstream = &remainder[..hyphen.ok_or_else(|| VersionError::Revision(text.into()))?];
        if !upstream.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) {
            return Err(VersionError::Start(upstream.into()));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'~');
        if let Some(at) = upstream.bytes().position(|byte| !allowed(byte)) {
            // All before it are ASCII.
            let bad = upstream[at..].chars().next().unwrap_or_default();
            return Err(VersionError::Character(upstream.into(), bad));
        }
        let place = |at| u8::try_from(at).map_err(|_| VersionError::TooLong(text.len()));
        Ok((place(start)?, place(start + upstream.len())?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a number that [`canonical_number`] has accepted.
fn parsed(digits: &str) -> u64 {
    digits.parse().unwrap_or_default()
}

/// Reads ASCII decimal digits without leading zeros.
#[inline]
fn canonical_number(digits: &str) -> Option<u64> {
    let canonical = digits == "0" || !digits.starts_with('0');
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && all_digits).then(|| digits.parse().ok()).flatten()
}

/// A segment of an upstream version (PSD-009 §2.2.7.1).
#[derive(Debug, PartialEq, Eq)]
enum Segment<'a> {
    /// A run of digits, without its leading zeros.
    Number(&'a str),
    /// A run of letters.
    Word { text: &'a str, pre_release: bool },
}

/// The rank of a word that is not a pre-release token.
const ORDINARY_WORD: u8 = 5;

/// Returns the pre-release rank of a word (PSD-009 §2.2.7.2).
fn rank(word: &str) -> u8 {
    const RANKS: [(&str, u8); 7] =
        [("dev", 0), ("alpha", 1), ("a", 1), ("beta", 2), ("b", 2), ("pre", 3), ("rc", 4)];
    let known = RANKS.iter().find(|(token, _)| word.eq_ignore_ascii_case(token));
    known.map_or(ORDINARY_WORD, |(_, rank)| *rank)
}

/// The segments of an upstream version. From a tilde or a pre-release token to the next hyphen, words
/// are pre-release.
struct Segments<'a> {
    rest: &'a str,
    pre_release: bool,
}

fn segments(upstream: &str) -> Segments<'_> {
    Segments { rest: upstream, pre_release: false }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        while let Some(first) = self.rest.bytes().next() {
            let same_kind = |byte: &u8| match first {
                b'0'..=b'9' => byte.is_ascii_digit(),
                _ => byte.is_ascii_alphabetic(),
            };
            let length = self.rest.bytes().take_while(same_kind).count().max(1);
            let (text, tail) = self.rest.split_at(length);
            self.rest = tail;
            match first {
                b'0'..=b'9' => return Some(Segment::Number(text.trim_start_matches('0'))),
                b'~' => self.pre_release = true,
                b'-' => self.pre_release = false,
                _ if first.is_ascii_alphabetic() => {
                    self.pre_release |= rank(text) < ORDINARY_WORD;
                    return Some(Segment::Word { text, pre_release: self.pre_release });
                }
                _ => {}
            }
        }
        None
    }
}

fn compare_segments(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (segments(a), segments(b));
    // PSD-009 §2.2.7.4: a further segment makes a version newer unless it is a pre-release word.
    let longer_is = |extra: &Segment<'_>| match extra {
        Segment::Word { pre_release: true, .. } => Ordering::Less,
        _ => Ordering::Greater,
    };
    loop {
        let order = match (a.next(), b.next()) {
            (Some(a), Some(b)) => compare_pair(&a, &b),
            (Some(extra), None) => return longer_is(&extra),
            (None, Some(extra)) => return longer_is(&extra).reverse(),
            (None, None) => return Ordering::Equal,
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn compare_pair(a: &Segment<'_>, b: &Segment<'_>) -> Ordering {
    match (a, b) {
        // Without leading zeros, the longer number is greater. Parsing could overflow.
        (Segment::Number(a), Segment::Number(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        (Segment::Word { text: a, .. }, Segment::Word { text: b, .. }) => {
            let by_rank = rank(a).cmp(&rank(b));
            if rank(a) == ORDINARY_WORD { by_rank.then_with(|| a.cmp(b)) } else { by_rank }
        }
        (Segment::Number(_), Segment::Word { pre_release, .. }) => {
            if *pre_release {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (Segment::Word { .. }, Segment::Number(_)) => compare_pair(b, a).reverse(),
    }
}

fn sort_segments(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (segments(a), segments(b));
    loop {
        let (a, b) = (a.next(), b.next());
        let order = sort_key(a.as_ref()).cmp(&sort_key(b.as_ref()));
        if order.is_ne() || a.is_none() && b.is_none() {
            return order;
        }
    }
}

/// Returns the rank of a segment, or of the end of a version, among all that may come at its place.
fn sort_key<'a>(segment: Option<&Segment<'a>>) -> (u8, u8, usize, &'a str) {
    match segment {
        // Known words of one rank are the same word.
        Some(Segment::Word { text, pre_release: true }) => match rank(text) {
            ORDINARY_WORD => (0, ORDINARY_WORD, 0, text),
            rank => (0, rank, 0, ""),
        },
        None => (1, 0, 0, ""),
        Some(Segment::Number(digits)) => (2, 0, digits.len(), digits),
        Some(Segment::Word { text, pre_release: false }) => (3, 0, 0, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks both orders in both directions.
    #[track_caller]
    fn check(a: &str, expected: Ordering, b: &str) {
        let parse = |text: &str| -> Version { text.parse().unwrap() };
        assert_eq!(parse(a).compare(&parse(b)), expected, "{a} against {b}");
        assert_eq!(parse(b).compare(&parse(a)), expected.reverse(), "{b} against {a}");
        assert_eq!(parse(a).sort_cmp(&parse(b)), expected, "{a} against {b}, sorted");
    }

    #[test]
    fn order_of_the_specifications_examples_holds() {
        use Ordering::{Equal, Greater, Less};
        // PSD-009 §9.3, with the revision that its examples leave out.
        check("1.0-1", Equal, "1.0-1");
        check("1.0-1", Less, "2.0-1");
        check("1.10-1", Greater, "1.9-1");
        check("1.0-1", Less, "1.0.1-1");
        check("1.0-1", Greater, "1.0-rc.1-1");
        check("1.0-rc.1-1", Less, "1.0-rc.2-1");
        check("1.0-alpha-1", Less, "1.0-beta-1");
        check("1.0-rc-1", Greater, "1.0-pre-1");
        check("1.0a1-1", Less, "1.0a2-1");
        check("1.0a1-1", Less, "1.0b1-1");
        check("1.0~rc1-1", Less, "1.0-1");
        check("0:1.0-1", Less, "1:0.5-1");
        check("1.0-1", Less, "1.0-2");
        check("1.0-foo-1", Greater, "1.0-1");
        // §2.2.7: aliases and the end-of-string table.
        check("1.0~alpha-1", Equal, "1.0~a-1");
        check("1.0~beta-1", Equal, "1.0~b-1");
        check("1.0~Alpha-1", Equal, "1.0~ALPHA-1");
        check("1.0-foo-1", Less, "1.0-zzz-1");
        check("1.0-1", Greater, "1.0.alpha-1");
        check("1.0-1", Greater, "1.0a-1");
    }

    #[test]
    fn order_of_corner_cases_holds() {
        use Ordering::{Equal, Greater, Less};
        check("1.007-1", Equal, "1.7-1");
        check("1.0-1", Equal, "1-0-1");
        check("1.99999999999999999999999999-1", Less, "1.100000000000000000000000000-1");
        check("1.0~foo-1", Less, "1.0-1");
        check("1.0.foo-1", Greater, "1.0.1-1");
        check("1.0~foo-1", Less, "1.0~1-1");
        check("1.0-rc.foo-1", Less, "1.0-rc-1");
        check("1.0-rc-foo-1", Greater, "1.0-rc-1");
        check("1.0~1-1", Greater, "1.0-1");
        check("1.0-rc.10-1", Greater, "1.0-rc.9-1");
        check("16beta1-1", Less, "16-1");
        check("2.0-2", Greater, "1.0-10");
    }

    #[test]
    fn sort_of_a_circular_order_is_stable() {
        let sorted: Vec<Version> =
            ["1rc.r-1", "1rc-1", "1rc-git-1", "1~git-1", "1~r-1", "1-1", "1+git-1", "1+r-1"]
                .map(|text| text.parse().unwrap())
                .to_vec();
        for (place, one) in sorted.iter().enumerate() {
            for (other_place, other) in sorted.iter().enumerate() {
                assert_eq!(one.sort_cmp(other), place.cmp(&other_place), "{one} against {other}");
            }
        }
        let [lower, middle, upper] = ["1~r-1", "1-1", "1+git-1"].map(|text| text.parse::<Version>().unwrap());
        assert!(
            lower.compare(&middle).is_lt() && middle.compare(&upper).is_lt() && upper.compare(&lower).is_lt()
        );
    }

    #[test]
    fn version_is_split_into_its_parts() {
        let version: Version = "2:1.26.2-rc.1-10".parse().unwrap();
        assert_eq!((version.epoch(), version.upstream(), version.revision()), (2, "1.26.2-rc.1", 10));
        assert_eq!(version.to_string(), "2:1.26.2-rc.1-10");
    }

    #[test]
    fn version_malformed_is_refused() {
        let long = format!("1.{}-1", "0".repeat(300));
        for bad in [
            "",
            "1.0",
            "-1",
            "1.0-",
            "1.0-0",
            "1.0-01",
            "1.0-x",
            "1.0-+1",
            "01:1.0-1",
            ":1.0-1",
            "x:1-1",
            "1:2:3-1",
            ".1-1",
            "~1-1",
            "--help-1",
            "../../x-1",
            "1.0 -1",
            "1_0-1",
            "1.0\n-1",
            "é-1",
            "1.é-1",
            "1.0-18446744073709551616",
            &long,
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?} is accepted");
        }
        let error = "1/0-1".parse::<Version>().unwrap_err().to_string();
        assert_eq!(error, "upstream version \"1/0\" has '/', allowed are ASCII letters, digits and . + - ~");
    }
}
