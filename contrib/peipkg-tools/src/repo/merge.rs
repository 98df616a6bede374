//! Merges new entries into the two indexes (PSD-009 §6.2.7, §6.3.5). Pure.
//!
//! Trusts no order of the previous archive: its signature proves who wrote it, not that its tool
//! sorted as this one does. The first version of a name becomes the current one, so an archive in
//! another order would advertise an old version. A name in order costs one comparison a version.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use peipkg_format::version::{Version, VersionError, newest_first};

use super::entry::Entry;

/// The entries of both indexes as JSON, in their order.
#[derive(Debug, Default)]
pub(super) struct Merged<'a> {
    pub(super) archive: Vec<&'a str>,
    pub(super) active: Vec<&'a str>,
}

/// Why new entries cannot be added.
#[derive(Debug)]
pub(super) enum Conflict<'a> {
    /// New entries that are already published, each with the published one.
    Duplicates(Vec<(Entry<'a>, Entry<'a>)>),
    /// The name of an entry whose version cannot be parsed and so not be sorted.
    Version(Cow<'a, str>, VersionError),
}

/// Merges `new` into `published`.
pub(super) fn merge<'a>(
    mut published: Vec<Entry<'a>>,
    new: Vec<Entry<'a>>,
) -> Result<Merged<'a>, Conflict<'a>> {
    let mut added: BTreeMap<Cow<'a, str>, Vec<Entry<'a>>> = BTreeMap::new();
    for entry in new {
        added.entry(entry.identity.name.clone()).or_default().push(entry);
    }
    if !published.is_sorted_by(|one, next| one.identity.name <= next.identity.name) {
        published.sort_by(|one, next| one.identity.name.cmp(&next.identity.name));
    }
    let mut merged = Merged::default();
    let mut duplicates = Vec::new();
    for group in published.chunk_by(|one, next| one.identity.name == next.identity.name) {
        let name = &group[0].identity.name;
        while let Some(first) = added.first_entry().filter(|first| first.key() < name) {
            append_sorted(&mut merged, first.remove())?;
        }
        match added.remove(name) {
            Some(new) => {
                duplicates.extend(find_duplicates(group, &new));
                let mut all = group.to_vec();
                all.extend(new);
                append_sorted(&mut merged, all)?;
            }
            None if is_in_order(group) => append(&mut merged, group),
            None => append_sorted(&mut merged, group.to_vec())?,
        }
    }
    for (_, group) in added {
        append_sorted(&mut merged, group)?;
    }
    if duplicates.is_empty() { Ok(merged) } else { Err(Conflict::Duplicates(duplicates)) }
}

fn find_duplicates<'a>(published: &[Entry<'a>], new: &[Entry<'a>]) -> Vec<(Entry<'a>, Entry<'a>)> {
    let pair = |new: &Entry<'a>| {
        Some((new.clone(), published.iter().find(|old| old.identity == new.identity)?.clone()))
    };
    new.iter().filter_map(pair).collect()
}

