//! Compares the documents with the code: every flag, key and log event must be in a page, and a page
//! may name no others. `status_fields.rs` does so for `/status`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peipkg_format::problem::Problem;
use peipkg_manager::Config;
use peipkg_manager::cli;
use peipkg_manager::{Recipe, TagVersion};

use crate::support::optional::require;

/// A key that does not exist and resembles none that does.
const STRANGER: &str = "zzzzzzzzzzzzzzzzzzzzzzzz";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The sorted files below `directory` with `extension`.
pub(crate) fn files_below(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut pending = vec![root().join(directory)];
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The documents in Markdown.
fn pages() -> Vec<PathBuf> {
    let mut pages = files_below("docs", "md");
    pages.extend(files_below("contrib", "md"));
    pages.extend(
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root().join(name)),
    );
    pages
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn manual_pages_are_clean() {
    if !require("mandoc") {
        return;
    }
    for page in ["peipkg-manager.8", "peipkg-manager.toml.5", "peipkg-build.1", "peipkg-repo.1"] {
        let page = root().join("docs").join(page);
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(page).output();
        let output = lint.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn manual_page_has_every_flag_and_its_default() {
    let page = read("docs/peipkg-manager.8");
    let items: BTreeMap<&str, &str> = page
        .split("\n.It ")
        .skip(1)
        .filter_map(|item| {
            let (_, rest) = item.split_once("Fl -")?;
            Some((rest.split([' ', '\n']).next()?, item))
        })
        .collect();
    for flag in cli::FLAGS {
        let item = items.get(flag.long).unwrap_or_else(|| panic!("--{} is not in the page", flag.long));
        if let Some(default) = flag.default {
            let stated = item.split_once("The default is\n").map(|(_, stated)| stated).unwrap_or_default();
            let stated = stated.lines().next().unwrap_or_default();
            assert!(stated.contains(default), "the default of --{} is not {stated:?}", flag.long);
        }
        if let Some(letter) = flag.short {
            assert!(item.starts_with(&format!("Fl {letter} ")), "-{letter} is not in {item}");
        }
    }
    for documented in items.keys() {
        assert!(cli::FLAGS.iter().any(|flag| flag.long == *documented), "there is no --{documented}");
    }
}

/// The keys of a section, as the code lists them in the problem about an unknown one.
#[track_caller]
fn keys_of(section: &str, problems: &[Problem]) -> BTreeSet<String> {
    let place = if section.is_empty() { "at the top level".to_owned() } else { format!("in {section}") };
    let start = format!("unknown key {STRANGER:?} {place}; known here: ");
    let listed = problems.iter().find_map(|problem| problem.message.strip_prefix(&start));
    let listed = listed.unwrap_or_else(|| panic!("{section}: {:?}", texts(problems)));
    listed.split(", ").map(str::to_owned).collect()
}

/// Each section of the configuration as its header stands in a file, with the keys that the code
/// knows.
fn config_sections() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new("config.toml");
    let strange = |text: String| Config::parse(path, &text).unwrap_err();
    let arrays = ["signing_key", "grant"];
    let header = |name: &str| {
        if arrays.contains(&name) { format!("[[{name}]]") } else { format!("[{name}]") }
    };
    let names = keys_of("", &strange(format!("{STRANGER} = 1")));
    let sections = names.iter().map(|name| header(name));
    sections
        .map(|header| {
            let keys = keys_of(&header, &strange(format!("{header}\n{STRANGER} = 1")));
            (header, keys)
        })
        .collect()
}

/// Each of the manager's sections of a recipe, with the keys that the code knows.
fn recipe_sections() -> BTreeMap<String, BTreeSet<String>> {
    let sections = ["[upstream]", "[watch]"].into_iter();
    sections
        .map(|header| {
            let text = format!("{header}\n{STRANGER} = 1");
            let problems = Recipe::parse("r", Path::new("r"), &text, 0, &mut Vec::new()).unwrap_err();
            (header.to_owned(), keys_of(header, &problems))
        })
        .collect()
}

#[test]
fn manual_page_has_every_key() {
    let page = read("docs/peipkg-manager.toml.5");
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for section in page.split("\n.Ss ").skip(1) {
        let (header, body) = section.split_once('\n').unwrap();
        let body = body.split("\n.Sh ").next().unwrap();
        let keys = body.lines().filter_map(|line| line.strip_prefix(".It Ic "));
        documented.insert(header.to_owned(), keys.map(str::to_owned).collect());
    }
    documented.remove("Tag patterns");
    let mut known = config_sections();
    known.extend(recipe_sections());
    // The manager reads only these two keys of a package.
    known.insert("[[package]]".to_owned(), ["name", "architecture"].map(str::to_owned).into());
    assert_eq!(documented, known);
}

#[test]
fn sample_has_every_key_and_is_right_with_all_of_them() {
    let sample = read("docs/config.sample.toml");
    let path = Path::new("config.sample.toml");
    let parsed = Config::parse(path, &sample).map_err(|problems| texts(&problems));
    parsed.unwrap();
    // Prose has a space after its `#`; a disabled key has none.
    let uncommented: String = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    Config::parse(path, &uncommented).map_err(|problems| texts(&problems)).unwrap();
    for (header, keys) in config_sections() {
        let section = uncommented.split_once(&format!("{header}\n"));
        let section = section.unwrap_or_else(|| panic!("no {header}")).1.split("\n[").next().unwrap();
        for key in keys {
            assert!(section.lines().any(|line| line.starts_with(&format!("{key} = "))), "{header} {key}");
        }
    }
}

#[test]
fn examples_in_the_pages_are_right() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("\n```toml\n").skip(1) {
            let block = block.split("\n```").next().unwrap();
            let place = format!("{}:\n{block}", page.display());
            if block.contains("[manager]") {
                let result = Config::parse(Path::new("config.toml"), block);
                result.map_err(|problems| panic!("{place}\n{:#?}", texts(&problems))).unwrap();
            } else if block.contains("[[package]]") || block.contains("[[sign]]") {
                let mut warnings = Vec::new();
                let result = Recipe::parse("example", Path::new("example"), block, 0, &mut warnings);
                result.map_err(|problems| panic!("{place}\n{:#?}", texts(&problems))).unwrap();
                assert!(warnings.is_empty(), "{place}\n{:#?}", texts(&warnings));
            } else {
                // A part of a configuration: its keys must be known.
                let problems = Config::parse(Path::new("config.toml"), block).err().unwrap_or_default();
                let wrong = texts(&problems).into_iter().find(|text| !text.contains("missing section"));
                assert_eq!(wrong, None, "{place}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 5, "only {checked} examples were found");
}

#[test]
fn table_of_tag_patterns_is_right() {
    let page = read("docs/recipes.md");
    let mut rows = rows(&page).filter(|row| row[0].starts_with('^')).peekable();
    assert!(rows.peek().is_some());
    for row in rows {
        let text = format!(
            "[upstream]\ngit = \"file:///x\"\ntag_pattern = '{}'\n[[package]]\nname = \"hello\"\narchitecture = \"noarch\"",
            row[0]
        );
        let recipe = Recipe::parse("r", Path::new("r"), &text, 0, &mut Vec::new()).unwrap();
        let version = TagVersion::Version(row[2].parse().unwrap());
        assert_eq!(recipe.upstream.unwrap().tag_reader().version_of(row[1]), version, "{row:?}");
    }
}

#[test]
fn links_in_the_pages_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.contains("://") {
                continue;
            }
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let found =
                    text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
                assert!(found, "{}: {link}", page.display());
            }
        }
    }
}

