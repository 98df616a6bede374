//! Merges new entries into the two indexes (PSD-009 §6.2.7, §6.3.5).
//!
//! Takes the published archive as it is read, and holds the entries of one name at most: those of a
//! name with new entries, without their JSON, which is read again from its place in the file.
//!
//! Trusts no order of the published archive: its signature proves who wrote it, not that its tool
//! sorted as this one does. The first version of a name becomes the current one, so an archive in
//! another order would advertise an old version. When an entry is out of order, the merge starts
//! again, and holds the identities of all entries to sort them. The next publish finds them sorted.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::FileExt as _;

use peipkg_format::version::{Version, VersionError, newest_first};

use super::entry::{Entry, Identity, hash_in};
use super::published::Entries;

/// Receives the entries of both indexes in their order.
pub(super) trait Sink {
    /// Adds an entry to the archive index.
    fn archive(&mut self, json: &str) -> io::Result<()>;
    /// Adds an entry to the active index. `built` is as in [`Entry`].
    fn active(&mut self, json: &str, built: Option<&str>) -> io::Result<()>;
}

/// Why a merge ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// An entry of the published archive is out of order: use [`Order::Any`].
    Unordered,
    /// New entries that are already published, each with whether its hash is the same.
    Duplicates(Vec<(Identity<'static>, bool)>),
    /// The name of an entry whose version cannot be parsed and so not be sorted.
    Version(String, VersionError),
    /// The sink cannot be written.
    Write(io::Error),
    /// The published archive cannot be read again.
    Read(io::Error),
}

/// Which order of the published archive the merge relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// It should be sorted.
    Sorted,
    /// It may have any order.
    Any,
}

/// An entry of which only the order is held.
struct Member<'a> {
    version: Box<str>,
    architecture: Box<str>,
    json: Json<'a>,
}

/// The JSON of an entry.
enum Json<'a> {
    New(&'a str),
    /// In the file of the published archive. The hash reveals that the file has changed.
    Published {
        at: u64,
        length: usize,
        hash: u64,
    },
}

/// The new entries by name.
type Added<'a> = BTreeMap<Cow<'a, str>, Vec<Entry<'a>>>;

/// Merges `new` into `published`, which was read from `file`.
pub(super) fn merge<'a>(
    published: Option<(&mut Entries<'_>, &'a File)>,
    order: Order,
    new: Vec<Entry<'a>>,
    sink: &mut dyn Sink,
) -> Result<(), Stop> {
    let mut added = Added::new();
    for entry in new {
        added.entry(entry.identity.name.clone()).or_default().push(entry);
    }
    let (entries, file) = published.unzip();
    let current = Current::default();
    let mut merge = Merge { added, file, sink, hasher: RandomState::new(), current, duplicates: Vec::new() };
    match (entries, order) {
        (Some(entries), Order::Sorted) => merge.sorted(entries)?,
        (Some(entries), Order::Any) => merge.any(entries)?,
        (None, _) => {}
    }
    merge.add_before(None)?;
    merge.end_name()?;
    if merge.duplicates.is_empty() { Ok(()) } else { Err(Stop::Duplicates(merge.duplicates)) }
}

struct Merge<'a, 's> {
    added: Added<'a>,
    file: Option<&'a File>,
    sink: &'s mut dyn Sink,
    hasher: RandomState,
    current: Current,
    duplicates: Vec<(Identity<'static>, bool)>,
}

/// The name whose entries pass by, and the best entry of its first version: the current one.
#[derive(Default)]
struct Current {
    has_begun: bool,
    name: String,
    version: String,
    architecture: String,
    json: String,
    built: Option<String>,
    /// Whether another version has come.
    is_over: bool,
}

impl<'a> Merge<'a, '_> {
    /// Copies the entries as they come, except those of names with new entries.
    fn sorted(&mut self, entries: &mut Entries<'_>) -> Result<(), Stop> {
        // Those of the name that has new entries.
        let mut group: Option<Vec<Member<'a>>> = None;
        let (mut name, mut version) = (String::new(), String::new());
        while let Some((at, entry)) = entries.next() {
            // Without an identity, the publish will fail.
            let Some(entry) = entry else { continue };
            let Identity { name: next, version: next_version, .. } = &entry.identity;
            if name == *next {
                if let Some(group) = &mut group {
                    group.push(self.member(&entry, at));
                    continue;
                }
                if !is_plainly_in_order(&version, next_version) && is_out_of_order(&version, next_version) {
                    return Err(Stop::Unordered);
                }
                set(&mut version, next_version);
            } else {
                if let Some(group) = group.take() {
                    self.add_group(&name, group)?;
                }
                if *name > **next {
                    return Err(Stop::Unordered);
                }
                set(&mut name, next);
                set(&mut version, next_version);
                self.add_before(Some(&name))?;
                if self.added.contains_key(&*name) {
                    group = Some(vec![self.member(&entry, at)]);
                    continue;
                }
            }
            self.put(&name, next_version, &entry.identity.architecture, entry.json, entry.built)?;
        }
        group.map_or(Ok(()), |group| self.add_group(&name, group))
    }

