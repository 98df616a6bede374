//! The warnings about a recipe. The log has each once; `/status` has it as long as its cause lasts. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peipkg_format::object_id::ObjectId;
use peipkg_format::problem::excerpt;
use peipkg_format::sort;
use peipkg_format::version::Version;

use crate::farm::events::{JobKey, NoCommit, Notice, Warned, Warning};
use crate::farm::status::{self, LISTED, Status};
use crate::farm::{Effects, Farm};

/// How many unusable tags of one recipe the log names, each once. The rest is only counted: a
/// hostile upstream cannot fill the log.
const NAMED_BAD_TAGS: usize = 20;

pub(super) const NO_TAG_MATCHES: &str = "no tag matches tag_pattern";
pub(super) const EXCLUDE_NAMES_NO_TAG: &str = "exclude names no tag of the upstream";
pub(super) const TAG_SKIPPED: &str = "tag skipped";
pub(super) const MORE_TAGS_SKIPPED: &str = "more tags skipped";
pub(super) const PARTLY_PUBLISHED: &str = "version is only partly published, skipping it";
pub(super) const TAG_MOVED: &str = "published tag moved";
pub(super) const MORE_TAGS_MOVED: &str = "more published tags moved";
pub(super) const VERSIONS_LEFT_OUT: &str = "too many versions wait, leaving the oldest to later polls";
pub(super) const DEDUP_CHECK_FAILED: &str = "dedup check failed";

/// Ends the warning about a version that is only partly published.
pub(super) const RAISE_REVISION: &str = "raise peios_revision";

/// Collects the warnings of one match with an upstream's tags.
pub(super) struct Warnings<'a> {
    recipe: &'a Arc<str>,
    before: Warned,
    current: Warned,
    unnamed: usize,
    /// How many published tags that moved are named, and how many are not.
    moved: (usize, usize),
}

impl<'a> Warnings<'a> {
    /// Begins with the warnings of the last match.
    pub(super) fn new(recipe: &'a Arc<str>, before: Warned) -> Self {
        Self { recipe, before, current: Warned::new(), unnamed: 0, moved: (0, 0) }
    }

    /// Records a warning. Returns whether the last match did not give it.
    fn is_new(&mut self, event: &'static str, subject: &str, detail: String) -> bool {
        let key = (event, Box::from(subject));
        // A tag may move again.
        let is_new = self.before.get(&key).is_none_or(|before| event == TAG_MOVED && **before != *detail);
        self.current.insert(key, detail.into());
        is_new
    }

    /// Warns that no tag matches; again for each new pattern, which may be wrong in another way.
    pub(super) fn no_match(&mut self, tag_pattern: &str, example: &str, effects: &mut Effects) {
        if self.is_new(NO_TAG_MATCHES, tag_pattern, format!("a tag is {}", excerpt(example))) {
            let (tag_pattern, example) = (tag_pattern.to_owned(), example.to_owned());
            effects.report(Notice::NoTagMatches { recipe: self.recipe.clone(), tag_pattern, example });
        }
    }

    /// Warns of excluded tags that the upstream does not have; again for each other set of them.
    pub(super) fn absent(&mut self, excluded: &BTreeSet<&str>, example: &str, effects: &mut Effects) {
        let excluded: Vec<&str> = excluded.iter().copied().collect();
        let excluded = excluded.join(" ");
        if self.is_new(EXCLUDE_NAMES_NO_TAG, &excluded, format!("a tag is {}", excerpt(example))) {
            let (exclude, example) = (excerpt(&excluded).into_owned(), example.to_owned());
            effects.report(Notice::ExcludeNamesNoTag { recipe: self.recipe.clone(), exclude, example });
        }
    }

    /// Warns of a tag that matches, but cannot be built.
    pub(super) fn skipped(&mut self, tag: &str, reason: String, effects: &mut Effects) {
        if self.current.len() - self.moved.0 >= NAMED_BAD_TAGS {
            self.unnamed += 1;
        } else if self.is_new(TAG_SKIPPED, tag, reason.clone()) {
            let (recipe, tag) = (self.recipe.clone(), tag.to_owned());
            effects.report(Notice::TagSkipped { recipe, tag, reason });
        }
    }

    /// Warns of a version of which the archive has some packages only.
    pub(super) fn partly_published(&mut self, key: &JobKey, effects: &mut Effects) {
        if self.is_new(PARTLY_PUBLISHED, key.version.as_str(), RAISE_REVISION.to_owned()) {
            effects.report(Notice::PartlyPublished { key: key.clone() });
        }
    }

