//! Names and architectures of packages (PSD-009 §2.1, §2.3). Pure.

use crate::repository_layout;
use crate::version::Version;

/// A package without a version: a recipe declares it, and each build completes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageName {
    /// The package's name (PSD-009 §2.1).
    pub name: String,
    /// Its architecture identifier, `noarch` included (PSD-009 §2.3).
    pub architecture: String,
}

impl PackageName {
    /// Returns `<name>_<version>_<architecture>.peipkg` (PSD-009 §2.1.4).
    pub fn file_name(&self, version: &Version) -> String {
        repository_layout::package_file_name(&self.name, version.as_str(), &self.architecture)
    }
}

/// Checks a package name (PSD-009 §2.1).
///
/// # Errors
/// The defect, as the end of a sentence that starts with the name.
#[inline]
pub fn check_package_name(name: &str) -> Result<(), &'static str> {
    const ALLOWED: &str = "has a character outside a-z, 0-9, '-', '.' and '+'";
    let is_separator = |byte: u8| matches!(byte, b'-' | b'.');
    let bytes = name.as_bytes();
    if !(2..=64).contains(&bytes.len()) {
        return Err("is not 2 to 64 characters long");
    }
    if !bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'+')) {
        return Err(ALLOWED);
    }
    if is_separator(bytes[0]) || bytes[0] == b'+' {
        return Err("does not start with a lowercase letter or a digit");
    }
    if is_separator(bytes[bytes.len() - 1]) {
        return Err("ends with a separator");
    }
    if bytes.windows(2).any(|pair| is_separator(pair[0]) && is_separator(pair[1])) {
        return Err("has two separators in a row");
    }
    Ok(())
}

/// Checks the form of an architecture identifier (PSD-009 §2.3.1).
///
/// # Errors
/// The defect, as the end of a sentence that starts with the identifier.
#[inline]
pub fn check_architecture(architecture: &str) -> Result<(), &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let starts_well = architecture.starts_with(|first: char| first.is_ascii_lowercase());
    if !starts_well || architecture.len() > 16 || !architecture.bytes().all(is_allowed) {
        return Err("is not an architecture such as noarch or x86_64");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_name_malformed_is_refused() {
        for good in ["jq", "libstdc++", "python3.example", "lib32-foo", "g++", "7z"] {
            assert_eq!(check_package_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(65);
        for bad in
            ["", "a", "Jq", "-a", ".a", "+a", "a-", "a.", "a--b", "a.-b", "a_b", "a b", "../x", "é1", &long]
        {
            assert!(check_package_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn architecture_malformed_is_refused() {
        assert_eq!(check_architecture("x86_64"), Ok(()));
        for bad in ["", "X86", "a/b", "any-x", "_x", "64", &"a".repeat(17)] {
            assert!(check_architecture(bad).is_err(), "{bad}");
        }
    }
}
