//! The payload entries that a manifest mentions: paths of security descriptors (PSD-009 §3.3.5) and
//! targets of claims (PSD-009 §4.4.2). Pure.

use std::collections::BTreeMap;

use super::Manifest;

/// The mentioned paths, each with whether the payload has it.
#[derive(Debug)]
pub struct Mentions {
    overrides: BTreeMap<String, bool>,
    targets: BTreeMap<String, bool>,
}

impl Mentions {
    /// Collects the paths of `manifest`; the payload has none yet.
    pub fn of(manifest: &Manifest) -> Self {
        let claims = manifest.provides.iter().flat_map(|one| one.claims.values());
        let targets = claims.filter_map(|claim| claim.target.as_deref());
        let below_root = |target: &str| target.strip_prefix('/').unwrap_or(target).to_owned();
        Self {
            overrides: manifest.sd_overrides.iter().map(|one| (one.path.clone(), false)).collect(),
            targets: targets.map(|target| (below_root(target), false)).collect(),
        }
    }

    /// Records that the payload has an entry, given by its exact path in the archive.
    pub fn add(&mut self, path: &str, is_link: bool) {
        // A link has no security descriptor of its own.
        if !is_link && let Some(found) = self.overrides.get_mut(path) {
            *found = true;
        }
        if let Some(found) = self.targets.get_mut(path.strip_suffix('/').unwrap_or(path)) {
            *found = true;
        }
    }

    /// Returns a line for each mentioned path that the payload lacks.
    pub fn missing(&self) -> Vec<String> {
        let missing = |map: &BTreeMap<String, bool>, line: fn(&str) -> String| -> Vec<String> {
            map.iter().filter(|(_, found)| !**found).map(|(path, _)| line(path)).collect()
        };
        let mut lines = missing(&self.overrides, |path| {
            format!("sd_overrides: {path:?} is no file or directory of the payload")
        });
        lines.extend(missing(&self.targets, |path| {
            format!("provides: the target of a claim, \"/{}\", is not in the payload", path.escape_debug())
        }));
        lines
    }
}
