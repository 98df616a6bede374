//! Values that several sections share: texts of one line, and paths outside the directories that
//! the manager manages. Pure.

use std::path::{Path, PathBuf};

use peipkg_format::strict_toml::{At, Section};

/// The directories below the state directory whose contents come and go, or get published.
pub(crate) const STATE_SUBDIRS: [&str; 5] = ["sources", "stage", "publish", "repo", "logs"];

/// A string that is there and not empty.
pub(super) fn optional_text(section: &mut Section<'_, '_>, key: &'static str) -> Option<At<String>> {
    section.optional::<String>(key).filter(|found| !found.value.is_empty())
}

/// A string of one line, as it ends up in arguments, logs and the repository; `key` names it in messages.
pub(super) fn line(section: &Section<'_, '_>, key: &str, found: At<String>) -> Option<String> {
    let Some(control) = found.value.chars().find(|c| c.is_control()) else { return Some(found.value) };
    let message = format!("{key}: {:?} has the control character {control:?}", found.value);
    section.report(&found.span, message);
    None
}

/// An absolute path outside the directories that the manager fills, empties and
/// publishes: what lay there would be lost, or a private key made public.
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