    /// Compares the commit of a published version with the one that its tag has now. Warns if they
    /// differ, and tells when they no longer do.
    pub(super) fn compare(
        &mut self,
        key: &JobKey,
        tag: &str,
        (published, listed): (ObjectId, ObjectId),
        effects: &mut Effects,
    ) {
        let (subject, tag) = (key.version.as_str(), tag.to_owned());
        if published == listed {
            if self.before.contains_key(&(TAG_MOVED, subject.into())) {
                effects.report(Notice::TagMovedBack { key: key.clone(), tag });
            }
        } else if self.moved.0 >= NAMED_BAD_TAGS {
            self.moved.1 += 1;
        } else {
            self.moved.0 += 1;
            if self.is_new(TAG_MOVED, subject, moved(&tag, published, listed)) {
                effects.report(Notice::TagMoved { key: key.clone(), tag, published, listed });
            }
        }
    }

    /// Warns of versions that the queue has no room for, at each match: their number tells how it goes.
    pub(super) fn left_out(&mut self, versions: usize, effects: &mut Effects) {
        if versions > 0 {
            self.is_new(VERSIONS_LEFT_OUT, "", format!("{versions} versions"));
            effects.report(Notice::VersionsLeftOut { recipe: self.recipe.clone(), versions });
        }
    }

    /// Warns of the unnamed tags. Returns all warnings, for the next match.
    pub(super) fn finish(mut self, effects: &mut Effects) -> Warned {
        let moved = self.moved.1;
        if moved > 0 && self.is_new(MORE_TAGS_MOVED, &moved.to_string(), String::new()) {
            effects.report(Notice::MoreTagsMoved { recipe: self.recipe.clone(), count: moved });
        }
        let count = self.unnamed;
        if count > 0 && self.is_new(MORE_TAGS_SKIPPED, &count.to_string(), String::new()) {
            effects.report(Notice::MoreTagsSkipped { recipe: self.recipe.clone(), count });
        }
        self.current
    }
}

/// Says that the tag of a published version moved.
pub(crate) fn moved(tag: &str, published: ObjectId, listed: ObjectId) -> String {
    format!("tag {} moved: commit {published} is published, the tag is now at {listed}", excerpt(tag))
}

/// Whether an event may flood the list, and tells of one tag or file only. Such warnings come last.
pub(super) fn is_light(event: &str) -> bool {
    matches!(event, TAG_SKIPPED | MORE_TAGS_SKIPPED | "recipe warning")
}

impl Status {
    /// Adds warnings, and how many of each event there are. Keeps the gravest first.
    pub(crate) fn add_warnings(
        &mut self,
        warnings: Vec<status::Warning>,
        count: BTreeMap<&'static str, usize>,
    ) {
        for (event, count) in count {
            *self.warnings_by_event.entry(event).or_default() += count;
            self.warnings_length += count;
        }
        self.warnings.splice(0..0, warnings);
        let weight =
            |warning: &status::Warning| (warning.event != DEDUP_CHECK_FAILED, is_light(warning.event));
        sort::sort_by(&mut self.warnings, |a, b| weight(a).cmp(&weight(b)));
        self.warnings.truncate(LISTED);
    }

    /// Whether the index cannot be read, so that nothing can be published.
    pub(crate) fn cannot_publish(&self) -> bool {
        self.warnings_by_event.contains_key(DEDUP_CHECK_FAILED)
    }
}

impl Farm {
    /// Adds a warning about a build, which lasts until the version is built again or its recipe changes:
    /// published packages stay as they are.
    pub(super) fn add_build_warning(&mut self, recipe: &Arc<str>, warning: Warning) {
        self.build_warnings.entry(recipe.clone()).or_default().add(warning);
    }

    /// Warns of a tag that a fetch has found to be no version. The next poll need not warn again.
    pub(super) fn warn_skipped(&mut self, recipe: &Arc<str>, found: &NoCommit, effects: &mut Effects) {
        let warned = self.warned.entry(recipe.clone()).or_default();
        let subject = |text: &str| Box::from(text);
        let named = (TAG_SKIPPED, subject(&found.tag));
        if warned.len() < NAMED_BAD_TAGS || warned.contains_key(&named) {
            warned.insert(named, subject(&found.reason));
            let (tag, reason) = (found.tag.clone(), found.reason.clone());
            return effects.report(Notice::TagSkipped { recipe: recipe.clone(), tag, reason });
        }
        let counted = warned.keys().find(|(event, _)| *event == MORE_TAGS_SKIPPED).cloned();
        let before = counted.as_ref().and_then(|(_, count)| count.parse::<usize>().ok()).unwrap_or(0);
        if let Some(counted) = counted {
            warned.remove(&counted);
        }
        let count = before + 1;
        warned.insert((MORE_TAGS_SKIPPED, subject(&count.to_string())), subject(""));
        // Each build finds one more.
        if count.is_power_of_two() {
            effects.report(Notice::MoreTagsSkipped { recipe: recipe.clone(), count });
        }
    }

    /// Ends the warnings about earlier builds of a version.
    pub(super) fn end_build_warnings(&mut self, recipe: &Arc<str>, version: &Version) {
        if let Some(warnings) = self.build_warnings.get_mut(recipe) {
            warnings.kept.retain(|warning| warning.subject != version.as_str());
            if warnings.kept.is_empty() {
                self.build_warnings.remove(recipe);
            }
        }
    }
}