/// The anchor of a heading, as the usual viewers make it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The log's events, each with the levels and fields of all places that log it.
pub(crate) type Events = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

/// The events in the sources of the manager.
pub(crate) fn logged_events() -> Events {
    let mut events = Events::new();
    for path in files_below("src", "rs") {
        let source = fs::read_to_string(&path).unwrap();
        // Skip comments and tests.
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for level in ["debug", "info", "warn", "error"] {
            for call in source.split(&format!("{level}!(")).skip(1) {
                let (fields, message) = arguments(call);
                assert!(!message.is_empty(), "{}: {level}!({call:.80}", path.display());
                let (levels, known) = events.entry(message).or_default();
                levels.insert(level.to_owned());
                known.extend(fields);
            }
        }
    }
    events
}

/// The fields and the message of a logging macro, from the text that follows its parenthesis:
/// fields, a semicolon and the message, or the message alone.
fn arguments(call: &str) -> (Vec<String>, String) {
    let mut parts = vec![String::new()];
    let (mut depth, mut quoted) = (0_usize, false);
    for c in call.chars() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth == 0 => break,
            ')' if !quoted => depth -= 1,
            ',' | ';' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    let message = parts.pop().unwrap().trim().trim_matches('"').to_owned();
    let name = |field: &String| field.split(['=', ':']).next().unwrap().trim().to_owned();
    (parts.iter().map(name).collect(), message)
}

/// The rows of the tables of the monitoring page, cell by cell.
pub(crate) fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("| `"));
    lines.map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
}

#[test]
fn monitoring_page_has_every_event_with_its_level_and_fields() {
    let page = read("docs/monitoring.md");
    let list = page.split("\n## ").find(|section| section.starts_with("The log")).unwrap();
    let set = |cell: &str| -> BTreeSet<String> {
        cell.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let documented: Events = rows(list).map(|row| (row[0].to_owned(), (set(row[1]), set(row[2])))).collect();
    let logged = logged_events();
    assert!(logged.len() > 20, "{logged:#?}");
    for (event, documented) in &documented {
        assert_eq!(logged.get(event), Some(documented), "{event}");
    }
    for event in logged.keys() {
        assert!(documented.contains_key(event), "{event:?} is not in the page");
    }
}
