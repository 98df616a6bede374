//! The values of a manifest that PSD-009 allows and deployed clients refuse. Pure.
//!
//! Publish only warns of them: newer clients take them, and the farm may have no others.

use peipkg_format::package::check_package_name;
use peipkg_format::version::Version;

use crate::expression::check_virtual_name;
use crate::manifest::Manifest;

/// Returns a line for each list of `manifest` with such a value.
pub(super) fn warnings(manifest: &Manifest) -> Vec<String> {
    let provides = &manifest.provides;
    let names = [
        ("dependencies", manifest.dependencies.iter().map(|one| &*one.name).collect::<Vec<_>>()),
        ("optional_dependencies", manifest.optional_dependencies.iter().map(|one| &*one.name).collect()),
        ("provides", provides.iter().map(|one| &*one.name).collect()),
    ];
    let mut lines = Vec::new();
    for (list, names) in names {
        let virtual_names = names.into_iter().filter(|name| is_refused(name));
        lines.extend(summary(virtual_names).map(|found| {
            format!(
                "{list}: {found}: deployed clients refuse an index with a virtual name that is neither a \
                 package name (PSD-009 §2.1) nor namespace(argument), and with it all packages of the \
                 repository"
            )
        }));
    }
    let versions = provides.iter().filter_map(|one| one.version.as_deref());
    let unrevised = versions.filter(|version| version.parse::<Version>().is_err());
    lines.extend(summary(unrevised).map(|found| {
        format!("provides: version {found}: deployed clients refuse a package that provides a version without revision, such as -1")
    }));
    lines
}

/// Whether deployed clients refuse an index with this virtual name.
fn is_refused(name: &str) -> bool {
    let is_namespaced = name.ends_with(')') && check_virtual_name(name).is_ok();
    !is_namespaced && check_package_name(name).is_err()
}

/// Returns the first value, and how many follow.
fn summary<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<String> {
    let first = values.next()?;
    Some(match values.count() {
        0 => format!("{first:?}"),
        more => format!("{first:?} and {more} more"),
    })
}
