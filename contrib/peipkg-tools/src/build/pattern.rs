//! The patterns by which a stanza claims staged paths: doublestar globs relative to `$DESTDIR`
//! (PSD-009 appendix A.2). Pure.
//!
//! `*`, `?` and classes match characters of one component. A component `**` matches any number of
//! components, also none; elsewhere `**` is the same as `*`. Braces hold alternatives, which may
//! contain slashes and patterns. A backslash makes the next character stand for itself.

/// Most combinations of alternatives of one pattern. A few groups of braces give a dozen; without
/// the cap, forty groups would fill the memory.
const MAX_ALTERNATIVES: usize = 1000;

/// A pattern of a stanza's `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The components of each combination of alternatives.
    alternatives: Vec<Vec<Component>>,
    of_directories: bool,
}

/// Matches path components.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// Matches any number of components.
    Any,
    /// Matches this component.
    Text(String),
    /// Matches a component, character by character.
    Glob(Vec<Token>),
}

/// Matches characters of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Matches any number of characters.
    Star,
    /// Matches any one character.
    Any,
    /// Matches this character.
    Char(char),
    /// Matches a character in one of the ranges or, if negated, in none.
    Class { ranges: Vec<(char, char)>, negated: bool },
}

impl Pattern {
    /// Reads a pattern. A pattern that ends in a slash claims directories; any other claims files
    /// and symbolic links.
    ///
    /// # Errors
    /// The problem, as the end of a sentence that starts with the pattern.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (glob, of_directories) = match text.strip_suffix('/') {
            Some(glob) => (glob, true),
            None => (text, false),
        };
        if glob.is_empty() {
            return Err("is empty");
        }
        if glob.starts_with('/') {
            return Err("starts with a slash; patterns are relative to $DESTDIR");
        }
        let parse = |glob: String| glob.split('/').map(Component::parse).collect();
        let alternatives = expand(glob)?.into_iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { alternatives, of_directories })
    }

    /// Whether the pattern claims `path`, given without a trailing slash.
    pub fn claims(&self, path: &str, is_directory: bool) -> bool {
        if self.of_directories != is_directory {
            return false;
        }
        let path: Vec<&str> = path.split('/').collect();
        let is_any = |component: &Component| *component == Component::Any;
        let is_one = |component: &Component, name: &&str| component.matches(name);
        self.alternatives.iter().any(|components| matches(components, &path, is_any, is_one))
    }
}

impl Component {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if matches!(text, "" | "." | "..") {
            return Err("has an empty, '.' or '..' component");
        }
        if text == "**" {
            return Ok(Self::Any);
        }
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            tokens.push(match character {
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => read_class(&mut rest)?,
                '\\' => Token::Char(rest.next().ok_or(BACKSLASH)?),
                other => Token::Char(other),
            });
        }
        let plain = |token: &Token| if let Token::Char(character) = token { Some(*character) } else { None };
        Ok(tokens.iter().map(plain).collect::<Option<String>>().map_or(Self::Glob(tokens), Self::Text))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Text(text) => text == name,
            Self::Glob(tokens) => {
                let name: Vec<char> = name.chars().collect();
                matches(
                    tokens,
                    &name,
                    |token| *token == Token::Star,
                    |token, character| token.matches(*character),
                )
            }
        }
    }
}

impl Token {
    fn matches(&self, character: char) -> bool {
        match self {
            Self::Star | Self::Any => true,
            Self::Char(own) => *own == character,
            Self::Class { ranges, negated } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != *negated
            }
        }
    }
}

const BACKSLASH: &str = "has a backslash at the end of a component";
const BRACKET: &str = "has an unclosed or empty bracket";
const BRACE: &str = "has an unclosed or stray brace";

/// Reads a class after its opening bracket.
fn read_class(rest: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    let negated = rest.as_str().starts_with(['!', '^']);
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        let first = match rest.next().ok_or(BRACKET)? {
            ']' if ranges.is_empty() => return Err(BRACKET),
            ']' => return Ok(Token::Class { ranges, negated }),
            '\\' => rest.next().ok_or(BRACKET)?,
            other => other,
        };
        // A hyphen before the closing bracket stands for itself.
        let is_range = rest.as_str().starts_with('-') && !rest.as_str().starts_with("-]");
        let last = if is_range {
            rest.next();
            match rest.next().ok_or(BRACKET)? {
                '\\' => rest.next().ok_or(BRACKET)?,
                other => other,
            }
        } else {
            first
        };
        if first > last {
            return Err("has a range that ends before it starts");
        }
        ranges.push((first, last));
    }
}

