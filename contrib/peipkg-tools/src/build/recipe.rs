//! The packages that a recipe declares (PSD-009 appendix A.2). Pure: the text is an argument.
//!
//! Reads `[meta]`, `[[package]]` and `[[sign]]` strictly, and ignores the other sections, which belong
//! to other tools. Reports all problems, each with its line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use peipkg_format::description::check_description;
use peipkg_format::package::{PackageName, check_package_name};
use peipkg_format::problem::Problem;
use peipkg_format::strict_toml::{At, Document, Section};
use peipkg_format::version::Version;

use super::pattern::Pattern;
use super::to_sign::{self, ToSign};
use crate::expression::{
    Rule, SIDE_EFFECTS, check_constraint, check_homepage, check_line, check_relaxed_version,
    check_root_reference, check_virtual_name,
};
use crate::manifest::rules::{Side, claim_problems};
use crate::manifest::{Claim, Dependency, Provides, Replaces};
use crate::payload::is_known_architecture;

/// A recipe, completed with the version of the build.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipe {
    /// SPDX expression, or empty.
    pub license: String,
    /// URL, or empty.
    pub homepage: String,
    /// The build script, relative to the recipe's directory.
    pub script: PathBuf,
    /// The declared packages, at least one.
    pub packages: Vec<Stanza>,
    /// The binaries to sign, in the order of the recipe.
    pub sign: Vec<ToSign>,
}

/// One `[[package]]`: the manifest fields that the recipe sets, and the files of the package.
#[derive(Debug, PartialEq, Eq)]
pub struct Stanza {
    /// Name and architecture.
    pub id: PackageName,
    /// One line of printable characters, or empty.
    pub description: String,
    /// Sorted by name, like all relations.
    pub dependencies: Vec<Dependency>,
    /// See [`Stanza::dependencies`].
    pub optional_dependencies: Vec<Dependency>,
    /// See [`Stanza::dependencies`].
    pub conflicts: Vec<Dependency>,
    /// See [`Stanza::dependencies`].
    pub provides: Vec<Provides>,
    /// See [`Stanza::dependencies`].
    pub replaces: Vec<Replaces>,
    /// In the order of the recipe.
    pub side_effects: Vec<String>,
    /// The patterns that claim staged paths.
    pub files: Vec<Pattern>,
    /// Its line in the recipe.
    pub line: usize,
}

/// The packages of the same build, for `same_build`.
struct Siblings<'a> {
    names: Vec<String>,
    version: &'a Version,
}

/// Reads the recipe `text`. Problems name it by `path`. `check_script` looks for the build script,
/// whose path is relative to the recipe's directory, and returns the reason why it cannot be read.
///
/// # Errors
/// Every problem, in the order of lines.
pub fn parse(
    path: &Path,
    text: &str,
    version: &Version,
    check_script: impl Fn(&Path) -> Result<(), String>,
) -> Result<Recipe, Vec<Problem>> {
    let document = Document::parse(path, text)?;
    let mut root = document.root();
    let meta = root.required_section("meta").map(|meta| read_meta(meta, check_script));
    let stanzas = root.sections("package");
    if stanzas.is_empty() {
        root.report(&(0..0), "missing section [[package]]: at least one package is needed");
    }
    let packages = read_stanzas(stanzas, version);
    let sign = to_sign::read_all(root.sections("sign"));
    // With [[sing]] for [[sign]], a farm would publish unsigned binaries.
    root.deny_misspelt_keys();
    let problems = document.into_problems();
    match (meta.flatten(), packages.into_iter().collect::<Option<Vec<_>>>()) {
        (Some((license, homepage, script)), Some(packages)) if problems.is_empty() => {
            Ok(Recipe { license, homepage, script, packages, sign })
        }
        _ => Err(problems),
    }
}

fn read_meta(
    mut meta: Section<'_, '_>,
    check_script: impl Fn(&Path) -> Result<(), String>,
) -> Option<(String, String, PathBuf)> {
    let license = meta.optional::<String>("license");
    if let Some(license) = &license {
        check(&meta, "license", license, check_line);
    }
    let homepage = meta.optional::<String>("homepage").filter(|homepage| !homepage.value.is_empty());
    meta.optional::<String>("source");
    let script = meta.required_text("build_script");
    if let Some(homepage) = &homepage {
        check(&meta, "homepage", homepage, check_homepage);
    }
    if let Some(script) = &script {
        let path = Path::new(&script.value);
        if path.is_absolute() {
            meta.report(&script.span, "build_script must be relative to the recipe's directory");
        } else if let Err(reason) = check_script(path) {
            let message = format!("build_script {:?} cannot be read: {reason}", script.value);
            meta.report(&script.span, message);
        }
    }
    meta.deny_unknown_keys();
    Some((text_of(license), text_of(homepage), script?.value.into()))
}

