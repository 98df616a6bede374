//! A scan of the archive index for entries, without parsing it.
//!
//! Each publish asks whether the index lists what was just built. In an index of 1,000 entries the
//! scan takes 0.2 ms and a parse 4 to 5 ms; of 50,000 entries 10 ms and 150 to 270 ms. The scan only
//! knows the form in which tools write an index: compact, keys in the order of PSD-009 §6.2.4. Of
//! any other form it says no, and the caller parses.

use std::io::{self, BufRead, Read as _};

use peipkg_format::package::PackageName;
use peipkg_format::version::Version;

/// The longest text without an opening brace that the scan holds in memory, in bytes. A file without
/// braces would otherwise fill it.
const MAX_OBJECT: u64 = 64 * 1024;

/// Whether `index` ends as a whole one does and lists each of `packages` at `version`, as far as the
/// scan can tell.
///
/// # Errors
/// If the index cannot be read.
pub(super) fn lists_all(
    index: impl BufRead,
    packages: &[PackageName],
    version: &Version,
) -> io::Result<bool> {
    let beginning = |PackageName { name, architecture }: &PackageName| {
        format!("\"name\":\"{name}\",\"version\":\"{version}\",\"architecture\":\"{architecture}\",")
    };
    has_objects(index, packages.iter().map(beginning).collect())
}

/// Whether `index` ends as a whole one does, and has an object that begins with each of
/// `beginnings`. A string is never mistaken for an object, because its quotes are escaped.
fn has_objects(mut index: impl BufRead, mut beginnings: Vec<String>) -> io::Result<bool> {
    let mut object = Vec::new();
    loop {
        object.clear();
        let length = index.by_ref().take(MAX_OBJECT).read_until(b'{', &mut object)?;
        beginnings.retain(|beginning| !object.starts_with(beginning.as_bytes()));
        if object.last() != Some(&b'{') {
            let is_end = (length as u64) < MAX_OBJECT && object.trim_ascii_end().ends_with(b"]}");
            return Ok(beginnings.is_empty() && is_end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn fields(name: &str) -> String {
        format!("\"name\":\"{name}\",\"version\":\"1-1\",\"architecture\":\"noarch\",")
    }

    fn index(names: impl Iterator<Item = String>) -> String {
        let entries: Vec<_> =
            names.map(|name| format!("{{{}\"hash\":{{\"x\":1}}}}", fields(&name))).collect();
        format!("{{\"packages\":[{}]}}\n", entries.join(","))
    }

    #[track_caller]
    fn check(index: &str, names: &[&str], expected: bool) {
        let name = |name: &&str| PackageName { name: (*name).into(), architecture: "noarch".into() };
        let packages: Vec<_> = names.iter().map(name).collect();
        for capacity in [1, 1000, 64 * 1024] {
            let index = BufReader::with_capacity(capacity, index.as_bytes());
            let found = lists_all(index, &packages, &"1-1".parse().unwrap());
            assert_eq!(found.unwrap(), expected, "{names:?} by {capacity}");
        }
    }

    #[test]
    fn scan_finds_entries_wherever_they_are() {
        let long = index((0..2_000).map(|n| format!("tool-{n}")));
        check(&long, &["tool-0"], true);
        check(&long, &["tool-1999", "tool-999", "tool-0"], true);
        check(&long, &["tool-0", "lost"], false);
        check(&long, &["tool-"], false);
        check(&long.replace("\"1-1\"", "\"1-2\""), &["tool-0"], false);
    }

    #[test]
    fn scan_of_damaged_index_finds_nothing() {
        let whole = index(["first", "last"].map(str::to_owned).into_iter());
        check(&whole, &["first", "last"], true);
        check(&format!("{whole}{}", " ".repeat(1000)), &["first", "last"], true);
        for length in 0..whole.len() - 1 {
            check(&whole[..length], &["first"], false);
        }
        check(&format!("{whole}x"), &["first"], false);
        // The place where the scan gives up is not the end of the index.
        let long = "x".repeat(64 * 1024 - 2);
        check(&format!("{{{}\"x\":{{{long}]}}and more", fields("first")), &["first"], false);
    }

    #[test]
    fn scan_takes_no_string_and_no_later_field_for_an_entry() {
        let quoted = format!("{{\"packages\":[{{\"name\":{:?}}}]}}", format!("{{{}", fields("first")));
        check(&quoted, &["first"], false);
        let later = format!("{{\"packages\":[{{\"x\":1,{}\"y\":1}}]}}", fields("first"));
        check(&later, &["first"], false);
    }
}
