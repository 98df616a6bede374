//! Reads the documents: their text, and the commands in them.

use std::fs;
use std::path::Path;

/// The text of the page at `path` in the source.
#[track_caller]
pub fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The section of `page` under `heading` (`## Set up`), up to the next heading of the same level.
#[track_caller]
pub fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = format!("\n{heading}\n");
    let rank = heading.split(' ').next().expect("a heading");
    let (_, text) = page.split_once(&start).unwrap_or_else(|| panic!("there is no {heading:?}"));
    text.split(&format!("\n{rank} ")).next().expect("a first part")
}

/// Joins the content of all fenced blocks of `language` in `text`.
#[track_caller]
pub fn blocks(text: &str, language: &str) -> String {
    let fence = format!("```{language}\n");
    let found: String = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!found.is_empty(), "there is no block of {language} in {text}");
    found
}

/// The shell commands in `text`, without `sudo` and without the `make` that builds, which the test
/// run has done.
#[track_caller]
pub fn commands(text: &str) -> String {
    let lines = blocks(text, "sh");
    let lines = lines.lines().map(|line| line.strip_prefix("sudo ").unwrap_or(line));
    lines.filter(|line| *line != "make").map(|line| format!("{line}\n")).collect()
}

/// A fenced block of a page, or an example of a manual page.
#[derive(Debug, Clone)]
pub struct Block {
    /// `docs/recipes.md:35`, for messages.
    pub place: String,
    /// The word after the fence: `sh`, `console`, `toml`, …; may be empty.
    pub language: String,
    /// The text, without the indentation of a list around it.
    pub text: String,
}

impl Block {
    /// The path of the file that the block shows, if its first line is a comment with only a path.
    pub fn file(&self) -> Option<&str> {
        let path = self.text.lines().next()?.strip_prefix("# ")?;
        let is_path = path.contains('/') && !path.contains(' ') && path.contains('.');
        (is_path && ["sh", "toml", "ini"].contains(&self.language.as_str())).then_some(path)
    }

    /// The commands of a console, each with the output that the page shows; `None` if the block
    /// does not begin with a command.
    pub fn session(&self) -> Option<Vec<(String, String)>> {
        let mut steps: Vec<(String, String)> = Vec::new();
        let mut goes_on = false;
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push((command.to_owned(), String::new())),
                (None, None) => return None,
                (None, Some((command, _))) if goes_on => *command += &format!("\n{line}"),
                (None, Some((_, output))) => *output += &format!("{line}\n"),
            }
            goes_on = line.ends_with('\\');
        }
        Some(steps)
    }

    /// The shell text of the block: all of it, or the commands of a console.
    pub fn script(&self) -> Option<String> {
        match self.language.as_str() {
            "sh" => Some(self.text.clone()),
            "console" => Some(self.session()?.into_iter().map(|(command, _)| command + "\n").collect()),
            _ => None,
        }
    }
}

/// All fenced blocks of the page at `path`, in order.
#[track_caller]
pub fn fenced(path: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<usize> = None;
    for (number, line) in page(path).lines().enumerate() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        match (content.strip_prefix("```"), open) {
            (Some(language), None) => {
                open = Some(indent);
                let place = format!("{path}:{}", number + 1);
                blocks.push(Block { place, language: language.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => open = None,
            (None, Some(indent)) => {
                let block = blocks.last_mut().expect("an open block");
                block.text += line.get(indent..).unwrap_or(content);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{path}: a block does not end");
    blocks
}

/// The operators' pages with commands: the front page, those in `docs/`, and those beside the
/// examples.
pub fn all() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec!["README.md".to_owned()];
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(root.join(directory)).expect("a directory").flatten();
        entries.map(|entry| format!("{directory}/{}", entry.file_name().to_string_lossy())).collect()
    };
    let is_page = |name: &String| Path::new(name).extension().is_some_and(|kind| kind == "md");
    found.extend(names("docs").into_iter().filter(is_page));
    let examples = names("contrib").into_iter().map(|name| format!("{name}/README.md"));
    found.extend(examples.filter(|name| root.join(name).exists()));
    found.sort();
    found
}
