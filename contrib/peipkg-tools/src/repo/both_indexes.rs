//! Reads both indexes side by side: each entry passes by once. Decides which entry is next; the
//! rules are in [`full_entry`](super::full_entry) and [`listed`](super::listed).

use std::fs::File;
use std::mem;

use peipkg_format::package_url::Place;

use super::full_entry::FullEntry;
use super::index::IndexKind;
use super::index_stream::IndexStream;
use super::listed::Listed;

/// Both indexes at their ends, and what was found on the way.
pub(super) struct Both<'a> {
    pub(super) active: IndexStream<'a>,
    pub(super) archive: IndexStream<'a>,
    /// The entries that break a rule on their own.
    pub(super) faults: Vec<String>,
    /// How the indexes differ, if there is no fault: an entry with a fault may be of any length, and is
    /// not compared.
    pub(super) differences: Vec<String>,
    /// The number of entries of the archive that are stored elsewhere.
    pub(super) elsewhere: usize,
}

/// Reads both indexes.
pub(super) fn read<'a>(active: &'a File, archive: &'a File) -> Both<'a> {
    let compare = |listed| try_read(IndexStream::new(active), IndexStream::new(archive), listed);
    compare(Listed::sorted()).or_else(|| compare(Listed::unsorted())).expect("takes any order")
}

/// Reads both indexes; returns nothing if `listed` needs them in another order.
fn try_read<'a>(
    mut active: IndexStream<'a>,
    mut archive: IndexStream<'a>,
    mut listed: Listed,
) -> Option<Both<'a>> {
    let (mut elsewhere, mut faults) = (0, Faults::default());
    // The next active entry. One that is added stays while the archive has entries of its name.
    let mut ahead = active.next();
    let mut is_added = false;
    while let Some((entry, json)) = archive.next() {
        let checked = entry.check();
        let place = checked.as_ref().map_or_else(|_| entry.place().ok(), |checked| Some(checked.place));
        elsewhere += usize::from(matches!(place, Some(Place::Elsewhere(_))));
        let checked = match checked {
            Ok(checked) if faults.is_empty() => checked,
            Ok(_) => continue,
            Err(problem) => {
                faults.archive.push(fault(IndexKind::Archive, &entry, &problem));
                continue;
            }
        };
        if listed.begin_group(&entry) {
            if mem::take(&mut is_added) {
                drop(ahead);
                ahead = active.next();
            }
            while let Some((own, text)) = ahead {
                let order = listed.order(&own, &entry.name);
                if order.is_le() {
                    // An entry equal to a checked one has been checked.
                    add_active(&mut listed, &mut faults, &own, text, text == json);
                }
                if order.is_ge() {
                    is_added = order.is_eq();
                    ahead = Some((own, text));
                    break;
                }
                drop(own);
                ahead = active.next();
            }
        }
        if faults.is_empty() {
            listed.add_archived(&entry, checked, json, ahead.as_ref().filter(|_| is_added));
        }
        if listed.has_failed() {
            return None;
        }
    }
    listed.end_group();
    if is_added {
        drop(ahead);
        ahead = active.next();
    }
    while let Some((own, text)) = ahead {
        add_active(&mut listed, &mut faults, &own, text, false);
        drop(own);
        ahead = active.next();
    }
    if listed.has_failed() {
        return None;
    }
    let faults = [faults.active, faults.archive].concat();
    Some(Both { active, archive, faults, differences: listed.end(), elsewhere })
}

/// The entries that break a rule on their own.
#[derive(Default)]
struct Faults {
    active: Vec<String>,
    archive: Vec<String>,
}

impl Faults {
    fn is_empty(&self) -> bool {
        self.active.is_empty() && self.archive.is_empty()
    }
}

fn add_active(listed: &mut Listed, faults: &mut Faults, entry: &FullEntry<'_>, json: &str, is_checked: bool) {
    match if is_checked { None } else { entry.check().err() } {
        Some(problem) => faults.active.push(fault(IndexKind::Active, entry, &problem)),
        None if faults.is_empty() => listed.add_active(entry, json),
        None => {}
    }
}

/// Returns the line of the report for an entry that breaks a rule on its own.
fn fault(kind: IndexKind, entry: &FullEntry<'_>, problem: &str) -> String {
    format!("{} index: {}: {problem}", kind.as_str(), entry.shown())
}
