//! Values that several sections share: texts of one line, and paths outside the directories that
//! the manager fills. Pure.

use std::path::{Path, PathBuf};

use peipkg_format::strict_toml::{At, Section};

/// The directories below the state directory that the manager fills, empties and publishes.
pub(crate) const STATE_SUBDIRS: [&str; 6] =
    ["sources", "stage", "publish", "publish-set-aside", "repo", "logs"];

/// Reads an optional string. An empty one means no string.
pub(super) fn optional_text(section: &mut Section<'_, '_>, key: &'static str) -> Option<At<String>> {
    section.optional::<String>(key).filter(|found| !found.value.is_empty())
}

/// Checks that a string has one line: it becomes part of arguments, logs and the repository. `key`
/// names it in messages.
pub(super) fn line(section: &Section<'_, '_>, key: &str, found: At<String>) -> Option<String> {
    let Some(control) = found.value.chars().find(|c| c.is_control()) else { return Some(found.value) };
    let message = format!("{key}: {:?} has the control character {control:?}", found.value);
    section.report(&found.span, message);
    None
}

/// Checks that a path is absolute and outside [`STATE_SUBDIRS`]. The manager would remove a file
/// there, or publish a private key. `key` names the path in messages.
pub(super) fn file(
    section: &Section<'_, '_>,
    key: &str,
    found: At<String>,
    state_dir: Option<&Path>,
) -> Option<PathBuf> {
    let span = found.span.clone();
    let text = line(section, key, found)?;
    let path = Path::new(&text);
    if !path.is_absolute() {
        section.report(&span, format!("{key} must be an absolute path, found {text:?}"));
        return None;
    }
    let managed =
        state_dir.and_then(|state| STATE_SUBDIRS.into_iter().find(|sub| path.starts_with(state.join(sub))));
    if let Some(sub) = managed {
        let message = format!(
            "{key} must be outside the state_dir's {sub:?}, which the manager fills itself, found {text:?}"
        );
        section.report(&span, message);
        return None;
    }
    Some(text.into())
}
