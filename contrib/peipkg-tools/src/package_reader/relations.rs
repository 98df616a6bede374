//! What a manifest may say about other packages (PSD-009 §2.1.6, §2.2.8, §4.1). Pure.

use peipkg_manager::identity::check_package_name;
use peipkg_manager::version::Version;

use crate::manifest::Manifest;

/// Most entries of a list (PSD-009 §3.2.10).
const MAX_RELATIONS: usize = 10_000;
/// Most entries of `replaces` (PSD-009 §3.2.10).
const MAX_REPLACES: usize = 1_000;
/// Longest virtual name, in characters (PSD-009 §2.1.6).
const MAX_VIRTUAL_NAME: usize = 128;

/// Checks the five lists of `manifest`.
///
/// # Errors
/// The first rule that is broken, naming list and entry.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    let any = |name: &str| check_package_name(name).is_ok() || is_virtual_name(name);
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
        if one.version.as_deref().is_some_and(|version| !is_operand(version)) {
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
    let operand = |term: &str| {
        let term = term.trim();
        let operators = [">=", "<=", "!=", "=", ">", "<"];
        operators.iter().find_map(|operator| term.strip_prefix(operator)).unwrap_or(term).trim().to_owned()
    };
    match constraint {
        Some(text) if !text.split(',').all(|term| is_operand(&operand(term))) => {
            Err(format!("{list}: {name:?} has a malformed constraint {text:?}"))
        }
        _ => Ok(()),
    }
}

/// A version whose revision may be left out (PSD-009 §2.2.8, §4.1.4).
fn is_operand(text: &str) -> bool {
    text.parse::<Version>().is_ok() || format!("{text}-1").parse::<Version>().is_ok()
}

/// A virtual name, plain or `namespace(argument)` (PSD-009 §2.1.6).
fn is_virtual_name(name: &str) -> bool {
    if !(2..=MAX_VIRTUAL_NAME).contains(&name.len()) {
        return false;
    }
    if let Some((namespace, rest)) = name.split_once('(') {
        let of_namespace = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let of_argument = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+_:/".contains(&byte);
        return namespace.starts_with(|first: char| first.is_ascii_lowercase())
            && namespace.bytes().all(of_namespace)
            && rest.strip_suffix(')').is_some_and(|it| !it.is_empty() && it.bytes().all(of_argument));
    }
    let ends = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = name.as_bytes();
    let last = bytes[bytes.len() - 1];
    ends(bytes[0])
        && (ends(last) || last == b'+')
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.+_".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_names() {
        for good in
            ["libGL.so.1", "libgcc_s.so.1", "g++", "pkgconfig(gtk+-3.0)", "perl(Foo::Bar)", "smtp-server"]
        {
            assert!(is_virtual_name(good), "{good}");
        }
        for bad in
            ["", "a", "-a", "a-", "a b", "Perl(x)", "perl()", "perl(x", "perl(x)y", "a)", &"a".repeat(129)]
        {
            assert!(!is_virtual_name(bad), "{bad}");
        }
    }

    #[test]
    fn constraints() {
        for good in [">= 3.0, < 4.0", "=1.26.2-3", "1.0", "!= 1:2.0-1 ,>1"] {
            assert_eq!(check_constraint("dependencies", "a", Some(good)), Ok(()), "{good}");
        }
        for bad in ["", ">=", "1.0,", "~ 1.0", "== 1.0", ">= a b"] {
            assert!(check_constraint("dependencies", "a", Some(bad)).is_err(), "{bad}");
        }
    }
}
