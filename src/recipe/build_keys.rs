//! The keys of a recipe that only a build uses, as far as the manager reads them. A wrong one is no
//! reason to refuse the recipe: the caller drops what is reported.

use peipkg_format::description::check_description;
use peipkg_format::problem::Problem;
use peipkg_format::strict_toml::Section;

/// Reads the build script, with its line.
pub(super) fn build_script(mut meta: Section<'_, '_>) -> Option<(String, usize)> {
    let script = meta.required_text("build_script")?;
    let line = meta.line_of(&script.span);
    Some((script.value, line))
}

/// Finds a description that every build refuses.
pub(super) fn unfit_description(mut stanza: Section<'_, '_>) -> Option<Problem> {
    let found = stanza.optional::<String>("description")?;
    let reason = check_description(&found.value).err()?;
    let message = format!("{} {:?} {reason}", stanza.path_of("description"), found.value);
    Some(stanza.remark(&found.span, message))
}

/// Reads the names of the keys in `[[sign]]`, each with its first line.
pub(super) fn sign_keys(sections: Vec<Section<'_, '_>>) -> Vec<(String, usize)> {
    let mut keys: Vec<(String, usize)> = Vec::new();
    for mut section in sections {
        let Some(key) = section.optional::<String>("key") else { continue };
        if !key.value.is_empty() && !keys.iter().any(|(known, _)| *known == key.value) {
            let line = section.line_of(&key.span);
            keys.push((key.value, line));
        }
    }
    keys
}
