//! The patterns by which a stanza claims staged paths: doublestar globs
//! relative to `$DESTDIR` (PSD-009 appendix A.2). Pure.

use fast_glob::glob_match;

/// A pattern of a stanza's `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    glob: String,
    of_directories: bool,
}

impl Pattern {
    /// Reads a pattern; one that ends in a slash claims directories, any other
    /// claims files and symbolic links.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that starts with the pattern.
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
        if glob.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("has an empty, '.' or '..' component");
        }
        if !is_balanced(glob) {
            return Err("has an unclosed bracket or brace, or ends in a backslash");
        }
        // The matcher would negate the pattern; in a list of claims that has no meaning.
        let glob = if glob.starts_with('!') { format!("\\{glob}") } else { glob.to_owned() };
        Ok(Self { glob, of_directories })
    }

    /// Whether it claims `path`, given without a trailing slash.
    pub fn claims(&self, path: &str, is_directory: bool) -> bool {
        self.of_directories == is_directory && glob_match(&self.glob, path)
    }
}

/// Whether every class and every group of alternatives is closed; the matcher
/// itself would silently match nothing.
fn is_balanced(glob: &str) -> bool {
    let mut bytes = glob.bytes();
    let mut depth = 0_usize;
    let mut in_class = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if bytes.next().is_none() => return false,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'{' if !in_class => depth += 1,
            b'}' if !in_class => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => {}
        }
    }
    depth == 0 && !in_class
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
    fn doublestar_semantics() {
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
    fn a_final_slash_means_directories() {
        check("var/lib/x/", &["var/lib/x/"], &["var/lib/x", "var/lib/x/y", "var/lib/"]);
        check("var/**/", &["var/a/", "var/a/b/"], &["var/a/b"]);
    }

    #[test]
    fn malformed_patterns() {
        for bad in ["", "/", "/usr", "./a", "a/../b", "a//b", "a[b", "a{b,c", "a}", "a\\"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
