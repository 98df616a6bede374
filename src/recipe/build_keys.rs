//! The keys of a recipe that only a build uses, as far as the manager reads them. A wrong one is no
//! reason to refuse the recipe: the caller drops what is reported.

use peipkg_format::description::check_description;
use peipkg_format::problem::Problem;
use peipkg_format::strict_toml::Section;

/// What the reader of the roster compares with the recipe's files, the other recipes and the grants,
/// and then drops.
#[derive(Debug)]
pub(crate) struct BuildKeys {
    /// The line of each package in the file.
    pub package_lines: Vec<usize>,
    /// The keys that its builds sign binaries with, each with its first line in the file.
    pub sign_keys: Vec<(String, usize)>,
    /// The build script, relative to the recipe's directory, with its line in the file.
    pub build_script: Option<(String, usize)>,
    /// The line of `[upstream] signers`.
    pub signers_line: Option<usize>,
    /// Why all its builds will fail, as far as its text tells.
    pub unbuildable: Vec<Problem>,
}

impl BuildKeys {
    /// Reads them from the top level of a recipe. The caller adds the lines of the packages.
    pub(super) fn read(root: &mut Section<'_, '_>) -> Self {
        Self {
            package_lines: Vec::new(),
            sign_keys: sign_keys(root.sections("sign")),
            build_script: root.section("meta").and_then(build_script),
            signers_line: root.section("upstream").and_then(|mut upstream| {
                upstream.optional::<String>("signers").map(|found| upstream.line_of(&found.span))
            }),
            unbuildable: root.sections("package").into_iter().filter_map(unfit_description).collect(),
        }
    }
}

/// Reads the build script, with its line.
fn build_script(mut meta: Section<'_, '_>) -> Option<(String, usize)> {
    let script = meta.required_text("build_script")?;
    let line = meta.line_of(&script.span);
    Some((script.value, line))
}

/// Finds a description that every build refuses.
fn unfit_description(mut stanza: Section<'_, '_>) -> Option<Problem> {
    let found = stanza.optional::<String>("description")?;
    let reason = check_description(&found.value).err()?;
    let message = format!("{} {:?} {reason}", stanza.path_of("description"), found.value);
    Some(stanza.remark(&found.span, message))
}

/// Reads the names of the keys in `[[sign]]`, each with its first line.
fn sign_keys(sections: Vec<Section<'_, '_>>) -> Vec<(String, usize)> {
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
