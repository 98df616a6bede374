//! `[[signing_key]]` and `[[grant]]`: the keys to sign binaries with, and which recipe may use which
//! key. A recipe gets only the keys that its grant lists. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use peipkg_format::strict_toml::{At, Section};

use super::values::{file, optional_text};
use crate::recipe;

/// The variables of every build script. A public key must not replace one of them.
const BUILD_VARIABLES: [&str; 6] = ["SOURCE_DIR", "DESTDIR", "SOURCE_DATE_EPOCH", "LC_ALL", "TZ", "PATH"];

/// A private key to sign binaries with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryKey {
    /// Its name in grants and recipes; without `=`.
    pub name: String,
    /// The private key's file.
    pub private: PathBuf,
    /// The variable that holds its public key in a build.
    pub pubkey_env: Option<String>,
}

/// A public key in a build's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectedKey {
    /// The variable's name.
    pub env: String,
    /// The private key's file, from which the public key is derived.
    pub private: PathBuf,
}

/// The keys that one recipe may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// The line of its `recipe` in the configuration file.
    pub line: usize,
    /// The public keys that the recipe's builds get, each in its own variable.
    pub inject_pubkey: Vec<InjectedKey>,
    /// The keys to sign the recipe's binaries with.
    pub sign: Vec<BinaryKey>,
}

/// The declared keys by name; `None` is a key with a problem, which has been reported.
pub(super) type Declared = BTreeMap<String, Option<BinaryKey>>;

/// Reads `[[signing_key]]`.
pub(super) fn binary_keys(sections: Vec<Section<'_, '_>>, state_dir: Option<&Path>) -> Declared {
    let mut declared = Declared::new();
    for mut section in sections {
        let name = section.required_text("name");
        let private = section
            .required_text("private")
            .and_then(|found| file(&section, "[[signing_key]] private", found, state_dir));
        let pubkey_env = optional_text(&mut section, "pubkey_env")
            .map_or(Some(None), |found| variable(&section, found).map(Some));
        if let Some(name) = name {
            check_name(&section, &name);
            let complete = private.zip(pubkey_env);
            let key = complete.map(|(private, pubkey_env)| BinaryKey {
                name: name.value.clone(),
                private,
                pubkey_env,
            });
            match declared.entry(name.value) {
                Entry::Vacant(entry) => {
                    entry.insert(key);
                }
                Entry::Occupied(entry) => {
                    let message = format!("[[signing_key]] name {:?} is declared twice", entry.key());
                    section.report(&name.span, message);
                }
            }
        }
        section.deny_unknown_keys();
    }
    declared
}

/// Reads `[[grant]]` and looks up the keys that it names. Returns the grants by recipe id.
pub(super) fn grants(sections: Vec<Section<'_, '_>>, declared: &Declared) -> BTreeMap<String, Grant> {
    let mut grants = BTreeMap::new();
    for mut section in sections {
        let recipe = section.required_text("recipe");
        let injected = named_keys(&mut section, "inject_pubkey", declared);
        let sign = named_keys(&mut section, "sign", declared).into_iter().map(|key| key.value).collect();
        let inject_pubkey = injected_keys(&section, injected);
        if let Some(recipe) = recipe {
            if let Err(reason) = recipe::check_id(&recipe.value) {
                section.report(&recipe.span, format!("[[grant]] recipe {reason}"));
            }
            if grants.contains_key(&recipe.value) {
                let message =
                    format!("[[grant]] recipe {:?} has two grants, one must list all", recipe.value);
                section.report(&recipe.span, message);
            }
            let line = section.line_of(&recipe.span);
            grants.insert(recipe.value, Grant { line, inject_pubkey, sign });
        }
        section.deny_unknown_keys();
    }
    grants
}

/// Returns the keys that the array `key` of a grant names, each with the array's place.
fn named_keys(section: &mut Section<'_, '_>, key: &'static str, declared: &Declared) -> Vec<At<BinaryKey>> {
    let Some(names) = section.optional::<Vec<String>>(key) else { return Vec::new() };
    let mut keys = Vec::new();
    let mut seen = BTreeSet::new();
    for name in &names.value {
        if !seen.insert(name) {
            section.report(&names.span, format!("[[grant]] {key} names {name:?} twice"));
            continue;
        }
        match declared.get(name) {
            Some(Some(found)) => keys.push(At { value: found.clone(), span: names.span.clone() }),
            Some(None) => {}
            None => {
                let known: Vec<&str> = declared.keys().map(String::as_str).collect();
                let known = if known.is_empty() {
                    "no [[signing_key]] is declared".to_owned()
                } else {
                    format!("declared are: {}", known.join(", "))
                };
                section
                    .report(&names.span, format!("[[grant]] {key}: unknown signing key {name:?}; {known}"));
            }
        }
    }
    keys
}

fn injected_keys(section: &Section<'_, '_>, keys: Vec<At<BinaryKey>>) -> Vec<InjectedKey> {
    let mut injected: Vec<InjectedKey> = Vec::new();
    for At { value: key, span } in keys {
        let Some(env) = key.pubkey_env else {
            let message = format!(
                "[[grant]] inject_pubkey: signing key {:?} has no pubkey_env to name the variable",
                key.name
            );
            section.report(&span, message);
            continue;
        };
        if injected.iter().any(|other| other.env == env) {
            let message = format!("[[grant]] inject_pubkey: two keys have the pubkey_env {env:?}");
            section.report(&span, message);
        }
        injected.push(InjectedKey { env, private: key.private });
    }
    injected
}

/// Checks the name of a key: the name becomes part of an argument `NAME=PATH`.
fn check_name(section: &Section<'_, '_>, found: &At<String>) {
    let name = &found.value;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(allowed) {
        let message = format!(
            "[[signing_key]] name must be ASCII letters, digits, '.', '_' or '-' \
             and start with a letter or digit, found {name:?}"
        );
        section.report(&found.span, message);
    }
}

/// Checks and returns a variable's name.
fn variable(section: &Section<'_, '_>, found: At<String>) -> Option<String> {
    let name = &found.value;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let problem = if BUILD_VARIABLES.contains(&name.as_str()) {
        "is a variable that every build has, choose another"
    } else if recipe::EXPORTED_VARIABLES.contains(&name.as_str()) {
        "is a variable of builds with export_version, choose another"
    } else if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(allowed) {
        "is not a variable's name, use ASCII letters, digits and '_'"
    } else {
        return Some(found.value);
    };
    section.report(&found.span, format!("[[signing_key]] pubkey_env {name:?} {problem}"));
    None
}