fn read_stanzas(mut stanzas: Vec<Section<'_, '_>>, version: &Version) -> Vec<Option<Stanza>> {
    let declared: Vec<_> = stanzas.iter_mut().map(read_id).collect();
    let names = declared.iter().filter_map(|(name, _)| name.clone()).collect();
    let complete = |(name, architecture)| Some(PackageName { name: name?, architecture: architecture? });
    let ids: Vec<Option<PackageName>> = declared.into_iter().map(complete).collect();
    let siblings = Siblings { names, version };
    let mut packages = Vec::new();
    for (index, (mut stanza, id)) in stanzas.into_iter().zip(&ids).enumerate() {
        if id.is_some() && ids[..index].contains(id) {
            let place = stanza.optional::<String>("name").map_or(stanza.span().clone(), |name| name.span);
            stanza.report(&place, "a package of this name and architecture is already declared");
        }
        packages.push(read_stanza(stanza, id.clone(), &siblings));
    }
    packages
}

/// Reads name and architecture. Returns a valid one even if the other is missing, so that it still
/// counts in later checks.
fn read_id(stanza: &mut Section<'_, '_>) -> (Option<String>, Option<String>) {
    let name = stanza.required::<String>("name");
    let architecture = stanza.required::<String>("architecture");
    if let Some(name) = &name {
        check(stanza, "name", name, check_package_name);
    }
    if let Some(architecture) = architecture.as_ref().filter(|found| !is_known_architecture(&found.value)) {
        let found = &architecture.value;
        let message = format!("unknown architecture {found:?}; known are x86_64, aarch64 and noarch");
        stanza.report(&architecture.span, message);
    }
    (name.map(|name| name.value), architecture.map(|architecture| architecture.value))
}

fn read_stanza(
    mut stanza: Section<'_, '_>,
    id: Option<PackageName>,
    siblings: &Siblings<'_>,
) -> Option<Stanza> {
    let line = stanza.line_of(stanza.span());
    let own_name = id.as_ref().map_or("", |id| id.name.as_str());
    let description = stanza.optional::<String>("description");
    if let Some(description) = &description {
        check(&stanza, "description", description, check_description);
    }
    let mut dependencies = |key, rule, is_conflict| {
        let entries = stanza.sections(key);
        relations(
            entries,
            |entry| read_dependency(entry, rule, is_conflict, own_name, siblings),
            |entry| &entry.name,
        )
    };
    let (required, optional) = (
        dependencies("dependencies", check_virtual_name as Rule, false),
        dependencies("optional_dependencies", check_virtual_name, false),
    );
    let conflicts = dependencies("conflicts", check_package_name, true);
    let provides = relations(stanza.sections("provides"), read_provides, |entry| &entry.name);
    let replaces = relations(stanza.sections("replaces"), read_replaces, |entry| &entry.name);
    let side_effects = stanza.optional::<Vec<String>>("side_effects");
    if let Some(effects) = &side_effects {
        check_side_effects(&stanza, effects);
    }
    let files = stanza.required::<Vec<String>>("files");
    let files = files.map(|files| read_patterns(&stanza, files));
    stanza.deny_unknown_keys();
    Some(Stanza {
        id: id?,
        description: text_of(description),
        dependencies: required,
        optional_dependencies: optional,
        conflicts,
        provides,
        replaces,
        side_effects: side_effects.map(|effects| effects.value).unwrap_or_default(),
        files: files?,
        line,
    })
}

/// Reads the entries of one relation, sorted by name (PSD-009 §4.1.8).
fn relations<T>(
    entries: Vec<Section<'_, '_>>,
    mut read: impl FnMut(&mut Section<'_, '_>) -> Option<T>,
    name: impl Fn(&T) -> &String,
) -> Vec<T> {
    let mut found: Vec<T> = Vec::new();
    for mut entry in entries {
        if let Some(relation) = read(&mut entry) {
            if found.iter().any(|earlier| name(earlier) == name(&relation)) {
                let (key, name) = (entry.path_of("name"), name(&relation));
                let message =
                    format!("{key} {name:?} is listed twice; combine the constraints into one entry");
                entry.report(entry.span(), message);
            }
            found.push(relation);
        }
        entry.deny_unknown_keys();
    }
    found.sort_by(|a, b| name(a).cmp(name(b)));
    found
}

