//! Compares the two indexes while both pass by (PSD-009 §6.2.7, §6.3.5, §6.3.6). Pure.
//!
//! Both are sorted by name, so this holds one active entry in short form and, of the archive, a hash of
//! each place. If an index turns out not to be sorted, the caller starts again with
//! [`Listed::unsorted`], which holds all active entries in short form: at most 500 bytes each.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

use peipkg_format::problem::excerpt;
use peipkg_format::version::Version;
use serde_json::Value;

use super::full_entry::{Checked, FullEntry};

/// The longest entry whose fields may have another order in the other index, in bytes: far longer
/// than the entry of a package with hundreds of relations.
const MAX_VALUES: usize = 256 * 1024;

/// An active entry, which the archive must confirm.
struct Active {
    /// Name, version and architecture, separated by `_` as in the name of the package's file.
    identity: Box<str>,
    /// Only of unsorted indexes: the fields are long, and an index has many entries.
    hashes: Option<Hashes>,
    in_archive: InArchive,
    /// A newer version of the archive.
    newer: Option<Box<str>>,
}

/// Hashes of the URL and the digest of an entry, and of all fields, whatever their order.
#[derive(Clone, Copy)]
struct Hashes {
    digest: u64,
    url: u64,
    fields: u64,
}

enum InArchive {
    Missing,
    OtherHash,
    OtherUrl,
    OtherFields,
    Same,
}

impl Active {
    fn name(&self) -> &str {
        self.identity.split_once('_').map_or("", |(name, _)| name)
    }

    fn version(&self) -> &str {
        self.identity.split('_').nth(1).unwrap_or_default()
    }

    fn is_package_of(&self, entry: &FullEntry<'_>) -> bool {
        // Neither a name nor a version contains `_`.
        let parts = [&*entry.name, "_", &*entry.version, "_", &*entry.architecture];
        parts.into_iter().try_fold(&*self.identity, |rest, part| rest.strip_prefix(part)) == Some("")
    }

    fn report(&self, issues: &mut Vec<String>) {
        let name = || format!("active index: {}.peipkg", self.identity);
        let found = match self.in_archive {
            InArchive::Missing => Some("is not in the archive index"),
            InArchive::OtherHash => Some("has another hash in the archive index"),
            InArchive::OtherUrl => Some("has another url in the archive index"),
            InArchive::OtherFields => Some("differs from its entry in the archive index"),
            InArchive::Same => None,
        };
        issues.extend(found.map(|found| format!("{} {found}", name())));
        let older = |newest| format!("{} is older than version {newest} in the archive index", name());
        issues.extend(self.newer.as_ref().map(older));
    }
}

/// Both indexes, as far as they have been read.
pub(super) struct Listed {
    is_sorted: bool,
    is_out_of_order: bool,
    /// The active entries that the archive may still confirm: one, if the indexes are sorted.
    active: Vec<Active>,
    /// Whether `active` has its order.
    is_ordered: bool,
    last_active: String,
    /// The archive's entries of the name that was read last.
    group: Group,
    /// A hash of each place in the archive: the URLs themselves are long, and an index has many.
    places: HashSet<u64>,
    hasher: RandomState,
    issues: Issues,
}

/// The issues, in the order of the report: a reader expects those of an index together.
#[derive(Default)]
struct Issues {
    active: Vec<String>,
    archive: Vec<String>,
    compared: Vec<String>,
    /// Names of the archive that the active index lacks.
    missing: Vec<String>,
}

#[derive(Default)]
struct Group {
    name: String,
    /// The places of the active entries of this name.
    active: Range<usize>,
    /// A hash of version and architecture of each entry.
    seen: HashSet<u64>,
    previous: Option<Version>,
    newest: Option<Version>,
}

impl Listed {
    /// Starts to compare two indexes that are sorted by name.
    pub(super) fn sorted() -> Self {
        Self {
            is_sorted: true,
            is_out_of_order: false,
            active: Vec::new(),
            is_ordered: false,
            last_active: String::new(),
            group: Group::default(),
            places: HashSet::new(),
            hasher: RandomState::new(),
            issues: Issues::default(),
        }
    }

    /// Starts to compare two indexes in any order.
    pub(super) fn unsorted() -> Self {
        Self { is_sorted: false, ..Self::sorted() }
    }

    /// Whether an index is not sorted by name, although [`Listed::sorted`] needs it: start again.
    pub(super) fn has_failed(&self) -> bool {
        self.is_sorted && self.is_out_of_order
    }

    /// Compares the name of an active entry with that of the archive's next ones. Add those before it
    /// to go on, and then one of the same name, if any.
    pub(super) fn order(&self, active: &FullEntry<'_>, name: &str) -> Ordering {
        if self.is_sorted { (*active.name).cmp(name) } else { Ordering::Less }
    }

    /// Adds the next entry of the active index.
    pub(super) fn add_active(&mut self, entry: &FullEntry<'_>, json: &str) {
        if *self.last_active >= *entry.name {
            self.is_out_of_order = true;
            let file_name = entry.file_name();
            self.issues.active.push(format!("active index: {file_name} is out of order or listed twice"));
        }
        self.last_active.clear();
        self.last_active.push_str(&entry.name);
        if self.is_sorted {
            self.report_active();
        }
        self.active.push(Active {
            identity: format!("{}_{}_{}", entry.name, entry.version, entry.architecture).into(),
            hashes: (!self.is_sorted).then(|| self.hashes_of(entry, json)),
            in_archive: InArchive::Missing,
            newer: None,
        });
        self.is_ordered = false;
    }

