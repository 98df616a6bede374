//! Which payload paths and links a package may have (PSD-009 §3.2.7, §3.4). Pure.
//!
//! It judges single entries; what entries mean together is the reader's.

use unicode_normalization::is_nfc;

/// Longest path, in bytes (PSD-009 §3.2.10).
const MAX_PATH: usize = 4096;
/// Longest component of a path, in bytes (PSD-009 §3.2.10).
const MAX_COMPONENT: usize = 255;
/// Most components of a path (PSD-009 §3.2.10).
const MAX_DEPTH: usize = 256;

/// Checks the path of a payload entry, given without the `/` that ends a directory's name.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that starts with the path.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    check_text(path)?;
    if path.starts_with('/') {
        return Err("is not a relative path");
    }
    let mut depth = 0;
    for component in path.split('/') {
        depth += 1;
        match component {
            "" => return Err("has an empty component"),
            "." | ".." => return Err("has a component . or .."),
            _ if component.len() > MAX_COMPONENT => return Err("has a component of more than 255 bytes"),
            _ => {}
        }
    }
    if depth > MAX_DEPTH {
        return Err("has more than 256 components");
    }
    Ok(())
}

/// Checks the target of the symbolic link at `path`: relative, and leading to
/// nowhere outside the tree that packages install into (PSD-009 §3.4.9).
///
/// # Errors
/// What is wrong with the target, as the end of a sentence that starts with the link's path.
pub(super) fn check_link(path: &str, target: &str) -> Result<(), &'static str> {
    const OUTSIDE: &str = "is a link out of the tree that packages install into";
    if target.is_empty() {
        return Err("is a link without a target");
    }
    check_text(target).map_err(|_| "is a link with a target that is no valid path")?;
    if target.starts_with('/') {
        return Err("is a link with an absolute target");
    }
    let mut resolved: Vec<&str> = path.split('/').collect();
    resolved.pop();
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                resolved.pop().ok_or(OUTSIDE)?;
            }
            _ if component.len() > MAX_COMPONENT => {
                return Err("is a link with a target component of more than 255 bytes");
            }
            _ => resolved.push(component),
        }
    }
    // The destinations themselves are the builder's affair; these are where no package may lead.
    match resolved.first() {
        None | Some(&("home" | "root" | "srv" | "tmp")) => Err(OUTSIDE),
        Some(_) => Ok(()),
    }
}

fn check_text(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err("is not 1 to 4096 bytes long");
    }
    if path.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == b'\\') {
        return Err("has a control character or a backslash");
    }
    if !is_nfc(path) {
        return Err("is not in Unicode normalization form C");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for good in
            ["usr/bin/x", "etc", "usr/share/doc/é", &"a/".repeat(255).trim_end_matches('/').to_owned()]
        {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        let (deep, long) = (format!("{}a", "a/".repeat(256)), "a".repeat(256));
        for bad in ["", "/etc", "a//b", "a/", "./a", "a/../b", "a\\b", "a\nb", "e\u{301}", &deep, &long] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn links() {
        for (path, target) in [
            ("usr/lib/a.so", "a.so.1"),
            ("usr/bin/x", "../share/x"),
            ("boot/k", "../usr/lib/k"),
            ("etc/a", "./b/"),
        ] {
            assert_eq!(check_link(path, target), Ok(()), "{path} to {target}");
        }
        for target in ["", "/etc/passwd", "../../..", "../..", "../../tmp/x", "../../home/x", "a\\b", "a\nb"]
        {
            assert!(check_link("usr/bin/x", target).is_err(), "{target}");
        }
    }
}
