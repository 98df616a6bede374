//! Tag patterns: which tags of an upstream are versions, and the version in each tag.
//!
//! Pure. A pattern is a regular expression as in RE2: leftmost-first, linear in time, found anywhere
//! in the tag unless anchored, with ASCII `\d`, `\w`, `\s` and `\b`. The engine is `regex-lite`. It
//! also has the POSIX classes (`[[:alpha:]]`), flags (`(?i)`), lazy repetition, `\A` and `\z`,
//! `(?:…)`, and both `(?P<name>…)` and `(?<name>…)`. It refuses the rest of RE2 and gives none of it
//! another meaning: Unicode classes (`\pL`), quoting (`\Q…\E`), octal escapes, `\<`, and a bare `{` or,
//! inside a class, a bare `[` as a literal. `(?i)` folds ASCII letters only.

mod plain;

use plain::PlainPattern;
use regex_lite::Regex;

/// The named groups, and whether a pattern with named groups must have them.
const NAMED_GROUPS: [(&str, bool); 4] =
    [("major", true), ("minor", true), ("patch", false), ("prerelease", false)];

/// A pattern for the tags of one upstream. It holds the text only: compiled, it would be many times as
/// large, and most listings show the tags of the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPattern {
    text: Box<str>,
    groups: Groups,
}

/// A compiled [`TagPattern`].
#[derive(Debug)]
pub struct TagMatcher(Compiled);

#[derive(Debug)]
enum Compiled {
    Plain(PlainPattern),
    Regex(Regex, Groups),
}

/// How to compose the version from the captured groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Groups {
    /// The first, unnamed group is the version.
    First,
    /// `<major>.<minor>[.<patch>][-<prerelease>]`.
    Named,
}

/// Why a string cannot serve as a tag pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagPatternError {
    /// It is not a regular expression.
    #[error("{pattern:?} is not a regular expression: {reason}")]
    Syntax {
        /// The pattern.
        pattern: String,
        /// The engine's error, or the escape sequence that is not supported.
        reason: String,
    },
    /// It has no capture group.
    #[error("{0:?} has no capture group, one pair of parentheses must enclose the version")]
    NoGroup(String),
    /// It has both named and unnamed groups.
    #[error("{0:?} mixes named and unnamed groups, write (?:…) for the groups that capture nothing")]
    Mixed(String),
    /// It has a named group without a meaning.
    #[error("{pattern:?} has an unknown group {group:?}, known are major, minor, patch and prerelease")]
    UnknownGroup {
        /// The pattern.
        pattern: String,
        /// The group's name.
        group: String,
    },
    /// It lacks a named group that the version needs.
    #[error("{pattern:?} has named groups but none named {group:?}, major and minor are needed")]
    MissingGroup {
        /// The pattern.
        pattern: String,
        /// The missing group's name.
        group: &'static str,
    },
}

impl TagPattern {
    /// Checks a pattern. Returns a warning too if it works, but perhaps not as its author expects.
    ///
    /// # Errors
    /// If `pattern` is not a regular expression, or its groups make no version.
    pub fn parse(pattern: &str) -> Result<(Self, Option<String>), TagPatternError> {
        if PlainPattern::parse(pattern).is_some() {
            return Ok((Self { text: pattern.into(), groups: Groups::First }, None));
        }
        let syntax = |reason| TagPatternError::Syntax { pattern: pattern.to_owned(), reason };
        if let Some(escape) = unsupported_escape(pattern) {
            return Err(syntax(format!("the escape \\{} is not supported", escape.escape_debug())));
        }
        let regex = Regex::new(pattern).map_err(|error| syntax(error.to_string()))?;
        // The first name belongs to the whole match.
        let all: Vec<Option<&str>> = regex.capture_names().skip(1).collect();
        let named: Vec<&str> = all.iter().copied().flatten().collect();
        let (groups, warning) = match (all.len(), named.len()) {
            (0, _) => return Err(TagPatternError::NoGroup(pattern.to_owned())),
            (1, 0) => (Groups::First, None),
            (count, 0) => (Groups::First, Some(too_many(pattern, count))),
            (count, with_name) if count == with_name => {
                check_names(pattern, &named)?;
                (Groups::Named, None)
            }
            _ => return Err(TagPatternError::Mixed(pattern.to_owned())),
        };
        Ok((Self { text: pattern.into(), groups }, warning))
    }

    /// Compiles the pattern.
    #[allow(clippy::missing_panics_doc, reason = "it cannot panic")]
    pub fn matcher(&self) -> TagMatcher {
        TagMatcher(match PlainPattern::parse(&self.text) {
            Some(plain) => Compiled::Plain(plain),
            // `parse` has compiled the same text.
            None => Compiled::Regex(Regex::new(&self.text).unwrap(), self.groups),
        })
    }

