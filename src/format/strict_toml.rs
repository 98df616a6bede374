//! Reads TOML strictly: a key that the reader does not know is a problem, and every problem names
//! its line. Pure: the text is an argument.
//!
//! Collects all problems of a file, so that one run reports them together. Derived deserializers
//! would stop at the first one.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::Problem;
use crate::sort;

/// A parsed document and the problems found in it so far.
#[derive(Debug)]
pub struct Document<'t> {
    path: PathBuf,
    text: &'t str,
    /// The offsets of its line breaks. Without them, a file with thousands of errors would be
    /// scanned once for each.
    newlines: Vec<usize>,
    root: DeTable<'t>,
    problems: RefCell<Vec<Problem>>,
}

/// A value and its place in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its bytes in the document.
    pub span: Range<usize>,
}

/// One table of the document. Remembers which keys the reader asked for.
#[derive(Debug)]
pub struct Section<'d, 't> {
    document: &'d Document<'t>,
    /// The table's name in messages, such as `[upstream]`; empty at the top level.
    name: String,
    table: &'d DeTable<'t>,
    span: Range<usize>,
    known: Vec<&'static str>,
}

/// A type that a TOML value can be read as.
pub trait FromToml: Sized {
    /// The type's name in messages, with its article.
    const EXPECTED: &'static str;
    /// Returns the value, or `None` if it has another type.
    fn from_toml(value: &DeValue<'_>) -> Option<Self>;
    /// Returns the place of the first element that is no string in what should be an array of them.
    fn wrong_element(_: &DeValue<'_>) -> Option<usize> {
        None
    }
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
    fn wrong_element(value: &DeValue<'_>) -> Option<usize> {
        value.as_array()?.iter().position(|item| item.get_ref().as_str().is_none())
    }
}

impl<'t> Document<'t> {
    /// Parses `text`. Problems name it by `path`.
    ///
    /// # Errors
    /// The first syntax error of each line, with its column: further errors of the line are mostly
    /// consequences of the first.
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
            // The usual cause is a regular expression in double quotes.
            let advice =
                if message.contains("escape") { "; single quotes leave backslashes alone" } else { "" };
            document.report(&at, format!("not valid TOML: {message} (column {column}){advice}"));
        }
        if errors.is_empty() { Ok(document) } else { Err(document.into_problems()) }
    }

    /// Returns the top-level table.
    pub fn root(&self) -> Section<'_, 't> {
        Section { document: self, name: String::new(), table: &self.root, span: 0..0, known: Vec::new() }
    }

    /// Adds a problem at `span`.
    pub fn report(&self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().push(self.problem(span, message));
    }

    fn problem(&self, span: &Range<usize>, message: impl Into<String>) -> Problem {
        Problem { path: self.path.clone(), line: Some(self.line(span.start)), message: message.into() }
    }

    /// Drops the problems found so far: those of a section that another program reads strictly.
    pub fn discard_problems(&self) {
        self.problems.borrow_mut().clear();
    }

    /// Returns all problems, in the order of their lines.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        sort::sort_by(&mut problems, |a, b| a.line.cmp(&b.line));
        problems
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.newlines.partition_point(|at| *at < offset)
    }

    fn column(&self, offset: usize) -> usize {
        let line_start = self.newlines[..self.line(offset) - 1].last().map_or(0, |at| at + 1);
        let before = &self.text.as_bytes()[line_start..offset.min(self.text.len())];
        1 + String::from_utf8_lossy(before).chars().count()
    }
}

impl<'d, 't> Section<'d, 't> {
    /// Returns the section's place in the document.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// Returns the line at which `span` begins, counted from 1.
    pub fn line_of(&self, span: &Range<usize>) -> usize {
        self.document.line(span.start)
    }

    /// Adds a problem at `span` to the document's.
    pub fn report(&self, span: &Range<usize>, message: impl Into<String>) {
        self.document.report(span, message);
    }

    /// Makes a remark at `span`, such as a warning, and leaves it to the caller: it is not among
    /// the document's problems.
    pub fn remark(&self, span: &Range<usize>, message: impl Into<String>) -> Problem {
        self.document.problem(span, message)
    }

    /// Reads a key that may be absent. Reports a value of another type.
    pub fn optional<T: FromToml>(&mut self, key: &'static str) -> Option<At<T>> {
        let value = self.get(key)?;
        let found = T::from_toml(value.get_ref());
        if found.is_none() {
            let items = value.get_ref().as_array();
            match T::wrong_element(value.get_ref()).and_then(|place| Some((place, items?.get(place)?))) {
                Some((place, item)) => {
                    self.report_type(&format!("{key}: element {}", place + 1), item, String::EXPECTED);
                }
                None => self.report_type(key, value, T::EXPECTED),
            }
        }
        Some(At { value: found?, span: value.span() })
    }

