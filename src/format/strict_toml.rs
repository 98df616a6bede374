//! A TOML document read strictly: every key that nobody asked for is an error,
//! and every error names its line.
//!
//! The configuration and the recipes are read through [`Section`]s rather than
//! by derived deserializers because those stop at the first error; here all
//! problems of a file are collected, so that `--check` reports them together.
//! Pure: the text is an argument.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::Problem;

/// A parsed document and the problems found in it so far.
#[derive(Debug)]
pub struct Document<'t> {
    path: PathBuf,
    text: &'t str,
    /// Where its lines end: a file full of errors asks for thousands of line numbers.
    newlines: Vec<usize>,
    root: DeTable<'t>,
    problems: RefCell<Vec<Problem>>,
}

/// A value together with the place it stands at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its bytes in the document.
    pub span: Range<usize>,
}

/// One table of the document, which remembers the keys it was asked for.
#[derive(Debug)]
pub struct Section<'d, 't> {
    document: &'d Document<'t>,
    /// How the table is named in messages, such as `[upstream]`; empty at the top level.
    name: String,
    table: &'d DeTable<'t>,
    span: Range<usize>,
    known: Vec<&'static str>,
}

/// A type that a TOML value can be read as.
pub trait FromToml: Sized {
    /// What messages call the type, with its article.
    const EXPECTED: &'static str;
    /// The value, or `None` when it is of another type.
    fn from_toml(value: &DeValue<'_>) -> Option<Self>;
}

impl FromToml for String {
    const EXPECTED: &'static str = "a string";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl FromToml for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl FromToml for i64 {
    const EXPECTED: &'static str = "an integer";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        let integer = value.as_integer()?;
        Self::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

impl FromToml for Vec<String> {
    const EXPECTED: &'static str = "an array of strings";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        let items = value.as_array()?;
        items.iter().map(|item| String::from_toml(item.get_ref())).collect()
    }
}

impl<'t> Document<'t> {
    /// Parses `text`; `path` is only used to name the file in problems.
    ///
    /// # Errors
    /// The first syntax error of each line, with its column: what follows it on
    /// the same line is mostly the parser finding its way back.
    pub fn parse(path: &Path, text: &'t str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let newlines =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        let (path, root) = (path.to_owned(), root.into_inner());
        let document = Self { path, text, newlines, root, problems: RefCell::default() };
        let mut last_line = 0;
        for error in &errors {
            let at = error.span().unwrap_or(0..0);
            let line = document.line(at.start);
            if std::mem::replace(&mut last_line, line) == line {
                continue;
            }
            let message = error.message().replace('\n', ", ");
            let column = document.column(at.start);
            // A pattern in double quotes, mostly.
            let advice =
                if message.contains("escape") { "; single quotes leave backslashes alone" } else { "" };
            document.report(&at, format!("not valid TOML: {message} (column {column}){advice}"));
        }
        if errors.is_empty() { Ok(document) } else { Err(document.into_problems()) }
    }

    /// The top-level table.
    pub fn root(&self) -> Section<'_, 't> {
        Section { document: self, name: String::new(), table: &self.root, span: 0..0, known: Vec::new() }
    }

    /// Notes a problem at a place in the document.
    pub fn report(&self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().push(self.problem(span, message));
    }

    fn problem(&self, span: &Range<usize>, message: impl Into<String>) -> Problem {
        Problem { path: self.path.clone(), line: Some(self.line(span.start)), message: message.into() }
    }

    /// All problems noted, in the order of their lines.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }

    fn before(&self, offset: usize) -> &[u8] {
        &self.text.as_bytes()[..offset.min(self.text.len())]
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.newlines.partition_point(|at| *at < offset)
    }

    fn column(&self, offset: usize) -> usize {
        let before = self.before(offset);
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        1 + String::from_utf8_lossy(&before[line_start..]).chars().count()
    }
}

impl<'d, 't> Section<'d, 't> {
    /// Where the section stands.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// The line at which `span` begins, counted from 1.
    pub fn line_of(&self, span: &Range<usize>) -> usize {
        self.document.line(span.start)
    }

    /// Notes a problem at `span`.
    pub fn report(&self, span: &Range<usize>, message: impl Into<String>) {
        self.document.report(span, message);
    }

    /// A remark on a place in the document that is no problem of it, such as a warning.
    pub fn remark(&self, span: &Range<usize>, message: impl Into<String>) -> Problem {
        self.document.problem(span, message)
    }

    /// A key that may be absent; a value of another type is a problem.
    pub fn optional<T: FromToml>(&mut self, key: &'static str) -> Option<At<T>> {
        let value = self.get(key)?;
        let found = T::from_toml(value.get_ref());
        if found.is_none() {
            self.report_type(key, value, T::EXPECTED);
        }
        Some(At { value: found?, span: value.span() })
    }

    /// A key that must be there; its absence is a problem.
    pub fn required<T: FromToml>(&mut self, key: &'static str) -> Option<At<T>> {
        if !self.table.contains_key(key) {
            self.report_missing(key);
        }
        self.optional(key)
    }

