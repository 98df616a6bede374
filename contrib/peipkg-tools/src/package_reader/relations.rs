//! What a manifest may say about other packages (PSD-009 §2.1.6, §2.2.8, §4.1). Pure.

use peipkg_manager::identity::check_package_name;

use crate::expression;
use crate::manifest::Manifest;

/// Most entries of a list (PSD-009 §3.2.10).
const MAX_RELATIONS: usize = 10_000;
/// Most entries of `replaces` (PSD-009 §3.2.10).
const MAX_REPLACES: usize = 1_000;

/// Checks the five lists of `manifest`.
///
/// # Errors
/// The first rule that is broken, naming list and entry.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    let any = |name: &str| check_package_name(name).is_ok() || expression::check_virtual_name(name).is_ok();
    let real = |name: &str| check_package_name(name).is_ok();
    let lists = [
        ("dependencies", &manifest.dependencies, true),
        ("optional_dependencies", &manifest.optional_dependencies, true),
        ("conflicts", &manifest.conflicts, false),
    ];
    for (list, relations, may_be_virtual) in lists {
        let names = relations.iter().map(|one| one.name.as_str());
        check_names(list, MAX_RELATIONS, names, |name| if may_be_virtual { any(name) } else { real(name) })?;
        for one in relations {
            if one.arch.as_deref().is_some_and(|arch| arch != "any") {
                return Err(format!("{list}: {:?} has an arch other than \"any\"", one.name));
            }
            check_constraint(list, &one.name, one.constraint.as_deref())?;
        }
    }
    check_names("provides", MAX_RELATIONS, manifest.provides.iter().map(|one| one.name.as_str()), any)?;
    for one in &manifest.provides {
        if one.version.as_deref().is_some_and(|version| expression::check_relaxed_version(version).is_err()) {
            return Err(format!("provides: {:?} has a malformed version", one.name));
        }
    }
    check_names("replaces", MAX_REPLACES, manifest.replaces.iter().map(|one| one.name.as_str()), real)?;
    manifest
        .replaces
        .iter()
        .try_for_each(|one| check_constraint("replaces", &one.name, one.constraint.as_deref()))
}

/// Names must be valid, sorted and unique (PSD-009 §4.1.8).
fn check_names<'a>(
    list: &str,
    most: usize,
    names: impl ExactSizeIterator<Item = &'a str>,
    valid: impl Fn(&str) -> bool,
) -> Result<(), String> {
    if names.len() > most {
        return Err(format!("{list} has more than {most} entries"));
    }
    let mut previous = "";
    for name in names {
        if !valid(name) {
            return Err(format!("{list}: {name:?} is not a valid name"));
        }
        if previous >= name {
            return Err(format!("{list}: {name:?} is not in the order of names, or is there twice"));
        }
        previous = name;
    }
    Ok(())
}

fn check_constraint(list: &str, name: &str, constraint: Option<&str>) -> Result<(), String> {
    let Some(text) = constraint else { return Ok(()) };
    expression::check_constraint(text).map_err(|reason| format!("{list}: {name:?}: {text:?} {reason}"))
}
