//! The rules that a manifest must obey on its own (PSD-009 §2.1, §2.2.8, §3.3, §4). Pure.
//!
//! Both the writer and the reader of packages ask here, so that one cannot accept a manifest that
//! the other refuses.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use peipkg_format::description::check_description;
use peipkg_format::package::{check_architecture, check_package_name};
use peipkg_format::version::Version;

use super::{
    Claim, Dependency, MAX_OVERRIDES, MAX_RELATIONS, MAX_REPLACES, MAX_SLOTS, Manifest, SCHEMA_VERSION,
};
use crate::expression::{
    Rule, SIDE_EFFECTS, check_constraint, check_homepage, check_relaxed_version, check_root_reference,
    check_virtual_name,
};
use crate::payload::check_claim_path;
use crate::timestamp::Timestamp;

/// Most problems that are reported of one manifest: a hostile one may have millions.
const MAX_PROBLEMS: usize = 100;
/// Longest security descriptor, in bytes (PSD-009 §3.2.10).
const MAX_SD: usize = 64 * 1024;
/// The header of a self-relative security descriptor, in bytes.
const SD_HEADER: usize = 20;

/// Returns a line for every rule that `manifest` breaks, with field and value; at most
/// a hundred.
pub fn problems(manifest: &Manifest) -> Vec<String> {
    let mut check = Check { found: Vec::new() };
    check.identity(manifest);
    check.texts(manifest);
    check.relations(manifest);
    check.side_effects(&manifest.side_effects);
    check.overrides(manifest);
    check.found
}

/// Returns a line for every rule that one slot of a claim breaks (PSD-009 §4.4.2).
pub fn claim_problems(slot: &str, claim: &Claim, side: Side) -> Vec<String> {
    let mut found = Vec::new();
    if let Err(wrong) = check_package_name(slot) {
        found.push(format!("slot {slot:?} {wrong}"));
    }
    match (side, &claim.path, &claim.target) {
        (Side::Consumer, None, _) => found.push(format!("{slot:?} has no path")),
        (Side::Consumer, _, Some(_)) => {
            found.push(format!("{slot:?} has a target, which is for provides"));
        }
        (Side::Provider, _, None) => found.push(format!("{slot:?} has no target")),
        _ => {}
    }
    if let Some((path, wrong)) =
        claim.path.as_ref().and_then(|path| Some((path, check_claim_path(path).err()?)))
    {
        found.push(format!("{slot:?}: path {path:?} {wrong}"));
    }
    if let Some(target) = claim.target.as_ref().filter(|target| !target.starts_with('/')) {
        found.push(format!("{slot:?}: target {target:?} is not absolute"));
    }
    found
}

/// The two packages of a claim: one links to a file, the other contains it (PSD-009 §4.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Names the path at which it expects the link.
    Consumer,
    /// Names the file that the link leads to.
    Provider,
}

struct Check {
    found: Vec<String>,
}

