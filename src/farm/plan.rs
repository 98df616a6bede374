//! Decides how a sweep treats each tag of a recipe's upstream, and why. Polls act on it, and `--plan`
//! shows it. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use peipkg_format::archive_index::Presence;
use peipkg_format::object_id::ObjectId;
use peipkg_format::sort;
use peipkg_format::version::Version;

use crate::farm::Farm;
use crate::farm::events::{JobKey, Tags};
use crate::farm::queue::MAX_WAITING;
use crate::farm::warnings::{RAISE_REVISION, moved};
use crate::recipe::Recipe;
use crate::recipe::tag_reader::{TagReader, TagVersion};
use crate::recipe::upstream_url::UpstreamUrl;

/// The meaning of a tag to a recipe, as far as the farm knows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The pattern does not match.
    Foreign,
    /// The recipe excludes it.
    Excluded,
    /// Its version is older than `min_version`.
    TooOld,
    /// It cannot be built.
    Unusable {
        /// Why, as the log has it.
        reason: String,
        /// Whether it has a version.
        is_version: bool,
    },
    /// It is this version, of which the archive has so much.
    Version(Version, Presence),
}

/// The plan for a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecipePlan {
    /// How many tags the upstream has.
    pub tags_seen: usize,
    /// One of the tags, if there are any.
    pub example: Option<String>,
    /// The matching tags: the newest version first, those without a version last.
    pub tags: Vec<TagPlan>,
}

/// The plan for a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagPlan {
    /// The tag.
    pub tag: String,
    /// Its package version, if it has one.
    pub version: Option<Version>,
    /// The action of a sweep.
    pub action: Action,
}

/// How a sweep treats a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Build it.
    Build,
    /// Publish the packages, which an earlier run has built.
    Publish,
    /// Nothing: it is published.
    Published,
    /// Nothing: it is published, and its tag moved since, as this says.
    Moved(String),
    /// Nothing, for this reason.
    Skip(String),
}

impl Farm {
    /// Returns the meaning of `tag` to `recipe`. `first` says which earlier tag has the same version.
    pub(super) fn meaning_of<'t>(
        &self,
        recipe: &Recipe,
        reader: &TagReader<'_>,
        (tag, object): (&str, ObjectId),
        first: impl Fn(&Version) -> Option<&'t str>,
    ) -> Meaning {
        let version = match reader.version_of(tag) {
            TagVersion::NoMatch => return Meaning::Foreign,
            TagVersion::Excluded => return Meaning::Excluded,
            TagVersion::TooOld => return Meaning::TooOld,
            TagVersion::Invalid { reason, .. } => {
                return Meaning::Unusable { reason: reason.to_string(), is_version: false };
            }
            TagVersion::Version(version) => version,
        };
        if let Some(reason) = self.skipped_tags.no_commit(reader.upstream(), tag, object) {
            return Meaning::Unusable { reason: reason.to_owned(), is_version: true };
        }
        if let Some(first) = first(&version) {
            let reason = format!("tag {first:?} is version {version} too");
            return Meaning::Unusable { reason, is_version: true };
        }
        let presence = self.archive.presence(&recipe.packages, &version);
        // What is published stays so, whoever may sign today.
        let refused =
            (presence == Presence::Absent).then(|| self.skipped_tags.refused(reader.upstream(), tag, object));
        match refused.flatten() {
            Some(reason) => Meaning::Unusable { reason: reason.to_owned(), is_version: true },
            None => Meaning::Version(version, presence),
        }
    }

    /// Returns the plan for each recipe of `upstream`, which has these tags.
    pub(crate) fn plans(&self, upstream: &UpstreamUrl, tags: &Tags) -> Vec<(Arc<str>, RecipePlan)> {
        let recipes = self.recipes_of(upstream);
        recipes.filter_map(|id| Some((id.clone(), self.plan_of(id, tags)?))).collect()
    }

    fn plan_of(&self, id: &Arc<str>, tags: &Tags) -> Option<RecipePlan> {
        let (recipe, upstream) = self.watched_recipe(id)?;
        let reader = upstream.tag_reader();
        let mut firsts: HashMap<Version, &str> = HashMap::new();
        let mut plans = Vec::new();
        let commits = self.commits.of(id);
        for (tag, listed) in tags.listed() {
            let skip = |reason: String| (None, Action::Skip(reason));
            let meaning = self
                .meaning_of(&recipe, &reader, (tag, listed.object), |version| firsts.get(version).copied());
            let (version, action) = match meaning {
                Meaning::Foreign => continue,
                Meaning::Excluded => skip("excluded by the recipe".to_owned()),
                Meaning::TooOld => {
                    // `min_version` has a revision, which does not count.
                    let least = upstream.min_version.as_ref().map_or("", Version::as_str);
                    let least = least.rsplit_once('-').map_or(least, |(least, _)| least);
                    skip(format!("older than min_version {least}"))
                }
                Meaning::Unusable { reason, .. } => skip(reason),
                Meaning::Version(version, presence) => {
                    firsts.insert(version.clone(), tag);
                    let published = commits.get(version.as_str()).filter(|_| presence == Presence::Complete);
                    let action = match published {
                        Some(published) if *published != listed.commit() => {
                            Action::Moved(moved(tag, *published, listed.commit()))
                        }
                        _ => self.action_for(&recipe, &version, presence),
                    };
                    (Some(version), action)
                }
            };
            plans.push(TagPlan { tag: tag.to_owned(), version, action });
        }
        // As the queue orders them.
        sort::sort_by(&mut plans, |a, b| match (&a.version, &b.version) {
            (Some(a), Some(b)) => b.sort_cmp(a),
            (a, b) => Reverse(a.is_some()).cmp(&Reverse(b.is_some())),
        });
        let builds = plans.iter_mut().filter(|plan| plan.action == Action::Build);
        for plan in builds.skip(MAX_WAITING) {
            plan.action =
                Action::Skip(format!("more than {MAX_WAITING} versions wait, a later sweep builds it"));
        }
        let example = tags.iter().last().map(str::to_owned);
        Some(RecipePlan { tags_seen: tags.len(), example, tags: plans })
    }

    fn action_for(&self, recipe: &Recipe, version: &Version, presence: Presence) -> Action {
        let Recipe { id, packages, .. } = recipe;
        let key = JobKey { recipe: id.clone(), version: version.clone() };
        match presence {
            Presence::Complete => Action::Published,
            Presence::Partial => Action::Skip(format!("only partly published, {RAISE_REVISION}")),
            Presence::Absent if self.publishing.is_pending(&key) => Action::Publish,
            // A plan starts no build, so these are pending.
            Presence::Absent if self.publishing.is_claimed(packages, version) => {
                Action::Skip("another recipe has built its packages".to_owned())
            }
            Presence::Absent if self.paused_since.is_some() => Action::Skip("builds are paused".to_owned()),
            Presence::Absent if self.is_held(id) => Action::Skip("the recipe is paused".to_owned()),
            Presence::Absent => Action::Build,
        }
    }

    /// Returns the versions that earlier runs have built.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &JobKey> {
        self.publishing.keys()
    }

    /// Whether each upstream was listed, or cannot be.
    pub(crate) fn has_listed_all(&self) -> bool {
        self.schedule.is_quiet()
    }
}
