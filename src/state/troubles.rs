//! What is wrong at the edge of the farm and lasts: disks, settings, left files. The log says it once;
//! `/status` says it as long as it is so. It must not decide anything.
//!
//! One list for the process, as there is one log: who meets such a trouble has no channel to the core.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use peipkg_format::problem::excerpt;

use crate::farm::events::Warning;

/// How many troubles of one event are kept: a disk that is full may cause any number.
const KEPT: usize = 100;

static TROUBLES: Mutex<Vec<Trouble>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Trouble {
    warning: Warning,
    /// The file or directory that is the trouble as long as it is there.
    left: Option<PathBuf>,
}

/// Records a trouble that lasts until [`end`]. `event` is the message of its log line.
pub(crate) fn begin(event: &'static str, subject: &str, detail: &dyn fmt::Display) {
    add(event, subject, detail, None);
}

/// Records a trouble that lasts until nothing is at `left`.
pub(crate) fn begin_while_there(event: &'static str, left: &Path, detail: &dyn fmt::Display) {
    add(event, &left.display().to_string(), detail, Some(left.to_owned()));
}

/// Ends all troubles of an event.
pub(crate) fn end(event: &str) {
    list().retain(|trouble| trouble.warning.event != event);
}

/// Ends one trouble of an event.
pub(crate) fn end_one(event: &str, subject: &str) {
    list().retain(|trouble| trouble.warning.event != event || trouble.warning.subject != subject);
}

/// Returns all that are left. Looks whether their files are still there.
pub(crate) fn all() -> Vec<Warning> {
    let mut list = list();
    list.retain(|trouble| trouble.left.as_ref().is_none_or(|left| left.symlink_metadata().is_ok()));
    list.iter().map(|trouble| trouble.warning.clone()).collect()
}

fn add(event: &'static str, subject: &str, detail: &dyn fmt::Display, left: Option<PathBuf>) {
    let (subject, detail) = (subject.to_owned(), excerpt(&detail.to_string()).into_owned());
    let mut list = list();
    list.retain(|trouble| trouble.warning.event != event || trouble.warning.subject != subject);
    if list.iter().filter(|trouble| trouble.warning.event == event).count() < KEPT {
        list.push(Trouble { warning: Warning { event, subject, detail }, left });
    }
}

fn list() -> MutexGuard<'static, Vec<Trouble>> {
    // The list is whole after each change.
    TROUBLES.lock().unwrap_or_else(PoisonError::into_inner)
}