/// Whether `pattern` matches `input`. Parts for which `is_any_number` holds match any number of
/// elements. On a mismatch, only the last such part has to take one element more, so the time grows
/// with the product of the lengths and not exponentially.
fn matches<P, E>(
    pattern: &[P],
    input: &[E],
    is_any_number: impl Fn(&P) -> bool,
    is_one: impl Fn(&P, &E) -> bool,
) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut retry = None;
    loop {
        match (pattern.get(at), input.get(from)) {
            (None, None) => return true,
            (Some(part), _) if is_any_number(part) => {
                at += 1;
                retry = Some((at, from));
            }
            (Some(part), Some(element)) if is_one(part, element) => (at, from) = (at + 1, from + 1),
            _ => match retry {
                Some((after, start)) if start < input.len() => {
                    (at, from) = (after, start + 1);
                    retry = Some((at, from));
                }
                _ => return false,
            },
        }
    }
}

/// Returns every combination of the alternatives of `glob`, without braces.
fn expand(glob: &str) -> Result<Vec<String>, &'static str> {
    let mut found = Vec::new();
    let mut pending = vec![glob.to_owned()];
    while let Some(glob) = pending.pop() {
        match first_group(&glob)? {
            None => found.push(glob),
            Some((before, alternatives, after)) => {
                pending.extend(alternatives.iter().map(|one| format!("{before}{one}{after}")));
            }
        }
        if found.len() + pending.len() > MAX_ALTERNATIVES {
            return Err("has more than 1000 combinations of alternatives");
        }
    }
    Ok(found)
}

/// The text before a group of alternatives, the alternatives, and the text after.
type Group<'a> = (&'a str, Vec<&'a str>, &'a str);