    /// A required string that must not be empty.
    pub fn required_text(&mut self, key: &'static str) -> Option<At<String>> {
        let found = self.required::<String>(key)?;
        if found.value.is_empty() {
            self.report(&found.span, format!("{} must not be empty", self.path_of(key)));
            return None;
        }
        Some(found)
    }

    /// A sub-table, if there is one.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'d, 't>> {
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.report_type(key, value, "a table");
            return None;
        };
        Some(self.child(format!("[{}]", self.path_of(key)), table, value.span()))
    }

    /// A sub-table that must be there.
    pub fn required_section(&mut self, key: &'static str) -> Option<Section<'d, 't>> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.report(&self.span.clone(), format!("missing section [{}]", self.path_of(key)));
            return None;
        }
        self.section(key)
    }

    /// The elements of an array of tables; none when the key is absent.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'d, 't>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.report_type(key, value, "an array of tables");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            match item.get_ref().as_table() {
                Some(table) => {
                    let name = if self.name.is_empty() {
                        format!("[[{key}]]")
                    } else {
                        format!("{} {key}", self.name)
                    };
                    sections.push(self.child(name, table, item.span()));
                }
                None => self.report_type(key, item, "a table"),
            }
        }
        sections
    }

    /// A key that was never asked for and looks like a slip of the pen for the
    /// absent `key`: for a document whose other keys are somebody else's. Its
    /// first letter must be right: another one often makes another word.
    pub fn misspelt(&self, key: &str) -> Option<At<&'d str>> {
        let alike = |found: &str| {
            let first = |word: &str| word.chars().next().map(|first| first.to_ascii_lowercase());
            let distance = strsim::damerau_levenshtein(&found.to_ascii_lowercase(), key);
            first(found) == first(key) && distance <= 1 + key.len() / 8
        };
        if self.table.contains_key(key) {
            return None;
        }
        let strangers = self.table.iter().map(|(found, _)| found);
        let found = strangers
            .filter(|found| !self.known.contains(&found.get_ref().as_ref()))
            .find(|found| alike(found.get_ref()))?;
        Some(At { value: found.get_ref(), span: found.span() })
    }

    /// Reports every key that was never asked for, with the nearest known one.
    pub fn deny_unknown_keys(self) {
        for (key, _) in self.table {
            let found: &str = key.get_ref();
            if self.known.contains(&found) {
                continue;
            }
            let near = self
                .known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(found, known), known))
                .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
                .min();
            let advice = match near {
                Some((_, known)) => format!("did you mean {known:?}?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let place = if self.name.is_empty() {
                "at the top level".to_owned()
            } else {
                format!("in {}", self.name)
            };
            self.report(&key.span(), format!("unknown key {found:?} {place}; {advice}"));
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'t>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    fn child(&self, name: String, table: &'d DeTable<'t>, span: Range<usize>) -> Section<'d, 't> {
        Section { document: self.document, name, table, span, known: Vec::new() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{} {key}", self.name) }
    }

    fn report_missing(&self, key: &str) {
        let place =
            if self.name.is_empty() { "at the top level".to_owned() } else { format!("in {}", self.name) };
        self.report(&self.span, format!("missing key {key:?} {place}"));
    }

    fn report_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = value.get_ref().type_str();
        let message = format!("{}: expected {expected}, found {found}", self.path_of(key));
        self.report(&value.span(), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, read: impl FnOnce(&mut Section<'_, '_>)) -> Vec<String> {
        let document = match Document::parse(Path::new("c.toml"), text) {
            Ok(document) => document,
            Err(problems) => return problems.iter().map(ToString::to_string).collect(),
        };
        let mut root = document.root();
        read(&mut root);
        root.deny_unknown_keys();
        document.into_problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn problems_name_line_key_and_remedy() {
        let text = "[poll]\njobs = \"x\"\ndefault_intervall = 1\nzzz = 2\n[other]\n";
        let found = problems(text, |root| {
            let mut poll = root.section("poll").unwrap();
            assert_eq!(poll.optional::<i64>("jobs"), None);
            assert_eq!(poll.required::<String>("default_interval"), None);
            poll.deny_unknown_keys();
            assert!(root.required_section("manager").is_none());
        });
        assert_eq!(
            found,
            [
                "c.toml:1: missing key \"default_interval\" in [poll]",
                "c.toml:1: missing section [manager]",
                "c.toml:2: [poll] jobs: expected an integer, found string",
                "c.toml:3: unknown key \"default_intervall\" in [poll]; did you mean \"default_interval\"?",
                "c.toml:4: unknown key \"zzz\" in [poll]; known here: jobs, default_interval",
                "c.toml:5: unknown key \"other\" at the top level; known here: poll, manager",
            ]
        );
    }

    #[test]
    fn syntax_error_has_line_and_column() {
        let found = problems("a = 1\nb = \n", |_| ());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("c.toml:2: not valid TOML: "), "{found:?}");
        assert!(found[0].ends_with("(column 5)"), "{found:?}");
        let found = problems("a = = b\nc = = d\n", |_| ());
        assert!(
            matches!(&found[..], [a, b] if a.starts_with("c.toml:1:") && b.starts_with("c.toml:2:")),
            "{found:?}"
        );
    }
}
