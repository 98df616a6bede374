//! Remembers between runs from which commit each published version was built, in a file of the state
//! directory: a line `<recipe> <version> <commit>` for each, of which the last one counts. Must not decide
//! anything: the core compares.
//!
//! An operator may remove the file or a line at any time: then the next listing that shows the tag of a
//! published version is believed. Lines are added, because 50,000 of them are 3 MB.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use log::warn;
use peipkg_format::object_id::ObjectId;
use peipkg_format::problem::excerpt;
use peipkg_format::regular_file;
use peipkg_format::version::Version;

use crate::farm::commits::PublishedCommits;
use crate::farm::events::PendingOutputs;
use crate::state::{durable, troubles};

/// The longest file to read, in bytes: about 400,000 lines.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// Reads the file at `path`, and whether it is whole: there, and without a damaged line. Warns if it cannot
/// be read, or of a damaged line; the other lines count.
pub(crate) fn read(path: &Path) -> (PublishedCommits, bool) {
    troubles::end("cannot read published commits");
    let (commits, error) = match regular_file::open_up_to(path, MAX_FILE) {
        Ok(file) => parse(&mut BufReader::new(file.take(MAX_FILE))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (PublishedCommits::default(), false),
        Err(error) => (PublishedCommits::default(), Some(error.to_string())),
    };
    if let Some(error) = &error {
        let path = path.display().to_string();
        warn!(path, error; "cannot read published commits");
        troubles::begin("cannot read published commits", &path, error);
    }
    (commits, error.is_none())
}

/// Replaces a file that is not whole by one that has `commits`. Warns if that fails.
pub(crate) fn write(path: &Path, commits: &PublishedCommits) {
    let mut text = String::new();
    for recipe in commits.recipes() {
        for (version, commit) in commits.of(recipe) {
            let _ = writeln!(text, "{recipe} {version} {commit}");
        }
    }
    let written = durable::replace(path, |file| file.write_all(text.as_bytes()));
    if written.is_ok() {
        troubles::end("cannot read published commits");
    }
    warn_unless(path, written);
}

/// Adds the commit of a version that was published. It survives a power cut. Warns if that fails.
pub(crate) fn add(path: &Path, outputs: &PendingOutputs) {
    if let Some(built_from) = &outputs.built_from {
        let version = &outputs.key.version;
        warn_unless(path, append(path, &outputs.key.recipe, &[(version.clone(), built_from.commit)], true));
    }
}

/// Adds the commits that a listing has shown of published versions. A power cut may lose them: the next
/// listing shows them again.
pub(crate) fn add_listed(path: &Path, recipe: &Arc<str>, listed: &[(Version, ObjectId)]) {
    warn_unless(path, append(path, recipe, listed, false));
}

fn append(path: &Path, recipe: &str, commits: &[(Version, ObjectId)], is_synced: bool) -> io::Result<()> {
    // The last line may lack its end after a power cut.
    let mut text = String::from("\n");
    for (version, commit) in commits {
        let _ = writeln!(text, "{recipe} {version} {commit}");
    }
    durable::append(path, text.as_bytes(), is_synced)
}

/// Reads the lines of the file, one at a time: the whole file would be as large as all commits. Says which
/// line is the first that is damaged, or why the rest cannot be read.
pub(crate) fn parse(file: &mut dyn BufRead) -> (PublishedCommits, Option<String>) {
    let mut commits = PublishedCommits::default();
    let mut damaged = None;
    // Lines of one recipe mostly follow each other.
    let mut last: Arc<str> = "".into();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        match file.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                damaged.get_or_insert(error.to_string());
                break;
            }
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if line.is_empty() {
            continue;
        }
        match parse_line(line) {
            Some((recipe, version, commit)) => {
                if *last != *recipe {
                    last = recipe.into();
                }
                commits.set(&last, version, commit);
            }
            None => {
                damaged.get_or_insert_with(|| {
                    let line = String::from_utf8_lossy(line);
                    format!("line {number} is {:?}, expected \"<recipe> <version> <commit>\"", excerpt(&line))
                });
            }
        }
    }
    (commits, damaged)
}

fn parse_line(line: &[u8]) -> Option<(&str, &str, ObjectId)> {
    let (recipe, rest) = split_field(line)?;
    let (version, commit) = split_field(rest)?;
    Version::check(version).ok()?;
    let commit = ObjectId::from_hex(commit)?;
    (!recipe.is_empty()).then_some((recipe, version, commit))
}

/// Splits a line behind its first field.
fn split_field(line: &[u8]) -> Option<(&str, &[u8])> {
    let (field, rest) = line.split_at(line.iter().position(|byte| *byte == b' ')?);
    Some((str::from_utf8(field).ok()?, &rest[1..]))
}

fn warn_unless(path: &Path, written: io::Result<()>) {
    troubles::end("cannot remember published commits");
    if let Err(error) = written {
        let path = path.display().to_string();
        warn!(path, error:%; "cannot remember published commits");
        troubles::begin("cannot remember published commits", &path, &error);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn file_lost_damaged_or_cut_short_gives_its_good_lines() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("published-commits");
        let recipe: Arc<str> = "a".into();
        let entry =
            |version: &str, digit: &str| (version.parse().unwrap(), digit.repeat(40).parse().unwrap());
        assert_eq!(read(&path), (PublishedCommits::default(), false));
        add_listed(&path, &recipe, &[entry("1-1", "1"), entry("2-1", "2")]);
        add_listed(&path, &recipe, &[entry("1-1", "3")]);
        let (commits, is_whole) = read(&path);
        assert!(is_whole);
        assert_eq!(commits.of("a"), [("1-1", entry("1-1", "3").1), ("2-1", entry("2-1", "2").1)].into());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 10]).unwrap();
        add_listed(&path, &recipe, &[entry("3-1", "4")]);
        let (commits, is_whole) = read(&path);
        assert!(!is_whole, "a line is cut short");
        let expected = [("1-1", "1"), ("2-1", "2"), ("3-1", "4")].map(|(v, d)| (v, entry(v, d).1));
        assert_eq!(commits.of("a"), expected.into());
        write(&path, &commits);
        let (again, is_whole) = read(&path);
        assert_eq!((again.of("a"), is_whole), (commits.of("a"), true));
        for bad in ["a 1-1", "a 1-1 11 1", " 1-1 11", "a 1_1 11", "a 1-1 1g", "\u{0}"] {
            let line = bad.replace("11", &"1".repeat(40));
            assert!(parse(&mut line.as_bytes()).1.is_some(), "{bad}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read(&path), (PublishedCommits::default(), false));
        add_listed(&path, &recipe, &[entry("3-1", "4")]);
    }

    #[test]
    fn file_is_never_in_memory_as_a_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("published-commits");
        let text = "damaged\n".repeat(20_000);
        fs::write(&path, &text).unwrap();
        let most = allocation_counter::measure(|| drop(read(&path))).bytes_max;
        assert!(most < text.len() as u64 / 2, "{most} bytes");
    }
}