/// Whether the entries of one name are sorted already. Also true if a version cannot be parsed:
/// another tool has published it, and it cannot be sorted.
fn is_in_order(group: &[Entry<'_>]) -> bool {
    let [_, _, ..] = group else { return true };
    let versions: Result<Vec<Version>, _> =
        group.iter().map(|entry| entry.identity.version.parse()).collect();
    versions.map_or(true, |versions| versions.is_sorted_by(|one, next| one.sort_cmp(next).is_ge()))
}

/// Sorts the entries of one name, newest version first, and appends them.
fn append_sorted<'a>(merged: &mut Merged<'a>, mut group: Vec<Entry<'a>>) -> Result<(), Conflict<'a>> {
    group.sort_by(by_text);
    let mut versions = Vec::with_capacity(group.len());
    for entry in &group {
        match entry.identity.version.parse::<Version>() {
            Ok(version) => versions.push(version),
            Err(error) => return Err(Conflict::Version(entry.identity.name.clone(), error)),
        }
    }
    let sorted: Vec<_> = newest_first(&versions).into_iter().map(|place| group[place].clone()).collect();
    append(merged, &sorted);
    Ok(())
}

/// Orders entries whose versions compare equal.
fn by_text(one: &Entry<'_>, other: &Entry<'_>) -> Ordering {
    let (one, other) = (&one.identity, &other.identity);
    one.version.cmp(&other.version).then_with(|| one.architecture.cmp(&other.architecture))
}

/// Appends the sorted entries of one name. The first version is the current one.
fn append<'a>(merged: &mut Merged<'a>, group: &[Entry<'a>]) {
    merged.archive.extend(group.iter().map(|entry| entry.json));
    let newest = group.iter().take_while(|entry| entry.identity.version == group[0].identity.version);
    let current = newest.min_by_key(|entry| preference(&entry.identity.architecture));
    merged.active.extend(current.map(|entry| entry.json));
}

/// Ranks the architectures of one version, best first: the active index lists one (PSD-009 §6.2.7),
/// and the format does not say which. The primary architecture (PSD-009 §2.3.2) serves most
/// systems; `noarch` serves all.
fn preference(architecture: &str) -> (u8, &str) {
    match architecture {
        "x86_64" => (0, architecture),
        "noarch" => (1, architecture),
        _ => (2, architecture),
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Identity;
    use super::*;

    /// Makes entries of `name version architecture`; their JSON is the same text.
    fn entries(texts: &[&'static str]) -> Vec<Entry<'static>> {
        let parse = |text: &&'static str| {
            let mut parts = text.split(' ').map(Cow::from);
            let mut next = || parts.next().unwrap();
            let identity = Identity { name: next(), version: next(), architecture: next() };
            Entry { identity, url: Cow::default(), json: text }
        };
        texts.iter().map(parse).collect()
    }

    #[track_caller]
    fn check(published: &[&'static str], new: &[&'static str], archive: &[&str], active: &[&str]) {
        let merged = merge(entries(published), entries(new)).unwrap();
        assert_eq!(merged.archive, archive);
        assert_eq!(merged.active, active);
    }

    #[test]
    fn versions_of_circular_order_are_put_in_one_order() {
        // The specification says 1~r < 1 < 1+git < 1~r. The standard sort may panic on such an
        // order of more than twenty elements.
        let forms = ["1~r", "1", "1+git", "1~s", "1+rest"];
        let texts: Vec<&'static str> = (0..200_usize)
            .map(|n| format!("a {}.{}-1 noarch", forms[(n * 7 + n / 5) % 5], n * 31 % 200).leak() as &str)
            .collect();
        for start in 1..texts.len() {
            let (published, new) = (&texts[start..], &texts[..start]);
            let merged = merge(entries(published), entries(new)).unwrap();
            assert_eq!(merged.archive.len(), texts.len());
            assert!(merged.active[0].starts_with("a 1+rest."), "{:?}", merged.active);
        }
    }

    #[test]
    fn entries_merged_are_in_order() {
        check(&[], &[], &[], &[]);
        check(
            &[],
            &["b 1-1 noarch", "a 1-1 noarch"],
            &["a 1-1 noarch", "b 1-1 noarch"],
            &["a 1-1 noarch", "b 1-1 noarch"],
        );
        check(
            &["b 1.9-1 noarch", "b 1.10-rc.1-1 noarch"],
            &["b 1.10-1 noarch", "a 1-1 noarch", "c 1-1 noarch", "b 1:0.1-1 noarch"],
            &[
                "a 1-1 noarch",
                "b 1:0.1-1 noarch",
                "b 1.10-1 noarch",
                "b 1.10-rc.1-1 noarch",
                "b 1.9-1 noarch",
                "c 1-1 noarch",
            ],
            &["a 1-1 noarch", "b 1:0.1-1 noarch", "c 1-1 noarch"],
        );
    }

    #[test]
    fn architectures_and_aliases_are_merged() {
        let all = ["a 2-1 aarch64", "a 2-1 noarch", "a 2-1 x86_64", "a 1-1 x86_64"];
        check(&all[3..], &[all[2], all[0], all[1]], &all, &["a 2-1 x86_64"]);
        let newer = ["a 2-1 aarch64", "a 1-1 x86_64"];
        check(&newer[1..], &newer[..1], &newer, &newer[..1]);
        let aliases = ["a 1.0~a-1 noarch", "a 1.0~alpha-1 noarch"];
        check(&aliases[1..], &aliases[..1], &aliases, &aliases[..1]);
    }

    #[test]
    fn archive_in_another_order_is_put_in_order() {
        let sorted = ["a 1-1 noarch", "b 2-1 noarch", "b 1-1 noarch"];
        check(&[sorted[2], sorted[0]], &[sorted[1]], &sorted, &sorted[..2]);
    }

    #[test]
    fn name_of_a_foreign_archive_in_another_order_is_put_in_order() {
        let sorted = ["a 1.10-1 noarch", "a 1.9-1 noarch", "a 1.2-1 noarch", "b 1-1 noarch"];
        for foreign in [[0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
            let published = foreign.map(|place| sorted[place]);
            check(&published, &sorted[3..], &sorted, &[sorted[0], sorted[3]]);
            check(&published, &[], &sorted[..3], &sorted[..1]);
        }
        // Architectures of one version that are apart.
        let apart = ["a 2-1 noarch", "a 1-1 noarch", "a 2-1 x86_64"];
        check(&apart, &[], &[apart[0], apart[2], apart[1]], &[apart[2]]);
        // A version that cannot be sorted stays where its tool has put it.
        let strange = ["a 1-1 noarch", "a what noarch"];
        check(&strange, &sorted[3..], &[strange[0], strange[1], sorted[3]], &[strange[0], sorted[3]]);
    }

    #[test]
    fn words_of_two_versions_are_in_the_specifications_order() {
        let texts = ["a 1~r-1 noarch", "a 1+git-1 noarch"];
        check(&texts[..1], &texts[1..], &texts, &texts[..1]);
        check(&texts[1..], &texts[..1], &texts, &texts[..1]);
    }

    #[test]
    fn duplicates_are_refused() {
        let published = ["a 1-1 noarch", "b 1-1 noarch"];
        let result = merge(entries(&published), entries(&["b 1-1 x86_64", "b 1-1 noarch"]));
        let Err(Conflict::Duplicates(found)) = result else { panic!("{result:?}") };
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.json, "b 1-1 noarch");
    }
}
