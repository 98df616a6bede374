//! A warning whose cause lasts: the log has it once, `/status` as long as it is so. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::farm::status;

/// A warning whose cause lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// The message of its log line.
    pub event: &'static str,
    /// A tag, a version, a path or the like; empty if the event has only one cause.
    pub subject: String,
    /// The rest of the line, for people.
    pub detail: String,
}

impl Warning {
    /// Returns the warning as `/status` has it.
    pub(crate) fn of(self, recipe: Option<Arc<str>>) -> status::Warning {
        status::Warning { event: self.event, recipe, subject: self.subject, detail: self.detail }
    }
}

/// The warnings that were given about a recipe: event and subject, and the detail.
pub(crate) type Warned = BTreeMap<(&'static str, Box<str>), Box<str>>;
