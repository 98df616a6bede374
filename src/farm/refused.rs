//! Remembers which tags no signer of a recipe has signed. A tag stays refused until it is moved, or
//! until the recipe has another file with signers. Pure.

use std::collections::{HashMap, HashSet};

use peipkg_format::object_id::ObjectId;

use crate::farm::events::{NoCommit, Refusal};
use crate::recipe::Upstream;

/// How many tags are remembered. A hostile upstream can have any number; each costs a fetch.
const KEPT: usize = 100_000;

/// The refused tags, by the digest of the signers, the redacted upstream and the tag.
#[derive(Debug, Default)]
pub(super) struct RefusedTags(HashMap<(u64, String, String), Refused>);

#[derive(Debug)]
struct Refused {
    object: String,
    reason: String,
}

impl RefusedTags {
    /// Adds a tag, in the place of its older object. Ignores one without a refusal.
    pub(super) fn add(&mut self, NoCommit { upstream, tag, reason, refusal }: NoCommit) {
        let Some(Refusal { object, signers }) = refusal else { return };
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0.insert((signers, upstream, tag), Refused { object, reason });
    }

    /// Forgets the tags that are refused to none of these recipes' `upstreams`.
    pub(super) fn keep<'a>(&mut self, upstreams: impl Iterator<Item = &'a Upstream>) {
        if self.0.is_empty() {
            return;
        }
        let wanted: HashSet<(u64, String)> = upstreams
            .filter_map(|upstream| Some((upstream.signers.as_ref()?.digest, upstream.url.to_string())))
            .collect();
        self.0.retain(|(signers, url, _), _| wanted.contains(&(*signers, url.clone())));
    }

    /// Returns why the tag is refused to the recipes with these signers, if it still is. `object` is the
    /// id of its object in the listing.
    pub(super) fn reason(&self, upstream: &Upstream, tag: &str, object: ObjectId) -> Option<&str> {
        let signers = upstream.signers.as_ref().filter(|_| !self.0.is_empty())?;
        let refused = self.0.get(&(signers.digest, upstream.url.to_string(), tag.to_owned()))?;
        (object.to_string() == refused.object).then_some(&*refused.reason)
    }
}