fn read_dependency(
    entry: &mut Section<'_, '_>,
    name_rule: Rule,
    is_conflict: bool,
    own_name: &str,
    siblings: &Siblings<'_>,
) -> Option<Dependency> {
    let name = read_checked(entry, "name", true, name_rule);
    let constraint = read_checked(entry, "constraint", false, check_constraint);
    let any =
        |arch: &str| if arch == "any" { Ok(()) } else { Err("is not \"any\", the only qualifier there is") };
    let arch = read_checked(entry, "arch", false, any);
    let (root, claims) = if is_conflict {
        (None, BTreeMap::new())
    } else {
        (read_checked(entry, "root", false, check_root_reference), read_claims(entry, Side::Consumer))
    };
    let same_build = entry.optional::<bool>("same_build");
    let name = name?;
    let mut constraint = constraint.map(|constraint| constraint.value);
    if let Some(same_build) = same_build.filter(|same_build| same_build.value) {
        if name.value == own_name || !siblings.names.contains(&name.value) {
            let message = format!("same_build: {:?} is not another package of this recipe", name.value);
            entry.report(&same_build.span, message);
        }
        let pinned = format!("= {}", siblings.version);
        if constraint.replace(pinned).is_some() {
            entry.report(&same_build.span, "same_build and constraint exclude each other");
        }
    }
    Some(Dependency {
        name: name.value,
        constraint,
        arch: arch.map(|arch| arch.value),
        root: root.map(|root| root.value),
        claims,
    })
}

fn read_provides(entry: &mut Section<'_, '_>) -> Option<Provides> {
    let name = read_checked(entry, "name", true, check_virtual_name);
    let version = read_checked(entry, "version", false, check_relaxed_version);
    let claims = read_claims(entry, Side::Provider);
    Some(Provides { name: name?.value, version: version.map(|version| version.value), claims })
}

/// Reads the slots of `claims`, which a relation of a recipe has as that of a manifest does.
fn read_claims(entry: &mut Section<'_, '_>, side: Side) -> BTreeMap<String, Claim> {
    let mut claims = BTreeMap::new();
    for (slot, mut section) in entry.named_sections("claims") {
        let mut text = |key| section.optional::<String>(key).map(|found| found.value);
        let claim = Claim { path: text("path"), target: text("target") };
        for problem in claim_problems(slot, &claim, side) {
            section.report(section.span(), format!("claims: {problem}"));
        }
        section.deny_unknown_keys();
        claims.insert(slot.to_owned(), claim);
    }
    claims
}

fn read_replaces(entry: &mut Section<'_, '_>) -> Option<Replaces> {
    let name = read_checked(entry, "name", true, check_package_name);
    let constraint = read_checked(entry, "constraint", false, check_constraint);
    Some(Replaces { name: name?.value, constraint: constraint.map(|constraint| constraint.value) })
}

fn check_side_effects(stanza: &Section<'_, '_>, effects: &At<Vec<String>>) {
    for (index, effect) in effects.value.iter().enumerate() {
        if !SIDE_EFFECTS.contains(&effect.as_str()) {
            let message = format!("unknown side effect {effect:?}; known are {}", SIDE_EFFECTS.join(", "));
            stanza.report(&effects.span, message);
        } else if effects.value[..index].contains(effect) {
            stanza.report(&effects.span, format!("side effect {effect:?} is listed twice"));
        }
    }
}

fn read_patterns(stanza: &Section<'_, '_>, files: At<Vec<String>>) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for text in files.value {
        match Pattern::parse(&text) {
            Ok(pattern) => patterns.push(pattern),
            Err(problem) => stanza.report(&files.span, format!("files: pattern {text:?} {problem}")),
        }
    }
    patterns
}

/// Reads a string and reports it if it breaks the rule.
fn read_checked(
    entry: &mut Section<'_, '_>,
    key: &'static str,
    required: bool,
    rule: impl Fn(&str) -> Result<(), &'static str>,
) -> Option<At<String>> {
    let found = if required { entry.required(key) } else { entry.optional(key) }?;
    check(entry, key, &found, rule);
    Some(found)
}

/// Reports the string of `key` if it breaks the rule.
fn check<E: Display>(
    section: &Section<'_, '_>,
    key: &str,
    text: &At<String>,
    rule: impl Fn(&str) -> Result<(), E>,
) {
    if let Err(problem) = rule(&text.value) {
        section.report(&text.span, format!("{} {:?} {problem}", section.path_of(key), text.value));
    }
}

fn text_of(text: Option<At<String>>) -> String {
    text.map(|text| text.value).unwrap_or_default()
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