impl Check {
    fn report(&mut self, problem: String) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push(problem);
        }
    }

    fn report_error(&mut self, field: &str, value: &str, result: Result<(), impl std::fmt::Display>) {
        if let Err(wrong) = result {
            self.report(format!("{field} {value:?} {wrong}"));
        }
    }

    fn identity(&mut self, manifest: &Manifest) {
        if manifest.schema_version != SCHEMA_VERSION {
            self.report(format!("schema_version is {}, expected {SCHEMA_VERSION}", manifest.schema_version));
        }
        self.report_error("name", &manifest.name, check_package_name(&manifest.name));
        if let Err(error) = manifest.version.parse::<Version>() {
            self.report(format!("version: {error}"));
        }
        self.report_error("architecture", &manifest.architecture, check_architecture(&manifest.architecture));
    }

    fn texts(&mut self, manifest: &Manifest) {
        self.report_error("description", &manifest.description, check_description(&manifest.description));
        if !manifest.homepage.is_empty() {
            self.report_error("homepage", &manifest.homepage, check_homepage(&manifest.homepage));
        }
        if let Some(root) = &manifest.default_root {
            self.report_error("default_root", root, check_root_reference(root));
        }
        if let Err(error) = Timestamp::parse(&manifest.build.timestamp) {
            self.report(format!("build.timestamp: {error}"));
        }
    }

    fn relations(&mut self, manifest: &Manifest) {
        let names = |list: &'_ [Dependency]| list.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        for (list, entries, rule) in [
            ("dependencies", &manifest.dependencies, check_virtual_name as Rule),
            ("optional_dependencies", &manifest.optional_dependencies, check_virtual_name),
            ("conflicts", &manifest.conflicts, check_package_name),
        ] {
            self.names(list, MAX_RELATIONS, &names(entries), rule);
            for entry in entries {
                self.constraint(list, &entry.name, entry.constraint.as_deref());
                if entry.arch.as_deref().is_some_and(|arch| arch != "any") {
                    self.report(format!("{list}: {:?} has an arch other than \"any\"", entry.name));
                }
                // A conflict has no root and no claims (PSD-009 §4.4.2); ignore these fields like any
                // unknown one.
                if list != "conflicts" {
                    if let Some(root) = &entry.root {
                        let place = format!("{list}: {:?}: root", entry.name);
                        self.report_error(&place, root, check_root_reference(root));
                    }
                    self.claims(list, &entry.name, &entry.claims, Side::Consumer);
                }
            }
        }
        let provided: Vec<_> = manifest.provides.iter().map(|one| one.name.clone()).collect();
        self.names("provides", MAX_RELATIONS, &provided, check_virtual_name);
        for entry in &manifest.provides {
            if let Some(version) = &entry.version {
                self.report_error(
                    &format!("provides: {:?}: version", entry.name),
                    version,
                    check_relaxed_version(version),
                );
            }
            self.claims("provides", &entry.name, &entry.claims, Side::Provider);
        }
        let replaced: Vec<_> = manifest.replaces.iter().map(|one| one.name.clone()).collect();
        self.names("replaces", MAX_REPLACES, &replaced, check_package_name);
        for entry in &manifest.replaces {
            self.constraint("replaces", &entry.name, entry.constraint.as_deref());
        }
    }

    /// Checks that names are valid, sorted and unique (PSD-009 §4.1.8).
    fn names(&mut self, list: &str, most: usize, names: &[String], rule: Rule) {
        if names.len() > most {
            self.report(format!("{list} has more than {most} entries"));
        }
        for name in names {
            self.report_error(&format!("{list}:"), name, rule(name));
        }
        self.sorted(list, names.iter().map(String::as_str));
    }

    fn sorted<'a>(&mut self, list: &str, values: impl Iterator<Item = &'a str>) {
        let mut previous: Option<&str> = None;
        for value in values {
            match previous.map(|previous| previous.cmp(value)) {
                Some(std::cmp::Ordering::Equal) => self.report(format!("{list}: {value:?} is listed twice")),
                Some(std::cmp::Ordering::Greater) => {
                    self.report(format!("{list}: {value:?} is not in the order of the list"));
                }
                _ => {}
            }
            previous = Some(value);
        }
    }

    fn constraint(&mut self, list: &str, name: &str, constraint: Option<&str>) {
        if let Some(text) = constraint {
            self.report_error(&format!("{list}: {name:?}: constraint"), text, check_constraint(text));
        }
    }

    fn claims(&mut self, list: &str, name: &str, claims: &BTreeMap<String, Claim>, side: Side) {
        let place = format!("{list}: {name:?}: claims");
        if claims.len() > MAX_SLOTS {
            self.report(format!("{place}: more than {MAX_SLOTS} slots"));
        }
        for (slot, claim) in claims {
            for problem in claim_problems(slot, claim, side) {
                self.report(format!("{place}: {problem}"));
            }
        }
    }

    /// Checks that side effects are known and unique; they need no order (PSD-009 §4.3.1).
    fn side_effects(&mut self, effects: &[String]) {
        let mut seen = Vec::new();
        for effect in effects {
            if !SIDE_EFFECTS.contains(&effect.as_str()) {
                self.report(format!(
                    "side effect {effect:?} is not known, expected one of {}",
                    SIDE_EFFECTS.join(", ")
                ));
            } else if seen.contains(&effect) {
                self.report(format!("side effect {effect:?} is listed twice"));
            } else {
                seen.push(effect);
            }
        }
    }

    fn overrides(&mut self, manifest: &Manifest) {
        if manifest.sd_overrides.len() > MAX_OVERRIDES {
            self.report(format!("sd_overrides has more than {MAX_OVERRIDES} entries"));
        }
        self.sorted("sd_overrides", manifest.sd_overrides.iter().map(|one| one.path.as_str()));
        for one in &manifest.sd_overrides {
            let sd = STANDARD_NO_PAD.decode(&one.sd).unwrap_or_default();
            // Checks revision and length; the installer judges the granted rights.
            if sd.len() < SD_HEADER || sd.len() > MAX_SD || sd[0] != 1 {
                self.report(format!("sd_overrides: the security descriptor of {:?} is not one of revision 1 in base64 without padding", one.path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Returns the problems of a good manifest with one field replaced.
    fn found(field: &str, value: Value) -> Vec<String> {
        let mut manifest = json!({
            "schema_version": 1, "name": "jq", "version": "1-1", "architecture": "noarch", "dependencies": [],
            "conflicts": [], "size_installed": 0,
            "build": {"timestamp": "2026-05-01T12:00:00Z", "farm_id": "f", "source_ref": "s"},
        });
        manifest[field] = value;
        problems(&serde_json::from_value(manifest).unwrap())
    }

    #[track_caller]
    fn check_claims(list: &str, claims: &Value, expected: &str) {
        let found = found(list, json!([{"name": "role", "claims": claims}]));
        match expected {
            "" => assert_eq!(found, [""; 0]),
            expected => {
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found[0].contains(expected), "{found:?}");
            }
        }
    }

    #[test]
    fn files_claims_are_checked() {
        for list in ["dependencies", "optional_dependencies"] {
            check_claims(list, &json!({"binary": {"path": "/usr/bin/registryd"}}), "");
            check_claims(list, &json!({"sink": {"path": "/run/logsink.sock"}}), "");
            check_claims(list, &json!({"binary": {}}), "\"binary\" has no path");
            check_claims(list, &json!({"x1": {"path": "/etc/x", "target": "/etc/y"}}), "has a target");
        }
        check_claims("conflicts", &json!({"-": {}}), "");
        check_claims("provides", &json!({"binary": {"target": "/usr/bin/loregd"}}), "");
        check_claims("provides", &json!({"x1": {"target": "/usr/bin/x", "path": "/etc/x"}}), "");
        check_claims("provides", &json!({"x1": {"path": "/etc/x"}}), "\"x1\" has no target");
        check_claims("provides", &json!({"x1": {"target": "usr/bin/x"}}), "is not absolute");
        check_claims("provides", &json!({"X1": {"target": "/usr/bin/x"}}), "slot \"X1\"");
        for path in ["etc/x", "/", "/run", "/run/", "/tmp/x", "/etc/../x", "/usr/lib/x", "/etc/a\\b", "/etc"]
        {
            check_claims("dependencies", &json!({"x1": {"path": path}}), "path");
        }
    }

    #[test]
    fn roots_of_dependencies_are_checked() {
        let problems = |list, root| found(list, json!([{"name": "aa", "root": root}]));
        for list in ["dependencies", "optional_dependencies"] {
            for root in ["initramfs", "initramfs.sub-2_x", "0"] {
                assert_eq!(problems(list, root), [""; 0], "{root}");
            }
            for root in ["", "/", "/mnt", "a/b", ".", "..", "a..b", ".a", "a.", "A", "-a", "_a", "é", "a b"]
            {
                let expected =
                    format!("{list}: \"aa\": root {root:?} is not the name of a root such as initramfs");
                assert_eq!(problems(list, root), [expected]);
            }
        }
        // A key that a conflict does not have is ignored, like any unknown key.
        assert_eq!(problems("conflicts", "/"), [""; 0]);
    }

    #[test]
    fn lists_wrong_are_refused() {
        assert_eq!(found("side_effects", json!(["man-db", "ldconfig"])), [""; 0]);
        let twice = found("side_effects", json!(["ldconfig", "ldconfig"]));
        assert_eq!(twice, ["side effect \"ldconfig\" is listed twice"]);
        let unsorted = found("provides", json!([{"name": "bb"}, {"name": "aa"}, {"name": "aa"}]));
        assert_eq!(
            unsorted,
            ["provides: \"aa\" is not in the order of the list", "provides: \"aa\" is listed twice"]
        );
        let many: Vec<_> = (0..200).map(|_| json!({"name": ""})).collect();
        assert_eq!(found("conflicts", Value::Array(many)).len(), MAX_PROBLEMS);
    }

    #[test]
    fn lists_over_the_formats_limit_are_not_read() {
        let slots: BTreeMap<String, Value> = (10..75).map(|at| (at.to_string(), json!({}))).collect();
        let entry = json!({"name": "aa", "claims": slots}).to_string();
        let error = serde_json::from_str::<Dependency>(&entry).unwrap_err().to_string();
        assert!(error.contains("more than 64"), "{error}");
    }
}
