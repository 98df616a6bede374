//! Checks names of refs by git's rules (git-check-ref-format). Pure.
//!
//! `git ls-remote --refs` leaves out refs whose names break the rules, and so does a native
//! listing.

/// Returns whether git accepts `name` below `refs/`, such as `tags/v1.0`.
pub fn is_valid(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"@"
        && !name.ends_with(b".")
        && !contains(name, *b"..")
        && !contains(name, *b"@{")
        && !name.iter().any(|byte| is_forbidden(*byte))
        && name.split(|byte| *byte == b'/').all(is_valid_component)
}

fn is_forbidden(byte: u8) -> bool {
    byte.is_ascii_control() || b" ~^:?*[\\".contains(&byte)
}

fn is_valid_component(component: &[u8]) -> bool {
    !component.is_empty() && !component.starts_with(b".") && !component.ends_with(b".lock")
}

fn contains(name: &[u8], pair: [u8; 2]) -> bool {
    name.windows(2).any(|window| window == pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ref_name_is_valid_by_the_rules_of_git() {
        for good in
            ["v1", "a/b/c", "-v", "--help", "@", "a@b", "a.b", "a.locks", "lock", "é", "{", "a{1}", "#"]
        {
            assert!(is_valid(format!("tags/{good}").as_bytes()), "{good:?}");
        }
        assert!(is_valid(b"tags/\xff\xfe"));
        let bad = [
            "", "/", "a/", "/a", "a//b", ".a", "a/.b", "a.", "a..b", "a.lock", "a.lock/b", "a b", "a~1",
            "a^{}", "a:b", "a?", "a*", "a[1]", "a\\b", "a@{b", "a\tb", "a\nb", "\u{7f}",
        ];
        for bad in bad {
            assert!(!is_valid(format!("tags/{bad}").as_bytes()), "{bad:?}");
        }
        assert!(!is_valid(b"@"));
    }
}
