//! Compares the two indexes while the archive passes by (PSD-009 §6.2.7, §6.3.5, §6.3.6). Holds the
//! active index in short form, and one name's entries of the archive. Pure.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use peipkg_format::problem::excerpt;
use peipkg_format::version::Version;
use serde_json::Value;

use super::entry::FullEntry;

/// The longest entry whose fields may have another order in the other index, in bytes: far longer
/// than the entry of a package with hundreds of relations.
const MAX_VALUES: usize = 256 * 1024;

/// The parts of an active entry that the archive must confirm.
struct Active {
    name: Box<str>,
    version: Box<str>,
    architecture: Box<str>,
    hash: Box<str>,
    url: Box<str>,
    /// A hash of all fields: they are long, and an index has many entries.
    fields: u64,
    in_archive: InArchive,
    /// A newer version of the archive.
    newer: Option<Box<str>>,
}

enum InArchive {
    Missing,
    OtherHash,
    OtherUrl,
    OtherFields,
    Same,
}

impl Active {
    fn file_name(&self) -> String {
        peipkg_format::repository_layout::package_file_name(&self.name, &self.version, &self.architecture)
    }
}

/// Both indexes, as far as they have been read.
#[derive(Default)]
pub(super) struct Listed {
    active: Vec<Active>,
    /// The archive's entries of the name that was read last.
    group: Group,
    /// Names of the archive that the active index lacks.
    missing: Vec<String>,
    /// A hash of each place in the archive: the URLs themselves are long, and an index has many.
    places: HashSet<u64>,
    hasher: RandomState,
    issues: Vec<String>,
}

#[derive(Default)]
struct Group {
    name: String,
    /// Version and architecture of each entry.
    seen: HashSet<(Box<str>, Box<str>)>,
    previous: Option<Version>,
    newest: Option<Version>,
}

impl Listed {
    /// Adds the next entry of the active index. The whole active index comes first.
    pub(super) fn add_active(&mut self, entry: &FullEntry<'_>, json: &str) {
        if self.active.last().is_some_and(|last| *last.name >= *entry.name) {
            let file_name = entry.identity().file_name();
            self.issues.push(format!("active index: {file_name} is out of order or listed twice"));
        }
        self.active.push(Active {
            name: (*entry.name).into(),
            version: (*entry.version).into(),
            architecture: (*entry.identity().architecture).into(),
            hash: (*entry.hash.value).into(),
            url: (*entry.url).into(),
            fields: self.hash_of(json),
            in_archive: InArchive::Missing,
            newer: None,
        });
    }

    /// Ends the active index.
    pub(super) fn end_active(&mut self) {
        self.active.sort_by(|one, other| one.name.cmp(&other.name));
    }

    /// Adds the next entry of the archive.
    pub(super) fn add_archived(&mut self, entry: &FullEntry<'_>, json: &str) {
        if self.group.name != *entry.name {
            self.end_group();
            if *self.group.name > *entry.name {
                self.report_order(entry);
            }
            self.group = Group { name: entry.name.to_string(), ..Group::default() };
        }
        let identity = entry.identity();
        let key = ((*identity.version).into(), (*identity.architecture).into());
        if !self.group.seen.insert(key) {
            self.issues.push(format!("archive index: {} is listed twice", identity.file_name()));
        }
        if entry.place().is_ok_and(|place| !self.places.insert(self.hasher.hash_one(place))) {
            let (file_name, url) = (identity.file_name(), excerpt(&entry.url));
            self.issues.push(format!("archive index: {file_name} has the url {url:?} of another entry"));
        }
        for place in self.active_of_group() {
            let active = &self.active[place];
            if (&*active.version, &*active.architecture) == (&*identity.version, &*identity.architecture) {
                self.active[place].in_archive = match () {
                    () if *active.hash != *entry.hash.value => InArchive::OtherHash,
                    // Only the file at the archive's URL is checked; consumers fetch the other.
                    () if *active.url != *entry.url => InArchive::OtherUrl,
                    () if active.fields != self.hash_of(json) => InArchive::OtherFields,
                    () => InArchive::Same,
                };
            }
        }
        let Ok(version) = entry.version.parse::<Version>() else { return };
        // The specification's order has cycles. Within one, any order is right.
        let is_newer =
            |before: &Version| before.compare(&version).is_lt() && before.sort_cmp(&version).is_lt();
        if self.group.previous.as_ref().is_some_and(is_newer) {
            self.report_order(entry);
        }
        if self.group.newest.as_ref().is_none_or(|found| found.sort_cmp(&version).is_lt()) {
            self.group.newest = Some(version.clone());
        }
        self.group.previous = Some(version);
    }

    /// Ends the archive, and returns every issue.
    pub(super) fn end(mut self) -> Vec<String> {
        self.end_group();
        for active in &self.active {
            let name = active.file_name();
            match active.in_archive {
                InArchive::Missing => {
                    self.issues.push(format!("active index: {name} is not in the archive index"));
                }
                InArchive::OtherHash => {
                    self.issues.push(format!("active index: {name} has another hash in the archive index"));
                }
                InArchive::OtherUrl => {
                    self.issues.push(format!("active index: {name} has another url in the archive index"));
                }
                InArchive::OtherFields => {
                    self.issues
                        .push(format!("active index: {name} differs from its entry in the archive index"));
                }
                InArchive::Same => {}
            }
            if let Some(newest) = &active.newer {
                self.issues.push(format!(
                    "active index: {name} is older than version {newest} in the archive index"
                ));
            }
        }
        // An archive out of order has a name at several places.
        self.missing.sort_unstable();
        self.missing.dedup();
        let missing = self.missing.iter();
        self.issues
            .extend(missing.map(|name| format!("active index: {name} is missing, the archive index has it")));
        self.issues
    }

    /// Returns a hash of an entry's fields, whatever their order.
    fn hash_of(&self, json: &str) -> u64 {
        // As values, a long text needs many times its length. Compare such a one byte by byte.
        let value = (json.len() <= MAX_VALUES).then(|| serde_json::from_str::<Value>(json).ok()).flatten();
        value.map_or_else(|| self.hasher.hash_one(json), |value| self.hasher.hash_one(value))
    }

    /// The places of the active entries of the present name.
    fn active_of_group(&self) -> std::ops::Range<usize> {
        let name = &*self.group.name;
        let start = self.active.partition_point(|active| *active.name < *name);
        start..start + self.active[start..].iter().take_while(|active| *active.name == *name).count()
    }

    fn end_group(&mut self) {
        let Some(newest) = self.group.newest.take() else { return };
        let found = self.active_of_group();
        if found.is_empty() {
            self.missing.push(self.group.name.clone());
        }
        for active in &mut self.active[found] {
            let is_older = |version: &Version| newest.compare(version).is_gt();
            if active.version.parse::<Version>().is_ok_and(|version| is_older(&version)) {
                active.newer = Some(newest.as_str().into());
            }
        }
    }

    fn report_order(&mut self, entry: &FullEntry<'_>) {
        let file_name = entry.identity().file_name();
        self.issues.push(format!("archive index: {file_name} is out of order"));
    }
}
