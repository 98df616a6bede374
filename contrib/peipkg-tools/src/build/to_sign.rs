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

/// Reads each `[[sign]]`, and reports every problem.
pub fn read_all(sections: Vec<Section<'_, '_>>) -> Vec<ToSign> {
    let mut found = Vec::new();
    for section in sections {
        found.extend(read(section, &found));
    }
    found
}

/// Reads a `[[sign]]` that follows those of `earlier`. Returns `None` if it has a problem.
fn read(mut section: Section<'_, '_>, earlier: &[ToSign]) -> Option<ToSign> {
    let path = section.required_text("path").and_then(|found| {
        let message = match clean(&found.value) {
            Some(path) if path.is_empty() => "is $DESTDIR itself, expected a file in it".to_owned(),
            Some(path) => match earlier.iter().find(|earlier| earlier.path == path) {
                Some(earlier) => {
                    format!("is the file of the [[sign]] in line {}, expected each file once", earlier.line)
                }
                None => return Some(path),
            },
            None => "escapes $DESTDIR, expected a path relative to it".to_owned(),
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
