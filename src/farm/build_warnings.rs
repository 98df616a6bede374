//! The warnings about the builds of one recipe. Pure.

use std::collections::BTreeMap;

use peipkg_format::version::Version;

use crate::farm::events::Warning;

/// How many warnings of one recipe are kept, those of its newest versions.
const KEPT: usize = 20;

/// The warnings about the builds of a recipe, each with its version as subject.
#[derive(Debug, Default)]
pub(super) struct BuildWarnings {
    pub(super) kept: Vec<Warning>,
    /// How many were dropped.
    pub(super) dropped: BTreeMap<&'static str, usize>,
}

impl BuildWarnings {
    /// Adds a warning, in the place of one about the same version and event.
    pub(super) fn add(&mut self, warning: Warning) {
        self.kept.retain(|other| (other.event, &other.subject) != (warning.event, &warning.subject));
        self.kept.push(warning);
        if self.kept.len() > KEPT {
            let version = |warning: &Warning| warning.subject.parse::<Version>().ok();
            let versions = self.kept.iter().enumerate().filter_map(|(at, one)| Some((at, version(one)?)));
            let oldest = versions.min_by(|(_, a), (_, b)| a.sort_cmp(b)).map_or(0, |(at, _)| at);
            *self.dropped.entry(self.kept.remove(oldest).event).or_default() += 1;
        }
    }
}
