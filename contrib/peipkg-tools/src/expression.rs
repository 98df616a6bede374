//! The manifest values that have a grammar: names, constraints, side effects, URLs (PSD-009 §2.1,
//! §3.3, §4). Pure.
//!
//! Each check returns the problem as the end of a sentence that starts with the value.

use peipkg_format::version::Version;

/// Checks a value. An error is the end of a sentence that starts with the value.
pub type Rule = fn(&str) -> Result<(), &'static str>;

/// Every side effect of the format (PSD-009 §4.3.4).
pub const SIDE_EFFECTS: [&str; 3] = ["ldconfig", "depmod", "man-db"];

/// Checks a package or virtual name (PSD-009 §2.1.6).
pub fn check_virtual_name(name: &str) -> Result<(), &'static str> {
    let bytes = name.as_bytes();
    if !(2..=128).contains(&bytes.len()) {
        return Err("is not 2 to 128 characters long");
    }
    if let Some((namespace, rest)) = name.split_once('(') {
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let argument = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+_:/".contains(&byte);
        let inner = rest.strip_suffix(')').filter(|inner| !inner.is_empty() && inner.bytes().all(argument));
        let well_formed = namespace.starts_with(|first: char| first.is_ascii_lowercase())
            && namespace.bytes().all(lower)
            && inner.is_some();
        return if well_formed { Ok(()) } else { Err("is not of the form namespace(argument)") };
    }
    if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.+_".contains(byte)) {
        return Err("has a character outside letters, digits, '-', '.', '+' and '_'");
    }
    if !bytes[0].is_ascii_alphanumeric() {
        return Err("does not start with a letter or a digit");
    }
    let last = bytes[bytes.len() - 1];
    if !(last.is_ascii_alphanumeric() || last == b'+') {
        return Err("does not end with a letter, a digit or '+'");
    }
    Ok(())
}

/// Checks a version constraint such as `>= 3.0, < 4.0` (PSD-009 §2.2.8, §4.1.7).
pub fn check_constraint(constraint: &str) -> Result<(), &'static str> {
    for term in constraint.split(',') {
        let term = term.trim();
        let operand = ["!=", ">=", "<=", "=", ">", "<"]
            .into_iter()
            .find_map(|operator| term.strip_prefix(operator))
            .unwrap_or(term);
        check_relaxed_version(operand.trim())
            .map_err(|_| "is not a list of comparisons such as \">= 3.0, < 4.0\"")?;
    }
    Ok(())
}

/// Checks a version with or without revision (PSD-009 §4.1.4).
pub fn check_relaxed_version(version: &str) -> Result<(), &'static str> {
    let whole = version.parse::<Version>().or_else(|_| format!("{version}-1").parse());
    whole.map(drop).map_err(|_| "is not a version such as 1.2 or 1.2-1")
}

/// Checks a homepage: an `http` or `https` URL with a host, in the characters of RFC 3986
/// (PSD-009 §3.3.7).
pub fn check_homepage(url: &str) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("is not an http or https URL")?;
    if !(scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")) {
        return Err("is not an http or https URL");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    if rest.is_empty() || rest.starts_with(['/', '?', '#', ':']) || !rest.bytes().all(allowed) {
        return Err("is not a well-formed URL such as https://example.org/");
    }
    Ok(())
}

/// Checks a text of one line.
pub fn check_line(text: &str) -> Result<(), &'static str> {
    if text.chars().any(char::is_control) {
        return Err("has a control character, expected one line of text");
    }
    Ok(())
}

/// Checks the name of a root, such as `initramfs.sub` (PSD-009 §3.3.6).
pub fn check_root_reference(root: &str) -> Result<(), &'static str> {
    let starts = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let segment = |text: &str| {
        text.as_bytes().first().is_some_and(starts)
            && text.bytes().all(|byte| starts(&byte) || b"_-".contains(&byte))
    };
    if root.split('.').all(segment) { Ok(()) } else { Err("is not the name of a root such as initramfs") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: fn(&str) -> Result<(), &'static str>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Ok(()), "{text:?}");
        }
        for text in bad {
            assert!(rule(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn virtual_names_are_checked() {
        let good = [
            "jq",
            "libGL.so.1",
            "libgcc_s.so.1",
            "g++",
            "libstdc++.so.6",
            "pkgconfig(gtk+-3.0)",
            "perl(Foo::Bar)",
        ];
        let long = "a".repeat(129);
        let bad = [
            "",
            "a",
            "-a",
            "a-",
            "a_",
            "_a",
            "a b",
            "Perl(x)",
            "perl()",
            "perl(x",
            "perl(a b)",
            "(x)",
            "é1",
            &long,
        ];
        check(check_virtual_name, &good, &bad);
    }

    #[test]
    fn constraints_are_checked() {
        let good = ["1.0", "= 1.0-1", ">=3.0,<4.0", " > 1 , != 2:1.5-3", "1.0-rc.1", "<= 1.0~rc1"];
        check(check_constraint, &good, &["", ">=", ">= 1,", "~> 1", "== 1", "> = 1", ">= 1 < 2", "é"]);
    }

    #[test]
    fn homepages_and_roots_are_checked() {
        let bad = [
            "",
            "zlib.net",
            "ftp://x",
            "javascript:alert(1)",
            "https://",
            "https:///x",
            "https://x y",
            "https://ü",
        ];
        check(check_homepage, &["https://zlib.net", "http://[::1]:80/x?y#z"], &bad);
        check(check_root_reference, &["initramfs", "a.b-c_1"], &["", "/", "a..b", "-a", "A", "a/b"]);
    }
}