/// Finds the first group of alternatives.
fn first_group(glob: &str) -> Result<Option<Group<'_>>, &'static str> {
    let (mut depth, mut in_class, mut start) = (0_usize, false, 0);
    let mut alternatives = Vec::new();
    let mut before = "";
    let mut rest = glob.char_indices();
    while let Some((at, character)) = rest.next() {
        match character {
            '\\' => drop(rest.next()),
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '{' => {
                depth += 1;
                if depth == 1 {
                    (before, start) = (&glob[..at], at + 1);
                }
            }
            ',' if depth == 1 => {
                alternatives.push(&glob[start..at]);
                start = at + 1;
            }
            '}' => {
                depth = depth.checked_sub(1).ok_or(BRACE)?;
                if depth == 0 {
                    alternatives.push(&glob[start..at]);
                    return Ok(Some((before, alternatives, &glob[at + 1..])));
                }
            }
            _ => {}
        }
    }
    if depth == 0 { Ok(None) } else { Err(BRACE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, claimed: &[&str], not_claimed: &[&str]) {
        let pattern = Pattern::parse(pattern).unwrap();
        let claims = |path: &str| match path.strip_suffix('/') {
            Some(directory) => pattern.claims(directory, true),
            None => pattern.claims(path, false),
        };
        for path in claimed {
            assert!(claims(path), "{pattern:?} does not claim {path}");
        }
        for path in not_claimed {
            assert!(!claims(path), "{pattern:?} claims {path}");
        }
    }

    #[test]
    fn doublestar_matches_any_depth() {
        check(
            "usr/include/**",
            &["usr/include/a.h", "usr/include/a/b/.c"],
            &["usr/includes/a.h", "usr/include/a/"],
        );
        check(
            "usr/lib/libz.so.*",
            &["usr/lib/libz.so.1", "usr/lib/libz.so.1.2"],
            &["usr/lib/libz.so", "usr/lib/libz.so.d/x"],
        );
        check("etc/?", &["etc/a"], &["etc/ab", "etc/a/b"]);
        check("etc/*", &["etc/.hidden", "etc/a"], &["etc/a/b", "etc/a/"]);
        check("**/*.h", &["a.h", "x/y/a.h"], &["a.c"]);
        check("usr/**/doc/*", &["usr/doc/a", "usr/x/y/doc/a"], &["usr/x/doc/y/a"]);
        check("bin/{a,b*}", &["bin/a", "bin/bc"], &["bin/c"]);
        check("bin/[a-c]x", &["bin/ax"], &["bin/dx"]);
        check("bin/[!a]x", &["bin/dx"], &["bin/ax"]);
        check("bin/[^a]x", &["bin/dx"], &["bin/ax"]);
        check("bin/\\[", &["bin/["], &["bin/\\["]);
        check("!x", &["!x"], &["y"]);
        check("usr/x**", &["usr/xy"], &["usr/x/y"]);
    }

    #[test]
    fn question_mark_matches_a_character_not_a_byte() {
        check("etc/?", &["etc/ä", "etc/€"], &["etc/"]);
        check("etc/[ä-ü]x", &["etc/öx"], &["etc/ox", "etc/\u{e3}\u{308}x"]);
        check("etc/[!a]", &["etc/ä"], &["etc/a"]);
        check("etc/*ä?", &["etc/ää€", "etc/xä."], &["etc/ä"]);
    }

    #[test]
    fn doublestar_matches_no_component_too() {
        check("a/**", &["a", "a/b", "a/b/c"], &["b", "ab", "a/"]);
        check("a/**/b", &["a/b", "a/x/b", "a/b/b", "a/x/b/y/b"], &["a/x", "ab", "a/b/c"]);
        check("**/a/**/b/**", &["a/b", "x/a/y/b/z", "a/a/b/b"], &["b/a", "a/x"]);
        check("**", &["a", "a/b"], &["a/"]);
        check("a**b/*", &["ab/c", "axb/c"], &["a/b/c", "ab/c/d"]);
    }

    #[test]
    fn alternatives_match_each() {
        check("{usr/bin,etc}/*", &["usr/bin/a", "etc/a"], &["bin/a", "usr/a"]);
        check("usr/{share/**,bin}/x*", &["usr/share/a/b/x", "usr/share/x", "usr/bin/xy"], &["usr/x"]);
        check("a{,.{gz,b*}}", &["a", "a.gz", "a.b", "a.bz2"], &["a.", "a.x"]);
        check("{*.so,*.so.*}", &["a.so", "a.so.1"], &["a.s"]);
        check("{[,}],a}", &["}", ",", "a"], &["[", "b"]);
        check("\\{a,b\\}", &["{a,b}"], &["a", "b"]);
        check("{a}", &["a"], &["{a}"]);
        check(&"{a,b}".repeat(9), &["ababababa"], &["abababab"]);
        check(&("{".repeat(20) + "a" + &"}".repeat(20)), &["a"], &["b"]);
    }

    #[test]
    fn escaped_characters_match_themselves() {
        check("\\b\\n\\t\\r\\*", &["bntr*"], &["bntrx", "\u{8}\n\t\r*"]);
        check("[-x][x-][\\]\\-]", &["--]", "xx-"], &["a-]", "--a"]);
        check("a]b,c", &["a]b,c"], &["ab"]);
        check("[^^]", &["a"], &["^"]);
    }

    #[test]
    fn final_slash_matches_directories_only() {
        check("var/lib/x/", &["var/lib/x/"], &["var/lib/x", "var/lib/x/y", "var/lib/"]);
        check("var/**/", &["var/a/", "var/a/b/"], &["var/a/b"]);
    }

    #[test]
    fn patterns_malformed_are_refused() {
        for bad in [
            "", "/", "/usr", "./a", "a/../b", "a//b", "a[b", "a{b,c", "a}", "a\\", "a[]", "a[!]", "[]a]",
            "[b-a]", "[a/b]", "{a,b/}", "a/{,b}/c", "{.,a}/b", "a\\/b", "[a\\",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Pattern::parse(&"{a,b}".repeat(11)).unwrap_err().contains("1000"));
        // A matcher that backtracks to every star would not finish.
        let slow = Pattern::parse(&("a*".repeat(30) + "b")).unwrap();
        assert!(!slow.claims(&"a".repeat(200), false));
    }
}
