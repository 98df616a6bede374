//! The documents as a test needs them: their text, and the commands in them.

use std::fs;
use std::path::Path;

/// The text of the page at `path` in the source.
#[track_caller]
pub fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The section of `page` under `heading` (`## Set up`), as far as the next heading of that rank.
#[track_caller]
pub fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = format!("\n{heading}\n");
    let rank = heading.split(' ').next().expect("a heading");
    let (_, text) = page.split_once(&start).unwrap_or_else(|| panic!("there is no {heading:?}"));
    text.split(&format!("\n{rank} ")).next().expect("a first part")
}

/// The content of all fenced blocks of `language` in `text`, one after the other.
#[track_caller]
pub fn blocks(text: &str, language: &str) -> String {
    let fence = format!("```{language}\n");
    let found: String = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!found.is_empty(), "there is no block of {language} in {text}");
    found
}

/// The shell commands in `text` as root types them, but for the `make` that builds: the tests have built.
#[track_caller]
pub fn commands(text: &str) -> String {
    let lines = blocks(text, "sh");
    let lines = lines.lines().map(|line| line.strip_prefix("sudo ").unwrap_or(line));
    lines.filter(|line| *line != "make").map(|line| format!("{line}\n")).collect()
}