    /// Returns the pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TagMatcher {
    /// Returns the version in a tag, or none if the pattern does not match or a group that the
    /// version needs captured nothing.
    pub fn capture(&self, tag: &str) -> Option<String> {
        let (regex, groups) = match &self.0 {
            Compiled::Plain(plain) => {
                return plain.capture(tag).filter(|text| !text.is_empty()).map(str::to_owned);
            }
            Compiled::Regex(regex, groups) => (regex, *groups),
        };
        let captures = regex.captures(tag)?;
        let text = |found: Option<regex_lite::Match<'_>>| {
            found.map(|found| found.as_str().to_owned()).filter(|text| !text.is_empty())
        };
        if groups == Groups::First {
            return text(captures.get(1));
        }
        let group = |name| text(captures.name(name));
        let mut version = format!("{}.{}", group("major")?, group("minor")?);
        for (separator, part) in [('.', group("patch")), ('-', group("prerelease"))] {
            if let Some(part) = part {
                version.push(separator);
                version.push_str(&part);
            }
        }
        Some(version)
    }
}

/// Checks that all named groups are known and suffice for a version. The engine itself refuses
/// duplicates.
fn check_names(pattern: &str, named: &[&str]) -> Result<(), TagPatternError> {
    let known = |name: &str| NAMED_GROUPS.iter().any(|(known, _)| *known == name);
    if let Some(unknown) = named.iter().find(|name| !known(name)) {
        let group = (*unknown).to_owned();
        return Err(TagPatternError::UnknownGroup { pattern: pattern.to_owned(), group });
    }
    match NAMED_GROUPS.iter().find(|(name, needed)| *needed && !named.contains(name)) {
        Some((group, _)) => Err(TagPatternError::MissingGroup { pattern: pattern.to_owned(), group }),
        None => Ok(()),
    }
}

fn too_many(pattern: &str, count: usize) -> String {
    format!(
        "{pattern:?} has {count} capture groups and only the first counts, \
         write (?:…) for the groups that capture nothing"
    )
}

/// Returns the character of the first escape sequence to refuse. The engine does not support most of these,
/// and its error does not name them. It takes `\<` and `\>` for the bounds of a word; in RE2 they are characters.
fn unsupported_escape(pattern: &str) -> Option<char> {
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character == '\\' {
            let escaped = characters.next()?;
            let is_special =
                !escaped.is_ascii() || matches!(escaped, '0'..='9' | '<' | '>' | 'A'..='Z' | 'a'..='z');
            if is_special && !"dDsSwWbBAzafnrtvxuU".contains(escaped) {
                return Some(escaped);
            }
        }
    }
    None
}

