//! Checks names of refs by git's rules (git-check-ref-format). Pure.
//!
//! `git ls-remote --refs` leaves out refs whose names break the rules, and so does a native
//! listing.

/// Returns whether git accepts `name` below `refs/`, such as `tags/v1.0`.
pub fn is_valid(name: &[u8]) -> bool {
    // A component begins after the slash before the name, and ends at the one behind it.
    let mut before = b'/';
    for byte in name.iter().copied().chain([b'/']) {
        if is_forbidden(byte) || is_forbidden_pair(before, byte) {
            return false;
        }
        before = byte;
    }
    name != b"@" && !name.ends_with(b".") && !name.split(|byte| *byte == b'/').any(|c| c.ends_with(b".lock"))
}

fn is_forbidden(byte: u8) -> bool {
    byte.is_ascii_control() || matches!(byte, b' ' | b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\')
}

fn is_forbidden_pair(first: u8, second: u8) -> bool {
    matches!((first, second), (b'/', b'/' | b'.') | (b'.', b'.') | (b'@', b'{'))
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
