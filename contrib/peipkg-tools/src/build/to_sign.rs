//! `[[sign]]` of a recipe: which staged file to sign with which key. Pure.

use peipkg_format::strict_toml::Section;

/// A binary to sign.
#[derive(Debug, PartialEq, Eq)]
pub struct ToSign {
    /// Its path relative to `$DESTDIR`, cleaned: without empty, `.` and `..` components.
    pub path: String,
    /// The name of the key.
    pub key: String,
    /// The line of its `[[sign]]` in the recipe.
    pub line: usize,
}

/// Reads one `[[sign]]`. Reports every problem, and returns `None` if there is one.
pub fn read(mut section: Section<'_, '_>) -> Option<ToSign> {
    let path = section.required_text("path").and_then(|found| {
        let message = match clean(&found.value) {
            Some(path) if !path.is_empty() => return Some(path),
            Some(_) => "is $DESTDIR itself, expected a file in it",
            None => "escapes $DESTDIR, expected a path relative to it",
        };
        section.report(&found.span, format!("[[sign]] path {:?} {message}", found.value));
        None
    });
    let key = section.required_text("key");
    let line = section.line_of(section.span());
    section.deny_unknown_keys();
    Some(ToSign { path: path?, key: key?.value, line })
}

/// Cleans a path by its text alone. Returns `None` if it is absolute or leads above its beginning.
fn clean(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
