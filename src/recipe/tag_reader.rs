//! Reads the tags of an upstream: whether a tag is a version to a recipe, and which. Pure.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use peipkg_format::sort;
use peipkg_format::version::{Version, VersionError};

use crate::recipe::Upstream;
use crate::recipe::tag_pattern::{TagMatcher, useless_exclusion};

/// Reads the tags of an upstream.
#[derive(Debug)]
pub struct TagReader<'a> {
    upstream: &'a Upstream,
    matcher: TagMatcher,
    /// The end of each version: `-<peios_revision>`.
    revision: String,
}

/// The meaning of a tag to a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagVersion {
    /// The pattern does not match, or captures nothing.
    NoMatch,
    /// The pattern matches, but the recipe excludes the tag.
    Excluded,
    /// The version is older than `min_version`.
    TooOld,
    /// The captured text is not a version (PSD-009 §2.2).
    Invalid {
        /// The captured text, unchecked: it comes from the upstream.
        captured: String,
        /// Why it is no version.
        reason: VersionError,
    },
    /// The package version to build the tag as.
    Version(Version),
}

impl Upstream {
    /// Returns a reader of its tags. It compiles the pattern: keep it for all tags of a listing.
    pub fn tag_reader(&self) -> TagReader<'_> {
        let revision = format!("-{}", self.peios_revision);
        TagReader { upstream: self, matcher: self.tag_pattern.matcher(), revision }
    }
}

impl<'a> TagReader<'a> {
    /// Returns the meaning of `tag`.
    pub fn version_of(&self, tag: &str) -> TagVersion {
        let Upstream { exclude, min_version, .. } = self.upstream;
        let Some(captured) = self.matcher.capture(tag) else { return TagVersion::NoMatch };
        // Before the version: a tag that is no version may be excluded to end its warning.
        if exclude.binary_search_by(|excluded| excluded.as_str().cmp(tag)).is_ok() {
            return TagVersion::Excluded;
        }
        let version: Version = match [&captured, &*self.revision].concat().parse() {
            Ok(version) => version,
            Err(reason) => return TagVersion::Invalid { captured, reason },
        };
        match min_version {
            Some(least) if version.compare_upstream(least) == Ordering::Less => TagVersion::TooOld,
            _ => TagVersion::Version(version),
        }
    }

    /// Returns the excluded tags that the upstream may have; loading has warned of the others.
    pub(crate) fn possible_exclusions(&self) -> BTreeSet<&'a str> {
        let is_possible = |tag: &&String| useless_exclusion(tag, Some(&self.matcher)).is_none();
        self.upstream
            .exclude
            .iter()
            .filter(is_possible)
            .map(String::as_str)
            .fold(BTreeSet::new(), sort::included)
    }

    /// Returns the upstream.
    pub(crate) fn upstream(&self) -> &Upstream {
        self.upstream
    }

    /// Returns the version in `tag` as written.
    pub(crate) fn capture(&self, tag: &str) -> Option<String> {
        self.matcher.capture(tag)
    }
}
