//! Compares the commits that published versions were built from with those that their tags have now. Pure.

use std::sync::Arc;

use peipkg_format::object_id::ObjectId;
use peipkg_format::version::Version;

use crate::farm::events::{Effect, JobKey, PendingOutputs};
use crate::farm::warnings::Warnings;
use crate::farm::{Effects, Farm};

impl Farm {
    /// Compares the commits of published versions with those that their tags have now. Takes these for
    /// the published ones where nobody knows them: an earlier manager has published the version.
    pub(super) fn compare_commits(
        &mut self,
        id: &Arc<str>,
        published: Vec<(Version, &str, ObjectId)>,
        warnings: &mut Warnings<'_>,
        effects: &mut Effects,
    ) {
        let commits = self.commits.of(id);
        let mut believed = Vec::new();
        for (version, tag, listed) in published {
            match commits.get(version.as_str()) {
                Some(published) => {
                    let key = JobKey { recipe: id.clone(), version };
                    warnings.compare(&key, tag, (*published, listed), effects);
                }
                None => believed.push((version, listed)),
            }
        }
        if believed.is_empty() {
            return;
        }
        self.commits.reserve(id, &believed);
        for (version, commit) in &believed {
            self.commits.set(id, version.as_str(), *commit);
        }
        effects.0.push(Effect::RememberCommits(id.clone(), believed));
    }

    /// Remembers from which commit a version was built that is published now.
    pub(super) fn remember_commit(&mut self, outputs: &PendingOutputs) {
        if let Some(built_from) = &outputs.built_from {
            let JobKey { recipe, version } = &outputs.key;
            self.commits.set(recipe, version.as_str(), built_from.commit);
            // The last listing may have shown another commit.
            self.matched.forget(recipe);
        }
    }
}