/// Warns of an entry of `exclude` that excludes nothing, whatever tags the upstream has.
pub(super) fn useless_exclusion(tag: &str, tag_pattern: Option<&TagMatcher>) -> Option<String> {
    // git refuses tags with one of these characters.
    if let Some(glob) = tag.chars().find(|c| matches!(c, '*' | '?' | '[')) {
        return Some(format!(
            "[upstream] exclude: {tag:?} excludes nothing, no tag has {glob:?}; \
             patterns are not read, write each tag in full"
        ));
    }
    let is_foreign = tag_pattern.is_some_and(|pattern| pattern.capture(tag).is_none());
    is_foreign.then(|| {
        format!(
            "[upstream] exclude: {tag:?} excludes nothing, tag_pattern does not match it; \
             write the tag, not the version"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, tag: &str, expected: Option<&str>) {
        let (parsed, _) = TagPattern::parse(pattern).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parsed.as_str(), pattern);
        assert_eq!(parsed.matcher().capture(tag).as_deref(), expected, "{tag} against {pattern}");
    }

    #[track_caller]
    fn check_error(pattern: &str, expected: &str) {
        let error = TagPattern::parse(pattern).expect_err(pattern).to_string();
        assert_eq!(error, format!("{pattern:?} {expected}"));
    }

    #[test]
    fn group_unnamed_gives_the_version() {
        check(r"^v(\d+\.\d+\.\d+)$", "v1.3.2", Some("1.3.2"));
        check(r"^v(\d+\.\d+\.\d+)$", "v1.3.2-rc.1", None);
        check(r"^v(\d+\.\d+\.\d+)$", "release-1.3.2", None);
        check(r"^v(\d+\.\d+\.\d+)$", "v1.3.\u{663}", None);
        check(r"v(\d+)", "release-v7-final", Some("7"));
        check(r"^v(\d+(?:\.\d+)*(?:-rc\d+)?)$", "v1.2-rc3", Some("1.2-rc3"));
        check(r"^(?:jq-)?(\d+)$", "jq-7", Some("7"));
        check(r"^(.*)$", "../../x", Some("../../x"));
        check(r"^(.*)$", "v\u{e9}", Some("v\u{e9}"));
    }

    #[test]
    fn pattern_has_the_dialect_of_re2() {
        check(r"(a|ab)", "ab", Some("a"));
        check(r"(?i)^V([[:digit:]]+)\z", "v12", Some("12"));
        check(r"\Av(\d+?)\d*$", "v123", Some("1"));
        check(r"^v(\d{1,2})$", "v123", None);
        check(r"^v(\d+)$", "v1\n", None);
        check(r"^v([\w.+-]+)$", "v1.0+x_y", Some("1.0+x_y"));
    }

    #[test]
    fn group_capturing_nothing_gives_no_version() {
        check(r"^v(\d*)$", "v", None);
        check(r"^v(?:(\d+)|next)$", "vnext", None);
        check(r"^v(?P<major>\d*)\.(?P<minor>\d+)$", "v.1", None);
    }

    #[test]
    fn groups_named_give_the_version() {
        let pattern = r"^v(?P<major>\d+)_(?P<minor>\d+)(?:_(?P<patch>\d+))?(?:[-_](?P<prerelease>rc\d*))?$";
        check(pattern, "v1_2", Some("1.2"));
        check(pattern, "v1_2_3", Some("1.2.3"));
        check(pattern, "v1_2_3-rc1", Some("1.2.3-rc1"));
        check(pattern, "v1_2-rc1", Some("1.2-rc1"));
        check(pattern, "v1", None);
        check(r"^(?<minor>\d+) of (?<major>\d+)$", "4 of 5", Some("5.4"));
        check(r"^(?<major>\d+)\.(?<minor>\d+)\.?(?<patch>\d*)$", "5.4", Some("5.4"));
    }

    #[test]
    fn groups_several_count_the_first_with_a_warning() {
        check(r"^v(\d+)\.(\d+)$", "v1.2", Some("1"));
        let warning = |pattern| TagPattern::parse(pattern).unwrap().1;
        assert_eq!(warning(r"^v(\d+)(?:x)$"), None);
        assert_eq!(warning(r"^(?<major>\d)(?<minor>\d)$"), None);
        assert_eq!(
            warning(r"^((\d)(\d))$").unwrap(),
            "\"^((\\\\d)(\\\\d))$\" has 3 capture groups and only the first counts, \
             write (?:…) for the groups that capture nothing"
        );
    }

    #[test]
    fn patterns_malformed_are_refused() {
        check_error("", "has no capture group, one pair of parentheses must enclose the version");
        check_error("^v1$", "has no capture group, one pair of parentheses must enclose the version");
        check_error("^(?:v1)$", "has no capture group, one pair of parentheses must enclose the version");
        check_error(
            "(?<major>1)(?<minor>2)(3)",
            "mixes named and unnamed groups, write (?:…) for the groups that capture nothing",
        );
        check_error(
            "(?<major>1)(?<minor>2)(?P<micro>3)",
            "has an unknown group \"micro\", known are major, minor, patch and prerelease",
        );
        check_error("(?<major>1)", "has named groups but none named \"minor\", major and minor are needed");
        check_error(
            "(?<minor>1)(?<patch>1)",
            "has named groups but none named \"major\", major and minor are needed",
        );
        check_error("(?<major>1)(?<major>2)", "is not a regular expression: duplicate capture group name");
        check_error("^v(", "is not a regular expression: found open group without closing ')'");
        check_error(r"^v(\pL)", "is not a regular expression: the escape \\p is not supported");
        check_error(r"\\(\Q.\E)", "is not a regular expression: the escape \\Q is not supported");
        check_error(r"^(v\<1\>)$", "is not a regular expression: the escape \\< is not supported");
        check_error(r"(a)\1", "is not a regular expression: the escape \\1 is not supported");
        check_error(r"(a){", "is not a regular expression: found unclosed counted repetition operator");
        check_error(r"(?=a)(b)", "is not a regular expression: look-around is not supported");
        check_error(r"([[])", "is not a regular expression: nested character classes are not supported");
        check_error(
            r"(*)",
            "is not a regular expression: uncounted repetition operator must be applied to a sub-expression",
        );
        check_error(r"(a{,3})", "is not a regular expression: expected decimal number, but found no digits");
    }
}
