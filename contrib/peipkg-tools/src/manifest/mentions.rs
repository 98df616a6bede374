//! The payload entries that a manifest speaks of: those with a security descriptor of their own
//! (PSD-009 §3.3.5) and the targets of its claims (PSD-009 §4.4.2). Pure.

use std::collections::BTreeMap;

use super::Manifest;

/// What the manifest mentions, each with whether the payload has it.
#[derive(Debug)]
pub struct Mentions {
    overrides: BTreeMap<String, bool>,
    targets: BTreeMap<String, bool>,
}

impl Mentions {
    /// What `manifest` mentions; nothing has been met.
    pub fn of(manifest: &Manifest) -> Self {
        let claims = manifest.provides.iter().flat_map(|one| one.claims.values());
        let targets = claims.filter_map(|claim| claim.target.as_deref());
        let below_root = |target: &str| target.strip_prefix('/').unwrap_or(target).to_owned();
        Self {
            overrides: manifest.sd_overrides.iter().map(|one| (one.path.clone(), false)).collect(),
            targets: targets.map(|target| (below_root(target), false)).collect(),
        }
    }

    /// Notes an entry of the payload by its path in the archive, as it stands there.
    pub fn meet(&mut self, path: &str, is_link: bool) {
        // A link has no descriptor to override.
        if !is_link && let Some(met) = self.overrides.get_mut(path) {
            *met = true;
        }
        if let Some(met) = self.targets.get_mut(path.strip_suffix('/').unwrap_or(path)) {
            *met = true;
        }
    }

    /// A line for everything that is mentioned and not in the payload.
    pub fn unmet(&self) -> Vec<String> {
        let left = |map: &BTreeMap<String, bool>, line: fn(&str) -> String| -> Vec<String> {
            map.iter().filter(|(_, met)| !**met).map(|(path, _)| line(path)).collect()
        };
        let mut lines = left(&self.overrides, |path| {
            format!("sd_overrides: {path:?} is no file or directory of the payload")
        });
        lines.extend(left(&self.targets, |path| {
            format!("provides: the target of a claim, \"/{}\", is not in the payload", path.escape_debug())
        }));
        lines
    }
}