    /// Reads a key, and reports its absence.
    pub fn required<T: FromToml>(&mut self, key: &'static str) -> Option<At<T>> {
        if !self.table.contains_key(key) {
            self.report(&self.span, format!("missing key {key:?} {}", self.place()));
        }
        self.optional(key)
    }

    /// Reads a required string, and reports an empty one.
    pub fn required_text(&mut self, key: &'static str) -> Option<At<String>> {
        let found = self.required::<String>(key)?;
        if found.value.is_empty() {
            self.report(&found.span, format!("{} must not be empty", self.path_of(key)));
            return None;
        }
        Some(found)
    }

    /// Returns a sub-table, if there is one.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'d, 't>> {
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.report_type(key, value, "a table");
            return None;
        };
        Some(self.child(format!("[{}]", self.path_of(key)), table, value.span()))
    }

    /// Returns a sub-table, and reports its absence.
    pub fn required_section(&mut self, key: &'static str) -> Option<Section<'d, 't>> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.report(&self.span.clone(), format!("missing section [{}]", self.path_of(key)));
            return None;
        }
        self.section(key)
    }

    /// Returns the tables of a table whose keys the author chooses, each with its key; none if the
    /// key is absent.
    pub fn named_sections(&mut self, key: &'static str) -> Vec<(&'d str, Section<'d, 't>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(tables) = value.get_ref().as_table() else {
            self.report_type(key, value, "a table");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (name, item) in tables {
            let place = format!("{key} {:?}", name.get_ref());
            match item.get_ref().as_table() {
                Some(table) => {
                    sections.push((&**name.get_ref(), self.child(self.path_of(&place), table, name.span())));
                }
                None => self.report_type(&place, item, "a table"),
            }
        }
        sections
    }

    /// Returns the elements of an array of tables; none if the key is absent.
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

    /// Finds a key that looks like a misspelling of `key`, which is absent, or has some but not all of
    /// its tables. For documents in which other programs have keys, so that
    /// [`Section::deny_unknown_keys`] is too strict. The first letter must match: with another one, it
    /// is often another word.
    pub fn misspelt(&self, key: &str) -> Option<At<&'d str>> {
        let is_alike = |found: &str| {
            let first = |word: &str| word.chars().next().map(|first| first.to_ascii_lowercase());
            let distance = strsim::damerau_levenshtein(&found.to_ascii_lowercase(), key);
            first(found) == first(key) && distance <= 1 + key.len() / 8
        };
        let present = self.table.get(key).map(|value| value.get_ref().is_array());
        let is_missed = |value: &DeValue<'_>| match present {
            None => true,
            // One [[stanza]] of several may be misspelt.
            Some(is_array) => is_array && value.is_array(),
        };
        let is_unknown = |found: &str| !self.known.contains(&found);
        let (found, _) = self.table.iter().find(|(found, value)| {
            is_unknown(found.get_ref()) && is_missed(value.get_ref()) && is_alike(found.get_ref())
        })?;
        Some(At { value: found.get_ref(), span: found.span() })
    }

    /// Reports every key that the reader did not ask for, with the most similar known one.
    pub fn deny_unknown_keys(self) {
        for (key, _) in self.table {
            let found: &str = key.get_ref();
            if self.known.contains(&found) {
                continue;
            }
            let advice = match self.most_similar(found) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.report(&key.span(), format!("unknown key {found:?} {}; {advice}", self.place()));
        }
    }

    /// Reports keys that are [misspelt](Self::misspelt) ones of those that the reader asked for. Takes
    /// other keys for those of other readers.
    pub fn deny_misspelt_keys(self) {
        for known in &self.known {
            if let Some(At { value, span }) = self.misspelt(known) {
                let message = format!("unknown key {value:?} {}; did you mean {known:?}?", self.place());
                self.report(&span, message);
            }
        }
    }

    fn most_similar(&self, found: &str) -> Option<&'static str> {
        let near = self.known.iter().map(|known| (strsim::damerau_levenshtein(found, known), *known));
        // Of a short key, two other letters make another word.
        near.filter(|(distance, known)| *distance <= 1 + known.len() / 6).min().map(|(_, known)| known)
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

    /// Returns the name of `key` in messages, such as `[upstream] git`.
    pub fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{} {key}", self.name) }
    }

    fn place(&self) -> String {
        if self.name.is_empty() { "at the top level".to_owned() } else { format!("in {}", self.name) }
    }

    fn report_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = value.get_ref().type_str();
        let message = format!("{}: expected {expected}, found {found}", self.path_of(key));
        self.report(&value.span(), message);
    }
}

#[cfg(test)]
mod tests;