    /// Sorts the entries by name, and those of each name that are out of order.
    fn any(&mut self, entries: &mut Entries<'_>) -> Result<(), Stop> {
        let mut all: Vec<(Box<str>, Member<'a>)> = Vec::new();
        while let Some((at, entry)) = entries.next() {
            if let Some(entry) = entry {
                all.push(((*entry.identity.name).into(), self.member(&entry, at)));
            }
        }
        all.sort_by(|one, next| one.0.cmp(&next.0));
        let mut all = all.into_iter().peekable();
        while let Some((name, first)) = all.next() {
            let mut group = vec![first];
            while let Some((_, next)) = all.next_if(|next| next.0 == name) {
                group.push(next);
            }
            self.add_before(Some(&name))?;
            self.add_group(&name, group)?;
        }
        Ok(())
    }

    /// Adds the new names before `name`, or all.
    fn add_before(&mut self, name: Option<&str>) -> Result<(), Stop> {
        while let Some(first) =
            self.added.keys().next().filter(|first| name.is_none_or(|name| ***first < *name))
        {
            let first = first.to_string();
            self.add_group(&first, Vec::new())?;
        }
        Ok(())
    }

    /// Adds the published entries of one name, and the new ones.
    fn add_group(&mut self, name: &str, mut group: Vec<Member<'a>>) -> Result<(), Stop> {
        let new = self.added.remove(name).unwrap_or_default();
        let mut order: Vec<usize> = (0..group.len()).collect();
        if !new.is_empty() || !is_in_order(&group) {
            self.find_duplicates(&group, &new)?;
            group.extend(new.iter().map(|entry| Member {
                version: (*entry.identity.version).into(),
                architecture: (*entry.identity.architecture).into(),
                json: Json::New(entry.json),
            }));
            group.sort_by(by_text);
            let versions: Result<Vec<Version>, _> =
                group.iter().map(|member| member.version.parse()).collect();
            order = newest_first(&versions.map_err(|error| Stop::Version(name.to_owned(), error))?);
        }
        let mut text = Vec::new();
        for member in order.into_iter().map(|place| &group[place]) {
            let json = self.load(&member.json, &mut text)?;
            self.put(name, &member.version, &member.architecture, json, None)?;
        }
        Ok(())
    }

    fn find_duplicates(&mut self, published: &[Member<'a>], new: &[Entry<'a>]) -> Result<(), Stop> {
        for entry in new {
            let Identity { version, architecture, .. } = &entry.identity;
            let is_same =
                |old: &&Member<'_>| *old.version == **version && *old.architecture == **architecture;
            if let Some(old) = published.iter().find(is_same) {
                let mut text = Vec::new();
                let old = hash_in(self.load(&old.json, &mut text)?);
                self.duplicates.push((entry.identity.owned(), entry.hash() == old));
            }
        }
        Ok(())
    }

    /// Adds the next entry to the archive. The best of the first version of its name is the current one.
    fn put(
        &mut self,
        name: &str,
        version: &str,
        architecture: &str,
        json: &str,
        built: Option<&str>,
    ) -> Result<(), Stop> {
        self.sink.archive(json).map_err(Stop::Write)?;
        if !self.current.has_begun || self.current.name != name {
            self.end_name()?;
            set(&mut self.current.name, name);
            set(&mut self.current.version, version);
            (self.current.has_begun, self.current.is_over) = (true, false);
        } else if self.current.is_over || self.current.version != version {
            self.current.is_over = true;
            return Ok(());
        } else if preference(architecture) >= preference(&self.current.architecture) {
            return Ok(());
        }
        set(&mut self.current.architecture, architecture);
        set(&mut self.current.json, json);
        self.current.built = built.map(str::to_owned);
        Ok(())
    }

    /// Adds the current entry of the name that is over to the active index.
    fn end_name(&mut self) -> Result<(), Stop> {
        let Current { has_begun, json, built, .. } = &self.current;
        if *has_begun { self.sink.active(json, built.as_deref()).map_err(Stop::Write) } else { Ok(()) }
    }

    fn member(&self, entry: &Entry<'_>, at: u64) -> Member<'a> {
        Member {
            version: (*entry.identity.version).into(),
            architecture: (*entry.identity.architecture).into(),
            json: Json::Published { at, length: entry.json.len(), hash: self.hasher.hash_one(entry.json) },
        }
    }

    /// Returns the JSON of an entry. Reads it to `text` if it is in the file.
    fn load<'t>(&self, json: &Json<'t>, text: &'t mut Vec<u8>) -> Result<&'t str, Stop> {
        match (json, self.file) {
            (Json::New(json), _) => Ok(json),
            (Json::Published { at, length, hash }, Some(file)) => {
                text.resize(*length, 0);
                file.read_exact_at(text, *at).map_err(Stop::Read)?;
                let json = std::str::from_utf8(text).ok().filter(|json| self.hasher.hash_one(json) == *hash);
                json.ok_or_else(|| Stop::Read(io::Error::other("it changed while it was read")))
            }
            (Json::Published { .. }, None) => unreachable!("published entries come from a file"),
        }
    }
}

/// Copies a text to where another was, without an allocation.
fn set(text: &mut String, new: &str) {
    text.clear();
    text.push_str(new);
}

/// Whether the second of two versions such as 1.10.0-1 and 1.9.2-1, which have as many numbers each and
/// nothing but numbers, is not the newer one. Parsing all versions of an archive would take as long as
/// finding the entries.
fn is_plainly_in_order(version: &str, next: &str) -> bool {
    let (mut one, mut other) = (version.as_bytes(), next.as_bytes());
    let (mut order, mut is_last) = (Ordering::Equal, false);
    loop {
        let (Some((number, one_rest)), Some((next, other_rest))) = (first_number(one), first_number(other))
        else {
            return false;
        };
        order = order.then(number.cmp(&next));
        match (one_rest, other_rest) {
            ([], []) if is_last => return order.is_ge(),
            ([b'.', rest @ ..], [b'.', other_rest @ ..]) if !is_last => (one, other) = (rest, other_rest),
            ([b'-', rest @ ..], [b'-', other_rest @ ..]) if !is_last => {
                (one, other, is_last) = (rest, other_rest, true);
            }
            _ => return false,
        }
    }
}

/// Returns the number of at most nine digits at the start, and what follows it.
fn first_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let length = text.iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    let add = |number, digit: &u8| number * 10 + u32::from(digit - b'0');
    (1..10).contains(&length).then(|| (digits.iter().fold(0, add), rest))
}

/// Whether two neighbours among the entries of one name are in the wrong order. A version that cannot
/// be parsed has none.
fn is_out_of_order(version: &str, next: &str) -> bool {
    let parse = |text: &str| text.parse::<Version>().ok();
    parse(version).zip(parse(next)).is_some_and(|(version, next)| version.sort_cmp(&next).is_lt())
}

/// Whether the entries of one name are sorted already. Also true if a version cannot be parsed:
/// another tool has published it, and it cannot be sorted.
fn is_in_order(group: &[Member<'_>]) -> bool {
    let [_, _, ..] = group else { return true };
    let versions: Result<Vec<Version>, _> = group.iter().map(|member| member.version.parse()).collect();
    versions.map_or(true, |versions| versions.is_sorted_by(|one, next| one.sort_cmp(next).is_ge()))
}

/// Orders entries whose versions compare equal.
fn by_text(one: &Member<'_>, other: &Member<'_>) -> Ordering {
    one.version.cmp(&other.version).then_with(|| one.architecture.cmp(&other.architecture))
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
mod tests;
