//! What is wrong at the edge of the farm and lasts: disks, settings, left files. The log says it once;
//! `/status` says it as long as it is so. It must not decide anything.
//!
//! One list for the process, as there is one log: who meets such a trouble has no channel to the core.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peipkg_format::problem::{excerpt, shortened};

use crate::farm::status::Warning;

/// How many troubles of one event are kept: a disk that is full may cause any number. The others are
/// only counted.
const KEPT: usize = 100;

/// How long the subject of a trouble may be, in characters. Longer than an excerpt: paths that differ
/// only in the middle must not become the same.
const SUBJECT: usize = 1000;

static TROUBLES: Mutex<Troubles> = Mutex::new(Troubles { list: Vec::new(), more: BTreeMap::new() });

/// All troubles that are left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Troubles {
    list: Vec<Trouble>,
    /// How many troubles of an event are not in the list. They end with the last one that is.
    more: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    warning: Warning,
    /// The file or directory that is the trouble as long as it is there.
    left: Option<PathBuf>,
}

impl Troubles {
    /// Returns those that are kept, and how many of each event there are in all.
    pub(crate) fn into_warnings(self) -> (Vec<Warning>, BTreeMap<&'static str, usize>) {
        let mut count = self.more;
        let warnings: Vec<Warning> = self.list.into_iter().map(|trouble| trouble.warning).collect();
        for warning in &warnings {
            *count.entry(warning.event).or_default() += 1;
        }
        (warnings, count)
    }

    fn retain(&mut self, is_left: impl Fn(&Trouble) -> bool) {
        self.list.retain(is_left);
        let list = &self.list;
        self.more.retain(|event, _| list.iter().any(|trouble| trouble.warning.event == *event));
    }
}

/// Records a trouble that lasts until [`end`]. `event` is the message of its log line.
pub(crate) fn begin(event: &'static str, subject: &str, detail: &dyn fmt::Display) {
    add(event, None, subject, detail, None);
}

/// Records a trouble of a recipe.
pub(crate) fn begin_of(event: &'static str, recipe: Option<Arc<str>>, subject: &str) {
    add(event, recipe, subject, &"", None);
}

/// Records a trouble that lasts until nothing is at `left`.
pub(crate) fn begin_while_there(event: &'static str, left: &Path, detail: &dyn fmt::Display) {
    add(event, None, &left.display().to_string(), detail, Some(left.to_owned()));
}

/// Ends all troubles of an event.
pub(crate) fn end(event: &str) {
    troubles().retain(|trouble| trouble.warning.event != event);
}

/// Ends one trouble of an event.
pub(crate) fn end_one(event: &str, subject: &str) {
    let subject = shortened(subject, SUBJECT);
    troubles().retain(|trouble| trouble.warning.event != event || trouble.warning.subject != subject);
}

/// Returns all that are left. Looks whether their files are still there.
pub(crate) fn all() -> Troubles {
    let mut troubles = troubles();
    troubles.retain(|trouble| trouble.left.as_ref().is_none_or(|left| left.symlink_metadata().is_ok()));
    troubles.clone()
}

fn add(
    event: &'static str,
    recipe: Option<Arc<str>>,
    subject: &str,
    detail: &dyn fmt::Display,
    left: Option<PathBuf>,
) {
    let subject = shortened(subject, SUBJECT).into_owned();
    let warning = Warning { event, recipe, subject, detail: excerpt(&detail.to_string()).into_owned() };
    let mut troubles = troubles();
    let of_event = || troubles.list.iter().filter(|trouble| trouble.warning.event == event);
    let (kept, before) =
        (of_event().count(), of_event().position(|one| one.warning.subject == warning.subject));
    if before.is_some() {
        troubles.list.retain(|one| one.warning.event != event || one.warning.subject != warning.subject);
    } else if kept >= KEPT {
        *troubles.more.entry(event).or_default() += 1;
        return;
    }
    troubles.list.push(Trouble { warning, left });
}

fn troubles() -> MutexGuard<'static, Troubles> {
    // The list is whole after each change.
    TROUBLES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many troubles of an event are kept, and how many there are.
    fn count(event: &str) -> (usize, usize) {
        let (kept, count) = all().into_warnings();
        (
            kept.iter().filter(|warning| warning.event == event).count(),
            count.get(event).copied().unwrap_or_default(),
        )
    }

    #[test]
    fn many_troubles_of_an_event_are_counted_and_end_together() {
        let (event, each) = ("test: many", "x".repeat(5000));
        for _ in 0..2 {
            for number in 0..1000 {
                begin_of(event, Some("a".into()), &format!("{number} {each}"));
            }
            assert_eq!(count(event), (KEPT, 1000));
            let (kept, _) = all().into_warnings();
            assert!(kept.iter().all(|warning| warning.subject.len() < 5000), "a subject is cut");
            end(event);
            assert_eq!(count(event), (0, 0));
        }
    }

    #[test]
    fn each_kind_of_trouble_begins_once_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (left, event) = (directory.path().join("left"), "test: kinds");
        std::fs::write(&left, "").unwrap();
        for _ in 0..2 {
            begin(event, "one", &"reason");
            begin(event, "", &"reason");
            begin_while_there(event, &left, &"reason");
        }
        assert_eq!(count(event), (3, 3));
        end_one(event, "one");
        assert_eq!(count(event), (2, 2));
        std::fs::remove_file(&left).unwrap();
        assert_eq!(count(event), (1, 1));
        end(event);
        assert_eq!(count(event), (0, 0));
    }

    #[test]
    fn work_files_that_cannot_be_removed_are_a_trouble_until_they_are_gone() {
        let (event, directory) = ("clear staging dir failed", tempfile::tempdir().unwrap());
        let left = directory.path().join("left");
        std::fs::write(&left, "").unwrap();
        crate::state::durable::not_cleared(&left, &std::io::ErrorKind::PermissionDenied.into());
        let is_there = || {
            let (kept, _) = all().into_warnings();
            kept.iter().any(|one| one.event == event && Path::new(&one.subject) == left)
        };
        assert!(is_there());
        std::fs::remove_file(&left).unwrap();
        assert!(!is_there());
    }
}