    /// Notes the name of the archive's next entry. Returns whether it is another one than before: then
    /// add the active entries up to this name; see [`Listed::order`].
    pub(super) fn begin_group(&mut self, entry: &FullEntry<'_>) -> bool {
        if self.group.name == *entry.name {
            return false;
        }
        self.end_group();
        if *self.group.name > *entry.name {
            self.report_order(entry);
            self.is_out_of_order = true;
        }
        self.group.name.clear();
        self.group.name.push_str(&entry.name);
        self.group.seen.clear();
        (self.group.previous, self.group.newest) = (None, None);
        true
    }

    /// Adds the next entry of the archive. `active` is the active entry of the same name, if the
    /// indexes are sorted and there is one.
    pub(super) fn add_archived(
        &mut self,
        entry: &FullEntry<'_>,
        checked: Checked<'_>,
        json: &str,
        active: Option<&(FullEntry<'_>, &str)>,
    ) {
        if !self.group.seen.insert(self.hasher.hash_one((&entry.version, &entry.architecture))) {
            self.issues.archive.push(format!("archive index: {} is listed twice", entry.file_name()));
        }
        if !self.places.insert(self.hasher.hash_one(checked.place)) {
            let (file_name, url) = (entry.file_name(), excerpt(&entry.url));
            self.issues
                .archive
                .push(format!("archive index: {file_name} has the url {url:?} of another entry"));
        }
        if self.group.previous.is_none() {
            self.group.active = self.active_of_group();
        }
        for place in self.group.active.clone() {
            if self.active[place].is_package_of(entry) {
                self.active[place].in_archive = match (self.active[place].hashes, active) {
                    (None, Some((_, active))) if *active == json => InArchive::Same,
                    (None, Some((active, text))) => {
                        compare(self.hashes_of(active, text), self.hashes_of(entry, json))
                    }
                    (None, None) => InArchive::Missing,
                    (Some(hashes), _) => compare(hashes, self.hashes_of(entry, json)),
                };
            }
        }
        let version = checked.version;
        if let Some(previous) = &self.group.previous
            && previous.sort_cmp(&version).is_lt()
        {
            // The specification's order has cycles. Within one, any order is right.
            if previous.compare(&version).is_lt() {
                self.report_order(entry);
            }
            if self.group.newest.as_ref().is_some_and(|found| found.sort_cmp(&version).is_lt()) {
                self.group.newest = Some(version.clone());
            }
        }
        self.group.newest.get_or_insert_with(|| version.clone());
        self.group.previous = Some(version);
    }

    /// Ends both indexes, and returns every issue.
    pub(super) fn end(mut self) -> Vec<String> {
        self.end_group();
        self.report_active();
        let Issues { active, archive, compared, mut missing } = self.issues;
        // An archive out of order has a name at several places.
        missing.sort_unstable();
        missing.dedup();
        let missing = missing.iter();
        let missing =
            missing.map(|name| format!("active index: {name} is missing, the archive index has it"));
        active.into_iter().chain(archive).chain(compared).chain(missing).collect()
    }

    fn hashes_of(&self, entry: &FullEntry<'_>, json: &str) -> Hashes {
        // As values, a long text needs many times its length. Compare such a one byte by byte.
        let value = (json.len() <= MAX_VALUES).then(|| serde_json::from_str::<Value>(json).ok()).flatten();
        Hashes {
            digest: self.hasher.hash_one(&entry.hash.value),
            url: self.hasher.hash_one(&entry.url),
            fields: value.map_or_else(|| self.hasher.hash_one(json), |value| self.hasher.hash_one(value)),
        }
    }

    /// The places of the active entries of the present name.
    fn active_of_group(&mut self) -> Range<usize> {
        if !self.is_ordered {
            self.active.sort_by(|one, other| one.name().cmp(other.name()));
            self.is_ordered = true;
        }
        let name = &*self.group.name;
        let start = self.active.partition_point(|active| active.name() < name);
        start..start + self.active[start..].iter().take_while(|active| active.name() == name).count()
    }

    /// Ends the archive's entries of one name.
    pub(super) fn end_group(&mut self) {
        if let Some(newest) = self.group.newest.take() {
            let found = self.group.active.clone();
            if found.is_empty() {
                self.issues.missing.push(self.group.name.clone());
            }
            for active in &mut self.active[found] {
                let version = active.version();
                // Most active entries have the newest version.
                let is_older = version != newest.as_str()
                    && version.parse().is_ok_and(|version: Version| newest.compare(&version).is_gt());
                if is_older {
                    active.newer = Some(newest.as_str().into());
                }
            }
        }
        if self.is_sorted {
            self.report_active();
        }
    }

    /// Reports the active entries that the archive can no longer confirm.
    fn report_active(&mut self) {
        for active in self.active.drain(..) {
            active.report(&mut self.issues.compared);
        }
    }

    fn report_order(&mut self, entry: &FullEntry<'_>) {
        let file_name = entry.file_name();
        self.issues.archive.push(format!("archive index: {file_name} is out of order"));
    }
}

fn compare(active: Hashes, archived: Hashes) -> InArchive {
    match () {
        () if active.digest != archived.digest => InArchive::OtherHash,
        // Only the file at the archive's URL is checked; consumers fetch the other.
        () if active.url != archived.url => InArchive::OtherUrl,
        () if active.fields != archived.fields => InArchive::OtherFields,
        () => InArchive::Same,
    }
}
